"""Annotations of the embedded photos as other datasets have them: other classes, and panoptic ones, for dry runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
from pycocotools.coco import COCO


def write_instances(source: Path, classes: Sequence[str], target: Path) -> Path:
    """Write COCO instances under a dataset's classes, which the source's take in turn.

    Args:
        source: Instances in COCO's format.
        classes: The dataset's classes.
        target: The file to write.

    Returns:
        The file to use: the source where it has these classes.
    """
    content = json.loads(source.read_text())
    if [category["name"] for category in content["categories"]] == list(classes):
        return source
    label = {category["id"]: index for index, category in enumerate(content["categories"])}
    content["categories"] = [dict(id=number, name=name) for number, name in enumerate(classes, 1)]
    for annotation in content["annotations"]:
        annotation["category_id"] = 1 + label[annotation["category_id"]] % len(classes)
    target.write_text(json.dumps(content))
    return target


def write_panoptic(instances: Path, stuff: str, classes: Sequence[str], target: Path) -> None:
    """Write COCO panoptic annotations: instances as things, one segment of stuff beside them, crowds unlabelled.

    Args:
        instances: In COCO's format; where they overlap, the smaller one is on top.
        stuff: The class of what is left.
        classes: The dataset's classes, things and stuff.
        target: The JSON file to write; the maps of segments go to a folder of the same name without the suffix.
    """
    coco = COCO(str(instances))
    things = {category["name"] for category in coco.dataset["categories"]}
    number = {name: index for index, name in enumerate(classes, 1)}
    annotations = []
    for image in coco.dataset["images"]:
        segments, categories = np.ones((image["height"], image["width"]), np.int32), {1: number[stuff]}
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        for index, annotation in enumerate(sorted(found, key=lambda a: (not a["iscrowd"], -a["area"])), 2):
            segments[coco.annToMask(annotation) == 1] = 0 if annotation["iscrowd"] else index
            categories[index] = number[coco.cats[annotation["category_id"]]["name"]]
        file_name = f"{Path(image['file_name']).stem}.png"
        colors = np.stack([segments % 256, segments // 256, np.zeros_like(segments)], axis=-1)  # RGB
        mmcv.imwrite(colors[..., ::-1].astype(np.uint8), str(target.with_suffix("") / file_name))
        info = [
            _segment(segments == index, index, categories[index]) for index in np.unique(segments).tolist() if index
        ]
        annotations.append(dict(image_id=image["id"], file_name=file_name, segments_info=info))
    listed = [dict(id=index, name=name, isthing=int(name in things)) for name, index in number.items()]
    target.write_text(json.dumps(dict(images=coco.dataset["images"], annotations=annotations, categories=listed)))


def _segment(mask: np.ndarray, index: int, category: int) -> dict:
    (y, x), area = np.nonzero(mask), int(mask.sum())
    corner = int(x.min()), int(y.min())
    box = [*corner, int(x.max()) + 1 - corner[0], int(y.max()) + 1 - corner[1]]
    return dict(id=index, category_id=category, area=area, bbox=box, iscrowd=0)
