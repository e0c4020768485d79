"""The feed-forward network of every block."""

from __future__ import annotations

from torch import Tensor, nn


class FeedForward(nn.Module):
    """Linear, GELU, linear, on the last axis. Source: the ``FFN`` of seed 001, section 4.1, with ratio 4."""

    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, ratio * channels)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., channels)`` -> ``(..., channels)``."""
        return self.fc2(self.act(self.fc1(x)))
