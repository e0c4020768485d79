"""Large images predicted in windows, which is all of them that is in memory as scores, and mostly as pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.structures import BaseDataElement
from PIL import Image

from eyetoy_mm.compat.image_sizes import ImageTooLargeError, check_size, without_pillows_limit
from eyetoy_mm.engine.predictions import Instances, Prediction, joined, label_type, prediction_of
from eyetoy_mm.engine.preprocessing import why_unreadable
from eyetoy_mm.errors import UserError

_TIFF = (".tif", ".tiff")
_PREVIEW = 4096  # pixels of the longer side
_SAME = 0.5  # of the smaller of two boxes of one class, inside the other: then they are of one object
_EXIF_ORIENTATION = 0x0112
# Numbers of the TIFF specification: black is zero, and RGB; YCbCr, which decoding JPEG makes RGB; channels apart.
_PLAIN_COLORS, _YCBCR, _JPEG, _PLANES = (1, 2), 6, 7, 2


# --- Where the windows are ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """A window along one side: from ``start`` to ``stop``, and its ``core``, nearer to its middle than to others'."""

    start: int
    stop: int
    core: tuple[int, int]


def spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Windows of a side, of equal size and evenly spread, that overlap by at least so much.

    Args:
        length: Of the side, in pixels.
        tile: Of a window.
        overlap: Of neighbours; less than a window.
    """
    count = 1 if length <= tile else math.ceil((length - tile) / (tile - overlap)) + 1
    starts = [round(index * (length - tile) / (count - 1)) for index in range(count)] if count > 1 else [0]
    stops = [min(start + tile, length) for start in starts]
    borders = [0, *((stop + start) // 2 for stop, start in zip(stops, starts[1:])), length]
    return [Span(start, stop, core) for start, stop, core in zip(starts, stops, pairwise(borders))]


# --- Rows of a file -------------------------------------------------------------------------------------------------


class Rows:
    """Some rows of an image at a time.

    Attributes:
        shape: ``(H, W, C)`` of the image.
        dtype: Of its numbers, in the byte order of the machine.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        self.shape: tuple[int, int, int] = self._pixels.shape  # type: ignore[assignment]
        self.dtype = pixels.dtype.newbyteorder("=")  # a mapped file has its own, which OpenCV does not heed

    def read(self, top: int, bottom: int) -> np.ndarray:
        """Rows from ``top`` to before ``bottom``, ``(rows, W, C)``; of three channels or four, RGB first."""
        return np.asarray(self._pixels[top:bottom], self.dtype)

    def close(self) -> None:
        """Let go of the file."""


