"""Colours of classes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

_LEVELS = 13  # of each of red, green and blue, of which colours are taken


def class_colors(dataset_meta: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """A colour for each class: the data set's own where it has one for each, all different, else some that keep apart.

    Args:
        dataset_meta: ``classes``, and ``palette`` where there is one.

    Returns:
        RGB of 8 bits.
    """
    count, palette = len(dataset_meta["classes"]), dataset_meta.get("palette")
    if isinstance(palette, list | tuple):
        with contextlib.suppress(TypeError, ValueError):  # which a checkpoint may have of any kind
            given = [(int(red), int(green), int(blue)) for red, green, blue in palette[:count]]
            if len(set(given)) == count and all(0 <= level <= 255 for color in given for level in color):
                return given
    return distinct_colors(count)


def distinct_colors(count: int) -> list[tuple[int, int, int]]:
    """Colours as far from each other as that many can be, by the eye's measure; the first are furthest apart.

    Each is the one of a grid that is furthest, in CIELAB, from all before it. They are the same on every call, and
    fewer are the first of more. None is nearly black, white or grey, which photos are full of.

    Args:
        count: How many; beyond some 1,400 they come again.

    Returns:
        RGB of 8 bits.
    """
    grid = np.linspace(0, 1, _LEVELS, dtype=np.float32)
    rgb = np.stack(np.meshgrid(grid, grid, grid), axis=-1).reshape(-1, 3)
    lab = cv2.cvtColor(rgb[None], cv2.COLOR_RGB2LAB)[0]
    colored = (lab[:, 0] > 30) & (lab[:, 0] < 92) & (np.hypot(lab[:, 1], lab[:, 2]) > 25)
    rgb, lab = rgb[colored], lab[colored]
    chosen = [int(np.argmax(lab[:, 1]))]
    distance = np.linalg.norm(lab - lab[chosen[0]], axis=1)
    while len(chosen) < min(count, len(rgb)):
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
    colors = [tuple(color) for color in (rgb[chosen] * 255).round().astype(int).tolist()]
    return [colors[index % len(colors)] for index in range(count)]
