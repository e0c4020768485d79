"""labelme: a JSON file with shapes for each image."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections import Counter
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as run_lengths

from eyetoy_mm.datasets.layouts.common import (
    Found,
    Item,
    Thing,
    Tree,
    join_names,
    parent_of,
    split_of_folder,
    stem_of,
)
from eyetoy_mm.datasets.splits import IMAGE_SUFFIXES
from eyetoy_mm.errors import UserError, first_few

SHAPES = re.compile(rb'"shapes"\s*:')
_CORNERS = 36  # of a circle's outline


def signs(tree: Tree) -> str:
    """What speaks for it."""
    return first_few(tree.once(_files), 3)


def _files(tree: Tree) -> list[str]:
    return [name for name in tree.ending(".json") if SHAPES.search(tree.head(name))]


def read(tree: Tree, classes: list[str]) -> Found:
    """Read them.

    Raises:
        UserError: A file cannot be read, has no image.
    """
    found = Found(tree.folder, "labelme", [], [], names_from="--classes" if classes else "the labels of the shapes")
    left_out: Counter[str] = Counter()
    for name in tree.once(_files):
        try:
            content = json.loads(tree.text(name))
            item = Item(_image_of(tree, name, content), split_of_folder(name))
            item.size = int(content["imageWidth"]), int(content["imageHeight"])
            item.things = _things(content["shapes"], item.size, left_out)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise UserError(
                f"{tree.path(name)} is not as labelme writes it: {type(error).__name__}: {error}"
            ) from error
        found.items.append(item)
    for kind, count in left_out.items():
        found.decided.append(f"{count} shapes of kind {kind} have no area: left out")
    without = len(tree.images) - len(found.items)
    if without:
        found.decided.append(f"{without} images have no JSON file: left out; save them in labelme to learn from them")
    found.classes = classes or sorted({thing.label for item in found.items for thing in item.things})
    return found


def _image_of(tree: Tree, file: str, content: dict[str, Any]) -> str:
    """Its image, by the path in the file or by the file's own name."""
    path = str(PureWindowsPath(content.get("imagePath") or "").as_posix())
    places = [join_names(parent_of(file), path), join_names(parent_of(file), PurePosixPath(path).name)]
    places += [stem_of(file) + suffix for suffix in IMAGE_SUFFIXES]
    image = next((place for place in places if place in tree.known), "")
    if not image:
        inside = "; it is in the file as imageData: save it, too" if content.get("imageData") else ""
        raise UserError(f"{tree.path(file)} is of {path or 'no image'}, which is not there{inside}")
    return image


def _things(shapes: list[dict], size: tuple[int, int], left_out: Counter[str]) -> list[Thing]:
    """Shapes with an area; those of one group and label are one object."""
    things: list[Thing] = []
    groups: dict[tuple[str, int], Thing] = {}
    for shape in shapes:
        kind = shape.get("shape_type") or "polygon"
        points = np.asarray(shape["points"], dtype=float).reshape(-1, 2)
        thing = _thing(str(shape["label"]), kind, points, shape, size)
        if thing is None:
            left_out[kind] += 1
            continue
        group = shape.get("group_id")
        if group is None or not isinstance(thing.outline, list):
            things.append(thing)
        elif other := groups.get((thing.label, group)):
            _join(other, thing)
        else:
            groups[thing.label, group] = thing
            things.append(thing)
    return things


def _thing(label: str, kind: str, points: np.ndarray, shape: dict, size: tuple[int, int]) -> Thing | None:
    if kind == "circle" and len(points) == 2:
        radius = math.dist(*points)
        angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
        points = points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    elif kind == "mask":
        return _painted(label, points, shape, size)
    elif not (kind == "rectangle" and len(points) >= 2) and not (kind == "polygon" and len(points) >= 3):
        return None
    low, high = points.min(0), points.max(0)
    outline = None if kind == "rectangle" else [points.round(2).ravel().tolist()]
    return Thing(label, (*low.tolist(), *(high - low).tolist()), outline)


def _painted(label: str, points: np.ndarray, shape: dict, size: tuple[int, int]) -> Thing:
    """A mask, which labelme keeps as a PNG of its box."""
    try:
        content = base64.b64decode(shape["mask"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"a mask is no base64: {error}") from error
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise ValueError("a mask is no PNG")
    whole = np.zeros(size[::-1], np.uint8, order="F")
    left, top = points.min(0).astype(int)
    whole[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels[: size[1] - top, : size[0] - left] > 0
    encoded = run_lengths.encode(whole)
    box = run_lengths.toBbox(encoded).tolist()
    return Thing(label, tuple(box), dict(size=encoded["size"], counts=encoded["counts"].decode()))


def _join(thing: Thing, part: Thing) -> None:
    """Make a part of an object one with it; both have polygons."""
    corners = [(x, y, x + w, y + h) for x, y, w, h in (thing.box, part.box)]
    left, top = min(c[0] for c in corners), min(c[1] for c in corners)
    thing.box = left, top, max(c[2] for c in corners) - left, max(c[3] for c in corners) - top
    assert isinstance(thing.outline, list) and isinstance(part.outline, list)
    thing.outline = [*thing.outline, *part.outline]
