"""Export a trained model to files of OpenVINO, by way of the ONNX graph."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from mmengine.config import Config

from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.export.checking import check_all, metadata, snippet
from eyetoy_mm.export.models import ExportModel
from eyetoy_mm.export.onnx_file import build_file
from eyetoy_mm.export.onnx_graph import with_infinity
from eyetoy_mm.export.runtimes import INPUT, Run, need, open_openvino
from eyetoy_mm.whole_files import write_whole


def export_openvino(
    predictor: Predictor,
    config: Config,
    out: Path,
    part: str = "whole",
    size: tuple[int, int] | None = None,
    photo: str | Path | None = None,
) -> Iterator[str]:
    """Export a model, check the files in OpenVINO against the toolbox, and write them.

    Arguments, what is yielded and errors are those of :func:`~eyetoy_mm.export.onnx_file.export_onnx`; beside ``out``,
    which ends in .xml, there is a file of the same name that ends in .bin.
    """
    need("export to OpenVINO", "openvino")
    model, content = build_file(predictor, config, part, size)
    yield from convert_and_write(predictor, config, model, content, out, size, photo)


def convert_and_write(
    predictor: Predictor,
    config: Config,
    model: ExportModel,
    content: bytes,
    out: Path,
    size: tuple[int, int] | None = None,
    photo: str | Path | None = None,
) -> Iterator[str]:
    """Convert what :func:`~eyetoy_mm.export.onnx_file.build_file` gives, check and write it; as above."""
    import openvino

    graph = openvino.Core().read_model(content)
    for key, text in metadata(predictor, config, model, size).items():
        graph.set_rt_info(text, key.split("."))
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch) / out.name
        openvino.save_model(graph, str(draft), compress_to_fp16=False)
        opened = partial(open_openvino, threads=torch.get_num_threads())

        def open_raised(name: str) -> Run:
            raised = Path(scratch) / "raised.onnx"
            raised.write_bytes(with_infinity(content, name))
            return opened(raised)

        yield from check_all(predictor, model, opened(draft), open_raised, size, photo)
        weights = draft.with_suffix(".bin").read_bytes()
        write_whole(out.with_suffix(".bin"), weights)
        write_whole(out, draft.read_bytes())
    yield f"{out}: {len(weights) / 1e6:.1f} MB with {out.with_suffix('.bin').name}"
    opening = f'model = openvino.Core().compile_model({out.name!r}, "CPU")'
    yield snippet(predictor, model, size, "openvino", opening, f"model({{{INPUT!r}: images}}).values()")
