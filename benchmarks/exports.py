"""What each way of exporting a model costs and gives: time, memory, size, and agreement with the toolbox.

    python benchmarks/exports.py CONFIG CHECKPOINT --onnxruntime-headers onnxruntime/include
    python benchmarks/exports.py CONFIG CHECKPOINT --sizes 224,224 512,512 --threads 1 2 --photos photos
    python benchmarks/exports.py CONFIG CHECKPOINT --into docs/export.md

Exports the model as `eyetoy export` does, with its checks: plain, with our kernels where headers are named, to
OpenVINO where it is installed, and quantized to int8, dynamically and with the photos for calibration. Then all take
turns beside the config itself, at every size and number of threads (`eyetoy benchmark`). Agreement is the share of
labels that equal those of the plain file on the photos; it means something for a trained model alone, of mmseg or
mmpretrain. On a machine that does something else the times are wrong.

Predicted, as shares of eager's time with the compiled kernels, one thread: plain 0.9 to 1.2, kernels 0.59 to 0.81,
OpenVINO 0.99; int8 dynamic 1.0, which saves space and no time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from eyetoy_mm.cli.options import height_and_width
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.inference import Predictor, open_predictor
from eyetoy_mm.errors import UserError, report_user_errors
from eyetoy_mm.export.benchmark import Task, measure, table
from eyetoy_mm.export.checking import read_photo
from eyetoy_mm.export.onnx_file import export_onnx
from eyetoy_mm.export.openvino_file import export_openvino
from eyetoy_mm.export.runtimes import INPUT, KERNELS, open_file
from eyetoy_mm.tables import markdown_table, write_into


def export_all(
    predictor: Predictor, config: Config, folder: Path, headers: Path | None, images: list[np.ndarray]
) -> Iterator[tuple[str, Path]]:
    """Names of the ways, each with its file."""
    plain = folder / "plain" / "model.onnx"
    for _ in export_onnx(predictor, config, plain):
        pass
    yield "onnx", plain
    if headers is not None:
        kernels = folder / "kernels" / "model.onnx"
        for _ in export_onnx(predictor, config, kernels, headers=headers):
            pass
        yield "onnx, our kernels", kernels
    if find_spec("openvino") is not None:
        openvino = folder / "openvino" / "model.xml"
        for _ in export_openvino(predictor, config, openvino):
            pass
        yield "openvino", openvino
    yield from quantize(plain, folder, images)


def quantize(plain: Path, folder: Path, images: list[np.ndarray]) -> Iterator[tuple[str, Path]]:
    """Products and convolutions in int8, as onnxruntime's tools do it."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

    class Photos(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.rest, None)
            return None if image is None else {INPUT: image}

    dynamic, static = folder / "dynamic.onnx", folder / "static.onnx"
    quantize_dynamic(plain, dynamic, op_types_to_quantize=["MatMul", "Gemm"])
    yield "onnx, int8 dynamic", dynamic
    quantize_static(
        plain, static, Photos(), quant_format=QuantFormat.QDQ, per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm", "Conv"],
    )  # fmt: skip
    yield "onnx, int8 static", static


def labels_of(file: Path, images: list[np.ndarray]) -> list[np.ndarray]:
    """What a file says of each image."""
    run = open_file(file)
    return [run(image)[-1] for image in images]


def size_of(file: Path) -> str:
    """Of a file, with the weights of OpenVINO's and the kernels of ours beside it."""
    kernels = file.parent / KERNELS
    parts = [*file.parent.glob(f"{file.stem}.*"), *(kernels.iterdir() if kernels.is_dir() else ())]
    return f"{sum(part.stat().st_size for part in parts) / 1e6:.1f} MB"


def agreement(labels: list[np.ndarray], expected: list[np.ndarray]) -> str:
    """Share of labels that are the expected ones."""
    equal = sum(int((a == b).sum()) for a, b in zip(labels, expected, strict=True))
    return f"{100 * equal / sum(b.size for b in expected):.2f} %"


@report_user_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("checkpoint")
    parser.add_argument("--onnxruntime-headers", type=Path, metavar="DIR")
    parser.add_argument("--sizes", nargs="+", default=["224,224", "512,512"], metavar="H,W")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--photos", type=Path, default=Path("data/sample/images/validation"), metavar="DIR")
    parser.add_argument("--into", type=Path, metavar="PAGE")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    predictor = open_predictor(config, arguments.checkpoint, device="cpu")
    if config.default_scope not in ("mmseg", "mmpretrain"):
        raise UserError(f"{arguments.config} is for {config.default_scope}; agreement is of labels")
    photos = [path for path in sorted(arguments.photos.iterdir()) if path.suffix in (".jpg", ".jpeg", ".png")]
    if not photos:
        raise UserError(f"--photos {arguments.photos} has no .jpg, .jpeg or .png")
    images = [read_photo(predictor, path).numpy() for path in photos]
    lines = []

    def tell(text: str) -> None:
        print(f"{text}\n", flush=True)
        lines.extend([text, ""])

    with tempfile.TemporaryDirectory() as folder:
        files = dict(export_all(predictor, config, Path(folder), arguments.onnxruntime_headers, images))
        labels = {name: labels_of(file, images) for name, file in files.items()}
        tell(
            markdown_table(
                [f"`{arguments.config}`", "size", f"labels equal on {len(images)} photos"],
                [[name, size_of(file), agreement(labels[name], labels["onnx"])] for name, file in files.items()],
            )
        )
        for size in arguments.sizes:
            for threads in arguments.threads:
                task = Task("forward", height_and_width(size), 1, "cpu", threads)
                report = measure([arguments.config, *map(str, files.values())], task, arguments.rounds)
                for name, found in zip(["the config, eager", *files], report["models"], strict=True):
                    found["model"] = name
                tell(table(report))
    if arguments.into is not None:
        write_into(arguments.into, "benchmarks/exports.py", "\n".join(lines).strip())


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
