"""What the predictions of an evaluation say beside its metrics: confusions, precision and recall, the worst images."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mmengine.structures import BaseDataElement

from eyetoy_mm.datasets.guarded_loading import steps_of
from eyetoy_mm.engine.confusion import SCORE, confused_boxes, confused_labels, iou, match

WORST = 12
_MOST_CLASSES = 2000  # a confusion matrix of more does not fit into memory by itself


@dataclass(order=True)
class Scored:
    """An image of an evaluation.

    Args:
        badness: From 0, all right, to 1.
        index: Its number in the evaluation.
        sample: Ground truth and prediction.
    """

    badness: float
    index: int
    sample: BaseDataElement = field(compare=False)


class Tally:
    """Counts for one toolbox; subclasses say what an image adds.

    Args:
        classes: Their names.

    Attributes:
        confusion: How often something of a class (row) was predicted as a class (column).
        images: How many were counted.
    """

    background = False  # whether the confusion has a last row and column for what is none of the classes

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        size = len(self.classes) + self.background
        self.confusion = np.zeros((size, size), dtype=np.int64)
        self.images = 0
        self._heap: list[Scored] = []

    def add(self, sample: BaseDataElement) -> None:
        """Count an image."""
        scored = Scored(self._count(sample), -self.images, sample)
        self.images += 1
        if len(self._heap) < WORST or scored > self._heap[0]:
            scored.sample = self._small(sample).cpu()
            push = heapq.heappush if len(self._heap) < WORST else heapq.heapreplace
            push(self._heap, scored)

    @property
    def worst(self) -> list[Scored]:
        """The images that were predicted worst, that first; what is all right is none of them."""
        return [each for each in sorted(self._heap, reverse=True) if each.badness > 0]

    def _count(self, sample: BaseDataElement) -> float:
        """Count an image; returns how bad its prediction is."""
        raise NotImplementedError

    def _small(self, sample: BaseDataElement) -> BaseDataElement:
        """An image to be kept, without what no picture shows."""
        return sample


class ClassTally(Tally):
    """Classes of whole images."""

    def _count(self, sample: Any) -> float:
        if len(sample.gt_label) != 1 or len(sample.pred_label) != 1:
            raise ValueError(f"an image has {len(sample.gt_label)} labels, and confusions are of one each")
        truth, predicted = int(sample.gt_label), int(sample.pred_label)
        self.confusion[truth, predicted] += 1
        score = float(sample.pred_score[truth]) if "pred_score" in sample else float(truth == predicted)
        return 0.0 if truth == predicted else 1.0 - score


class PixelTally(Tally):
    """Classes of pixels; an image is as bad as its pixels that are another class."""

    def _count(self, sample: Any) -> float:
        truth = sample.gt_sem_seg.data.cpu().numpy().ravel()
        predicted = sample.pred_sem_seg.data.cpu().numpy().ravel()
        counts = confused_labels(truth, predicted, len(self.classes))
        self.confusion += counts
        return 1.0 - np.trace(counts) / max(counts.sum(), 1) if counts.any() else 0.0

    def iou(self) -> dict[str, float]:
        """Intersection over union of each class, in per cent; classes that are nowhere are left out."""
        both = np.diag(self.confusion)
        union = self.confusion.sum(0) + self.confusion.sum(1) - both
        return {n: 100.0 * b / u for n, b, u in zip(self.classes, both.tolist(), union.tolist(), strict=True) if u}


class BoxTally(Tally):
    """Boxes: matched at an IoU of 0.5, the best score first, as COCO does without its crowds and sizes.

    Args:
        classes: Their names.
        scaled: Whether boxes of the ground truth are those of the resized image.
    """

    background = True

    def __init__(self, classes: Sequence[str], scaled: bool = False) -> None:
        super().__init__(classes)
        self.scaled = scaled
        self._found: dict[int, list[tuple[float, bool]]] = defaultdict(list)  # score, and whether it is right
        self._there: dict[int, int] = defaultdict(int)

    def _count(self, sample: Any) -> float:
        truth, found = sample.gt_instances, sample.pred_instances
        boxes = _corners(truth.bboxes)
        if self.scaled:
            boxes = boxes / np.tile(sample.metainfo["scale_factor"], 2)
        labels = truth.labels.cpu().numpy()
        order = np.argsort(-found.scores.cpu().numpy(), kind="stable")
        scores = found.scores.cpu().numpy()[order]
        predicted, corners = found.labels.cpu().numpy()[order], _corners(found.bboxes)[order]
        overlap = iou(corners, boxes)
        for label in np.unique(np.concatenate([labels, predicted])).astype(int).tolist():
            mine, theirs = predicted == label, labels == label
            partner = match(overlap[np.ix_(mine, theirs)])
            self._found[label] += zip(scores[mine].tolist(), (partner >= 0).tolist(), strict=True)
            self._there[label] += int(theirs.sum())
        shown = scores >= SCORE
        counts = confused_boxes(labels, predicted[shown], overlap[shown], len(self.classes))
        self.confusion += counts
        both = len(labels) + int(shown.sum())
        return 1.0 - 2 * int(np.trace(counts)) / both if both else 0.0  # 1 - F1; nothing is never taken for nothing

    def _small(self, sample: Any) -> Any:
        kept = sample.clone()
        kept.pred_instances = sample.pred_instances[sample.pred_instances.scores >= SCORE]
        return kept

    def precision_recall(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Recall and precision of each class that is anywhere, the best score first."""
        curves = {}
        for label, there in self._there.items():
            if there:
                right = np.array([hit for _, hit in sorted(self._found[label], key=lambda pair: -pair[0])], dtype=float)
                hits = np.cumsum(right)
                curves[self.classes[label]] = hits / there, hits / np.arange(1, len(hits) + 1)
        return curves


def _corners(boxes: Any) -> np.ndarray:
    tensor = boxes.tensor if hasattr(boxes, "tensor") else boxes
    return tensor.cpu().numpy().reshape(-1, 4).astype(float)


def make_tally(scope: str | None, dataset: Any) -> Tally | None:
    """The tally for the evaluations of a dataset; None where it has no classes, too many, or its toolbox has none."""
    classes = (getattr(dataset, "metainfo", None) or {}).get("classes")
    if not classes or len(classes) > _MOST_CLASSES:
        return None
    if scope == "mmdet":
        return BoxTally(classes, scaled=_resizes_boxes(dataset))
    kinds = {"mmseg": PixelTally, "mmpretrain": ClassTally}
    return kinds[scope](classes) if scope in kinds else None


def _resizes_boxes(dataset: Any) -> bool:
    """Whether a pipeline of mmdet loads boxes before it resizes the image."""
    steps = [type(step).__name__ for step in steps_of(getattr(dataset, "pipeline", None))]
    loaded = next((index for index, name in enumerate(steps) if "LoadAnnotations" in name), len(steps))
    return any("Resize" in name for name in steps[loaded:])