class TiffRows(Rows):
    """Rows of a TIFF that is compressed or in tiles: only the pieces that have some of them are decoded."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self.shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
        self.dtype = page.dtype
        self._piece = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        self._decoded = lru_cache(maxsize=max(8, 2 * math.ceil(self.shape[1] / self._piece[1])))(self._decode)

    def read(self, top: int, bottom: int) -> np.ndarray:  # noqa: D102
        height, width, channels = self.shape
        rows, columns = self._piece
        across, down = math.ceil(width / columns), math.ceil(height / rows)
        planes = channels if self._page.planarconfig == _PLANES else 1
        band = np.zeros((bottom - top, width, channels), self.dtype)
        for plane in range(planes):
            into = band[..., plane : plane + 1] if planes > 1 else band
            for row in range(top // rows, math.ceil(bottom / rows)):
                for column in range(across):
                    piece = self._decoded((plane * down + row) * across + column)
                    if piece is None:
                        continue  # of a sparse file: zeros
                    first, left = row * rows, column * columns
                    begin, end = max(top, first), min(bottom, first + rows, height)
                    right = min(left + columns, width)
                    into[begin - top : end - top, left:right] = piece[begin - first : end - first, : right - left]
        return band

    def close(self) -> None:  # noqa: D102
        self._page.parent.close()

    def _decode(self, index: int) -> np.ndarray | None:
        page = self._page
        if not page.databytecounts[index]:
            return None
        file = page.parent.filehandle
        file.seek(page.dataoffsets[index])
        tables = {"jpegtables": page.jpegtables} if page.jpegtables is not None else {}
        piece = page.decode(file.read(page.databytecounts[index]), index, **tables)[0]
        return None if piece is None else piece[0]


def open_rows(path: str | Path) -> Rows:
    """Open an image to read some of its rows at a time.

    A TIFF is read by tifffile, where that is installed: its pixels stay on the disk. Other formats are decoded as a
    whole, a byte a channel and pixel, up to as many pixels as other images may have.

    Raises:
        UserError: It is no image, too large for its format, or none of 1, 3 or 4 channels of 8 or 16 bits.
    """
    rows = _open(path)
    if rows.shape[2] not in (1, 3, 4):
        problem = f"--tile reads images of 1, 3 or 4 channels; this one has {rows.shape[2]}"
    elif rows.dtype not in (np.uint8, np.uint16):
        problem = f"--tile reads numbers of 8 or 16 bits without sign; these are {rows.dtype}"
    else:
        return rows
    rows.close()
    raise UserError(f"{path}: {problem}")


def _open(path: str | Path) -> Rows:
    if Path(path).suffix.lower() in _TIFF and find_spec("tifffile") is not None:
        return _open_tiff(path)
    try:
        check_size(path, Path(path).stat().st_size)
        with without_pillows_limit(), Image.open(path) as image:
            if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
                raise UserError(f"{path} has an EXIF orientation, which --tile does not follow: save it turned")
            image.load()
            return Rows(np.asarray(image.convert("RGB") if image.mode in ("P", "CMYK", "YCbCr", "1") else image))
    except ImageTooLargeError as error:
        hint = "; as a TIFF it can be read in parts, with tifffile: pip install 'eyetoy-mm[tiff]'"
        raise UserError(f"{path}: {error}{hint}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(why_unreadable(path)) from error


def _open_tiff(path: str | Path) -> Rows:
    import tifffile

    try:
        page: Any = tifffile.TiffFile(path).pages[0]
    except (tifffile.TiffFileError, OSError, IndexError) as error:
        raise UserError(why_unreadable(path)) from error
    color = int(page.photometric)
    if color not in _PLAIN_COLORS and not (color == _YCBCR and int(page.compression) == _JPEG):
        page.parent.close()
        raise UserError(f"{path} is a TIFF with colours of the kind {page.photometric}; --tile reads grey and RGB")
    if page.is_memmappable and page.planarconfig != _PLANES:
        page.parent.close()
        return Rows(tifffile.memmap(path, page=0, mode="r"))
    return TiffRows(page)


# --- Predicting -----------------------------------------------------------------------------------------------------


@dataclass
class Tiled:
    """What was predicted for a large image.

    Attributes:
        prediction: Of the whole; its label map is in a file, not in memory.
        preview: The image, reduced, RGB first where there are colours.
        preview_prediction: The prediction for it.
    """

    prediction: Prediction
    preview: np.ndarray
    preview_prediction: Prediction


@dataclass
class Tiler:
    """Predicts large images window by window.

    Args:
        predict: Samples of a batch of windows, each an array in the order of :class:`Rows`.
        num_classes: Of the model.
        tile: Side of a window, in pixels.
        overlap: Of neighbouring windows; an object that is larger may be found in pieces.
        batch: Windows that are predicted together.
    """

    predict: Callable[[list[np.ndarray]], list[BaseDataElement]]
    num_classes: int
    tile: int
    overlap: int
    batch: int = 1

    def __call__(self, rows: Rows, scratch: Path) -> Tiled:
        """Predict an image.

        Each pixel takes its label from the window in whose middle it is most. Objects are those of all windows; of two
        of one class and one place, seen in two windows, the one that its window does not cut off stays, or that of the
        higher score.

        Args:
            rows: The image.
            scratch: Folder for its label map, ``labels.npy``.
        """
        height, width, channels = rows.shape
        parts: list[tuple[Instances, np.ndarray]] = []
        labels: np.ndarray | None = None
        scale = min(1.0, _PREVIEW / max(height, width))
        ys, xs = (_sampled(side, scale) for side in (height, width))
        preview = np.zeros((len(ys), len(xs), channels), rows.dtype)
        for down in spans(height, self.tile, self.overlap):
            band = rows.read(down.start, down.stop)
            inside = (ys >= down.core[0]) & (ys < down.core[1])
            preview[inside] = band[ys[inside] - down.start][:, xs]
            for across, prediction in self._band(band, width):
                if prediction.labels is not None:
                    if labels is None:
                        labels = _label_file(scratch, (height, width), self.num_classes)
                    (top, bottom), (left, right) = down.core, across.core
                    part = prediction.labels[
                        top - down.start : bottom - down.start, left - across.start : right - across.start
                    ]
                    labels[top:bottom, left:right] = part
                if prediction.instances is not None:
                    cut = _cut_off(prediction.instances, down, across, (height, width))
                    parts.append((prediction.instances.moved(across.start, down.start), cut))
        found = _merged(parts) if parts else None
        small = None if labels is None else np.asarray(labels[np.ix_(ys, xs)])
        return Tiled(
            Prediction((height, width), labels=labels, instances=found),
            preview,
            Prediction(preview.shape[:2], labels=small, instances=found and _scaled(found, scale)),
        )

    def _band(self, band: np.ndarray, width: int) -> Iterator[tuple[Span, Prediction]]:
        """The windows of a band of rows, with what is predicted for each."""
        places = spans(width, self.tile, self.overlap)
        for first in range(0, len(places), self.batch):
            some = places[first : first + self.batch]
            windows = [np.ascontiguousarray(band[:, place.start : place.stop]) for place in some]
            for place, window, sample in zip(some, windows, self.predict(windows)):
                yield place, prediction_of(sample, window.shape[:2], self.num_classes)


def _cut_off(found: Instances, down: Span, across: Span, size: tuple[int, int]) -> np.ndarray:
    """Which objects of a window a side of it cuts off that is not the image's."""
    height, width = down.stop - down.start, across.stop - across.start
    x1, y1, x2, y2 = found.boxes.T
    cut = (x1 <= 1) & (across.start > 0) | (x2 >= width - 1) & (across.stop < size[1])
    return cut | (y1 <= 1) & (down.start > 0) | (y2 >= height - 1) & (down.stop < size[0])


