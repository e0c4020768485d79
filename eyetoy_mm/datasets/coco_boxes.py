"""Boxes of COCO files: written in another form than COCO's, or dropped by mmdet in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eyetoy_mm.datasets.findings import Finding

_Corners = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # x1, y1, x2, y2, of N boxes each

# What four numbers can mean when they are not COCO's x, y, width, height.
_READINGS: dict[str, Callable[..., _Corners]] = {
    "x1 y1 x2 y2 (corners)": lambda a, b, c, d: (a, b, c, d),
    "y1 x1 y2 x2 (corners, y first)": lambda a, b, c, d: (b, a, d, c),
    "the centre's x and y, then width and height": lambda a, b, c, d: (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
}
_COCO = "x, y of the upper left corner, width, height"
# Boxes reach over the border by rounding, 1-based pixels or rotation; what is not COCO's form is far beyond.
_TOLERANCE = 0.05
_TOLERANCE_PIXELS = 2.0
# One box in ten far beyond its image is no noise of annotation; a reading explains it if it puts nearly all inside.
_SUSPICIOUS = 0.1
_EXPLAINED = 0.95
BOX_FORM = "box form"  # the kind of finding
_CROWD = 0.05  # COCO has 1 % of crowds
MOST = 0.5  # a run on the smaller part of the data is another run than the one that was asked for


@dataclass(frozen=True)
class Boxes:
    """The boxes of the classes of a dataset whose images are there; arrays and lists of as many, N.

    Args:
        ids: The annotations' ids.
        xywh: As the file has them, (N, 4).
        sizes: Width and height of their images, (N, 2).
        images: Which image they belong to, counted from 0.
        labels: Whose category they are of, counted from 0 in the file's order.
        areas: The annotations' areas.
        crowd: Whether ``iscrowd`` is set: mmdet trains on none of these.
        ignored: Whether ``ignore`` is set: mmdet does not load these.
        masks: The annotations' ``segmentation``, as the file has it; None where it has none.
    """

    ids: list[Any]
    xywh: np.ndarray
    sizes: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray
    masks: list[Any]

    def where(self, chosen: np.ndarray) -> Boxes:
        """Those that a mask (N,) names."""
        if chosen.all():
            return self
        rows = np.flatnonzero(chosen)
        parts: dict[str, Any] = {
            name: value[rows] if isinstance(value, np.ndarray) else [value[row] for row in rows]
            for name, value in vars(self).items()
        }
        return Boxes(**parts)

    def places(self, chosen: np.ndarray) -> tuple[str, ...]:
        """The first annotations of a mask (N,), for a finding."""
        return places("annotation", (self.ids[i] for i in np.flatnonzero(chosen)[:5]))


def places(what: str, ids: Iterator[Any] | Sequence[Any]) -> tuple[str, ...]:
    """``annotation 11``, ``annotation 12``, ...: the first five of them."""
    return tuple(f"{what} {id_}" for id_, _ in zip(ids, range(5)))


def form_findings(boxes: Boxes) -> list[Finding]:
    """Boxes in another form than x, y, width, height in pixels of their image.

    Returns:
        One finding at most: the systematic mistake that explains the boxes, or how many reach far beyond their image.
    """
    if not boxes.ids:
        return []
    normalised = np.abs(boxes.xywh).max(1) <= 1.01
    if normalised.mean() >= _EXPLAINED:
        return [_normalised(boxes, normalised)]
    outside = ~inside(_corners(boxes.xywh), boxes.sizes)
    reading = _reading(boxes, outside)
    if reading is not None:
        return [_misread(boxes, outside, reading)]
    swapped = _swapped_images(boxes, outside)
    if swapped is not None:
        return [_swapped(boxes, outside, swapped)]
    if outside.any():
        return [_beyond(boxes, outside)]
    return _upper_left(boxes)


def _corners(xywh: np.ndarray) -> _Corners:
    x, y, width, height = xywh.T
    return x, y, x + width, y + height


def inside(corners: _Corners, sizes: np.ndarray) -> np.ndarray:
    """Which boxes (N,) have their corners in order, and inside of images of these sizes (N, 2), within tolerance."""
    x1, y1, x2, y2 = corners
    margin_x, margin_y = np.maximum(_TOLERANCE_PIXELS, _TOLERANCE * sizes.T)
    width, height = sizes.T
    in_order = (x2 >= x1) & (y2 >= y1)
    return in_order & (x1 >= -margin_x) & (y1 >= -margin_y) & (x2 <= width + margin_x) & (y2 <= height + margin_y)


def _reading(boxes: Boxes, outside: np.ndarray) -> str | None:
    """What the four numbers mean if not COCO's; None if they can be COCO's, or nothing explains them."""
    a, b, c, d = boxes.xywh.T
    if outside.mean() >= _SUSPICIOUS:
        for name, read in _READINGS.items():
            if inside(read(a, b, c, d), boxes.sizes).mean() >= _EXPLAINED:
                return name
    # Small objects near the upper left corner fit either way; their areas tell what the numbers are.
    with np.errstate(over="ignore"):  # of boxes larger than any image
        as_corners, as_coco = (c - a) * (d - b), c * d
    close = np.abs(boxes.areas - as_corners) <= 0.02 * np.abs(as_corners)
    differ = (c > a) & (d > b) & (np.abs(boxes.areas - as_coco) > 0.02 * np.abs(as_coco))
    return next(iter(_READINGS)) if (close & differ).mean() >= _EXPLAINED else None


def _misread(boxes: Boxes, outside: np.ndarray, reading: str) -> Finding:
    example = int(np.argmax(outside))
    corners = "corners" in reading
    remedy = "[x1, y1, x2 - x1, y2 - y1]" if corners else "[x - width / 2, y - height / 2, width, height]"
    return Finding(
        BOX_FORM,
        f"has boxes written as {reading}; COCO's are {_COCO}. Read as COCO's, {int(outside.sum())} of "
        f"{len(outside)} reach far beyond their image, such as bbox={_numbers(boxes.xywh[example])} in an image of "
        f"{_size(boxes.sizes[example])}. Convert them: {remedy}",
        boxes.places(outside),
        int(outside.sum()),
    )


def _normalised(boxes: Boxes, normalised: np.ndarray) -> Finding:
    scaled = boxes.xywh * np.tile(boxes.sizes, 2)
    readings = {_COCO: _corners(scaled)} | {name: read(*scaled.T) for name, read in _READINGS.items()}
    fitting = [name for name, corners in readings.items() if inside(corners, boxes.sizes).mean() >= _EXPLAINED]
    form = f", and seem to be {fitting[0]}: convert that too" if fitting and fitting[0] != _COCO else ""
    return Finding(
        BOX_FORM,
        f"has boxes normalised to 0..1, such as bbox={_numbers(boxes.xywh[0])} in an image of {_size(boxes.sizes[0])}; "
        f"COCO's are in pixels. Multiply x and width by the image's width, y and height by its height{form}",
        boxes.places(normalised),
        int(normalised.sum()),
    )


def _swapped_images(boxes: Boxes, outside: np.ndarray) -> np.ndarray | None:
    """Which images (by their numbers) have boxes far beyond them that fit when width and height change places."""
    fits = inside(_corners(boxes.xywh), boxes.sizes[:, ::-1])
    count = int(boxes.images.max()) + 1
    suspicious = np.bincount(boxes.images, outside, count) > 0
    explained = suspicious & (np.bincount(boxes.images, ~fits, count) == 0)
    if not suspicious.any() or explained.sum() < 0.9 * suspicious.sum():
        return None
    return np.flatnonzero(explained)


def _swapped(boxes: Boxes, outside: np.ndarray, images: np.ndarray) -> Finding:
    example = int(np.flatnonzero(outside & np.isin(boxes.images, images))[0])
    return Finding(
        "width and height swapped",
        f"has {int(outside.sum())} of {len(outside)} boxes far beyond their image, such as "
        f"bbox={_numbers(boxes.xywh[example])} in an image of {_size(boxes.sizes[example])}, and all boxes of "
        f"{len(images)} of these images fit when width and height change places. Correct width and height of the "
        "images (or x and y of the boxes); photos that their camera turned are as wide as viewers show them",
        boxes.places(outside),
        int(outside.sum()),
        fatal=bool(outside.mean() >= _SUSPICIOUS),
    )


def _beyond(boxes: Boxes, outside: np.ndarray) -> Finding:
    example = int(np.argmax(outside))
    return Finding(
        "boxes beyond the image",
        f"has {int(outside.sum())} of {len(outside)} boxes that reach far beyond their image or have a negative size, "
        f"such as bbox={_numbers(boxes.xywh[example])} in an image of {_size(boxes.sizes[example])}. Boxes are "
        f"{_COCO}, in pixels of the image as it is on disk: correct or clip them",
        boxes.places(outside),
        int(outside.sum()),
        fatal=bool(outside.mean() > MOST),
    )


def _upper_left(boxes: Boxes) -> list[Finding]:
    """Boxes that were drawn on smaller copies of the images, or are per cent."""
    _, _, x2, y2 = _corners(boxes.xywh)
    reach = max((x2 / boxes.sizes[:, 0]).max(), (y2 / boxes.sizes[:, 1]).max())
    if reach > 0.6 or len(boxes.ids) < 50 or len(np.unique(boxes.images)) < 10:
        return []
    return [
        Finding(
            BOX_FORM,
            f"has all {len(boxes.ids)} boxes in the upper left of their images: none reaches beyond {reach:.0%} of "
            "width or height. Were they drawn on smaller copies, or written as per cent? Scale them",
            fatal=False,
        )
    ]


def drop_reasons(boxes: Boxes) -> dict[str, np.ndarray]:
    """Why mmdet's ``CocoDataset`` leaves boxes out without a word, and which (N,)."""
    x1, y1, x2, y2 = _corners(boxes.xywh)
    width, height = boxes.sizes.T
    common_width = np.maximum(0, np.minimum(x2, width) - np.maximum(x1, 0))
    common_height = np.maximum(0, np.minimum(y2, height) - np.maximum(y1, 0))
    return {
        "marked ignore": boxes.ignored,
        "outside of their image": common_width * common_height == 0,
        "of an area of 0 or less": boxes.areas <= 0,
        "narrower or lower than 1 pixel": boxes.xywh[:, 2:].min(1, initial=np.inf) < 1,
    }


