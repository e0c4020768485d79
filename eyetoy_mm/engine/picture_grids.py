"""Pictures beside and below each other in one, small."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import mmcv
import numpy as np

from eyetoy_mm.whole_files import write_whole

_TEXT = 18  # pixels of a line of text


def grid(
    pictures: Sequence[np.ndarray], captions: Sequence[str] = (), columns: int = 4, width: int = 320
) -> np.ndarray:
    """Put pictures into one, each as wide as the others, with a line of text above it.

    Args:
        pictures: RGB ``(H, W, 3)`` of 8 bits; one at least.
        captions: A line for each; none for no text.
        columns: How many stand in a row.
        width: Of each in pixels.

    Returns:
        RGB of 8 bits.
    """
    columns = min(columns, len(pictures))
    cells = []
    for index, picture in enumerate(pictures):
        height = max(1, round(picture.shape[0] * width / picture.shape[1]))
        cell = cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=cv2.INTER_AREA)
        if captions:
            cell = np.vstack([_text(captions[index], width), cell])
        cells.append(cell)
    rows = []
    for start in range(0, len(cells), columns):
        row = cells[start : start + columns]
        height = max(cell.shape[0] for cell in row)
        padded = [mmcv.impad(cell, shape=(height, width), pad_val=(255, 255, 255)) for cell in row]
        rows.append(mmcv.impad(np.hstack(padded), shape=(height, columns * width), pad_val=(255, 255, 255)))
    return np.vstack(rows)


def save(picture: np.ndarray, target: Path) -> None:
    """Write an RGB picture; what is there goes when the new one is whole."""
    encoded = cv2.imencode(target.suffix, mmcv.rgb2bgr(picture))[1]
    write_whole(target, encoded.tobytes())


def _text(text: str, width: int) -> np.ndarray:
    strip = np.full((_TEXT, width, 3), 255, np.uint8)
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(strip, plain, (4, _TEXT - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return strip
