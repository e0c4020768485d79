"""Makes operators that PyTorch knows of a forward and a backward function: autograd, torch.func, compile, meta tensors.

A back end gives two functions on tensors, which need to know nothing of all that::

    forward   (query, key, value, bias, numbers) -> output
    backward  (gradient, query, key, value, bias, numbers) -> gradients of query, key, value and bias

A back end may keep something of the forward pass for the backward pass: see :class:`Operator`.

An :class:`Operator` of them runs in one of two ways. Where something looks at the operators that run
(``torch.compile``, fake and meta tensors, FLOP counters), it is one node, ``torch.ops.eyetoy_mm.{name}``, and its
gradient another. Anywhere else it is one of the autograd functions below, which are sooner begun.

Either way the gradient is an operator itself, with derivatives of its own: those of the plain form
(:mod:`eyetoy_mm.ops.plain_form`), which PyTorch can differentiate as often as it is asked to. They are taken with
respect to the operator's own arguments, so it does not matter what these have in common (one tensor as query, key and
value).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from eyetoy_mm.ops import flops, plain_form
from eyetoy_mm.ops.neighborhood import Neighborhood

_TENSORS = "Tensor query, Tensor key, Tensor value, Tensor? bias"
_NUMBERS = "SymInt[] kernel_size, SymInt[] dilation, float scale"
_PLAIN = (Tensor, torch.nn.Parameter)


class Numbers(NamedTuple):
    """The arguments that are no tensors."""

    kernel_size: Sequence[int]  # one per axis
    dilation: Sequence[int]  # one per axis
    scale: float


Forward = Callable[..., Tensor | tuple[Tensor, Tensor]]
Backward = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]
Tensors = Sequence[Tensor | None]
Dims = tuple[int | None, ...]  # the mapped axis of each argument or output, None where it has none


class Operator:
    """``eyetoy_mm::{name}`` and the operator of its gradient.

    Args:
        name: Of the operator.
        forward: ``(query, key, value, bias, kernel_size, dilation, scale)`` to the output, ``(B, *spatial, heads,
            value_dim)``. Kernel size and dilation are one per axis, key and value have the heads of the query, the rest
            is as in :func:`neighborhood_attention`.
        backward: Gradient of the output and the arguments of ``forward`` to the gradients of query, key, value and
            bias; the last one is empty where there is no bias.
        keeps: Whether ``forward`` gives ``(output, statistics)`` and ``backward`` takes both, after the bias. The
            statistics are float32 numbers of each query, ``(B, *spatial, heads, 1)``, that nobody else sees. Both
            follow from the other arguments, so no derivative is taken with respect to them.
    """

    def __init__(self, name: str, forward: Forward, backward: Backward, keeps: bool = False) -> None:
        forward = _unless_empty(forward, _empty_outputs if keeps else _empty_output)
        backward = _unless_empty(backward, _zero_gradients)
        self.forward, self.backward, self.keeps = forward, backward, keeps
        outputs, kept = ("(Tensor, Tensor)", "Tensor output, Tensor statistics, ") if keeps else ("Tensor", "")
        self.node = torch.library.custom_op(
            f"eyetoy_mm::{name}", forward, mutates_args=(), schema=f"({_TENSORS}, {_NUMBERS}) -> {outputs}"
        )
        self.gradient_node = torch.library.custom_op(
            f"eyetoy_mm::{name}_backward",
            backward,
            mutates_args=(),
            schema=f"(Tensor gradient, {_TENSORS}, {kept}{_NUMBERS}) -> (Tensor, Tensor, Tensor, Tensor)",
        )
        self.node.register_fake(_empty_outputs if keeps else _empty_output)
        self.node.register_autograd(functools.partial(_differentiate, self.gradient_node), setup_context=_save_outputs)
        self.node.register_vmap(functools.partial(_vmap, self.node))
        self.gradient_node.register_fake(_zero_gradients)
        self.gradient_node.register_autograd(_differentiate_gradients, setup_context=_save)
        self.gradient_node.register_vmap(functools.partial(_vmap_gradients, self.gradient_node))
        flops.register(getattr(torch.ops.eyetoy_mm, name), flops.forward_flops)
        flops.register(getattr(torch.ops.eyetoy_mm, f"{name}_backward"), flops.backward_flops)

    def __call__(self, query: Tensor, *arguments: Any) -> Tensor:
        """Called as ``forward`` is; gives the output alone."""
        return _first(self.outputs(query, *arguments))

    def outputs(self, query: Tensor, *arguments: Any) -> Tensor | tuple[Tensor, ...]:
        """The same with the statistics, where there are any."""
        if is_watched(query, *arguments[:3]):
            if _has_no_rules():
                return self.as_node(query, *arguments)
            return self.node(query, *arguments)
        if torch._C._are_functorch_transforms_active():
            if _is_functionalized():
                return _plain(Numbers(*arguments[-3:]))(query, *arguments[:-3])
            return _Attention.apply(self, query, *arguments)
        if torch.is_grad_enabled() or forward_ad._current_level >= 0:
            return _EagerAttention.apply(self, query, *arguments)
        return self.forward(query, *arguments)

    def as_node(self, query: Tensor, *arguments: Any) -> Tensor:
        """The node, or plain operators in forward mode and under torch.func, for which torch.library has no rules.

        Forward mode would be lost without a word.
        """
        if _has_no_rules():
            return _plain(Numbers(*arguments[-3:]))(query, *arguments[:-3])
        return _first(self.node(query, *arguments))

    def gradients(self, gradient: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        """Called as ``backward`` is."""
        if torch._C._are_functorch_transforms_active():
            return _Gradients.apply(self, gradient, *arguments)
        if is_watched(gradient, *arguments[:4]):
            return self.gradient_node(gradient, *arguments)
        if torch.is_grad_enabled() or forward_ad._current_level >= 0:
            return _EagerGradients.apply(self, gradient, *arguments)
        return self.backward(gradient, *arguments)


def _has_no_rules() -> bool:
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _is_functionalized() -> bool:
    """Whether ``torch.func.functionalize`` is among the transforms: it has no rule for autograd functions."""
    levels = torch._C._functorch.get_interpreter_stack() or []
    return any(level.key() == torch._C._functorch.TransformType.Functionalize for level in levels)


def _first(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    return outputs[0] if isinstance(outputs, tuple) else outputs


def is_watched(*tensors: Tensor | None) -> bool:
    """Whether somebody looks at the call, or one of the tensors has no memory of its own: the node is for both."""
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return True
    return any(x is not None and (type(x) not in _PLAIN or x.is_meta) for x in tensors)


def no_autocast(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Within it products are as they are written, in either direction: autocast would round scores to 16 bits.

    A backward pass that is begun within autocast has it, too.
    """
    if x.device.type != "meta" and torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return contextlib.nullcontext()


