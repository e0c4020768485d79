"""What the page of ``eyetoy app`` shows of a photo: the prediction, a table of it, and what a position attends to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from mmengine.structures import BaseDataElement

from eyetoy_mm.encoder import Encoder2D
from eyetoy_mm.engine.attention_picture import picture_attention
from eyetoy_mm.engine.inference import Predictor
from eyetoy_mm.engine.predictions import prediction_of

_MOST_CLASSES = 10  # of a classifier

Rows = list[tuple[str, str]]


def predict(predictor: Predictor, photo: str | Path, threshold: float) -> tuple[np.ndarray, Rows]:
    """Predict a photo.

    Args:
        predictor: The model.
        photo: Its file.
        threshold: Detections with a lower score are left out.

    Returns:
        The painted prediction, RGB of 8 bits, and the rows of its table.

    Raises:
        UserError: The file is no image.
    """
    image = predictor.read(photo)
    predictor.painter.score_threshold = threshold
    sample = predictor.predict(image)
    return predictor.paint(image, sample), table_of(sample, predictor.dataset_meta, threshold)


def table_of(sample: BaseDataElement, dataset_meta: Mapping[str, Any], threshold: float) -> Rows:
    """Names with shares of the pixels (of classes or of panoptic segments), scores of objects, or probabilities.

    Args:
        sample: Of mmseg, mmdet or mmpretrain.
        dataset_meta: ``classes``.
        threshold: Objects with a lower score are left out.

    Returns:
        The rows, the largest value first.
    """
    names = dataset_meta["classes"]
    in_pixels = "pred_panoptic_seg" in sample or "pred_sem_seg" in sample
    if "pred_panoptic_seg" in sample:
        height, width = sample.pred_panoptic_seg.sem_seg.shape[-2:]
        segments = prediction_of(sample, (height, width), len(names)).instances
        assert segments is not None
        labels = torch.from_numpy(segments.labels)
        values = torch.tensor([mask.inside.sum() / (height * width) for mask in segments.masks or ()])
    elif in_pixels:
        labels, counts = sample.pred_sem_seg.data.unique(return_counts=True)
        values = counts / counts.sum()
    elif "pred_instances" in sample:
        kept = sample.pred_instances.scores >= threshold
        labels, values = sample.pred_instances.labels[kept], sample.pred_instances.scores[kept]
    else:
        values, labels = sample.pred_score.topk(min(_MOST_CLASSES, len(sample.pred_score)))
    order = torch.argsort(values, descending=True, stable=True).tolist()
    rows = [(str(names[int(labels[i])]), float(values[i])) for i in order]
    return [(name, f"{100 * value:.1f} %" if in_pixels else f"{value:.3f}") for name, value in rows]


def attend(predictor: Predictor, photo: str | Path, position: tuple[int, int], block: int) -> np.ndarray:
    """Draw what a position of a photo attends to, and below it what the global tokens do, where there are any.

    Args:
        predictor: The model.
        photo: Its file.
        position: Column and row of a pixel.
        block: The block whose head groups are drawn.

    Returns:
        RGB of 8 bits.

    Raises:
        UserError: As :func:`~eyetoy_mm.engine.attention_picture.picture_attention`.
    """
    encoder = encoder_of(predictor)
    tokens = 4 if encoder is not None and encoder.global_attention is not None else 0
    figure = picture_attention(predictor, predictor.read(photo), position, block, tokens)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def encoder_of(predictor: Predictor) -> Encoder2D | None:
    """The EyeToy encoder in a model, whose attention can be drawn; None where there is none."""
    return next((module for module in predictor.model.modules() if isinstance(module, Encoder2D)), None)
