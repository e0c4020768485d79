"""A folder of images for each class, with or without folders of the parts above."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from pathlib import Path, PurePosixPath

from PIL import Image

from eyetoy_mm.compat.image_sizes import ImageTooLargeError, check_size
from eyetoy_mm.datasets.files import check_is_file
from eyetoy_mm.datasets.layouts.common import Found, Item, Tree, split_of
from eyetoy_mm.errors import UserError, first_few

# Folders of these names hold one side of pairs, or everything: they are no classes.
_NO_CLASSES = {
    "images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "masks", "mask", "labels", "label",
    "annotations", "annotation", "segmentation", "segmentationclass", "segmentationobject", "gt", "ground_truth",
    "inputs", "targets", "input", "target", "data", "obj_train_data",
}  # fmt: skip
_OPENED = 5  # images of a folder, to see whether they are masks
_MASK_COLOURS = 64


def signs(tree: Tree) -> str:
    """What speaks for it: every image lies in a folder that can be a class, and no two hold images and their masks."""
    found = tree.once(_classes)
    if found is None or len(found) < 2:
        return ""
    if any(_are_pairs(tree, first, second) for first, second in pairwise(map(_by_stem, found.values()))):
        return ""
    return first_few(f"{name}/" for name in found)


def hint(tree: Tree) -> str:
    """What would make it one, where every image is in the same folder."""
    found = tree.once(_classes) or {}
    if len(found) != 1 or len(tree.files) > len(tree.images):
        return ""
    return f"All images are of one class, {next(iter(found))}: a classifier tells two or more apart. "


def _by_stem(images: list[str]) -> dict[str, str]:
    return {PurePosixPath(image).stem: image for image in images}


def _share_names(first: dict[str, str], second: dict[str, str]) -> bool:
    return len(first.keys() & second.keys()) > 0.5 * min(len(first), len(second)) > 1


def _are_pairs(tree: Tree, first: dict[str, str], second: dict[str, str]) -> bool:
    """Whether two folders of many equal names have images and their masks, and not numbered images of two classes."""
    if not _share_names(first, second):
        return False
    shared = sorted(first.keys() & second.keys())
    some = shared[:: max(1, len(shared) // _OPENED)][:_OPENED]
    masks = [sum(_has_few_colours(tree.path(names[name])) for name in some) for names in (first, second)]
    return max(masks) > len(some) / 2


def _has_few_colours(path: Path) -> bool:
    """Whether an image can be a mask. One that cannot be read is told of later."""
    try:
        check_is_file(path)
        check_size(path, path.stat().st_size)
        with Image.open(path) as image:
            return image.getcolors(_MASK_COLOURS) is not None
    except (OSError, SyntaxError, ValueError, ImageTooLargeError):
        return False


def _classes(tree: Tree) -> dict[str, list[str]] | None:
    """The images of each folder that can be a class; None where some image is in none."""
    folders = {image: [part for part in PurePosixPath(image).parts[:-1] if not _is_part(part)] for image in tree.images}
    while all(len(parts) > 1 for parts in folders.values()) and len({parts[0] for parts in folders.values()}) == 1:
        folders = {image: parts[1:] for image, parts in folders.items()}  # one that holds all of them is no class
    found: dict[str, list[str]] = defaultdict(list)
    for image, parts in folders.items():
        if not parts or parts[0].lower() in _NO_CLASSES:
            return None
        found[parts[0]].append(image)
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
    if any(_share_names(_by_stem(found[first]), _by_stem(found[second])) for first, second in pairwise(sorted(found))):
        result.decided.append("folders with files of the same names are classes: none of them has masks of another")
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
