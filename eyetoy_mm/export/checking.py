"""What every exported file goes through, whatever its format: checks against the toolbox, and what is said of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.errors import UserError
from eyetoy_mm.export.models import ExportModel
from eyetoy_mm.export.runtimes import Run
from eyetoy_mm.registry import type_name

# Batch, height and width. None was traced: odd, small, upright, wide, less than one position of the last map.
CHECKED = ((1, 64, 64), (2, 61, 33), (1, 197, 98), (2, 72, 216), (1, 29, 130))
CHECKED_BATCHES = (1, 2)  # of a file for one size


def check_all(
    predictor: Predictor,
    model: ExportModel,
    run: Run,
    open_raised: Callable[[str], Run],
    size: tuple[int, int] | None,
    photo: str | Path | None,
) -> Iterator[str]:
    """Compare a file with the toolbox on images of many sizes, or of its one, and on one in which nothing is found.

    Args:
        predictor: The model, opened on a CPU.
        model: What was exported of it.
        run: The file.
        open_raised: Opens the file with infinity as the number of a name, that of :attr:`ExportModel.least_score`.
        size: Height and width that it is for; any when None.
        photo: An image to check with too, resized as the test pipeline does.

    Yields:
        A line for each check, then what a user must know.

    Raises:
        UserError: The file does not do what the model does.
    """
    for what, images in _check_images(predictor, model, size, photo):
        yield f"checked {what}: {check(run, model, images, what, size)}"
    if model.least_score is not None:
        # Runtimes may fail on heads over no boxes, and no image is sure to have none.
        what, images = "an image in which nothing is found", patterns(1, *(size or CHECKED[0][1:]))
        with model.finding_nothing():
            yield f"checked {what}: {check(open_raised(model.least_score), model, images, what, size)}"
    model.conclude()
    yield from model.remarks
    yield "Not checked: other runtimes, other devices, and sizes that are not listed."


def check(run: Run, model: ExportModel, images: Tensor, what: str, size: tuple[int, int] | None = None) -> str:
    """Compare the outputs for some images with the toolbox' own.

    Returns:
        How they agree, or that the model itself does not take such images either.

    Raises:
        UserError: They do not, or the file does not run.
    """
    remedy = "" if size is not None else "; where sizes are at fault, --size H,W exports it for one"
    try:
        outputs = [torch.from_numpy(array) for array in run(images.numpy())]
    except Exception as error:  # the classes of runtimes have no common one of their own
        reason = _refusal(model, images)
        if reason is not None:
            return f"refused, as by the model itself: {reason}"
        raise UserError(
            f"the exported graph does not run for {what}, and no file was written: {error}{remedy}"
        ) from error
    found = model.compare(images, outputs)
    if not found.holds:
        raise UserError(
            f"the exported graph is not the model, and no file was written: for {what} it gives {found.text}{remedy}"
        )
    return found.text


def _refusal(model: ExportModel, images: Tensor) -> str | None:
    """Why a model does not take images: convolutions without padding leave nothing of small ones."""
    try:
        with torch.no_grad():
            model(images)
    except RuntimeError as error:
        return str(error).strip().splitlines()[0]
    return None


def _check_images(
    predictor: Predictor, model: ExportModel, size: tuple[int, int] | None, photo: str | Path | None
) -> Iterator[tuple[str, Tensor]]:
    shapes = CHECKED if size is None else tuple((batch, *size) for batch in CHECKED_BATCHES)
    for batch, height, width in shapes if model.any_batch else dict.fromkeys((1, *shape[1:]) for shape in shapes):
        yield f"batch {batch} of {height} x {width}", patterns(batch, height, width)
    if photo is None:
        return
    images = read_photo(predictor, photo, size)
    yield f"{Path(photo).name} of {images.shape[2]} x {images.shape[3]}", images


def read_photo(predictor: Predictor, path: str | Path, size: tuple[int, int] | None = None) -> Tensor:
    """A photo as files take it, prepared by the test pipeline: ``(1, 3, H, W)``, RGB, 0..255, of a size if any."""
    inputs = predictor.preprocessing.prepare(predictor.read(path))["inputs"].float()[None]
    images = inputs.flip(1) if predictor.preprocessing.channel_order == "bgr" else inputs
    if size is not None and images.shape[2:] != size:
        images = torch.nn.functional.interpolate(images, size=size, mode="bilinear")
    return images.contiguous()


def patterns(batch: int, height: int, width: int) -> Tensor:
    """Images ``(B, 3, H, W)`` of whole numbers in 0..255: coarse shapes and some noise, the same every time."""
    generator = np.random.default_rng((batch, height, width))
    coarse = torch.from_numpy(generator.uniform(0, 255, (batch, 3, 5, 7)))
    shapes = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    noise = torch.from_numpy(generator.normal(0, 16, (batch, 3, height, width)))
    return (shapes + noise).clamp(0, 255).round().float()


def snippet(
    predictor: Predictor, model: ExportModel, size: tuple[int, int] | None, modules: str, opening: str, outputs: str
) -> str:
    """A program that runs a file, for a reader without this package.

    Args:
        predictor: The model; what its test pipeline does before is told, since the program does not do it.
        model: What was exported.
        size: Height and width that the file is for; any when None.
        modules: To import, beside NumPy.
        opening: Lines that open the file.
        outputs: An expression that runs it on ``images`` and gives arrays.
    """
    resize = "" if size is None else f".resize(({size[1]}, {size[0]}))"
    names = ", ".join(model.outputs) + ("," if len(model.outputs) == 1 else "")
    steps = "".join(f"\n# - {_told(step)}" for step in steps_before(predictor))
    before = f"# What the config's test pipeline does first is to be done here, too:{steps}\n" if steps else ""
    return f"""
