"""COCO files checked against a detector's config, before mmdet drops what does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eyetoy_mm.datasets import coco_masks
from eyetoy_mm.datasets.coco_boxes import (
    BOX_FORM,
    MOST,
    Boxes,
    area_findings,
    drop_findings,
    drop_reasons,
    form_findings,
    places,
    repeated_findings,
)
from eyetoy_mm.datasets.coco_format import format_findings, numbers, read_json, told_of
from eyetoy_mm.datasets.files import absent, spelt_alike, why_missing
from eyetoy_mm.datasets.findings import Finding, repeated, tell
from eyetoy_mm.datasets.outside import find_outside
from eyetoy_mm.errors import first_few
from eyetoy_mm.paths import is_address, join
from eyetoy_mm.registry import type_name

_COMPARED = 20_000  # masks that boxes are compared with, taken evenly, where only boxes are used
_SETTING = "metainfo=dict(classes=(...)) of the dataset"


def check_coco_file(path: str | Path, split: str, classes: Sequence[str], dataset: dict) -> None:
    """Check a COCO file for a dataset: log what is odd, and stop at what would make a run wrong.

    Args:
        path: The file, on a disk or at an address.
        split: What it is for, for the message.
        classes: The dataset's classes.
        dataset: The dataset's config.

    Raises:
        UserError: What is wrong, and what to do.
    """
    tell(coco_findings(path, split, classes, dataset))


def coco_findings(
    path: str | Path, split: str, classes: Sequence[str], dataset: dict, read: Callable[..., Any] = read_json
) -> list[Finding]:
    """What is wrong with a COCO file for a dataset: what mmdet drops in silence, mixes up, or fails at later.

    Args:
        path: The file, on a disk or at an address.
        split: What it is for, for the messages.
        classes: The dataset's classes.
        dataset: The dataset's config.
        read: What reads it, given its path and ``backend_args``: another one can keep what it read.

    Returns:
        The findings; each message begins with the file's path.
    """

    def findings() -> list[Finding]:
        file = read(path, dataset.get("backend_args"))
        found = format_findings(file)
        if any(finding.fatal for finding in found):
            return found
        misnamed = category_findings(file, classes)
        found += misnamed
        # With the wrong classes there would be nothing to look at; what else is wrong is then told of all.
        wrong = any(finding.fatal for finding in misnamed)
        used = [category["name"] for category in file["categories"]] if wrong else classes
        boxes = boxes_of(file, used)
        misread = form_findings(boxes)
        found += (misread or area_findings(boxes)) + repeated_findings(boxes)
        found += _without_boxes(boxes, dataset)
        found += _annotation_findings(file, boxes, dataset, compare=not misread)
        return found + list(_image_findings(file, used, dataset))

    return told_of(path, split, findings)


def evaluator_findings(
    path: str | Path,
    split: str,
    classes: Sequence[str],
    evaluator: dict,
    dataset_paths: Sequence[str | Path],
    read: Callable[..., Any] = read_json,
) -> list[Finding]:
    """What is wrong with the file that mmdet's ``CocoMetric`` scores against; its first evaluation can be hours later.

    Args:
        path: The file.
        split: Which split it is for, for the messages.
        classes: The classes of the dataset.
        evaluator: The metric's config.
        dataset_paths: The dataset's own file, which is told of by itself where it is the same; those of all datasets
            that are joined.
        read: As of :func:`coco_findings`.
    """

    def findings() -> list[Finding]:
        content = read(path, evaluator.get("backend_args"))
        same = join("", path) in [join("", one) for one in dataset_paths]
        found = format_findings(content)
        if any(finding.fatal for finding in found):
            return [] if same else found  # told for the dataset
        if not same:
            found += category_findings(content, classes)
        if not same or len(dataset_paths) > 1:
            found += _other_images(content, [_image_ids(read(one)) for one in dataset_paths])
        boxes = boxes_of(content, classes)
        misread = form_findings(boxes)
        found += [] if same else misread
        return found + list(_unlike_pycocotools(content, boxes, classes, evaluator, compare=not misread))

    return told_of(path, f"{split}, evaluator", findings)


def category_findings(content: dict[str, list[dict]], classes: Sequence[str]) -> list[Finding]:
    """Classes that are not there or would be mixed up: mmdet numbers them as the file lists its categories."""
    if isinstance(classes, str):
        message = f"has no classes: {_SETTING} is the text {classes!r}; a single class is classes=({classes!r},)"
        return [Finding("classes", message)]
    names = {category["id"]: category["name"] for category in content["categories"]}
    counts = Counter(annotation["category_id"] for annotation in content["annotations"])
    unknown = sorted(str(id_) for id_ in counts if id_ not in names)
    if unknown:
        message = f"has annotations of category_id {first_few(unknown)}, which its categories do not list; correct them"
        return [Finding("classes", message, count=sum(n for id_, n in counts.items() if id_ not in names))]
    of_name: Counter[str] = Counter()
    for id_, count in counts.items():
        of_name[names[id_]] += count
    unlisted = [f"{name!r} (annotations: {count})" for name, count in of_name.items() if name not in classes]
    absent = [name for name in classes if name not in names.values()]
    if absent:
        return [_absent(content, absent, unlisted, of_name)]
    in_file_order = [name for name in names.values() if name in classes]
    twice = sorted(name for name, count in Counter(in_file_order).items() if count > 1)
    if twice:
        return [_twice(names, counts, twice)]
    findings = []
    if unlisted:
        message = f"has annotations left out, being of no class of the config: {first_few(unlisted)}"
        findings.append(Finding("classes left out", message, fatal=False))
    if in_file_order != list(classes):
        findings.append(
            Finding(
                "classes",
                f"lists the categories as {first_few(map(repr, in_file_order))}, but the config's classes are "
                f"{first_few(map(repr, classes))}: mmdet would call them by each other's names. Use the file's "
                f"order, and each name once, in {_SETTING}",
            )
        )
    return findings


def _absent(content: dict[str, list[dict]], absent: list[str], unlisted: list[str], of_name: Counter[str]) -> Finding:
    parents = {category.get("supercategory") for category in content["categories"]}
    # Roboflow lists the project itself as a category, above the others and never used.
    names = tuple(c["name"] for c in content["categories"] if c["name"] not in parents or of_name[c["name"]])
    alike = {spelt_alike(name): name for name in names}
    spelt = [f"{name!r} is there as {alike[spelt_alike(name)]!r}" for name in absent if spelt_alike(name) in alike]
    shown = names if len(names) <= 10 else f"its {len(names)} categories in their order"
    return Finding(
        "classes",
        "does not have all classes of the config, which mmdet would pass over in silence:\n"
        f"  in classes, not in the file: {first_few(map(repr, absent))}\n"
        + (f"  spelt otherwise: {first_few(spelt)}\n" if spelt else "")
        + (f"  in the file, not in classes: {first_few(unlisted)}\n" if unlisted else "")
        + f"Set {_SETTING}, in training, validation and test, to {shown}, and num_classes={len(names)} in "
        "the model's heads, or correct the file",
    )


def _twice(names: dict[Any, str], counts: Counter, twice: list[str]) -> Finding:
    ids = [id_ for id_, name in names.items() if name == twice[0]]
    unused = [id_ for id_ in ids if not counts[id_]]
    remedy = f"Take category {unused[0]!r}, which no annotation uses, out" if unused else "Make them one, or rename one"
    return Finding(
        "classes",
        f"has several categories named {first_few(map(repr, twice))} (ids {first_few(map(str, ids))}): mmdet gives "
        f"each a label of its own, and all later classes another one than the config's. {remedy}",
    )


def boxes_of(content: dict[str, list[dict]], classes: Sequence[str]) -> Boxes:
    """The boxes of the classes, of images that are there."""
    category_ids = {category["id"] for category in content["categories"] if category["name"] in classes}
    label = {category["id"]: index for index, category in enumerate(content["categories"])}
    number = {image["id"]: index for index, image in enumerate(content["images"])}
    used = [a for a in content["annotations"] if a["category_id"] in category_ids and a["image_id"] in number]
    images = np.array([number[annotation["image_id"]] for annotation in used], int)
    sizes = np.stack([numbers([image[side] for image in content["images"]]) for side in ("width", "height")], 1)
    return Boxes(
        ids=[annotation["id"] for annotation in used],
        xywh=numbers([annotation["bbox"] for annotation in used], 4),
        sizes=sizes[images],
        images=images,
        labels=np.array([label[annotation["category_id"]] for annotation in used], int),
        areas=numbers([annotation["area"] for annotation in used]),
        crowd=np.array([bool(annotation.get("iscrowd")) for annotation in used], bool),
        ignored=np.array([bool(annotation.get("ignore")) for annotation in used], bool),
        masks=[annotation.get("segmentation") for annotation in used],
    )


def _without_boxes(boxes: Boxes, dataset: dict) -> Iterator[Finding]:
    """A file to train on that teaches but what is background; where empty images are left out, none is left."""
    learns = any(type_name(step) == "LoadAnnotations" for step in _steps(dataset)) and not dataset.get("test_mode")
    if not boxes.ids and learns and not (dataset.get("filter_cfg") or {}).get("filter_empty_gt"):
        message = "has no box of the classes: a detector learns from it what is background, and nothing else"
        yield Finding("no boxes", message, fatal=False)


def _annotation_findings(
    content: dict[str, list[dict]], boxes: Boxes, dataset: dict, compare: bool
) -> Iterator[Finding]:
    annotations = content["annotations"]
    ids = {image["id"] for image in content["images"]}
    strays = [annotation for annotation in annotations if annotation["image_id"] not in ids]
    if strays:
        yield Finding(
            "annotations of no image",
            f"has {len(strays)} of {len(annotations)} annotations whose image_id no image has, such as "
            f"{strays[0]['image_id']!r}; they would be dropped in silence. Is it the file of another split?",
            places("annotation", (annotation["id"] for annotation in strays)),
            len(strays),
            fatal=len(strays) > MOST * len(annotations),
        )
    reasons = drop_reasons(boxes)
    reasons |= _filtered(boxes, dataset)
    loader = next((step for step in _steps(dataset) if step.get("with_mask")), None)
    if loader is not None:
        kept = ~np.any(list(reasons.values()), axis=0)
        absent = kept & coco_masks.absent(boxes.masks)
        if absent.any():
            yield _without_masks(boxes, absent)
        loaded = kept & ~absent
        found, too_few = coco_masks.mask_findings(boxes.where(loaded), not loader.get("poly2mask", True), compare)
        yield from found
        reasons["without a polygon of 3 points or more"] = np.zeros(len(boxes.ids), bool)
        reasons["without a polygon of 3 points or more"][loaded] = too_few
    elif compare:
        # Masks that are not used tell what the boxes are, where they do not stand out by themselves.
        present = np.flatnonzero(~coco_masks.absent(boxes.masks))
        compared = np.zeros(len(boxes.ids), bool)
        compared[present[:: max(1, len(present) // _COMPARED)]] = True
        found, _ = coco_masks.mask_findings(boxes.where(compared), polygons_alone=False)
        yield from (finding for finding in found if finding.kind == BOX_FORM)
    yield from drop_findings(boxes, reasons)


def _without_masks(boxes: Boxes, absent: np.ndarray) -> Finding:
    count = int(absent.sum())
    return Finding(
        "masks missing",
        f"has no segmentation in annotation {boxes.ids[int(np.argmax(absent))]}"
        + (f" and {count - 1} more of {len(absent)}" if count > 1 else "")
        + ", but the pipeline loads masks. Add it, or train a detector of boxes alone, such as "
        "configs/eyetoy/retinanet_eyetoy-t_fpn_1x_coco.py",
        boxes.places(absent),
        count,
    )


def _steps(dataset: dict) -> list[dict]:
    return [step for step in dataset.get("pipeline") or () if isinstance(step, dict)]


def _filtered(boxes: Boxes, dataset: dict) -> dict[str, np.ndarray]:
    """What ``FilterAnnotations`` drops where it comes before any step that changes sizes."""
    for step in _steps(dataset):
        name = type_name(step)
        if name == "FilterAnnotations" and step.get("by_box", True):
            least = step.get("min_gt_bbox_wh", (1, 1))
            return {f"of at most {least[0]} x {least[1]} pixels (FilterAnnotations)": _at_most(boxes, least)}
        if not name.startswith("Load"):
            break
    return {}


def _at_most(boxes: Boxes, least: Sequence[float]) -> np.ndarray:
    return np.any(boxes.xywh[:, 2:] <= np.asarray(least, float), axis=1)


def _image_findings(content: dict[str, list[dict]], classes: Sequence[str], dataset: dict) -> Iterator[Finding]:
    """Images that are listed twice, left out, or not on disk."""
    images = content["images"]
    yield from _listed_twice(images)
    ids = {image["id"] for image in images}
    category_ids = {category["id"] for category in content["categories"] if category["name"] in classes}
    labelled = {a["image_id"] for a in content["annotations"] if a["category_id"] in category_ids} & ids
    rules = {} if dataset.get("test_mode") else dataset.get("filter_cfg") or {}
    large = [image for image in images if min(image["width"], image["height"]) >= rules.get("min_size", 0)]
    used = [image for image in large if image["id"] in labelled or not rules.get("filter_empty_gt")]
    if not used:
        yield Finding(
            "no image left",
            f"leaves no image: it has {len(images)}, {len(labelled)} with annotations of the classes; "
            f"filter_cfg={dict(rules)}. Check the annotations' image_id and the images' width and height",
        )
    elif len(used) < len(images):
        small, empty = len(images) - len(large), len(large) - len(used)
        reasons = [f"{small} smaller than min_size={rules.get('min_size')}"] if small else []
        reasons += [f"{empty} without annotations of the classes (filter_empty_gt)"] if empty else []
        message = f"has {len(images)} images, of which {len(used)} are used: {' and '.join(reasons)} are left out"
        yield Finding("images left out", message, count=len(images) - len(used), fatal=False)
    if outside := find_outside("", folder_of(dataset), [image["file_name"] for image in used]):
        yield outside
    yield from images_not_on_disk(used, dataset)


def _listed_twice(images: list[dict]) -> Iterator[Finding]:
    twice = {name: count for name, count in Counter(image["file_name"] for image in images).items() if count > 1}
    if twice:
        entries = sum(twice.values())
        yield Finding(
            "images listed twice",
            f"lists {len(twice)} files as several images each: the objects of one entry count as background in the "
            "other. Give them one entry, with all annotations",
            tuple(twice)[:5],
            len(twice),
            fatal=entries > MOST * len(images),
        )


def folder_of(dataset: dict) -> str:
    """Where the images of a data set of COCO's form are."""
    return join(dataset.get("data_root") or "", (dataset.get("data_prefix") or {}).get("img") or "")


