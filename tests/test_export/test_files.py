"""A classifier from config and checkpoint to its file, and files that are not written because they are wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("mmpretrain", reason="mmpretrain is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from mmengine.registry import MODELS, init_default_scope  # noqa: E402

from eyetoy_mm.cli import main  # noqa: E402
from eyetoy_mm.cli.options import height_and_width  # noqa: E402
from eyetoy_mm.engine.config import load_config  # noqa: E402
from eyetoy_mm.engine.inference import open_predictor  # noqa: E402
from eyetoy_mm.errors import UserError  # noqa: E402
from eyetoy_mm.export import int8  # noqa: E402
from eyetoy_mm.export.checking import patterns  # noqa: E402
from eyetoy_mm.export.models import agreement, make_export_model  # noqa: E402
from eyetoy_mm.export.onnx_file import build_file, check_and_write  # noqa: E402
from eyetoy_mm.export.onnx_graph import build_graph  # noqa: E402
from eyetoy_mm.export.openvino_file import export_openvino  # noqa: E402
from eyetoy_mm.export.pt2_file import build_program, export_pt2  # noqa: E402
from eyetoy_mm.export.runtimes import open_file  # noqa: E402
from tests import program  # noqa: E402

CONFIG = """
default_scope = "mmpretrain"
custom_imports = dict(imports=["eyetoy_mm"])
model = dict(
    type="ImageClassifier",
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True, num_classes=3),
    backbone=dict(
        type="eyetoy_mm.EyeToy", out_indices=(0,), out_type="context_token",
        arch=dict(embed_dims=(8,), depths=(1,), num_heads=(1,), windows=((5, 3),), merging=((1, 2),), stem_channels=8,
                  global_layers=1, global_heads=2, register_tokens=2)),
    head=dict(type="LinearClsHead", num_classes=3, in_channels=8),
)
test_pipeline = [
    dict(type="LoadImageFromFile"), dict(type="ResizeEdge", scale=64, edge="short"), dict(type="PackInputs"),
]
"""
CLASSES = ("cat", "dog", "toy")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A config and its checkpoint."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.py").write_text(CONFIG)
    init_default_scope("mmpretrain")
    torch.manual_seed(0)
    state = MODELS.build(load_config(folder / "config.py").model).state_dict()
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=CLASSES))), folder / "model.pth")
    return folder / "config.py", folder / "model.pth"


@pytest.fixture(scope="module")
def exported(files):
    """The predictor, what was exported of it, and the content of the file."""
    config = load_config(files[0])
    predictor = open_predictor(config, str(files[1]), "cpu")
    return predictor, *build_file(predictor, config, "whole", None)


def test_a_file_that_is_right_is_written_with_what_a_stranger_needs(exported, tmp_path, monkeypatch):
    content = exported[2]
    out = tmp_path / "new" / "model.onnx"
    report = "\n".join(check_and_write(*exported, out))
    assert len(re.findall(r"checked batch [12] of .* labels equal", report)) >= 4
    assert "# - ResizeEdge(scale=64, edge='short')\nimages = " in report  # the program that it prints
    assert "images (batch, 3, height, width)" in report and "scores (batch, 3)" in report
    assert [file.name for file in out.parent.iterdir()] == ["model.onnx"] and out.read_bytes() == content
    session = runtime.InferenceSession(out)
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta["eyetoy.classes"]) == list(CLASSES)
    assert json.loads(meta["eyetoy.before"]) == [{"type": "ResizeEdge", "scale": 64, "edge": "short"}]
    assert re.fullmatch("[0-9a-f]{64}", meta["eyetoy.config_sha256"])
    scores, labels = session.run(None, {"images": torch.zeros(2, 3, 40, 31).numpy()})
    assert scores.shape == (2, 3) and (scores.argmax(1) == labels).all()
    run_printed(report, out.parent, monkeypatch)


def run_printed(report, folder, monkeypatch):
    """The program that a report ends with, on a photo that stands on its side, gives what the file's outputs are."""
    exif = Image.Exif()
    exif[0x112] = 6  # the orientation
    pixels = patterns(1, 70, 50)[0].permute(1, 2, 0).numpy().astype(np.uint8)
    Image.fromarray(pixels).save(folder / "photo.jpg", exif=exif)
    program, names = report[report.index("import numpy, ") :], {}
    monkeypatch.chdir(folder)
    exec(program, names)
    assert names["images"].shape == (1, 3, 50, 70) and names["scores"].shape == (1, 3)
    assert (names["scores"].argmax(1) == names["labels"]).all()


