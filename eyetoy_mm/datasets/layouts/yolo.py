"""Labels of YOLO, a text file for each image: as Ultralytics, Roboflow and CVAT (1.1 and Ultralytics) have them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import yaml

from eyetoy_mm.datasets.layouts.common import (
    Found,
    Item,
    Thing,
    Tree,
    join_names,
    parent_of,
    split_of_folder,
    stem_of,
    suffix_of,
)
from eyetoy_mm.errors import UserError, first_few

_LINE = re.compile(r"^\s*\d+(\.0*)?(\s+-?(\d+\.?\d*|\.\d+)(e-?\d+)?){4,}\s*$", re.IGNORECASE)
_PARTS = (("test", "test"), ("val", "val"), ("valid", "val"), ("train", "train"))  # an image of several is of the last


def signs(tree: Tree) -> str:
    """What speaks for it: label files beside images, or in ``labels`` where the images are in ``images``."""
    return first_few((name for name in tree.once(_label_files).values() if name and _has_labels(tree, name)), 3)


def _has_labels(tree: Tree, name: str) -> bool:
    first, *_ = tree.head(name, 1 << 10).decode(errors="replace").splitlines() or [""]
    return bool(_LINE.match(first))


def _label_files(tree: Tree) -> dict[str, str]:
    """The labels of each image; empty where it has none."""
    return {image: _label_file(tree, image) for image in tree.images}


def _label_file(tree: Tree, image: str) -> str:
    """The labels of an image; empty if there are none."""
    parts = PurePosixPath(stem_of(image)).parts
    places = [stem_of(image)]
    for index in reversed([i for i, part in enumerate(parts[:-1]) if part == "images"]):
        places.append("/".join((*parts[:index], "labels", *parts[index + 1 :])))
    return next((f"{place}.txt" for place in places if f"{place}.txt" in tree.known), "")


def read(tree: Tree, classes: list[str]) -> Found:
    """Read them.

    Raises:
        UserError: A line is none of YOLO's, a class has no name.
    """
    settings = _settings(tree)
    names, names_from = _names(tree, settings, classes)
    found = Found(tree.folder, "yolo", names, [], names_from=names_from)
    splits = _splits(tree, settings, found)
    points = _points_of_a_pose(settings)
    if points:
        found.decided.append(f"kpt_shape={settings['kpt_shape']}: key points are not learnt, their boxes are")
    kinds: Counter[str] = Counter()
    labels = tree.once(_label_files)
    labelled = {parent_of(image) for image, file in labels.items() if file}
    found.left_out = [image for image in tree.images if parent_of(image) not in labelled]
    if found.left_out:
        found.decided.append(f"{len(found.left_out)} images are in folders without a label file: left out")
    for image, file in labels.items():
        if parent_of(image) not in labelled:
            continue
        size = tree.size(image)
        if size is None:  # the check of other formats tells it; here nothing is known without a size
            found.decided.append(f"{image} is no image that can be read: left out")
            continue
        kinds["unlabelled"] += not file
        things = _things(tree, file, names, size, points, kinds) if file else []
        found.items.append(Item(image, splits[image], size=size, things=things))
    if kinds["unlabelled"]:
        found.decided.append(f"{kinds['unlabelled']} images have no label file: images without objects, as in YOLO")
    if kinds["box"] and kinds["outline"]:
        found.decided.append(
            f"{kinds['outline']} objects have outlines and {kinds['box']} boxes alone: boxes are learnt. Outline the "
            "others to learn masks"
        )
    return found


def _settings(tree: Tree) -> dict[str, Any]:
    """The YAML file that names classes and parts; empty where there is none."""
    files = []
    for name in tree.ending(".yaml", ".yml"):
        try:
            content = yaml.safe_load(tree.text(name))
        except yaml.YAMLError as error:
            raise UserError(f"{tree.path(name)} is no YAML: {error}") from error
        if isinstance(content, dict) and "names" in content:
            files.append((name, content))
    if len(files) > 1:
        raise UserError(f"{first_few(name for name, _ in files)} name classes; leave one of them in {tree.folder}")
    return {**files[0][1], "file": files[0][0]} if files else {}


def _names(tree: Tree, settings: dict, classes: list[str]) -> tuple[list[str], str]:
    if classes:
        return classes, "--classes"
    given = settings.get("names")
    if isinstance(given, dict):
        if {str(key) for key in given} != {str(number) for number in range(len(given))}:
            raise UserError(
                f"{tree.path(settings['file'])} has names for {first_few(map(str, given), 12)}: number them from 0 on, "
                "without gaps"
            )
        given = [given[key] for key in sorted(given, key=int)]
    if given:
        return [str(name) for name in given], f"names of {settings['file']}"
    lists = [name for name in tree.files if PurePosixPath(name).name in ("obj.names", "classes.txt", "classes.names")]
    if lists:
        return [line.strip() for line in tree.text(lists[0]).splitlines() if line.strip()], lists[0]
    raise UserError(
        f"{tree.folder} has labels of YOLO and no names of classes (data.yaml, obj.names or classes.txt): say them in "
        "the order of their numbers, --classes NAME NAME ..."
    )


def _splits(tree: Tree, settings: dict, found: Found) -> dict[str, str]:
    """The part of each image: by the YAML file, by CVAT's lists, else by its folder."""
    splits: dict[str, str] = {}
    start = parent_of(settings.get("file", ""))
    for key, split in _PARTS:
        given = settings.get(key) or []
        for entry in [given] if isinstance(given, str) else given:
            images = _images_of(tree, start, str(settings.get("path") or ""), entry)
            if not images and (not isinstance(given, list) or len(given) == 1):
                found.decided.append(f"{settings['file']} says {key}: {entry}, which is not in {tree.folder}: not used")
            splits.update(dict.fromkeys(images, split))
    if not splits:
        for key, split in _PARTS:
            for name in (n for n in tree.files if PurePosixPath(n).name.lower() == f"{key}.txt"):
                splits.update(dict.fromkeys(_listed(tree, name), split))
    if splits:
        return {image: splits.get(image, "") for image in tree.images}
    return {image: split_of_folder(image) for image in tree.images}


