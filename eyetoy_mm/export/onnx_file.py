"""Export a trained model to an ONNX file that is checked before it is there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from mmengine.config import Config

from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.export.checking import check_all, metadata, snippet
from eyetoy_mm.export.int8 import Photos, to_int8
from eyetoy_mm.export.kernels import build_kernels
from eyetoy_mm.export.models import ExportModel, make_export_model
from eyetoy_mm.export.onnx_graph import add_metadata, build_graph, fix_size, with_infinity
from eyetoy_mm.export.operator import OPSET
from eyetoy_mm.export.runtimes import INPUT, KERNELS, LIBRARY, Run, open_session, run_of
from eyetoy_mm.version import __version__
from eyetoy_mm.whole_files import write_whole


def export_onnx(
    predictor: Predictor,
    config: Config,
    out: Path,
    part: str = "whole",
    size: tuple[int, int] | None = None,
    photo: str | Path | None = None,
    headers: Path | None = None,
    photos: Path | None = None,
) -> Iterator[str]:
    """Export a model, check the file in onnxruntime against the toolbox, and write it.

    Args:
        predictor: The model, opened on a CPU.
        config: Its config.
        out: The file; it is not touched before all checks have passed.
        part: ``"whole"`` or ``"backbone"``.
        size: Height and width that the file is for; any when None.
        photo: An image to check with too, resized as the test pipeline does.
        headers: Of onnxruntime, for a file with our kernels, which are put beside it; standard operators when None.
        photos: A folder that calibrates a file in int8; float32 when None.

    Yields:
        Lines that report what is in the file and what was checked.

    Raises:
        UserError: The model is of a kind that is not exported, or the file does not do what the model does.
    """
    model, content = build_file(predictor, config, part, size, "plain" if headers is None else "eyetoy")
    yield from check_and_write(predictor, model, content, out, size, photo, headers, photos)


def build_file(
    predictor: Predictor, config: Config, part: str, size: tuple[int, int] | None, kernels: str = "plain"
) -> tuple[ExportModel, bytes]:
    """Export a model; arguments and errors are those of :func:`export_onnx` and :func:`build_graph`.

    Returns:
        What was exported, and the content of the file, which is not checked.
    """
    model = make_export_model(predictor, config.default_scope, part)
    proto = build_graph(model, list(model.outputs), model.any_batch, kernels, model.traced_size(size))
    if size is not None:
        fix_size(proto, size)
    add_metadata(proto, metadata(predictor, config, model, size), __version__)
    onnx.checker.check_model(proto)
    return model, proto.SerializeToString()


def check_and_write(
    predictor: Predictor,
    model: ExportModel,
    content: bytes,
    out: Path,
    size: tuple[int, int] | None = None,
    photo: str | Path | None = None,
    headers: Path | None = None,
    photos: Path | None = None,
) -> Iterator[str]:
    """Check what :func:`build_file` gives, and write it where all checks pass; the rest as in :func:`export_onnx`."""
    with tempfile.TemporaryDirectory() as scratch:
        library = None if headers is None else build_kernels(Path(scratch), headers)
        opened = partial(open_session, threads=torch.get_num_threads(), library=library)
        session = opened(content)
        yield f"input   {_described(session.get_inputs()[0])}: RGB, 0..255; normalisation and padding are inside"
        for value in session.get_outputs():
            yield f"output  {_described(value)}: {model.outputs[value.name]}"

        def open_raised(name: str) -> Run:
            return run_of(opened(with_infinity(content, name)))

        yield from check_all(predictor, model, run_of(session), open_raised, size, photo)
        if photos is not None:
            content, found = to_int8(content, Photos(predictor, photos, size))
            yield found
        if library is not None:
            for file in sorted(library.parent.iterdir()):
                write_whole(out.parent / KERNELS / file.name, file.read_bytes())
            yield f"{out.parent / KERNELS}: the operator and its kernels, to be kept beside the file"
    write_whole(out, content)
    yield f"{out}: {len(content) / 1e6:.1f} MB, ONNX opset {OPSET}"
    yield _program(predictor, out, model, size, with_kernels=headers is not None)


def _program(
    predictor: Predictor, out: Path, model: ExportModel, size: tuple[int, int] | None, with_kernels: bool
) -> str:
    opening, argument = "", ""
    if with_kernels:
        argument = ", options"
        opening = (
            f'options = onnxruntime.SessionOptions()\noptions.register_custom_ops_library("{KERNELS}/{LIBRARY}")\n'
        )
    opening += f"session = onnxruntime.InferenceSession({out.name!r}{argument})"
    return snippet(predictor, model, size, "onnxruntime", opening, f"session.run(None, {{{INPUT!r}: images}})")


def _described(value: Any) -> str:
    return f"{value.name} ({', '.join(map(str, value.shape))})"