# --- Autograd ---------------------------------------------------------------------------------------------------------


class _Attention(torch.autograd.Function):
    """``Operator.forward``; the first argument is the operator."""

    @staticmethod
    def forward(operator: Operator, *arguments: Any) -> Tensor | tuple[Tensor, ...]:
        return operator.forward(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.operator, *arguments = inputs
        _save_outputs(ctx, arguments, output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, of_statistics: Tensor | None = None) -> Tensors:
        return None, *_differentiate(ctx.operator.gradients, ctx, gradient)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Any:
        pushed = _push_forward(_plain(ctx.numbers), ctx.saved_tensors[:4], tangents[:4])
        return (pushed, None) if ctx.operator.keeps else pushed

    @staticmethod
    def vmap(info: Any, in_dims: Dims, operator: Operator, *arguments: Any) -> tuple[Any, Any]:
        return _vmap(operator.outputs, info, in_dims[1:], *arguments)


class _Gradients(torch.autograd.Function):
    """``Operator.backward``; the first argument is the operator."""

    @staticmethod
    def forward(operator: Operator, *arguments: Any) -> tuple[Tensor, ...]:
        return operator.backward(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, *arguments = inputs
        _save(ctx, arguments, output)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> Tensors:
        return None, *_differentiate_gradients(ctx, *directions)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        primals = ctx.saved_tensors[:5]
        pushed = _push_forward(_plain_gradients(ctx.numbers), primals, tangents[:5])
        return (*pushed, pushed[0].new_zeros(0)) if primals[4] is None else pushed

    @staticmethod
    def vmap(info: Any, in_dims: Dims, operator: Operator, *arguments: Any) -> tuple[tuple[Tensor, ...], Dims]:
        return _vmap_gradients(operator.gradients, info, in_dims[1:], *arguments)


class _EagerAttention(_Attention):
    """The same without the call of ``setup_context``, which only torch.func needs and which takes its time."""

    setup_context = torch.autograd.Function.setup_context

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor | tuple[Tensor, ...]:
        output = _Attention.forward(*inputs)
        _Attention.setup_context(ctx, inputs, output)
        return output


class _EagerGradients(_Gradients):
    """The same."""

    setup_context = torch.autograd.Function.setup_context

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        _Gradients.setup_context(ctx, inputs, None)
        return _Gradients.forward(*inputs)


def _save(ctx: Any, inputs: Sequence[Any], output: object, kept: Sequence[Tensor] = ()) -> None:
    """Keep the tensors for either direction, and the numbers."""
    ctx.numbers = Numbers(*inputs[-3:])
    ctx.save_for_backward(*inputs[:-3], *kept)
    if hasattr(ctx, "save_for_forward"):  # the nodes of torch.library have no forward mode
        ctx.save_for_forward(*inputs[:-3])


def _save_outputs(ctx: Any, inputs: Sequence[Any], output: Tensor | tuple[Tensor, ...]) -> None:
    """Keep the tensors and the numbers, and what the forward pass gave for the backward pass."""
    _save(ctx, inputs, output, output if isinstance(output, tuple) else ())
    if isinstance(output, tuple):
        ctx.mark_non_differentiable(output[1])


def _differentiate(
    gradients: Callable[..., tuple[Tensor, ...]], ctx: Any, gradient: Tensor, of_statistics: Tensor | None = None
) -> Tensors:
    """The gradients of the arguments of ``forward``."""
    tensors = ctx.saved_tensors  # once: gradient checkpointing gives them only once
    bias = tensors[3]
    with no_autocast(gradient):
        *of_qkv, of_bias = unbatched(lambda one: gradients(one, *tensors, *ctx.numbers), gradient)
    return *of_qkv, None if bias is None else of_bias, None, None, None


def _differentiate_gradients(ctx: Any, *directions: Tensor) -> Tensors:
    """The gradients of the arguments of ``backward``, among them the gradient of the output."""
    tensors = ctx.saved_tensors  # once, as above
    primals, kept = tensors[:5], tensors[5:]
    cotangents = directions if primals[4] is not None else directions[:3]

    def pull(*cotangents: Tensor) -> tuple[Tensor, ...]:
        pulled = pull_back(_plain_gradients(ctx.numbers), primals, cotangents)
        return tuple(x for x in pulled if x is not None)

    pulled = put(unbatched(pull, *cotangents), primals)
    return *pulled, *[None] * len(kept), None, None, None


def unbatched(function: Callable[..., tuple[Tensor, ...]], *cotangents: Tensor) -> tuple[Tensor, ...]:
    """``function`` of cotangents, of each of those that autograd maps over with ``is_grads_batched``.

    It does so with an older vmap, which knows none of our rules: what that one has batched, torch.func's takes on.
    """
    batched = [torch._C._functorch.is_legacy_batchedtensor(x) for x in cotangents]
    if not any(batched):
        return function(*cotangents)
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    if level != 1:
        raise NotImplementedError("neighborhood attention has no derivatives in nested vmaps of torch._vmap_internals")
    whole = [torch._remove_batch_dim(x, level, 0, 0) if mapped else x for x, mapped in zip(cotangents, batched)]
    outputs = torch.vmap(function, tuple(0 if mapped else None for mapped in batched))(*whole)
    return tuple(torch._add_batch_dim(x, 0, level) for x in outputs)


# --- Derivatives of the plain form ------------------------------------------------------------------------------------


def _plain(numbers: Numbers) -> Callable[..., Tensor]:
    """``forward`` in plain operators, as a function of the tensors."""

    def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        neighborhood = Neighborhood.of(tuple(query.shape[1:-2]), *map(tuple, numbers[:2]))
        return plain_form.attend(query, key, value, neighborhood, bias, numbers.scale)

    return attend


def _plain_gradients(numbers: Numbers) -> Callable[..., tuple[Tensor, ...]]:
    """``backward`` in plain operators, as a function of the tensors; no gradient of a bias that there is not."""

    def gradients(gradient: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        return tuple(x for x in pull_back(_plain(numbers), tensors, gradient) if x is not None)

    return gradients


def pull_back(
    function: Callable[..., Any], primals: Tensors, cotangent: Tensor | Sequence[Tensor]
) -> list[Tensor | None]:
    """The product of a cotangent and the Jacobian of a function; None for a tensor that is None."""
    present = [x for x in primals if x is not None]
    with no_autocast(present[0]):
        if torch._C._are_functorch_transforms_active():
            pull = torch.func.vjp(lambda *tensors: function(*put(tensors, primals)), *present)[1]
            return put(pull(cotangent), primals)
        # torch.func refuses to run where tensors are saved by hooks: gradient checkpointing, save_on_cpu.
        with torch.enable_grad():
            views = [x.view_as(x).requires_grad_() for x in present]  # what these have in common is no matter of ours
            output = function(*put(views, primals))
        create_graph = torch.is_grad_enabled()
        pulled = torch.autograd.grad(output, views, cotangent, create_graph=create_graph, materialize_grads=True)
        return put(pulled, primals)


def _push_forward(function: Callable[..., Any], primals: Tensors, tangents: Tensors) -> Any:
    """The product of the Jacobian of a function and tangents, where a tangent of None is zero.

    Pulling a cotangent back is linear in it; the derivative of that, in any point, is the Jacobian transposed twice.
    """
    primals = [None if x is None else forward_ad.unpack_dual(x).primal for x in primals]
    moved = [None if tangent is None else x for x, tangent in zip(primals, tangents)]

    def moving(*tensors: Tensor) -> Any:
        return function(*(fixed if x is None else x for x, fixed in zip(put(tensors, moved), primals, strict=True)))

    # Autograd turns forward mode off here. The tangents of this level are taken off already; those of an outer level,
    # where this one is to be differentiated again, must not be lost.
    with forward_ad._set_fwd_grad_enabled(True):
        output, pull, *_ = torch.func.vjp(moving, *(x for x in moved if x is not None))
        push = torch.func.vjp(pull, torch.utils._pytree.tree_map(torch.zeros_like, output))[1]
        (pushed,) = push(tuple(tangent for tangent in tangents if tangent is not None))
    return pushed


def put(tensors: Sequence[Tensor], like: Sequence[object]) -> list[Tensor | None]:
    """The tensors one after the other where ``like`` has one, and None where it has none."""
    pending = iter(tensors)
    return [None if x is None else next(pending) for x in like]


# --- vmap -------------------------------------------------------------------------------------------------------------


def _vmap(
    call: Callable[..., Any],
    info: Any,
    in_dims: Dims,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    *numbers: Any,
) -> tuple[Any, Any]:
    """A mapped axis joins the batch; with a bias of its own for each entry, it joins the heads."""
    *qkv_dims, bias_dim = in_dims[:4]
    size, qkv, shape = info.batch_size, (query, key, value), _shape_of_one(query, qkv_dims[0])
    if bias is None or bias_dim is None:
        joined = [_into_batch(x, dim, size) for x, dim in zip(qkv, qkv_dims, strict=True)]
        outputs, axis, mapped = call(*joined, bias, *numbers), 0, 0
    else:
        joined = [_into_heads(x, dim, size) for x, dim in zip(qkv, qkv_dims, strict=True)]
        outputs, axis, mapped = call(*joined, _into_batch(bias, bias_dim, size), *numbers), -2, joined[0].dim() - 2
    if isinstance(outputs, tuple):
        return tuple(x.unflatten(axis, (size, shape[axis])) for x in outputs), (mapped,) * len(outputs)
    return outputs.unflatten(axis, (size, shape[axis])), mapped


def _vmap_gradients(
    call: Callable[..., tuple[Tensor, ...]],
    info: Any,
    in_dims: Dims,
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    *others: Any,
) -> tuple[tuple[Tensor, ...], Dims]:
    """A mapped axis joins the batch; with a bias it joins the heads, since each entry has its own gradient of it."""
    numbers = others[-3:]
    dims, bias_dim = [*in_dims[:4], *in_dims[5:-3]], in_dims[4]
    size, tensors = info.batch_size, (gradient, query, key, value, *others[:-3])
    batch, *_, heads, _ = _shape_of_one(query, dims[1])
    join = _into_batch if bias is None else _into_heads
    first, *qkv_and_kept = [join(x, dim, size) for x, dim in zip(tensors, dims, strict=True)]
    qkv, kept = qkv_and_kept[:3], qkv_and_kept[3:]
    if bias is None:
        *of_qkv, none = call(first, *qkv, None, *kept, *numbers)
        return (*(x.unflatten(0, (size, batch)) for x in of_qkv), none), (0, 0, 0, None)
    *of_qkv, of_bias = call(first, *qkv, _into_batch(bias, bias_dim, size), *kept, *numbers)
    axis = query.dim() - (dims[1] is not None) - 2
    of_qkv = [x.unflatten(-2, (size, heads)) for x in of_qkv]
    return (*of_qkv, of_bias.unflatten(0, (size, heads))), (axis, axis, axis, 0)


def _shape_of_one(x: Tensor, dim: int | None) -> list[int]:
    """The shape of an entry."""
    return [length for axis, length in enumerate(x.shape) if axis != dim]


def _into_batch(x: Tensor, dim: int | None, size: int) -> Tensor:
    """``(B, ...)`` with a mapped axis, or the same for each entry, -> ``(size * B, ...)``."""
    x = x.unsqueeze(0).expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
    return x.flatten(0, 1)


def _into_heads(x: Tensor, dim: int | None, size: int) -> Tensor:
    """``(B, *spatial, heads, dim)`` with a mapped axis, or the same for each entry, -> ``size * heads`` heads."""
    x = x.unsqueeze(-3).expand(*x.shape[:-2], size, *x.shape[-2:]) if dim is None else x.movedim(dim, -3)
    return x.flatten(-3, -2)


# --- Shapes -----------------------------------------------------------------------------------------------------------


def _unless_empty(run: Callable[..., Any], empty: Callable[..., Any]) -> Callable[..., Any]:
    """``run`` where there is something to compute: kernels take no empty batch, which vmap of no entries makes."""

    @functools.wraps(run)
    def run_or_not(first: Tensor, *arguments: Any) -> Any:
        return run(first, *arguments) if first.numel() else empty(first, *arguments)

    return run_or_not


def _empty_output(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> Tensor:
    return query.new_empty(*query.shape[:-1], value.shape[-1])


def _empty_outputs(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    statistics = query.new_empty(*query.shape[:-1], 1, dtype=torch.float32)
    return _empty_output(query, key, value), statistics


def _zero_gradients(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *others: Any
) -> tuple[Tensor, ...]:
    tensors = (query, key, value, query.new_empty(0) if bias is None else bias)
    return tuple(x.new_zeros(x.shape) for x in tensors)
