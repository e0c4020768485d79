"""What neighborhood attention means in ONNX: standard operators, or one node for the kernels of this package.

The standard ones are a few dozen, for maps of any size: the tiles of :mod:`eyetoy_mm.ops.tiles`, as in
:mod:`eyetoy_mm.ops.plain_form`; but the index tables are computed in the graph from the lengths of the map's axes,
which are known there alone. A tile has ``t`` queries of one dilation group along an axis, its halo ``t + kernel_size -
1`` keys: these are the constants. Positions past the end of an axis repeat the last one and are masked, or not read
again. The mask is added to the scores, one for all axes together: a select for each axis took nearly half of the time.
A loop over rows of tiles bounds the memory: as many rows at once as have :data:`SCORES_AT_ONCE`.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnxscript import evaluator, values
from onnxscript import opset20 as op
from onnxscript.onnx_types import FLOAT

from eyetoy_mm.ops.backend_cpp import LARGEST_HEAD_DIM

OPSET = 20
DOMAIN = "eyetoy_mm"  # of the node for our kernels
SCORES_AT_ONCE = 2**21  # of all heads and images; 8 MB, of which there are a few copies
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
    q = _flat(op.Mul(query, _floats(scale)), heads, dim)
    k, v = _flat(key, heads, dim), _flat(value, heads, value_dim)
    batch = op.Gather(shape, _integers(0), axis=0)
    table = None if bias is None else op.Reshape(bias, _integers([heads, -1]))

    scores_of_tile = math.prod(axis.tile * axis.halo for axis in axes) * heads
    rows = _rows_at_once(axes, op.Mul(batch, _integers(scores_of_tile)))
    output = _repeat(rows, lambda chosen: _attend(q, k, v, table, axes, chosen))
    every_slot = op.Concat(_integers([-1]), op.Shape(query, start=0, end=1), _integers([heads, value_dim]), axis=0)
    output = op.Gather(op.Reshape(output, every_slot), _slots(axes), axis=0)  # (positions, B, heads, value_dim)
    output = op.Transpose(output, perm=[1, 0, 2, 3])
    return op.Reshape(output, op.Concat(op.Shape(query, start=0, end=1 + num_axes), op.Shape(value, start=-2), axis=0))


def neighborhood_attention_node(
    query: FLOAT,
    key: FLOAT,
    value: FLOAT,
    bias: FLOAT | None = None,
    kernel_size: Sequence[int] = (),
    dilation: Sequence[int] = (),
    scale: float = 1.0,
) -> FLOAT:
    """Translate it to one node that runs in our kernels, see ``eyetoy_mm/ops/cpp/onnxruntime.cpp``.

    Arguments and result are those of :func:`neighborhood_attention`.

    Raises:
        ValueError: A head is larger than the kernels take.
    """
    dim, value_dim = _shape(query)[-1], _shape(value)[-1]
    width = max(dim, value_dim)  # the kernels know one; zeros change neither scores nor values
    if width > LARGEST_HEAD_DIM:
        raise ValueError(f"the kernels are for a head_dim of at most {LARGEST_HEAD_DIM}, got {width}")
    query, key, value = (_padded(x, width - _shape(x)[-1]) for x in (query, key, value))
    inputs = [query, key, value, *([] if bias is None else [bias])]
    output = _NODE(*inputs, kernel_size=list(kernel_size), dilation=list(dilation), scale=float(scale))
    if value_dim == width:
        return op.Identity(output)
    return op.Slice(output, _integers([0]), _integers([value_dim]), _integers([-1]))


def _padded(x: Value, missing: int) -> Value:
    if not missing:
        return x
    return op.Pad(x, _integers([0, missing]), _floats(0), _integers([-1]))


def _node_operator() -> values.Op:
    schema, number = onnx.defs.OpSchema, "tensor(float)"
    parameter, attribute = schema.FormalParameter, schema.Attribute
    return values.Op(
        values.Opset(DOMAIN, 1),
        "NeighborhoodAttention",
        schema(
            "NeighborhoodAttention",
            DOMAIN,
            1,
            inputs=[
                *(parameter(name, number) for name in ("query", "key", "value")),
                parameter("bias", number, param_option=schema.FormalParameterOption.Optional),
            ],
            outputs=[parameter("output", number)],
            attributes=[
                attribute("kernel_size", schema.AttrType.INTS),
                attribute("dilation", schema.AttrType.INTS),
                attribute("scale", schema.AttrType.FLOAT),
            ],
        ),
    )


_NODE = _node_operator()


# --- A few rows of tiles after the other ------------------------------------------------------------------------------


def _rows_at_once(axes: Sequence[_Axis], scores_of_tile: Value) -> Value:
    """``(steps, rows)``: the tiles of the first axis by step, as even as can be; past the end repeats the last one."""
    tiles = axes[0].tiles
    scores_of_row = functools.reduce(op.Mul, (axis.tiles for axis in axes[1:]), scores_of_tile)
    most = op.Max(op.Div(_integers(SCORES_AT_ONCE), scores_of_row), _integers(1))
    steps = _ceil_of(tiles, most)
    rows = _ceil_of(tiles, steps)
    every = op.Min(op.Range(_integers(0), op.Mul(steps, rows), _integers(1)), op.Sub(tiles, _integers(1)))
    one = _integers([1])
    return op.Reshape(every, op.Concat(op.Reshape(steps, one), op.Reshape(rows, one), axis=0))


def _attend(q: Value, k: Value, v: Value, bias: Value | None, axes: Sequence[_Axis], rows: Value) -> Value:
    """Attention of a step.

    Args:
        q: ``(B, heads, positions, dim)``.
        k: The same.
        v: The same, with its own dim.
        bias: ``(heads, offsets)``.
        axes: Of the map.
        rows: ``(rows,)``, tiles of the first axis.

    Returns:
        ``(tiles, queries, B, heads, value_dim)``.
    """
    axes = [axes[0].chosen(rows, with_bias=bias is not None), *axes[1:]]
    queries = functools.reduce(_join_positions, ((axis.queries, axis.length, axis.tile) for axis in axes))[0]
    keys = functools.reduce(_join_positions, ((axis.keys, axis.length, axis.halo) for axis in axes))[0]
    mask = _join_pairs([axis.mask for axis in axes], axes, op.Add)
    if bias is not None:
        mask = op.Add(op.Gather(bias, _bias_index(axes), axis=1), mask)
    near = op.Transpose(op.Gather(k, keys, axis=2), perm=[0, 1, 2, 4, 3])  # (B, heads, tiles, dim, keys)
    scores = op.Add(op.MatMul(op.Gather(q, queries, axis=2), near), mask)
    output = op.MatMul(op.Softmax(scores, axis=-1), op.Gather(v, keys, axis=2))
    return op.Transpose(output, perm=[2, 3, 0, 1, 4])


class _Recorder:
    """Takes down the operators that are called, for a graph within the graph; an evaluator of onnxscript's kind."""

    def __init__(self) -> None:
        self.tape = ir.tape.Tape()

    def eval_op(self, called: values.Op, args: Sequence[Value], kwargs: dict[str, Any]) -> Value:
        return self.tape.op(called.name, args, kwargs)


