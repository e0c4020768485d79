"""The ``torch`` back end: neighborhood attention in blocks, in plain PyTorch on any device, exact and trainable.

The map is cut along its last axis (the last two of a volume) into strips, one for each column of tiles. Strips of keys
overlap: each holds the halos of its tiles (see :mod:`eyetoy_mm.ops.tiles`), copied so that any halo is one matrix.

::

          strip                 strip
    +--:--------:-----+    +-----:--------:--+    all strips are one batch; a loop goes down the rows of tiles:
    |  :        :     |    |     :        :  |
    |  +--------+     |    |     +--------+  |        scores = q @ k^T + mask        (batch, tile, halo)
    |  |halo+--+|     |    |     |halo+--+|  |        output = softmax(scores) @ v
    |  |    |q ||     |    |     |    |q ||  |
    |  |    +--+|     |    |     |    +--+|  |    Tiles away from the borders have the same mask. The scores of one turn
    |  +--------+     |    |     +--------+  |    stay in the cache, and nothing larger than the strips is kept.
    +--:--------:-----+    +-----:--------:--+

Dilation splits the map into independent interleaved maps, which are batched where their sizes agree. The backward pass
is written by hand and computes the probabilities again.

Scores, softmax and all sums are float32, of float64 inputs float64. The matrices of float16 and bfloat16 inputs are
multiplied as they are on GPUs that have such products with sums in float32; elsewhere they are float32, too.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eyetoy_mm.ops import dense_form, plain_form
from eyetoy_mm.ops.caching import cached_tensors
from eyetoy_mm.ops.neighborhood import Neighborhood
from eyetoy_mm.ops.operator import Operator
from eyetoy_mm.ops.tiles import AtOnce, Cut, Plan, Turn, at_once, bias_index, dilation_groups, maps_at_once


def refusal(query: Tensor, neighborhood: Neighborhood, bias: Tensor | None) -> str | None:
    """Plain PyTorch runs every case."""
    return None


def attend(
    query: Tensor, key: Tensor, value: Tensor, neighborhood: Neighborhood, bias: Tensor | None, scale: float
) -> Tensor:
    """Attention in blocks; small maps at once; in plain operators while a graph is exported."""
    if plain_form.is_wanted():
        return plain_form.attend(query, key, value, neighborhood, bias, scale)
    if not query.is_meta and dense_form.is_wanted(neighborhood, bias):
        return dense_form.attend(query, key, value, neighborhood, scale)
    return OPERATOR(query, key, value, bias, neighborhood.kernel_size, neighborhood.dilation, scale)


# --- What suits a device ----------------------------------------------------------------------------------------------


class Way(NamedTuple):
    """How a case is computed."""

    most: AtOnce
    factors: torch.dtype  # of the matrix products


def factors(dtype: torch.dtype, capability: int) -> torch.dtype:
    """The dtype of what is multiplied, for inputs of one.

    Args:
        dtype: Of the inputs.
        capability: Compute capability of a GPU of NVIDIA, 90 for 9.0; 0 for anything else.
    """
    least = {torch.float16: 70, torch.bfloat16: 80}.get(dtype)
    return dtype if least is not None and capability >= least else _of_sums(dtype)


def way(x: Tensor) -> Way:
    """What suits the device and dtype of a tensor."""
    return Way(at_once(x.device.type), factors(x.dtype, _capability(x.device)))


@functools.cache
def _capability(device: torch.device) -> int:
    """As :func:`factors` takes it; 0 too where PyTorch has no products of 16 bits that it gives in float32."""
    if device.type != "cuda" or torch.version.hip is not None or "dtype" not in torch.ops.aten.bmm.overloads():
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _of_sums(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


# --- The operators ----------------------------------------------------------------------------------------------------


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    how: Way | None = None,
) -> Tensor:
    most, dtype = how or way(query)
    output = query.new_empty(*query.shape[:-1], value.shape[-1])
    for plan, (q, k, v, o) in _maps(kernel_size, dilation, most, query, key, value, output):
        masks = _masks(plan, bias, query)
        q, k, v = _cut(q, plan.queries, dtype), _cut(k, plan.keys, dtype), _cut(v, plan.keys, dtype)
        outputs = q.new_empty(*q.shape[:-1], v.shape[-1])
        for turn in plan.turns:
            p = _probabilities(q, k, turn, masks, scale)
            _write_product(outputs[turn.matrices, turn.queries], p.to(dtype), v[turn.matrices, turn.keys])
        for position, strip in _pairs(o, outputs, plan.queries):
            position.copy_(strip)
    return output


def _backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    how: Way | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    most, dtype = how or way(query)
    gradients = [torch.zeros(x.shape, dtype=_of_sums(x.dtype), device=x.device) for x in (query, key, value)]
    of_bias = torch.zeros(0 if bias is None else bias.shape, dtype=_of_sums(query.dtype), device=query.device)
    for plan, maps in _maps(kernel_size, dilation, most, gradient, query, key, value, *gradients):
        masks = _masks(plan, bias, query)
        mask_gradients = [] if bias is None else [torch.zeros_like(mask) for mask in masks if mask is not None]
        cuts = (plan.queries, plan.queries, plan.keys, plan.keys)
        do, q, k, v = (_cut(x, cut, dtype) for x, cut in zip(maps[:4], cuts, strict=True))
        dq = torch.empty_like(q, dtype=_of_sums(dtype))
        dk, dv = (torch.zeros_like(x, dtype=dq.dtype) for x in (k, v))
        for turn in plan.turns:
            tiles, halos = (turn.matrices, turn.queries), (turn.matrices, turn.keys)
            p = _probabilities(q, k, turn, masks, scale)
            dv[halos].add_(_product(p.to(dtype).transpose(1, 2), do[tiles]))
            dp = _product(do[tiles], v[halos].transpose(1, 2))
            ds = torch.ops.aten._softmax_backward_data(dp, p, -1, p.dtype)
            if bias is not None:
                one_pattern = len(plan.cases[turn.case].pattern_of_strip) == 1
                per_head = ds.view(turn.strips, -1, len(bias), *ds.shape[1:])  # (strips, maps, heads, queries, keys)
                mask_gradients[turn.case] += per_head.sum((0, 1) if one_pattern else 1, keepdim=True)
            ds = ds.to(dtype)
            dk[halos].add_(_product(ds.transpose(1, 2), q[tiles]))
            _write_product(dq[tiles], ds, k[halos])
        dq.mul_(scale)
        dk.mul_(scale)
        for x, strips, cut in zip(maps[4:], (dq, dk, dv), (plan.queries, plan.keys, plan.keys), strict=True):
            for position, strip in _pairs(x, strips, cut):
                position.add_(strip)
        if bias is not None:
            of_bias += _bias_gradient(plan, mask_gradients).view(bias.shape)
    query_gradient, key_gradient, value_gradient = (x.to(query.dtype) for x in gradients)
    return query_gradient, key_gradient, value_gradient, of_bias.to(query.dtype if bias is None else bias.dtype)


OPERATOR = Operator("neighborhood_attention", _forward, _backward)


# --- One turn of the loop ---------------------------------------------------------------------------------------------


def _probabilities(q: Tensor, k: Tensor, turn: Turn, masks: Sequence[Tensor | None], scale: float) -> Tensor:
    """``(strips * maps * heads, queries, keys)``; computed in the forward and again in the backward pass."""
    scores = _product(q[turn.matrices, turn.queries], k[turn.matrices, turn.keys].transpose(1, 2))
    mask = masks[turn.case]
    if mask is None:
        return scores.mul_(scale).softmax(-1)
    per_strip = scores.view(turn.strips, -1, *mask.shape[2:])
    torch.add(mask, per_strip, alpha=scale, out=per_strip)
    return scores.softmax(-1)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Products of matrices, in the dtype of sums."""
    if left.dtype == _of_sums(left.dtype):
        return torch.bmm(left, right)
    if left.is_cuda:
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left.float(), right.float())  # the same numbers, where a GPU's way is looked at without one


