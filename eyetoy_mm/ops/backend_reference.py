"""The ``reference`` back end: gathers the keys of every position. Slow, to be read and to be tested against.

Written in plain differentiable operators, so gradients of any order are exact.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from eyetoy_mm.ops.neighborhood import Neighborhood, key_table


def refusal(query: Tensor, neighborhood: Neighborhood, bias: Tensor | None) -> str | None:
    """The reference runs every case."""
    return None


def attend(
    query: Tensor, key: Tensor, value: Tensor, neighborhood: Neighborhood, bias: Tensor | None, scale: float
) -> Tensor:
    """Softmax over each position's own list of keys, one position after the other."""
    tables = [key_table(axis) for axis in neighborhood.axes]
    rows = []
    for position in itertools.product(*(range(length) for length in neighborhood.spatial)):
        q = _at(query, position)  # (B, heads, dim)
        neighbors = list(itertools.product(*(table[i] for table, i in zip(tables, position, strict=True))))
        k = torch.stack([_at(key, neighbor) for neighbor in neighbors], dim=2)  # (B, heads, keys, dim)
        v = torch.stack([_at(value, neighbor) for neighbor in neighbors], dim=2)
        scores = torch.einsum("bhd,bhkd->bhk", q * scale, k)
        if bias is not None:
            scores = scores + torch.stack([bias[_bias_index(neighborhood, position, n)] for n in neighbors], dim=-1)
        rows.append(torch.einsum("bhk,bhkd->bhd", scores.softmax(dim=-1), v))
    return torch.stack(rows, dim=1).reshape(query.shape)


def _bias_index(neighborhood: Neighborhood, position: tuple[int, ...], neighbor: tuple[int, ...]) -> tuple:
    offsets = zip(neighborhood.axes, position, neighbor, strict=True)
    return (slice(None), *(axis.bias_index(i, j) for axis, i, j in offsets))


def _at(x: Tensor, position: tuple[int, ...]) -> Tensor:
    """``x[:, i, j, ...]``."""
    for index in position:
        x = x[:, index]
    return x
