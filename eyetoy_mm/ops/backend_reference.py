"""The ``reference`` back end: dense attention under a mask that is written down position by position.

To be read and tested against: time and memory grow with the square of the number of positions. Plain differentiable
operators throughout, so gradients of any order are exact.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eyetoy_mm.ops.neighborhood import Axis, Neighborhood


def refusal(query: Tensor, neighborhood: Neighborhood, bias: Tensor | None) -> str | None:
    """The reference runs every case."""
    return None


def attend(
    query: Tensor, key: Tensor, value: Tensor, neighborhood: Neighborhood, bias: Tensor | None, scale: float
) -> Tensor:
    """Softmax over the scores of all positions, of which those outside the neighborhood are removed."""
    # (B, *spatial, heads, dim) -> (B, heads, N, dim)
    q, k, v = (
        x.flatten(1, -3).transpose(1, 2).to(torch.promote_types(x.dtype, torch.float32)) for x in (query, key, value)
    )
    scores = q @ k.transpose(-2, -1) * scale
    if bias is not None:
        scores = scores + bias.to(scores.dtype).flatten(1)[:, _bias_index(neighborhood, query.device)]
    mask = torch.ones(1, 1, dtype=torch.bool, device="cpu")
    for axis in neighborhood.axes:
        mask = torch.kron(mask, attended(axis))  # position (i, j) attends to (i', j') if i does to i' and j does to j'
    weights = scores.masked_fill(~mask.to(query.device), -math.inf).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).unflatten(1, neighborhood.spatial).to(query.dtype)


def attended(axis: Axis) -> Tensor:
    """Boolean ``(L, L)``: row ``i`` marks the keys of position ``i``."""
    rows = [[key in axis.keys(position) for key in range(axis.length)] for position in range(axis.length)]
    return torch.tensor(rows, dtype=torch.bool, device="cpu")  # nothing is written into: tracers drop that


def _bias_index(neighborhood: Neighborhood, device: torch.device) -> Tensor:
    """Index ``(N, N)`` into the flattened bias; anything in range where a position does not attend."""
    index = torch.zeros(1, 1, dtype=torch.long, device="cpu")
    for axis in neighborhood.axes:
        axis_index = [[axis.bias_index(i, j) for j in range(axis.length)] for i in range(axis.length)]
        size = 2 * axis.kernel_size - 1
        pairs = (
            index[:, None, :, None] * size + torch.tensor(axis_index, device="cpu").clamp(0, size - 1)[None, :, None, :]
        )
        index = pairs.flatten(2, 3).flatten(0, 1)
    return index.to(device)
