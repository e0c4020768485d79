"""Panoptic COCO files checked against a config: segments of known categories, and the PNGs that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from eyetoy_mm.datasets.coco_boxes import drop_findings, drop_reasons, form_findings, places
from eyetoy_mm.datasets.coco_files import boxes_of, category_findings, folder_of, images_not_on_disk
from eyetoy_mm.datasets.coco_format import (
    fields_findings,
    id_findings,
    lacking_findings,
    read_json,
    told_of,
    value_findings,
)
from eyetoy_mm.datasets.coco_masks import iou
from eyetoy_mm.datasets.files import absent
from eyetoy_mm.datasets.findings import Finding, repeated
from eyetoy_mm.datasets.image_files import examine_file
from eyetoy_mm.datasets.outside import find_outside
from eyetoy_mm.datasets.spread import spread
from eyetoy_mm.errors import first_few
from eyetoy_mm.paths import is_address, join

FIELDS = dict(
    images=("id", "file_name", "width", "height"),
    annotations=("image_id", "segments_info"),
    categories=("id", "name", "isthing"),
)
_OPENED = 20  # PNGs looked into
_SEGMENT_FIELDS = ("id", "category_id", "bbox", "area")


def panoptic_findings(
    path: str | Path, split: str, classes: Sequence[str], dataset: dict, read: Callable[..., Any] = read_json
) -> list[Finding]:
    """What is wrong with a panoptic COCO file for mmdet's ``CocoPanopticDataset``.

    Args:
        path: The file, on a disk or at an address.
        split: What it is for, for the messages.
        classes: The dataset's classes, things and stuff.
        dataset: The dataset's config.
        read: As of :func:`~eyetoy_mm.datasets.coco_files.coco_findings`.

    Returns:
        The findings; each message begins with the file's path.
    """

    def findings() -> list[Finding]:
        file = read(path, dataset.get("backend_args"))
        found = list(fields_findings(file, FIELDS)) or list(_segment_findings(file["annotations"]))
        if found:
            return found
        segments = segments_of(file)
        found = value_findings(segments) + id_findings(segments) or [*_ids_of_several(file)]
        if found:
            return found
        boxes = boxes_of(segments, classes)
        # Segments are looked up by their number in the PNG: what lies beyond the image is not dropped.
        reasons = {why: lost for why, lost in drop_reasons(boxes).items() if "area" in why or "pixel" in why}
        found = [*_class_findings(segments, classes), *_thing_findings(segments, classes, dataset)]
        found += [*form_findings(boxes), *drop_findings(boxes, reasons)]
        return [*found, *_files(file, dataset)]

    return told_of(path, split, findings)


def panoptic_evaluator_findings(
    path: str | Path, split: str, evaluator: dict, read: Callable[..., Any] = read_json
) -> list[Finding]:
    """What is wrong with the file that ``CocoPanopticMetric`` scores against, and right for its dataset.

    Args:
        path: The file.
        split: Which split it is for, for the messages.
        evaluator: The metric's config.
        read: What reads it.
    """

    def findings() -> list[Finding]:
        content = read(path, evaluator.get("backend_args"))
        try:
            segments = [segment for one in content["annotations"] for segment in one["segments_info"]]
            crowdless = [segment["id"] for segment in segments if "iscrowd" not in segment]
        except (TypeError, KeyError):  # told of for the dataset
            return []
        if not crowdless or evaluator.get("format_only"):
            return []
        message = f"has no iscrowd in {len(crowdless)} of {len(segments)} segments, at which the first evaluation fails"
        return [
            Finding(
                "iscrowd missing",
                f'{message}. Add "iscrowd": 0 to each',
                places("segment", crowdless),
                len(crowdless),
            )
        ]

    return told_of(path, f"{split}, evaluator", findings)


def _ids_of_several(content: dict[str, list[dict]]) -> Iterator[Finding]:
    """Images with several segments of one id, which all get its pixels."""
    wrong = [one for one in content["annotations"] if repeated(segment["id"] for segment in one["segments_info"])]
    if wrong:
        message = f"has {len(wrong)} images with several segments of one id, all of which would have the same pixels"
        yield Finding("ids", message, places("image", (one["image_id"] for one in wrong)), len(wrong))


def segments_of(content: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """The content with an annotation for each segment, as files of instances have them."""
    segments = [
        dict(segment, image_id=annotation["image_id"])
        for annotation in content["annotations"]
        for segment in annotation["segments_info"]
    ]
    return dict(images=content["images"], categories=content["categories"], annotations=segments)


def _segment_findings(annotations: list[dict]) -> Iterator[Finding]:
    for index, annotation in enumerate(annotations):
        segments = annotation["segments_info"]
        name = f"annotations[{index}].segments_info"
        if not isinstance(segments, list):
            yield Finding("COCO format", f"is not in COCO's panoptic format: {name} is no list of segments")
            return
        found = list(lacking_findings(name, segments, _SEGMENT_FIELDS))
        if found:
            yield from found
            return


def _class_findings(segments: dict[str, list[dict]], classes: Sequence[str]) -> Iterator[Finding]:
    """Unlike its sibling for instances, mmdet's panoptic dataset fails at segments of no class of the config."""
    for finding in category_findings(segments, classes):
        remedy = ", at which mmdet fails: it cannot leave segments out. Add the classes, or take the segments out"
        left_out = finding.kind == "classes left out"
        yield Finding(finding.kind, finding.message + remedy) if left_out else finding


