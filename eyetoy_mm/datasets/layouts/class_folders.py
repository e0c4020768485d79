"""A folder of images for each class, with or without folders of the parts above."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from pathlib import PurePosixPath

from eyetoy_mm.datasets.layouts.common import Found, Item, Tree, split_of
from eyetoy_mm.errors import UserError, first_few

# Folders of these names hold one side of pairs, or everything: they are no classes.
_NO_CLASSES = {
    "images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "masks", "mask", "labels", "label",
    "annotations", "annotation", "segmentation", "segmentationclass", "segmentationobject", "gt", "ground_truth",
    "inputs", "targets", "input", "target", "data", "obj_train_data",
}  # fmt: skip


def signs(tree: Tree) -> str:
    """What speaks for it: every image lies in a folder that can be a class, and no two folders hold the same names."""
    found = tree.once(_classes)
    if found is None or len(found) < 2:
        return ""
    names = [{PurePosixPath(image).stem for image in images} for images in found.values()]
    pairs = pairwise(names)
    if any(len(first & second) > 0.5 * min(len(first), len(second)) > 1 for first, second in pairs):
        return ""  # one file of each name in either: images and masks, most likely
    return first_few(f"{name}/" for name in found)


def _classes(tree: Tree) -> dict[str, list[str]] | None:
    """The images of each folder that can be a class; None where some image is in none."""
    found: dict[str, list[str]] = defaultdict(list)
    for image in tree.images:
        folders = [part for part in PurePosixPath(image).parts[:-1] if not _is_part(part)]
        if not folders or folders[0].lower() in _NO_CLASSES:
            return None
        found[folders[0]].append(image)
    return dict(found)


def _is_part(folder: str) -> bool:
    return bool(split_of(folder)) and folder.lower().strip("0123456789_-") == folder.lower().rstrip("0123456789_-")


def read(tree: Tree, classes: list[str]) -> Found:
    """Read it.

    Raises:
        UserError: Classes are asked for that are not there.
    """
    found = tree.once(_classes)
    if found is None:
        raise UserError(f"{tree.folder}: not every image is in a folder of its class; {tree.described()}")
    names = classes or sorted(found)
    if unknown := sorted(set(found) ^ set(names)):
        raise UserError(f"--classes and the folders of {tree.folder} differ: {first_few(unknown)}")
    items = [Item(image, _part_of(image), label=name) for name in names for image in found[name]]
    result = Found(tree.folder, "class-folders", names, items, names_from="--classes" if classes else "the folders")
    above: dict[str, set[str]] = defaultdict(set)  # of each part, the folders that its folders of classes are in
    for item in items:
        parts = PurePosixPath(item.image).parts
        above[item.split].add("/".join(parts[: parts.index(item.label)]))
    folders = [folder for those in above.values() for folder in those]
    if len(set(folders)) == len(folders) == len(above):  # else parts share a folder, or have several
        result.prefixes = {split: tuple(those) for split, those in above.items()}
    return result


def _part_of(image: str) -> str:
    return next((split_of(part) for part in PurePosixPath(image).parts[:-1] if _is_part(part)), "")
