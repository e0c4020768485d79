"""Large linear maps by oneDNN, which PyTorch has for x86-64 beside MKL.

:func:`torch.nn.functional.linear` takes MKL, which is slower on some machines where there are many rows, copies the
bias first, and is slower still in the gradient of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eyetoy_mm.ops.eager import EagerOperator, is_eager

LARGE = 2**25  # multiply-adds from which on it repays a call from Python
MANY_ROWS = 128  # from which on oneDNN is the faster one in the forward pass, too
_PRODUCT: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """:func:`torch.nn.functional.linear` of any tensors."""
    return _OPERATOR(x, weight, bias) if is_for_onednn(x, weight, bias) else F.linear(x, weight, bias)


def is_for_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether these are large, in a plain call, and shapes that fit: PyTorch has the messages for others."""
    if _PRODUCT is None or torch.compiler.is_compiling():
        return False
    size = x.numel()  # no number in a graph that is traced
    if type(size) is not int or x.dim() < 2 or weight.dim() != 2 or size * weight.shape[0] < LARGE:
        return False
    if not is_eager(x, weight, bias) or x.shape[-1] != weight.shape[1]:
        return False
    if bias is not None and bias.shape != weight.shape[:1]:
        return False
    return bool(torch.backends.mkldnn.enabled) and not torch.is_autocast_enabled("cpu")


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rows = x.flatten(0, -2)
    if len(rows) < MANY_ROWS:
        product = F.linear(rows, weight, bias)
    else:
        # contiguous: of a bias that repeats one number oneDNN reads the memory behind it, others it may refuse
        bias = None if bias is None else bias.contiguous()
        product = _PRODUCT(rows, weight.contiguous(), bias, "none", [], "")
    # autograd lets nobody write into a view that a function of ours returns, as an activation in place would
    return torch.ops.aten._unsafe_view(product, [*x.shape[:-1], len(weight)])


def _backward(gradient: Tensor, needed: Sequence[bool], x: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    gradients: list[Tensor] = []
    rows = gradient.flatten(0, -2)
    if needed[0]:
        gradients.append(_PRODUCT(gradient, weight.contiguous().t(), None, "none", [], ""))
    if needed[1]:
        gradients.append(rows.t() @ x.flatten(0, -2))
    if needed[2]:
        gradients.append(rows.sum(0))
    return gradients


_OPERATOR = EagerOperator(F.linear, _forward, _backward, keeps=lambda needed: (needed[1], needed[0], False))