def _merged(parts: list[tuple[Instances, np.ndarray]]) -> Instances:
    """The objects of an image: those of its windows, each with which of them are cut off."""
    found = joined([part for part, _ in parts])
    cut = np.concatenate([cut for _, cut in parts])
    window = np.repeat(np.arange(len(parts)), [len(part) for part, _ in parts])
    return found[merge(found, cut, window)]


def merge(found: Instances, cut: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Non-maximum suppression among the objects of different windows.

    Args:
        found: Objects of all windows, in the image.
        cut: Whether the side of its window cuts off each.
        window: The window of each; those of one window are the model's own choice, and leave each other alone.

    Returns:
        Numbers of those that stay, by falling score.
    """
    order = np.lexsort((-found.scores, cut))  # whole ones first, whatever their score
    side = (found.boxes[:, 2:] - found.boxes[:, :2]).max(initial=1)
    # Boxes that meet have their middles in one cell or in neighbours: no cell is smaller than the largest box.
    cells = ((found.boxes[:, :2] + found.boxes[:, 2:]) / 2 // side).astype(np.int64)
    kept: dict[tuple[int, int, int], list[int]] = {}
    for index in order:
        label, (column, row) = int(found.labels[index]), cells[index].tolist()
        near = ((label, column + across, row + down) for across in (-1, 0, 1) for down in (-1, 0, 1))
        rivals = np.array([other for cell in near for other in kept.get(cell, ())], np.int64)
        rivals = rivals[window[rivals] != window[index]]
        if not (_shared(found.boxes[rivals], found.boxes[index]) > _SAME).any():
            kept.setdefault((label, column, row), []).append(int(index))
    stays = np.array(sorted(index for indices in kept.values() for index in indices), np.int64)
    return stays[np.argsort(-found.scores[stays], kind="stable")]


def _shared(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Intersection of boxes with one box, as a part of the smaller of the two."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    smaller = np.minimum(areas, np.prod(box[2:] - box[:2]))
    return np.prod(sides.clip(0), axis=1) / smaller.clip(1e-9)


def _sampled(side: int, scale: float) -> np.ndarray:
    """The rows or columns of an image that a reduced one has."""
    count = max(1, round(side * scale))
    return ((np.arange(count) + 0.5) * side / count).astype(np.int64)


def _label_file(scratch: Path, size: tuple[int, int], num_classes: int) -> np.ndarray:
    return np.lib.format.open_memmap(scratch / "labels.npy", "w+", label_type(num_classes), size)


def _scaled(found: Instances, scale: float) -> Instances:
    """Objects in a reduced image; masks are taken at the pixels that it has."""
    masks = None
    if found.masks is not None:
        masks = []
        for mask in found.masks:
            height, width = mask.inside.shape
            left, right = math.ceil(mask.x * scale), math.ceil((mask.x + width) * scale)
            top, bottom = math.ceil(mask.y * scale), math.ceil((mask.y + height) * scale)
            ys = (np.arange(top, bottom) / scale - mask.y).astype(int).clip(0, height - 1)
            xs = (np.arange(left, right) / scale - mask.x).astype(int).clip(0, width - 1)
            masks.append(mask._replace(inside=mask.inside[ys][:, xs], x=left, y=top))
    return Instances(found.boxes * scale, found.scores, found.labels, masks)
