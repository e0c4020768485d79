"""What is made of a folder, beside the files in it: COCO files, masks of labels, lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

from eyetoy_mm.datasets.layouts.common import Found, Item, Thing
from eyetoy_mm.datasets.layouts.mask_files import IGNORED, read_mask
from eyetoy_mm.datasets.splits import check_lines
from eyetoy_mm.errors import UserError, first_few


def write_coco(found: Found, split: str, target: Path) -> None:
    """Write the objects of a part as COCO has them; paths of images are those from the folder.

    Raises:
        UserError: It cannot be written.
    """
    ids = {name: number for number, name in enumerate(found.classes, start=1)}
    images: list[dict] = []
    annotations: list[dict] = []
    for number, item in enumerate(found.of(split), start=1):
        width, height = item.size or (0, 0)
        images.append(dict(id=number, file_name=item.image, width=width, height=height))
        for thing in item.things:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=ids[thing.label],
                    **_annotation(thing, width, height),
                )
            )
    categories = [dict(id=number, name=name) for name, number in ids.items()]
    _write(target, json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def _annotation(thing: Thing, width: int, height: int) -> dict:
    """Box, area and mask of an object."""
    box = [round(float(number), 2) for number in thing.box]
    area = box[2] * box[3]
    mask: dict[str, Any] = {}
    if isinstance(thing.outline, list) and width and height:
        parts = run_lengths.frPyObjects(thing.outline, height, width)
        area = float(run_lengths.area(run_lengths.merge(parts)))
        mask = dict(segmentation=thing.outline)
    elif thing.outline is not None:
        mask = dict(segmentation=thing.outline)
        if isinstance(thing.outline, dict) and not isinstance(thing.outline["counts"], list):
            area = float(run_lengths.area(thing.outline))
    return dict(bbox=box, area=area, iscrowd=int(thing.crowd), **mask)


def write_masks(found: Found, folder: Path) -> None:
    """Write masks of labels from 0 on, 255 for what is ignored, each under its image's path and ``.png``.

    Raises:
        UserError: A mask cannot be read or written, or holds what no other did.
    """
    for item in found.items:
        target = folder / f"{item.image}.png"
        labels = _labels(found, item)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels).save(target)
        except OSError as error:
            raise UserError(f"cannot write {target}: {error}; choose another folder: --out FOLDER") from error


def _labels(found: Found, item: Item) -> np.ndarray:
    path = found.folder / item.mask
    image = read_mask(path)
    several = found.colours is not None or len(image.getbands()) > 1
    pixels = np.asarray(image.convert("RGB") if several else image).astype(np.int64)
    if found.colours is not None:
        pixels = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
        table = {red << 16 | green << 8 | blue: label for (red, green, blue), label in found.colours.items()}
    else:
        pixels = pixels[..., 0] if pixels.ndim > 2 else pixels
        table = dict(found.values or {})
    numbers, places = np.unique(pixels, return_inverse=True)
    if unknown := [str(number) for number in numbers.tolist() if number not in table]:
        raise UserError(f"{path} holds {first_few(unknown)}, which the masks that were opened first did not")
    return np.array([table[number] for number in numbers.tolist()], np.uint8)[places].reshape(pixels.shape)


def write_names(found: Found, split: str, target: Path, prefix: str, suffix: str) -> None:
    """Write the names of a part's images, a line each, without a folder before and a suffix behind.

    Raises:
        UserError: It cannot be written, or a name cannot stand in a line.
    """
    names = [item.image.removeprefix(f"{prefix}/" if prefix else "") for item in found.of(split)]
    _write_lines(target, [name.removesuffix(suffix) for name in names])


def write_labels(found: Found, split: str, target: Path) -> None:
    """Write the images of a part and the label of each, a line each, as mmpretrain reads them.

    Raises:
        UserError: It cannot be written, or a name cannot stand in a line.
    """
    labels = {name: label for label, name in enumerate(found.classes)}
    _write_lines(target, [f"{item.image} {labels[item.label]}" for item in found.of(split)])


def _write_lines(target: Path, lines: list[str]) -> None:
    check_lines(lines)
    _write(target, "".join(f"{line}\n" for line in lines))


def _write(target: Path, text: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {target}: {error}; choose another folder: --out FOLDER") from error


def needs_masks(found: Found) -> bool:
    """Whether mmseg could not read the masks as they are."""
    identity = all(number == label for number, label in (found.values or {}).items())
    readable = found.colours is None and not found.in_channels and found.suffixes is not None
    return not (readable and (identity or zero_is_ignored(found)))


def zero_is_ignored(found: Found) -> bool:
    """Whether the masks count from 1, and 0 is ignored."""
    values = found.values or {}
    rest = {number: label for number, label in values.items() if number not in (0, IGNORED)}
    return values.get(0) == IGNORED and all(label == number - 1 for number, label in rest.items())
