"""Lists and folders of classification that are wrong: each case makes them in an empty folder and checks them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config

import eyetoy_mm  # noqa: F401 - before mmpretrain: supplies what mmcv-lite lacks
from benchmarks.trust.photos import jpeg, put
from eyetoy_mm.engine.data_checks import check_data, data_findings


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


def changed(change: Callable[[Path, Config], Any]) -> Callable[[Path], str]:
    """A case of class folders that are changed, or of a config that is: what is refused, or logged."""

    def run(folder: Path) -> str:
        settings = config(folder)
        settings.model.head.type = "LinearClsHead"
        change(folder, settings)
        check_data(settings, "train", "val")
        return "\n".join(map(str, data_findings(settings, "train", "val")))

    return run


def of_json(first: Any, second: Any) -> Callable[[Path], str]:
    """A case of two photos with such labels in OpenMMLab's JSON."""

    def change(folder: Path, settings: Config) -> None:
        labels = {"cat/0.jpg": first, "dog/0.jpg": second}
        images = [dict(img_path=path, gt_label=label) for path, label in labels.items()]
        content = dict(metainfo=dict(classes=["cat", "dog", "eel"]), data_list=images)
        (folder / "list.json").write_text(json.dumps(content), encoding="utf-8")
        kind = "MultiLabelDataset" if isinstance(first, list) else "BaseDataset"
        settings.train_dataloader.dataset.update(type=kind, ann_file="list.json")
        settings.model.head.num_classes = 3
        settings.val_dataloader = None

    return changed(change)


def of_json_and_named(folder: Path) -> str:
    """The file's names of classes, and others in the config."""

    def change(folder: Path, settings: Config) -> None:
        content = dict(metainfo=dict(classes=["cat", "dog"]), data_list=[dict(img_path="cat/0.jpg", gt_label=0)])
        (folder / "list.json").write_text(json.dumps(content), encoding="utf-8")
        names = dict(classes=("dog", "cat"))
        settings.train_dataloader.dataset.update(type="BaseDataset", ann_file="list.json", metainfo=names)
        settings.val_dataloader = None

    return changed(change)(folder)


def one_class(folder: Path, settings: Config) -> None:
    for split in ("train", "val"):
        shutil.rmtree(folder / split / "dog")
    settings.model.head.num_classes = 1


def one_level_up(folder: Path, settings: Config) -> None:
    for split in ("train", "val"):
        settings[f"{split}_dataloader"].dataset.data_prefix = ""


def numbered_backwards(folder: Path, settings: Config) -> None:
    (folder / "val.txt").write_text("cat/0.jpg 1\ndog/0.jpg 0\n", encoding="utf-8")
    settings.val_dataloader.dataset.ann_file = "val.txt"


def named_backwards(folder: Path, settings: Config) -> None:
    (folder / "list.txt").write_text("cat/0.jpg 1\ndog/0.jpg 0\n", encoding="utf-8")
    settings.train_dataloader.dataset.update(ann_file="list.txt", metainfo=dict(classes=("cat", "dog")))
    settings.val_dataloader = None


def other_names(folder: Path, settings: Config) -> None:
    for split in ("train", "val"):
        settings[f"{split}_dataloader"].dataset.metainfo = dict(classes=("dog", "cat"))


def joined(folder: Path, settings: Config) -> None:
    put(folder, {f"more/{name}/0.jpg": jpeg() for name in ("cat", "eel")})
    first = settings.train_dataloader.dataset
    settings.train_dataloader.dataset = dict(type="ConcatDataset", datasets=[first, dict(first, data_prefix="more")])


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
    "a list with two blanks": listed("cat/0.jpg  0\ndog/0.jpg  1\n"),
    "a list with backslashes": listed("cat\\0.jpg 0\ndog\\0.jpg 1\n"),
    "an image with two labels": changed(
        lambda folder, c: (
            (folder / "list.txt").write_text("cat/0.jpg 0\ncat/0.jpg 1\ndog/0.jpg 1\n", encoding="utf-8"),
            c.train_dataloader.dataset.update(ann_file="list.txt"),
        )
    ),
    "classes in another order than their folders": changed(other_names),
    "a list by which folders have each other's label in validation": changed(numbered_backwards),
    "a list by which folders have each other's name": changed(named_backwards),
    "a folder of train and val for a folder of classes": changed(one_level_up),
    "a hidden folder beside the classes": changed(
        lambda folder, c: (folder / "train/.ipynb_checkpoints").mkdir() or c.model.head.update(num_classes=3)
    ),
    "one class": changed(one_class),
    "a class without an image": changed(lambda folder, _: (folder / "train/dog/0.jpg").unlink()),
    "images of a suffix that is not read": changed(
        lambda folder, _: (folder / "train/dog/0.jpg").rename(folder / "train/dog/0.webp")
    ),
    "joined data sets of other classes": changed(joined),
    "validation on the images of training": changed(lambda _, c: c.val_dataloader.dataset.update(data_prefix="train")),
    "JSON: labels as text": of_json("0", "1"),
    "JSON: classes in another order in the config": of_json_and_named,
    "JSON: a label without an output": of_json(0, 3),
    "JSON: ones and zeros for labels": of_json([1, 0, 0], [0, 1, 1]),
    "JSON: several labels, and a head for one": of_json([0, 2], [1]),
}
