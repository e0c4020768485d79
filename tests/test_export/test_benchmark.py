"""Times of models side by side: the table, and the program with a config and a file."""

import json

import pytest
import torch

pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from eyetoy_mm.cli import main  # noqa: E402
from eyetoy_mm.errors import UserError  # noqa: E402
from eyetoy_mm.export.benchmark import Task, measure, table  # noqa: E402

CONFIG = """
default_scope = "mmpretrain"
model = dict(
    type="ImageClassifier",
    data_preprocessor=dict(mean=[120, 120, 120], std=[60, 60, 60], to_rgb=True, num_classes=3),
    backbone=dict(type="VGG", depth=11, num_stages=1, dilations=(1,), out_indices=(0,), with_last_pool=False),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(type="LinearClsHead", num_classes=3, in_channels=64),
)
"""


def model(seconds, parameters=None, peak=None):
    return dict(model="a.onnx", parameters=parameters, seconds=seconds, peak_memory=peak)


def test_the_table_has_medians_of_the_rounds():
    models = [model([0.1, 0.3, 0.2], 2_000_000, 5_000_000), model([0.3, 0.3, 0.6])]
    report = dict(
        mode="forward",
        size=(32, 48),
        batch=2,
        device="cpu",
        threads=1,
        clock="wall",
        machine="M",
        torch="2",
        models=models,
    )
    lines = table(report).splitlines()
    assert lines[0] == "M, 1 threads, PyTorch 2; forward, batch 2 of 32 x 48; medians of 3 rounds, with quartiles."
    assert lines[4] == "| `a.onnx` | 2.0 M | 200.0 | 100.0 - 300.0 | 10.0 | 1.00 | 5 MB |"
    assert lines[5] == "| `a.onnx` | - | 300.0 | 300.0 - 600.0 | 6.7 | 3.00 | - |"  # of 3, 1 and 3 times the first's
    assert len(lines) == 6
    models[0] |= dict(model="slides.py", windows=True)
    assert (
        table(report).splitlines()[-1].startswith("slides.py predicts by sliding windows, and exported files the whole")
    )
    models.pop()  # only with a file is it other work
    assert "windows" not in table(report)


def test_the_program_with_all_its_options(tmp_path, capsys):
    config, file = tmp_path / "config.py", tmp_path / "file.onnx"
    config.write_text(CONFIG)
    value = onnx.helper.make_tensor_value_info
    names = [value(name, onnx.TensorProto.FLOAT, ["batch", 3, "h", "w"]) for name in ("images", "output")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["images"], ["output"])], "g", names[:1], names[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), file)
    page, times = tmp_path / "page.md", tmp_path / "times.json"
    page.write_text("<!-- tools/benchmark.py: begin -->\n<!-- tools/benchmark.py: end -->\n")
    main(
        ["benchmark", str(config), str(file), "--mode", "forward", "--size", "32,48", "--batch", "3", "--device", "cpu",
         "--threads", "1", "--clock", "processor", "--rounds", "2", "--json", str(times), "--into", str(page),
         "--cfg-options", "model.head.num_classes=5", "model.backbone.dilations=(2,)"]
    )  # fmt: skip
    report = json.loads(times.read_text())
    assert [len(found["seconds"]) for found in report["models"]] == [2, 2] and report["size"] == [32, 48]
    assert report["clock"] == "processor" and "processor time, medians of 2" in page.read_text()
    classifier, relu = report["models"]
    assert classifier["parameters"] == 3 * 9 * 64 + 64 + 64 * 5 + 5 and relu["parameters"] is None
    assert page.read_text().count("\n| `") == 2
    assert "Configs with model.head.num_classes=5, model.backbone.dilations=(2,)." in page.read_text()
    main(["benchmark", str(config), "--mode", "train", "--size", "32,48", "--threads", "1", "--rounds", "1"])
    assert "train, batch 2 of 32 x 48" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("models", "mode", "device", "message"),
    [
        (["a.onnx"], "train", "cpu", "--mode train is for configs, but a.onnx cannot be trained"),
        (["none.onnx"], "forward", "cpu", "none.onnx: there is no file none.onnx"),
        (["a.py"], "forward", "cuda", "--device cuda cannot be used on this machine"),
    ],
)
def test_what_cannot_be_measured_is_told(models, mode, device, message):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=message):
        measure(models, Task(mode, (32, 32), 1, device, 1), 1)


def test_settings_are_for_configs():
    with pytest.raises(UserError, match=r"--cfg-options are for configs, and there is none among a\.onnx, b\.pt2"):
        measure(["a.onnx", "b.pt2"], Task("forward", (32, 32), 1, "cpu", 1, options={"a": 1}), 1)
