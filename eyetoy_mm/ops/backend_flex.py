"""The ``flex`` back end: ``flex_attention`` compiled into a fused kernel, for CUDA without NATTEN's kernels.

The neighborhood is its ``mask_mod`` and the relative position bias its ``score_mod``, so this one trains with a bias.
On CPU ``flex_attention`` has no backward pass, and uncompiled it materialises every score: there the ``torch`` back end
is used.

From PyTorch 2.11 on, one kernel serves all sizes, windows and dilations. Before it is used, it is compared with the
``torch`` back end on two small maps, gradients too. Where it differs, and with an older PyTorch, each case has a
kernel of its own.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.utils.rnn import pad_sequence

from eyetoy_mm.ops import backend_torch
from eyetoy_mm.ops.caching import cached_tensors
from eyetoy_mm.ops.flex import BLOCK, MaskMod, block_mask_of, compile_for_case, make_block_mask
from eyetoy_mm.ops.neighborhood import Axis, Neighborhood

_log = logging.getLogger("eyetoy_mm")

PAIRS_AT_ONCE = 2**24  # queries and keys that are looked at together when a mask is made


class Kind(NamedTuple):
    """What one kernel for all sizes is compiled for."""

    axes: int
    dtype: torch.dtype
    dim: int
    value_dim: int
    with_bias: bool


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
    kind = Kind(len(neighborhood.axes), query.dtype, query.shape[-1], value.shape[-1], bias is not None)
    # within somebody's graph nothing can be tried
    if not torch.compiler.is_compiling() and _serves_all_sizes(kind, query.device):
        output = _for_all_sizes(kind, apart(q, neighborhood))(q, k, v, bias, mask, scale, neighborhood)
    else:
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
    length = math.prod(neighborhood.spatial)
    if torch.compiler.is_compiling():  # sizes may be symbols there, and each turn would be traced
        return make_block_mask(mask_mod(neighborhood), length, device)
    return block_mask_of(pairs_of_blocks(neighborhood, BLOCK, device), mask_mod(neighborhood), length)


def pairs_of_blocks(neighborhood: Neighborhood, size: int, device: torch.device) -> Tensor:
    """How many pairs of a query and a key of its neighborhood lie in each pair of blocks of the flattened map.

    Pairs of a neighborhood alone are looked at, a part of them at once; ``create_block_mask`` asks for all ``N ** 2``.

    Args:
        neighborhood: Of ``N`` positions.
        size: Positions of a block.
        device: Of the result.

    Returns:
        ``(ceil(N / size), ceil(N / size))`` of queries and keys, int64.
    """
    length = math.prod(neighborhood.spatial)
    blocks = -(-length // size)
    keys_per_axis = [_keys(axis, device) for axis in neighborhood.axes]
    at_once = max(PAIRS_AT_ONCE // math.prod(keys.shape[1] for keys in keys_per_axis), 1)
    pairs = torch.zeros(blocks * blocks, dtype=torch.int64, device=device)
    for first in range(0, length, at_once):
        queries = torch.arange(first, min(first + at_once, length), device=device)
        key = torch.zeros(len(queries), 1, dtype=torch.int64, device=device)
        is_key = torch.ones_like(key, dtype=torch.bool)
        on_axes = coordinates(neighborhood, queries)
        for axis, positions, keys in zip(neighborhood.axes, on_axes, keys_per_axis, strict=True):
            on_axis = keys[positions][:, None]
            is_key = (is_key[..., None] & (on_axis >= 0)).flatten(1)
            key = (key[..., None] * axis.length + on_axis.clamp(min=0)).flatten(1)
        in_blocks = (queries // size)[:, None] * blocks + key // size
        pairs.index_add_(0, in_blocks.flatten(), is_key.flatten().to(pairs.dtype))
    return pairs.view(blocks, blocks)


def _keys(axis: Axis, device: torch.device) -> Tensor:
    """Positions ``(L, K)`` that each position of an axis attends to, -1 where it has fewer than ``K``."""
    rows = [torch.tensor(axis.keys(position), device="cpu") for position in range(axis.length)]
    return pad_sequence(rows, batch_first=True, padding_value=-1).to(device)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    mask: BlockMask,
    scale: float,
    neighborhood: Neighborhood,
) -> Tensor:
    """``flex_attention`` of ``(B, heads, N, dim)``, as a function of all that a case is."""
    modification = None if bias is None else score_mod(neighborhood, bias)
    return cast(Tensor, flex_attention(q, k, v, score_mod=modification, block_mask=mask, scale=scale))


@functools.lru_cache(maxsize=64)
def _compiled(neighborhood: Neighborhood, with_bias: bool) -> Callable[..., Tensor]:
    def for_one(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: BlockMask, scale: float) -> Tensor:
        return attention(q, k, v, bias, mask, scale, neighborhood)

    return compile_for_case(for_one, neighborhood, with_bias)


@functools.lru_cache(maxsize=256)
def _for_all_sizes(kind: Kind, apart: tuple[bool, ...]) -> Callable[..., Tensor]:
    return compile_for_case(attention, kind, apart, dynamic=True)


def apart(q: Tensor, neighborhood: Neighborhood) -> tuple[bool, ...]:
    """What the compiler tells apart in a graph for all sizes: which are 1, and whether there are gradients.

    Of one code object it compiles eight graphs and no more, so each of these has its own.
    """
    blocks = -(-q.shape[2] // BLOCK)
    axes = (size for axis in neighborhood.axes for size in (axis.length, axis.kernel_size, axis.dilation))
    return torch.is_grad_enabled(), q.requires_grad, *(size == 1 for size in (*q.shape[:2], blocks, *axes))


@functools.cache
def _serves_all_sizes(kind: Kind, device: torch.device) -> bool:
    """Whether one kernel of a kind has the outputs and gradients of the ``torch`` back end; the log says where not."""
    if torch.__version__ < "2.11":  # the first that it has been tried with; versions are compared, not letters
        return False
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            difference = max(_difference(kind, device, spatial, window) for spatial, window in TRIED[kind.axes])
    except Exception as error:  # of PyTorch's compiler
        _log.warning("flex is compiled for each size: one kernel for all does not work (%s)", str(error).split("\n")[0])
        return False
    if not difference < 0.02:
        _log.warning("flex is compiled for each size: one kernel for all is wrong by %.2g", difference)
    return difference < 0.02


# Maps of several samples and blocks, as are those of a training: the kernel that is tried is the one that runs then.
TRIED = {
    1: (((150,), 3), ((280,), 4)),
    2: (((15, 11), 3), ((28, 12), 4)),
    3: (((6, 7, 5), 3), ((10, 6, 6), 4)),
}


def _difference(kind: Kind, device: torch.device, spatial: tuple[int, ...], window: int) -> float:
    """Between the kernel and the ``torch`` back end, output and gradients, as a share of the largest number."""
    generator = torch.Generator(device).manual_seed(0)
    draw = functools.partial(torch.randn, device=device, generator=generator)
    ones = (1,) * kind.axes
    inputs = [draw(2, *spatial, 2, dim).to(kind.dtype) for dim in (kind.dim, kind.dim, kind.value_dim)]
    inputs += [draw(2, *[2 * window - 1] * kind.axes).to(kind.dtype)] if kind.with_bias else []
    inputs = [x.requires_grad_() for x in inputs]
    neighborhood = Neighborhood.of(spatial, (window,) * kind.axes, ones)

    def by_flex(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = (x.flatten(1, -3).transpose(1, 2) for x in (query, key, value))
        mask = _block_mask(neighborhood, device)
        output = _for_all_sizes(kind, apart(q, neighborhood))(q, k, v, bias, mask, 0.3, neighborhood)
        return output.transpose(1, 2).unflatten(1, spatial)

    def by_torch(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        return backend_torch.attend(query, key, value, neighborhood, bias, 0.3)

    found = []
    for function in (by_flex, by_torch):
        output = function(*inputs)
        found.append([output, *torch.autograd.grad(output.float().square().sum(), inputs)])
    return max(float((a - e).abs().max() / e.abs().max()) for a, e in zip(*found, strict=True))
