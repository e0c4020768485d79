"""What a model of any of the toolboxes predicts for one image, in one form, on the CPU."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.structures import BaseDataElement

from eyetoy_mm.errors import UserError, first_few

_SEGMENT_OFFSET = 1000  # mmdet's: the id of a panoptic segment is its label, and this for each before it


class Mask(NamedTuple):
    """The pixels of an object: those of the rectangle that it fills.

    ``inside`` is ``(h, w)`` and boolean; its upper left pixel is ``(x, y)`` of the image.
    """

    inside: np.ndarray
    x: int
    y: int

    def rle(self, size: tuple[int, int]) -> dict[str, Any]:
        """The mask as COCO's run lengths in an image of ``size`` (height, width), which is never made as a whole."""
        from pycocotools import mask as coco_masks  # which comes with mmdet

        height, width = size
        columns = np.zeros((self.inside.shape[1], self.inside.shape[0] + 2), np.int8)  # no run goes on into the next
        columns[:, 1:-1] = self.inside.T
        change = np.diff(columns, axis=1)
        ends = []
        for step in (1, -1):
            column, row = np.nonzero(change == step)
            ends.append((self.x + column).astype(np.int64) * height + self.y + row)
        starts, stops = ends
        joined = starts[1:] != stops[:-1]  # a run that ends at the bottom goes on at the top of the next column
        starts, stops = starts[np.r_[True, joined][: len(starts)]], stops[np.r_[joined, True][: len(stops)]]
        edges = np.stack([starts, stops], 1).ravel()
        counts = np.diff(np.r_[0, edges, height * width])
        counts = counts if counts[-1] else counts[:-1]  # the last run is the object's
        rle = coco_masks.frPyObjects({"counts": counts.tolist(), "size": [height, width]}, height, width)
        return {"size": [height, width], "counts": rle["counts"].decode()}

    def area(self) -> int:
        """Pixels."""
        return int(self.inside.sum())


def mask_of(whole: np.ndarray) -> Mask:
    """The mask of an image, ``(H, W)`` and boolean, as :class:`Mask`."""
    rows, columns = np.flatnonzero(whole.any(1)), np.flatnonzero(whole.any(0))
    if not len(rows):
        return Mask(np.zeros((0, 0), bool), 0, 0)
    (top, bottom), (left, right) = rows[[0, -1]], columns[[0, -1]]
    return Mask(whole[top : bottom + 1, left : right + 1].copy(), int(left), int(top))


