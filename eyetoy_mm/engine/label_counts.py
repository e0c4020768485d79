"""What the labels of a built dataset are, from its list: how often each class is, and how large boxes are."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from eyetoy_mm.datasets.corner_boxes import boxes_of
from eyetoy_mm.datasets.guarded_loading import mask_step, plain_datasets
from eyetoy_mm.datasets.masks import Labelling, look_at_mask
from eyetoy_mm.datasets.spread import spread
from eyetoy_mm.engine.check_dataset import Report

MOST_LISTED = 20_000  # samples whose entry in the list is read
MOST_MASKS = 200  # masks that are opened: nothing else says how often a class of pixels is


def count_labels(split: str, dataset: Any) -> Report:
    """Count classes and measure boxes, without opening an image; of masks some are opened, where there are no boxes.

    Args:
        split: What it is for.
        dataset: As a data loader has it. Of more than :data:`MOST_LISTED` samples, or :data:`MOST_MASKS` masks, as many
            are looked at, spread evenly.

    Returns:
        ``counts``, ``boxes`` and ``unit`` are filled in.
    """
    report = Report()
    counts: Counter[str] = Counter()
    sizes: list[tuple[float, float]] = []
    for plain in plain_datasets(dataset):
        if not hasattr(plain, "get_data_info"):
            continue
        names = tuple((getattr(plain, "metainfo", None) or {}).get("classes") or ())
        step = mask_step(plain.pipeline) if hasattr(plain, "pipeline") else None
        fields = plain.get_data_info(0) if len(plain) else {}
        has_masks = step is not None and "seg_map_path" in fields and "instances" not in fields
        for index in spread(len(plain), MOST_MASKS if has_masks else MOST_LISTED):
            info = plain.get_data_info(index)
            if has_masks:
                report.unit = "pixels"
                mask = look_at_mask(info["seg_map_path"], Labelling.of(plain, step, None))
                counts.update({_name(names, label): n for label, n in enumerate(mask.counts or ()) if label != 255})
            else:
                boxes = list(boxes_of(info.get("instances", ())))
                report.unit = "boxes" if "instances" in info else report.unit
                counts.update(_name(names, int(box.get("bbox_label", 0))) for box in boxes)
                sizes += [(x2 - x1, y2 - y1) for x1, y1, x2, y2 in (box["bbox"] for box in boxes)]
                whole = info.get("gt_label", [])
                counts.update(_name(names, int(n)) for n in ([] if isinstance(whole, dict) else np.atleast_1d(whole)))
    report.counts = {split: {name: int(count) for name, count in counts.items() if count}}
    report.boxes = {split: np.array(sizes)} if sizes else {}
    return report


def _name(names: tuple[str, ...], label: int) -> str:
    return str(names[label]) if 0 <= label < len(names) else str(label)
