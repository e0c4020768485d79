"""XML: Pascal VOC's, a file for each image (Roboflow and CVAT write it too), and CVAT's own, a file for all."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath
from xml.etree import ElementTree

from eyetoy_mm.datasets.layouts.common import (
    Found,
    Item,
    Thing,
    Tree,
    join_names,
    parent_of,
    split_of,
    split_of_folder,
    stem_of,
)
from eyetoy_mm.datasets.splits import IMAGE_SUFFIXES
from eyetoy_mm.errors import UserError, first_few

_HEAD = 4096


def voc_signs(tree: Tree) -> str:
    """What speaks for VOC."""
    return first_few(tree.once(_voc_files), 3)


def cvat_signs(tree: Tree) -> str:
    """What speaks for CVAT for images."""
    return first_few(tree.once(_cvat_files), 3)


def _voc_files(tree: Tree) -> list[str]:
    return [name for name in tree.ending(".xml") if b"<annotation>" in tree.head(name, _HEAD)]


def _cvat_files(tree: Tree) -> list[str]:
    return [name for name in tree.ending(".xml") if b"<annotations>" in tree.head(name, _HEAD)]


def read_voc(tree: Tree, classes: list[str]) -> Found:
    """Read VOC's files; the part of each is that of a list in ``ImageSets``, else that of its folder.

    Raises:
        UserError: A file is none of VOC's, has no image.
    """
    found = Found(tree.folder, "voc", [], [], names_from="--classes" if classes else "the names in the XML files")
    splits = _image_sets(tree)
    stems: dict[str, list[str]] = {}
    for image in tree.images:
        stems.setdefault(PurePosixPath(image).stem, []).append(image)
    for file in tree.once(_voc_files):
        root = _parse(tree, file)
        image = _image_of(file, root.findtext("filename") or "", stems)
        if not image:
            raise UserError(f"{tree.path(file)} is of {root.findtext('filename')}, and no such image is there")
        split = splits.get(PurePosixPath(file).stem, "") if splits else split_of_folder(file)
        size = int(_text_number(tree, file, root, "size/width")), int(_text_number(tree, file, root, "size/height"))
        things = [_voc_thing(tree, file, node) for node in root.findall("object")]
        found.items.append(Item(image, split, size=size, things=things))
    without = len(tree.images) - len(found.items)
    if without:
        found.decided.append(
            f"{without} images have no XML file: left out; write one without <object> to learn from it"
        )
    found.classes = classes or _by_name(found.items)
    return found


def read_cvat(tree: Tree, classes: list[str]) -> Found:
    """Read CVAT's files; the part of an image is that of its ``subset``, else that of the file or its folder.

    Raises:
        UserError: An image is not there, or a number is none.
    """
    found = Found(tree.folder, "cvat", [], [])
    names: dict[str, None] = {}
    left_out: Counter[str] = Counter()
    named: dict[str, list[str]] = defaultdict(list)
    for image in tree.images:
        named[PurePosixPath(image).name].append(image)
    for file in tree.once(_cvat_files):
        root = _parse(tree, file)
        names.update(dict.fromkeys(node.text or "" for node in root.iterfind("meta//labels/label/name")))
        for node in root.iterfind("image"):
            image = _place(tree, file, node.get("name", ""), named)
            split = split_of(node.get("subset") or "") or split_of(file) or split_of_folder(image)
            size = int(_attribute(tree, file, node, "width")), int(_attribute(tree, file, node, "height"))
            item = Item(image, split, size=size)
            for shape in node:
                thing = _cvat_thing(tree, file, shape)
                if thing is None:
                    left_out[shape.tag] += 1
                else:
                    item.things.append(thing)
            found.items.append(item)
    for tag, count in left_out.items():
        if tag != "tag":
            found.decided.append(f"{count} shapes of kind {tag} are no boxes or outlines: left out")
    found.classes = classes or [name for name in names if name] or _by_name(found.items)
    found.names_from = "--classes" if classes else "the labels of the task"
    return found


def _parse(tree: Tree, file: str) -> ElementTree.Element:
    try:
        return ElementTree.parse(tree.path(file)).getroot()
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{tree.path(file)} is XML that cannot be read: {error}") from error


def _text_number(tree: Tree, file: str, node: ElementTree.Element, name: str) -> float:
    return _number(tree, file, node.findtext(name), f"<{name}>")


def _attribute(tree: Tree, file: str, node: ElementTree.Element, name: str) -> float:
    return _number(tree, file, node.get(name), f"{name} of <{node.tag}>")


def _number(tree: Tree, file: str, text: str | None, name: str) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise UserError(f"{tree.path(file)}: {name} is {text!r}, no number") from None


def _voc_thing(tree: Tree, file: str, node: ElementTree.Element) -> Thing:
    name = node.findtext("name")
    if not name or node.find("bndbox") is None:
        raise UserError(f"{tree.path(file)}: an <object> has no <name> or no <bndbox>")
    left, top, right, bottom = (
        _text_number(tree, file, node, f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")
    )
    return Thing(name, (left, top, right - left, bottom - top), crowd=False)


def _cvat_thing(tree: Tree, file: str, shape: ElementTree.Element) -> Thing | None:
    label = shape.get("label", "")
    if shape.tag == "box":
        left, top, right, bottom = (_attribute(tree, file, shape, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        return Thing(label, (left, top, right - left, bottom - top))
    if shape.tag == "polygon":
        texts = re.split("[,;]", shape.get("points", ""))
        numbers = [_number(tree, file, text, "a number of the points of <polygon>") for text in texts]
        if len(numbers) % 2:
            raise UserError(f"{tree.path(file)}: points of <polygon> are {len(numbers)} numbers, no pairs of x and y")
        xs, ys = numbers[::2], numbers[1::2]
        box = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
        return Thing(label, box, [numbers])
    return None


def _image_of(file: str, name: str, stems: dict[str, list[str]]) -> str:
    """The image of a file: of the same name as it, as VOC has it, else of the name that it says; the nearest."""
    for stem in dict.fromkeys((PurePosixPath(file).stem, PurePosixPath(name.replace("\\", "/")).stem)):
        images = stems.get(stem, [])
        if images:
            return max(images, key=lambda image: _common(parent_of(image), parent_of(file)))
    return ""


def _common(first: str, second: str) -> int:
    """How many folders two paths have in common from the top; those of the same part have one more."""
    same = 0
    for a, b in zip(first.split("/"), second.split("/")):
        if a != b:
            break
        same += 1
    return 2 * same + (split_of(first) == split_of(second))


def _place(tree: Tree, file: str, name: str, named: dict[str, list[str]]) -> str:
    """An image of CVAT: beside the file, in ``images`` there, or wherever one of that name is.

    Args:
        tree: The folder.
        file: Which says the name.
        name: With folders, perhaps.
        named: The images by the last parts of their paths.
    """
    for parent in (parent_of(file), join_names(parent_of(file), "images")):
        if (place := join_names(parent, name)) in tree.known:
            return place
    alike = named.get(PurePosixPath(name).name, ())
    places = [image for image in alike if image.endswith(f"/{name}") or image == name]
    if len(places) != 1:
        what = f"is there {len(places)} times: {first_few(places)}" if places else "is not there"
        raise UserError(f"{tree.path(file)} is of the image {name}, which {what}. Export with images, or put it beside")
    return places[0]


def _image_sets(tree: Tree) -> dict[str, str]:
    """The part of each name in ``ImageSets/Main``; ``default.txt``, as CVAT writes it, is no part."""
    splits: dict[str, str] = {}
    for split, file in _set_files(tree):
        for line in tree.text(file).splitlines():
            if line.strip():
                splits[stem_of(line.split()[0]) if _has_suffix(line) else line.split()[0]] = split
    return {name.rpartition("/")[2]: split for name, split in splits.items()}


def _set_files(tree: Tree) -> Iterator[tuple[str, str]]:
    for name in ("test", "val", "train"):  # a name in several lists is of the last
        for file in tree.files:
            if file.endswith(f"ImageSets/Main/{name}.txt"):
                yield name, file


def _has_suffix(line: str) -> bool:
    return PurePosixPath(line.split()[0]).suffix.lower() in IMAGE_SUFFIXES


def _by_name(items: list[Item]) -> list[str]:
    return sorted({thing.label for item in items for thing in item.things})
