"""The feed-forward network of every block."""

from __future__ import annotations

from torch import Tensor, nn

from eyetoy_mm.layers.checks import at_least
from eyetoy_mm.layers.conv import has_hooks
from eyetoy_mm.ops.linear import is_for_onednn, linear


def apply_linear(layer: nn.Module, x: Tensor) -> Tensor:
    """``layer(x)``, and where that is no more than a large linear map, by the library that is faster at it."""
    if type(layer) is nn.Linear and is_for_onednn(x, layer.weight, layer.bias) and not has_hooks(layer):
        return linear(x, layer.weight, layer.bias)
    return layer(x)


class FeedForward(nn.Module):
    """Linear, GELU, linear, on the last axis. Source: docs/architecture.md, equation 10.

    Raises:
        ValueError: Channels or a ratio below 1.
    """

    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        at_least(1, channels=channels, ratio=ratio)
        self.fc1 = nn.Linear(channels, ratio * channels)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., channels)`` -> ``(..., channels)``."""
        return apply_linear(self.fc2, self.act(apply_linear(self.fc1, x)))