def _write_product(result: Tensor, left: Tensor, right: Tensor) -> None:
    """The same into memory that is there, on a GPU without a copy on the way; on a CPU this is no gain."""
    if result.is_cuda and result.dtype == left.dtype:
        torch.bmm(left, right, out=result)
    else:
        result.copy_(_product(left, right))


def _masks(plan: Plan, bias: Tensor | None, like: Tensor) -> Sequence[Tensor | None]:
    """What to add to the scores per case of the plan, ``(strips or 1, 1, heads or 1, queries, keys)``, or None."""
    if bias is None:
        return _plain_masks(plan, _of_sums(like.dtype), like.device)
    table = F.pad(bias.flatten(1).to(_of_sums(like.dtype)), (0, 1), value=-math.inf)
    # (heads, patterns, queries, keys) -> (strips, 1, heads, queries, keys)
    return [
        table[:, index].transpose(0, 1).index_select(0, pattern_of_strip)[:, None]
        for index, pattern_of_strip in _indices(plan, like.device)
    ]


@cached_tensors(maxsize=32)
def _plain_masks(plan: Plan, dtype: torch.dtype, device: torch.device) -> tuple[Tensor | None, ...]:
    masks = []
    for index, pattern_of_strip in _indices(plan, torch.device("cpu")):
        not_attended = index == _past_the_end(plan)
        mask = torch.zeros(index.shape, dtype=dtype, device=index.device).masked_fill_(not_attended, -math.inf)
        mask = mask[pattern_of_strip, None, None]
        masks.append(mask.to(device) if not_attended.any() else None)
    return tuple(masks)


@cached_tensors(maxsize=32)
def _indices(plan: Plan, device: torch.device) -> tuple[tuple[Tensor, Tensor], ...]:
    """Of each case, entries of a bias ``(patterns, queries, keys)``, and the pattern of each strip.

    They are kept on the device: a GPU waits for what is copied to it.
    """
    return tuple(
        (
            torch.stack([bias_index(patterns) for patterns in case.patterns]).to(device),
            torch.tensor(case.pattern_of_strip, device=device),
        )
        for case in plan.cases
    )