import numpy, {modules}
from PIL import Image, ImageOps

{opening}
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB"){resize}
photo = numpy.asarray(photo, dtype="float32")
{before}images = photo.transpose(2, 0, 1)[None]
{names} = {outputs}
{model.usage}"""


def metadata(predictor: Predictor, config: Config, model: ExportModel, size: tuple[int, int] | None) -> dict[str, str]:
    """What a stranger needs beside the graph: texts, some of them JSON, by names that begin with ``eyetoy.``."""
    meta = predictor.dataset_meta
    palette = meta.get("palette")
    found: dict[str, Any] = {
        "task": model.task,
        "classes": list(meta["classes"]),
        "palette": [list(map(int, color)) for color in palette] if isinstance(palette, list | tuple) else None,
        "input": "float32 (batch, 3, height, width), RGB, 0..255",
        "size": "any" if size is None else list(size),
        "before": steps_before(predictor),
        "outputs": model.outputs,
        "remarks": model.remarks,
        "config_sha256": hashlib.sha256(config.pretty_text.encode()).hexdigest(),
    }
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items() if value}
    return {f"eyetoy.{key}": text for key, text in texts.items()}


def steps_before(predictor: Predictor) -> list[dict[str, Any]]:
    """What a user of a file does to an image first, as the test pipeline of the config has it."""
    return [_plain(step) for step in predictor.preprocessing.after_loading if _is_for_user(step)]


def _told(step: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{name}={value!r}" for name, value in step.items() if name != "type")
    return f"{step['type']}({settings})"


def _is_for_user(step: Mapping[str, Any]) -> bool:
    """Whether a step of the test pipeline is something that a user of the file has to do."""
    return not type_name(step).startswith(("Load", "Pack"))


def _plain(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step as its type and what of its settings is numbers, words and lists of them; no paths, no storage."""
    settings = {key: value for key, value in step.items() if key not in ("type", "backend_args", "_scope_")}
    return {"type": type_name(step)} | json.loads(json.dumps(settings, default=lambda value: type(value).__name__))
