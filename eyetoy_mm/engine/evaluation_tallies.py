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

WORST = 12
_IOU = 0.5
_MOST_CLASSES = 2000  # a confusion matrix of more does not fit into memory by itself
_SHOWN_SCORE = 0.3  # from which on a detection counts for confusions and for how good an image is


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
        size = len(self.classes)
        known = (truth < size) & (predicted < size)
        codes = truth[known].astype(np.int64) * size + predicted[known]
        counts = np.bincount(codes, minlength=size * size).reshape(size, size)
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
        overlap = _iou(corners, boxes)
        for label in np.unique(np.concatenate([labels, predicted])).astype(int).tolist():
            mine, theirs = predicted == label, labels == label
            partner = _match(overlap[np.ix_(mine, theirs)])
            self._found[label] += zip(scores[mine].tolist(), (partner >= 0).tolist(), strict=True)
            self._there[label] += int(theirs.sum())
        return self._confuse(labels, predicted[scores >= _SHOWN_SCORE], overlap[scores >= _SHOWN_SCORE])

    def _small(self, sample: Any) -> Any:
        kept = sample.clone()
        kept.pred_instances = sample.pred_instances[sample.pred_instances.scores >= _SHOWN_SCORE]
        return kept

    def _confuse(self, labels: np.ndarray, predicted: np.ndarray, overlap: np.ndarray) -> float:
        """Count which class a box was taken for, whatever its class; returns how bad that is, as 1 - F1."""
        partner = _match(overlap)
        right = 0
        for label, other in zip(predicted.tolist(), partner.tolist(), strict=True):
            self.confusion[int(labels[other]) if other >= 0 else -1, label] += 1
            right += other >= 0 and int(labels[other]) == label
        for missed in set(range(len(labels))) - set(partner.tolist()):
            self.confusion[int(labels[missed]), -1] += 1
        return 1.0 - 2 * right / (len(labels) + len(predicted)) if len(labels) + len(predicted) else 0.0

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


def _iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of corners ``(N, 4)`` and ``(M, 4)``: ``(N, M)``."""
    low, high = np.maximum(first[:, None, :2], second[None, :, :2]), np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (first, second)]
    return both / np.maximum(areas[0][:, None] + areas[1][None] - both, 1e-9)


def _match(overlap: np.ndarray) -> np.ndarray:
    """The partner of each row, the first row first, each column once; -1 for none."""
    partner = np.full(len(overlap), -1)
    free = np.ones(overlap.shape[1], dtype=bool)
    for row in range(len(overlap)):
        left = np.where(free, overlap[row], -1.0)
        if left.size and left.max() >= _IOU:
            partner[row] = left.argmax()
            free[partner[row]] = False
    return partner


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
