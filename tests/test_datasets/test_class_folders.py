"""Folders of images per class and lists of images: what is read, and what is refused by name."""

import re

import cv2
import numpy as np
import pytest

import eyetoy_mm  # noqa: F401 - before mmpretrain: supplies what mmcv-lite lacks

pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
from mmengine.registry import DATASETS

from eyetoy_mm.datasets.splits import split_classes, write_split
from eyetoy_mm.errors import UserError


@pytest.fixture
def root(tmp_path):
    """Three classes of four images each, whose color is their label and number; and files that are no images."""
    for label, name in enumerate(("ant", "bee", "big cat")):
        (tmp_path / "images" / name / "more").mkdir(parents=True)
        for number in range(4):
            folder = tmp_path / "images" / name / ("more" if number == 3 else "")
            cv2.imwrite(str(folder / f"{number}.png"), np.full((4, 4, 3), 10 * label + number, np.uint8))
    (tmp_path / "images/ant/notes.txt").write_text("no image")
    (tmp_path / "images/ant/.hidden.png").write_text("no image")
    (tmp_path / "images/readme.png").write_text("beside the classes")
    (tmp_path / "images/.cache").mkdir()
    return tmp_path


def build(root, **arguments):
    settings = dict(type="eyetoy_mm.ClassFolders", data_root=str(root), data_prefix="images")
    return DATASETS.build(settings | dict(pipeline=[dict(type="LoadImageFromFile")]) | arguments)


def colors(dataset) -> list[int]:
    """10 times the folder of an image and its number, for each of them."""
    return [int(dataset[i]["img"][0, 0, 0]) for i in range(len(dataset))]


def test_classes_are_the_folders(root):
    dataset = build(root)
    assert dataset.metainfo["classes"] == ("ant", "bee", "big cat")
    assert colors(dataset) == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    assert [dataset[i]["gt_label"] for i in range(12)] == [0] * 4 + [1] * 4 + [2] * 4


def test_classes_in_a_given_order(root):
    dataset = build(root, classes=["big cat", "ant"])
    assert dataset.metainfo["classes"] == ("big cat", "ant")
    assert colors(dataset) == [20, 21, 22, 23, 0, 1, 2, 3]
    assert [dataset[i]["gt_label"] for i in range(8)] == [0] * 4 + [1] * 4


def test_lists_of_a_split(root):
    train, val = split_classes(root / "images", train=3)
    write_split(root / "meta", train, val)
    built = [build(root, ann_file=f"meta/{name}.txt", classes="meta/classes.txt") for name in ("train", "val")]
    for dataset, count in zip(built, (3, 1)):
        assert dataset.metainfo["classes"] == ("ant", "bee", "big cat")
        labels = [dataset[i]["gt_label"] for i in range(len(dataset))]
        assert labels == [0] * count + [1] * count + [2] * count
        assert [color // 10 for color in colors(dataset)] == labels
    assert sorted(colors(built[0]) + colors(built[1])) == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]


def test_a_list_without_names_of_classes(root):
    (root / "list.txt").write_text("big cat/1.png 7\n\nant/more/3.png 0\n")
    dataset = build(root, ann_file="list.txt")
    assert colors(dataset) == [21, 3] and [dataset[i]["gt_label"] for i in range(2)] == [7, 0]
    assert "classes" not in dataset.metainfo


def refused(root, *messages, **arguments):
    with pytest.raises(UserError) as raised:
        build(root, **arguments)
    for message in messages:
        assert message in str(raised.value)


def test_folders_that_are_missing_or_empty(root):
    refused(root, f"there is no folder {root / 'photos'}", data_prefix="photos")
    refused(root, f"{root / 'images/bee/more'} has no class folders", data_prefix="images/bee/more")
    refused(root, "no folder", "for the class 'fox'", "ant, bee, big cat", classes=["ant", "fox"])
    (root / "images/empty").mkdir()
    refused(root, "the class 'empty' has no image in", str(root / "images/empty"))


@pytest.mark.parametrize(
    ("line", "messages"),
    [
        ("ant/1.png", ["line 2", "'ant/1.png' is not the path of an image and a label"]),
        ("ant/1.png bee", ["line 2", "is not the path of an image and a label"]),
        ("ant/1.png -1", ["line 2", "is not the path of an image and a label"]),
        ("ant/1.png 3", ["line 2", "ant/1.png has label 3, but there are 3 classes (labels 0 to 2)"]),
        ("ant/9.png 0", ["the image", "images/ant/9.png", "is missing or empty", "list.txt lists"]),
    ],
)
def test_lists_with_mistakes(root, line, messages):
    (root / "classes.txt").write_text("ant\nbee\nbig cat\n")
    (root / "list.txt").write_text(f"ant/0.png 0\n{line}\n")
    refused(root, str(root), *messages, ann_file="list.txt", classes="classes.txt")


def test_lists_that_cannot_be_read(root):
    refused(root, f"cannot read the list {root / 'none.txt'}", ann_file="none.txt")
    refused(root, f"cannot read the list {root / 'names.txt'}", classes="names.txt")
    refused(root, f"cannot read the list {root / 'images/ant/0.png'}", ann_file="images/ant/0.png")
    (root / "blank.txt").write_text("\n \n")
    refused(root, f"{root / 'blank.txt'} has no images", ann_file="blank.txt")


def test_empty_images_are_named_before_training(root):
    (root / "images/bee/2.png").write_bytes(b"")
    with pytest.raises(UserError, match=f"the image {re.escape(str(root / 'images/bee/2.png'))} is missing or empty"):
        build(root)
