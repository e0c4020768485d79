"""The operator: checks its input, picks a back end, calls it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral, Real
from typing import NamedTuple

import torch
from torch import Tensor

from eyetoy_mm.ops import (
    backend_cpp,
    backend_flex,
    backend_natten,
    backend_reference,
    backend_torch,
    backend_triton,
    flops,
    plain_form,
    selection,
)
from eyetoy_mm.ops.neighborhood import Neighborhood
from eyetoy_mm.ops.operator import no_autocast
from eyetoy_mm.ops.selection import Backend

# In order of preference, which docs/performance.md has figures for. `torch` runs everything, so what follows it is used
# by name alone: `flex`, whose kernels are slower, and `reference`, which is for tests.
BACKENDS: dict[str, Backend] = {
    "cpp": backend_cpp,
    "triton": backend_triton,
    "natten": backend_natten,
    "torch": backend_torch,
    "flex": backend_flex,
    "reference": backend_reference,
}

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # what PyTorch's products take everywhere
_DTYPE_NAMES = "float16, bfloat16, float32 and float64"


def neighborhood_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: int | tuple[int, ...],
    dilation: int | tuple[int, ...] = 1,
    bias: Tensor | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Attend from every position of a sequence, image or volume to the window of positions around it.

    The window of a position near a border is shifted inward, never padded; see :mod:`eyetoy_mm.ops.neighborhood`. A
    window larger than an axis is clamped to it. Under autocast the inputs are cast to its dtype. It has derivatives of
    every order, in either direction, and takes part in the transforms of :mod:`torch.func`. Source:
    docs/architecture.md, section 4; Hassani et al., "Neighborhood Attention Transformer" (CVPR 2023), eq. 1-3, and
    "Dilated Neighborhood Attention Transformer" (2022), eq. 1-2.

    Args:
        query: ``(B, *spatial, heads, head_dim)`` with one to three spatial axes.
        key: ``(B, *spatial, key_heads, head_dim)``; ``key_heads`` divide ``heads``, and each serves ``heads //
            key_heads`` consecutive heads of the query (grouped-query attention).
        value: ``(B, *spatial, key_heads, value_dim)``.
        kernel_size: Window size in positions, one for all axes or one per axis; at least 1, odd or even.
        dilation: Distance between the positions of a window, one for all axes or one per axis.
        bias: Optional learnable relative position bias ``(heads, 2 * kernel_size - 1 per axis)`` added to the scaled
            scores; the index along an axis is ``(key - query) / dilation + kernel_size - 1``.
        scale: Factor on ``query @ key``; ``head_dim ** -0.5`` when None.
        backend: A name from :data:`BACKENDS`; None for the first that can run the case, of those that
            :func:`use_backend` allows.

    Returns:
        ``(B, *spatial, heads, value_dim)`` in the dtype of ``query``.

    Raises:
        TypeError: What should be a dense tensor is none.
        ValueError: A shape, dtype, kernel size, dilation, scale or back end name that makes no sense.
        RuntimeError: The named back end cannot run this case; the message has its reason.
    """
    _refuse_no_tensors(query=query, key=key, value=value, bias=bias)
    if not query.is_meta and torch.is_autocast_enabled(query.device.type):
        query, key, value = (x.to(autocast_dtype(x)) for x in (query, key, value))
    neighborhood = _neighborhood(_kinds(query, key, value, bias), kernel_size, dilation)
    scale = query.shape[-1] ** -0.5 if scale is None else checked_scale(scale)
    if key.shape[-2] != query.shape[-2]:
        key, value = _for_every_head(key, query.shape[-2]), _for_every_head(value, query.shape[-2])
    if plain_form.is_for_any_size(query.shape[1:-2]):
        sizes = neighborhood.kernel_size, neighborhood.dilation
        return backend_torch.OPERATOR.as_node(query, key, value, bias, *sizes, scale)
    if query.numel() == 0 or value.numel() == 0:
        return _nothing(query, key, value, bias)
    chosen = selection.choose(BACKENDS, backend, query, neighborhood, bias)
    with no_autocast(query):
        if flops.is_counting():  # the definition's operations, not what this back end computes on the way
            sizes = neighborhood.kernel_size, neighborhood.dilation
            return backend_torch.OPERATOR.as_node(query, key, value, bias, *sizes, scale)
        return chosen.attend(query, key, value, neighborhood, bias, scale)


def available_backends(
    query: Tensor,
    kernel_size: int | tuple[int, ...],
    dilation: int | tuple[int, ...] = 1,
    bias: Tensor | None = None,
) -> dict[str, str | None]:
    """Ask which back ends can run a case: for each name None (it can) or the reason why not, in order of preference."""
    neighborhood = _neighborhood(_kinds(query, query, query, bias), kernel_size, dilation)
    return {name: backend.refusal(query, neighborhood, bias) for name, backend in BACKENDS.items()}


