"""Other people's formats: what a folder of images and annotations is, and what it says.

A format is a file, with ``signs(tree)``, what speaks for it in a folder (nothing where it is none), and ``read(tree,
classes)``. Polygons stay polygons: the libraries that convert paint them and outline what was painted (supervision), or
keep boxes alone (globox).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from eyetoy_mm.datasets.layouts import class_folders, coco, labelme, mask_files, xml_files, yolo
from eyetoy_mm.datasets.layouts.common import OURS, Found, Item, Thing, Tree
from eyetoy_mm.datasets.splits import told_of_others
from eyetoy_mm.errors import UserError, first_few

__all__ = ["FORMATS", "OURS", "Found", "Item", "Thing", "Tree", "look_at"]

Signs = Callable[[Tree], str]
Read = Callable[[Tree, list[str]], Found]
FORMATS: dict[str, tuple[Signs, Read]] = {
    "coco": (coco.signs, coco.read),
    "yolo": (yolo.signs, yolo.read),
    "voc": (xml_files.voc_signs, xml_files.read_voc),
    "cvat": (xml_files.cvat_signs, xml_files.read_cvat),
    "labelme": (labelme.signs, labelme.read),
    "masks": (mask_files.signs, mask_files.read),
    "class-folders": (class_folders.signs, class_folders.read),
}


def look_at(folder: Path, format: str | None = None, classes: list[str] | None = None) -> Found:
    """Find out what a folder holds.

    Args:
        folder: The folder.
        format: One of :data:`FORMATS`; None to find it.
        classes: Names of the classes in the order of their labels, where the folder does not say them.

    Raises:
        UserError: It is of no format, or of several, or has objects of other classes; the message has what was seen.
    """
    tree = Tree(folder)
    try:
        found = _read(tree, format, classes or [])
    except UserError as error:
        if not tree.others:
            raise
        raise UserError(f"{error}\nBesides there: {told_of_others(tree.others)}") from error
    used = {item.image for item in found.items}
    if others := [name for name in tree.others if name not in used]:
        found.decided.append(f"left out: {told_of_others(others)}")
    if unknown := sorted({thing.label for item in found.items for thing in item.things} - set(found.classes)):
        raise UserError(
            f"objects in {folder} are of {first_few(map(repr, unknown))}, which is none of the classes from "
            f"{found.names_from}: {first_few(found.classes, 20)}"
        )
    return found


def _read(tree: Tree, format: str | None, classes: list[str]) -> Found:
    if format is None:
        format = _format_of(tree)
    elif not FORMATS[format][0](tree):
        raise UserError(f"{tree.folder} has nothing of the format {format}; it has {tree.described()}")
    return FORMATS[format][1](tree, classes)


def _format_of(tree: Tree) -> str:
    seen = {name: sign for name, (signs, _) in FORMATS.items() if name != "class-folders" and (sign := signs(tree))}
    if not seen and (sign := class_folders.signs(tree)):  # what has annotations is not read by its folders
        seen = {"class-folders": sign}
    if len(seen) == 1:
        return next(iter(seen))
    if seen:
        listed = "\n".join(f"  --data-format {name}: {sign}" for name, sign in seen.items())
        raise UserError(f"{tree.folder} holds annotations of several formats; say which is meant:\n{listed}")
    advice = mask_files.hint(tree) or class_folders.hint(tree) or _advice(tree)
    raise UserError(
        f"{tree.folder} is of no format that is known ({', '.join(FORMATS)}). It has {tree.described()}. {advice}"
        "`eyetoy init --help` and docs/your-data.md show what each looks like"
    )


def _advice(tree: Tree) -> str:
    if len(tree.images) == len(tree.files):
        return (
            "Nothing says what is in these images: label them (labelme, CVAT and Roboflow write what is read here), or "
            "put them into a folder for each class. "
        )
    if tables := tree.ending(".csv", ".tsv", ".xlsx"):
        return (
            f"{tables[0]} is a table, which is not read: export the annotations as COCO, YOLO or Pascal VOC, or put "
            "the images into a folder for each class. "
        )
    return ""
