"""GELU by the compiled kernels of ``cpp/elements.h``, to the last digits of float32 the one by ``erf``."""

from __future__ import annotations

import array
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eyetoy_mm.ops import backend_cpp
from eyetoy_mm.ops.eager import EagerOperator, have_kernels_for


def gelu(x: Tensor) -> Tensor:
    """:func:`torch.nn.functional.gelu` of any tensor."""
    return _OPERATOR(x) if have_kernels_for(x) else F.gelu(x)


def _forward(x: Tensor) -> Tensor:
    return _run("eyetoy_gelu", x)


def _backward(gradient: Tensor, needed: Sequence[bool], x: Tensor) -> list[Tensor]:
    return [_run("eyetoy_gelu_backward", gradient, x)]


def _run(function: str, *inputs: Tensor) -> Tensor:
    inputs = tuple(x.resolve_neg().contiguous() for x in inputs)
    output = torch.empty_like(inputs[0])
    elements = array.array("q", (output.numel(), torch.get_num_threads(), backend_cpp.PARALLEL or 0))
    addresses = [backend_cpp.checked(x, output.shape) for x in (*inputs, output)]
    backend_cpp.call(function, elements.buffer_info()[0], *addresses)
    return output


_OPERATOR = EagerOperator(F.gelu, _forward, _backward)
