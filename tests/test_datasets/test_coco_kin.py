"""LVIS and Objects365, as mmdet's datasets read them."""

import json

import pytest

import eyetoy_mm  # noqa: F401 - before mmdet: supplies what mmcv-lite lacks

pytest.importorskip("mmdet", reason="MMDetection is not installed")

from mmengine.config import Config

from benchmarks.trust import det
from eyetoy_mm.engine.detection_checks import detection_findings


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
