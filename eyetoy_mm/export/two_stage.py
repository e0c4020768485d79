"""Two-stage detectors of mmdet, from the image to boxes and masks: Faster, Mask and Cascade R-CNN."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from mmcv.ops import RoIAlign
from mmdet.models import TwoStageDetector
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads import BBoxHead, CascadeRoIHead, FCNMaskHead, SingleRoIExtractor, StandardRoIHead
from torch import Tensor, nn

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
from eyetoy_mm.export.models import Agreement, keeps
from eyetoy_mm.export.pasting import paste

PASTE = "pasted = [paste(mask, box, *photo.shape[:2]) >= {threshold} for mask, box in zip(masks, boxes)]\n"
MASK_PIXELS = 1e-3  # share of a mask's pixels that may be others: those whose probability is the threshold itself


class ExportTwoStage(ExportBoxes):
    """A Faster, Mask or Cascade R-CNN.

    Masks leave as the mask head has them, a probability for each cell of a grid on the box: a user wants them in the
    size of the photo, not of the image that the model gets, and a hundred of them in full are a hundred images.

    Raises:
        UserError: Parts or settings of the heads that are not exported.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        roi_head = predictor.model.roi_head
        refuse(f"a {type(predictor.model).__name__}", *self._refusals(predictor.model))
        if roi_head.with_mask:
            self.task = "instance segmentation"
            rows, columns = (2 * n for n in _stages(roi_head.mask_roi_extractor)[0].roi_layers[0].output_size)
            self.threshold = roi_head.test_cfg.mask_thr_binary
            self.outputs = self.outputs | {
                "masks": f"(boxes, {rows}, {columns}), float32: probability that a cell of a grid on the box is of the "
                f"object; from {self.threshold} on it is"
            }
            self.usage = f"\n\n{inspect.getsource(paste)}\n\n{PASTE.format(threshold=self.threshold)}"

    @staticmethod
    def takes(model: object) -> bool:
        """Whether a detector has the parts of one of these."""
        return isinstance(model, TwoStageDetector) and type(model.roi_head) in (StandardRoIHead, CascadeRoIHead)

    @staticmethod
    def last_head(model: Any) -> Any:
        """That of the regions."""
        return model.roi_head

    @staticmethod
    def _refusals(model: Any) -> list[dict[str, bool]]:
        rpn, roi_head = model.rpn_head, model.roi_head
        found = [
            {
                f"proposals of {type(rpn).__name__}": type(rpn) is not RPNHead,
                "proposals whose scores are no sigmoid": not getattr(rpn, "use_sigmoid_cls", False),
                "a shared head of regions": bool(roi_head.with_shared_head),
            },
            coder_refusals(getattr(rpn, "bbox_coder", None)),
            nms_refusals(model.test_cfg["rpn"].get("nms")),
            nms_refusals(model.test_cfg["rcnn"].get("nms")),
        ]
        for head in _stages(roi_head.bbox_head):
            own = keeps(head, BBoxHead, "predict_by_feat", "_predict_by_feat_single", "regress_by_class")
            found.append(coder_refusals(head.bbox_coder))
            found.append({f"boxes of {type(head).__name__}": not (own and head.with_cls and head.with_reg)})
            found.append({f"scores by {type(head.loss_cls).__name__}": bool(head.custom_cls_channels)})
        extractors = _stages(roi_head.bbox_roi_extractor)
        if roi_head.with_mask:
            extractors += _stages(roi_head.mask_roi_extractor)
            found.append({"mask_thr_binary below 0": roi_head.test_cfg.mask_thr_binary < 0})
            for head in _stages(roi_head.mask_head):
                own = keeps(head, FCNMaskHead, "predict_by_feat", "_predict_by_feat_single", "forward")
                found.append({f"masks of {type(head).__name__}": not own})
        for extractor in extractors:
            averages = all(isinstance(x, RoIAlign) and x.pool_mode == "avg" for x in extractor.roi_layers)
            found.append({f"regions by {type(extractor).__name__}": type(extractor) is not SingleRoIExtractor})
            found.append({f"regions by other layers than {RoIAlign.__name__} that averages": not averages})
        return found

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(1, 3, H, W)`` -> boxes ``(N, 4)``, scores ``(N,)``, labels ``(N,)``, and masks ``(N, h, w)`` if any."""
        size = images.shape[2:]
        maps = self.model.extract_feat(self.prepare(images))
        boxes, scores, labels = self._detections(maps, self._proposals(maps, size), size)
        if not self.model.roi_head.with_mask:
            return boxes, scores, labels
        return boxes, scores, labels, self._masks(maps, boxes, labels)

    def _proposals(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """The boxes ``(N, 4)`` of the region proposal network, best first."""
        rpn, config = self.model.rpn_head, self.model.test_cfg.rpn
        candidates = []
        for level, (scores, deltas) in enumerate(zip(*rpn(maps), strict=True)):
            anchors = rpn.prior_generator.single_level_grid_priors(scores.shape[2:], level, device=scores.device)
            scores, order = best(scores[0].permute(1, 2, 0).reshape(-1).sigmoid(), config.get("nms_pre", -1))
            deltas = deltas[0].permute(1, 2, 0).reshape(-1, 4)
            boxes = decode(rpn.bbox_coder, anchors[order], deltas[order], size)
            candidates.append((boxes, scores, torch.full_like(order, level)))
        boxes, scores, levels = (torch.cat(parts) for parts in zip(*candidates, strict=True))
        chosen = large_enough(boxes, config).nonzero()[:, 0]
        boxes, scores, levels = boxes[chosen], scores[chosen], levels[chosen]
        return boxes[suppress(boxes, scores, levels, config.nms)[: config.max_per_img]]

    def _detections(
        self, maps: Sequence[Tensor], regions: Tensor, size: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, scores and labels from regions ``(N, 4)``, which each stage but the last moves."""
        roi_head, config = self.model.roi_head, self.model.test_cfg.rcnn
        places = torch.arange(regions.shape[0], device=regions.device)
        regions = _with_one_more(regions)
        extractors, heads = _stages(roi_head.bbox_roi_extractor), _stages(roi_head.bbox_head)
        all_logits: list[Tensor] = []
        for extractor, head in zip(extractors, heads, strict=True):
            logits, deltas = head(pool_regions(extractor, maps, regions))
            deltas = deltas.unflatten(1, (-1, 4))
            all_logits.append(logits)
            if head is not heads[-1]:
                best_class = logits[:, :-1].argmax(1)
                regions = decode(head.bbox_coder, regions, _of_class(deltas, best_class), size)
        scores = torch.stack(all_logits).mean(0).softmax(1)[places, :-1]
        region, labels = (scores > self.score_thr).nonzero().unbind(1)
        scores = scores[region, labels]
        boxes = decode(heads[-1].bbox_coder, regions[region], _of_class(deltas[region], labels), size)
        kept = suppress(boxes, scores, labels, config.nms)
        kept = kept[: config.max_per_img] if config.max_per_img > 0 else kept  # as mmdet has it here, and here alone
        return boxes[kept], scores[kept], labels[kept]

    def _masks(self, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """The probabilities ``(N, h, w)`` of each box' class, the mean of all stages."""
        roi_head, places = self.model.roi_head, torch.arange(boxes.shape[0], device=boxes.device)
        boxes = _with_one_more(boxes)
        labels = torch.cat([labels, labels.new_zeros(1)])
        masks = []
        for extractor, head in zip(_stages(roi_head.mask_roi_extractor), _stages(roi_head.mask_head), strict=True):
            logits = head(pool_regions(extractor, maps, boxes))
            masks.append(_of_class(logits, labels).sigmoid())
        return torch.stack(masks).mean(0)[places]

    def compare(self, images: Tensor, outputs: Sequence[Tensor]) -> Agreement:
        """By matching boxes of the same class, one to one, and the masks of the same boxes, in pixels."""
        expected = self.predict(images)
        found, pairs = self.compare_boxes(expected, outputs[:3])
        if len(outputs) == 3:
            return found
        if len(outputs[3]) != len(outputs[0]):
            return Agreement(False, f"{found.text}, {len(outputs[3])} masks for {len(outputs[0])} boxes")
        if not pairs:
            return found
        theirs, ours = torch.tensor(pairs).unbind(1)
        height, width = images.shape[2:]
        has_area = (outputs[0][ours, 2:] > outputs[0][ours, :2]).all(1)  # mmdet paints some pixels where there is none
        theirs, ours = theirs[has_area], ours[has_area]
        masks, boxes = outputs[3][ours].numpy(), outputs[0][ours].numpy()
        differ = 0
        for mask, box, right in zip(masks, boxes, expected.masks[theirs].numpy(), strict=True):
            differ += int(((paste(mask, box, height, width) >= self.threshold) != right).sum())
        area = int(expected.masks[theirs].sum())
        holds = found.holds and differ <= MASK_PIXELS * area
        return Agreement(holds, f"{found.text}, {differ} pixels of masks differ of {area}")


def pool_regions(extractor: SingleRoIExtractor, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """SingleRoIExtractor's forward: ``(N, C, h, w)`` from boxes ``(N, 4)``, each from the map for its size."""
    maps = maps[: extractor.num_inputs]
    regions = torch.cat([boxes.new_zeros(boxes.shape[0], 1), boxes], dim=1)
    level = extractor.map_roi_levels(regions, len(maps))
    of_level = (level[:, None] == torch.arange(len(maps), device=level.device)).long()  # (N, levels)
    pooled = [
        torchvision.ops.roi_align(
            x,
            regions[mine.nonzero()[:, 0]],
            layer.output_size,
            layer.spatial_scale,
            layer.sampling_ratio,
            layer.aligned,
        )
        for x, layer, mine in zip(maps, extractor.roi_layers, of_level.unbind(1), strict=True)
    ]
    count = of_level.sum(0)
    place = (of_level.cumsum(0) - 1 + count.cumsum(0) - count)[torch.arange(level.shape[0], device=level.device), level]
    return torch.cat(pooled)[place]


def _with_one_more(boxes: Tensor) -> Tensor:
    """Boxes ``(N, 4)`` and one without area, since normalisations of heads fail in onnxruntime where there is none."""
    return torch.cat([boxes, boxes.new_zeros(1, 4)])


def _of_class(x: Tensor, labels: Tensor) -> Tensor:
    """``(N, classes, ...)``, or one class for all, -> ``(N, ...)``, of the class of each."""
    return x[:, 0] if x.shape[1] == 1 else x[torch.arange(x.shape[0], device=x.device), labels]


def _stages(part: nn.Module) -> list[Any]:
    """The parts of all stages of a cascade, or the only one."""
    return list(part) if isinstance(part, nn.ModuleList) else [part]
