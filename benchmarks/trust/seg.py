"""Segmentation data that are wrong: each case makes them in an empty folder and checks them as ``train.py`` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from PIL import Image

import eyetoy_mm  # noqa: F401 - before mmseg: supplies what mmcv-lite lacks
from eyetoy_mm.engine.data_checks import check_data, data_findings

SIZE = (6, 8)


def labels(*values: int, dtype: Any = np.uint8) -> np.ndarray:
    """A mask that holds these numbers."""
    mask = np.resize(np.array(values), SIZE)
    return mask.astype(dtype)


def write(
    folder: Path,
    masks: list[np.ndarray | None],
    suffix: str = ".jpg",
    mask_suffix: str = ".png",
    size: tuple[int, ...] = SIZE,
) -> dict:
    """Write a dataset of two classes, and return its config."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index, mask in enumerate(masks):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(folder / f"images/{index}{suffix}")
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


def said(*masks: np.ndarray, num_classes: int, **settings: Any) -> Callable[[Path], str]:
    """A case of masks that are odd, and refused by nobody: what is logged."""

    def run(folder: Path) -> str:
        dataset = write(folder, list(masks), size=masks[0].shape)
        dataset |= dict(metainfo=dict(classes=CLASSES[:num_classes]), **settings)
        config = dict(default_scope="mmseg", model=dict(decode_head=dict(num_classes=num_classes)))
        found = data_findings(Config(dict(config, train_dataloader=dict(dataset=dataset))), "train")
        return "\n".join(map(str, found))

    return run


def changed(change: Callable[[Config], Any]) -> Callable[[Path], str]:
    """A case of sound masks in training and validation, and a config that is changed."""

    def run(folder: Path) -> str:
        train, val = (dict(dataset=write(folder / split, [labels(0, 1), labels(1, 0)])) for split in ("train", "val"))
        model = dict(decode_head=dict(num_classes=2), data_preprocessor=dict(seg_pad_val=255))
        config = Config(dict(default_scope="mmseg", model=model, train_dataloader=train, val_dataloader=val))
        change(config)
        check_data(config, "train", "val")
        return "\n".join(map(str, data_findings(config, "train", "val")))

    return run


def numbered_otherwise(folder: Path) -> None:
    """Palettes as a program makes them for each file anew."""
    dataset = write(folder, [labels(0, 1, 2)] * 2) | dict(metainfo=dict(classes=CLASSES[:3]))
    for index, palette in enumerate(([0, 0, 0, 255, 0, 0, 0, 255, 0], [0, 255, 0, 255, 0, 0, 0, 0, 0])):
        mask = Image.fromarray(labels(0, 1, 2), mode="P")
        mask.putpalette(palette)
        mask.save(folder / f"masks/{index}.png")
    check_data(Config(dict(default_scope="mmseg", train_dataloader=dict(dataset=dataset))), "train")


def mirrored(config: Config) -> None:
    """A program copied the photo's tag into the mask."""
    tag = Image.Exif()
    tag[0x0112] = 2
    Image.fromarray(labels(0, 1)).save(Path(config.train_dataloader.dataset.data_root, "masks/0.png"), exif=tag)


def one_image_twice(config: Config) -> None:
    folder = Path(config.train_dataloader.dataset.data_root)
    (folder / "list.txt").write_text("0\n0\n1\n", encoding="utf-8")
    config.train_dataloader.dataset.ann_file = "list.txt"


def numbered_unlike_the_palette(folder: Path) -> str:
    """Masks whose colours are those of the classes, one class on."""
    dataset = write(folder, [labels(0, 1)])
    dataset["metainfo"]["palette"] = [[0, 0, 255], [0, 255, 0]]
    mask = Image.fromarray(labels(0, 1), mode="P")
    mask.putpalette(bytes([0, 255, 0, 0, 0, 255]))
    mask.save(folder / "masks/0.png")
    config = dict(default_scope="mmseg", model=dict(decode_head=dict(num_classes=2)))
    found = data_findings(Config(dict(config, train_dataloader=dict(dataset=dataset))), "train")
    return "\n".join(map(str, found))


def joined(config: Config) -> None:
    second = dict(config.val_dataloader.dataset, metainfo=dict(classes=("tree", "sky")))
    first = config.train_dataloader.dataset
    config.train_dataloader.dataset = dict(type="ConcatDataset", datasets=[first, second])
    config.val_dataloader = None


def own_masks(config: Config) -> None:
    dataset = config.train_dataloader.dataset
    dataset.update(img_suffix=".png", data_prefix=dict(img_path="masks", seg_map_path="masks"))


CLASSES = ("sky", "tree", "road", "house", "car", "lamp")
SMOOTH = cv2.resize(np.kron([[0, 5, 0, 5], [5, 0, 5, 0]], np.ones((8, 8))).astype(np.uint8), (64, 48))

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
    "labels counted from 1": said(labels(1, 2), labels(2, 1), num_classes=3),
    "labels from 0, reduced by 1": said(labels(0, 1, 2), num_classes=3, reduce_zero_label=True),
    "masks resized bilinearly": said(SMOOTH, SMOOTH[::-1], num_classes=6),
    "palettes that number colours as they come": numbered_otherwise,
    "palettes that colour the classes otherwise than the data set": numbered_unlike_the_palette,
    "masks with a tag of orientation": changed(mirrored),
    "masks for images": changed(own_masks),
    "an image listed twice": changed(one_image_twice),
    "validation on the images of training": changed(lambda c: c.update(val_dataloader=c.train_dataloader)),
    "classes in another order in validation": changed(
        lambda c: c.val_dataloader.dataset.update(metainfo=dict(classes=("tree", "sky")))
    ),
    "joined data sets of other classes": changed(joined),
    "reduced labels in validation alone": changed(lambda c: c.val_dataloader.dataset.update(reduce_zero_label=True)),
    "no folder of masks": changed(lambda c: c.train_dataloader.dataset.data_prefix.pop("seg_map_path")),
    "classes as a text": changed(lambda c: c.train_dataloader.dataset.update(metainfo=dict(classes="ab"))),
    "one name for two classes": changed(lambda c: c.train_dataloader.dataset.update(metainfo=dict(classes=("a", "a")))),
    "masks that are loaded when the image was flipped": changed(
        lambda c: c.train_dataloader.dataset.pipeline.insert(1, dict(type="RandomFlip", prob=0.5))
    ),
    "padding that is learnt": changed(lambda c: c.model.data_preprocessor.update(seg_pad_val=0)),
}
