"""The feed-forward network of every block."""

from __future__ import annotations

from torch import Tensor, nn

from eyetoy_mm.layers.checks import at_least
from eyetoy_mm.ops.gelu import gelu
from eyetoy_mm.ops.linear import linear


class GELU(nn.GELU):
    """:class:`torch.nn.GELU`, by kernels of our own where these can run."""

    def forward(self, x: Tensor) -> Tensor:
        """``(..., channels)`` -> the same shape."""
        return gelu(x)


class Linear(nn.Linear):
    """:class:`torch.nn.Linear`, by the faster of two libraries."""

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in_features)`` -> ``(..., out_features)``."""
        return linear(x, self.weight, self.bias)


class FeedForward(nn.Module):
    """Linear, GELU, linear, on the last axis. Source: docs/architecture.md, equation 10.

    Raises:
        ValueError: Channels or a ratio below 1.
    """

    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        at_least(1, channels=channels, ratio=ratio)
        self.fc1 = Linear(channels, ratio * channels)
        self.act = GELU()
        self.fc2 = Linear(ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., channels)`` -> ``(..., channels)``."""
        return self.fc2(self.act(self.fc1(x)))
