"""Masks of COCO files: what mmdet drops in silence, and what ends a run at its first batch or evaluation."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from eyetoy_mm.datasets.coco_boxes import BOX_FORM, MOST, Boxes
from eyetoy_mm.datasets.coco_format import shown
from eyetoy_mm.datasets.findings import Finding

_CHUNK = 5_000  # annotations whose coordinates are looked at together
_DECODED = 500  # masks in RLE that are decoded, taken evenly; each costs as much as its image has pixels
# Rasterising takes memory as long as the outline: one point at 1e9 takes all there is.
_FAR = 100_000.0
_COMPRESSED = re.compile("[0-o]+")  # six bits a character


def mask_findings(boxes: Boxes, polygons_alone: bool, compare: bool = True) -> tuple[list[Finding], np.ndarray]:
    """Masks that cannot be loaded, and those that do not lie where their boxes are.

    Args:
        boxes: The boxes and their masks; each has one.
        polygons_alone: Whether the pipeline keeps polygons (``poly2mask=False``), which drops RLE.
        compare: Whether the masks should lie in their boxes; not where the boxes are known to be wrong.

    Returns:
        The findings, and which annotations (N,) are dropped in silence because no polygon of theirs has 3 points.
    """
    masks = boxes.masks
    rle = np.array([type(mask) is dict for mask in masks], bool)
    malformed = {index: fault for index, mask in enumerate(masks) if (fault := _fault(mask))}
    usable = np.ones(len(masks), bool)
    usable[list(malformed)] = False
    bounds = np.full((len(masks), 4), np.nan)
    for start in range(0, len(masks), _CHUNK):
        chunk = [i for i in range(start, min(start + _CHUNK, len(masks))) if usable[i] and not rle[i]]
        malformed |= _polygon_bounds(chunk, masks, bounds)
    far = np.nan_to_num(np.abs(bounds)).max(1, initial=0) > _FAR
    malformed |= {int(i): f"a coordinate of {np.abs(bounds[i]).max():.6g}" for i in np.flatnonzero(far)}
    malformed |= _rle_faults(np.flatnonzero(rle & usable).tolist(), masks, boxes, bounds)
    findings = []
    if malformed:
        first = min(malformed)
        findings.append(
            Finding(
                "masks",
                f"has a segmentation that is not COCO's in annotation {boxes.ids[first]}: {malformed[first]}. It is a "
                "list of polygons [[x1, y1, x2, y2, x3, y3, ...], ...] in pixels, or RLE with counts and "
                "size=[height, width]",
                tuple(f"annotation {boxes.ids[i]}" for i in sorted(malformed)[:5]),
                len(malformed),
            )
        )
    well = np.ones(len(masks), bool)
    well[list(malformed)] = False
    findings += _elsewhere(boxes, bounds, well) if compare else []
    too_few = well & ~rle & np.isnan(bounds[:, 0])  # nothing was kept of their polygons
    return findings, too_few | (rle & well if polygons_alone else False)


def absent(masks: Sequence[Any]) -> np.ndarray:
    """Which annotations (N,) have no mask at all."""
    return np.array([not mask for mask in masks], bool)


def breaks_evaluation(masks: Sequence[Any]) -> np.ndarray:
    """Which masks (N,) of well-formed lists pycocotools cannot read: the first polygon tells it what to expect."""
    return np.array([type(mask) is list and type(mask[0]) is list and len(mask[0]) <= 4 for mask in masks], bool)


def _polygons(mask: list) -> list[list[float]]:
    """The polygons that mmdet keeps."""
    return [polygon for polygon in mask if len(polygon) >= 6 and len(polygon) % 2 == 0]


def _fault(mask: Any) -> str | None:
    """What is wrong with the form of a mask, without looking at its numbers."""
    if type(mask) is list:
        if set(map(type, mask)) == {list}:
            pairs = any(type(polygon[0]) is list for polygon in mask if polygon)
            return "its points are pairs; write x and y one after the other" if pairs else None
        flat = type(mask[0]) in (int, float)
        return "its numbers are not in a list of polygons; put them in one more list" if flat else shown(mask)
    if type(mask) is not dict:
        return shown(mask)
    size, counts = mask.get("size"), mask.get("counts")
    if type(size) is not list or [type(side) for side in size] != [int, int]:
        return f"RLE of size {shown(size)}"
    if type(counts) is list:
        if any(type(count) is not int or count < 0 for count in counts):
            return "its counts are not whole numbers of pixels"
        if sum(counts) != size[0] * size[1]:
            return f"its counts are for {sum(counts)} pixels, its size for {size[0]} x {size[1]}"
        return None
    if type(counts) is str and _COMPRESSED.fullmatch(counts):
        return None
    return f"RLE of counts {shown(counts)}, neither a list of numbers nor pycocotools' compressed text"


def _polygon_bounds(indices: list[int], masks: Sequence[Any], bounds: np.ndarray) -> dict[int, str]:
    """Fill in the smallest and largest x and y of what mmdet keeps of these masks; return what has odd numbers."""
    kept = [(index, polygons) for index in indices if (polygons := _polygons(masks[index]))]
    if not kept:
        return {}
    try:
        # An array of doubles takes numbers alone; numpy would read text.
        flat = np.array(array("d", chain.from_iterable(chain.from_iterable(polygons for _, polygons in kept))))
    except (TypeError, OverflowError):
        if len(kept) == 1:
            return {kept[0][0]: "a coordinate is not a number"}
        return {k: v for index, _ in kept for k, v in _polygon_bounds([index], masks, bounds).items()}
    points = flat.reshape(-1, 2)
    lengths = [sum(map(len, polygons)) // 2 for _, polygons in kept]
    starts = np.cumsum([0, *lengths[:-1]])
    rows = [index for index, _ in kept]
    bounds[rows, :2] = np.minimum.reduceat(points, starts)
    bounds[rows, 2:] = np.maximum.reduceat(points, starts)
    odd = ~np.isfinite(bounds[rows]).all(1)
    return {rows[i]: "a coordinate is not a finite number" for i in np.flatnonzero(odd)}


def _rle_faults(indices: list[int], masks: Sequence[Any], boxes: Boxes, bounds: np.ndarray) -> dict[int, str]:
    """RLE for another image size, or that cannot be decoded; fill in where the decoded ones lie."""
    faults = {}
    for index in indices:
        width, height = boxes.sizes[index]
        if masks[index]["size"] != [height, width]:
            faults[index] = f"RLE of size {masks[index]['size']}, but its image has [{height:g}, {width:g}] pixels"
    fitting = [index for index in indices if index not in faults]
    for index in fitting[:: max(1, len(fitting) // _DECODED)]:
        mask = masks[index]
        try:
            code = coco_mask.frPyObjects(mask, *mask["size"]) if type(mask["counts"]) is list else mask
            rows, columns = np.nonzero(coco_mask.decode(code))
        except (ValueError, TypeError) as error:
            faults[index] = f"{error} (counts={shown(mask['counts'])})"
            continue
        bounds[index] = 0  # of no pixel
        if len(rows):
            bounds[index] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return faults


def _elsewhere(boxes: Boxes, bounds: np.ndarray, well: np.ndarray) -> list[Finding]:
    """Masks that are not where their boxes are: one of the two is normalised, of another form or another image size."""
    known = well & np.isfinite(bounds).all(1) & ~boxes.crowd
    corners = np.concatenate([boxes.xywh[:, :2], boxes.xywh[:, :2] + boxes.xywh[:, 2:]], 1)
    misplaced = known & (np.abs(bounds - corners).max(1, initial=0) > 3) & (iou(bounds, corners) < 0.5)
    share = misplaced.sum() / max(1, known.sum())
    if share < 0.01:
        return []
    example = int(np.argmax(misplaced))
    kind, advice = _explain(boxes.where(misplaced), corners[misplaced], bounds[misplaced])
    where = f"its mask from {_point(bounds[example, :2])} to {_point(bounds[example, 2:])}"
    where = where if bounds[example].any() else "and no pixel in its mask"
    return [
        Finding(
            kind,
            f"has {int(misplaced.sum())} of {int(known.sum())} masks elsewhere than their boxes: annotation "
            f"{boxes.ids[example]} has its box from {_point(corners[example, :2])} to {_point(corners[example, 2:])}, "
            f"{where}. {advice}",
            boxes.places(misplaced),
            int(misplaced.sum()),
            fatal=bool(share > MOST),
        )
    ]


def _explain(boxes: Boxes, corners: np.ndarray, bounds: np.ndarray) -> tuple[str, str]:
    """The kind of fault, and what to do: the first change that brings masks and boxes together."""
    kind = "masks elsewhere than boxes"
    changes = (
        (BOX_FORM, "The boxes are written as x1 y1 x2 y2: write [x1, y1, x2 - x1, y2 - y1]", boxes.xywh, bounds),
        (
            kind,
            "The polygons are normalised to 0..1: multiply x by the image's width and y by its height",
            corners,
            bounds * np.tile(boxes.sizes, 2),
        ),
        (kind, "x and y of the polygons have changed places", corners, bounds[:, [1, 0, 3, 2]]),
    )
    for name, advice, first, second in changes:
        if (iou(first, second) >= 0.5).mean() >= 0.9:
            return name, advice
    return kind, "Correct what is wrong of the two"


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of corners (N, 4) and (N, 4)."""
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    common = np.clip(high - low, 0, None).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (first, second)]
    return common / np.maximum(areas[0] + areas[1] - common, 1e-9)


def _point(point: np.ndarray) -> str:
    return f"({point[0]:.6g}, {point[1]:.6g})"
