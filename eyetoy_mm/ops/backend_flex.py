"""The ``flex`` back end: ``flex_attention`` compiled into a fused kernel, for CUDA without NATTEN's kernels.

The neighborhood is its ``mask_mod`` and the relative position bias its ``score_mod``, so this one trains with a bias.
On CPU ``flex_attention`` has no backward pass, and uncompiled it materialises every score: there the ``torch`` back end
is used.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from eyetoy_mm.ops.caching import cached_tensors
from eyetoy_mm.ops.flex import MaskMod, compile_for_case, make_block_mask
from eyetoy_mm.ops.neighborhood import Neighborhood


def refusal(query: Tensor, neighborhood: Neighborhood, bias: Tensor | None) -> str | None:
    """Why ``flex_attention`` cannot run this case, or None."""
    if not query.is_cuda:
        return f"compiled flex_attention trains on CUDA alone, the query is on {query.device}"
    if query.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"its kernels are for float32, float16 and bfloat16, the query is {query.dtype}"
    if torch._C._are_functorch_transforms_active():
        return "compiled flex_attention has no rules for the transforms of torch.func"
    if query.shape[-1] < 16:
        return f"its kernels need a head_dim of at least 16, got {query.shape[-1]}"
    if not torch.utils._triton.has_triton():
        return "its kernels are compiled with triton, which is not installed"
    return None


def attend(
    query: Tensor, key: Tensor, value: Tensor, neighborhood: Neighborhood, bias: Tensor | None, scale: float
) -> Tensor:
    """Call ``flex_attention`` on the flattened map."""
    # (B, heads, N, dim); flex_attention has no rule for tensors that are to be negated when read
    q, k, v = (x.flatten(1, -3).transpose(1, 2).resolve_neg() for x in (query, key, value))
    mask = _block_mask(neighborhood, query.device)
    output = _compiled(neighborhood, bias is not None)(q, k, v, bias, mask, scale)
    return output.transpose(1, 2).unflatten(1, neighborhood.spatial)


def coordinates(neighborhood: Neighborhood, index: Tensor) -> list[Tensor]:
    """Position along each axis of a position of the flattened map."""
    axis_positions = []
    for axis in reversed(neighborhood.axes):
        axis_positions.append(index % axis.length)
        index = index // axis.length
    return axis_positions[::-1]


def mask_mod(neighborhood: Neighborhood) -> MaskMod:
    """The neighborhood as ``flex_attention`` asks for it: whether a query attends to a key."""

    def attends(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        per_axis = zip(neighborhood.axes, coordinates(neighborhood, query), coordinates(neighborhood, key), strict=True)
        return functools.reduce(torch.logical_and, (axis.attends(i, j) for axis, i, j in per_axis))

    return attends


def score_mod(neighborhood: Neighborhood, bias: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The relative position bias as ``flex_attention`` asks for it: a score with its bias added."""
    flat = bias.flatten(1)

    def add_bias(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        index = torch.zeros_like(query)
        per_axis = zip(neighborhood.axes, coordinates(neighborhood, query), coordinates(neighborhood, key), strict=True)
        for axis, i, j in per_axis:
            index_on_axis = axis.bias_index(i, j).clamp(0, 2 * axis.kernel_size - 2)  # clamped where it is masked out
            index = index * (2 * axis.kernel_size - 1) + index_on_axis
        return score + flat[head, index]

    return add_bias


@cached_tensors(maxsize=64)
def _block_mask(neighborhood: Neighborhood, device: torch.device) -> BlockMask:
    return make_block_mask(mask_mod(neighborhood), math.prod(neighborhood.spatial), device)


@functools.lru_cache(maxsize=64)
def _compiled(neighborhood: Neighborhood, with_bias: bool) -> Callable[..., Tensor]:
    def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: BlockMask, scale: float) -> Tensor:
        modification = None if bias is None else score_mod(neighborhood, bias)
        return cast(Tensor, flex_attention(q, k, v, score_mod=modification, block_mask=mask, scale=scale))

    return compile_for_case(attention, neighborhood, with_bias)
