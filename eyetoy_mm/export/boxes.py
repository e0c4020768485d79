"""What detectors of mmdet do with boxes, where neither the size of the image nor the number of boxes is known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torchvision
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.errors import UserError
from eyetoy_mm.export.models import Agreement, ExportModel

PIXELS, SCORE = 0.1, 1e-3  # how far a box of the file may be from mmdet's
UNMATCHED = 0.02  # share of boxes: where two overlap by the threshold itself, rounding decides which one stays


class ExportBoxes(ExportModel):
    """A detector that gives boxes; one image at a time, since each image has its own number of boxes."""

    task = "object detection"
    outputs = {
        "boxes": "(boxes, 4), float32: left, top, right, bottom in pixels of the image",
        "scores": "(boxes,), float32, highest first",
        "labels": "(boxes,), int64: index of the class",
    }
    any_batch = False
    least_score = "score_thr"
    score_thr: Tensor

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        least = float(self.last_head(self.model).test_cfg.get("score_thr", 0))
        self.register_buffer(self.least_score, torch.tensor(least))  # by its name it is found in a file, and raised
        self.found = 0  # boxes in all images that were compared
        self.remarks.append("One image at a time: each image has its own number of boxes.")

    @staticmethod
    def takes(model: object) -> bool:
        """Whether a detector is of this kind."""
        raise NotImplementedError

    @staticmethod
    def last_head(model: Any) -> Any:
        """The head of a detector that chooses boxes by their scores, as its ``test_cfg`` says."""
        raise NotImplementedError

    @contextmanager
    def finding_nothing(self) -> Iterator[None]:
        """By a threshold that no score is above."""
        head = self.last_head(self.original)
        rules = head.test_cfg
        head.test_cfg = ConfigDict(rules, score_thr=math.inf)
        try:
            yield
        finally:
            head.test_cfg = rules

    def predict(self, images: Tensor) -> InstanceData:
        """What mmdet itself finds in an image ``(1, 3, H, W)``."""
        with torch.no_grad():
            return self.original.test_step(self.loaded(images, DetDataSample))[0].pred_instances

    def compare(self, images: Tensor, outputs: Sequence[Tensor]) -> Agreement:
        """By matching boxes of the same class, one to one."""
        return self.compare_boxes(self.predict(images), outputs)[0]

    def compare_boxes(
        self, expected: InstanceData, outputs: Sequence[Tensor]
    ) -> tuple[Agreement, list[tuple[int, int]]]:
        """:func:`matched`, remembering whether there was any box."""
        self.found += len(expected)
        return matched(expected, outputs)

    def conclude(self) -> None:
        """Require that a box was compared."""
        if not self.found:
            raise UserError(
                "no box was found in any image that was checked, which shows nothing, and no file was written: check "
                "with a photo that has some (--image PHOTO), or lower score_thr in model.test_cfg (--cfg-options)"
            )


def matched(expected: InstanceData, outputs: Sequence[Tensor]) -> tuple[Agreement, list[tuple[int, int]]]:
    """Match mmdet's boxes with those of a file ``(boxes, scores, labels)``.

    Returns:
        How they agree, and the pairs of indices of the same box.
    """
    boxes, scores, labels = outputs
    free = torch.ones(len(boxes), dtype=torch.bool)
    pairs = []
    for i, (box, score, label) in enumerate(zip(expected.bboxes, expected.scores, expected.labels, strict=True)):
        near = ((boxes - box).abs().amax(1) <= PIXELS) & ((scores - score).abs() <= SCORE) & (labels == label)
        found = (near & free).nonzero()
        if len(found):
            free[found[0]] = False
            pairs.append((i, int(found[0])))
    most = max(len(boxes), len(expected))
    holds = most - len(pairs) <= UNMATCHED * most
    text = f"{len(pairs)} boxes of {len(boxes)} match mmdet's {len(expected)}" if most else "no boxes, as by mmdet"
    return Agreement(holds, text), pairs


def decode(coder: DeltaXYWHBBoxCoder, priors: Tensor, deltas: Tensor, size: Sequence[int]) -> Tensor:
    """DeltaXYWHBBoxCoder's decode for a size that is open: boxes ``(N, 4)`` clipped to the image."""
    deltas = deltas * deltas.new_tensor(coder.stds) + deltas.new_tensor(coder.means)
    extent = priors[:, 2:] - priors[:, :2]
    centre = (priors[:, :2] + priors[:, 2:]) / 2 + extent * deltas[:, :2]
    limit = abs(math.log(16 / 1000))  # mmdet's wh_ratio_clip
    half = extent * deltas[:, 2:].clamp(-limit, limit).exp() / 2
    height, width = size
    most = torch.stack([priors.new_ones(()) * length for length in (width, height)]).repeat(2)
    return torch.minimum(torch.cat([centre - half, centre + half], dim=1).clamp(min=0), most)


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, nms: Mapping[str, Any]) -> Tensor:
    """Non-maximum suppression within groups: the indices that stay, highest score first.

    Args:
        boxes: ``(N, 4)``.
        scores: ``(N,)``.
        groups: ``(N,)``: class or level of each box.
        nms: Of a config.
    """
    if not nms.get("class_agnostic", False):
        furthest = torch.cat([boxes, boxes.new_zeros(1, 4)]).max()  # there may be no box
        boxes = boxes + (groups.to(boxes) * (furthest + 1))[:, None]  # boxes of two groups never overlap
    return torchvision.ops.nms(boxes, scores, nms["iou_threshold"])


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest of scores ``(N,)`` and their indices: ``count`` of them at most, or all where it is not above 0."""
    return scores.topk(torch.sym_min(count, scores.shape[0]) if count > 0 else scores.shape[0])


def large_enough(boxes: Tensor, config: Mapping[str, Any]) -> Tensor:
    """``(N,)``: which boxes mmdet takes to non-maximum suppression; with ``min_bbox_size=0``, those with an area."""
    least = config.get("min_bbox_size", -1)
    return (boxes[:, 2:] - boxes[:, :2] > (least if least >= 0 else -math.inf)).all(1)


def refuse(model: str, *refusals: Mapping[str, bool]) -> None:
    """Tell what of a model's settings is not exported.

    Args:
        model: What it is.
        refusals: Settings of its parts, each with whether the part has it.

    Raises:
        UserError: It has one.
    """
    found = dict.fromkeys(text for part in refusals for text, is_so in part.items() if is_so)
    if found:
        raise UserError(f"{model} with {' and '.join(found)} is not exported; --part backbone exports its backbone")


def coder_refusals(coder: Any) -> dict[str, bool]:
    """What of a box coder is not exported."""
    return {
        f"the box coder {type(coder).__name__}": type(coder) is not DeltaXYWHBBoxCoder,
        "boxes whose centres are clamped": bool(getattr(coder, "add_ctr_clamp", False)),
        "boxes that are not clipped to the image": not getattr(coder, "clip_border", True),
    }


def nms_refusals(nms: Mapping[str, Any] | None) -> dict[str, bool]:
    """What of a config's non-maximum suppression is not exported."""
    nms = nms or {}
    others = sorted(set(nms) - {"type", "iou_threshold", "class_agnostic", "split_thr"})
    return {
        "no nms": not nms,
        f"nms of type {nms.get('type')!r}": nms.get("type", "nms") != "nms",
        f"nms settings {', '.join(others)}": bool(others),
    }