def test_no_path_of_this_machine_is_in_a_file(exported):
    content = exported[2]
    for path in (Path(__file__).parents[2], Path(torch.__file__).parents[1], Path(sys.executable).parent):
        assert str(path).encode() not in content
    assert b".py" not in content and b"Traceback" not in content


LOADER = """
import sys, numpy, torch
model = torch.export.load(sys.argv[1]).module()
outputs = model(torch.from_numpy(numpy.load(sys.argv[2])))
numpy.save(sys.argv[3], outputs[0].detach().numpy())
print(sorted(name for name in sys.modules if name.startswith(("eyetoy_mm", "mm"))))
"""


def test_a_program_of_torch_export_runs_without_this_package(files, exported, tmp_path, monkeypatch):
    out, images = tmp_path / "model.pt2", patterns(3, 50, 70)
    report = "\n".join(export_pt2(exported[0], load_config(files[0]), out, "whole", (50, 70)))
    assert report.count("checked batch") == 2 and "torch.export.load('model.pt2')" in report
    run_printed(report, tmp_path, monkeypatch)
    np.save(tmp_path / "images.npy", images.numpy())
    command = [sys.executable, "-c", LOADER, out, tmp_path / "images.npy", tmp_path / "scores.npy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "eyetoy_mm" not in done.stdout and "mmengine" not in done.stdout, done.stderr
    with torch.no_grad():
        expected = exported[1](images)[0]
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "scores.npy")), expected)
    assert str(Path(__file__).parents[2]).encode() not in out.read_bytes()


class OperatorWithin(torch.nn.Module):
    """Our operator in a region of its own, which torch.export makes a graph within the graph."""

    any_batch = False

    def forward(self, images):
        x = images.permute(0, 2, 3, 1).unsqueeze(3)
        with torch.enable_grad():
            return (torch.ops.eyetoy_mm.neighborhood_attention(x, x, x, None, [3, 3], [1, 1], 1.0),)


def test_a_program_that_needs_this_package_is_refused():
    with pytest.raises(UserError, match="has operators of eyetoy_mm, which servers do not have"):
        build_program(OperatorWithin(), (8, 9))


def test_a_file_of_openvino_is_checked_and_written(files, exported, tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="openvino is not installed")
    out = tmp_path / "model.xml"
    report = "\n".join(export_openvino(exported[0], load_config(files[0]), out))
    assert report.count("checked batch") == 5 and {file.name for file in tmp_path.iterdir()} == {
        "model.xml",
        "model.bin",
    }
    scores, labels = open_file(out)(patterns(2, 40, 31).numpy())
    assert scores.shape == (2, 3) and (scores.argmax(1) == labels).all()
    assert json.dumps(list(CLASSES)) in out.read_text().replace("&quot;", '"')
    assert str(tmp_path) not in out.read_text()
    run_printed(report, tmp_path, monkeypatch)


class Brightest(torch.nn.Module):
    def forward(self, images):
        return (images.amax(1),)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".xml"])
def test_files_take_an_image_at_least(suffix, tmp_path):
    file = tmp_path / f"model{suffix}"
    if suffix == ".pt2":
        torch.export.save(torch.export.export(Brightest(), (torch.zeros(2, 3, 8, 9),)), file)
    else:
        graph = build_graph(Brightest(), ["brightest"])
        if suffix == ".onnx":
            onnx.save(graph, file)
        else:
            openvino = pytest.importorskip("openvino", reason="openvino is not installed")
            openvino.save_model(openvino.Core().read_model(graph.SerializeToString()), str(file))
    run = open_file(file)
    assert run(np.zeros((2, 3, 8, 9), np.float32))[0].shape == (2, 8, 9)
    for shape, told in (((0, 3, 8, 9), "0 x 3 x 8 x 9"), ((2, 3, 0, 9), "2 x 3 x 0 x 9"), ((3, 8, 9), "3 x 8 x 9")):
        with pytest.raises(UserError, match=f"takes images .batch, 3, height, width., at least one, and got {told}$"):
            run(np.zeros(shape, np.float32))