def _thing_findings(segments: dict[str, list[dict]], classes: Sequence[str], dataset: dict) -> Iterator[Finding]:
    """Things behind stuff, or that the metric takes for stuff: training has them from the file, it from the config."""
    is_thing = {category["name"]: bool(category["isthing"]) for category in segments["categories"]}
    known = [name for name in classes if name in is_thing]
    late = [name for first, name in pairwise(known) if is_thing[name] and not is_thing[first]]
    if late:
        message = (
            f"has {late[0]!r} as a thing (isthing=1), behind stuff in the classes: mmdet's heads take the first labels "
            "for things. List all things first, in the file and in classes, or correct isthing"
        )
        yield Finding("things and stuff", message)
    named = (dataset.get("metainfo") or {}).get("thing_classes")
    things = [name for name in known if is_thing[name]]
    if named is not None and [name for name in known if name in named] != things:
        shown = f"{tuple(things)}" if len(things) <= 10 else f"the {len(things)} of isthing=1"
        message = (
            f"has {len(things)} things among the classes (isthing=1), and thing_classes of the dataset's metainfo "
            "others, by which the metric tells things from stuff. Set metainfo=dict(classes=..., thing_classes=..., "
            f"stuff_classes=...), with thing_classes={shown}"
        )
        yield Finding("things and stuff", message)


def _files(content: dict[str, list[dict]], dataset: dict) -> Iterator[Finding]:
    """Photos and PNGs that are not there, and photos without annotation."""
    images = content["images"]
    annotated = Counter(annotation["image_id"] for annotation in content["annotations"])
    bare = [image["id"] for image in images if image["id"] not in annotated]
    if bare:
        yield Finding(
            "images without segments",
            f"has {len(bare)} of {len(images)} images without an annotation; filter_empty_gt leaves them out",
            places("image", bare),
            len(bare),
            fatal=len(bare) == len(images),
        )
    if outside := find_outside("", folder_of(dataset), [image["file_name"] for image in images]):
        yield outside
    yield from images_not_on_disk(images, dataset)
    folder = join(dataset.get("data_root") or "", (dataset.get("data_prefix") or {}).get("seg") or "")
    if not (dataset.get("data_prefix") or {}).get("seg") or is_address(folder):
        return
    names = [image["file_name"].replace(".jpg", ".png") for image in images if image["id"] in annotated]
    missing = absent([Path(folder, name) for name in names])
    if missing:
        yield Finding(
            "segment maps missing",
            f"needs {len(missing)} PNGs of segments (of {len(names)}) that are not on disk: {first_few(missing)}. "
            "mmdet looks for the photo's name with .png for .jpg, in data_prefix=dict(seg=...) of the dataset",
        )
        return
    yield from _png_findings(content, Path(folder))


def _png_findings(content: dict[str, list[dict]], folder: Path) -> Iterator[Finding]:
    """PNGs, some of them, that do not hold the segments that the file lists for them."""
    images = {image["id"]: image for image in content["images"]}
    listed = [annotation for annotation in content["annotations"] if annotation["image_id"] in images]
    unlike: dict[str, list[str]] = {}
    chosen = [listed[index] for index in spread(len(listed), _OPENED)]
    for annotation in chosen:
        image = images[annotation["image_id"]]
        path = str(folder / image["file_name"].replace(".jpg", ".png"))
        fault = _png_fault(path, annotation["segments_info"], image)
        if fault:
            unlike.setdefault(fault, []).append(path)
    for fault, paths in unlike.items():
        message = f"has {len(paths)} (of {len(chosen)} looked at) PNGs of segments that {fault}"
        yield Finding("segment maps", message, tuple(paths[:5]), len(paths))


def _png_fault(path: str, segments: list[dict], image: dict) -> str | None:
    """What is wrong with a PNG for these segments."""
    ids = {segment["id"] for segment in segments}
    report, pixels = examine_file(path, "color", "cv2")
    if pixels is None:
        return f"cannot be loaded: {report.faults[0].message}"
    if pixels.shape[:2] != (image["height"], image["width"]):
        return "are of another size than the image; make them anew, without resizing"
    blue, green, red = pixels.reshape(-1, 3).T.astype(int)
    held = red + 256 * green + 65536 * blue
    if ids <= set(np.unique(held).tolist()):
        held = held.reshape(pixels.shape[:2])
        astray = [segment["id"] for segment in segments if _is_elsewhere(segment["bbox"], held == segment["id"])]
        return f"have segments elsewhere than their bbox, such as {astray[0]}" if astray else None
    if ids <= set(np.unique(blue + 256 * green + 65536 * red).tolist()):
        return "have red and blue the other way round, so that no segment is found; save them as RGB"
    if report.header is not None and report.header.mode in ("L", "P", "I;16", "I"):
        return "are of one channel, where COCO's number a segment by R + 256 G + 65536 B; save them so"
    return "lack segments which the file lists by id (R + 256 G + 65536 B): their masks would be empty"


def _is_elsewhere(bbox: Sequence[float], pixels: np.ndarray) -> bool:
    """Whether a box x, y, width, height is not that of these pixels (H, W), by more than rounding."""
    rows, columns = (np.flatnonzero(pixels.any(axis)) for axis in (1, 0))
    corners = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
    x, y, width, height = bbox
    box = np.array([x, y, x + width, y + height], float)
    return bool(np.abs(box - corners).max() > 3) and float(iou(box[None], corners[None])[0]) < 0.5
