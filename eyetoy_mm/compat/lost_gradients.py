"""Trap: two operators of mmcv that lose a gradient.

What breaks, in mmcv 2.1.0:

* `prroi_pool` saves a copy of maps whose memory is not contiguous (channels last), and asks the copy whether a gradient
  is wanted: theirs is 0, without a word;
* `carafe_naive` refuses to go backwards on a CPU ("assert grad_output.is_cuda"), where `mmcv_ext` computes it.

What we do: the first gets contiguous maps and regions, the second goes backwards anywhere.

Delete this file when the supported mmcv mends both.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import ModuleType
from typing import Any

from eyetoy_mm.compat._import_hooks import Function, after_import, replace_function, replace_method


def needed() -> bool:
    """Whether mmcv is installed."""
    return find_spec("mmcv") is not None


def apply() -> None:
    """Replaces both when their files are imported."""
    if needed():
        after_import("mmcv.ops.prroi_pool", lambda module: replace_function(module, "prroi_pool", _of_contiguous))
        after_import("mmcv.ops.carafe", _go_backwards)


def _of_contiguous(original: Function) -> Function:
    def prroi_pool(features: Any, rois: Any, *args: Any) -> Any:
        return original(features.contiguous(), rois.contiguous(), *args)

    return prroi_pool


def _go_backwards(carafe: ModuleType) -> None:
    def wrapper(original: Function) -> Function:
        def backward(ctx: Any, grad_output: Any) -> tuple[Any, ...]:
            if grad_output.is_cuda:
                return original(ctx, grad_output)
            tensors = ctx.saved_tensors
            gradients = [x.new_zeros(x.shape) for x in tensors]
            numbers = {name: getattr(ctx, name) for name in ("kernel_size", "group_size", "scale_factor")}
            carafe.ext_module.carafe_naive_backward(grad_output.contiguous(), *tensors, *gradients, **numbers)
            return *gradients, None, None, None

        return backward

    replace_method(carafe.CARAFENaiveFunction, "backward", wrapper)
