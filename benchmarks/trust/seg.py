"""Segmentation data that are wrong: each case makes them in an empty folder and checks them as ``train.py`` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import Image

import eyetoy_mm  # noqa: F401 - before mmseg: supplies what mmcv-lite lacks
from eyetoy_mm.engine.data_checks import check_data

SIZE = (6, 8)


def labels(*values: int, dtype: Any = np.uint8) -> np.ndarray:
    """A mask that holds these numbers."""
    mask = np.resize(np.array(values), SIZE)
    return mask.astype(dtype)


def write(folder: Path, masks: list[np.ndarray | None], suffix: str = ".jpg", mask_suffix: str = ".png") -> dict:
    """Write a dataset of two classes, and return its config."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index, mask in enumerate(masks):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / f"images/{index}{suffix}")
        if mask is not None:
            Image.fromarray(mask).save(folder / f"masks/{index}{mask_suffix}")
    return dict(
        type="BaseSegDataset",
        data_root=str(folder),
        data_prefix=dict(img_path="images", seg_map_path="masks"),
        metainfo=dict(classes=("sky", "tree")),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")],
    )


def checked(*masks: np.ndarray | None, num_classes: int = 2, **settings: Any) -> Callable[[Path], None]:
    """A case of such masks."""

    def run(folder: Path) -> None:
        dataset = write(folder, list(masks), **settings)
        config = dict(default_scope="mmseg", model=dict(decode_head=dict(num_classes=num_classes)))
        check_data(Config(dict(config, train_dataloader=dict(dataset=dataset))), "train")

    return run


CASES: dict[str, Callable[[Path], Any]] = {
    "masks of 0 and 255 for two classes": checked(labels(0, 255), labels(0, 255)),
    "everything ignored": checked(labels(255), labels(255)),
    "labels out of range": checked(labels(0, 1), labels(0, 128)),
    "masks of 16 bits with labels above 255": checked(labels(0, 1, 300, dtype=np.uint16)),
    "masks in colour": checked(np.tile(np.arange(3, dtype=np.uint8), (*SIZE, 1))),
    "grey masks as RGB": checked(np.dstack([labels(0, 1)] * 3)),
    "masks of another size": checked(np.zeros((3, 4), np.uint8)),
    "one class and the background as one output": checked(labels(0, 1), num_classes=1),
    "a mask that is missing": checked(labels(0, 1), None),
    "images with another suffix": checked(labels(0, 1), suffix=".JPEG"),
    "masks with another suffix": checked(labels(0, 1), mask_suffix="_label.png"),
}
