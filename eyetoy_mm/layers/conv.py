"""Convolutions on channels-last tensors ``(B, *spatial, C)``, the layout of all layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _every_module
from torch.nn.modules.conv import _ConvNd

from eyetoy_mm.layers.checks import at_least
from eyetoy_mm.ops.cells import convolve_cells, have_kernels_for
from eyetoy_mm.ops.linear import linear
from eyetoy_mm.params import ConvParams


def to_channels_first(x: Tensor) -> Tensor:
    """``(B, *spatial, C)`` -> ``(B, C, *spatial)``, a view."""
    return x.permute(0, -1, *range(1, x.dim() - 1))


def to_channels_last(x: Tensor) -> Tensor:
    """``(B, C, *spatial)`` -> ``(B, *spatial, C)``, a view."""
    return x.permute(0, *range(2, x.dim()), 1)


def keeps_size(params: ConvParams) -> bool:
    """Whether every map leaves the convolution as large as it came."""
    if params.padding == "same":
        return True
    padding = 0 if isinstance(params.padding, str) else params.padding
    return params.stride == 1 and 2 * padding == params.dilation * (params.kernel_size - 1)


def has_hooks(module: nn.Module) -> bool:
    """Whether something is to run when the module is called; to take its weights without a call would skip it."""
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    if any(map(bool, hooks)) or _every_module._has_any_global_hook():
        return True
    return "forward" in module.__dict__  # which is how some put their own in its place


class _ChannelsLastConv(_ConvNd):
    """Mixin for ``nn.ConvNd``: channels-last in and out, and 1x1 convolutions run as matrix products.

    Takes the fields of :class:`~eyetoy_mm.params.ConvParams`, with its defaults.

    Raises:
        ValueError: A field below 1, groups that do not divide the channels, or a padding that cannot be.
    """

    def __init__(self, **fields: Any) -> None:
        params = ConvParams(**fields)
        at_least(
            1,
            in_channels=params.in_channels,
            out_channels=params.out_channels,
            kernel_size=params.kernel_size,
            stride=params.stride,
            dilation=params.dilation,
            groups=params.groups,
        )
        if params.in_channels % params.groups or params.out_channels % params.groups:
            raise ValueError(
                f"groups must divide the channels, got groups={params.groups} for in_channels={params.in_channels} "
                f"and out_channels={params.out_channels}"
            )
        if params.padding == "same" and params.stride != 1:
            raise ValueError(f"padding='same' needs stride=1, got stride={params.stride}")
        if params.padding not in ("same", "valid"):
            if isinstance(params.padding, str):
                raise ValueError(f"padding must be a number, 'same' or 'valid', got {params.padding!r}")
            at_least(0, padding=params.padding)
        if params.padding_mode not in ("zeros", "replicate"):
            raise ValueError(f"padding_mode must be 'zeros' or 'replicate', got {params.padding_mode!r}")
        super().__init__(**params.__dict__)
        if not any(self._reversed_padding_repeated_twice):
            self.padding_mode = "zeros"  # with another PyTorch copies the map, although it pads nothing
        self.is_per_position = set(self.kernel_size) == set(self.stride) == {1}
        self.is_per_position &= self.padding in ("same", "valid", (0,) * len(self.kernel_size))
        self.cuts_cells = params.kernel_size == params.stride and params.dilation == 1
        self.cuts_cells &= params.padding in ("same", "valid", 0)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != len(self.kernel_size) + 2:  # a matrix product would take it
            raise ValueError(
                f"{type(self).__name__} takes (B, *spatial, C) with {len(self.kernel_size)} spatial axes, got a tensor "
                f"of shape {tuple(x.shape)}"
            )
        if self.is_per_position and self.groups == 1:
            return linear(x, self.weight.flatten(1), self.bias)
        if self.groups > 1 and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # PyTorch's backward pass of grouped convolutions in bfloat16 takes 3 to 5 times that in float32 on CPUs.
            with torch.autocast("cpu", enabled=False):
                return self._convolve(x.to(self.weight.dtype))
        return self._convolve(x)

    def _convolve(self, x: Tensor) -> Tensor:
        if self.cuts_cells and self.groups > 1 and have_kernels_for(x, self.weight, self.bias, self.groups):
            return convolve_cells(x, self.weight, self.bias, self.groups)
        return to_channels_last(super().forward(to_channels_first(x)))


class Conv1D(_ChannelsLastConv, nn.Conv1d):
    """:class:`torch.nn.Conv1d` on ``(B, L, C)``."""


class Conv2D(_ChannelsLastConv, nn.Conv2d):
    """:class:`torch.nn.Conv2d` on ``(B, H, W, C)``."""


class Conv3D(_ChannelsLastConv, nn.Conv3d):
    """:class:`torch.nn.Conv3d` on ``(B, D, H, W, C)``."""


CONVS: dict[int, type[Conv1D | Conv2D | Conv3D]] = {1: Conv1D, 2: Conv2D, 3: Conv3D}
"""The convolution for each number of spatial dimensions."""