@dataclass
class Instances:
    """Objects: ``boxes`` ``(N, 4)`` as x1, y1, x2, y2 in pixels, ``scores``, ``labels``, and a mask each, or none."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[Mask] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: np.ndarray) -> Instances:
        """Some of them, by number or by a boolean for each."""
        index = np.flatnonzero(index) if index.dtype == bool else index
        masks = None if self.masks is None else [self.masks[at] for at in index]
        return Instances(self.boxes[index], self.scores[index], self.labels[index], masks)

    def moved(self, x: int, y: int) -> Instances:
        """In an image of which theirs is a part that begins at ``(x, y)``."""
        masks = None if self.masks is None else [mask._replace(x=mask.x + x, y=mask.y + y) for mask in self.masks]
        return Instances(self.boxes + np.array([x, y, x, y], np.float32), self.scores, self.labels, masks)


def joined(parts: Sequence[Instances]) -> Instances:
    """Those of several parts of an image, at least one."""
    masks = None if parts[0].masks is None else [mask for part in parts for mask in part.masks or ()]
    arrays = ([getattr(part, name) for part in parts] for name in ("boxes", "scores", "labels"))
    boxes, scores, labels = (np.concatenate(values) for values in arrays)
    return Instances(boxes, scores, labels, masks)


@dataclass
class Prediction:
    """What is predicted for an image: one of the three, or instances beside a label map.

    Attributes:
        size: Height and width of the image.
        scores: Of each class, for the whole image.
        labels: The class of each pixel ``(H, W)``; other numbers where there is none.
        instances: Objects.
    """

    size: tuple[int, int]
    scores: np.ndarray | None = None
    labels: np.ndarray | None = None
    instances: Instances | None = None


def label_type(num_classes: int) -> type[np.unsignedinteger]:
    """The smallest type of the numbers of a label map, whose largest is left for pixels of no class."""
    return np.uint8 if num_classes <= np.iinfo(np.uint8).max else np.uint16


def prediction_of(sample: BaseDataElement, size: tuple[int, int], num_classes: int) -> Prediction:
    """A toolbox' data sample in our form.

    Args:
        sample: Of mmseg, mmdet or mmpretrain.
        size: Height and width of the image.
        num_classes: Of the model.

    Raises:
        UserError: It holds another kind of prediction than those that we know.
    """
    if "pred_panoptic_seg" in sample:
        return Prediction(size, instances=_segments(sample.pred_panoptic_seg.sem_seg[0].cpu().numpy(), num_classes))
    if "pred_instances" in sample:
        return Prediction(size, instances=instances_of(sample.pred_instances))
    if "pred_sem_seg" in sample:
        return Prediction(size, labels=sample.pred_sem_seg.data[0].cpu().numpy().astype(np.int64))
    if "pred_score" in sample:
        return Prediction(size, scores=sample.pred_score.float().cpu().numpy())
    kinds = first_few(key for key in sample.all_keys() if key.startswith("pred_")) or "nothing"
    raise UserError(f"this model predicts {kinds}: only classes, label maps, boxes, masks and segments can be saved")


def instances_of(found: Any) -> Instances:
    """Those of an ``InstanceData`` of mmdet, of predictions or of ground truth."""
    boxes = found.bboxes
    boxes = boxes.tensor if hasattr(boxes, "tensor") else boxes
    labels = found.labels.cpu().numpy()
    scores = found.scores.float().cpu().numpy() if "scores" in found else np.ones(len(labels), np.float32)
    masks = None
    if "masks" in found:
        whole = found.masks
        whole = whole.to_ndarray() if hasattr(whole, "to_ndarray") else whole.cpu().numpy()
        masks = [mask_of(mask.astype(bool)) for mask in whole]
    return Instances(boxes.float().cpu().numpy(), scores, labels, masks)


def _segments(ids: np.ndarray, num_classes: int) -> Instances:
    """The segments of a panoptic map, each of score 1; where there is none, mmdet has the number of classes."""
    masks, labels = [], []
    for segment in np.unique(ids):
        if segment % _SEGMENT_OFFSET >= num_classes:
            continue
        masks.append(mask_of(ids == segment))
        labels.append(int(segment) % _SEGMENT_OFFSET)
    boxes = [[mask.x, mask.y, mask.x + mask.inside.shape[1], mask.y + mask.inside.shape[0]] for mask in masks]
    return Instances(
        np.array(boxes, np.float32).reshape(-1, 4), np.ones(len(masks), np.float32), np.array(labels, np.int64), masks
    )


@dataclass(frozen=True)
class Choice:
    """Which predictions count.

    Args:
        classes: Names of the model's classes.
        chosen: Numbers of those that count; all of them when None.
        score: Detections with a lower score do not count.
    """

    classes: Sequence[str]
    chosen: Collection[int] | None = None
    score: float = 0.3
    ignored: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ignored", int(np.iinfo(label_type(len(self.classes))).max))

    def of(self, sample: BaseDataElement) -> BaseDataElement:
        """What counts of a toolbox' data sample; the same sample, changed.

        Pixels of other classes become ``ignored``, a number that is no class; of a panoptic map, mmdet's for no
        segment. The class of an image is the best of those that count.
        """
        labels = torch.arange(len(self.classes)) if self.chosen is None else torch.tensor(sorted(self.chosen))
        if "pred_instances" in sample:
            found = sample.pred_instances
            keep = torch.isin(found.labels, labels.to(found.labels.device)) & (found.scores >= self.score)
            sample.pred_instances = found[keep]
        if "pred_panoptic_seg" in sample:
            ids = sample.pred_panoptic_seg.sem_seg
            others = ~torch.isin(ids % _SEGMENT_OFFSET, labels.to(ids.device))
            ids[others] = len(self.classes)
        if "pred_sem_seg" in sample and self.chosen is not None:
            pixels = sample.pred_sem_seg.data = sample.pred_sem_seg.data.long()  # of binary models, floats
            pixels[~torch.isin(pixels, labels.to(pixels.device))] = self.ignored
        if "pred_score" in sample:
            best = labels.to(sample.pred_score.device)[sample.pred_score[labels].argmax()]
            sample.set_pred_label(best)
        return sample


def class_numbers(wanted: Iterable[str], classes: Sequence[str]) -> list[int]:
    """The numbers of classes that are named by their names or numbers.

    Raises:
        UserError: One is no class of the model.
    """
    numbers = []
    for text in wanted:
        if text in classes:
            numbers.append(list(classes).index(text))
        elif text.isdecimal() and int(text) < len(classes):
            numbers.append(int(text))
        else:
            raise UserError(
                f"--classes {text}: the model has no such class; it has {first_few(classes, 12)} (0 to "
                f"{len(classes) - 1})"
            )
    return numbers
