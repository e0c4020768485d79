"""Formats x models x what was run: each way of exporting a model, its checks, its size, its time beside the toolbox.

    python benchmarks/exports.py CONFIG CHECKPOINT --results DIR --photos photos
    python benchmarks/exports.py CONFIG CHECKPOINT --results DIR --formats onnx int8 --time 512,512
    python benchmarks/exports.py CONFIG --results DIR --size 224,224    # initial weights; a graph for one size
    python benchmarks/exports.py --results DIR --into docs/export.md    # the table of all that is there

Exports as `eyetoy export` does, with its checks. What DIR has of a model is not run again, so that a run that was
ended goes on; graphs are built once. Where --time names sizes, all files of the model take turns beside its config
(`eyetoy benchmark`), one thread, and the ratio of processor time is the median over rounds: on a machine that does
something else caches are shared, and the ratios are rough. Detectors are not timed: the config has initial weights
there, and finds another number of boxes.

Predicted, as shares of eager's time with the compiled kernels, one thread: plain 0.9 to 1.2, kernels 0.59 to 0.81,
OpenVINO 0.99; int8 dynamic 1.0, which saves space and no time.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from mmengine.config import Config

from eyetoy_mm.cli.options import height_and_width
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.dry_run import build, without_downloads
from eyetoy_mm.engine.inference import Predictor, open_predictor
from eyetoy_mm.errors import UserError, report_user_errors
from eyetoy_mm.export.benchmark import Task, measure
from eyetoy_mm.export.int8 import Photos, check_has_labels, find_photos, labels_kept
from eyetoy_mm.export.models import make_export_model
from eyetoy_mm.export.onnx_file import build_file, check_and_write
from eyetoy_mm.export.openvino_file import convert_and_write
from eyetoy_mm.export.pt2_file import export_pt2
from eyetoy_mm.export.runtimes import KERNELS
from eyetoy_mm.tables import markdown_table, write_into
from eyetoy_mm.whole_files import write_whole

SUFFIXES = {"openvino": ".xml", "pt2": ".pt2"}
HEADER = ["model", "weights", "format", "sizes", "file", "checked against the toolbox", "time of eager's"]


@dataclass(frozen=True)
class Model:
    """A model, and the folder with what was made of it."""

    name: str
    config: Config
    predictor: Predictor
    folder: Path
    size: tuple[int, int] | None
    photos: Path | None
    headers: Path | None

    @property
    def photo(self) -> Path | None:
        return None if self.photos is None else find_photos(self.photos)[-1]

    def file(self, form: str) -> Path:
        return self.folder / form / f"model{SUFFIXES.get(form, '.onnx')}"

    def graph(self, kernels: str = "plain") -> Any:
        """What is exported and the ONNX graph, built once."""
        kept = self.folder / f"{kernels}.onnx"
        if not kept.is_file():
            write_whole(kept, build_file(self.predictor, self.config, "whole", self.size, kernels)[1])
        return make_export_model(self.predictor, self.config.default_scope, "whole"), kept.read_bytes()


# --- The formats ------------------------------------------------------------------------------------------------------


def plain(model: Model, out: Path) -> Iterator[str]:
    return check_and_write(model.predictor, *model.graph(), out, model.size, model.photo)


def kernels(model: Model, out: Path) -> Iterator[str]:
    if model.headers is None:
        raise UserError("--formats kernels needs --onnxruntime-headers DIR")
    return check_and_write(model.predictor, *model.graph("eyetoy"), out, model.size, model.photo, model.headers)


def int8(model: Model, out: Path) -> Iterator[str]:
    check_has_labels(model.config.default_scope, "whole")
    return check_and_write(model.predictor, *model.graph(), out, model.size, photos=_photos(model).folder)


def dynamic(model: Model, out: Path) -> Iterator[str]:
    """Weights alone are in int8, what they are multiplied with is quantized while it runs; no option of the command."""
    from onnxruntime.quantization import quantize_dynamic

    check_has_labels(model.config.default_scope, "whole")
    content = model.graph()[1]
    out.parent.mkdir(parents=True, exist_ok=True)
    quantize_dynamic(onnx.load_from_string(content), out, op_types_to_quantize=["MatMul", "Gemm"])
    equal, count = labels_kept(content, out.read_bytes(), _photos(model).read(1))
    yield f"int8: {100 * equal / count:.2f} % of {count} labels are those of float32"


def openvino(model: Model, out: Path) -> Iterator[str]:
    return convert_and_write(model.predictor, model.config, *model.graph(), out, model.size, model.photo)


def pt2(model: Model, out: Path) -> Iterator[str]:
    size = model.size or (61, 130)
    return export_pt2(model.predictor, model.config, out, "whole", size, model.photo)


def _photos(model: Model) -> Photos:
    if model.photos is None:
        raise UserError("int8 needs --photos DIR")
    return Photos(model.predictor, model.photos, model.size)


FORMATS: dict[str, Callable[[Model, Path], Iterator[str]]] = {
    "onnx": plain,
    "kernels": kernels,
    "int8": int8,
    "int8-dynamic": dynamic,
    "openvino": openvino,
    "pt2": pt2,
}

# --- One model --------------------------------------------------------------------------------------------------------


def run(arguments: argparse.Namespace) -> None:
    """Export a model in all ways that are asked for and not there; write what was found after each."""
    name = Path(arguments.config).name.removesuffix(".py")  # names of the zoo may have a dot
    results = arguments.results / f"{name}.json"
    found = json.loads(results.read_text()) if results.is_file() else dict(formats={}, times={})
    missing = [form for form in arguments.formats if form not in found["formats"]]
    if missing:
        model = open_model(arguments, name)
        found["trained"] = arguments.checkpoint is not None
        for form in missing:
            try:
                lines = list(FORMATS[form](model, model.file(form)))
            except UserError as error:
                lines = [f"refused: {error}"]
            size = None if not model.file(form).is_file() else size_of(model.file(form))
            found["formats"][form] = dict(lines=lines, bytes=size, size=model.size)
            print(form, *lines, sep="\n", flush=True)
            write_whole(results, json.dumps(found, indent=1))
    for size in arguments.time:
        if size in found["times"]:
            continue
        files = {form: str(arguments.results / name / form / f"model{SUFFIXES.get(form, '.onnx')}") for form in FORMATS}
        timed = [form for form in found["formats"] if form != "pt2" and Path(files[form]).is_file()]
        task = Task("forward", height_and_width(size), 1, "cpu", 1, "processor")
        models = [timed_config(arguments), *(files[form] for form in timed)]
        first, *others = measure(models, task, arguments.rounds)["models"]
        found["times"][size] = {form: ratio(one, first) for form, one in zip(timed, others, strict=True)}
        write_whole(results, json.dumps(found, indent=1))


def timed_config(arguments: argparse.Namespace) -> str:
    """The config, predicting as a file does: the whole image at once, where its own test has sliding windows."""
    config = load_config(arguments.config)
    if (config.model.get("test_cfg") or {}).get("mode") != "slide":
        return str(arguments.config)
    config.model.test_cfg = dict(mode="whole")
    config.dump(arguments.results / "whole.py")
    return str(arguments.results / "whole.py")


def open_model(arguments: argparse.Namespace, name: str) -> Model:
    config = load_config(arguments.config)
    checkpoint = arguments.checkpoint
    if checkpoint is None:
        without_downloads(config)
        torch.manual_seed(0)
        checkpoint = arguments.results / name / "initial.pth"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        torch.save(build(config).state_dict(), checkpoint)
    predictor = open_predictor(config, str(checkpoint), device="cpu")
    size = None if arguments.size is None else height_and_width(arguments.size)
    folder = arguments.results / name
    return Model(name, config, predictor, folder, size, arguments.photos, arguments.onnxruntime_headers)


def size_of(file: Path) -> int:
    """Bytes of a file, with the weights of OpenVINO's and the kernels of ours beside it."""
    beside = file.parent / KERNELS
    parts = [*file.parent.glob(f"{file.stem}.*"), *(beside.iterdir() if beside.is_dir() else ())]
    return sum(part.stat().st_size for part in parts)


