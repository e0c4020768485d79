"""Neighborhood attention in plain, differentiable operators: for export, and for gradients of gradients.

The tiles of :mod:`eyetoy_mm.ops.tiles`, all at once. Index tables select the queries of every tile and the keys of its
halo (dilation groups and ragged tiles are only other indices); attention within the tiles is one batched product under
a mask per axis. There is no loop and no control flow, so a graph of it is small whatever the map. All scores exist at
once; their number is linear in the number of positions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eyetoy_mm.ops.neighborhood import Axis, Neighborhood
from eyetoy_mm.ops.tiles import tile_size


def is_wanted() -> bool:
    """Whether a graph is being exported, in which an operator of our own would mean nothing to others."""
    if torch.compiler.is_dynamo_compiling():  # torch.compile, where `is_exporting` is True too; it takes our operator
        return False
    return torch.onnx.is_in_onnx_export() or torch.jit.is_tracing() or torch.compiler.is_exporting()


def is_for_any_size(spatial: Sequence[int]) -> bool:
    """Whether a graph is being exported in which an axis of the map has no length yet.

    Index tables cannot be made then. The operator stays one node, and whoever translates the graph says what it means:
    :mod:`eyetoy_mm.export` does so for ONNX.
    """
    return any(isinstance(length, torch.SymInt) for length in spatial) and is_wanted()


def attend(
    query: Tensor, key: Tensor, value: Tensor, neighborhood: Neighborhood, bias: Tensor | None, scale: float
) -> Tensor:
    """Attention within all tiles at once."""
    n = len(neighborhood.axes)
    tables = [_table(axis, size) for axis, size in zip(neighborhood.axes, tile_size(neighborhood.axes), strict=True)]
    queries, keys = [table.queries for table in tables], [table.keys for table in tables]
    compute = torch.float64 if query.dtype == torch.float64 else torch.float32
    q = _select(query.to(compute) * scale, queries)  # (B, heads, tiles per axis..., queries of a tile, dim)
    k, v = _select(key.to(compute), keys), _select(value.to(compute), keys)
    scores = q @ k.transpose(-2, -1)
    shape = scores.shape
    # one axis each for the tiles, the queries and the keys of each axis of the map
    scores = scores.unflatten(-1, [len(tile[0]) for tile in keys]).unflatten(2 + n, [len(tile[0]) for tile in queries])
    for i, table in enumerate(tables):
        mask = torch.tensor(table.attended, dtype=torch.bool, device=query.device)  # (tiles, queries, keys)
        ones = [1] * (n - 1 - i)  # axes of the map between one of these three and the next
        mask = mask.view(mask.shape[0], *[1] * (n - 1), mask.shape[1], *[1] * (n - 1), mask.shape[2], *ones)
        scores = scores.masked_fill(~mask, -math.inf)
    if bias is not None:
        scores = scores + _bias(bias.to(compute), tables)
    output = scores.reshape(shape).softmax(-1) @ v
    return _unselect(output, tables).to(query.dtype)


@dataclass(frozen=True)
class _Table:
    """The tiles of one axis, all dilation groups together; a last tile that is not full repeats positions."""

    queries: list[list[int]]  # (tiles, queries), positions
    keys: list[list[int]]  # (tiles, keys), positions
    attended: list[list[list[bool]]]  # (tiles, queries, keys)
    bias: list[list[list[int]]]  # (tiles, queries, keys), index into the bias; anything where not attended
    slot_of_position: list[int]  # among the queries of all tiles


@functools.lru_cache(maxsize=64)
def _table(axis: Axis, size: int) -> _Table:
    # lists, not tensors: while a graph is traced, a tensor made here would belong to that graph
    groups = [range(group, axis.length, axis.dilation) for group in range(min(axis.dilation, axis.length))]
    queries = [list(group[i : i + size]) for group in groups for i in range(0, len(group), size)]
    halos = [sorted({key for query in tile for key in axis.keys(query)}) for tile in queries]
    longest_halo = max(len(halo) for halo in halos)
    attended = [
        [
            [key in axis.keys(query) for key in halo] + [False] * (longest_halo - len(halo))
            for query in _filled(tile, size)
        ]
        for tile, halo in zip(queries, halos, strict=True)
    ]
    keys = [_filled(halo, longest_halo) for halo in halos]
    bias = [
        [
            [min(max(axis.bias_index(query, key), 0), 2 * axis.kernel_size - 2) for key in halo]
            for query in _filled(tile, size)
        ]
        for tile, halo in zip(queries, keys, strict=True)
    ]
    slots = {query: number * size + i for number, tile in enumerate(queries) for i, query in enumerate(tile)}
    return _Table(
        [_filled(tile, size) for tile in queries], keys, attended, bias, [slots[i] for i in range(axis.length)]
    )


def _filled(positions: list[int], size: int) -> list[int]:
    return positions + positions[-1:] * (size - len(positions))


def _select(x: Tensor, tiles: list[list[list[int]]]) -> Tensor:
    """``(B, *spatial, heads, dim)`` -> ``(B, heads, tiles per axis..., positions of a tile, dim)``."""
    n = len(tiles)
    for i, positions in enumerate(tiles):
        index = torch.tensor(positions, device=x.device)
        x = x.index_select(1 + 2 * i, index.flatten()).unflatten(1 + 2 * i, index.shape)
    # (B, tiles, positions, tiles, positions, ..., heads, dim)
    x = x.permute(0, 1 + 2 * n, *range(1, 2 * n, 2), *range(2, 2 * n + 1, 2), 2 + 2 * n)
    return x.flatten(2 + n, 1 + 2 * n)


def _unselect(x: Tensor, tables: list[_Table]) -> Tensor:
    """The way back, each position from one of its slots."""
    n = len(tables)
    x = x.unflatten(2 + n, [len(table.queries[0]) for table in tables])
    x = x.permute(0, *(2 + i + j for i in range(n) for j in (0, n)), 1, 2 + 2 * n)
    for i, table in enumerate(tables):
        x = x.flatten(1 + i, 2 + i).index_select(1 + i, torch.tensor(table.slot_of_position, device=x.device))
    return x


def _bias(bias: Tensor, tables: list[_Table]) -> Tensor:
    """``(heads, offsets per axis...)`` -> ``(heads, tiles per axis..., queries per axis..., keys per axis...)``."""
    n = len(tables)
    for i, table in enumerate(tables):
        index = torch.tensor(table.bias, device=bias.device)
        bias = bias.index_select(1 + 3 * i, index.flatten()).unflatten(1 + 3 * i, index.shape)
    return bias.permute(0, *(1 + 3 * i + j for j in range(3) for i in range(n)))
