"""Large linear maps by oneDNN, which PyTorch has for x86-64 beside MKL.

PyTorch's own :func:`torch.nn.functional.linear` takes MKL, which is slower on some machines, copies the bias first, and
is slow where the weight is not transposed, as in the gradient of the input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eyetoy_mm.ops.eager import EagerOperator, is_eager

LARGE = 2**25  # multiply-adds from which on it repays a call from Python
_PRODUCT = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """:func:`torch.nn.functional.linear` of any tensors."""
    return _OPERATOR(x, weight, bias) if _is_for_onednn(x, weight, bias) else F.linear(x, weight, bias)


def _is_for_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    if _PRODUCT is None or not is_eager(x, weight, bias) or x.dim() < 2 or x.numel() * weight.shape[0] < LARGE:
        return False
    return torch.backends.mkldnn.enabled and not torch.is_autocast_enabled("cpu")


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _PRODUCT(x, weight, bias, "none", [], "")


def _backward(gradient: Tensor, needed: Sequence[bool], x: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    gradients: list[Tensor] = []
    rows = gradient.flatten(0, -2)
    if needed[0]:
        gradients.append(_PRODUCT(gradient, weight.t(), None, "none", [], ""))
    if needed[1]:
        gradients.append(rows.t() @ x.flatten(0, -2))
    if needed[2]:
        gradients.append(rows.sum(0))
    return gradients


_OPERATOR = EagerOperator(F.linear, _forward, _backward)
