"""Export a trained model to a file that is checked before it is there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from mmengine.config import Config
from torch import Tensor

from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.engine.preprocessing import test_pipeline
from eyetoy_mm.errors import UserError
from eyetoy_mm.export.models import ExportModel, make_export_model
from eyetoy_mm.export.onnx_graph import INPUT, add_metadata, build_graph, fix_size
from eyetoy_mm.export.operator import OPSET
from eyetoy_mm.registry import type_name
from eyetoy_mm.version import __version__

# Batch, height and width. None was traced: odd, small, upright, wide, less than one position of the last map.
CHECKED = ((1, 64, 64), (2, 61, 33), (1, 197, 98), (2, 72, 216), (1, 29, 130))
CHECKED_BATCHES = (1, 2)  # of a file for one size


def export_onnx(
    predictor: Predictor,
    config: Config,
    out: Path,
    part: str = "whole",
    size: tuple[int, int] | None = None,
    photo: str | Path | None = None,
) -> Iterator[str]:
    """Export a model, check the file in onnxruntime against the toolbox, and write it.

    Args:
        predictor: The model, opened on a CPU.
        config: Its config.
        out: The file; it is not touched before all checks have passed.
        part: ``"whole"`` or ``"backbone"``.
        size: Height and width that the file is for; any when None.
        photo: An image to check with too, resized as the test pipeline does.

    Yields:
        Lines that report what is in the file and what was checked.

    Raises:
        UserError: The model is of a kind that is not exported, or the file does not do what the model does.
    """
    model, content = build_file(predictor, config, part, size)
    yield from check_and_write(predictor, model, content, out, size, photo)


def build_file(
    predictor: Predictor, config: Config, part: str, size: tuple[int, int] | None
) -> tuple[ExportModel, bytes]:
    """Export a model; arguments and errors are those of :func:`export_onnx`.

    Returns:
        What was exported, and the content of the file, which is not checked.
    """
    model = make_export_model(predictor, config.default_scope, part)
    proto = build_graph(model, list(model.outputs), model.any_batch)
    if size is not None:
        fix_size(proto, size)
    add_metadata(proto, _metadata(predictor, config, model, size), __version__)
    onnx.checker.check_model(proto)
    return model, proto.SerializeToString()


def check_and_write(
    predictor: Predictor,
    model: ExportModel,
    content: bytes,
    out: Path,
    size: tuple[int, int] | None = None,
    photo: str | Path | None = None,
) -> Iterator[str]:
    """Check what :func:`build_file` gives, and write it where all checks pass; the rest as in :func:`export_onnx`."""
    session = open_session(content)
    yield f"input   {_described(session.get_inputs()[0])}: RGB, 0..255; normalisation and padding are inside"
    for value in session.get_outputs():
        yield f"output  {_described(value)}: {model.outputs[value.name]}"
    for what, images in _check_images(predictor, model, size, photo):
        yield f"checked {what}: {check(session, model, images, what)}"
    model.conclude()
    yield from model.remarks
    yield "Not checked: other runtimes, other devices, and sizes that are not listed."
    write_whole(out, content)
    yield f"{out}: {len(content) / 1e6:.1f} MB, ONNX opset {OPSET}"
    yield snippet(out, model, size)


def open_session(content: bytes) -> onnxruntime.InferenceSession:
    """A session on a CPU that tells errors alone."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def check(session: onnxruntime.InferenceSession, model: ExportModel, images: Tensor, what: str) -> str:
    """Compare the outputs for some images with the toolbox' own.

    Returns:
        How they agree.

    Raises:
        UserError: They do not, or the file does not run.
    """
    try:
        outputs = [torch.from_numpy(array) for array in session.run(None, {INPUT: images.numpy()})]
    except Exception as error:  # onnxruntime's classes have no common one of their own
        raise UserError(f"the exported graph does not run for {what}, and no file was written: {error}") from error
    found = model.compare(images, outputs)
    if not found.holds:
        raise UserError(
            f"the exported graph is not the model, and no file was written: for {what} onnxruntime gives {found.text}"
        )
    return found.text


def write_whole(out: Path, content: bytes) -> None:
    """Write a file so that it is there as a whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def snippet(out: Path, model: ExportModel, size: tuple[int, int] | None) -> str:
    """A program that runs the file, for a reader without this package."""
    names = ", ".join(model.outputs) + ("," if len(model.outputs) == 1 else "")
    resize = "" if size is None else f".resize(({size[1]}, {size[0]}))"
    return f"""
import numpy, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession({out.name!r})
photo = numpy.asarray(Image.open("photo.jpg").convert("RGB"){resize}, dtype="float32")
{names} = session.run(None, {{{INPUT!r}: photo.transpose(2, 0, 1)[None]}})
{model.usage}"""


def _check_images(
    predictor: Predictor, model: ExportModel, size: tuple[int, int] | None, photo: str | Path | None
) -> Iterator[tuple[str, Tensor]]:
    shapes = CHECKED if size is None else tuple((batch, *size) for batch in CHECKED_BATCHES)
    for batch, height, width in shapes if model.any_batch else dict.fromkeys((1, *shape[1:]) for shape in shapes):
        yield f"batch {batch} of {height} x {width}", patterns(batch, height, width)
    if photo is None:
        return
    inputs = predictor.preprocessing.prepare(predictor.read(photo))["inputs"].float()[None]
    images = inputs.flip(1) if model.order == "bgr" else inputs
    if size is not None and images.shape[2:] != size:
        images = torch.nn.functional.interpolate(images, size=size, mode="bilinear")
    yield f"{Path(photo).name} of {images.shape[2]} x {images.shape[3]}", images.contiguous()


def patterns(batch: int, height: int, width: int) -> Tensor:
    """Images ``(B, 3, H, W)`` of whole numbers in 0..255: coarse shapes and some noise, the same every time."""
    generator = np.random.default_rng((batch, height, width))
    coarse = torch.from_numpy(generator.uniform(0, 255, (batch, 3, 5, 7)))
    shapes = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    noise = torch.from_numpy(generator.normal(0, 16, (batch, 3, height, width)))
    return (shapes + noise).clamp(0, 255).round().float()


def _metadata(predictor: Predictor, config: Config, model: ExportModel, size: tuple[int, int] | None) -> dict[str, str]:
    meta = predictor.dataset_meta
    palette = meta.get("palette")
    found: dict[str, Any] = {
        "task": model.task,
        "classes": list(meta["classes"]),
        "palette": [list(map(int, color)) for color in palette] if isinstance(palette, list | tuple) else None,
        "input": "float32 (batch, 3, height, width), RGB, 0..255",
        "size": "any" if size is None else list(size),
        "before": [_plain(step) for step in test_pipeline(config) if _is_for_user(step)],
        "outputs": model.outputs,
        "remarks": model.remarks,
        "config_sha256": hashlib.sha256(config.pretty_text.encode()).hexdigest(),
    }
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items() if value}
    return {f"eyetoy.{key}": text for key, text in texts.items()}


def _is_for_user(step: Mapping[str, Any]) -> bool:
    """Whether a step of the test pipeline is something that a user of the file has to do."""
    return not type_name(step).startswith(("Load", "Pack"))


def _plain(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step as its type and what of its settings is numbers, words and lists of them; no paths, no storage."""
    settings = {key: value for key, value in step.items() if key not in ("type", "backend_args", "_scope_")}
    return {"type": type_name(step)} | json.loads(json.dumps(settings, default=lambda value: type(value).__name__))


def _described(value: onnxruntime.NodeArg) -> str:
    return f"{value.name} ({', '.join(map(str, value.shape))})"