def test_a_file_in_int8_keeps_its_labels_or_is_not_written(exported, tmp_path, monkeypatch):
    photos, out = tmp_path / "photos", tmp_path / "model.onnx"
    photos.mkdir()
    for height in (64, 70, 80, 90):
        cv2.imwrite(str(photos / f"{height}.png"), patterns(1, height, 64)[0].permute(1, 2, 0).numpy())
    report = "\n".join(check_and_write(*exported, out, photos=photos))
    found = "int8: 100.00 % of 2 labels are those of float32, on photos that did not calibrate"
    assert found in report
    model, plain = onnx.load(out), onnx.load_from_string(exported[2])
    weights = [tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1]
    assert weights.count(onnx.TensorProto.INT8) > 5 and not model.graph.value_info
    assert {node.op_type for node in model.graph.node} - {node.op_type for node in plain.graph.node} >= {
        "QuantizeLinear"
    }
    session = runtime.InferenceSession(out)
    meta = session.get_modelmeta().custom_metadata_map
    assert meta["eyetoy.precision"] == found and json.loads(meta["eyetoy.classes"]) == list(CLASSES)
    images = patterns(2, 61, 47).numpy()
    (scores, _), (expected, _) = (
        one.run(None, {"images": images}) for one in (session, runtime.InferenceSession(exported[2]))
    )
    assert 0 < np.abs(scores - expected).max() < 0.05
    monkeypatch.setattr(int8, "LEAST", 1.01)
    with pytest.raises(UserError, match="in int8 only 100.00 % of 2 labels are those of float32.*without --int8"):
        int8.to_int8(exported[2], int8.Photos(exported[0], photos, None))


