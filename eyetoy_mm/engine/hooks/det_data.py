"""Classes of detection checked against the heads, and boxes of every batch against what a box is."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import torch
from mmengine.runner import Runner
from torch import Tensor

from eyetoy_mm.engine.hooks.common import CheckClassesHook, samples_of
from eyetoy_mm.errors import UserError
from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class CheckDetDataHook(CheckClassesHook):
    """Refuse datasets whose classes are not as many as a detector's heads expect, or differ in training and validation.

    And boxes without width or height, which a pipeline leaves of objects that it cuts off: the logarithm of their size
    is infinite, and so are a detector's targets. Masks without a pixel, whose box is sound, teach that there is nothing
    in it: the first is logged with its image, and at the end how many there were.

    Heads named ``bbox_head``, ``mask_head`` and ``panoptic_head`` are checked, wherever they are in the model. What the
    annotation files hold is checked before anything is built, by :func:`eyetoy_mm.engine.data_checks.check_data`.
    """

    def __init__(self) -> None:
        self.empty_masks = 0

    def heads(self, model: Any) -> dict[str, int]:
        """Those of boxes, masks and panoptic segments; not those with one mask for whatever class."""
        return {
            name: head.num_classes
            for name, head in model.named_modules()
            if re.search(r"(^|\.)(bbox|mask|panoptic)_head(\.\d+)?$", name)  # numbered in cascades
            and hasattr(head, "num_classes")
            and not getattr(head, "class_agnostic", False)
        }

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check every box and mask of the batch, as the pipeline leaves them.

        Raises:
            UserError: A box without width or height, reversed or not finite, with the image that has it.
        """
        for sample in samples_of(data_batch):
            boxes = corners(sample)
            wrong = ~((boxes[:, 2:] > boxes[:, :2]).all(1) & boxes.isfinite().all(1))
            if wrong.any():
                shown = ", ".join(f"{x:.4g}" for x in boxes[wrong][0].tolist())
                raise UserError(
                    f"{sample.metainfo.get('img_path', 'an image')}: {int(wrong.sum())} of {len(boxes)} boxes have no "
                    f"width or height, are reversed or not finite after the training pipeline; the first is {shown} "
                    "(x1, y1, x2, y2). Crops, shifts and MixUp leave such boxes of objects that they cut off: add "
                    'dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2), keep_empty=False) before '
                    "PackDetInputs, with by_mask=True where there are masks. If it is there, mend the annotations"
                )
            self._count_empty_masks(runner, sample)

    def _count_empty_masks(self, runner: Runner, sample: Any) -> None:
        empty = empty_masks(sample)
        if empty and not self.empty_masks:
            runner.logger.warning(
                f"{sample.metainfo.get('img_path', 'an image')}: {empty} of {len(corners(sample))} objects have a box "
                "and no pixel in their mask after the training pipeline, and teach that there is nothing. Crops leave "
                'such masks of objects that they cut off: add dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, '
                "1e-2), by_mask=True, keep_empty=False) before PackDetInputs. Further ones are counted"
            )
        self.empty_masks += empty

    def after_train(self, runner: Runner) -> None:
        """Say how many masks without a pixel there were, in this process."""
        if self.empty_masks > 1:
            runner.logger.warning(f"{self.empty_masks} objects had a box and no pixel in their mask")


def empty_masks(sample: Any) -> int:
    """How many objects of a data sample have a box, and a mask without a pixel; 0 where there are no masks."""
    boxes = corners(sample)
    masks = sample.gt_instances.get("masks") if len(boxes) else None
    if masks is None or len(masks) != len(boxes):
        return 0
    if not isinstance(getattr(masks, "masks", None), np.ndarray):  # polygons; tensors are of others' pipelines
        return int((np.asarray(masks.areas) <= 0).sum()) if hasattr(masks, "areas") else 0
    return sum(not _is_painted(mask, box) for mask, box in zip(masks.masks, boxes.tolist(), strict=True))


def _is_painted(mask: np.ndarray, box: list[float]) -> bool:
    """Whether a mask has a pixel: looked for in its box first, a small part of most images."""
    left, top, right, bottom = (max(0, math.floor(x)) for x in box)
    return bool(mask[top : bottom + 1, left : right + 1].any() or mask.any())


def corners(sample: Any) -> Tensor:
    """Boxes of a data sample as x1, y1, x2, y2; none where it has no upright ones."""
    instances = sample.get("gt_instances") if hasattr(sample, "get") else None
    boxes = None if instances is None else instances.get("bboxes")
    boxes = getattr(boxes, "tensor", boxes)
    return boxes if boxes is not None and boxes.shape[-1] == 4 else torch.zeros(0, 4)
