"""Lists and folders of classification that are wrong: each case makes them in an empty folder and checks them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

import eyetoy_mm  # noqa: F401 - before mmpretrain: supplies what mmcv-lite lacks
from benchmarks.trust.photos import jpeg, put
from eyetoy_mm.engine.data_checks import check_data


def config(folder: Path, num_classes: int = 2, **dataset: Any) -> Config:
    """A config of class folders in ``train`` and ``val``, two photos each."""
    put(folder, {f"{split}/{name}/0.jpg": jpeg() for split in ("train", "val") for name in ("cat", "dog")})
    data = dict(type="CustomDataset", data_root=str(folder), pipeline=[])
    train = dict(dataset=dict(data, data_prefix="train", **dataset))
    model, val = dict(head=dict(num_classes=num_classes)), dict(dataset=dict(data, data_prefix="val"))
    return Config(dict(default_scope="mmpretrain", model=model, train_dataloader=train, val_dataloader=val))


def listed(lines: str) -> Callable[[Path], None]:
    """A case of such a list."""

    def run(folder: Path) -> None:
        settings = config(folder, ann_file="list.txt")
        (folder / "list.txt").write_text(lines, encoding="utf-8")
        check_data(settings, "train")

    return run


def other_folder(folder: Path) -> None:
    settings = config(folder)
    (folder / "val/dog").rename(folder / "val/hound")
    check_data(settings, "train", "val")


CASES: dict[str, Callable[[Path], Any]] = {
    "a list with commas": listed("cat/0.jpg,0\ndog/0.jpg,1\n"),
    "a list with a header": listed("path label\ncat/0.jpg 0\n"),
    "a list with an empty line": listed("cat/0.jpg 0\n\ndog/0.jpg 1\n"),
    "a list with names for labels": listed("cat/0.jpg cat\ndog/0.jpg dog\n"),
    "labels counted from 1": listed("cat/0.jpg 1\ndog/0.jpg 2\n"),
    "a list of images that are not there": listed("cat/0.jpg 0\ndog/7.jpg 1\n"),
    "another number of classes than the head's": lambda folder: check_data(config(folder, 1000), "train"),
    "another class folder in validation": other_folder,
}
