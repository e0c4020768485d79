"""Boxes by their corners, as VOC's files and mmdet's datasets have them: written in another form, or elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from eyetoy_mm.datasets.coco_boxes import BOX_FORM, MOST, inside
from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.datasets.spread import spread
from eyetoy_mm.errors import first_few

_LIMIT = 1_000  # samples looked at, taken evenly: what is systematic shows


def corner_findings(corners: np.ndarray, sizes: np.ndarray, of: Sequence[str]) -> Iterator[Finding]:
    """Boxes that are not x1, y1, x2, y2 in pixels of their image.

    Args:
        corners: ``(N, 4)``.
        sizes: Width and height of their images ``(N, 2)``; NaN where they are not known.
        of: The file or image that each is of.
    """
    if not len(corners):
        return
    x1, y1, x2, y2 = corners.T
    total, known = len(corners), np.isfinite(sizes).all(1)
    flat = ~((x2 > x1) & (y2 > y1))
    as_sizes = known & inside((x1, y1, x1 + x2, y1 + y2), sizes)
    normalised = np.abs(corners).max(1) <= 1.01
    outside = known & ~flat & ~inside((x1, y1, x2, y2), sizes)
    swapped = outside & inside((x1, y1, x2, y2), sizes[:, ::-1])
    # Width and height were added to what are corners already.
    added = known & inside((x1, y1, x2 - x1, y2 - y1), sizes)
    if normalised.mean() > MOST:
        message = "has boxes normalised to 0..1, which are read as pixels. Multiply x by the image's width and y by its"
        yield _finding(BOX_FORM, f"{message} height", normalised, of)
    elif flat.any():
        form = " They seem to be x, y, width, height: write x2 = x1 + width" if as_sizes[known].mean() > 0.95 else ""
        message = f"has {int(flat.sum())} of {total} boxes whose x2 or y2 (xmax, ymax) is not above x1 or y1.{form}"
        yield _finding(BOX_FORM, message, flat, of, fatal=bool(form) or flat.mean() > MOST)
    if not outside.any():
        return
    message = f"has {int(outside.sum())} of {total} boxes that reach far beyond their image"
    if swapped.sum() >= 0.9 * outside.sum():
        remedy = "and fit when its width and height change places: correct these"
        yield _finding("width and height swapped", f"{message}, {remedy}", outside, of, outside.mean() > 0.1)
    elif outside.mean() >= 0.1 and added[known].mean() > 0.95:
        remedy = "width and height seem to be corners already: they are x1 y1 x2 y2 where x, y, width, height are read"
        yield _finding(BOX_FORM, f"{message}; {remedy}", outside, of)
    else:
        yield _finding("boxes beyond the image", f"{message}; correct them", outside, of, outside.mean() > MOST)


def instance_findings(dataset: Any, limit: int | None = _LIMIT) -> Iterator[Finding]:
    """What is wrong with the boxes of a dataset that is built, whatever has read them.

    Args:
        dataset: A plain dataset of mmdet's form; samples without boxes are passed over.
        limit: How many samples are looked at; None for all.
    """
    labels, corners, sizes, of, ignored = [], [], [], [], []
    count = len(dataset)
    for index in spread(count, limit or count):
        data = dataset.get_data_info(index)
        size = data.get("width") or np.nan, data.get("height") or np.nan
        for instance in boxes_of(data.get("instances")):
            corners.append(instance["bbox"])
            labels.append(instance.get("bbox_label", 0))
            ignored.append(bool(instance.get("ignore_flag")))
            sizes.append(size)
            of.append(str(data.get("img_path", f"sample {index}")))
    if not corners:
        return
    skipped, listed = np.array(ignored), getattr(dataset, "ann_file", "")
    name = f"{type(dataset).__name__} ({listed})" if listed else type(dataset).__name__
    found = [*_label_findings(np.array(labels), skipped, getattr(dataset, "metainfo", {}).get("classes"), of)]
    if skipped.mean() > MOST:
        message = f"has {int(skipped.sum())} of {len(of)} boxes that are to be ignored: they are not trained on. Check "
        message += "the names of the classes, letter by letter, and what marks a box as ignored"
        found.append(_finding("boxes ignored", message, skipped, of))
    found += corner_findings(np.array(corners, float), np.array(sizes, float), of)
    yield from (Finding(f.kind, f"{name} {f.message}", f.where, f.count, f.fatal) for f in found)


def boxes_of(instances: Any) -> Iterator[dict]:
    """Instances that have an upright box."""
    for instance in instances if isinstance(instances, list) else ():
        box = instance.get("bbox") if isinstance(instance, dict) else None
        if box is not None and len(box) == 4:
            yield instance


def _label_findings(
    labels: np.ndarray, ignored: np.ndarray, classes: Sequence[str] | None, of: Sequence[str]
) -> Iterator[Finding]:
    wrong = ~ignored & ((labels < 0) | (labels >= len(classes or ())))
    if classes and wrong.any():
        values = first_few(map(str, sorted(set(labels[wrong].tolist()))))
        message = (
            f"has boxes of label {values}, and {len(classes)} classes, labels 0 to {len(classes) - 1}; correct them"
        )
        yield _finding("label out of range", message, wrong, of)


def _finding(kind: str, message: str, affected: np.ndarray, of: Sequence[str], fatal: Any = True) -> Finding:
    files = dict.fromkeys(of[index] for index in np.flatnonzero(affected).tolist())
    return Finding(kind, message, tuple(files)[:5], int(affected.sum()), bool(fatal))
