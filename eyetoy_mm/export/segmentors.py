"""Segmentors of mmseg, from the image to the label of each pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor

from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.errors import UserError
from eyetoy_mm.export.models import TOLERANCE, Agreement, ExportModel, keeps


class ExportSegmentor(ExportModel):
    """An EncoderDecoder, whose head gives a map of logits.

    Raises:
        UserError: A segmentor or head of another kind.
    """

    task = "semantic segmentation"
    outputs = {"labels": "(batch, height, width), int64: index of the class of each pixel"}

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        model, head = predictor.model, getattr(predictor.model, "decode_head", None)
        if type(model) is not EncoderDecoder or not keeps(head, BaseDecodeHead, "predict", "predict_by_feat"):
            raise UserError(
                f"this model, {type(model).__name__} with {type(head).__name__}, is not exported whole: that is for "
                "EncoderDecoder with a head that gives a map of logits; --part backbone exports its backbone"
            )
        if model.test_cfg.get("mode", "whole") != "whole":
            model.test_cfg = ConfigDict(mode="whole")
            self.remarks.append("The config predicts by sliding windows; the file predicts the whole image at once.")

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """``(B, 3, H, W)`` -> labels ``(B, H, W)``."""
        height, width = images.shape[2:]
        x = self.prepare(images)
        head = self.model.decode_head
        logits = head(self.model.extract_feat(x))
        logits = F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=head.align_corners)
        logits = logits[:, :, :height, :width]
        if head.out_channels == 1:
            return ((logits[:, 0].sigmoid() > head.threshold).long(),)
        return (logits.argmax(1),)

    def compare(self, images: Tensor, outputs: Sequence[Tensor]) -> Agreement:
        """By the logits: a label may be another one only where the toolbox itself is as good as undecided."""
        with torch.no_grad():
            samples = self.original.test_step(self.loaded(images, SegDataSample))
        logits = torch.stack([sample.seg_logits.data for sample in samples])
        expected = torch.stack([sample.pred_sem_seg.data[0] for sample in samples])
        (labels,) = outputs
        if labels.shape != expected.shape:
            return Agreement(False, f"labels {tuple(labels.shape)} instead of {tuple(expected.shape)}")
        if logits.shape[1] == 1:
            threshold = self.model.decode_head.threshold
            behind = (logits[:, 0] - threshold).abs() * (labels != expected)
        else:
            behind = logits.amax(1) - logits.gather(1, labels[:, None])[:, 0]
        equal = int((labels == expected).sum())
        most = (behind.max() / logits.abs().max()).item()
        return Agreement(
            most <= TOLERANCE,
            f"{equal} of {labels.numel()} labels equal, others behind by {most:.1e} of the largest logit",
        )