def drop_findings(boxes: Boxes, reasons: Mapping[str, np.ndarray]) -> list[Finding]:
    """How many boxes are left out, and why.

    More than half left out is fatal: what is trained is then no longer the data that the user looks at.

    Args:
        boxes: The boxes.
        reasons: Why they are left out, and which (N,); each is told once, by the first rule that leaves it out.
    """
    total = len(boxes.ids)
    dropped = np.zeros(total, bool)
    counts = {}
    for reason, lost in reasons.items():
        counts[reason] = int((lost & ~dropped).sum())
        dropped |= lost
    findings = []
    if dropped.any():
        told = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
        findings.append(
            Finding(
                "boxes dropped",
                f"has {total} boxes of the classes, of which {int(dropped.sum())} would be dropped in silence: {told}. "
                "Correct them, or take them out",
                boxes.places(dropped),
                int(dropped.sum()),
                fatal=bool(dropped.mean() > MOST),
            )
        )
    crowd = boxes.crowd & ~dropped
    if crowd.sum() > _CROWD * total:
        findings.append(
            Finding(
                "iscrowd",
                f"has iscrowd=1 in {int(crowd.sum())} of {total} boxes: such regions are neither trained on nor "
                "counted in evaluation. CVAT, among others, writes it for each mask in RLE; write 0 for an object",
                boxes.places(crowd),
                int(crowd.sum()),
                fatal=bool(crowd.sum() > MOST * total),
            )
        )
    return findings


