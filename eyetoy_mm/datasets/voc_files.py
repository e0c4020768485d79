"""Pascal VOC's lists and XML files checked against a config, before mmdet drops what does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from eyetoy_mm.datasets.coco_boxes import MOST, places
from eyetoy_mm.datasets.coco_format import told_of
from eyetoy_mm.datasets.corner_boxes import corner_findings
from eyetoy_mm.datasets.files import absent, names_in, odd_line
from eyetoy_mm.datasets.findings import Finding, listed_twice, repeated
from eyetoy_mm.datasets.outside import find_outside
from eyetoy_mm.errors import first_few
from eyetoy_mm.paths import is_address, join

_READ = 1_000  # XML files looked into, taken evenly: what is systematic shows, and a network disk answers in seconds


@dataclass
class _Objects:
    """What the XML files hold, gathered."""

    faults: dict[str, list[str]] = field(default_factory=dict)  # what is wrong, and in which files
    names: Counter[str] = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)  # of each box, as the rest
    corners: list[tuple[float, ...]] = field(default_factory=list)
    sizes: list[tuple[float, float]] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)


def voc_findings(path: str | Path, split: str, classes: Sequence[str], dataset: dict) -> list[Finding]:
    """What is wrong with a list of VOC's and its XML files for mmdet's ``XMLDataset``: all ids, some of the XML files.

    Args:
        path: The list of ids, a line each.
        split: What it is for, for the messages.
        classes: The dataset's classes.
        dataset: The dataset's config.

    Returns:
        The findings; each message begins with the list's path.
    """

    def findings() -> list[Finding]:
        folder = _folder_of(dataset)
        if is_address(path) or is_address(folder):
            return []
        try:
            ids = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot be read as a list of images: {error}") from error
        annotations = Path(folder, dataset.get("ann_subdir", "Annotations"))
        found = list(_missing(ids, annotations, ".xml"))
        if outside := find_outside("", str(annotations), ids):
            found.append(outside)
        found += _missing(ids, Path(image_folder(dataset)), ".jpg")
        if not ids:
            found.append(Finding("no image left", "is empty; it should list images, a line each"))
        if twice := repeated(ids):
            found.append(listed_twice(twice))
        read = [annotations / f"{id_}.xml" for id_ in ids[:: max(1, len(ids) // _READ)]]
        objects = _read(read)
        if read and not objects.files and not objects.faults and not found:
            message = (
                f"has no object in the XML files ({len(read)} of {len(ids)} were looked into): a detector learns from"
            )
            found.append(Finding("no boxes", f"{message} it what is background, and nothing else", fatal=False))
        return [*found, *_fault_findings(objects), *_name_findings(objects, classes), *_box_findings(objects)]

    return told_of(path, split, findings)


def image_folder(dataset: dict) -> str:
    """Where the images of a data set of VOC's form are."""
    return join(_folder_of(dataset), dataset.get("img_subdir", "JPEGImages"))


def _folder_of(dataset: dict) -> str:
    prefix = (dataset.get("data_prefix") or {}).get("sub_data_root") or ""
    return join(dataset.get("data_root") or "", prefix)


def _missing(ids: list[str], folder: Path, suffix: str) -> Iterator[Finding]:
    files = [str(folder / f"{id_}{suffix}") for id_ in ids]
    absent_files = set(absent(files))
    missing = [id_ for id_, file in zip(ids, files) if file in absent_files]
    if not missing:
        return
    first, present = missing[0], names_in(folder)
    remedy = "Take them off the list, or put the files there"
    if odd := odd_line(ids):
        remedy = odd
    elif len(first.split()) > 1:
        remedy = "The list should have the id alone in each line (VOC's lists of one class have a mark behind it)"
    elif f"{first}" in present or f"{Path(first).stem}{suffix}" in present:
        remedy = "The list should have names without their suffix"
    elif other := [name for name in present if Path(name).stem == first]:
        remedy = f"It is there as {other[0]}, but mmdet's datasets of XML read {suffix} alone: convert the files"
    yield Finding(
        "images missing" if suffix == ".jpg" else "annotations missing",
        f"names {len(missing)} (of {len(ids)}) that are not on disk: "
        f"{first_few(str(folder / f'{id_}{suffix}') for id_ in missing)}. {remedy}",
        places("line", (repr(id_) for id_ in missing)),
        len(missing),
    )


