"""Lists and folders of classification as users write them, told before a run."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

import eyetoy_mm  # noqa: F401 - before mmpretrain: supplies what mmcv-lite lacks

pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")

from eyetoy_mm.engine.data_checks import check_data, data_findings
from eyetoy_mm.errors import UserError


def folders(root, **images: int) -> None:
    for name, count in images.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / name / f"{index}.jpg")


def config(root, num_classes=2, val=None, kind="CustomDataset", **train):
    data = dict(type=kind, data_root=str(root), data_prefix="train", pipeline=[])
    loaders = dict(train_dataloader=dict(dataset=dict(data, **train)))
    if val is not None:
        loaders["val_dataloader"] = dict(dataset=dict(data, data_prefix="val", **val))
    return Config(dict(default_scope="mmpretrain", model=dict(head=dict(num_classes=num_classes)), **loaders))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a/0.jpg,0\nb/0.jpg,1", "list.txt, line 1: 'a/0.jpg,0' .*not a comma or tab"),
        ("a/0.jpg\t0", "not a comma or tab"),
        ("path label\na/0.jpg 0", "a list has no header"),
        ("a/0.jpg 0\n\nb/0.jpg 1", "line 2: '' .*take the empty line out"),
        ("a/0.jpg cat", "the number of the class, from 0 on"),
        ("\ufeffa/0.jpg 0", "a byte order mark"),
        ("", "is empty; it should list images and their labels"),
        ("a/0.jpg 1\nb/0.jpg 2", "such as 2 in line 2; it has 2, labels 0 to 1. They are counted from 1"),
        ("a/0.jpg -1\nb/0.jpg 0", "such as -1 in line 1; it has 2, labels 0 to 1. Correct"),
        ("a/0.jpg 0\nb/none.jpg 1", r"lists 1 images \(of 2\) that are not in .*b/none.jpg"),
        ("a/0.jpg 0\nb\\0.jpg 1", "The path .* has the backslashes of Windows"),
        ("a/0.jpg  0\nb/0.jpg  1", "'a/0.jpg ' has blanks or quotes at its ends; the file is 'a/0.jpg'"),
    ],
)
def test_lists_that_are_wrong(lines, message, tmp_path):
    folders(tmp_path / "train", a=1, b=1)
    (tmp_path / "list.txt").write_text(lines, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        check_data(config(tmp_path, ann_file="list.txt"), "train")


def test_folders_called_as_parts_are_classes_if_they_are_named_as_such(tmp_path):
    folders(tmp_path / "train", training=1, validation=1)
    (finding,) = data_findings(config(tmp_path), "train")
    assert finding.fatal and "which are no classes but parts of the data" in finding.message
    named = dict(metainfo=dict(classes=("training", "validation")))
    assert data_findings(config(tmp_path, **named), "train") == []


def test_lists_that_are_right(tmp_path):
    folders(tmp_path / "train", a=2, b=1)
    (tmp_path / "list.txt").write_bytes(b"a/0.jpg 0\r\nb/0.jpg 1\r\n")
    assert data_findings(config(tmp_path, ann_file="list.txt"), "train") == []
    (tmp_path / "list.txt").write_text("a/0.jpg\nb/0.jpg")
    assert data_findings(config(tmp_path, ann_file="list.txt", with_label=False), "train") == []
    (tmp_path / "list.txt").write_text("a/0.jpg 0\na/1.jpg 0")
    (finding,) = data_findings(config(tmp_path, ann_file="list.txt"), "train")
    assert not finding.fatal and "label 0 for every image" in finding.message


def test_folders_whose_images_have_other_labels_elsewhere(tmp_path):
    folders(tmp_path / "train", a=1, b=1)
    folders(tmp_path / "val", a=1, b=1)
    listed = dict(ann_file=str(tmp_path / "list.txt"))

    def found(lines, **settings):
        (tmp_path / "list.txt").write_text(lines)
        return [f.message for f in data_findings(config(tmp_path, **settings), "train", "val") if f.kind == "classes"]

    (message,) = found("a/0.jpg 1\nb/0.jpg 0", val=listed)
    assert "images in a have label 0 in training and 1 in val" in message
    (message,) = found("a/0.jpg 1\nb/0.jpg 0", **listed, metainfo=dict(classes=("a", "b")))
    assert "label 1 for the images of the folder a" in message
    assert not found("a/0.jpg 0\nb/0.jpg 1", val=listed)
    assert not found("a/0.jpg 1\nb/0.jpg 1\na/0.jpg 0", val=listed)  # folders of something else
    assert not found("a/0.jpg 1\nb/0.jpg 0", **listed, metainfo=dict(classes=("x", "y")))


def test_names_of_a_file_and_of_the_config(tmp_path):
    folders(tmp_path / "train", a=1)
    content = dict(metainfo=dict(classes=["a", "b"]), data_list=[dict(img_path="a/0.jpg", gt_label=0)])
    (tmp_path / "list.json").write_text(json.dumps(content))
    for names, wrong in ((("a", "b"), False), (("b", "a"), True), (("x", "y"), False)):
        settings = config(tmp_path, kind="BaseDataset", ann_file="list.json", metainfo=dict(classes=names))
        found = [f.message for f in data_findings(settings, "train") if f.kind == "classes"]
        assert len(found) == wrong and all("label 0 is 'a' in" in message for message in found)


def test_images_that_may_be_missing(tmp_path):
    folders(tmp_path / "train", a=1)
    (tmp_path / "list.txt").write_text("a/0.jpg 0\na/none.jpg 1")
    settings = config(tmp_path, ann_file="list.txt")
    settings.skip_unreadable_images = 0.5
    (finding,) = data_findings(settings, "train")
    assert not finding.fatal and finding.kind == "images missing"


def test_folders(tmp_path):
    folders(tmp_path / "train", a=1, b=1)
    folders(tmp_path / "val", a=1, b=1)
    wrapped = config(tmp_path, val={})
    wrapped.train_dataloader.dataset = dict(type="RepeatDataset", times=2, dataset=wrapped.train_dataloader.dataset)
    check_data(wrapped, "train", "val")
    with pytest.raises(UserError, match=r"train has 2 classes \(a, ..., b\), and model.head num_classes=3"):
        check_data(config(tmp_path, 3), "train")
    with pytest.raises(UserError, match=r"2 folders \(a, b\), and the dataset 1000 classes"):
        check_data(config(tmp_path, 1000, kind="ImageNet"), "train")
    (tmp_path / "val/b").rename(tmp_path / "val/c")
    with pytest.raises(UserError, match="label 1 is 'b' in training and 'c' in val"):
        check_data(config(tmp_path, val={}), "train", "val")
    with pytest.raises(UserError, match="train/a should have a folder of images for each class; it has 1 files"):
        check_data(config(tmp_path, data_prefix="train/a"), "train")


def test_folders_that_are_no_classes(tmp_path):
    folders(tmp_path / "train", a=1, b=1)
    named = dict(metainfo=dict(classes=("b", "a")))
    with pytest.raises(UserError, match="label 0 is the folder a of .*call it 'b', the name of another folder"):
        check_data(config(tmp_path, **named), "train")
    check_data(config(tmp_path, metainfo=dict(classes=("apple", "bee"))), "train")  # ImageNet's have other names, too
    (tmp_path / "train/b/0.jpg").rename(tmp_path / "train/b/0.webp")
    told = data_findings(config(tmp_path), "train")
    assert [(finding.kind, finding.fatal) for finding in told] == [
        ("images left out", False),
        ("classes without images", False),
    ]
    assert "files of .webp (1)" in told[0].message and "without an image: b" in told[1].message
    (tmp_path / "train/.ipynb_checkpoints").mkdir()
    with pytest.raises(UserError, match=".ipynb_checkpoints, which counts as a class"):
        check_data(config(tmp_path, 3), "train")


def test_folders_of_splits_are_no_classes(tmp_path):
    folders(tmp_path / "train", a=1, b=1)
    folders(tmp_path / "val", a=1, b=1)
    (finding,) = data_findings(config(tmp_path, data_prefix=""), "train")
    assert finding.fatal and "train, val, which are no classes" in finding.message


def test_each_dataset_of_a_split_is_compared(tmp_path):
    folders(tmp_path / "train", a=1, b=1)
    folders(tmp_path / "more", a=1, c=1)
    settings = config(tmp_path)
    first = settings.train_dataloader.dataset
    both = dict(type="ConcatDataset", datasets=[first, dict(first, data_prefix="more")])
    settings.train_dataloader.dataset = both
    with pytest.raises(UserError, match="label 1 is 'b' in one of the datasets of training and 'c' in another"):
        check_data(settings, "train")


def test_one_class(tmp_path):
    folders(tmp_path / "train", a=1)
    settings = config(tmp_path, 1)
    settings.model.head.type = "LinearClsHead"
    with pytest.raises(UserError, match="softmax of one output is always 1"):
        check_data(settings, "train")
    sigmoid = dict(type="CrossEntropyLoss", use_sigmoid=True)
    for head in (dict(type="MultiLabelLinearClsHead"), dict(type="LinearClsHead", loss=sigmoid)):
        settings.model.head = dict(num_classes=1, **head)
        check_data(settings, "train")


def test_images_of_training_and_images_listed_twice(tmp_path):
    folders(tmp_path / "train", a=2, b=1)
    folders(tmp_path / "val", a=1, b=1)
    (tmp_path / "list.txt").write_text("a/0.jpg 0\na/0.jpg 0\nb/0.jpg 1\nb/0.jpg 0\na/1.jpg 0")
    settings = config(tmp_path, val={}, ann_file="list.txt")
    settings.val_dataloader.dataset.data_prefix = "train"
    told = {finding.kind: finding for finding in data_findings(settings, "train", "val")}
    assert set(told) == {"contradictory labels", "images listed twice", "images of training"}
    assert not any(finding.fatal for finding in told.values())
    assert told["contradictory labels"].where == ("b/0.jpg",) and told["images listed twice"].where == ("a/0.jpg",)
    assert "3 of 3 in val" in told["images of training"].message


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("0", "1"), "gt_label='0' in data_list.0.: write the number of the class"),
        ((0.0, 1.0), "gt_label=0.0"),
        ((0, 3), "such as 3 in data_list.1.; it has 3, labels 0 to 2"),
        (([0], 1), "gt_label=1 in data_list.1."),
        (([0, 1], [3]), "such as 3 in data_list.1."),
        (([1, 0, 0], [0, 1, 1]), "lists of 3 zeros and ones .* Write the numbers, as .0."),
        (([], []), "no label in any image"),
    ],
)
def test_json_of_labels(labels, message, tmp_path):
    folders(tmp_path / "train", a=2)
    several = isinstance(labels[0], list)
    images = [dict(img_path=f"a/{index}.jpg", gt_label=label) for index, label in enumerate(labels)]
    content = dict(metainfo=dict(classes=["x", "y", "z"]), data_list=images)
    (tmp_path / "list.json").write_text(json.dumps(content))
    settings = config(tmp_path, 3, kind="MultiLabelDataset" if several else "BaseDataset", ann_file="list.json")
    with pytest.raises(UserError, match=message):
        check_data(settings, "train")


def test_json_of_one_label_and_of_several(tmp_path):
    folders(tmp_path / "train", a=2)
    images = [dict(img_path="a/0.jpg", gt_label=[0, 2]), dict(img_path="a/1.jpg", gt_label=[1])]
    (tmp_path / "list.json").write_text(json.dumps(dict(metainfo=dict(classes=["x", "y", "z"]), data_list=images)))
    settings = config(tmp_path, 3, kind="MultiLabelDataset", ann_file="list.json")
    settings.model.head.type = "LinearClsHead"
    with pytest.raises(UserError, match="several labels, and model.head tells one"):
        check_data(settings, "train")
    settings.model.head = dict(type="MultiLabelLinearClsHead", num_classes=3)
    assert data_findings(settings, "train") == []
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UserError, match="list.json is not OpenMMLab's JSON of data_list and metainfo"):
        check_data(settings, "train")
