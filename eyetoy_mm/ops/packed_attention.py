"""Neighborhood attention of query, key and value that lie side by side in one tensor, as one projection gives them.

Where the ``cpp`` back end runs they are one tensor for autograd, too: views of the three and the joining of their
gradients take longer than the attention of a small map.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from eyetoy_mm.ops import backend_cpp, flops, selection
from eyetoy_mm.ops.attention import BACKENDS, checked_neighborhood, neighborhood_attention
from eyetoy_mm.ops.eager import EagerOperator, have_kernels_for
from eyetoy_mm.ops.neighborhood import Neighborhood


def packed_attention(qkv: Tensor, kernel_size: int, dilation: int = 1) -> Tensor:
    """Attend as ``neighborhood_attention(*qkv.unbind(-3), kernel_size, dilation)``.

    Args:
        qkv: ``(B, *spatial, 3, heads, head_dim)``.
        kernel_size: Window size in positions on every axis.
        dilation: Distance between the positions of a window.

    Returns:
        ``(B, *spatial, heads, head_dim)``.

    Raises:
        ValueError: As :func:`~eyetoy_mm.ops.neighborhood_attention`.
    """
    if have_kernels_for(qkv) and not torch.is_autocast_enabled("cpu") and not flops.is_counting():
        neighborhood, numbers = _case(qkv.shape, kernel_size, dilation)
        if selection.choose(BACKENDS, None, qkv, neighborhood, None) is backend_cpp:
            if neighborhood.is_global and len(neighborhood.axes) > 1:  # a sequence fills tiles better
                spatial = neighborhood.spatial
                return packed_attention(qkv.flatten(1, -4), math.prod(spatial)).unflatten(1, spatial)
            return _OPERATOR(qkv, **numbers)
    query, key, value = qkv.unbind(-3)
    return neighborhood_attention(query, key, value, kernel_size, dilation)


@functools.lru_cache(maxsize=4096)
def _case(shape: tuple[int, ...], kernel_size: int, dilation: int) -> tuple[Neighborhood, dict[str, Any]]:
    """The neighborhood, and the numbers that the operator takes."""
    neighborhood = checked_neighborhood((*shape[:-3], *shape[-2:]), kernel_size, dilation)
    scale = shape[-1] ** -0.5
    return neighborhood, dict(kernel_size=neighborhood.kernel_size, dilation=neighborhood.dilation, scale=scale)


def _definition(qkv: Tensor, **numbers: Any) -> Tensor:
    return backend_cpp.OPERATOR(*qkv.unbind(-3), None, *numbers.values())


def _forward(qkv: Tensor, **numbers: Any) -> Tensor:
    qkv = backend_cpp.readable(qkv)
    output = qkv.new_empty((*qkv.shape[:-3], *qkv.shape[-2:]))
    backend_cpp.run("eyetoy_forward", (qkv, output), **numbers)
    return output


def _backward(gradient: Tensor, needed: Sequence[bool], qkv: Tensor, **numbers: Any) -> list[Tensor]:
    qkv = backend_cpp.readable(qkv)
    of_qkv = qkv.new_zeros(qkv.shape)
    backend_cpp.run("eyetoy_backward", (backend_cpp.readable(gradient), qkv, of_qkv), **numbers)
    return [of_qkv]


_OPERATOR = EagerOperator(_definition, _forward, _backward)