def repeated_findings(boxes: Boxes) -> list[Finding]:
    """The same box of the same category twice in an image, as merged exports have them; below 1 % it is a slip."""
    rows = np.column_stack([boxes.images, boxes.labels, boxes.xywh])
    order = np.lexsort(rows.T)
    same = (rows[order][1:] == rows[order][:-1]).all(1)
    repeated = np.zeros(len(rows), bool)
    repeated[order[1:]] = same
    if repeated.sum() < max(1, 0.01 * len(rows)):
        return []
    return [
        Finding(
            "boxes repeated",
            f"has {int(repeated.sum())} of {len(rows)} boxes twice, of one category in one image: in evaluation "
            "each copy counts as missed. Was the file merged with itself? Take the copies out",
            boxes.places(repeated),
            int(repeated.sum()),
            fatal=False,
        )
    ]


def area_findings(boxes: Boxes) -> list[Finding]:
    """Areas of most objects that cannot be those of what is in their boxes; those of 0 are told as dropped."""
    if not boxes.ids:
        return []
    of_box = boxes.xywh[:, 2] * boxes.xywh[:, 3]
    odd = (boxes.areas > 0) & ((boxes.areas > 1.1 * of_box + 1) | (boxes.areas < 0.01 * of_box))
    if odd.mean() <= MOST:
        return []
    example = int(np.argmax(odd))
    message = (
        f"has {int(odd.sum())} of {len(odd)} areas that cannot be those of their boxes, such as "
        f"area={boxes.areas[example]:g} of bbox={_numbers(boxes.xywh[example])}: evaluation tells small, medium and "
        "large objects by them. Areas are pixels of the mask, or width * height"
    )
    return [Finding("areas", message, boxes.places(odd), int(odd.sum()), fatal=False)]


def _numbers(row: np.ndarray) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in row) + "]"


def _size(size: np.ndarray) -> str:
    return f"{size[0]:g} x {size[1]:g}"
