"""A picture of what a trained model looks at, on the image as the model sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mmcv
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from eyetoy_mm.attention_maps import GroupAttention, TokenAttention, record_attention
from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.errors import UserError

_PANEL = 3.0  # inches, the width of a panel
_MARK = "#00e5ff"


def picture_attention(
    predictor: Predictor, image: np.ndarray, position: tuple[int, int], block: int = 0, tokens: int = 4
) -> Figure:
    """Predict an image, and draw the attention of a position and of the global tokens, each the mean over its heads.

    Args:
        predictor: The model.
        image: As the predictor reads it.
        position: Column and row of a pixel of the image.
        block: The block whose head groups are drawn, one panel each.
        tokens: How many of the tokens of the last global layer are drawn, the context token first; 0 for none, which
            needs no global stack.

    Returns:
        The figure; ``savefig`` writes it.

    Raises:
        UserError: The position is outside the image or cropped away by the test pipeline; the model has no EyeToy
            encoder, no such block or no global stack, or looks at the image in several windows; ``tokens`` is negative.
    """
    if tokens < 0:
        raise UserError(f"the number of tokens must be at least 0, got {tokens}")
    x, y = position
    height, width = image.shape[:2]
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(f"position {x},{y} lies outside the image of {width} x {height} pixels")
    with record_attention(predictor.model, block) as record, _seen(predictor.model) as seen:
        predictor.predict(image)
    position_seen = _position_seen(predictor, image, position)
    groups = record.neighborhoods(*position_seen)
    try:
        layers = record.tokens() if tokens else ()
    except UserError as error:
        raise UserError(f"{error}. What positions attend to is drawn with --tokens 0") from error
    image_seen = predictor.preprocessing.picture(seen[0])
    return draw_attention(image_seen, position_seen, groups, layers[-1] if layers else None, tokens)


def draw_attention(
    image: np.ndarray,
    position: tuple[int, int],
    groups: tuple[GroupAttention, ...],
    layer: TokenAttention | None = None,
    tokens: int = 4,
) -> Figure:
    """Draw one panel per head group, and below them one per token.

    Args:
        image: The encoder's input, BGR ``(H, W, 3)`` of 8 bits.
        position: Column and row of the pixel in it that ``groups`` are of.
        groups: The attention of the position.
        layer: The attention of the tokens, or None to leave them out.
        tokens: How many of them are drawn.
    """
    names = () if layer is None else layer.names[:tokens]
    columns = max(len(groups), len(names))
    rows = 1 + bool(names)
    height = _PANEL * image.shape[0] / image.shape[1] + 0.5
    figure = Figure(figsize=(_PANEL * columns, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        panel.axis("off")
    for panel, group in zip(panels[0], groups):
        _shade(panel, image, group.average, group.boxes)
        _outline(panel, group.boxes[0, 0, :2], group.boxes[-1, -1, 2:], "white")
        _outline(panel, group.own_box[:2], group.own_box[2:], _MARK)
        panel.plot(position[0] + 0.5, position[1] + 0.5, "+", color=_MARK, markersize=8)
        lowest, highest = _percent(group.average.min()), _percent(group.average.max())
        panel.set_title(f"merging {group.merging}, window {group.window}\n{lowest} to {highest} % a cell", fontsize=9)
    if layer is not None:
        for panel, name, probabilities in zip(panels[-1], names, layer.average):
            _shade(panel, image, probabilities, layer.boxes)
            whole, highest = _percent(probabilities.sum()), _percent(probabilities.max())
            panel.set_title(f"{name}\n{whole} % on the map, up to {highest} % a cell", fontsize=9)
    return figure


def _shade(panel: Axes, image: np.ndarray, probabilities: Tensor, boxes: Tensor) -> None:
    """The photo in gray, and the cells over it from dark and clear for the least to bright for the most attended."""
    height, width = image.shape[:2]
    panel.imshow(mmcv.bgr2gray(image), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    cells = [Rectangle((x1, y1), x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes.flatten(0, 1).tolist()]
    lowest, highest = probabilities.min(), probabilities.max()
    brightness = ((probabilities - lowest) / (highest - lowest).clamp(min=1e-30)).flatten().numpy()
    patches = PatchCollection(cells, cmap="inferno", alpha=0.25 + 0.6 * brightness, linewidth=0, antialiased=False)
    patches.set_array(brightness)
    patches.set_clim(0, 1)
    panel.add_collection(patches, autolim=False)


def _outline(panel: Axes, corner: Tensor, opposite: Tensor, color: str) -> None:
    width, height = (opposite - corner).tolist()
    panel.add_patch(Rectangle(tuple(corner.tolist()), width, height, fill=False, edgecolor=color, linewidth=0.8))


def _percent(share: Tensor) -> str:
    return f"{100 * share.item():.2g}"


@contextmanager
def _seen(model: nn.Module) -> Iterator[list[np.ndarray]]:
    """Collect the images ``(H, W, C)`` as the test pipeline hands them to the model: resized, not padded yet."""
    images: list[np.ndarray] = []

    def keep(module: nn.Module, args: tuple) -> None:
        images.extend(x.permute(1, 2, 0).cpu().numpy() for x in args[0]["inputs"])

    with model.get_submodule("data_preprocessor").register_forward_pre_hook(keep):
        yield images


def _position_seen(predictor: Predictor, image: np.ndarray, position: tuple[int, int]) -> tuple[int, int]:
    """Where a pixel comes to lie in what the model sees, however the test pipeline resizes and crops.

    Coordinates go through the pipeline as if they were a photo: columns as a ramp from black to white, then rows.
    """
    found = []
    for axis, size in ((1, image.shape[1]), (0, image.shape[0])):
        ramp = np.expand_dims(np.linspace(0, 255, size).round().astype(np.uint8), tuple({*range(image.ndim)} - {axis}))
        with _seen(predictor.model) as seen:
            predictor.predict(np.ascontiguousarray(np.broadcast_to(ramp, image.shape)))
        found.append(_at(position[1 - axis] / max(size - 1, 1) * 255, seen[0][..., 0].mean(axis=1 - axis)))
    x, y = found
    if x is None or y is None:
        raise UserError(f"position {position[0]},{position[1]} is cropped away by the test pipeline of the config")
    return x, y


def _at(value: float, ramp: np.ndarray) -> int | None:
    """Index of a value in a ramp; a line through all of it is finer than its levels."""
    slope, start = np.polyfit(np.arange(len(ramp)), ramp, deg=1)
    index = round((value - start) / slope)
    return min(max(index, 0), len(ramp) - 1) if -1 <= index <= len(ramp) else None
