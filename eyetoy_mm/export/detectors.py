"""One-stage detectors of mmdet with anchors, from the image to boxes after non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models import SingleStageDetector
from mmdet.models.dense_heads import RetinaHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import Tensor

from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.export.boxes import (
    ExportBoxes,
    best,
    coder_refusals,
    decode,
    large_enough,
    nms_refusals,
    refuse,
    suppress,
)
from eyetoy_mm.export.models import keeps


class ExportRetinaNet(ExportBoxes):
    """A RetinaNet.

    Raises:
        UserError: Settings of the head that are not exported.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        head = predictor.model.bbox_head
        refuse(
            "a RetinaNet",
            {
                "scores that are no sigmoid": not head.use_sigmoid_cls,
                **coder_refusals(head.bbox_coder),
                **nms_refusals(head.test_cfg.get("nms")),
            },
        )

    @staticmethod
    def takes(model: object) -> bool:
        """Whether a detector has the parts of a RetinaNet."""
        head = getattr(model, "bbox_head", None)
        return (
            isinstance(model, SingleStageDetector)
            and isinstance(head, RetinaHead)
            and keeps(head, BaseDenseHead, "predict_by_feat", "_predict_by_feat_single", "_bbox_post_process")
        )

    @staticmethod
    def last_head(model: Any) -> Any:
        """Its only one."""
        return model.bbox_head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(1, 3, H, W)`` -> boxes ``(N, 4)``, scores ``(N,)`` and labels ``(N,)``."""
        head, config = self.model.bbox_head, self.model.bbox_head.test_cfg
        maps = head(self.model.extract_feat(self.prepare(images)))
        size = images.shape[2:]
        candidates = [self._candidates(i, scores, deltas, size) for i, (scores, deltas) in enumerate(zip(*maps))]
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*candidates, strict=True))
        scores = torch.where(large_enough(boxes, config), scores, -1.0)
        kept = suppress(boxes, scores, labels, config.nms)
        kept = kept[scores[kept] > self.score_thr][: config.max_per_img]
        return boxes[kept], scores[kept], labels[kept]

    def _candidates(
        self, level: int, scores: Tensor, deltas: Tensor, size: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best ``nms_pre`` boxes of a level, from its maps ``(1, A * classes, h, w)`` and ``(1, A * 4, h, w)``."""
        head = self.model.bbox_head
        anchors = head.prior_generator.single_level_grid_priors(scores.shape[2:], level, device=scores.device)
        scores = scores[0].permute(1, 2, 0).reshape(-1).sigmoid()
        deltas = deltas[0].permute(1, 2, 0).reshape(-1, 4)
        scores, order = best(scores, head.test_cfg.get("nms_pre", -1))
        anchor = order // head.cls_out_channels
        boxes = decode(head.bbox_coder, anchors[anchor], deltas[anchor], size)
        return boxes, scores, order % head.cls_out_channels
