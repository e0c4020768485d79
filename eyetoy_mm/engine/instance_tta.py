"""Test-time augmentation of detectors, masks included."""

from __future__ import annotations

from typing import Any

import torch
from mmcv.ops import batched_nms
from mmdet.models.test_time_augs import DetTTAModel
from mmengine.structures import BaseDataElement
from typing_extensions import override

_FLIPPED = {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-2, -1)}  # dimensions of (N, H, W)


class InstanceTTAModel(DetTTAModel):
    """Merges the objects of several views of an image as mmdet does, by non-maximum suppression of their boxes.

    mmdet's stops at masks with an assertion. Here an object that stays keeps the mask of the view that it was found
    in, turned back: the views are rescaled to the image before they get here, and boxes that stay are not changed.
    """

    @override
    def _merge_single_sample(self, data_samples: list[BaseDataElement]) -> BaseDataElement:
        first: Any = data_samples[0]
        if "masks" not in first.pred_instances:
            return super()._merge_single_sample(data_samples)
        boxes, scores = self.merge_aug_bboxes(
            [sample.pred_instances.bboxes for sample in data_samples],
            [sample.pred_instances.scores for sample in data_samples],
            [sample.metainfo for sample in data_samples],
        )
        if not len(boxes):
            return first
        labels = torch.cat([sample.pred_instances.labels for sample in data_samples])
        masks = torch.cat([_turned_back(sample) for sample in data_samples])
        kept_boxes, kept = batched_nms(boxes, scores, labels, self.tta_cfg.nms)
        kept = kept[: self.tta_cfg.max_per_img]
        kept_boxes = kept_boxes[: self.tta_cfg.max_per_img]
        first.pred_instances = type(first.pred_instances)(
            bboxes=kept_boxes[:, :-1], scores=kept_boxes[:, -1], labels=labels[kept], masks=masks[kept]
        )
        return first


def _turned_back(sample: Any) -> torch.Tensor:
    """The masks ``(N, H, W)`` of a view, as they lie in the image."""
    masks = sample.pred_instances.masks
    return masks.flip(_FLIPPED[sample.flip_direction]) if sample.flip else masks