def _past_the_end(plan: Plan) -> int:
    return math.prod(2 * pattern.kernel_size - 1 for pattern in plan.cases[0].patterns[0])


def _bias_gradient(plan: Plan, mask_gradients: Sequence[Tensor]) -> Tensor:
    """Sum the gradients of the masks of each case into ``(heads, flattened bias)``."""
    heads = mask_gradients[0].shape[2]
    table = mask_gradients[0].new_zeros(heads, _past_the_end(plan) + 1)
    for gradient, (index, pattern_of_strip) in zip(mask_gradients, _indices(plan, table.device), strict=True):
        per_pattern = gradient.new_zeros(len(index), *gradient.shape[2:])
        per_pattern.index_add_(0, pattern_of_strip, gradient[:, 0])
        table.scatter_add_(1, index.flatten().expand(heads, -1), per_pattern.transpose(0, 1).flatten(1))
    return table[:, :-1]


# --- Maps and strips --------------------------------------------------------------------------------------------------


def _maps(
    kernel_size: Sequence[int], dilation: Sequence[int], most: AtOnce, *tensors: Tensor
) -> Iterator[tuple[Plan, list[Tensor]]]:
    """Undilated maps, some of one size at a time: a plan and views ``(batch, maps..., heads, *spatial, dim)``."""
    kernel_size, dilation = tuple(kernel_size), tuple(dilation)
    tensors = tuple(x.resolve_neg() for x in tensors)  # PyTorch's copy from float16 to float32 may lose the sign
    if len(kernel_size) == 1:  # a sequence is a map of one row
        kernel_size, dilation, tensors = (1, *kernel_size), (1, *dilation), tuple(x.unsqueeze(1) for x in tensors)
    batch, *spatial, heads, _ = tensors[0].shape
    dim = max(x.shape[-1] for x in tensors)
    neighborhood = Neighborhood.of(tuple(spatial), kernel_size, dilation)
    for groups in itertools.product(*(dilation_groups(axis) for axis in neighborhood.axes)):
        axes = tuple(axis for _, _, axis in groups)
        counts, lengths = tuple(count for _, count, _ in groups), tuple(axis.length for axis in axes)
        maps_per_sample = heads * math.prod(counts)
        samples_at_once = min(batch, max(1, maps_at_once(axes, dim, most) // maps_per_sample))
        for first in range(0, batch, samples_at_once):
            samples = min(samples_at_once, batch - first)
            views = []
            for x in tensors:
                # position group + m + dilation * i along an axis is position i of map m
                sample_stride, *axis_strides, head_stride, dim_stride = x.stride()
                offset = (
                    x.storage_offset()
                    + first * sample_stride
                    + sum(group * s for (group, _, _), s in zip(groups, axis_strides, strict=True))
                )
                dilated = (s * d for s, d in zip(axis_strides, dilation, strict=True))
                strides = (sample_stride, *axis_strides, head_stride, *dilated, dim_stride)
                views.append(x.as_strided((samples, *counts, heads, *lengths, x.shape[-1]), strides, offset))
            yield Plan.of(axes, samples * maps_per_sample, most), views


def _cut(x: Tensor, cut: Cut, dtype: torch.dtype) -> Tensor:
    """Copy a map into strips ``(strips * maps * heads, rows * columns, dim)``; zero past the end of the map."""
    n = len(cut.runs)
    shape = (*cut.counts, *x.shape[: -1 - n], *cut.widths, x.shape[-1])
    strips = (torch.zeros if cut.ragged else torch.empty)(shape, dtype=dtype, device=x.device)
    for positions, strip in _pairs(x, strips, cut):
        strip.copy_(positions)
    return strips.view(-1, x.shape[-2 - n] * math.prod(cut.widths), x.shape[-1])


def _pairs(x: Tensor, strips: Tensor, cut: Cut) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of a map and of its strips that hold the same positions. No position is twice in one view."""
    n = len(cut.runs)
    strips = strips.view(*cut.counts, *x.shape[: -1 - n], *cut.widths, x.shape[-1])
    outer_strides, axis_strides, dim_stride = x.stride()[: -1 - n], x.stride()[-1 - n : -1], x.stride()[-1]
    for runs in itertools.product(*cut.runs):
        counts, widths = [run.number for run in runs], [run.width for run in runs]
        offset = x.storage_offset() + sum(run.position * s for run, s in zip(runs, axis_strides, strict=True))
        steps = (run.step * s for run, s in zip(runs, axis_strides, strict=True))
        strides = (*steps, *outer_strides, *axis_strides, dim_stride)
        positions = x.as_strided((*counts, *x.shape[: -1 - n], *widths, x.shape[-1]), strides, offset)
        windows = (slice(run.first, run.first + run.every * run.number, run.every) for run in runs)
        index: tuple[Any, ...] = (*windows, ..., *(slice(width) for width in widths), slice(None))
        yield positions, strips[index]
