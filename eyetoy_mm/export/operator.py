"""What neighborhood attention means in ONNX: a few dozen standard operators, for maps of any size.

The tiles of :mod:`eyetoy_mm.ops.tiles`, all at once, as in :mod:`eyetoy_mm.ops.plain_form`; but the index tables are
computed in the graph from the lengths of the map's axes, which are known there alone. A tile has ``t`` queries of one
dilation group along an axis, its halo ``t + kernel_size - 1`` keys: these are the constants. Positions past the end of
an axis repeat the last one and are masked, or not read again. The mask is added to the scores, one for all axes
together: a select for each axis took nearly half of the time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import opset20 as op
from onnxscript.onnx_types import FLOAT

OPSET = 20
_TILES = {1: (16,), 2: (4, 8), 3: (2, 4, 4)}  # as eyetoy_mm.ops.tiles.tile_size begins
_MASKED = -1e9  # its exponential is 0 exactly; finite, so that a row in which all is masked is no NaN
Value = Any  # of a graph that is being built


def neighborhood_attention(
    query: FLOAT,
    key: FLOAT,
    value: FLOAT,
    bias: FLOAT | None = None,
    kernel_size: Sequence[int] = (),
    dilation: Sequence[int] = (),
    scale: float = 1.0,
) -> FLOAT:
    """Translate a node ``eyetoy_mm::neighborhood_attention``; its arguments are those of the operator.

    Args:
        query: ``(B, *spatial, heads, dim)`` in float32; batch and lengths may be open, heads and dim are known.
        key: The same.
        value: ``(B, *spatial, heads, value_dim)``.
        bias: ``(heads, 2 * kernel_size - 1 per axis)`` or None.
        kernel_size: One per axis.
        dilation: One per axis.
        scale: Factor on ``query @ key``.

    Returns:
        ``(B, *spatial, heads, value_dim)``.
    """
    (*_, heads, dim), value_dim = _shape(query), _shape(value)[-1]
    num_axes = len(kernel_size)
    shape = op.Shape(query)
    axes = [
        _Axis(op.Gather(shape, _integers(1 + i), axis=0), *sizes)
        for i, sizes in enumerate(zip(kernel_size, dilation, _TILES[num_axes], strict=True))
    ]
    queries = functools.reduce(_join_positions, ((axis.queries, axis.length, axis.tile) for axis in axes))[0]
    keys = functools.reduce(_join_positions, ((axis.keys, axis.length, axis.halo) for axis in axes))[0]
    q = op.Gather(_flat(op.Mul(query, _floats(scale)), heads, dim), queries, axis=2)  # (B, heads, tiles, queries, dim)
    k = op.Gather(_flat(key, heads, dim), keys, axis=2)
    v = op.Gather(_flat(value, heads, value_dim), keys, axis=2)

    mask = _join_pairs([axis.mask for axis in axes], axes, op.Add)
    if bias is not None:
        table = op.Reshape(bias, _integers([heads, -1]))
        mask = op.Add(op.Gather(table, _bias_index(axes), axis=1), mask)
    scores = op.Add(op.MatMul(q, op.Transpose(k, perm=[0, 1, 2, 4, 3])), mask)
    output = op.MatMul(op.Softmax(scores, axis=-1), v)  # (B, heads, tiles, queries, value_dim)

    output = op.Gather(op.Reshape(output, _integers([0, heads, -1, value_dim])), _slots(axes), axis=2)
    output = op.Transpose(output, perm=[0, 2, 1, 3])  # (B, positions, heads, value_dim)
    return op.Reshape(output, op.Concat(op.Shape(query, start=0, end=1 + num_axes), op.Shape(value, start=-2), axis=0))


class _Axis:
    """The tables of one axis, all its dilation groups together.

    Attributes:
        length: Of the axis, a scalar of the graph.
        tile: Queries of a tile.
        halo: Keys of a tile.
        tiles: Number of tiles, a scalar of the graph.
        queries: ``(tiles, tile)``, positions.
        keys: ``(tiles, halo)``, positions.
        mask: ``(tiles, tile, halo)``, added to scores.
        bias_index: The same shape, along one axis of the bias.
        tile_of: ``(length,)``, the tile of each position.
        slot_of: ``(length,)``, its place among the tile's queries.
    """

    def __init__(self, length: Value, kernel_size: int, dilation: int, tile: int) -> None:
        self.length, self.tile, self.halo = length, tile, tile + kernel_size - 1
        self.bias_size = 2 * kernel_size - 1
        groups = _integers(np.arange(dilation).reshape(-1, 1, 1))
        longest = _ceil_div(length, dilation)
        tiles_of_group = _ceil_div(longest, tile)
        self.tiles = op.Mul(tiles_of_group, _integers(dilation))

        # Within a group, positions count from 0; (groups or 1, tiles of a group, ...).
        length_of_group = op.Div(op.Add(op.Sub(length, groups), _integers(dilation - 1)), _integers(dilation))
        last_start = op.Max(op.Sub(length_of_group, _integers(kernel_size)), _integers(0))  # of windows and halos
        first = op.Range(_integers(0), op.Mul(tiles_of_group, _integers(tile)), _integers(tile))
        first = op.Reshape(first, _integers([1, -1, 1]))
        query = op.Add(first, _integers(np.arange(tile)))
        start = op.Min(op.Max(op.Sub(query, _integers(kernel_size // 2)), _integers(0)), last_start)
        end = op.Min(op.Add(start, _integers(kernel_size)), length_of_group)
        halo_start = op.Min(op.Max(op.Sub(first, _integers(kernel_size // 2)), _integers(0)), last_start)
        key = op.Add(halo_start, _integers(np.arange(self.halo)))

        last = op.Sub(length, _integers(1))
        self.queries = _positions(query, groups, dilation, last, tile)
        self.keys = _positions(key, groups, dilation, last, self.halo)
        key, query, start, end = (
            op.Unsqueeze(x, _integers([at])) for x, at in ((key, 2), (query, 3), (start, 3), (end, 3))
        )
        attended = op.And(op.GreaterOrEqual(key, start), op.Less(key, end))
        pairs = _integers([-1, tile, self.halo])
        self.mask = op.Reshape(op.Where(attended, _floats(0), _floats(_MASKED)), pairs)
        offset = op.Add(op.Sub(key, query), _integers(kernel_size - 1))  # beyond the bias where not attended
        self.bias_index = op.Reshape(op.Min(op.Max(offset, _integers(0)), _integers(self.bias_size - 1)), pairs)

        position = op.Range(_integers(0), length, _integers(1))
        within = op.Div(position, _integers(dilation))
        group = op.Mod(position, _integers(dilation))
        self.tile_of = op.Add(op.Mul(group, tiles_of_group), op.Div(within, _integers(tile)))
        self.slot_of = op.Mod(within, _integers(tile))


def _positions(within: Value, groups: Value, dilation: int, last: Value, width: int) -> Value:
    """Positions within groups ``(groups or 1, tiles, width)`` -> positions on the axis ``(all tiles, width)``."""
    position = op.Add(op.Mul(within, _integers(dilation)), groups)
    return op.Reshape(op.Min(position, last), _integers([-1, width]))


def _join_positions(left: tuple[Value, Value, int], right: tuple[Value, Value, int]) -> tuple[Value, Value, int]:
    """Tables of positions of two axes, with their lengths and widths -> one of the map of both, row-major."""
    (a, length_a, width_a), (b, length_b, width_b) = left, right
    a = op.Mul(op.Reshape(a, _integers([-1, 1, width_a, 1])), length_b)
    joined = op.Add(a, op.Reshape(b, _integers([1, -1, 1, width_b])))
    width = width_a * width_b
    return op.Reshape(joined, _integers([-1, width])), op.Mul(length_a, length_b), width


def _join_pairs(tables: Sequence[Value], axes: Sequence[_Axis], combine: Callable[[Value, Value], Value]) -> Value:
    """Tables ``(tiles, queries, keys)`` of each axis -> one of all tiles, combined for every pair."""
    joined, tile, halo = tables[0], axes[0].tile, axes[0].halo
    for table, axis in zip(tables[1:], axes[1:], strict=True):
        joined = combine(
            op.Reshape(joined, _integers([-1, 1, tile, 1, halo, 1])),
            op.Reshape(table, _integers([1, -1, 1, axis.tile, 1, axis.halo])),
        )
        tile, halo = tile * axis.tile, halo * axis.halo
        joined = op.Reshape(joined, _integers([-1, tile, halo]))
    return joined


def _bias_index(axes: Sequence[_Axis]) -> Value:
    """``(tiles, queries, keys)``, into the bias of a head, flattened."""
    sizes = [axis.bias_size for axis in axes]
    steps = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    return _join_pairs(
        [op.Mul(axis.bias_index, _integers(s)) for axis, s in zip(axes, steps, strict=True)], axes, op.Add
    )


def _slots(axes: Sequence[_Axis]) -> Value:
    """``(positions,)``: where each position of the map is among the queries of all tiles."""
    tile, slot, queries = axes[0].tile_of, axes[0].slot_of, axes[0].tile
    for axis in axes[1:]:
        tile = _outer_sum(op.Mul(tile, axis.tiles), axis.tile_of)
        slot = _outer_sum(op.Mul(slot, _integers(axis.tile)), axis.slot_of)
        queries *= axis.tile
    return op.Add(op.Mul(tile, _integers(queries)), slot)


def _outer_sum(a: Value, b: Value) -> Value:
    return op.Reshape(op.Add(op.Unsqueeze(a, _integers([1])), b), _integers([-1]))


def _flat(x: Value, heads: int, dim: int) -> Value:
    """``(B, *spatial, heads, dim)`` -> ``(B, heads, positions, dim)``."""
    return op.Transpose(op.Reshape(x, _integers([0, -1, heads, dim])), perm=[0, 2, 1, 3])


def _shape(x: Value) -> tuple[Any, ...]:
    return tuple(x.shape)


def _ceil_div(a: Value, b: int) -> Value:
    return a if b == 1 else op.Div(op.Add(a, _integers(b - 1)), _integers(b))


def _integers(values: Any) -> Value:
    return _constant(np.asarray(values, dtype=np.int64))


def _floats(values: Any) -> Value:
    return _constant(np.asarray(values, dtype=np.float32))


def _constant(array: np.ndarray) -> Value:
    tensor: Any = ir.tensor(array)  # its annotation knows onnx' own class of tensors alone
    return op.Constant(value=tensor)