def _for_every_head(x: Tensor, heads: int) -> Tensor:
    """``(..., key_heads, dim)`` -> ``(..., heads, dim)``."""
    return x.unsqueeze(-2).expand(*x.shape[:-1], heads // x.shape[-2], x.shape[-1]).flatten(-3, -2)


def _nothing(*tensors: Tensor | None) -> Tensor:
    """The empty output, which is still part of the graph of all inputs."""
    query, _, value, _ = tensors
    assert query is not None and value is not None
    zero = sum(x.sum() for x in tensors if x is not None)
    return (zero * query.new_zeros(*query.shape[:-1], value.shape[-1])).to(query.dtype)


def autocast_dtype(x: Tensor) -> torch.dtype:
    """To what autocast converts an input of a matrix product; it does not know our operators."""
    device = x.device.type
    if device == "meta":  # which autocast does not know
        return x.dtype
    if x.is_floating_point() and x.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def _refuse_no_tensors(**tensors: Tensor | None) -> None:
    for name, x in tensors.items():
        if not isinstance(x, Tensor) and not (x is None and name == "bias"):
            raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
        if x is not None and (x.layout != torch.strided or x.is_nested):
            kind = "a nested one" if x.is_nested else f"the layout {x.layout}"
            raise TypeError(f"{name} must be a dense tensor, got {kind}")


def checked_scale(scale: float) -> float:
    """A scale as a Python number.

    A tensor is none: its gradient would be lost without a word.

    Raises:
        ValueError: It is no number, or not finite.
    """
    if isinstance(scale, torch.SymInt | torch.SymFloat):
        return scale  # a number of a graph
    if isinstance(scale, bool) or not isinstance(scale, Real) or not abs(scale) <= sys.float_info.max:
        raise ValueError(f"scale must be a finite number or None, got {scale!r}; a learnt factor belongs on the query")
    return float(scale)


class _Kind(NamedTuple):
    """What is asked of a tensor."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


_Kinds = tuple[_Kind, _Kind, _Kind, _Kind | None]  # of query, key, value and bias


def _kinds(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> _Kinds:
    q, k, v = (_Kind(x.shape, x.dtype, x.device) for x in (query, key, value))
    return q, k, v, None if bias is None else _Kind(bias.shape, bias.dtype, bias.device)


def _neighborhood(kinds: _Kinds, *sizes: int | Sequence[int]) -> Neighborhood:
    """The neighborhood of a map, of a kernel size and a dilation; raises ValueError where they make no sense."""
    if torch.compiler.is_compiling() or plain_form.is_wanted():  # lengths may be symbols or tensors
        return _checked(kinds, *sizes)
    if not all(map(_is_plain, sizes)):  # what is equal to a size may be none, as 3.0
        return _checked(kinds, *sizes)
    try:
        return _known(kinds, *sizes)
    except TypeError:  # lengths without a hash
        return _checked(kinds, *sizes)


def checked_neighborhood(shape: Sequence[int], kernel_size: int, dilation: int) -> Neighborhood:
    """The neighborhood of queries, keys and values of one shape, in float32 on a CPU; raises ValueError as above."""
    kind = _Kind(torch.Size(shape), torch.float32, torch.device("cpu"))
    return _neighborhood((kind, kind, kind, None), kernel_size, dilation)


def _is_plain(sizes: int | Sequence[int]) -> bool:
    return type(sizes) is int or (type(sizes) is tuple and all([type(size) is int for size in sizes]))


def _checked(kinds: _Kinds, kernel_size: int | Sequence[int], dilation: int | Sequence[int]) -> Neighborhood:
    query, key, value, bias = kinds
    ndim = len(query.shape) - 3
    if not 1 <= ndim <= 3:
        raise ValueError(
            f"query must be (B, *spatial, heads, head_dim) with 1 to 3 spatial axes, got {tuple(query.shape)}"
        )
    if key.shape[:-2] != query.shape[:-2] or key.shape[-1:] != query.shape[-1:] or value.shape[:-1] != key.shape[:-1]:
        raise ValueError(
            "key and value must have the batch and the map of query, key its head_dim, and value the heads of key, got "
            f"query {tuple(query.shape)}, key {tuple(key.shape)} and value {tuple(value.shape)}"
        )
    if not key.shape[-2] or query.shape[-2] % key.shape[-2]:
        raise ValueError(f"the heads of key must divide those of query, got {key.shape[-2]} for {query.shape[-2]}")
    if not query.shape[-1]:
        raise ValueError(f"head_dim must be at least 1, got query {tuple(query.shape)}")
    if not query.dtype == key.dtype == value.dtype or query.dtype not in _DTYPES:
        raise ValueError(
            f"query, key and value must have one dtype of {_DTYPE_NAMES}, got {query.dtype}, {key.dtype} and "
            f"{value.dtype}"
        )
    if not query.device == key.device == value.device:
        raise ValueError(
            f"query, key and value must be on one device, got {query.device}, {key.device} and {value.device}"
        )
    kernel_sizes, dilations = _per_axis("kernel_size", kernel_size, ndim), _per_axis("dilation", dilation, ndim)
    if bias is not None:
        expected = (query.shape[-2], *(2 * size - 1 for size in kernel_sizes))
        if tuple(bias.shape) != expected:
            raise ValueError(
                f"bias must be (heads, 2 * kernel_size - 1 per axis) = {expected}, got {tuple(bias.shape)}"
            )
        if bias.dtype not in _DTYPES or bias.device != query.device:
            raise ValueError(
                f"bias must have a dtype of {_DTYPE_NAMES} and be on {query.device}, got {bias.dtype} on {bias.device}"
            )
    spatial = tuple(query.shape[1:-2])
    if plain_form.is_wanted() and not plain_form.is_for_any_size(spatial):  # the graph is for these sizes
        spatial = tuple(int(length) for length in spatial)
    return Neighborhood.of(spatial, kernel_sizes, dilations)


_known = lru_cache(maxsize=4096)(_checked)


def _per_axis(name: str, sizes: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    each = tuple(sizes) if isinstance(sizes, Sequence) else (sizes,) * ndim
    if any(type(size) is not int for size in each):  # numpy's integers, as configs have them, become ints
        each = tuple(int(size) if isinstance(size, Integral) and not isinstance(size, bool) else 0 for size in each)
    if len(each) != ndim or any(size < 1 for size in each):
        raise ValueError(f"{name} must be an int >= 1, or one for each of the {ndim} spatial axes, got {sizes}")
    return each
