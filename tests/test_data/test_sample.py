"""The sample in ``data/sample``: masks, instances and licences agree with the photos and with each other."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import eyetoy_mm  # noqa: F401  (makes mmseg and mmdet importable)

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data" / "sample"
SPLITS = {"training": "train", "validation": "val"}
CLASSES = SAMPLE.joinpath("classes.txt").read_text(encoding="utf-8").splitlines()
GROUPS = {
    "person": "person",
    "animal": "animal",
    "vehicle": "vehicle",
    "food": "food and tableware",
    "kitchen": "food and tableware",
    "furniture": "furniture and appliance",
    "appliance": "furniture and appliance",
    "electronic": "furniture and appliance",
    "indoor": "other object",
    "accessory": "other object",
    "sports": "other object",
    "outdoor": "other object",
}

each_split = pytest.mark.parametrize("split", SPLITS)


def photos(split: str) -> list[Path]:
    return sorted(SAMPLE.joinpath("images", split).iterdir())


def read_mask(split: str, stem: str) -> np.ndarray:
    with Image.open(SAMPLE / "annotations" / split / f"{stem}.png") as image:
        assert image.mode == "L"
        return np.asarray(image)


def read_json(split: str) -> dict[str, Any]:
    return json.loads(SAMPLE.joinpath("annotations", f"instances_{SPLITS[split]}.json").read_text(encoding="utf-8"))


def read_attribution() -> list[dict[str, str]]:
    with SAMPLE.joinpath("ATTRIBUTION.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def load_coco(split: str) -> Any:
    coco = pytest.importorskip("pycocotools.coco")
    return coco.COCO(str(SAMPLE / "annotations" / f"instances_{SPLITS[split]}.json"))


def test_size_is_small() -> None:
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) <= 3.5e6


@each_split
def test_every_photo_has_a_mask_of_its_size(split: str) -> None:
    stems = [path.stem for path in photos(split)]
    assert len(stems) == {"training": 48, "validation": 20}[split]
    assert stems == sorted(path.stem for path in SAMPLE.joinpath("annotations", split).iterdir())
    for path in photos(split):
        with Image.open(path) as photo:
            assert photo.mode == "RGB" and max(photo.size) <= 320
            mask = read_mask(split, path.stem)
            assert mask.shape == photo.size[::-1]
        assert mask.max() <= len(CLASSES)
        assert (mask >= 2).any(), f"{path.name} shows no object"


def test_splits_share_no_photo() -> None:
    assert not {path.stem for path in photos("training")} & {path.stem for path in photos("validation")}


@each_split
def test_classes_are_populated_and_readme_says_how_much(split: str) -> None:
    masks = [read_mask(split, path.stem) for path in photos(split)]
    shares = np.array([np.bincount(mask.ravel(), minlength=len(CLASSES) + 1) / mask.size for mask in masks])
    assert (shares[:, 1:].mean(0) > 0.01).all()
    assert ((shares[:, 1:] > 0.01).sum(0) >= 4).all()
    assert shares[:, 0].mean() < 0.02

    readme = SAMPLE.joinpath("README.md").read_text(encoding="utf-8")
    first = {"training": 5, "validation": 7}[split]
    for label, name in enumerate(["(ignored)", *CLASSES]):
        row = re.search(rf"^\| {label} \| {re.escape(name)} \|.*$", readme, re.MULTILINE)
        assert row, f"README.md has no row for {name}"
        cells = [cell.strip() for cell in row.group().split("|")]
        expected = [f"{100 * shares[:, label].mean():.1f} %", str((shares[:, label] > 0).sum())]
        assert cells[first : first + 2] == expected


def test_every_photo_is_attributed() -> None:
    rows = read_attribution()
    files = [f"images/{split}/{path.name}" for split in SPLITS for path in photos(split)]
    assert sorted(row["file"] for row in rows) == sorted(files)
    for split in SPLITS:
        data = read_json(split)
        licences = {licence["id"]: licence for licence in data["licenses"]}
        of_split = {int(row["coco_id"]): row for row in rows if row["split"] == split}
        assert sorted(of_split) == sorted(image["id"] for image in data["images"])
        for image in data["images"]:
            row = of_split[image["id"]]
            assert image["license"] in (4, 5, 7) and row["licence_id"] == str(image["license"])
            assert row["licence_url"] == licences[image["license"]]["url"].strip()
            assert row["licence"].startswith({4: "CC BY 2.0", 5: "CC BY-SA 2.0", 7: "No known"}[image["license"]])
            assert row["flickr_url"] == image["flickr_url"] and "staticflickr.com/" in row["flickr_url"]
            assert row["file"] == f"images/{split}/{image['file_name']}" and image["coco_url"]


@each_split
def test_instances_are_consistent(split: str) -> None:
    coco = load_coco(split)
    assert len(coco.cats) == 80
    assert sorted(image["file_name"] for image in coco.imgs.values()) == [path.name for path in photos(split)]
    for image in coco.imgs.values():
        with Image.open(SAMPLE / "images" / split / image["file_name"]) as photo:
            assert photo.size == (image["width"], image["height"])
        assert coco.imgToAnns[image["id"]]
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        ys, xs = np.nonzero(mask)
        assert annotation["area"] == mask.sum() > 0
        left, top = xs.min(), ys.min()
        assert annotation["bbox"] == [left, top, xs.max() + 1 - left, ys.max() + 1 - top]
        assert isinstance(annotation["segmentation"], dict) == bool(annotation["iscrowd"])
        if isinstance(annotation["segmentation"], list):
            points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in annotation["segmentation"]])
            image = coco.imgs[annotation["image_id"]]
            assert (points >= 0).all() and (points <= [image["width"], image["height"]]).all()


@each_split
def test_semantic_mask_is_drawn_from_the_instances(split: str) -> None:
    """Redraw each label map at its own size from the json; it may differ only along outlines."""
    coco = load_coco(split)
    different = total = 0
    for image in coco.imgs.values():
        annotations = coco.imgToAnns[image["id"]]
        drawn = np.ones((image["height"], image["width"]), np.uint8)
        outline = np.zeros(drawn.shape, bool)
        crowds = [annotation for annotation in annotations if annotation["iscrowd"]]
        singles = [annotation for annotation in annotations if not annotation["iscrowd"]]
        for annotation in crowds + sorted(singles, key=lambda a: (-a["area"], a["id"])):
            instance = coco.annToMask(annotation)
            name = GROUPS[coco.cats[annotation["category_id"]]["supercategory"]]
            drawn[instance > 0] = 0 if annotation["iscrowd"] else CLASSES.index(name) + 1
            outline |= cv2.morphologyEx(instance, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        mask = read_mask(split, Path(image["file_name"]).stem)
        wrong = mask != drawn
        assert (wrong & ~outline).sum() <= 0.0002 * mask.size, image["file_name"]
        assert wrong.mean() < 0.02, image["file_name"]
        different += int(wrong.sum())
        total += mask.size
    assert different / total < 0.01


def test_tool_says_which_file_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    command = [sys.executable, str(ROOT / "tools" / "make_sample.py"), str(tmp_path / "coco"), str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "missing" in result.stderr and "instances_train2017.json" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(find_spec("mmseg") is None, reason="mmseg is not installed")
@each_split
def test_mmseg_reads_it(split: str) -> None:
    from mmengine.registry import init_default_scope
    from mmseg.datasets import BaseSegDataset

    init_default_scope("mmseg")
    dataset = BaseSegDataset(
        data_root=str(SAMPLE),
        data_prefix=dict(img_path=f"images/{split}", seg_map_path=f"annotations/{split}"),
        metainfo=dict(classes=CLASSES),
        reduce_zero_label=True,
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")],
    )
    assert len(dataset) == len(photos(split)) and list(dataset.metainfo["classes"]) == CLASSES
    for item in dataset:
        labels = item["gt_seg_map"]
        assert labels.shape == item["img"].shape[:2]
        assert np.isin(labels, [*range(len(CLASSES)), 255]).all()
        original = read_mask(split, Path(item["img_path"]).stem)
        assert ((labels == 255) == (original == 0)).all() and (labels[original > 0] == original[original > 0] - 1).all()


@pytest.mark.skipif(find_spec("mmdet") is None, reason="mmdet is not installed")
@each_split
def test_mmdet_reads_it(split: str) -> None:
    from mmdet.datasets import CocoDataset
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    dataset = CocoDataset(
        data_root=str(SAMPLE),
        ann_file=f"annotations/instances_{SPLITS[split]}.json",
        data_prefix=dict(img=f"images/{split}/"),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True, with_mask=True)],
    )
    assert len(dataset) == len(photos(split))
    for item in dataset:
        count = len(item["gt_bboxes"])
        assert count == len(item["gt_bboxes_labels"]) == len(item["gt_masks"]) > 0
        assert (item["gt_masks"].height, item["gt_masks"].width) == item["img"].shape[:2]
