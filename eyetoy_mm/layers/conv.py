"""Convolutions on channels-last tensors ``(B, *spatial, C)``, the layout of all layers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


def to_channels_first(x: Tensor) -> Tensor:
    """``(B, *spatial, C)`` -> ``(B, C, *spatial)``, a view."""
    return x.movedim(-1, 1)


def to_channels_last(x: Tensor) -> Tensor:
    """``(B, C, *spatial)`` -> ``(B, *spatial, C)``, a view."""
    return x.movedim(1, -1)


class _ChannelsLastConv(_ConvNd):
    """Mixin for ``nn.ConvNd``: channels-last in and out, and 1x1 convolutions run as matrix products."""

    def __init__(self, **params) -> None:
        if params["padding"] == "same" and params["stride"] != 1:
            raise ValueError(f"padding='same' needs stride=1, got stride={params['stride']}")
        super().__init__(**params)
        self.is_pointwise = set(self.kernel_size) == set(self.stride) == {1} and self.groups == 1
        self.is_pointwise = self.is_pointwise and self.padding in ("same", "valid", (0,) * len(self.kernel_size))

    def forward(self, x: Tensor) -> Tensor:
        if self.is_pointwise:
            return F.linear(x, self.weight.flatten(1), self.bias)
        return to_channels_last(super().forward(to_channels_first(x)))


class Conv1D(_ChannelsLastConv, nn.Conv1d):
    """:class:`torch.nn.Conv1d` on ``(B, L, C)``."""


class Conv2D(_ChannelsLastConv, nn.Conv2d):
    """:class:`torch.nn.Conv2d` on ``(B, H, W, C)``."""


class Conv3D(_ChannelsLastConv, nn.Conv3d):
    """:class:`torch.nn.Conv3d` on ``(B, D, H, W, C)``."""


CONVS: dict[int, type[Conv1D | Conv2D | Conv3D]] = {1: Conv1D, 2: Conv2D, 3: Conv3D}
"""The convolution for each number of spatial dimensions."""
