"""COCO files checked against a detector's config, before mmdet drops what does not fit."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmengine import fileio
from mmengine.logging import print_log

from eyetoy_mm.datasets.outside import log_outside
from eyetoy_mm.errors import UserError, first_few
from eyetoy_mm.paths import is_address, join


def check_coco_file(path: str | Path, split: str, classes: Sequence[str], dataset: dict) -> None:
    """Check that a COCO file has the classes of a dataset, and its images and masks.

    mmdet drops annotations of classes that it does not know without a word, and fails without naming the file if
    nothing is left. Annotations of other categories than the config's are logged: leaving some out is a way to use it.

    Args:
        path: The file, on a disk or at an address.
        split: What it is for, for the message.
        classes: The dataset's classes.
        dataset: The dataset's config.

    Raises:
        UserError: What is wrong, and what to do.
    """
    try:
        content = _read_coco(path, dataset.get("backend_args"))
        _check_categories(path, content, classes)
        _check_images(path, content, classes, dataset)
    except ValueError as error:
        raise UserError(f"{path} ({split}) {error}") from error


def _read_coco(path: str | Path, backend_args: dict | None = None) -> dict[str, list[dict]]:
    """Read a COCO file; ValueError if it is none."""
    try:
        content = json.loads(fileio.get(path, backend_args))
    except (ValueError, RecursionError) as error:  # no JSON, no text, or lists in lists in lists
        raise ValueError(f"is not JSON: {error}. Is the file complete? Download or write it again") from error
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from error
    except (ImportError, KeyError) as error:  # no such client installed, or none of this scheme
        raise ValueError(f"cannot be read: mmengine has no file client for it ({error})") from error
    fields = dict(
        images=("id", "file_name", "width", "height"),
        annotations=("id", "image_id", "category_id", "bbox", "area"),
        categories=("id", "name"),
    )
    if isinstance(content, dict):
        content.setdefault("annotations", [])  # lists of test images have none
    for key, names in fields.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise ValueError(f"is not in COCO's format: it has no list {key!r}, next to {first_few(fields, 3)}")
        for index, entry in enumerate(entries):
            lacking = [name for name in names if not isinstance(entry, dict) or name not in entry]
            if lacking:
                raise ValueError(f"is not in COCO's format: {key}[{index}] has no {first_few(lacking)}; add it")
        repeated = [str(id_) for id_, count in Counter(entry["id"] for entry in entries).items() if count > 1]
        if repeated:
            raise ValueError(f"has several {key} of the same id ({first_few(repeated)}); give each an id of its own")
    return content


def _check_categories(path: str | Path, content: dict[str, list[dict]], classes: Sequence[str]) -> None:
    """ValueError if classes are not there or would be mixed up: mmdet numbers them as the file lists its categories."""
    setting = "metainfo=dict(classes=(...)) of the dataset"
    if isinstance(classes, str):
        raise ValueError(f"has no classes: {setting} is the text {classes!r}; a single class is classes=({classes!r},)")
    names = {category["id"]: category["name"] for category in content["categories"]}
    unknown = {str(a["category_id"]) for a in content["annotations"]} - set(map(str, names))
    if unknown:
        raise ValueError(
            f"has annotations of category_id {first_few(sorted(unknown))}, which its categories do not list; "
            "correct them"
        )
    counts = Counter(names[a["category_id"]] for a in content["annotations"])
    unlisted = [f"{name!r} (annotations: {count})" for name, count in counts.items() if name not in classes]
    absent = [repr(name) for name in classes if name not in names.values()]
    if absent:
        category_names = tuple(names.values()) if len(names) <= 10 else f"its {len(names)} categories in their order"
        raise ValueError(
            "does not have all classes of the config, which mmdet would pass over in silence:\n"
            f"  in classes, not in the file: {first_few(absent)}\n"
            + (f"  in the file, not in classes: {first_few(unlisted)}\n" if unlisted else "")
            + f"Set {setting}, in training, validation and test, to {category_names}, and num_classes={len(names)} in "
            "the model's heads, or correct the file"
        )
    if unlisted:
        left_out = f"{path}: left out, being of no class of the config: {first_few(unlisted)}"
        print_log(left_out, "current", logging.WARNING)
    in_file_order = [name for name in names.values() if name in classes]
    if in_file_order != list(classes):
        raise ValueError(
            f"lists the categories as {first_few(map(repr, in_file_order))}, but the config's classes are "
            f"{first_few(map(repr, classes))}: mmdet would call them by each other's names. Use the file's order, "
            f"and each name once, in {setting}"
        )


def _check_images(path: str | Path, content: dict[str, list[dict]], classes: Sequence[str], dataset: dict) -> None:
    """ValueError if images are not on disk, if none is left to train on, or if masks are asked for and not there."""
    images, labelled = content["images"], set()
    category_ids = {category["id"] for category in content["categories"] if category["name"] in classes}
    with_mask = any(step.get("with_mask") for step in dataset.get("pipeline") or ())
    for annotation in content["annotations"]:
        if annotation["category_id"] in category_ids:
            labelled.add(annotation["image_id"])
            if with_mask and not annotation.get("segmentation"):
                raise ValueError(
                    f"has no segmentation in annotation {annotation['id']}, but the pipeline loads masks. Add it, or "
                    "train a detector of boxes alone, such as configs/eyetoy/retinanet_eyetoy-t_fpn_1x_coco.py"
                )
    labelled &= {image["id"] for image in images}
    rules = {} if dataset.get("test_mode") else dataset.get("filter_cfg") or {}
    used = [
        image
        for image in images
        if min(image["width"], image["height"]) >= rules.get("min_size", 0)
        and (image["id"] in labelled or not rules.get("filter_empty_gt"))
    ]
    if not used:
        raise ValueError(
            f"leaves no image: it has {len(images)}, {len(labelled)} with annotations of the classes; "
            f"filter_cfg={dict(rules)}. Check the annotations' image_id and the images' width and height"
        )
    folder = join(dataset.get("data_root") or "", (dataset.get("data_prefix") or {}).get("img") or "")
    if is_address(folder):
        return
    log_outside(path, folder, (image["file_name"] for image in used))
    paths = [Path(folder, image["file_name"]) for image in used]
    # Whole folders at a time: asking for each image takes minutes on network disks.
    present = {path for parent in {path.parent for path in paths} if parent.is_dir() for path in parent.iterdir()}
    missing = [str(path) for path in paths if path not in present]
    if missing:
        raise ValueError(
            f"names {len(missing)} images (of {len(paths)}) that are not on disk: {first_few(missing)}. Put them "
            "there, or say where they are: data_prefix=dict(img=...) of the dataset, or --data-root DIR"
        )
