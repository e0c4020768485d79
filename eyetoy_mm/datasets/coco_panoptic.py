"""Panoptic COCO files checked against a config: segments of known categories, and the PNGs that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from eyetoy_mm.datasets.coco_boxes import drop_findings, drop_reasons, form_findings, places
from eyetoy_mm.datasets.coco_files import boxes_of, category_findings, images_not_on_disk
from eyetoy_mm.datasets.coco_format import (
    fields_findings,
    id_findings,
    lacking_findings,
    read_json,
    told_of,
    value_findings,
)
from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.errors import first_few
from eyetoy_mm.paths import is_address, join

FIELDS = dict(
    images=("id", "file_name", "width", "height"),
    annotations=("image_id", "segments_info"),
    categories=("id", "name", "isthing"),
)
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
        found = value_findings(segments) + id_findings(segments)
        if found:
            return found
        boxes = boxes_of(segments, classes)
        # Segments are looked up by their number in the PNG: what lies beyond the image is not dropped.
        reasons = {why: lost for why, lost in drop_reasons(boxes).items() if "area" in why or "pixel" in why}
        found = [*_class_findings(segments, classes), *form_findings(boxes), *drop_findings(boxes, reasons)]
        return [*found, *_files(file, dataset)]

    return told_of(path, split, findings)


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
    yield from images_not_on_disk(images, dataset)
    folder = join(dataset.get("data_root") or "", (dataset.get("data_prefix") or {}).get("seg") or "")
    if not (dataset.get("data_prefix") or {}).get("seg") or is_address(folder):
        return
    names = [image["file_name"].replace(".jpg", ".png") for image in images if image["id"] in annotated]
    present = {path.name for path in Path(folder).iterdir()} if Path(folder).is_dir() else set()
    missing = [str(Path(folder, name)) for name in names if name not in present and not Path(folder, name).is_file()]
    if missing:
        yield Finding(
            "segment maps missing",
            f"needs {len(missing)} PNGs of segments (of {len(names)}) that are not on disk: {first_few(missing)}. "
            "mmdet looks for the photo's name with .png for .jpg, in data_prefix=dict(seg=...) of the dataset",
        )
