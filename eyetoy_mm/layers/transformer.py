"""The MSNAT block and the stack of them (docs/architecture.md, sections 7 and 8).

All maps are channels-last ``(B, *spatial, C)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from eyetoy_mm.layers.attention import (
    MultiScaleMultiHeadNA1D,
    MultiScaleMultiHeadNA2D,
    MultiScaleMultiHeadNA3D,
)
from eyetoy_mm.layers.checks import fraction
from eyetoy_mm.layers.drop_path import DropPath
from eyetoy_mm.layers.mlp import FeedForward
from eyetoy_mm.layers.resize import rescale
from eyetoy_mm.params import MultiHeadAttentionParams, TransformerParams


class MSNATTransformer(nn.Module):
    """The block, which may downsample inside itself.

    ::

        x = Shortcut(Rescale(x)) + Dropout(MultiScaleMultiHeadNA(LayerNorm1(x)))
        x = x + Dropout(FFN(LayerNorm2(x)))

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; the shortcut is a linear map where they differ from ``in_channels``.
        attention_params: The attention.
        scale_factor: Factor on the map's size; the attention's own must agree.
        dropout: Dropout of both branches.
        drop_path: Drop path (stochastic depth) of both branches.

    Raises:
        ValueError: Channels or scale factors that do not fit together, or rates outside ``[0, 1)``.
    """

    attention_type: type[nn.Module]
    """Takes the fields of :class:`~eyetoy_mm.params.MultiHeadAttentionParams`; see docs/extending.md for one's own."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        attention_params: MultiHeadAttentionParams,
        scale_factor: float = 1.0,
        dropout: float = 0.2,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        fraction(dropout=dropout)
        if attention_params.scale_factor != scale_factor:
            raise ValueError(f"the block has {scale_factor=}, its attention {attention_params.scale_factor}")
        if attention_params.out_channels != out_channels:
            raise ValueError(f"the block has {out_channels=}, its attention {attention_params.out_channels}")
        for group, head in enumerate(attention_params.head_params):
            if head.in_channels != in_channels:
                raise ValueError(f"the block has {in_channels=}, head group {group} has {head.in_channels}")
        self.scale_factor = scale_factor
        self.layernorm1 = nn.LayerNorm(in_channels)
        self.multi_head_attention = self.attention_type(**attention_params.__dict__)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Linear(in_channels, out_channels)
        self.layernorm2 = nn.LayerNorm(out_channels)
        self.ffn = FeedForward(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, *spatial, in_channels)`` -> ``(B, *ceil(spatial * scale_factor), out_channels)``."""
        attended = self.multi_head_attention(self.layernorm1(x))
        x = self.shortcut(rescale(x, self.scale_factor)) + self.drop_path(self.dropout(attended))
        return x + self.drop_path(self.dropout(self.ffn(self.layernorm2(x))))


class MSNATTransformer1D(MSNATTransformer):
    """MSNAT block on sequences ``(B, L, C)``."""

    attention_type = MultiScaleMultiHeadNA1D


class MSNATTransformer2D(MSNATTransformer):
    """MSNAT block on images ``(B, H, W, C)``."""

    attention_type = MultiScaleMultiHeadNA2D


class MSNATTransformer3D(MSNATTransformer):
    """MSNAT block on volumes ``(B, D, H, W, C)``."""

    attention_type = MultiScaleMultiHeadNA3D


class TransformerStack(nn.Module):
    """Blocks one after the other, in stages: a block that rescales opens a new stage.

    Args:
        transformer_params: One entry per block.

    Raises:
        ValueError: No block, or a block that does not take the channels of the one before.
    """

    block_type: type[MSNATTransformer]

    def __init__(self, transformer_params: Sequence[TransformerParams]) -> None:
        super().__init__()
        if not transformer_params:
            raise ValueError("transformer_params must have at least one block, got none")
        for index, (before, after) in enumerate(pairwise(transformer_params), start=1):
            if before.out_channels != after.in_channels:
                raise ValueError(
                    f"block {index} takes in_channels={after.in_channels}, "
                    f"but block {index - 1} gives out_channels={before.out_channels}"
                )
        self.blocks = nn.ModuleList(self.block_type(**params.__dict__) for params in transformer_params)
        first = [i for i, params in enumerate(transformer_params) if i == 0 or params.scale_factor != 1]
        self.stages = [range(*bounds) for bounds in zip(first, [*first[1:], len(self.blocks)], strict=True)]
        self.stage_channels = [transformer_params[stage[-1]].out_channels for stage in self.stages]
        self.gradient_checkpointing = False

    def forward_stages(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the map ``(B, *spatial, C)`` at the end of each stage."""
        for stage in self.stages:
            for index in stage:
                block = self.blocks[index]
                if self.gradient_checkpointing and self.training:
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            yield x

    def forward(self, x: Tensor) -> Tensor:
        """``(B, *spatial, C_in)`` -> the map at the end of the last stage."""
        *_, last = self.forward_stages(x)
        return last


class TransformerStack1D(TransformerStack):
    """Stack on sequences ``(B, L, C)``."""

    block_type = MSNATTransformer1D


class TransformerStack2D(TransformerStack):
    """Stack on images ``(B, H, W, C)``."""

    block_type = MSNATTransformer2D


class TransformerStack3D(TransformerStack):
    """Stack on volumes ``(B, D, H, W, C)``."""

    block_type = MSNATTransformer3D
