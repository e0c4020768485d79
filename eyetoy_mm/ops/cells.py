"""Grouped convolutions whose kernel is their stride, by the compiled kernels of ``cpp/cells.h``.

The map is cut into cells, and each becomes a token: what head groups merge positions by. PyTorch's grouped convolutions
are slow where a group has a dozen channels, and change the layout of a channels-last map.

The kernels are for eager tensors on a CPU. Whatever looks at the operators that run (``torch.compile``, export, FLOP
counters) or transforms them (``torch.func``, forward mode) gets PyTorch's convolution, which is the definition; so do
derivatives of the gradients.
"""

from __future__ import annotations

import array
import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from eyetoy_mm.ops import backend_cpp, plain_form
from eyetoy_mm.ops.operator import Tensors, is_watched, pull_back, put, unbatched

_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def have_kernels_for(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> bool:
    """Whether :func:`convolve_cells` takes these: float32 on a CPU, shapes that fit, and nothing but a plain call."""
    if x.device.type != "cpu" or isinstance(backend_cpp.KERNELS, str) or plain_form.is_wanted():
        return False
    if is_watched(x, weight, bias) or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    if any(tensor is not None and tensor.dtype != torch.float32 for tensor in (x, weight, bias)):
        return False
    outputs, inputs, *cell = weight.shape
    if not x.numel() or not outputs or x.shape[-1] != groups * inputs or outputs % groups:
        return False
    if len(cell) not in _CONVOLUTIONS or x.dim() != len(cell) + 2 or (bias is not None and bias.shape != (outputs,)):
        return False
    return all(length % size == 0 for length, size in zip(x.shape[1:-1], cell, strict=True))


def convolve_cells(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """The convolution with ``stride = kernel_size`` and without padding, for what :func:`have_kernels_for` takes.

    Args:
        x: ``(B, *spatial, C_in)``, of lengths that ``cell`` divides.
        weight: ``(C_out, C_in / groups, *cell)``.
        bias: ``(C_out,)``, or None.
        groups: Groups of channels.

    Returns:
        ``(B, *spatial / cell, C_out)``.
    """
    if torch.is_grad_enabled():
        return _Convolution.apply(x, weight, bias, groups)
    return _forward(x, weight, bias, groups)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        ctx.groups = groups
        ctx.save_for_backward(x, weight, bias)
        return _forward(x, weight, bias, groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensors:
        x, weight, bias = ctx.saved_tensors  # once: gradient checkpointing gives them only once
        groups, needed = ctx.groups, ctx.needs_input_grad[:3]

        def gradients(gradient: Tensor) -> tuple[Tensor, ...]:
            if is_watched(gradient) or not have_kernels_for(x, weight, bias, groups):
                return _plain_gradients(groups, needed)(gradient, x, weight, bias)
            if torch.is_grad_enabled():
                return _Gradients.apply(gradient, x, weight, bias, groups, needed)
            return _backward(gradient, x, weight, bias, groups, needed)

        return *put(unbatched(gradients, gradient), [wanted or None for wanted in needed]), None


class _Gradients(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, needed: Sequence[bool]
    ) -> tuple[Tensor, ...]:
        ctx.groups, ctx.needed = groups, needed
        ctx.save_for_backward(gradient, x, weight, bias)
        return _backward(gradient, x, weight, bias, groups, needed)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> Tensors:
        primals = ctx.saved_tensors
        gradients = _plain_gradients(ctx.groups, ctx.needed)

        def pull(*directions: Tensor) -> tuple[Tensor, ...]:
            return tuple(x for x in pull_back(gradients, primals, directions) if x is not None)

        return *put(unbatched(pull, *directions), primals), None, None


def _plain(groups: int) -> Callable[..., Tensor]:
    """The definition, as a function of the tensors."""

    def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        cell = weight.shape[2:]
        return _CONVOLUTIONS[len(cell)](x.movedim(-1, 1), weight, bias, stride=cell, groups=groups).movedim(1, -1)

    return convolve


def _plain_gradients(groups: int, needed: Sequence[bool]) -> Callable[..., tuple[Tensor, ...]]:
    """The gradients that are needed, in PyTorch's operators."""

    def gradients(gradient: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        pulled = pull_back(_plain(groups), tensors, gradient)
        return tuple(x for x, wanted in zip(pulled, needed, strict=True) if wanted and x is not None)

    return gradients


# --- What cpp/cells.h asks for ----------------------------------------------------------------------------------------


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    x, weight, bias = _contiguous(x), _contiguous(weight), None if bias is None else _contiguous(bias)
    tokens = x.new_empty(_tokens_shape(x, weight))
    _run("eyetoy_cells", x, weight, groups, x, weight, bias, tokens)
    return tokens


def _backward(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, needed: Sequence[bool]
) -> tuple[Tensor, ...]:
    """The gradients of x, weight and bias, those that are needed."""
    gradient, x, weight = _contiguous(gradient), _contiguous(x), _contiguous(weight)
    of_x, of_weight, of_bias = x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape[0])
    if needed[0]:
        _run("eyetoy_cells_input", x, weight, groups, gradient, weight, of_x)
    if needed[1] or needed[2]:
        _run("eyetoy_cells_parameters", x, weight, groups, gradient, x, of_weight, of_bias)
    return tuple(y for y, wanted in zip((of_x, of_weight, of_bias), needed, strict=True) if wanted)


def _contiguous(x: Tensor) -> Tensor:
    return x.detach().resolve_neg().contiguous()


def _tokens_shape(x: Tensor, weight: Tensor) -> list[int]:
    batch, *spatial, _ = x.shape
    return [batch, *(n // k for n, k in zip(spatial, weight.shape[2:], strict=True)), weight.shape[0]]


def _run(function: str, x: Tensor, weight: Tensor, groups: int, *tensors: Tensor | None) -> None:
    """Describe the case as a ``Convolution`` and call a function of the library with the addresses of ``tensors``."""
    batch, *spatial, channels = x.shape
    cell = weight.shape[2:]
    unused_axes = [1] * (3 - len(cell))
    words = [batch, *unused_axes, *spatial, *unused_axes, *cell]
    words += [groups, channels // groups, weight.shape[0] // groups]
    words += [torch.get_num_threads(), backend_cpp.PARALLEL or 0]
    problem = array.array("q", words)
    addresses = [problem.buffer_info()[0], *(0 if y is None else backend_cpp.checked(y, y.shape) for y in tensors)]
    if getattr(backend_cpp.KERNELS, function)(*map(ctypes.c_void_p, addresses)) < 0:
        raise MemoryError(f"out of memory in a convolution over {tuple(x.shape)}")