def images_not_on_disk(used: list[dict], dataset: dict) -> Iterator[Finding]:
    """Images of a dataset whose files are not in its folder."""
    folder = folder_of(dataset)
    if is_address(folder):
        return
    paths = [str(Path(folder, image["file_name"])) for image in used]
    missing = absent(paths)
    if missing:
        name = used[paths.index(missing[0])]["file_name"]
        yield Finding(
            "images missing",
            f"names {len(missing)} images (of {len(paths)}) that are not on disk: {first_few(missing)}. "
            f"{why_missing(name, Path(folder), 'file_name')}"
            "Put them there, or say where they are: data_prefix=dict(img=...) of the dataset, or --data-root FOLDER",
        )


def _image_ids(content: Any) -> set | None:
    """The ids of a file's images; None if it has no such thing, which is told of elsewhere."""
    try:
        return {image["id"] for image in content["images"]}
    except (TypeError, KeyError):
        return None


def _other_images(content: dict[str, list[dict]], of_datasets: list[set | None]) -> Iterator[Finding]:
    """Images of the evaluator's file that the datasets do not have, the other way round, and ids of two images."""
    scored = {image["id"] for image in content["images"]}
    known = [ids for ids in of_datasets if ids is not None]
    if len(known) < len(of_datasets):
        return
    predicted = set().union(*known)
    if twice := repeated(id_ for ids in known for id_ in ids):
        yield Finding(
            "ids",
            f"scores images by ids that several of the joined datasets have, such as {twice[0]!r}: detections in one "
            "image would count in another. Give each image an id of its own, in one file of all to score against",
            count=len(twice),
        )
    if predicted - scored:
        yield Finding(
            "evaluator's images",
            f"lacks {len(predicted - scored)} of {len(predicted)} images of the dataset, at which the first evaluation "
            "fails. Set ann_file of the evaluator to the dataset's",
            places("image", sorted(map(str, predicted - scored))),
            len(predicted - scored),
        )
    elif scored - predicted:
        yield Finding(
            "evaluator's images",
            f"has {len(scored - predicted)} of {len(scored)} images that the dataset does not have: all their objects "
            "would count as missed. Set ann_file of the evaluator to the dataset's",
            places("image", sorted(map(str, scored - predicted))),
            len(scored - predicted),
        )


