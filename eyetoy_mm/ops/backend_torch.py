"""The ``torch`` back end: plain PyTorch on any device, exact and trainable.

Works through the map in slabs of rows of its first axis: the queries of a slab attend to the rows that their windows
reach, under a mask that leaves exactly the neighborhood. No tensor grows with the square of the number of rows.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from eyetoy_mm.ops.neighborhood import Neighborhood, key_table

_SLAB_ROWS = 8  # queries' rows per slab; more rows mean fewer calls, but more scores computed and masked out


def refusal(query: Tensor, neighborhood: Neighborhood, bias: Tensor | None) -> str | None:
    """Plain PyTorch runs every case."""
    return None


def attend(
    query: Tensor, key: Tensor, value: Tensor, neighborhood: Neighborhood, bias: Tensor | None, scale: float
) -> Tensor:
    """Masked attention, one slab of rows after the other."""
    # (B, *spatial, heads, dim) -> (B, heads, rows, the other axes as one, dim)
    q, k, v = (
        x.movedim(-2, 1).flatten(3, -2) if x.dim() > 4 else x.movedim(-2, 1)[:, :, :, None] for x in (query, key, value)
    )
    rows = neighborhood.axes[0].length
    step = rows if neighborhood.axes[0].is_global else _SLAB_ROWS
    outputs = []
    for first in range(0, rows, step):
        slab = _slab(neighborhood, first, min(first + step, rows))
        mask = None if neighborhood.is_global else _mask(neighborhood, slab, query.device)
        if bias is not None:
            mask = _bias_and_mask(bias, mask, neighborhood, slab)
        queries = q[:, :, slab[0] : slab[1]].flatten(2, 3)
        keys, values = (x[:, :, slab[2] : slab[3]].flatten(2, 3) for x in (k, v))
        outputs.append(F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale))
    return torch.cat(outputs, dim=2).transpose(1, 2).reshape(query.shape)


Slab = tuple[int, int, int, int]  # first query row, end query row, first key row, end key row


@functools.lru_cache(maxsize=1024)
def _slab(neighborhood: Neighborhood, first: int, end: int) -> Slab:
    keys = key_table(neighborhood.axes[0])[first:end]
    return first, end, min(row[0] for row in keys), max(row[-1] for row in keys) + 1


@functools.lru_cache(maxsize=128)
def _mask(neighborhood: Neighborhood, slab: Slab, device: torch.device) -> Tensor:
    """Boolean (queries, keys) of a slab, True where a query attends."""
    first, end, first_key, end_key = slab
    mask = neighborhood.attended(0)[first:end, first_key:end_key]
    for axis in range(1, len(neighborhood.axes)):
        mask = _outer(mask, neighborhood.attended(axis), torch.logical_and)
    return mask.to(device)


def _outer(left: Tensor, right: Tensor, combine) -> Tensor:
    """(q1, k1) and (q2, k2) -> (q1 * q2, k1 * k2), combined pairwise."""
    pairs = combine(left[:, None, :, None], right[None, :, None, :])
    return pairs.flatten(0, 1).flatten(1, 2)


def _bias_and_mask(bias: Tensor, mask: Tensor | None, neighborhood: Neighborhood, slab: Slab) -> Tensor:
    """Additive (heads, queries, keys): the bias of each pair, -inf where a query does not attend."""
    index = torch.zeros(1, 1, dtype=torch.long)  # into the flattened bias; pairs that are masked out are clamped
    for number, axis in enumerate(neighborhood.axes):
        positions = torch.arange(axis.length)
        offset = torch.div(positions[None] - positions[:, None], axis.dilation, rounding_mode="floor")
        offset = (offset + axis.kernel_size - 1).clamp(0, 2 * axis.kernel_size - 2)
        if number == 0:
            offset = offset[slab[0] : slab[1], slab[2] : slab[3]]
        index = _outer(index * (2 * axis.kernel_size - 1), offset, torch.add)
    scores = bias.flatten(1)[:, index.to(bias.device)]
    return scores if mask is None else scores.masked_fill(~mask, float("-inf"))
