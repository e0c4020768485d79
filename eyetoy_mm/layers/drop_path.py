"""Drop path (stochastic depth)."""

from __future__ import annotations

from torch import Tensor, nn

from eyetoy_mm.layers.checks import fraction


class DropPath(nn.Module):
    """Drop a residual branch for whole samples with probability ``rate`` (Huang et al., 2016).

    Raises:
        ValueError: ``rate`` outside ``[0, 1)``.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        fraction(drop_path=rate)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``(B, ...)`` -> the same shape; what is kept is scaled so that the mean stays."""
        if not self.training or self.rate == 0:
            return x
        keep = x.new_empty(x.shape[0], *(1,) * (x.dim() - 1)).bernoulli_(1 - self.rate)
        return x * keep / (1 - self.rate)

    def extra_repr(self) -> str:
        """The rate, in the printed model."""
        return f"{self.rate}"
