"""The ``natten`` back end: NATTEN's fused CUDA kernels. The only file that imports natten.

NATTEN >= 0.20 has kernels only in its compiled part (``natten.HAS_LIBNATTEN``); without it there is a CPU path that is
forward-only and materialises every score, which the ``torch`` back end beats, so it is not used.
"""

from __future__ import annotations

import functools
import importlib

import torch
from torch import Tensor

from eyetoy_mm.ops.neighborhood import Neighborhood


@functools.cache
def _unusable() -> str | None:
    try:
        natten = importlib.import_module("natten")
    except (ImportError, OSError, RuntimeError) as error:  # the last two where it was compiled for another PyTorch
        return f"natten cannot be imported ({error})"
    if not getattr(natten, "HAS_LIBNATTEN", False):
        return "natten is installed without its compiled part (natten.HAS_LIBNATTEN is False)"
    return None


def refusal(query: Tensor, neighborhood: Neighborhood, bias: Tensor | None) -> str | None:
    """Why NATTEN cannot run this case, or None."""
    if bias is not None:
        return "natten >= 0.20 has no relative position bias"
    if not query.is_cuda:
        return f"its kernels are for CUDA, the query is on {query.device}"
    if query.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"its kernels are for float32, float16 and bfloat16, the query is {query.dtype}"
    if torch._C._are_functorch_transforms_active():
        return "it has no rules for the transforms of torch.func"
    if query.shape[-1] % 8:
        return f"its kernels need a head_dim that divides by 8, got {query.shape[-1]}"
    for axis in neighborhood.axes:
        if axis.kernel_size < 2:
            return f"it needs a kernel_size of at least 2, got {axis.kernel_size}"
        if axis.kernel_size * axis.dilation > axis.length:
            reach = f"{axis.kernel_size} * {axis.dilation} > {axis.length}"
            return f"it needs kernel_size * dilation <= axis length, got {reach}"
    return _unusable()


def attend(
    query: Tensor, key: Tensor, value: Tensor, neighborhood: Neighborhood, bias: Tensor | None, scale: float
) -> Tensor:
    """Call ``na1d`` / ``na2d`` / ``na3d``."""
    na = getattr(importlib.import_module("natten"), f"na{len(neighborhood.axes)}d")
    output = na(query, key, value, kernel_size=neighborhood.kernel_size, dilation=neighborhood.dilation, scale=scale)
    if output.requires_grad and not torch.compiler.is_compiling():
        output.register_hook(_refuse_second_derivative)
    return output


def _refuse_second_derivative(gradient: Tensor) -> None:
    """NATTEN's gradients are no function of its inputs to autograd: without this, second derivatives lack a part."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the 'natten' back end has no second derivative (create_graph=True); choose another one, as in "
            "`with eyetoy_mm.ops.use_backend('torch'): ...`"
        )
