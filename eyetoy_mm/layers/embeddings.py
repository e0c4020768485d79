"""Sinusoidal positional embeddings: any size, nothing learned, nothing stored."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PositionalEmbedding(nn.Module):
    """Sines and cosines of each axis' positions, one block of channels per axis.

    Source: docs/architecture.md, equation 11, after Vaswani et al. (2017), section 3.5.

    Args:
        dim: Channels of the map.

    Raises:
        ValueError: ``dim`` does not divide by 2 x the number of axes.
    """

    ndim: int

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1 or dim % (2 * self.ndim):
            raise ValueError(f"dim must divide by 2 x {self.ndim} axes for sine and cosine of each, got {dim=}")
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """The embedding ``(*spatial, dim)`` for a channels-last map ``x`` of shape ``(B, *spatial, C)``."""
        spatial = x.shape[1:-1]
        dim = self.dim // self.ndim
        # In float32 whatever x is: positions of a large map are not representable in half precision.
        even = torch.arange(0, dim, 2, device=x.device, dtype=torch.float32)
        frequencies = torch.exp(even * (-math.log(10000.0) / dim))
        blocks = []
        for axis, length in enumerate(spatial):
            angles = torch.arange(length, device=x.device, dtype=torch.float32)[:, None] * frequencies
            block = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)  # (length, dim), interleaved
            shape = [1] * self.ndim
            shape[axis] = length
            blocks.append(block.view(*shape, dim).expand(*spatial, dim))
        return torch.cat(blocks, dim=-1).to(x.dtype)


class PositionalEmbedding1D(PositionalEmbedding):
    """Embedding of a sequence ``(B, L, C)``."""

    ndim = 1


class PositionalEmbedding2D(PositionalEmbedding):
    """Embedding of an image ``(B, H, W, C)``: rows first, then columns."""

    ndim = 2


class PositionalEmbedding3D(PositionalEmbedding):
    """Embedding of a volume ``(B, D, H, W, C)``."""

    ndim = 3
