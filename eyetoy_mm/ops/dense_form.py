"""Neighborhood attention on a small map: all pairs of positions at once, under a mask, in plain operators.

Where a map has few positions, or a window covers most of it, cutting it into tiles costs more than the scores it saves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eyetoy_mm.ops.caching import cached_tensors
from eyetoy_mm.ops.neighborhood import Neighborhood

SMALL_MAP = 256  # positions; see docs/performance.md


def is_wanted(neighborhood: Neighborhood, bias: Tensor | None) -> bool:
    """Whether this is the faster way: the map is small, and has no bias to be gathered for every pair."""
    return bias is None and math.prod(neighborhood.spatial) <= SMALL_MAP


def attend(query: Tensor, key: Tensor, value: Tensor, neighborhood: Neighborhood, scale: float) -> Tensor:
    """Masked attention between all positions; float16 and bfloat16 are computed in float32."""
    compute = torch.float64 if query.dtype == torch.float64 else torch.float32
    q, k, v = (x.flatten(1, -3).transpose(1, 2).to(compute) for x in (query, key, value))  # (B, heads, N, dim)
    scores = (q * scale) @ k.transpose(-2, -1)
    if not neighborhood.is_global:
        scores = scores + _mask(neighborhood, compute, query.device)
    output = scores.softmax(-1) @ v
    return output.transpose(1, 2).unflatten(1, neighborhood.spatial).to(query.dtype)


@cached_tensors(maxsize=64)
def _mask(neighborhood: Neighborhood, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``(N, N)``, 0 where a row attends to a column and -inf elsewhere."""
    attends = torch.ones(1, 1, dtype=torch.bool, device=device)
    for axis in neighborhood.axes:
        position = torch.arange(axis.length, device=device)
        attends_on_axis = axis.attends(position[:, None], position[None, :])
        # positions of the axes so far and of this one, flattened row-major
        attends = (attends[:, None, :, None] & attends_on_axis[None, :, None, :]).flatten(2, 3).flatten(0, 1)
    return torch.zeros(attends.shape, dtype=dtype, device=device).masked_fill(~attends, -math.inf)