def ratio(model: dict[str, Any], first: dict[str, Any]) -> float:
    return statistics.median(own / other for own, other in zip(model["seconds"], first["seconds"], strict=True))


# --- The table --------------------------------------------------------------------------------------------------------


def table(results: Iterable[Path]) -> str:
    """Of all models whose results are there."""
    rows = []
    for path in sorted(results):
        found = json.loads(path.read_text())
        for form, one in found["formats"].items():
            times = [
                f"{of[form]:.2f} at {size.replace(',', ' x ')}" for size, of in found["times"].items() if form in of
            ]
            rows.append(
                [
                    f"`{path.stem}`",
                    "trained" if found["trained"] else "initial",
                    form,
                    "any" if one["size"] is None and form != "pt2" else "one",
                    "-" if one["bytes"] is None else f"{one['bytes'] / 1e6:.1f} MB",
                    summary(one["lines"]),
                    "; ".join(times) or "-",
                ]
            )
    return markdown_table(HEADER, rows)


def summary(lines: list[str]) -> str:
    """What the lines of a report say of its checks, together."""
    refused = [line for line in lines if line.startswith("refused")]
    if refused:
        reason = refused[0].split(", and no file was written")[0]
        return re.sub(r" the photos of \S+", " photos that did not calibrate", reason).replace("|", "/")
    checked = [line for line in lines if line.startswith("checked")]
    text = "\n".join(checked)
    parts = [f"{len(checked)} images or batches"] if checked else []
    for what, pattern in (
        ("labels equal", r"(\d+) of (\d+) labels equal"),
        ("boxes match", r"(\d+) boxes of \d+ match mmdet's (\d+)"),
        ("pixels of masks differ", r"(\d+) pixels of masks differ of (\d+)"),
    ):
        counts = [tuple(map(int, pair)) for pair in re.findall(pattern, text)]
        if counts:
            own, of = (sum(column) for column in zip(*counts))
            parts.append(f"{own} of {of} {what}")
    differences = [float(value) for value in re.findall(r"largest difference (\S+) of", text)]
    if differences:
        parts.append(f"scores within {max(differences):.0e}")
    parts += [line.removeprefix("int8: ") for line in lines if line.startswith("int8: ")]
    return "; ".join(parts)


@report_user_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?")
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("--results", type=Path, required=True, metavar="DIR")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=["onnx", "int8", "openvino", "pt2"])
    parser.add_argument("--size", metavar="H,W", help="a graph for one size (default: for any)")
    parser.add_argument("--photos", type=Path, metavar="DIR")
    parser.add_argument("--onnxruntime-headers", type=Path, metavar="DIR")
    parser.add_argument("--time", nargs="+", default=[], metavar="H,W")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--into", type=Path, metavar="PAGE")
    arguments = parser.parse_args()
    if arguments.config is not None:
        run(arguments)
    text = table(arguments.results.glob("*.json"))
    print(text)
    if arguments.into is not None:
        write_into(arguments.into, "benchmarks/exports.py", text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
