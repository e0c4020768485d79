"""Masks of labels: what the numbers of one file are worth, and what those of many say together.

mmseg trains on whatever numbers the masks hold: 255 is ignored, so that masks of 0 and 255 teach nothing and score
100 %; 16 bits are cut to 8; and masks in colour end in an error of a tensor's shape. The same look is taken at some
masks before a run, at all of them by the checker, and at each file as it is loaded.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from mmengine import fileio
from PIL import Image

from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.datasets.image_files import TURNED_ON_REQUEST, Fault, Header, ImageReport, examine_file
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
        names: Of the classes.
        palette: Red, green and blue of each class, as the data set has them; none where it has none.
    """

    step: Any = field(compare=False)
    described: str
    settings: dict
    classes: int | None
    ignored: int = 255
    names: tuple[str, ...] = ()
    palette: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, dataset: Any, step: Any, classes: int | None, ignored: int = 255) -> Labelling:
        """That of a data set of mmseg; its own number of classes where the model has none."""
        settings = {key: getattr(dataset, key, None) for key in ("label_map", "reduce_zero_label")}
        names = tuple(dataset.metainfo.get("classes") or ())
        palette = tuple(tuple(map(int, colour)) for colour in dataset.metainfo.get("palette") or ())
        return cls(step, repr(step), settings, classes or len(names) or None, ignored, names, palette)

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
        colours: Red, green and blue of each number of ``values`` in a palette image; none in others.
        labels: What each number of ``values`` is after loading, where there are ``colours``.
        steps: How often two labels that are no neighbours meet, and in how many of these by way of one between.
    """

    report: ImageReport
    size: tuple[int, int] | None = None
    values: tuple[int, ...] = ()
    counts: tuple[int, ...] | None = None
    colours: tuple[tuple[int, ...], ...] = ()
    labels: tuple[int, ...] = ()
    steps: tuple[int, int] = (0, 0)


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
    if report.header is not None and report.header.orientation != 1 and report.header.format in TURNED_ON_REQUEST:
        report = replace(report, faults=(*report.faults, _TURNED))
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
    colours = _colours(path, step, values) if report.header is not None and report.header.mode == "P" else ()
    return Mask(
        replace(report, faults=(*report.faults, *_label_faults(counts, labelling))),
        size,
        values,
        tuple(counts.tolist()),
        colours,
        tuple(int(labels[pixels.squeeze() == value][0]) for value in values) if colours else (),
        _steps(labels, labelling.ignored),
    )


def _colours(path: str, step: Any, values: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    with Image.open(io.BytesIO(fileio.get(path, step.backend_args))) as image:
        palette = np.reshape(image.getpalette() or (), (-1, 3))
    return tuple(tuple(palette[value].tolist()) for value in values) if values[-1] < len(palette) else ()


def _steps(labels: np.ndarray, ignored: int) -> tuple[int, int]:
    """Of what :class:`Mask` has, along rows and columns, each over three pixels."""
    met = passed = 0
    for lines in (labels, labels.T):
        first, between, last = (lines[:, start : start + max(0, lines.shape[1] - 2)] for start in (0, 1, 2))
        low, high = np.minimum(first, last), np.maximum(first, last)
        apart = (high - low >= 2) & (high != ignored) & (low != ignored)
        met += int(apart.sum())
        passed += int((apart & (low < between) & (between < high)).sum())
    return met, passed


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

_TURNED = Fault(
    "orientation of masks",
    "these masks have an EXIF tag by which programs show them turned, and masks are loaded as they are stored. Write "
    "them as their images are loaded, without the tag",
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
    labels = [int(label) for label in np.flatnonzero(pixels) if label != ignored]
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
    elif classes and classes > 2:
        yield from _counted_from_elsewhere(labels, classes, len(loaded), held)
    yield from _blended(loaded)
    yield from _other_colours(loaded, labelling)


def _counted_from_elsewhere(labels: list[int], classes: int, count: int, held: str) -> Iterator[Finding]:
    """All labels but the first are there, or all but the last."""
    if labels == list(range(1, classes)):
        lacking, advice = "label 0, the first class", "If 0 is no class, set reduce_zero_label=True, and a class less"
    elif labels == list(range(classes - 1)):
        lacking = f"label {classes - 1}, the last class"
        advice = "If 0 is a class, set reduce_zero_label=False, of the dataset and of LoadAnnotations"
    else:
        return
    message = f"the {count} masks looked at hold {held}, and after loading no {lacking}, of {classes}. {advice}"
    yield Finding("label missing", message, fatal=False)


_FEW_STEPS = 100
_BLENDED = 0.3  # masks of whole labels have a few in a hundred, where something thin lies between


def _blended(masks: Sequence[tuple[str, Mask]]) -> Iterator[Finding]:
    """Labels that were computed with as if they were colours: resized, smoothed, rotated, compressed."""
    met, passed = np.sum([mask.steps for _, mask in masks], axis=0)
    if met >= _FEW_STEPS and passed > _BLENDED * met:
        where = tuple(path for path, mask in masks if mask.steps[1] > _BLENDED * mask.steps[0])
        message = (
            f"where labels meet, {passed / met:.0%} of the borders have a label between the two: the numbers of "
            "classes were mixed like colours, as by resizing bilinearly, smoothing or JPEG, and pixels there are of "
            "classes that are not there. Make the masks anew, with the nearest label (cv2.INTER_NEAREST)"
        )
        yield Finding("blended labels", message, where, fatal=False)


def _other_colours(masks: Sequence[tuple[str, Mask]], labelling: Labelling) -> Iterator[Finding]:
    """Palette masks all whose colours are those of classes, and stand for other ones there than after loading."""
    label_of = {colour: label for label, colour in enumerate(labelling.palette)}
    unlike = []
    for path, mask in masks:
        pairs = [(label, label_of.get(c)) for label, c in zip(mask.labels, mask.colours) if label != labelling.ignored]
        moved = [(label, meant) for label, meant in pairs if label != meant]
        if moved and len(label_of) == len(labelling.names) and all(meant is not None for _, meant in pairs):
            unlike.append((path, moved[0]))
    if unlike:
        label, meant = unlike[0][1]
        name = labelling.names[label] if label < len(labelling.names) else "no class"
        message = (
            f"these masks have the colours of the data set's palette under other numbers: what is label {label} "
            f"({name!r}) after loading has the colour of {labelling.names[meant or 0]!r}. Number the masks as the "
            "classes are, or correct palette in metainfo if it is that which is wrong"
        )
        yield Finding("palettes", message, tuple(path for path, _ in unlike), fatal=False)


def colour_findings(masks: Sequence[tuple[str, Mask]]) -> Iterator[Finding]:
    """Palette masks, of training and evaluation together, that have a colour now as one number, now as another.

    Programs that make a palette for each file number its colours as they come.

    Args:
        masks: Paths, and what was found there.
    """
    known: dict[tuple[int, ...], tuple[int, str]] = {}
    unlike = []
    for path, mask in masks:
        if len(set(mask.colours)) < len(mask.colours):
            continue  # a palette that names no classes
        for number, colour in zip(mask.values, mask.colours):
            first = known.setdefault(colour, (number, path))
            if first[0] != number:
                unlike.append((path, f"{colour} is {number}, and {first[0]} in {first[1]}"))
    if unlike:
        message = (
            f"these masks have their colours under other numbers than others: {unlike[0][1]}. Numbers are the classes: "
            "number the colours alike in all files; if the numbers are right, save the masks as grey, without palette"
        )
        yield Finding("palettes", message, tuple(dict.fromkeys(path for path, _ in unlike)))
