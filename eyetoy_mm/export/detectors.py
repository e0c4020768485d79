"""One-stage detectors of mmdet with anchors, from the image to boxes after non-maximum suppression."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torchvision
from mmdet.models import SingleStageDetector
from mmdet.models.dense_heads import AnchorHead, RetinaHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.structures import DetDataSample
from torch import Tensor

from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.errors import UserError
from eyetoy_mm.export.models import Agreement, ExportModel

PIXELS, SCORE = 0.1, 1e-3  # how far a box of the file may be from mmdet's
UNMATCHED = 0.02  # share of boxes: where two overlap by the threshold itself, rounding decides which one stays


class ExportDetector(ExportModel):
    """A RetinaNet; one image at a time, since each image has its own number of boxes.

    Raises:
        UserError: A detector of another kind, or settings of the head that are not exported.
    """

    task = "object detection"
    outputs = {
        "boxes": "(boxes, 4), float32: left, top, right, bottom in pixels of the image",
        "scores": "(boxes,), float32, highest first",
        "labels": "(boxes,), int64: index of the class",
    }
    any_batch = False

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        model, head = predictor.model, getattr(predictor.model, "bbox_head", None)
        decodes_boxes = isinstance(head, RetinaHead) and all(
            getattr(type(head), name) is getattr(BaseDenseHead, name)
            for name in ("predict_by_feat", "_predict_by_feat_single", "_bbox_post_process")
        )
        if not isinstance(model, SingleStageDetector) or not decodes_boxes:
            raise UserError(
                f"a {type(model).__name__} with {type(head).__name__} is not exported whole: of detectors, "
                "RetinaNet is; --part backbone exports its backbone"
            )
        self._check_settings(head)
        self.remarks.append("One image at a time: each image has its own number of boxes.")

    @staticmethod
    def _check_settings(head: AnchorHead) -> None:
        coder, nms = head.bbox_coder, head.test_cfg.get("nms") or {}
        refusals = {
            "scores that are no sigmoid": not head.use_sigmoid_cls,
            f"the box coder {type(coder).__name__}": type(coder) is not DeltaXYWHBBoxCoder,
            "boxes whose centres are clamped": getattr(coder, "add_ctr_clamp", False),
            "boxes that are not clipped to the image": not getattr(coder, "clip_border", True),
            f"nms of type {nms.get('type')!r}": nms.get("type") != "nms",
            "nms that is class-agnostic": nms.get("class_agnostic", False),
            "test_cfg.min_bbox_size above 0": head.test_cfg.get("min_bbox_size", 0) > 0,
        }
        found = [text for text, is_so in refusals.items() if is_so]
        if found:
            raise UserError(f"a RetinaNet with {' and '.join(found)} is not exported; --part backbone is")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(1, 3, H, W)`` -> boxes ``(N, 4)``, scores ``(N,)`` and labels ``(N,)``."""
        head, config = self.model.bbox_head, self.model.bbox_head.test_cfg
        maps = head(self.model.extract_feat(self.prepare(images)))
        size = images.shape[2:]
        candidates = [self._candidates(i, scores, deltas, size) for i, (scores, deltas) in enumerate(zip(*maps))]
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*candidates, strict=True))
        scores = torch.where((boxes[:, 2:] > boxes[:, :2]).all(1), scores, -1.0)  # mmdet leaves empty boxes out
        apart = boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None]  # boxes of two classes never overlap
        kept = torchvision.ops.nms(apart, scores, config.nms.iou_threshold)
        kept = kept[scores[kept] > config.score_thr][: config.max_per_img]
        return boxes[kept], scores[kept], labels[kept]

    def _candidates(
        self, level: int, scores: Tensor, deltas: Tensor, size: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best ``nms_pre`` boxes of a level, from its maps ``(1, A * classes, h, w)`` and ``(1, A * 4, h, w)``."""
        head = self.model.bbox_head
        anchors = head.prior_generator.single_level_grid_priors(scores.shape[2:], level, device=scores.device)
        scores = scores[0].permute(1, 2, 0).reshape(-1).sigmoid()
        deltas = deltas[0].permute(1, 2, 0).reshape(-1, 4)
        count = scores.shape[0]
        scores, order = scores.topk(torch.sym_min(head.test_cfg.get("nms_pre", 1000), count))
        anchor = order // head.cls_out_channels
        return self._decode(anchors[anchor], deltas[anchor], size), scores, order % head.cls_out_channels

    def _decode(self, anchors: Tensor, deltas: Tensor, size: Sequence[int]) -> Tensor:
        """DeltaXYWHBBoxCoder's decode for a size that is open, clipped to the image."""
        coder = self.model.bbox_head.bbox_coder
        deltas = deltas * deltas.new_tensor(coder.stds) + deltas.new_tensor(coder.means)
        extent = anchors[:, 2:] - anchors[:, :2]
        centre = (anchors[:, :2] + anchors[:, 2:]) / 2 + extent * deltas[:, :2]
        limit = abs(math.log(16 / 1000))  # mmdet's wh_ratio_clip
        half = extent * deltas[:, 2:].clamp(-limit, limit).exp() / 2
        height, width = size
        most = torch.stack([anchors.new_ones(()) * length for length in (width, height)]).repeat(2)
        return torch.minimum(torch.cat([centre - half, centre + half], dim=1).clamp(min=0), most)

    def compare(self, images: Tensor, outputs: Sequence[Tensor]) -> Agreement:
        """By matching boxes of the same class, one to one."""
        with torch.no_grad():
            expected = self.original.test_step(self.loaded(images, DetDataSample))[0].pred_instances
        boxes, scores, labels = outputs
        free = torch.ones(len(boxes), dtype=torch.bool)
        for box, score, label in zip(expected.bboxes, expected.scores, expected.labels, strict=True):
            near = ((boxes - box).abs().amax(1) <= PIXELS) & ((scores - score).abs() <= SCORE) & (labels == label)
            found = (near & free).nonzero()
            if len(found):
                free[found[0]] = False
        matched, most = int((~free).sum()), max(len(boxes), len(expected))
        holds = most - matched <= UNMATCHED * most
        return Agreement(holds, f"{matched} boxes of {len(boxes)} match mmdet's {len(expected)}")