def test_photos_are_found_below_a_folder_and_mixed(tmp_path):
    names = ["cat/0.jpg", "cat/1.jpg", "cat/2.jpg", "cat/3.jpg", "dog/old/0.PNG", "dog/old/1.jpg", "toy.jpg"]
    for name in [*names, ".cache/0.jpg", "cat/.0.jpg", "cat/notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in int8.find_photos(tmp_path)]
    assert found == ["toy.jpg", *names[:2], *names[4:6], *names[2:4]]
    (tmp_path / "dog/old/1.jpg").unlink()
    with pytest.raises(UserError, match=r"two at least.* it has 1, those in folders below it included"):
        int8.find_photos(tmp_path / "dog")


def test_as_many_photos_are_compared_as_give_labels_enough(monkeypatch):
    """All of the first in a classifier, whose photos have one label each; of a segmentor the least number of photos."""

    class Session:
        def __init__(self, labels):
            self.labels = labels

        def run(self, _, inputs):
            return [np.full(int(inputs["images"]), self.labels)]

    monkeypatch.setattr(int8, "open_session", Session)
    monkeypatch.setattr(int8, "COMPARED", (3, 8))
    for labels_of_a_photo, photos, expected in ((1, 20, 8), (1, 5, 5), (100, 20, 300)):
        read = iter([labels_of_a_photo] * photos)
        assert int8.labels_kept(1, 1, read) == (expected, expected)
        assert int8.labels_kept(1, 2, [labels_of_a_photo] * photos) == (0, expected)


@pytest.mark.parametrize(("scope", "part"), [("mmdet", "whole"), ("mmseg", "backbone")])
def test_int8_is_for_models_whose_labels_are_counted(scope, part):
    int8.check_has_labels("mmseg", "whole")
    with pytest.raises(UserError, match="--int8 is for whole segmentors and classifiers"):
        int8.check_has_labels(scope, part)


def test_what_cannot_be_written_or_read_is_told_before_the_graph_is_built(files, tmp_path, monkeypatch):
    monkeypatch.setattr("eyetoy_mm.cli.export._export", None)
    (tmp_path / "model.onnx").mkdir()
    (tmp_path / "photo.jpg").write_bytes(b"no photo")
    for options, message in (
        (["--out", tmp_path / "model.onnx"], "model.onnx is a folder; name a file in it, as .*model.onnx/model.onnx"),
        (["--out", "new.onnx", "--image", tmp_path / "photo.jpg"], "photo.jpg is not an image that can be read"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["export", *map(str, files), *map(str, options)])


def test_a_file_that_is_wrong_is_not_written(exported, tmp_path):
    predictor = exported[0]
    bias = predictor.model.head.fc.bias
    with torch.no_grad():
        bias[0] += 0.1  # the model is no longer the one that was exported
        try:
            with pytest.raises(UserError, match=r"not the model, and no file was written: for batch 1 of 64 x 64 it "):
                list(check_and_write(*exported, tmp_path / "model.onnx"))
        finally:
            bias[0] -= 0.1
    assert not list(tmp_path.iterdir())


def test_what_the_pipeline_normalises_is_refused(exported, monkeypatch):
    monkeypatch.setattr(exported[0].preprocessing, "after_loading", [dict(type="mmcv.Normalize", mean=[0.0] * 3)])
    with pytest.raises(
        UserError, match="the test pipeline normalises images.*give mean, std and the order of channels"
    ):
        make_export_model(exported[0], "mmpretrain", "whole")


def test_agreement_is_about_shapes_values_and_numbers():
    x = torch.ones(2, 3)
    assert agreement([x], [x * 1.0005]).holds
    assert not agreement([x], [x * 1.01]).holds
    assert not agreement([x], [x[:1]]).holds
    assert not agreement([x * float("nan")], [x]).holds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "model.pt"], "--out model.pt must be a file that ends in .onnx, .xml, .pt2"),
        (["--out", "model.onnx", "--format", "pt2"], "--format pt2 is for files that end in .pt2, got model.onnx"),
        (["--out", "model.pt2"], "a .pt2 file is for one size: --size H,W"),
        (["--out", "model.onnx", "--kernels", "eyetoy"], "--kernels eyetoy and --onnxruntime-headers DIR go together"),
        (["--out", "model.xml", "--kernels", "eyetoy", "--onnxruntime-headers", "."], "is for onnxruntime, and --out"),
        (
            ["--out", "model.onnx", "--kernels", "eyetoy", "--onnxruntime-headers", "tests"],
            "--onnxruntime-headers tests has no onnxruntime_c_api.h",
        ),
        (["--out", "model.xml", "--int8", "."], "--int8 is for .onnx files with --kernels plain"),
        (["--out", "model.onnx", "--size", "224"], "--size must be H,W"),
        (["--out", "model.onnx", "--image", "none.jpg"], "there is no image none.jpg"),
        (["--out", "model.onnx", "--part", "backbone", "--cfg-options", "a"], "--cfg-options takes key.of.it=value"),
    ],
)
def test_mistakes_of_the_command_line_are_told_before_anything_is_built(options, message):
    done = program.run("tools/export.py", "config.py", "model.pth", *options)
    assert done.returncode == 1 and message in done.stderr


def test_the_program_with_all_its_options(files, tmp_path, capsys):
    photo, out = tmp_path / "photo.png", tmp_path / "backbone.onnx"
    cv2.imwrite(str(photo), np.zeros((40, 60, 3), np.uint8))
    command = [
        "export", *files, "--out", out, "--part", "backbone", "--size", "64,96", "--image", photo,
        "--format", "onnx", "--kernels", "plain",
        "--cfg-options", "model.backbone.out_type=featmap",
    ]  # fmt: skip
    main(list(map(str, command)))
    session = runtime.InferenceSession(out)
    for batch in (1, 3):
        (features,) = session.run(None, {"images": np.zeros((batch, 3, 64, 96), np.float32)})
        assert features.shape[:2] == (batch, 8) and features.ndim == 4
    assert "photo.png" in capsys.readouterr().out and session.get_inputs()[0].shape[2:] == [64, 96]


def test_sizes_are_read():
    assert height_and_width("224,320") == (224, 320)
    for text in ("0,3", "a,b", "1,2,3"):
        with pytest.raises(UserError, match="--size must be H,W"):
            height_and_width(text)
    with pytest.raises(UserError, match="at most 268,435,456 pixels together, got '99999,99999'"):
        height_and_width("99999,99999")
