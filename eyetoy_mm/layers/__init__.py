"""Modules that own weights and call ops. All of them work on channels-last maps ``(B, *spatial, C)``."""

from eyetoy_mm.layers.attention import (
    MultiScaleMultiHeadNA1D,
    MultiScaleMultiHeadNA2D,
    MultiScaleMultiHeadNA3D,
    SharedScaleNA1D,
    SharedScaleNA2D,
    SharedScaleNA3D,
)
from eyetoy_mm.layers.conv import Conv1D, Conv2D, Conv3D
from eyetoy_mm.layers.drop_path import DropPath
from eyetoy_mm.layers.embeddings import PositionalEmbedding1D, PositionalEmbedding2D, PositionalEmbedding3D
from eyetoy_mm.layers.global_attention import GlobalAttentionStack, GlobalAttentionTransformer
from eyetoy_mm.layers.mlp import FeedForward
from eyetoy_mm.layers.transformer import (
    MSNATTransformer1D,
    MSNATTransformer2D,
    MSNATTransformer3D,
    TransformerStack1D,
    TransformerStack2D,
    TransformerStack3D,
)

__all__ = [
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "DropPath",
    "FeedForward",
    "GlobalAttentionStack",
    "GlobalAttentionTransformer",
    "MSNATTransformer1D",
    "MSNATTransformer2D",
    "MSNATTransformer3D",
    "MultiScaleMultiHeadNA1D",
    "MultiScaleMultiHeadNA2D",
    "MultiScaleMultiHeadNA3D",
    "PositionalEmbedding1D",
    "PositionalEmbedding2D",
    "PositionalEmbedding3D",
    "SharedScaleNA1D",
    "SharedScaleNA2D",
    "SharedScaleNA3D",
    "TransformerStack1D",
    "TransformerStack2D",
    "TransformerStack3D",
]
