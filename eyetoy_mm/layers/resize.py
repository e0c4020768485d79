"""Resizing of channels-last maps ``(B, *spatial, C)``."""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from eyetoy_mm.layers.conv import to_channels_first, to_channels_last

_LINEAR_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def rescale(x: Tensor, scale_factor: float) -> Tensor:
    """Rescale linearly in every spatial axis to ``ceil(length * scale_factor)``, so that no map vanishes.

    An even axis and a factor of 0.5 give the mean of each pair of neighbors.
    """
    if scale_factor == 1:
        return x
    spatial = tuple(map(int, x.shape[1:-1])) if torch.jit.is_tracing() else x.shape[1:-1]  # a trace is for one size
    # in whole numbers, so that 1.1 makes 55 of 50 and not 56, here and in every runtime
    numerator, denominator = Fraction(scale_factor).limit_denominator(10**6).as_integer_ratio()
    size = [(length * numerator + denominator - 1) // denominator for length in spatial]
    mode = _LINEAR_MODES[x.dim() - 2]
    return to_channels_last(F.interpolate(to_channels_first(x), size=size, mode=mode, align_corners=False))
