"""Overlaps of boxes."""

from __future__ import annotations

import torch
from torch import Tensor


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Writes the overlaps of boxes into ious.

    Args:
        bboxes1: (N, 4), x1 y1 x2 y2.
        bboxes2: (M, 4); with aligned, M is N.
        ious: (N, M), or (N,) with aligned; written to.
        mode: 0 for intersection over union, 1 for intersection over the area of bboxes1.
        aligned: Each with its own partner instead of all with all.
        offset: 0, or 1 where a box from x1 to x2 is x2 - x1 + 1 pixels wide.
    """
    a, b = bboxes1 if aligned else bboxes1[:, None], bboxes2
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    inter = (high - low + offset).clamp(min=0).prod(dim=-1)
    area_a, area_b = ((t[..., 2:] - t[..., :2] + offset).prod(dim=-1) for t in (a, b))
    ious.copy_(inter / (area_a if mode else area_a + area_b - inter))