def _unlike_pycocotools(
    content: dict[str, list[dict]], boxes: Boxes, classes: Sequence[str], evaluator: dict, compare: bool
) -> Iterator[Finding]:
    """What mmdet's datasets take and pycocotools' evaluation fails at."""
    if evaluator.get("format_only"):
        return  # nothing is scored
    category_ids = {category["id"] for category in content["categories"] if category["name"] in classes}
    used = [annotation for annotation in content["annotations"] if annotation["category_id"] in category_ids]
    if not used and not any(finding.fatal for finding in category_findings(content, classes)):
        message = (
            "has no annotation of the classes: every average precision would be -1. Use a file with annotations, or "
            "CocoMetric(format_only=True, outfile_prefix=...) to write the detections alone"
        )
        yield Finding("nothing to score", message)
    crowdless = [annotation["id"] for annotation in used if "iscrowd" not in annotation]
    if crowdless:
        yield Finding(
            "iscrowd missing",
            f"has no iscrowd in {len(crowdless)} of {len(used)} annotations: training does without, the first "
            'evaluation fails. Add "iscrowd": 0 to each',
            places("annotation", crowdless),
            len(crowdless),
        )
    words = [a["id"] for a in used if isinstance(a["id"], str) and not a["id"].strip().lstrip("+-").isdecimal()]
    if words:
        message = f"has annotations whose id is text ({words[0]!r}), at which the first evaluation fails. Number them"
        yield Finding("ids", message, places("annotation", words), len(words))
    if any(annotation["id"] in (0, "0") for annotation in used):
        message = (
            "has an annotation of id 0, which pycocotools takes for none: its object counts as missed. Count from 1"
        )
        yield Finding("annotation id 0", message, ("annotation 0",), fatal=False)
    metrics = evaluator.get("metric") or "bbox"
    if "segm" in ([metrics] if isinstance(metrics, str) else metrics):
        yield from _masks_for_evaluation(boxes, compare)


def _masks_for_evaluation(boxes: Boxes, compare: bool) -> Iterator[Finding]:
    absent = coco_masks.absent(boxes.masks)
    if absent.any():
        yield Finding(
            "masks missing",
            f"has no segmentation in {int(absent.sum())} of {len(absent)} annotations, at which the first evaluation "
            "of 'segm' fails. Add it, or evaluate metric='bbox' alone",
            boxes.places(absent),
            int(absent.sum()),
        )
    boxes = boxes.where(~absent)
    found, _ = coco_masks.mask_findings(boxes, polygons_alone=False, compare=compare)
    yield from found
    breaking = coco_masks.breaks_evaluation(boxes.masks)
    if breaking.any() and not any(finding.kind == "masks" for finding in found):
        yield Finding(
            "masks",
            f"has {int(breaking.sum())} of {len(breaking)} masks whose first polygon has fewer than 3 points, at which "
            "the first evaluation of 'segm' fails. Correct them, or take the annotations out",
            boxes.places(breaking),
            int(breaking.sum()),
        )
