"""Classifiers of mmpretrain, from the image to the scores of all classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmpretrain.models import ImageClassifier
from mmpretrain.models.heads import ClsHead
from mmpretrain.structures import DataSample
from torch import Tensor

from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.errors import UserError
from eyetoy_mm.export.models import Agreement, ExportModel, agreement, keeps


class ExportClassifier(ExportModel):
    """An ImageClassifier of one label per image.

    Raises:
        UserError: A classifier or head of another kind.
    """

    task = "classification"
    outputs = {
        "scores": "(batch, classes), float32: probability of each class",
        "labels": "(batch,), int64: index of the most probable class",
    }

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor)
        model, head = predictor.model, getattr(predictor.model, "head", None)
        if not isinstance(model, ImageClassifier) or not keeps(head, ClsHead, "predict", "_get_predictions"):
            raise UserError(
                f"this model, {type(model).__name__} with {type(head).__name__}, is not exported whole: that is for "
                "ImageClassifier with a head of one label per image; --part backbone exports its backbone"
            )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, 3, H, W)`` -> scores ``(B, classes)`` and labels ``(B,)``."""
        scores = self.model(self.prepare(images), mode="tensor").softmax(1)
        return scores, scores.argmax(1)

    def compare(self, images: Tensor, outputs: Sequence[Tensor]) -> Agreement:
        """By the scores; the label must be that of the highest."""
        with torch.no_grad():
            samples = self.original.test_step(self.loaded(images, DataSample))
        scores, labels = outputs
        found = agreement([scores], [torch.stack([sample.pred_score for sample in samples])])
        same = int((labels == torch.cat([sample.pred_label for sample in samples])).sum())
        holds = found.holds and bool((labels == scores.argmax(1)).all())
        return Agreement(holds, f"{found.text}, {same} of {len(labels)} labels equal")
