"""Floating-point operations of the operators: those of the definition, whichever back end would run.

A query takes two products with each key of its window, the score and its share of the output; a multiply-add is two
operations. What a back end computes beyond that, as tiles do in their halos, does not count.

PyTorch's ``FlopCounterMode`` finds the formulas by itself. A program that counts in a traced graph traces within
:func:`counting`, so that the operator is one node there and not the plain operators that a graph for export has.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils import flop_counter
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack, is_in_torch_dispatch_mode

from eyetoy_mm.ops.neighborhood import Neighborhood

_counting = contextvars.ContextVar("counting", default=False)
_COUNTER = getattr(flop_counter, "_FlopCounterMode", flop_counter.FlopCounterMode)  # the mode behind FlopCounterMode


@contextlib.contextmanager
def counting() -> Iterator[None]:
    """Within it, neighborhood attention is ``eyetoy_mm::neighborhood_attention``, also in traced graphs."""
    token = _counting.set(True)
    try:
        yield
    finally:
        _counting.reset(token)


def is_counting() -> bool:
    """Whether operations are counted: within :func:`counting` or torch's ``FlopCounterMode``."""
    if torch.compiler.is_compiling():
        return False
    if _counting.get():
        return True
    return is_in_torch_dispatch_mode() and any(isinstance(m, _COUNTER) for m in _get_current_dispatch_mode_stack())


def multiply_adds(shape: Sequence[int], kernel_size: Sequence[int], dilation: Sequence[int]) -> int:
    """Of one product of all queries with the keys of their windows, or of all windows with their values.

    Args:
        shape: Of the queries or the output, ``(B, *spatial, heads, dim)``.
        kernel_size: One per axis.
        dilation: One per axis.
    """
    batch, *spatial, heads, dim = shape
    return batch * heads * dim * Neighborhood.of(tuple(spatial), tuple(kernel_size), tuple(dilation)).pairs


def forward_flops(
    query: Sequence[int],
    key: Sequence[int],
    value: Sequence[int],
    bias: Sequence[int] | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    out_shape: object = None,
) -> int:
    """Operations of neighborhood attention; the arguments are the operator's, shapes in place of tensors."""
    sizes = kernel_size, dilation
    return 2 * (multiply_adds(query, *sizes) + multiply_adds(value, *sizes))


def backward_flops(
    gradient: Sequence[int],
    query: Sequence[int],
    key: Sequence[int],
    value: Sequence[int],
    bias: Sequence[int] | None,
    *others: Any,
    out_shape: object = None,
) -> int:
    """Operations of its gradients: the scores again, and the products for the probabilities, query, key and value.

    Last of the others are the numbers; what a back end has kept of the forward pass stands before them.
    """
    sizes = others[-3], others[-2]
    return 2 * (3 * multiply_adds(query, *sizes) + 2 * multiply_adds(value, *sizes))


def register(operator: torch._ops.OpOverloadPacket, formula: Callable[..., int]) -> None:
    """Give an operator its formula, in ``FlopCounterMode`` and wherever else PyTorch weighs operators."""
    if operator not in flop_counter.flop_registry:
        flop_counter.register_flop_formula(operator)(formula)


# Models that ours are compared with call F.scaled_dot_product_attention, for whose form on a CPU torch (2.11) has no
# formula.
_aten = torch.ops.aten
for _on_cpu, _elsewhere in (
    (_aten._scaled_dot_product_flash_attention_for_cpu, _aten._scaled_dot_product_flash_attention),
    (_aten._scaled_dot_product_flash_attention_for_cpu_backward, _aten._scaled_dot_product_flash_attention_backward),
):
    flop_counter.flop_registry.setdefault(_on_cpu, flop_counter.flop_registry[_elsewhere])
