"""LVIS and Objects365, as mmdet's datasets read them."""

import json

import pytest

import eyetoy_mm  # noqa: F401 - before mmdet: supplies what mmcv-lite lacks

pytest.importorskip("mmdet", reason="MMDetection is not installed")

from mmengine.config import Config

from benchmarks.trust import det
from eyetoy_mm.engine import detection_checks
from eyetoy_mm.engine.detection_checks import detection_findings


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    monkeypatch.setattr(detection_checks, "find_spec", lambda name: name)


def find(folder, kind, *edits, classes=det.CLASSES):
    content = det.good()
    for edit in edits:
        edit(content)
    config = det.write(folder / "data", content)
    config.train_dataloader.dataset |= dict(type=kind, metainfo=dict(classes=classes))
    config = Config(dict(default_scope="mmdet", train_dataloader=config.train_dataloader))
    (folder / "data/objects.json").write_text(json.dumps(content))
    return detection_findings(config, "train")


def addresses(content):
    for image in content["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/{image.pop('file_name')}"


def of_2014(content):
    for image in content["images"]:
        image["file_name"] = f"COCO_train_{int(image['file_name'][:-4]):012d}.jpg"


def patches(content):
    for image in content["images"]:
        image["file_name"] = f"images/v2/patch8/{image['file_name']}"


def reordered(content):
    content["categories"].reverse()


def corners(content):
    det.box(lambda x, y, w, h: [x, y, x + w, y + h])(content)


def test_good_files_are_passed(tmp_path):
    assert find(tmp_path / "lvis", "LVISV1Dataset", addresses) == []
    assert find(tmp_path / "sorted", "Objects365V1Dataset", reordered) == []
    (missing,) = find(tmp_path / "2014", "LVISV05Dataset", of_2014)
    assert "photos/000000000001.jpg" in missing.message  # COCO's name of 2017
    (missing,) = find(tmp_path / "patches", "Objects365V2Dataset", patches)
    assert "photos/patch8/1.jpg" in missing.message


@pytest.mark.parametrize("kind", ["LVISV1Dataset", "LVISV05Dataset", "Objects365V1Dataset", "Objects365V2Dataset"])
def test_boxes_in_another_form_are_refused(kind, tmp_path):
    found = find(tmp_path, kind, corners, *[addresses] * (kind == "LVISV1Dataset"))
    assert "box form" in [finding.kind for finding in found if finding.fatal]


@pytest.mark.parametrize(
    ("classes", "fatal", "message"),
    [
        (("cat",), True, "has 2 categories, and the config 1 classes"),
        (("dog", "cat"), True, "lists category 0 as 'cat', and the config as 'dog'"),
        (("cat", "hound"), False, "lists category 1 as 'dog', and the config as 'hound'"),
    ],
)
def test_lvis_labels_are_the_files(classes, fatal, message, tmp_path):
    (finding,) = find(tmp_path, "LVISV1Dataset", addresses, classes=classes)
    assert finding.fatal == fatal and message in finding.message and "objects.json (train) " in finding.message


def test_lvis_is_of_addresses_or_of_names(tmp_path):
    """Version 1 reads addresses alone, also of files that have names besides; 0.5 reads names."""
    (told,) = find(tmp_path / "names", "LVISV1Dataset")
    assert "images[0] has no coco_url; add it" in told.message

    def both(content):
        for image in content["images"]:
            image["coco_url"] = f"http://images.cocodataset.org/{image['file_name']}"
            image["file_name"] = f"elsewhere/{image['file_name']}"

    assert find(tmp_path / "both", "LVISV1Dataset", both) == []
    (told,) = find(tmp_path / "addresses", "LVISV05Dataset", addresses)
    assert "images[0] has no file_name; add it" in told.message


def test_what_the_metric_of_lvis_reads_besides(tmp_path):
    """Its files have them; others were made for COCO, and fail when the first evaluation ends."""

    def found(content):
        path = tmp_path / "objects.json"
        path.write_text(json.dumps(content))
        evaluator = dict(type="LVISMetric", ann_file=str(path))
        return detection_findings(Config(dict(default_scope="mmdet", val_evaluator=evaluator)), "val")

    content = det.good()
    assert [each.message.rpartition(" has no ")[2] for each in found(content)] == [
        "neg_category_ids, not_exhaustive_category_ids; add it",
        "frequency; add it",
    ]
    for image in content["images"]:
        image |= dict(neg_category_ids=[], not_exhaustive_category_ids=[])
    for category in content["categories"]:
        category["frequency"] = "often"
    assert "has categories whose frequency is 'often', not 'r', 'c' or 'f'" in found(content)[0].message
    for category in content["categories"]:
        category["frequency"] = "r"
    assert found(content) == []


def test_the_package_of_lvis_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(detection_checks, "find_spec", lambda name: None)
    (told,) = find(tmp_path, "LVISV1Dataset", addresses)
    assert told.message == "LVISV1Dataset needs the package lvis, which is not installed: pip install lvis"
    assert find(tmp_path / "others", "Objects365V2Dataset") == []
