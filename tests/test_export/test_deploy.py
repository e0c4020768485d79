"""The programs of examples/deploy, compiled and run with a small file, against NumPy."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples/deploy"
HEADERS = os.environ.get("EYETOY_ONNXRUNTIME_HEADERS")  # the folder that has onnxruntime_c_api.h
LIBRARY = os.environ.get("EYETOY_ONNXRUNTIME_LIBRARY")  # libonnxruntime.so of a release archive
PALETTE = [[250, 0, 10], [0, 250, 20], [0, 30, 250]]


def brightest_channel(path: Path) -> None:
    """A file whose labels are the brightest of red, green and blue, as `eyetoy export` writes one."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    value, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    images = value("images", types.FLOAT, ["batch", 3, "height", "width"])
    labels = value("labels", types.INT64, ["batch", "height", "width"])
    node = onnx.helper.make_node("ArgMax", ["images"], ["labels"], axis=1, keepdims=0)
    graph = onnx.helper.make_graph([node], "g", [images], [labels])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    onnx.helper.set_model_props(model, {"eyetoy.palette": str(PALETTE)})
    onnx.save(model, path)


def image_wide_label(path: Path) -> None:
    """A file with one label for an image, as of a classifier."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    value, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    images = value("images", types.FLOAT, ["batch", 3, "height", "width"])
    pooled = onnx.helper.make_node("GlobalAveragePool", ["images"], ["pooled"])
    maps = onnx.helper.make_node("ArgMax", ["pooled"], ["labels"], axis=1, keepdims=0)
    graph = onnx.helper.make_graph([pooled, maps], "g", [images], [value("labels", types.INT64, ["batch", 1, 1])])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9), path)


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(not (HEADERS and LIBRARY), reason="EYETOY_ONNXRUNTIME_HEADERS or _LIBRARY is not set")
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_a_photo_is_painted_in_cpp_with_onnxruntime_alone(tmp_path):
    library = Path(LIBRARY).resolve()
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", EXAMPLES / "segment_onnx.cpp"]
    command += ["-I", HEADERS, library, f"-Wl,-rpath,{library.parent}", "-o", tmp_path / "segment"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    brightest_channel(tmp_path / "model.onnx")
    photo = np.random.default_rng(0).integers(0, 256, (13, 21, 3), dtype=np.uint8)
    (tmp_path / "photo.ppm").write_bytes(b"P6 21 13 255\n" + photo.tobytes())
    done = run(tmp_path / "segment", *(tmp_path / name for name in ("model.onnx", "photo.ppm", "labels.ppm")))
    assert done.returncode == 0, done.stderr
    content = (tmp_path / "labels.ppm").read_bytes()
    head = b"P6 21 13 255\n"
    painted = np.frombuffer(content[len(head) :], np.uint8).reshape(13, 21, 3)
    assert content.startswith(head) and (painted == np.array(PALETTE)[photo.argmax(2)]).all()
    (tmp_path / "commented.ppm").write_bytes(b"P6\n# of GIMP\n21 13\n# 8 bits\n255\n" + photo.tobytes())
    done = run(tmp_path / "segment", *(tmp_path / name for name in ("model.onnx", "commented.ppm", "again.ppm")))
    assert done.returncode == 0 and (tmp_path / "again.ppm").read_bytes() == content
    image_wide_label(tmp_path / "classifier.onnx")
    (tmp_path / "upside_down.ppm").write_bytes(b"P6 21 -13 255\n" + photo.tobytes())
    for model, image, message in (
        ("none.onnx", "photo.ppm", "none.onnx"),
        ("classifier.onnx", "photo.ppm", "classifier.onnx is not a segmentor"),
        ("model.onnx", "model.onnx", "is not a binary PPM file"),
        ("model.onnx", "upside_down.ppm", "is not a binary PPM file"),
    ):
        done = run(tmp_path / "segment", tmp_path / model, tmp_path / image, tmp_path / "x.ppm")
        assert done.returncode == 1 and message in done.stderr and not (tmp_path / "x.ppm").exists()
    assert run(tmp_path / "segment").returncode == 2


class BrightestChannel(torch.nn.Module):
    def forward(self, images):
        return (images.argmax(1),)


@pytest.mark.slow
@pytest.mark.skipif("EYETOY_LONG_TESTS" not in os.environ, reason="compiles for a minute: EYETOY_LONG_TESTS=1 runs it")
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_a_photo_is_painted_in_cpp_with_libtorch_alone(tmp_path):
    """From a program of torch.export, as `eyetoy export` saves one, compiled by the script that goes with it."""
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(BrightestChannel(), (torch.rand(2, 3, 13, 21),), dynamic_shapes=shapes)
    facts = {"eyetoy.palette": str(PALETTE), "eyetoy.size": "[13, 21]"}
    torch.export.save(program, tmp_path / "model.pt2", extra_files=facts)
    script = [sys.executable, EXAMPLES / "compile_pt2.py", tmp_path / "model.pt2", tmp_path / "compiled.pt2"]
    folder = dict(os.environ, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    home = Path(torch.__file__).parent
    flags = ["-std=c++20", "-O1", f"-I{home}/include", f"-L{home}/lib", f"-Wl,-rpath,{home}/lib"]
    libraries = ["-ltorch", "-ltorch_cpu", "-lc10"]
    compiler = ["g++", *flags, EXAMPLES / "segment_pt2.cpp", *libraries, "-o", tmp_path / "segment"]
    for command in (script, compiler):
        done = subprocess.run(list(map(str, command)), env=folder, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
    photo = np.random.default_rng(0).integers(0, 256, (13, 21, 3), dtype=np.uint8)
    (tmp_path / "photo.ppm").write_bytes(b"P6 21 13 255\n" + photo.tobytes())
    done = run(tmp_path / "segment", *(tmp_path / name for name in ("compiled.pt2", "photo.ppm", "labels.ppm")))
    assert done.returncode == 0, done.stderr
    painted = np.frombuffer((tmp_path / "labels.ppm").read_bytes()[-photo.size :], np.uint8).reshape(13, 21, 3)
    assert (painted == np.array(PALETTE)[photo.argmax(2)]).all()
    (tmp_path / "other.ppm").write_bytes(b"P6 13 21 255\n" + photo.tobytes())
    done = run(tmp_path / "segment", *(tmp_path / name for name in ("compiled.pt2", "other.ppm", "x.ppm")))
    assert done.returncode == 1 and not (tmp_path / "x.ppm").exists()
    assert "other.ppm is of [21, 13], height and width" in done.stderr and "takes [13, 21]" in done.stderr
