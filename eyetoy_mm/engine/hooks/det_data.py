"""Classes of detection checked against the heads, and boxes of every batch against what a box is."""

from __future__ import annotations

import re
from typing import Any

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
    is infinite, and so are a detector's targets.

    Heads named ``bbox_head``, ``mask_head`` and ``panoptic_head`` are checked, wherever they are in the model. What the
    annotation files hold is checked before anything is built, by :func:`eyetoy_mm.engine.data_checks.check_data`.
    """

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
        """Check every box of the batch, as the pipeline leaves it.

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


def corners(sample: Any) -> Tensor:
    """Boxes of a data sample as x1, y1, x2, y2; none where it has no upright ones."""
    instances = sample.get("gt_instances") if hasattr(sample, "get") else None
    boxes = None if instances is None else instances.get("bboxes")
    boxes = getattr(boxes, "tensor", boxes)
    return boxes if boxes is not None and boxes.shape[-1] == 4 else torch.zeros(0, 4)
