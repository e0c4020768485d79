"""Confusion matrices: how often something of a class (row) was predicted as a class (column)."""

from __future__ import annotations

import numpy as np

SCORE = 0.3  # from which on a detection is counted
_IOU = 0.5  # from which on a box is that of the truth


def confused_labels(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Count pairs of labels: ``(K, K)``. What is of no class, in the truth or the prediction, is left out.

    Args:
        truth: Labels ``(N,)``.
        predicted: The same.
        num_classes: K.
    """
    known = (truth >= 0) & (truth < num_classes) & (predicted < num_classes)
    pairs = truth[known].astype(np.int64) * num_classes + predicted[known]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def confused_boxes(truth: np.ndarray, predicted: np.ndarray, overlap: np.ndarray, num_classes: int) -> np.ndarray:
    """Count what each box of the truth was taken for, whatever its class: ``(K + 1, K + 1)``, the last of nothing.

    Args:
        truth: Labels ``(M,)``.
        predicted: Labels ``(N,)`` of detections, the best score first.
        overlap: Their IoU ``(N, M)``.
        num_classes: K.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    partner = match(overlap)
    for label, other in zip(predicted.tolist(), partner.tolist(), strict=True):
        counts[int(truth[other]) if other >= 0 else -1, label] += 1
    for missed in set(range(len(truth))) - set(partner.tolist()):
        counts[int(truth[missed]), -1] += 1
    return counts


def match(overlap: np.ndarray) -> np.ndarray:
    """The partner of each row at an IoU of 0.5, the first row first, each column once; -1 for none."""
    partner = np.full(len(overlap), -1)
    free = np.ones(overlap.shape[1], dtype=bool)
    for row in range(len(overlap)):
        left = np.where(free, overlap[row], -1.0)
        if left.size and left.max() >= _IOU:
            partner[row] = left.argmax()
            free[partner[row]] = False
    return partner


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of corners ``(N, 4)`` and ``(M, 4)``: ``(N, M)``."""
    low, high = np.maximum(first[:, None, :2], second[None, :, :2]), np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (first, second)]
    return both / np.maximum(areas[0][:, None] + areas[1][None] - both, 1e-9)
