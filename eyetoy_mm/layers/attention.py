"""Multi-scale multi-head neighborhood attention on channels-last maps; docs/architecture.md, sections 5 and 6."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eyetoy_mm.layers.checks import at_least, fraction
from eyetoy_mm.layers.conv import CONVS, has_hooks, keeps_size, to_channels_first, to_channels_last
from eyetoy_mm.layers.resize import rescale
from eyetoy_mm.ops import plain_form
from eyetoy_mm.ops.attention import autocast_dtype
from eyetoy_mm.ops.flops import is_counting
from eyetoy_mm.ops.packed_attention import packed_attention
from eyetoy_mm.ops.repeats import join_repeated
from eyetoy_mm.params import ConvParams, HeadParams, NeighborhoodAttentionParams


class SharedScaleNA(nn.Module):
    """One head group: tokenizer convolution -> ``qkv_proj`` -> neighborhood attention.

    Args:
        attn_params: Window and dilation of the group, in merged tokens.
        num_heads: Heads of this group alone.
        in_channels: Channels of the input.
        intermediate_channels: The head dim (``head_dim`` in ops): channels of one head.
        conv_params: The tokenizer; its stride is the merging factor, ``merging`` positions per axis become one token.
        dropout: Dropout of the tokens.

    Raises:
        ValueError: A window, dilation, head count or head dimension below 1, a dropout outside ``[0, 1)``, or a
            tokenizer that cannot be, or is for other channels, or loses the border of the map, or has tokens beyond.
    """

    ndim: int
    tokenizer: nn.Conv1d | nn.Conv2d | nn.Conv3d

    def __init__(
        self,
        attn_params: NeighborhoodAttentionParams,
        num_heads: int,
        in_channels: int,
        intermediate_channels: int,
        conv_params: ConvParams,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        at_least(
            1,
            attention_window=attn_params.attention_window,
            dilation=attn_params.dilation,
            num_heads=num_heads,
            intermediate_channels=intermediate_channels,
        )
        fraction(dropout=dropout)
        if attn_params.attention_stride != 1:
            raise ValueError(
                f"attention_stride must be 1 (a window for every token), got {attn_params.attention_stride}; "
                "for windows with gaps set dilation, for fewer tokens the stride of conv_params"
            )
        if conv_params.in_channels != in_channels:
            raise ValueError(f"the tokenizer takes in_channels={conv_params.in_channels}, the group {in_channels=}")
        self.attn_params = attn_params
        self.num_heads = num_heads
        self.merging = conv_params.stride
        self.padding_mode = conv_params.padding_mode
        self.tokenizer = CONVS[self.ndim](**conv_params.__dict__)
        if self.merging == 1 and not keeps_size(conv_params):
            raise ValueError(f"a tokenizer of stride 1 must keep the size of the map, got {conv_params}")
        reach = conv_params.dilation * (conv_params.kernel_size - 1)
        if not isinstance(conv_params.padding, str) and 2 * conv_params.padding > reach:
            raise ValueError(
                f"a tokenizer's padding must be at most {reach / 2:g}, half of dilation * (kernel_size - 1), got "
                f"{conv_params}: there would be more tokens than cells"
            )
        unpadded = conv_params.padding in ("valid", 0) or conv_params.kernel_size == 1
        self.cells_are_disjoint = conv_params.kernel_size == self.merging and conv_params.dilation == 1 and unpadded
        self.dropout = nn.Dropout(dropout)
        projection = ConvParams(
            1, in_channels=conv_params.out_channels, out_channels=3 * num_heads * intermediate_channels
        )
        self.qkv_proj = CONVS[self.ndim](**projection.__dict__)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, *spatial, C)`` -> ``(B, *ceil(spatial / merging), num_heads * head_dim)``."""
        if self._repays_a_matrix(x):
            qkv = self._tokenize_and_project(self._pad(x))
        else:
            qkv = self.qkv_proj(self.dropout(self.tokenizer(self._pad(x))))
        qkv = qkv.unflatten(-1, (3, self.num_heads, -1))
        return packed_attention(qkv, self.attn_params.attention_window, self.attn_params.dilation).flatten(-2)

    def _repays_a_matrix(self, x: Tensor) -> bool:
        """Whether tokenizer and projection had better become one matrix first: both are linear.

        Grouped convolutions are slow. On a GPU all of them are, in forward and backward pass, for layouts of their own
        and many launches. On a CPU those of 1 x 1 are; of the others, what they save in multiplications is worth more.

        What something else stands in for, or has hooks (pruning, norms of weights, shards), is to be called.
        """
        on_a_gpu = x.is_cuda and not plain_form.is_wanted()
        if not on_a_gpu and self.merging > 1:
            return False
        if not self.cells_are_disjoint or (self.training and self.dropout.p):
            return False
        convs = (self.tokenizer, self.qkv_proj)
        if not all(isinstance(conv, CONVS[self.ndim]) for conv in convs):
            return False
        if any(map(has_hooks, convs)) and not is_counting():  # who counts operations hooks all modules, for their names
            return False
        spatial = x.shape[1:-1]
        return on_a_gpu or plain_form.is_for_any_size(spatial) or math.prod(spatial) >= 2 * self.tokenizer.in_channels

    def _tokenize_and_project(self, x: Tensor) -> Tensor:
        """``(B, *spatial, C)`` of whole cells -> ``(B, *spatial / merging, 3 * heads * dim)`` by one matrix."""
        conv, proj = self.tokenizer, self.qkv_proj
        dtype = autocast_dtype(proj.weight)
        # in the parameters' own precision: fewer casts than of four tensors, and one rounding instead of two
        with contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            outer = proj.weight.reshape(proj.out_channels, conv.groups, -1).transpose(0, 1)
            inner = conv.weight.reshape(conv.groups, conv.out_channels // conv.groups, -1)
            weight = (outer @ inner).unflatten(-1, (conv.in_channels // conv.groups, -1))
            # (groups, 3 * heads * dim, in_channels / groups, cell) -> (3 * heads * dim, cell * in_channels)
            weight = weight.permute(1, 3, 0, 2).to(dtype, memory_format=torch.contiguous_format).flatten(1)
            bias = proj.bias if conv.bias is None else F.linear(conv.bias, proj.weight.flatten(1), proj.bias)
        return F.linear(self._cells(x), weight, bias)

    def _cells(self, x: Tensor) -> Tensor:
        """``(B, *spatial, C)`` -> ``(B, *spatial / merging, merging ** ndim * C)``: what becomes a token, as a row."""
        if self.merging == 1:
            return x
        for axis in range(1, 1 + 2 * self.ndim, 2):  # with both sizes: one to be found burdens graphs for all sizes
            x = x.unflatten(axis, (x.shape[axis] // self.merging, self.merging))
        tokens, within = range(1, 1 + 2 * self.ndim, 2), range(2, 2 + 2 * self.ndim, 2)
        return x.permute(0, *tokens, *within, -1).flatten(1 + self.ndim)

    def _pad(self, x: Tensor) -> Tensor:
        """Fills up the cells of a ragged border, at the far end of each axis: tokens cover every position."""
        conv = self.tokenizer
        if self.merging == 1:
            return x
        pads: list[int] = []
        for_any_size = plain_form.is_for_any_size(x.shape[1:-1])
        for axis in range(self.ndim):
            length = x.shape[1 + axis]
            padding = 0 if isinstance(conv.padding, str) else conv.padding[axis]
            if for_any_size:  # what the longest reach needs, which is one token for each cell of every length
                pads[:0] = (0, max(0, conv.dilation[axis] * (conv.kernel_size[axis] - 1) - 2 * padding))
                continue
            last = (-(-length // self.merging) - 1) * self.merging  # where the last token's cell begins
            reach = last + conv.dilation[axis] * (conv.kernel_size[axis] - 1) + 1
            pads[:0] = (0, max(0, reach - length - 2 * padding))  # F.pad counts from the last axis
        if not any(pads):
            return x
        if self.padding_mode == "zeros":
            return F.pad(x, [0, 0, *pads])
        return to_channels_last(F.pad(to_channels_first(x), pads, mode=self.padding_mode))


class SharedScaleNA1D(SharedScaleNA):
    """Head group on sequences ``(B, L, C)``."""

    ndim = 1


class SharedScaleNA2D(SharedScaleNA):
    """Head group on images ``(B, H, W, C)``."""

    ndim = 2


class SharedScaleNA3D(SharedScaleNA):
    """Head group on volumes ``(B, D, H, W, C)``."""

    ndim = 3


class MultiScaleMultiHeadNA(nn.Module):
    """Head groups at several scales in parallel, brought back to the input grid, concatenated, rescaled, projected.

    Args:
        head_params: One entry per head group; the module has the groups as ``heads``.
        intermediate_channels: The head dim, for the record: each group states its own.
        out_channels: Channels of the output.
        final_conv_params: The projection; its channels must be the heads' and ``out_channels``.
        scale_factor: Factor on the map's size, 1 to keep it.

    Raises:
        ValueError: No group, a scale factor that is not positive, or a projection that is for other channels or
            changes the size of the map.
    """

    ndim: int
    head_type: type[SharedScaleNA]

    def __init__(
        self,
        head_params: Sequence[HeadParams],
        intermediate_channels: int,
        out_channels: int,
        final_conv_params: ConvParams,
        scale_factor: float = 1.0,
    ) -> None:
        super().__init__()
        if not head_params:
            raise ValueError("head_params must have at least one head group, got none")
        if not 0 < scale_factor < math.inf:
            raise ValueError(f"scale_factor must be positive, got {scale_factor}")
        at_least(1, intermediate_channels=intermediate_channels)
        channels = sum(head.num_heads * head.intermediate_channels for head in head_params)
        if (final_conv_params.in_channels, final_conv_params.out_channels) != (channels, out_channels):
            raise ValueError(
                f"final_conv_params must map the heads' {channels} channels to {out_channels=}, "
                f"got {final_conv_params.in_channels} to {final_conv_params.out_channels}"
            )
        self.scale_factor = scale_factor
        self.merging = [head.conv_params.stride for head in head_params]
        self.heads = nn.ModuleList(self.head_type(**head.__dict__) for head in head_params)
        self.out_proj = CONVS[self.ndim](**final_conv_params.__dict__)
        if not keeps_size(final_conv_params):
            raise ValueError(f"final_conv_params must keep the size of the map, got {final_conv_params}")

    def forward(self, x: Tensor) -> Tensor:
        """``(B, *spatial, C_in)`` -> ``(B, *ceil(spatial * scale_factor), out_channels)``."""
        size = tuple(x.shape[1:-1])
        if x.device.type != "cpu":  # once for all groups, before they copy it; on CPUs their convolutions are float32
            x = x.to(autocast_dtype(x))
        joined = join_repeated([head(x) for head in self.heads], size, self.merging)
        return self.out_proj(rescale(joined, self.scale_factor))


class MultiScaleMultiHeadNA1D(MultiScaleMultiHeadNA):
    """Multi-scale attention on sequences ``(B, L, C)``."""

    ndim = 1
    head_type = SharedScaleNA1D


class MultiScaleMultiHeadNA2D(MultiScaleMultiHeadNA):
    """Multi-scale attention on images ``(B, H, W, C)``."""

    ndim = 2
    head_type = SharedScaleNA2D


class MultiScaleMultiHeadNA3D(MultiScaleMultiHeadNA):
    """Multi-scale attention on volumes ``(B, D, H, W, C)``."""

    ndim = 3
    head_type = SharedScaleNA3D
