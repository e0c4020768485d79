"""Stand-in for `mmcv._ext`: the operators of `mmcv_ext`, and an error for any other. See `mmcv_ops`."""

# ruff: noqa: F401 - mmcv finds the operators here

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import NoReturn

from eyetoy_mm.compat.mmcv_ext import common
from eyetoy_mm.compat.mmcv_ext.boxes import bbox_overlaps
from eyetoy_mm.compat.mmcv_ext.carafe import (
    carafe_backward,
    carafe_forward,
    carafe_naive_backward,
    carafe_naive_forward,
)
from eyetoy_mm.compat.mmcv_ext.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from eyetoy_mm.compat.mmcv_ext.deformable_attention import ms_deform_attn_backward, ms_deform_attn_forward
from eyetoy_mm.compat.mmcv_ext.focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from eyetoy_mm.compat.mmcv_ext.masked_conv import masked_col2im_forward, masked_im2col_forward
from eyetoy_mm.compat.mmcv_ext.nms import nms, nms_match, softnms
from eyetoy_mm.compat.mmcv_ext.psa_mask import psamask_backward, psamask_forward
from eyetoy_mm.compat.mmcv_ext.roi_align import (
    border_align_backward,
    border_align_forward,
    riroi_align_rotated_backward,
    riroi_align_rotated_forward,
    roi_align_backward,
    roi_align_forward,
    roi_align_rotated_backward,
    roi_align_rotated_forward,
)
from eyetoy_mm.compat.mmcv_ext.roi_pool import (
    deform_roi_pool_backward,
    deform_roi_pool_forward,
    prroi_pool_backward,
    prroi_pool_coor_backward,
    prroi_pool_forward,
    roi_pool_backward,
    roi_pool_forward,
)
from eyetoy_mm.compat.mmcv_ext.sync_bn import (
    sync_bn_backward_data,
    sync_bn_backward_param,
    sync_bn_forward_mean,
    sync_bn_forward_output,
    sync_bn_forward_var,
)
from eyetoy_mm.compat.mmcv_ops import how_to_get_them

for _name, _operator in list(globals().items()):
    if isinstance(_operator, FunctionType) and _operator.__module__.startswith("eyetoy_mm.compat.mmcv_ext."):
        globals()[_name] = common.without_autocast(_operator)


def get_compiler_version() -> str:
    return "n/a (ops by eyetoy_mm.compat)"


def get_compiling_cuda_version() -> str:
    return "n/a (ops by eyetoy_mm.compat)"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    # mmcv looks up every op when it is imported, so that a missing one must exist until it is called. Not so for names
    # like __path__ and __wrapped__, with which Python asks what kind of object this is.
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"mmcv op {name!r}: mmcv is installed without its compiled ops, and eyetoy_mm has no replacement for this "
            f"one. To get full mmcv: {how_to_get_them()}"
        )

    missing.__name__ = missing.__qualname__ = name
    return missing
