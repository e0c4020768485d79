"""Masks of labels: what the numbers of one file are worth, and what those of many say together.

mmseg trains on whatever numbers the masks hold: 255 is ignored, so that masks of 0 and 255 teach nothing and score
100 %; 16 bits are cut to 8; and masks in colour end in an error of a tensor's shape. The same look is taken at some
masks before a run, at all of them by the checker, and at each file as it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.datasets.image_files import Fault, Header, ImageReport, examine_file
from eyetoy_mm.errors import first_few


@dataclass(frozen=True)
class Labelling:
    """What the masks of a data set stand for.

    Args:
        step: The step of the pipeline that loads them.
        described: This step in words; steps that do the same are not equal.
        settings: What the step needs to know of the data set: ``label_map`` and ``reduce_zero_label``.
        classes: How many labels there are; None if nothing says it.
        ignored: The label that the loss ignores.
    """

    step: Any = field(compare=False)
    described: str
    settings: dict
    classes: int | None
    ignored: int = 255

    @classmethod
    def of(cls, dataset: Any, step: Any, classes: int | None, ignored: int = 255) -> Labelling:
        """That of a data set of mmseg; its own number of classes where the model has none."""
        settings = {key: getattr(dataset, key, None) for key in ("label_map", "reduce_zero_label")}
        return cls(step, repr(step), settings, classes or len(dataset.metainfo.get("classes") or ()) or None, ignored)

    def labels(self, path: str) -> np.ndarray:
        """The labels of a mask ``(H, W)``, as they are in training."""
        return self.step(dict(self.settings, seg_map_path=path, seg_fields=[]))["gt_seg_map"]


@dataclass(frozen=True)
class Mask:
    """What was found in one mask.

    Args:
        report: Of the file.
        size: Width and height; None if it cannot be read.
        values: The numbers in the file; none where they are no labels.
        counts: Pixels of each label from 0 on, after loading; None where it cannot be loaded.
    """

    report: ImageReport
    size: tuple[int, int] | None = None
    values: tuple[int, ...] = ()
    counts: tuple[int, ...] | None = None


def look_at_mask(path: str, labelling: Labelling) -> Mask:
    """Open a mask, as it is stored and as the pipeline loads it."""
    step = labelling.step
    report, pixels = examine_file(path, "unchanged", step.imdecode_backend, step.backend_args)
    # What is said of photos of 16 bits is none of masks.
    faults = tuple(fault for fault in report.faults if fault.kind != "16-bit image")
    report = replace(report, faults=faults)
    if pixels is None:
        return Mask(report)
    size = (pixels.shape[1], pixels.shape[0])
    if report.header is not None and report.header.format == "JPEG":
        report = replace(report, faults=(*faults, _LOSSY))
    fault = number_fault(pixels, report.header)
    if fault is not None:
        return Mask(replace(report, faults=(*report.faults, fault)), size)
    values = tuple(np.unique(pixels).astype(int).tolist())
    try:
        labels = labelling.labels(path)
    except Exception as error:  # whatever a step raises of a mask that it does not expect
        fault = Fault("unreadable mask", f"the pipeline cannot load these masks: {type(error).__name__}: {error}")
        return Mask(replace(report, faults=(*report.faults, fault)), size, values)
    counts = np.bincount(labels.ravel())
    return Mask(replace(report, faults=(*report.faults, *_label_faults(counts, labelling))), size, values,
                tuple(counts.tolist()))  # fmt: skip


def number_fault(pixels: np.ndarray, header: Header | None) -> Fault | None:
    """What keeps the pixels of a mask, as they are stored, from being labels of 8 bits.

    Args:
        pixels: ``(H, W)`` or ``(H, W, C)``, of any type.
        header: Of the file.
    """
    if pixels.squeeze().ndim > 2:
        return _in_colour(pixels, header)
    if pixels.dtype.kind == "f" and (pixels % 1).any():
        message = "these masks hold fractions, which loading cuts off; write whole numbers, as 8-bit PNG"
        return Fault("fractions in masks", message, detail=f"as {pixels[pixels % 1 != 0].flat[0]:g}")
    if pixels.max() > 255 or pixels.min() < -1:  # -1 becomes 255, as it is meant
        message = "these masks hold numbers beyond 255, and 8 bits are loaded: 256 becomes 0, 257 becomes 1. Number "
        message += "the classes below 255, in 8-bit masks"
        return Fault("labels beyond 255", message, detail=f"{pixels.min():g} to {pixels.max():g}")
    return None


_LOSSY = Fault(
    "masks in JPEG",
    "these masks are JPEG, which changes numbers where labels meet: pixels there become other classes. Export them "
    "anew, as PNG",
    fatal=False,
)


def _in_colour(pixels: np.ndarray, header: Header | None) -> Fault:
    if header is not None and header.mode == "P":
        remedy = "they are palette images, whose numbers imdecode_backend='cv2' replaces by colours: take 'pillow'"
    elif pixels.shape[2] == 3 and (pixels == pixels[..., :1]).all():
        remedy = "the channels are equal: keep one of them"
    else:
        remedy = "write the number of the class for each colour, as grey or palette images of 8 bits"
    message = f"these masks are in colour, and a mask has one number for each pixel, the class; {remedy}"
    return Fault("masks in colour", message, detail=f"{pixels.shape[2]} channels")


def _label_faults(counts: np.ndarray, labelling: Labelling) -> Iterator[Fault]:
    classes, ignored = labelling.classes or 256, labelling.ignored
    seen = np.flatnonzero(counts)
    wrong = [str(label) for label in seen if label >= classes and label != ignored]
    if wrong:
        message = (
            f"these masks have labels without a class: there are {classes} classes, labels 0 to {classes - 1} after "
            f"loading, and {ignored} is ignored. Check the masks, num_classes, and reduce_zero_label, which takes 1 "
            "from every label"
        )
        yield Fault("labels out of range", message, detail=f"labels {first_few(wrong)}")
    if seen.tolist() == [ignored]:
        message = f"every pixel is {ignored}, to be ignored: nothing is learned from these"
        yield Fault("masks without labels", message, fatal=False)


def together_findings(masks: Sequence[tuple[str, Mask]], labelling: Labelling) -> Iterator[Finding]:
    """What masks that are well, each by itself, say together.

    Args:
        masks: Paths, and what was found there.
        labelling: Of their data set.
    """
    loaded = [(path, mask) for path, mask in masks if mask.counts is not None]
    if not loaded:
        return
    where = tuple(path for path, _ in loaded)
    most = max(len(mask.counts or ()) for _, mask in loaded)
    pixels = np.sum([np.pad(mask.counts or (), (0, most - len(mask.counts or ()))) for _, mask in loaded], axis=0)
    held = first_few(map(str, sorted({value for _, mask in loaded for value in mask.values})), 8)
    classes, ignored = labelling.classes, labelling.ignored
    labels = [label for label in np.flatnonzero(pixels) if label != ignored]
    some_ignored = most > ignored and pixels[ignored] > 0
    if not labels:
        message = (
            f"in all {len(loaded)} masks looked at every pixel is {ignored} after loading, which is ignored: the loss "
            f"would be 0 and every score undefined. They hold {held}. Check them, and reduce_zero_label"
        )
        yield Finding("nothing but ignored", message, where)
    elif classes and classes >= 2 and labels == [0] and some_ignored:
        what, advice = f"{ignored} is ignored", f"Write 1 where the masks have {ignored}"
        if all(ignored not in mask.values for _, mask in loaded):
            what = "reduce_zero_label takes 1 from each, and ignores what was 0"
            advice = "Set reduce_zero_label=False, of the dataset and of LoadAnnotations"
        message = (
            f"the {len(loaded)} masks looked at hold {held} alone, and {what}: only label 0 of {classes} is left, "
            f"which any model gets right. {advice}"
        )
        yield Finding("one label and ignored", message, where, fatal=classes == 2)
    elif classes and classes >= 2 and len(labels) == 1 and len(loaded) > 1:
        yield Finding(
            "one label", f"the {len(loaded)} masks looked at have no label but {labels[0]}", where, fatal=False
        )
