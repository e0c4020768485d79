"""Tokens of several scales brought back to the grid of the map, side by side; by kernels of ``cpp/repeats.h``."""

from __future__ import annotations

import array
from collections.abc import Sequence

import torch
from torch import Tensor

from eyetoy_mm.ops import backend_cpp, plain_form
from eyetoy_mm.ops.eager import EagerOperator, have_kernels_for


def repeat_to(x: Tensor, size: tuple[int, ...], factor: int) -> Tensor:
    """Nearest interpolation by a whole ``factor``, cropped to ``size``: position ``i`` takes token ``i // factor``."""
    if factor == 1:
        return x
    if plain_form.is_for_any_size(size):
        for axis, length in enumerate(size, start=1):
            x = x.index_select(axis, torch.arange(length, device=x.device) // factor)
        return x
    batch, *spatial, channels = x.shape
    for axis in range(len(spatial)):
        x = x.unsqueeze(2 + 2 * axis)
    x = x.expand(batch, *(n for length in spatial for n in (length, factor)), channels)
    x = x.reshape(batch, *(length * factor for length in spatial), channels)
    for axis, length in enumerate(size, start=1):
        if x.shape[axis] != length:  # the gradient of a crop, even of one that takes all, is written twice
            x = x.narrow(axis, 0, length)
    return x


def join_repeated(groups: Sequence[Tensor], size: tuple[int, ...], factors: Sequence[int]) -> Tensor:
    """The channels of all groups for each position of a map.

    Args:
        groups: ``(B, *ceil(size / factor), C_group)`` each.
        size: Of the map.
        factors: Positions per axis that share a token, one for each group.

    Returns:
        ``(B, *size, sum of C_group)``.
    """
    if len(groups) == 1:
        return repeat_to(groups[0], size, factors[0])
    if have_kernels_for(*groups) and len(size) <= 3:
        batch = groups[0].shape[0]
        shapes = [(batch, *[-(-length // factor) for length in size]) for factor in factors]
        if [x.shape[:-1] for x in groups] == shapes:
            return _OPERATOR(*groups, size=size, factors=factors)
    return _definition(*groups, size=size, factors=factors)


def _definition(*groups: Tensor, size: tuple[int, ...], factors: Sequence[int]) -> Tensor:
    return torch.cat([repeat_to(x, size, factor) for x, factor in zip(groups, factors, strict=True)], dim=-1)


def _forward(*groups: Tensor, size: tuple[int, ...], factors: Sequence[int]) -> Tensor:
    groups = tuple(x.resolve_neg().contiguous() for x in groups)
    joined = groups[0].new_empty((groups[0].shape[0], *size, sum([x.shape[-1] for x in groups])))
    _run("eyetoy_join", groups, factors, joined)
    return joined


def _backward(
    gradient: Tensor, needed: Sequence[bool], *groups: Tensor, size: tuple[int, ...], factors: Sequence[int]
) -> list[Tensor]:
    gradients = [x.new_empty(x.shape) for x in groups]
    _run("eyetoy_join_backward", gradients, factors, gradient.resolve_neg().contiguous())
    return [x for x, wanted in zip(gradients, needed, strict=True) if wanted]


def _run(function: str, groups: Sequence[Tensor], factors: Sequence[int], joined: Tensor) -> None:
    """Describe the case as a ``Joined`` and the groups as ``Scale``, and call a function of the library."""
    batch, *spatial, channels = joined.shape
    words = [batch, *[1] * (3 - len(spatial)), *spatial, channels, len(groups)]
    words += [torch.get_num_threads(), backend_cpp.PARALLEL or 0]
    for x, factor in zip(groups, factors, strict=True):
        words += [backend_cpp.checked(x, x.shape), factor, x.shape[-1]]
    structures = array.array("q", words)
    base = structures.buffer_info()[0]
    backend_cpp.call(function, base, base + 8 * 8, backend_cpp.checked(joined, joined.shape))


# the gradients are the same whatever the tokens
_OPERATOR = EagerOperator(_definition, _forward, _backward, keeps=lambda needed: [False] * len(needed))