def _images_of(tree: Tree, start: str, root: str, entry: str) -> list[str]:
    """The images of an entry of a YAML file: a folder, or a list. Roboflow writes ``../train`` for ``train``."""
    plain = re.sub(r"^(\.\./)+", "", entry)
    for place in (join_names(start, join_names(root, entry)), join_names(start, entry), join_names(start, plain)):
        if suffix_of(place) == ".txt" and place in tree.known:
            return _listed(tree, place)
        below = "" if place == "." else f"{place}/"
        if images := [image for image in tree.images if image.startswith(below)]:
            return images
    return []


def _listed(tree: Tree, name: str) -> list[str]:
    """The images that a list names; CVAT writes ``data/`` before what lies beside the list."""
    images = []
    for line in filter(None, map(str.strip, tree.text(name).splitlines())):
        start = parent_of(name)
        places = (line, line.removeprefix("data/"), line.removeprefix("./"))
        images += [place for place in (join_names(start, p) for p in places) if place in tree.known][:1]
    return images


def _points_of_a_pose(settings: dict) -> int:
    """How many numbers of key points follow each box."""
    shape = settings.get("kpt_shape")
    return int(shape[0]) * int(shape[1]) if shape else 0


def _things(
    tree: Tree, file: str, names: list[str], size: tuple[int, int], points: int, kinds: Counter[str]
) -> list[Thing]:
    things = []
    for number, line in enumerate(tree.text(file).splitlines(), start=1):
        if not line.strip():
            continue
        if not _LINE.match(line):
            raise UserError(
                f"{tree.path(file)}, line {number}: {line[:80]!r} is not a class and numbers of a box or outline"
            )
        label, *rest = (float(part) for part in line.split())
        numbers = rest[: max(0, len(rest) - points)]
        values = np.array(numbers) * np.resize(size, len(numbers))
        if label >= len(names):
            raise UserError(
                f"{tree.path(file)}, line {number}: class {label:g}, and there are {len(names)} names "
                f"(0 to {len(names) - 1}: {first_few(names)}). Add its name, or --classes NAME NAME ..."
            )
        if len(values) == 4:
            x, y, width, height = values
            things.append(Thing(names[int(label)], (x - width / 2, y - height / 2, width, height)))
            kinds["box"] += 1
        elif len(values) >= 6 and len(values) % 2 == 0:
            low, high = values.reshape(-1, 2).min(0), values.reshape(-1, 2).max(0)
            box = (*low, *(high - low))
            things.append(Thing(names[int(label)], box, [values.round(2).tolist()]))
            kinds["outline"] += 1
        else:
            raise UserError(
                f"{tree.path(file)}, line {number}: {len(values)} numbers after the class are neither a box (4) nor an "
                "outline (pairs, 3 or more); with a score behind the box they are predictions, no labels"
            )
    return things