def _read(paths: list[Path]) -> _Objects:
    objects = _Objects()
    for path in paths:
        if not path.is_file():
            continue  # told already
        try:
            root = ElementTree.parse(path).getroot()
        except (ElementTree.ParseError, UnicodeError, ValueError) as error:
            objects.faults.setdefault(f"XML that cannot be read ({error})", []).append(path.name)
            continue
        try:
            _gather(root, path.name, objects)
        except _Fault as fault:
            objects.faults.setdefault(str(fault), []).append(path.name)
    return objects


class _Fault(ValueError):
    """What makes an XML file none of VOC's."""


def _number(node: ElementTree.Element, name: str, whole: bool = False) -> float:
    text = node.findtext(name)
    try:
        return int(text or "") if whole else float(text or "")
    except ValueError:
        raise _Fault(f"<{node.tag}> has {name}={text!r}, no {'whole ' if whole else ''}number") from None


def _gather(root: ElementTree.Element, file: str, objects: _Objects) -> None:
    size = root.find("size")
    shape = (np.nan, np.nan) if size is None else (_number(size, "width", True), _number(size, "height", True))
    if min(shape) <= 0:
        raise _Fault(f"<size> is {shape[0]:g} x {shape[1]:g}")
    for node in root.findall("object"):
        box = node.find("bndbox")
        if box is None or node.findtext("name") is None:
            raise _Fault("an <object> has no <name> or no <bndbox>")
        difficult = node.findtext("difficult", "0")
        if not difficult.strip().lstrip("+-").isdecimal():
            raise _Fault(f"<difficult> is {difficult!r}, not 0 or 1")
        objects.corners.append(tuple(_number(box, side) for side in ("xmin", "ymin", "xmax", "ymax")))
        objects.names[node.findtext("name") or ""] += 1
        objects.files.append(file)
        objects.sizes.append(shape)
        objects.difficult.append(int(difficult) != 0)


def _fault_findings(objects: _Objects) -> Iterator[Finding]:
    for fault, files in objects.faults.items():
        message = f"lists images whose XML mmdet fails at: {fault}. Correct {files[0]}"
        yield Finding("VOC format", message, tuple(files[:5]), len(files))


def _name_findings(objects: _Objects, classes: Sequence[str]) -> Iterator[Finding]:
    if isinstance(classes, str):
        yield Finding(
            "classes",
            f"has no classes: metainfo=dict(classes=(...)) of the dataset is the text {classes!r}; a single class is "
            f"classes=({classes!r},)",
        )
        return
    total = objects.names.total()
    unknown = {name: count for name, count in objects.names.most_common() if name not in classes}
    if unknown:
        dropped = sum(unknown.values())
        yield Finding(
            "classes left out",
            f"has objects of names that are no class of the config: {dropped} of {total} in the XML files looked into "
            f"would be dropped in silence: {first_few(f'{name!r} ({count})' for name, count in unknown.items())}. The "
            f"classes are {first_few(map(repr, classes))}: set metainfo=dict(classes=(...)) of the dataset, capitals "
            "and blanks too",
            count=dropped,
            fatal=dropped > MOST * total,
        )


def _box_findings(objects: _Objects) -> Iterator[Finding]:
    if not objects.files:
        return
    yield from corner_findings(np.array(objects.corners), np.array(objects.sizes), objects.files)
    difficult = np.array(objects.difficult)
    if difficult.mean() > MOST:
        files = dict.fromkeys(file for file, odd in zip(objects.files, difficult) if odd)
        message = (
            f"has difficult=1 in {int(difficult.sum())} of {len(difficult)} objects: these are not trained on. Write 0 "
            "for what should be learnt"
        )
        yield Finding("difficult", message, tuple(files)[:5], int(difficult.sum()))
