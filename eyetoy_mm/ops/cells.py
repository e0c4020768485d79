"""Grouped convolutions whose kernel is their stride, by the compiled kernels of ``cpp/cells.h``.

The map is cut into cells, and each becomes a token: what head groups merge positions by. PyTorch's grouped convolutions
are slow where a group has a dozen channels, and change the layout of a channels-last map.
"""

from __future__ import annotations

import array
import operator
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eyetoy_mm.ops import backend_cpp, eager

_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def have_kernels_for(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> bool:
    """Whether :func:`convolve_cells` takes these: float32 on a CPU, shapes that fit, and nothing but a plain call."""
    if not eager.have_kernels_for(x, weight, bias):
        return False
    outputs, inputs, *cell = weight.shape
    if x.shape[-1] != groups * inputs or outputs % groups:
        return False
    if len(cell) not in _CONVOLUTIONS or x.dim() != len(cell) + 2 or (bias is not None and bias.shape != (outputs,)):
        return False
    return not any(map(operator.mod, x.shape[1:-1], cell))


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
    return _OPERATOR(x, weight, bias, groups=groups)


def _definition(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    cell = weight.shape[2:]
    return _CONVOLUTIONS[len(cell)](x.movedim(-1, 1), weight, bias, stride=cell, groups=groups).movedim(1, -1)


# --- What cpp/cells.h asks for ----------------------------------------------------------------------------------------


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    x, weight, bias = _contiguous(x), _contiguous(weight), None if bias is None else _contiguous(bias)
    tokens = x.new_empty(_tokens_shape(x, weight))
    _run("eyetoy_cells", x, weight, groups, x, weight, bias, tokens)
    return tokens


def _backward(
    gradient: Tensor, needed: Sequence[bool], x: Tensor, weight: Tensor, bias: Tensor | None, groups: int
) -> list[Tensor]:
    gradient, x, weight = _contiguous(gradient), _contiguous(x), _contiguous(weight)
    gradients: list[Tensor] = []
    if needed[0]:
        gradients.append(x.new_empty(x.shape))
        _run("eyetoy_cells_input", x, weight, groups, gradient, weight, gradients[0])
    if needed[1] or needed[2]:
        of_weight, of_bias = weight.new_empty(weight.shape), weight.new_empty(weight.shape[:1])
        _run("eyetoy_cells_parameters", x, weight, groups, gradient, x, of_weight, of_bias)
        gradients += [y for y, wanted in ((of_weight, needed[1]), (of_bias, needed[2])) if wanted]
    return gradients


def _contiguous(x: Tensor) -> Tensor:
    return x.resolve_neg().contiguous()


def _tokens_shape(x: Tensor, weight: Tensor) -> list[int]:
    return [x.shape[0], *map(operator.floordiv, x.shape[1:-1], weight.shape[2:]), weight.shape[0]]


def _run(function: str, x: Tensor, weight: Tensor, groups: int, *tensors: Tensor | None) -> None:
    """Describe the case as a ``Convolution`` and call a function of the library with the addresses of ``tensors``."""
    batch, *spatial, _ = x.shape
    outputs, inputs, *cell = weight.shape
    unused_axes = [1] * (3 - len(cell))
    words = [batch, *unused_axes, *spatial, *unused_axes, *cell, groups, inputs, outputs // groups]
    problem = array.array("q", (*words, torch.get_num_threads(), backend_cpp.PARALLEL or 0))
    addresses = [0 if y is None else backend_cpp.checked(y, y.shape) for y in tensors]
    backend_cpp.call(function, problem.buffer_info()[0], *addresses)


_OPERATOR = eager.EagerOperator(_definition, _forward, _backward, keeps=lambda needed: (True, True, False))
