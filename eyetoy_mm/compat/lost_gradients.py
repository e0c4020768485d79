"""Trap: operators of mmcv that lose a gradient.

What breaks, in mmcv 2.1.0:

* `prroi_pool` saves a copy of maps whose memory is not contiguous (channels last), and asks the copy whether a gradient
  is wanted: theirs is 0, without a word. It refuses any type but float32, as autocast has others, with a message that
  fails itself ("'torch.dtype' object is not callable");
* `carafe_naive` refuses to go backwards on a CPU ("assert grad_output.is_cuda"), where `mmcv_ext` computes it;
* `softmax_focal_loss` multiplies the gradients of logits (N, C) by those of losses that are not reduced (N,): an error,
  or the wrong ones where N = C;
* the gradients of `carafe`, `carafe_naive`, `softmax_focal_loss`, `roi_align_rotated` and `riroi_align_rotated` are
  made without a graph: what is differentiated again (a gradient penalty) is wrong, without a word.

What we do: the first gets contiguous maps and regions in float32, the second goes backwards anywhere, the third
multiplies rows. Whoever differentiates the gradients of the last again is told that it is not possible, as mmcv's other
operators do.

Delete this file when the supported mmcv mends all of it.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from eyetoy_mm.compat._import_hooks import Function, after_import, replace_function, replace_method

_DIFFERENTIABLE_ONCE = {
    "carafe": ("CARAFEFunction", "CARAFENaiveFunction"),
    "focal_loss": ("SoftmaxFocalLossFunction",),
    "riroi_align_rotated": ("RiRoIAlignRotatedFunction",),
    "roi_align_rotated": ("RoIAlignRotatedFunction",),
}
"""The autograd functions whose gradients have no graph, by file of mmcv.ops."""


def needed() -> bool:
    """Whether mmcv is installed."""
    return find_spec("mmcv") is not None


def apply() -> None:
    """Replaces them when their files are imported."""
    if needed():
        after_import("mmcv.ops.prroi_pool", lambda module: replace_function(module, "prroi_pool", _of_contiguous))
        after_import("mmcv.ops.carafe", _go_backwards)
        after_import("mmcv.ops.focal_loss", _multiply_rows)
        for file, functions in _DIFFERENTIABLE_ONCE.items():  # around what is mended above
            after_import(f"mmcv.ops.{file}", functools.partial(_refuse_second_derivatives, functions))


def _of_contiguous(original: Function) -> Function:
    def prroi_pool(features: Any, rois: Any, *args: Any) -> Any:
        return original(features.float().contiguous(), rois.float().contiguous(), *args).to(features.dtype)

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


def _multiply_rows(focal_loss: ModuleType) -> None:
    def wrapper(original: Function) -> Function:
        def backward(ctx: Any, grad_output: Any) -> tuple[Any, ...]:
            return original(ctx, grad_output[:, None] if grad_output.dim() else grad_output)

        return backward

    replace_method(focal_loss.SoftmaxFocalLossFunction, "backward", wrapper)


def _refuse_second_derivatives(functions: tuple[str, ...], module: ModuleType) -> None:
    from torch.autograd.function import once_differentiable

    for name in functions:
        replace_method(getattr(module, name), "backward", once_differentiable)
