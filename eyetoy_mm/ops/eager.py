"""Functions of tensors that have kernels of their own for eager calls on a CPU.

Whatever looks at the operators that run (``torch.compile``, export, FLOP counters) or transforms them (``torch.func``,
forward mode) gets the definition, which is in PyTorch's operators; so do derivatives of the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from eyetoy_mm.ops import backend_cpp, plain_form
from eyetoy_mm.ops.operator import Tensors, is_watched, pull_back, put, unbatched


def is_eager(*tensors: Tensor | None) -> bool:
    """Whether these are dense float32 tensors on a CPU, with elements, in nothing but a plain call."""
    # first what surrounds the call: while a graph is traced, sizes are symbols that are not to be asked
    if is_watched(*tensors) or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    if plain_form.is_wanted():
        return False
    for x in tensors:
        if x is not None and (x.dtype != torch.float32 or not x.is_cpu or x.layout != torch.strided or x.is_nested):
            return False
        if x is not None and not x.numel():
            return False
    return True


def have_kernels_for(*tensors: Tensor | None) -> bool:
    """Whether these are eager, and the kernels of the ``cpp`` back end are compiled."""
    return not isinstance(backend_cpp.KERNELS, str) and is_eager(*tensors)


class EagerOperator:
    """A differentiable function of tensors, for calls that :func:`is_eager` allows.

    Args:
        definition: ``(*tensors, **numbers)`` to the output, in PyTorch's operators.
        forward: The same by a kernel.
        backward: ``(gradient, needed, *tensors, **numbers)`` to the gradients of the tensors by a kernel, of those that
            are ``needed`` alone, in order.
        keeps: Which of the tensors the gradients that are ``needed`` read; the others are not kept, and ``backward``
            has zeros of their shapes. None for all of them.
    """

    def __init__(
        self,
        definition: Callable[..., Tensor],
        forward: Callable[..., Tensor],
        backward: Callable[..., list[Tensor]],
        keeps: Callable[[Sequence[bool]], Sequence[bool]] | None = None,
    ) -> None:
        self.definition, self.forward, self.backward, self.keeps = definition, forward, backward, keeps

    def __call__(self, *tensors: Tensor | None, **numbers: Any) -> Tensor:
        """Called as ``forward`` is."""
        if torch.is_grad_enabled():
            return _Function.apply(self, numbers, *tensors)
        return self.forward(*tensors, **numbers)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operator: EagerOperator, numbers: dict[str, Any], *tensors: Tensor | None) -> Tensor:
        ctx.operator, ctx.numbers = operator, numbers
        kept = tensors
        if operator.keeps is not None:
            ctx.shapes = [None if x is None else x.shape for x in tensors]
            kept = tuple(x if keep else None for x, keep in zip(tensors, operator.keeps(ctx.needs_input_grad[2:])))
        ctx.save_for_backward(*kept)
        return operator.forward(*tensors, **numbers)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensors:
        operator, numbers, needed = ctx.operator, ctx.numbers, ctx.needs_input_grad[2:]
        tensors = ctx.saved_tensors  # once: gradient checkpointing gives them only once
        if operator.keeps is not None:
            zero = torch.zeros((), dtype=torch.float32, device="cpu")  # whatever the defaults are
            shapes = zip(tensors, ctx.shapes, strict=True)
            tensors = tuple(zero.expand(shape) if x is None and shape is not None else x for x, shape in shapes)

        def gradients(gradient: Tensor) -> tuple[Tensor, ...]:
            if not torch.is_grad_enabled() and is_eager(gradient, *tensors):
                return tuple(operator.backward(gradient, needed, *tensors, **numbers))
            pulled = pull_back(lambda *tensors: operator.definition(*tensors, **numbers), tensors, gradient)
            return tuple(x for x, wanted in zip(pulled, needed, strict=True) if wanted and x is not None)

        return None, None, *put(unbatched(gradients, gradient), [wanted or None for wanted in needed])
