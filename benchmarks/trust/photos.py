"""Photos as phones, scanners and failed downloads leave them, and what a run or ``eyetoy check`` says of them.

A case gets an empty folder, makes small data sets in it and loads them as a run does, or lets the checker look at them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

import eyetoy_mm  # noqa: F401 - before the toolboxes: supplies what mmcv-lite lacks
from eyetoy_mm.engine.check_dataset import check_dataset
from eyetoy_mm.engine.config import datasets_of
from eyetoy_mm.engine.hooks import CheckImagesHook
from eyetoy_mm.engine.photo_rules import apply_image_orientation

# --- Files ----------------------------------------------------------------------------------------------------------


def jpeg(seed: int = 0, size: tuple[int, int] = (48, 32), orientation: int | None = None) -> bytes:
    """A photo of noise, with an EXIF tag of orientation or without."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    exif, buffer = Image.Exif(), io.BytesIO()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def put(root: Path, files: dict[str, bytes | np.ndarray]) -> None:
    """Write files, arrays as images."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            (root / name).write_bytes(content)
        else:
            Image.fromarray(content).save(root / name)


# --- Data sets ------------------------------------------------------------------------------------------------------


def coco(root: Path, name: str, sizes: dict[str, tuple[int, int]]) -> None:
    """COCO's annotations of a box in each of some files, by their width and height."""
    images = [dict(id=i, file_name=n, width=w, height=h) for i, (n, (w, h)) in enumerate(sizes.items(), 1)]
    box = dict(category_id=1, bbox=[2, 3, 10, 20], area=200, iscrowd=0)
    boxes = [dict(box, id=image["id"], image_id=image["id"]) for image in images]
    (root / name).write_text(json.dumps(dict(images=images, annotations=boxes, categories=[dict(id=1, name="cat")])))


def detection(root: Path, **settings: Any) -> Config:
    """A config of the photos in a folder, with ``train.json`` and ``val.json``."""

    def loader(split: str) -> dict:
        dataset = dict(
            type="CocoDataset",
            data_root=str(root),
            ann_file=f"{split}.json",
            data_prefix=dict(img=""),
            metainfo=dict(classes=("cat",)),
            test_mode=split == "val",
            pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True)],
        )
        return dict(dataset=dict(type="RepeatDataset", times=2, dataset=dataset) if split == "train" else dataset)

    loaders = dict(train_dataloader=loader("train"), val_dataloader=loader("val"))
    return Config(dict(default_scope="mmdet", **loaders, **settings))


def segmentation(root: Path, **settings: Any) -> Config:
    """A config of ``train/images``, ``train/masks`` and the same of ``val``; 0 is ignored, 1 and 2 are classes."""

    def loader(split: str) -> dict:
        dataset = dict(
            type="BaseSegDataset",
            data_root=str(root),
            reduce_zero_label=True,
            data_prefix=dict(img_path=f"{split}/images", seg_map_path=f"{split}/masks"),
            metainfo=dict(classes=("sky", "road"), palette=[[0, 0, 0], [9, 9, 9]]),
            pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")],
        )
        return dict(dataset=dataset)

    loaders = dict(train_dataloader=loader("train"), val_dataloader=loader("val"))
    return Config(dict(default_scope="mmseg", **loaders, **settings))


def classification(root: Path, num_classes: int = 2, **settings: Any) -> Config:
    """A config of class folders in ``train`` and ``val``."""

    def loader(split: str) -> dict:
        pipeline = [dict(type="LoadImageFromFile")]
        return dict(dataset=dict(type="CustomDataset", data_root=str(root), data_prefix=split, pipeline=pipeline))

    model = dict(head=dict(num_classes=num_classes))
    loaders = dict(train_dataloader=loader("train"), val_dataloader=loader("val"))
    return Config(dict(default_scope="mmpretrain", model=model, **loaders, **settings))


# --- Cases ----------------------------------------------------------------------------------------------------------


def load_all(config: Config) -> str:
    """Load every training image as a run does."""
    apply_image_orientation(config)
    hook = CheckImagesHook(config.get("image_orientation"), config.get("skip_unreadable_images", False))
    [(_, settings)] = datasets_of(config, ("train",))
    with DefaultScope.overwrite_default_scope(config.default_scope):
        dataset = DATASETS.build(settings)
    hook.check(dataset)
    return f"loaded {len([dataset[index] for index in range(len(dataset))])} images"


def one_photo(folder: Path, content: bytes, size: tuple[int, int], **settings: Any) -> str:
    put(folder, {"a.jpg": content})
    coco(folder, "train.json", {"a.jpg": size})
    return load_all(detection(folder, **settings))


