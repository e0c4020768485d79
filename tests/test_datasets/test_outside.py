"""Names in annotations that lead out of the folder of the data set are told, and read from where they are."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("mmengine")

from eyetoy_mm.datasets.outside import find_outside


@pytest.mark.parametrize(
    ("name", "outside"),
    [
        ("photo.jpg", False),
        ("a/b/photo.jpg", False),
        ("a/../photo.jpg", False),
        ("photo..jpg", False),
        ("..photo.jpg", False),
        ("../photo.jpg", True),
        ("a/../../photo.jpg", True),
        ("../../etc/passwd", True),
        ("/etc/passwd", True),
        ("http://localhost/photo.jpg", True),
        ("{folder}/photo.jpg", False),
        ("{folder}/../photo.jpg", True),
        ("{folder}2/photo.jpg", True),
    ],
)
def test_what_is_outside(name: str, outside: bool, tmp_path: Path) -> None:
    name = name.format(folder=tmp_path)
    found = find_outside("train.json", str(tmp_path), ["in.jpg", name])
    assert (found is not None) == outside
    if found is not None:
        assert not found.fatal and found.where == (name,) and "train.json" in str(found) and name in str(found)


def test_relative_folders_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = find_outside("train.txt", "data/images", [f"../{i}.jpg" for i in range(7)])
    assert found is not None and found.count == 7 and "and 2 more" in str(found)
    assert find_outside("train.txt", "data/images", [str(tmp_path / "data/images/a.jpg")]) is None
    assert find_outside("train.txt", "s3://bucket", ["../a.jpg"]) is None  # no folder of this machine


@pytest.mark.parametrize(
    ("dataset", "line"),
    [
        (dict(type="ImageNet", data_prefix="in"), "../out.jpg 0"),  # mmpretrain
        (dict(type="ADE20KDataset", data_prefix=dict(img_path="in", seg_map_path="in")), "../out"),  # mmseg
    ],
)
def test_lists_are_looked_at(dataset: dict, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmengine.config import Config

    from eyetoy_mm.engine.data_checks import check_data

    told: list[str] = []
    monkeypatch.setattr("eyetoy_mm.datasets.findings.print_log", lambda message, *args, **kwargs: told.append(message))
    (tmp_path / "in").mkdir()
    (tmp_path / "train.txt").write_text(f"a.jpg 0\n{line}\n")
    dataset = dict(dataset, data_root=str(tmp_path), ann_file="train.txt")
    check_data(Config(dict(train_dataloader=dict(dataset=dataset))), "train")
    (message,) = told
    assert "outside of the data folder" in message and "train.txt" in message and "../out" in message


def test_coco_files_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eyetoy_mm.datasets.coco_files import check_coco_file

    told: list[str] = []
    monkeypatch.setattr("eyetoy_mm.datasets.findings.print_log", lambda message, *args, **kwargs: told.append(message))
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "out.jpg"), np.zeros((48, 64, 3), np.uint8))
    coco = dict(
        images=[dict(id=1, file_name="../out.jpg", width=64, height=48)],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0)],
        categories=[dict(id=1, name="a")],
    )
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    check_coco_file(tmp_path / "coco.json", "train", ("a",), dict(data_root=str(tmp_path), data_prefix=dict(img="in")))
    assert any("outside of the data folder" in message and "../out.jpg" in message for message in told), told


@pytest.mark.parametrize("name", ["a.jpg\n..", "a.jpg 0\r..", "a\u2028.jpg"])
def test_a_file_name_cannot_write_a_line_of_a_list(name: str, tmp_path: Path) -> None:
    from eyetoy_mm.datasets.splits import class_images
    from eyetoy_mm.errors import UserError

    for folder, file in ((f"c{name}", "b.jpg"), ("c", f"{name}.jpg"), (" c", "b.jpg")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).touch()
        with pytest.raises(UserError, match="cannot stand in a list, one a line"):
            class_images(tmp_path, folder)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/photo.jpg", "a/photo.jpg"),
        ("a/../photo.jpg", "photo.jpg"),
        ("../photo.jpg", "photo.jpg"),
        ("a/../../../etc/photo.jpg", "photo.jpg"),
        ("/etc/photo.jpg", "photo.jpg"),
    ],
)
def test_pictures_of_show_dir_stay_in_it(path: str, name: str, tmp_path: Path) -> None:
    from types import SimpleNamespace

    from eyetoy_mm.engine.hooks.result_names import name_below

    dataset = SimpleNamespace(data_prefix=dict(img=str(tmp_path / "in")))
    assert name_below(dataset, str(tmp_path / "in" / path)) == name


def test_lists_of_voc_and_panoptic_files_are_looked_at(tmp_path: Path) -> None:
    from eyetoy_mm.datasets.coco_panoptic import _files
    from eyetoy_mm.datasets.voc_files import voc_findings

    (tmp_path / "train.txt").write_text("../../out\n")
    dataset = dict(data_root=str(tmp_path), data_prefix=dict(img="in"))
    voc = voc_findings(tmp_path / "train.txt", "train", ("a",), dataset)
    panoptic = _files(dict(images=[dict(id=1, file_name="../out.jpg")], annotations=[dict(image_id=1)]), dataset)
    for findings in (voc, panoptic):
        assert [f.where for f in findings if f.kind == "outside of the data folder"] in (
            [("../../out",)],
            [("../out.jpg",)],
        )
