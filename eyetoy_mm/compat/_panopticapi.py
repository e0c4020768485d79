"""Stand-in for `panopticapi`, `panopticapi.utils` and `panopticapi.evaluation`: what mmdet and its tools take of them.

COCO's panoptic format keeps the number of a pixel's segment in the three channels of a PNG, the lowest digit of base
256 in red. Panoptic quality is that of Kirillov et al., Panoptic Segmentation, 2019 (1801.00868), equation 1.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__path__: list[str] = []  # a package, whose modules are this file again

OFFSET = 256**3  # more than any number of a segment
VOID = 0  # the number of pixels without a label


def rgb2id(color: np.ndarray | tuple[int, int, int] | list[int]) -> np.ndarray | int:
    """Numbers (...) of segments from their colours (..., 3)."""
    red, green, blue = np.moveaxis(np.asarray(color, dtype=np.int32), -1, 0)
    number = red + 256 * green + 256**2 * blue
    return number if number.ndim else int(number)


def id2rgb(number: np.ndarray | int) -> np.ndarray | list[int]:
    """Colours (..., 3) of segments, 8 bits, from their numbers (...); a list for a single one."""
    color = np.stack([np.asarray(number) // 256**digit % 256 for digit in range(3)], axis=-1).astype(np.uint8)
    return color if np.ndim(number) else color.tolist()


def save_json(content: Any, path: str | os.PathLike[str]) -> None:
    """Write a JSON file."""
    with open(path, "w") as file:
        json.dump(content, file)


class IdGenerator:
    """Numbers and colours of the segments of an image: a thing has one of its own, all stuff of a category the same.

    Args:
        categories: For each id, its ``color`` and whether it is a thing, as ``isthing`` of 0 or 1.
    """

    def __init__(self, categories: Mapping[int, Mapping[str, Any]]) -> None:
        self.categories = categories
        stuff = (category for category in categories.values() if not category["isthing"])
        self.taken = {VOID, *(rgb2id(category["color"]) for category in stuff)}

    def get_id_and_color(self, category: int) -> tuple[int, list[int]]:
        """Of the next segment of a category: the first free one from that of the category on."""
        number = int(rgb2id(self.categories[category]["color"]))
        if self.categories[category]["isthing"]:
            while number in self.taken:
                number = (number + 1) % OFFSET
            self.taken.add(number)
        return number, list(id2rgb(number))

    def get_id(self, category: int) -> int:
        """The number alone."""
        return self.get_id_and_color(category)[0]

    def get_color(self, category: int) -> list[int]:
        """The colour alone."""
        return self.get_id_and_color(category)[1]


@dataclass
class PQStatCat:
    """What was found of one category: matched pairs of segments (tp), with the sum of their IoU, fp, and fn."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, other: PQStatCat) -> PQStatCat:
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)
        return self

    def quality(self) -> dict[str, float]:
        """Panoptic, segmentation and recognition quality; 0 where there is nothing."""
        recognized = self.tp + 0.5 * self.fp + 0.5 * self.fn
        return dict(
            pq=self.iou / recognized if recognized else 0.0,
            sq=self.iou / self.tp if self.tp else 0.0,
            rq=self.tp / recognized if recognized else 0.0,
        )


class PQStat:
    """Counts of every category, by its id; those of several images are added up."""

    def __init__(self) -> None:
        self.pq_per_cat: defaultdict[int, PQStatCat] = defaultdict(PQStatCat)

    def __getitem__(self, category: int) -> PQStatCat:
        return self.pq_per_cat[category]

    def __iadd__(self, other: PQStat) -> PQStat:
        for category, counts in other.pq_per_cat.items():
            self.pq_per_cat[category] += counts
        return self

    def pq_average(
        self, categories: Mapping[int, Mapping], isthing: bool | None
    ) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """Mean qualities of the categories that there are segments of, annotated or predicted.

        Args:
            categories: For each id, whether it is a thing, as `isthing` of 0 or 1.
            isthing: Of things (True), of stuff (False), or of all (None).

        Returns:
            The means and the number `n` of categories in them, and each category's own; means of none are 0.
        """
        own, present = {}, []
        for category, info in categories.items():
            if isthing is None or isthing == (info["isthing"] == 1):
                counts = self.pq_per_cat[category]
                own[category] = counts.quality()
                if counts.tp + counts.fp + counts.fn:
                    present.append(own[category])
        means = {name: sum(each[name] for each in present) / max(1, len(present)) for name in ("pq", "sq", "rq")}
        return dict(**means, n=len(present)), own