def one_mask(folder: Path, content: bytes | np.ndarray, photo: bytes | None = None) -> str:
    put(folder, {"train/images/a.jpg": photo or jpeg(), "train/masks/a.png": content})
    return load_all(segmentation(folder))


def unreadable(folder: Path, bad: int, skip: float) -> str:
    put(folder, {f"train/cat/{i}.jpg": jpeg(i) if i >= bad else b"<html>404</html>" for i in range(10)})
    return load_all(classification(folder, skip_unreadable_images=skip))


def evaluated(folder: Path) -> str:
    """Validation on ten photos of which one cannot be read, in a run that may leave so many out of training."""
    put(folder, {f"train/cat/{i}.jpg": jpeg(i) if i else b"<html>404</html>" for i in range(10)})
    config = classification(folder)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        dataset = DATASETS.build(config.train_dataloader.dataset)
    hook = CheckImagesHook(skip_unreadable=0.1)
    hook.check(dataset)
    hook.before_val(SimpleNamespace(val_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))))
    return f"loaded {len([dataset[index] for index in range(len(dataset))])} images"


def damaged(folder: Path, content: bytes) -> str:
    """What `eyetoy check` says of a photo that loads."""
    put(folder, {"a.jpg": content})
    coco(folder, "train.json", {"a.jpg": (640, 480)})
    return "; ".join(str(finding) for _, finding in check_dataset(detection(folder), ["train"]).findings)


def device(folder: Path) -> str:
    """A list of images that names a device, which has no end."""
    coco(folder, "train.json", {"/dev/zero": (48, 32)})
    found = [str(finding) for _, finding in check_dataset(detection(folder), ["train"]).findings]
    return next(finding for finding in found if finding.startswith("unreadable"))


def checked(folder: Path) -> str:
    put(folder, {"a.jpg": jpeg(), "b.jpg": jpeg()})
    coco(folder, "train.json", {"a.jpg": (48, 32)})
    coco(folder, "val.json", {"b.jpg": (48, 32)})
    return "; ".join(str(finding) for _, finding in check_dataset(detection(folder)).findings)


LARGE = jpeg(0, (640, 480))
MIDDLE = len(LARGE) // 2
MASK = np.ones((32, 48), np.uint8)
SQUARE = np.ones((32, 32), np.uint8)

CASES: dict[str, Callable[[Path], Any]] = {
    "square photo with an EXIF tag and boxes": lambda f: one_photo(f, jpeg(0, (32, 32), 6), (32, 32)),
    "photo upside down by its EXIF tag": lambda f: one_photo(f, jpeg(0, orientation=3), (48, 32)),
    "boxes of the stored photo, which is turned": lambda f: one_photo(f, jpeg(0, orientation=6), (48, 32)),
    "the same with image_orientation='stored'": lambda f: one_photo(
        f, jpeg(0, orientation=6), (48, 32), image_orientation="stored"
    ),
    "boxes of the turned photo": lambda f: one_photo(f, jpeg(0, orientation=6), (32, 48)),
    "mask of a square photo with an EXIF tag": lambda f: one_mask(f, SQUARE, jpeg(0, (32, 32), 8)),
    "mask of the stored photo, which is turned": lambda f: one_mask(f, MASK, jpeg(0, orientation=8)),
    "photos resized after annotation": lambda f: one_photo(f, jpeg(), (96, 64)),
    "width and height swapped in the annotation": lambda f: one_photo(f, jpeg(), (32, 48)),
    "mask of another size": lambda f: one_mask(f, MASK[:16, :24]),
    "mask that is no image": lambda f: one_mask(f, b"no mask"),
    "empty photo": lambda f: one_photo(f, b"", (48, 32)),
    "photo cut off": lambda f: one_photo(f, jpeg()[:1500], (48, 32)),
    "web page called .jpg": lambda f: one_photo(f, b"<!DOCTYPE html>", (48, 32)),
    "HEIC called .jpg": lambda f: one_photo(f, b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", (48, 32)),
    "1 of 10 photos unreadable, skip_unreadable_images=0.1": lambda f: unreadable(f, 1, 0.1),
    "3 of 10 photos unreadable, skip_unreadable_images=0.1": lambda f: unreadable(f, 3, 0.1),
    "1 of 10 photos of validation unreadable, skip_unreadable_images=0.1": evaluated,
    "photo whose second half is zeros (eyetoy check)": lambda f: damaged(f, LARGE[:MIDDLE] + bytes(MIDDLE)),
    "photo with a gap in it (eyetoy check)": lambda f: damaged(f, LARGE[:MIDDLE] + bytes(200) + LARGE[MIDDLE + 200 :]),
    "a device among the photos (eyetoy check)": device,
    "the same photo in training and validation (eyetoy check)": checked,
}
