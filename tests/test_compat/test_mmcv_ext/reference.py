"""What mmcv's operators are, one number at a time."""

from __future__ import annotations

import math

from torch import Tensor


def bilinear(plane: Tensor, y: float, x: float) -> Tensor | float:
    """mmcv's rule for regions: border values up to one pixel outside of plane (H, W), then 0."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = plane[top, left] * (left + 1 - x) + plane[top, right] * (x - left)
    lower = plane[bottom, left] * (left + 1 - x) + plane[bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def zero_padded_bilinear(plane: Tensor, y: float, x: float) -> Tensor | float:
    """The rule of deformable convolution: 0 outside of plane (H, W)."""
    total: Tensor | float = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < plane.size(0) and 0 <= column < plane.size(1):
                total = total + plane[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total
