"""`eyetoy models`: which there are, filtered, counted, with what is known of them."""

import json

import pytest

pytest.importorskip("mmengine")

from eyetoy_mm.cli import main
from eyetoy_mm.zoo import VARIABLE, models


def listed(capsys, *arguments: str) -> list[dict]:
    main(["models", *arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_all_models_are_listed(capsys):
    main(["models"])
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header == "| name | task | trained on | parameters | figures | weights |"
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [model.name for model in models()]
    (row,) = [row for row in rows if "mask-rcnn_nat-t_fpn_ms-crop-3x_coco" in row and "cascade" not in row]
    _name, task, data, *rest = row.strip("| ").split(" | ")
    assert (task, data) == ("Object Detection, Instance Segmentation", "COCO")
    assert rest == ["47.54 M", "COCO: box AP 47.7, mask AP 42.6", "download"]


def test_they_are_filtered(capsys, tmp_path, monkeypatch):
    names = [model["name"] for model in listed(capsys, "upernet_eyetoy-*-512x512", "dino")]
    assert {name.partition("_")[0] for name in names} == {"upernet", "dino-4scale"}
    assert all(name.endswith("512x512") for name in names if name.startswith("upernet"))
    found = listed(capsys, "--task", "Semantic Segmentation")
    assert all("Semantic Segmentation" in model["tasks"] for model in found) and len(found) < len(listed(capsys))
    name = "eyetoy-shallow_b64-50e_caltech256"
    assert name not in {model["name"] for model in listed(capsys, "--weights")}
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / f"{name}.pth").touch()
    (tmp_path / f"{name}.md").touch()
    (found,) = [model for model in listed(capsys, "eyetoy", "--weights") if model["name"] == name]
    assert found["weights"] == str(tmp_path / f"{name}.pth") and found["card"] == str(tmp_path / f"{name}.md")
    with pytest.raises(SystemExit, match="there is no model for upernett; `eyetoy models` lists all"):
        main(["models", "upernett"])


@pytest.mark.parametrize(
    ("name", "image"),
    [("segformer-head_eyetoy-2.2m_b8-200e_camvid", "2048x512"), ("eyetoy-shallow_b128-30e_cifar10", "32x32")],
)
def test_flops_are_counted(name, image, capsys):
    (found,) = [model for model in listed(capsys, name, "--flops") if model["name"] == name]
    assert found["image"] == image and 1e8 < found["flops"] < 1e11
