"""Makes an operator of a forward and a backward function that autograd, ``torch.compile`` and export understand.

The operators are registered with :mod:`torch.library`, so ``torch.compile`` sees a single node. Where only plain
operators will do (export, gradients of gradients), :mod:`eyetoy_mm.ops.plain_form` computes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from eyetoy_mm.ops import flops, plain_form
from eyetoy_mm.ops.neighborhood import Neighborhood

_ARGUMENTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? bias, SymInt[] kernel_size, SymInt[] dilation, float scale"
)

Forward = Callable[[Tensor, Tensor, Tensor, Tensor | None, Sequence[int], Sequence[int], float], Tensor]
Backward = Callable[
    [Tensor, Tensor, Tensor, Tensor, Tensor | None, Sequence[int], Sequence[int], float],
    tuple[Tensor, Tensor, Tensor, Tensor],
]


def register(name: str, forward: Forward, backward: Backward) -> Forward:
    """Register ``eyetoy_mm::{name}`` and the operator of its gradient.

    Args:
        name: Of the operator.
        forward: ``(query, key, value, bias, kernel_size, dilation, scale)`` to the output. Kernel size and dilation are
            one per axis, the rest is as in :func:`neighborhood_attention`.
        backward: Gradient of the output and the arguments of ``forward`` to the gradients of query, key, value and
            bias; the last one is empty where there is no bias.

    Returns:
        A function that is called as ``forward`` is: the operator where something looks at the operators that run, as
        ``torch.compile`` does, and otherwise ``forward`` itself under autograd, which is sooner begun.
    """
    operator = torch.library.custom_op(
        f"eyetoy_mm::{name}", forward, mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor"
    )
    gradient_operator = torch.library.custom_op(
        f"eyetoy_mm::{name}_backward",
        backward,
        mutates_args=(),
        schema=f"(Tensor gradient, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)",
    )

    def fake(query, key, value, bias, kernel_size, dilation, scale):
        return _like(query)

    def fake_gradient(gradient, query, key, value, bias, kernel_size, dilation, scale):
        return _like(query), _like(key), _like(value), query.new_empty(0) if bias is None else _like(bias)

    def save(ctx, inputs, output):
        *tensors, ctx.kernel_size, ctx.dilation, ctx.scale = inputs
        ctx.save_for_backward(*tensors)

    def differentiate(ctx, gradient, backward=gradient_operator):
        query, key, value, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated again
            neighborhood = Neighborhood.of(query.shape[1:-2], ctx.kernel_size, ctx.dilation)
            wanted = [x for x, needed in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False) if needed]
            output = plain_form.attend(query, key, value, neighborhood, bias, ctx.scale)
            found = iter(torch.autograd.grad(output, wanted, gradient, create_graph=True))
            gradients = [next(found) if needed else None for needed in ctx.needs_input_grad[:4]]
        else:
            gradients = backward(gradient, query, key, value, bias, ctx.kernel_size, ctx.dilation, ctx.scale)
            gradients = [*gradients[:3], None if bias is None else gradients[3]]
        return *gradients, None, None, None

    operator.register_fake(fake)
    gradient_operator.register_fake(fake_gradient)
    flops.register(getattr(torch.ops.eyetoy_mm, name), flops.forward_flops)
    flops.register(getattr(torch.ops.eyetoy_mm, f"{name}_backward"), flops.backward_flops)
    operator.register_autograd(differentiate, setup_context=save)

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(*arguments):
            return forward(*arguments)

        setup_context = staticmethod(save)

        @staticmethod
        def backward(ctx, gradient):
            return differentiate(ctx, gradient, backward)

    def call(query, *arguments):
        if torch.compiler.is_compiling() or type(query) not in _PLAIN or is_in_torch_dispatch_mode():
            return operator(query, *arguments)
        return (Direct.apply if torch.is_grad_enabled() else forward)(query, *arguments)

    return call


_PLAIN = (Tensor, torch.nn.Parameter)


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
