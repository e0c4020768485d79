"""What the families of operators share."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from eyetoy_mm.compat.mmcv_ops import how_to_get_them


def torchvision(op: str) -> ModuleType:
    """The package torchvision, for an operator that is computed with it.

    Raises:
        ImportError: torchvision cannot be imported; the message says what to do.
    """
    try:
        return importlib.import_module("torchvision")
    except ImportError as error:
        raise ImportError(
            f"mmcv op {op!r}: mmcv is installed without its compiled ops, and torchvision, which eyetoy_mm uses for "
            f"it, cannot be imported. To get it: pip install torchvision; or full mmcv: {how_to_get_them()}"
        ) from error


def without_autocast(operator: Callable[..., Any]) -> Callable[..., Any]:
    """The operator in the dtypes that it is given, as a compiled one is: autocast would change products within it."""

    @functools.wraps(operator)
    def run(first: Tensor, *args: Any, **kwargs: Any) -> Any:
        device = first.device.type
        if device == "meta" or not torch.is_autocast_enabled(device):  # which autocast does not know
            return operator(first, *args, **kwargs)
        with torch.autocast(device, enabled=False):
            return operator(first, *args, **kwargs)

    return run


def at_least_float(x: Tensor) -> Tensor:
    """The tensor in float32 if it is in half precision.

    torchvision's CPU kernels do not take half precision, and its CUDA kernels do not take bfloat16; its own autocast
    rule for these ops is float32, too.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def add_gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], grad_output: Tensor, totals: Sequence[Tensor]
) -> None:
    """Adds the gradients of `function(*inputs)` to `totals`, one for each input.

    mmcv keeps no graph from an operator's forward to its backward, so that the forward pass is run again here.

    Args:
        function: The operator, differentiable by autograd.
        inputs: What it is differentiated with respect to.
        grad_output: Gradient with respect to its result.
        totals: Where the gradients are added, of the shapes of `inputs`.
    """
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in inputs]
        out = function(*leaves)
        if not out.requires_grad:  # nothing has an influence: no regions
            return
        grads = torch.autograd.grad(out, leaves, grad_output.to(out), allow_unused=True)
    for total, grad in zip(totals, grads, strict=True):
        if grad is not None:  # None: an input without influence, such as the bias of a layer without one
            total += grad