def _repeat(table: Value, function: Callable[[Value], Value]) -> Value:
    """Call a function with one row of a table after the other, and stack its results."""
    number: Value = ir.Value(name="step", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(()))
    goes_on: Value = ir.Value(name="goes_on", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape(()))
    recorder: Any = _Recorder()
    with evaluator.default_as(recorder):
        results = [op.Identity(goes_on), function(op.Gather(table, number, axis=0))]
    for result, dtype in zip(results, (ir.DataType.BOOL, ir.DataType.FLOAT), strict=True):
        result.type = ir.TensorType(dtype)
    body = ir.Graph([number, goes_on], results, nodes=recorder.tape.nodes, name="rows_of_tiles")
    steps = op.Gather(op.Shape(table), _integers(0), axis=0)
    return _LOOP(steps, _constant(np.asarray(True)), body=body)


def _loop_operator() -> values.Op:
    """ONNX' Loop that carries nothing. Its own schema takes what is carried too, and PyTorch refuses it without any."""
    schema = onnx.defs.OpSchema
    parameter = schema.FormalParameter
    return values.Op(
        values.Opset("", OPSET),
        "Loop",
        schema(
            "Loop",
            "",
            19,  # since this opset
            inputs=[parameter("M", "tensor(int64)"), parameter("cond", "tensor(bool)")],
            outputs=[parameter("output", "tensor(float)")],
            attributes=[schema.Attribute("body", schema.AttrType.GRAPH)],
        ),
    )


_LOOP = _loop_operator()


# --- Tables -----------------------------------------------------------------------------------------------------------


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

    def chosen(self, rows: Value, with_bias: bool) -> _Axis:
        """The axis with some of its tiles alone."""
        some = copy.copy(self)
        some.queries, some.keys, some.mask = (op.Gather(x, rows, axis=0) for x in (self.queries, self.keys, self.mask))
        if with_bias:
            some.bias_index = op.Gather(self.bias_index, rows, axis=0)
        return some


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
    return a if b == 1 else _ceil_of(a, _integers(b))


def _ceil_of(a: Value, b: Value) -> Value:
    return op.Div(op.Add(a, op.Sub(b, _integers(1))), b)


def _integers(values: Any) -> Value:
    return _constant(np.asarray(values, dtype=np.int64))


def _floats(values: Any) -> Value:
    return _constant(np.asarray(values, dtype=np.float32))


def _constant(array: np.ndarray) -> Value:
    tensor: Any = ir.tensor(array)  # its annotation knows onnx' own class of tensors alone
    return op.Constant(value=tensor)
