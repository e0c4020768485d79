"""Stand-in for `mmcv._ext`: the ops of mmcv that matter here, by torchvision and PyTorch. See `mmcv_ops`.

Names and arguments are those of mmcv's bindings (mmcv/ops/csrc/pytorch/pybind.cpp), as mmcv calls them: an op either
returns its result or writes it into an argument. Here are: nms and soft-nms; roi_align (average); the sigmoid focal
loss; multi-scale deformable attention. Where mmcv's own CPU code stops (half precision, double), these go on.

Not here on purpose: roi_pool, because torchvision's rounds the box to whole pixels first and mmcv's does not.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

# Its build imports torch and pkg_resources; pip's own build environment has neither.
_FULL_MMCV = (
    "pip uninstall mmcv-lite; pip install 'setuptools<82' wheel; pip install --no-build-isolation 'mmcv>=2.0.0,<2.2.0'"
)


def _torchvision(op: str) -> ModuleType:
    try:
        return importlib.import_module("torchvision")
    except ImportError as error:
        raise ImportError(
            f"mmcv op {op!r}: mmcv is installed without its compiled ops, and torchvision, which eyetoy_mm uses for "
            f"it, cannot be imported. To get it: pip install torchvision; or full mmcv: {_FULL_MMCV}"
        ) from error


def _at_least_float(x: Tensor) -> Tensor:
    # torchvision's CPU kernels do not take half precision, and its CUDA kernels do not take bfloat16; its own autocast
    # rule for these ops is float32, too.
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices (K,) of the boxes that stay, by falling score.

    Args:
        boxes: (N, 4), x1 y1 x2 y2.
        scores: (N,).
        iou_threshold: A box goes when its overlap with a better one is larger than this.
        offset: 0, or 1 where a box from x1 to x2 is x2 - x1 + 1 pixels wide.
    """
    torchvision = _torchvision("nms")
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    dtype = torch.promote_types(_at_least_float(boxes).dtype, _at_least_float(scores).dtype)
    if offset:
        # (x2 + 1) - x1 is mmcv's (x2 - x1) + 1 except for rounding, which double precision keeps out of the way.
        dtype = torch.float64
        boxes = boxes.to(dtype) + torch.tensor([0, 0, offset, offset], dtype=dtype, device=boxes.device)
    if dtype != torch.float64:
        # mmcv compares in float32. torchvision on CPU would compare with the double, and an overlap of exactly 0.3 is
        # larger than that when rounded to float32.
        iou_threshold = float(np.float32(iou_threshold))
    return torchvision.ops.nms(boxes.to(dtype), scores.to(dtype), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS on CPU, step by step as mmcv's (mmcv/ops/csrc/pytorch/cpu/nms.cpp), down to the order of equal scores.

    Args:
        boxes: (N, 4), x1 y1 x2 y2.
        scores: (N,).
        dets: (N, 5); its first K rows become the boxes that stay with their new scores, by falling score.
        iou_threshold: Overlap from which on a box loses score; not used by method 2.
        sigma: Width of the Gaussian of method 2.
        min_score: A box goes when its score falls below this.
        method: 0 (naive: the score becomes 0), 1 (linear), or 2 (Gaussian).
        offset: As in `nms`.

    Returns:
        Indices (K,) of the boxes that stay.
    """
    count = boxes.size(0)
    box = _at_least_float(boxes).detach().cpu().numpy().astype(np.float32)
    score = _at_least_float(scores).detach().cpu().numpy().astype(np.float32)
    areas = (box[:, 2] - box[:, 0] + np.float32(offset)) * (box[:, 3] - box[:, 1] + np.float32(offset))
    index = np.arange(count)
    out = np.zeros((count, 5), dtype=np.float32)
    columns = (box, score, areas, index)

    i = 0
    while i < count:
        best = i + int(np.argmax(score[i:count]))
        for column in columns:
            column[[i, best]] = column[[best, i]]
        out[i, :4], out[i, 4] = box[i], score[i]

        rest = slice(i + 1, count)
        low, high = np.maximum(box[i, :2], box[rest, :2]), np.minimum(box[i, 2:], box[rest, 2:])
        sides = np.maximum(np.float32(0), high - low + np.float32(offset))
        inter = sides[:, 0] * sides[:, 1]
        with np.errstate(divide="ignore", invalid="ignore"):  # two boxes without area: nan, which changes no score
            overlap = inter / (areas[i] + areas[rest] - inter)
        if method == 2:
            weight = np.exp(-(overlap * overlap) / np.float32(sigma))
        else:
            lowered = np.float32(1) - overlap if method == 1 else np.zeros_like(overlap)
            weight = np.where(overlap >= np.float32(iou_threshold), lowered, np.float32(1))
        score[rest] *= weight

        # mmcv fills the place of a box that goes with the last box of the list, and looks at that one next: the gaps
        # among the first places are filled with the boxes that stay, taken from the end.
        goes = score[rest] < np.float32(min_score)
        if goes.any():
            stays = int((~goes).sum())
            gaps = i + 1 + np.flatnonzero(goes[:stays])
            fillers = i + 1 + stays + np.flatnonzero(~goes[stays:])[::-1]
            for column in columns:
                column[gaps] = column[fillers]
            count = i + 1 + stays
        i += 1

    dets[:count] = torch.from_numpy(out[:count]).to(dets)
    return torch.from_numpy(index[:count].copy()).to(boxes.device)


def _require_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError(
            "mmcv op 'roi_align' with pool_mode='max': mmcv is installed without its compiled ops, and eyetoy_mm's "
            f"stand-in only averages. Set pool_mode='avg', or get full mmcv: {_FULL_MMCV}"
        )


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Writes the averages (K, C, aligned_height, aligned_width) of rois (K, 5) on input (B, C, H, W) into output."""
    _require_average(pool_mode)
    torchvision = _torchvision("roi_align_forward")
    x = _at_least_float(input)
    size = (aligned_height, aligned_width)
    output.copy_(torchvision.ops.roi_align(x, rois.to(x), size, spatial_scale, sampling_ratio, aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Adds the gradient of `roi_align_forward` to grad_input (B, C, H, W)."""
    _require_average(pool_mode)
    torchvision = _torchvision("roi_align_backward")
    grad = _at_least_float(grad_output)
    with torch.enable_grad():
        # Linear in the input, so that any input gives the gradient. Through the public function, which also has a
        # deterministic version for torch.use_deterministic_algorithms on CUDA; the kernel alone would refuse.
        x = torch.zeros_like(grad_input, dtype=grad.dtype).requires_grad_()
        size = (aligned_height, aligned_width)
        out = torchvision.ops.roi_align(x, rois.to(x), size, spatial_scale, sampling_ratio, aligned)
        grad_input += torch.autograd.grad(out, x, grad)[0]


def _focal_terms(
    input: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """p, log p, log(1 - p) in at least float32, and the factors (N, C) of the positive and of the negative term."""
    p = torch.sigmoid(_at_least_float(input))
    tiny = torch.finfo(torch.float32).tiny  # FLT_MIN, in double precision too, as in mmcv's kernel
    log_p, log_not_p = p.clamp(min=tiny).log(), (1 - p).clamp(min=tiny).log()
    positive = torch.arange(input.size(1), device=input.device) == target[:, None]  # a background row has no positive
    factor = torch.ones_like(p)
    if weight.numel() > 0:
        # The background label is one past the last weight. mmcv's kernel reads whatever lies there; we take 1.
        known = (target >= 0) & (target < weight.numel())
        factor = factor * torch.where(known, weight.to(p)[target.clamp(0, weight.numel() - 1)], 1.0)[:, None]
    return p, log_p, log_not_p, -alpha * factor * positive, -(1 - alpha) * factor * ~positive


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the loss (N, C) of logits (N, C) and labels (N,) into output.

    Args:
        input: Logits (N, C).
        target: Labels (N,), with C for background.
        weight: (C,), one weight per label, or empty.
        output: (N, C), written to.
        gamma: Exponent that makes easy examples count less.
        alpha: Weight of the positive class; the negative one has 1 - alpha.
    """
    p, log_p, log_not_p, positive, negative = _focal_terms(input, target, weight, alpha)
    output.copy_(positive * (1 - p).pow(gamma) * log_p + negative * p.pow(gamma) * log_not_p)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the derivative of `sigmoid_focal_loss_forward` by each logit into grad_input (N, C)."""
    p, log_p, log_not_p, positive, negative = _focal_terms(input, target, weight, alpha)
    positive = positive * (1 - p).pow(gamma) * (1 - p - gamma * p * log_p)
    negative = negative * p.pow(gamma) * (gamma * (1 - p) * log_not_p - p)
    grad_input.copy_(positive + negative)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (B, queries, channels), by mmcv's own PyTorch function for the CPU."""
    # Imported here: mmcv.ops imports this module.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    out = multi_scale_deformable_attn_pytorch(
        _at_least_float(value),
        value_spatial_shapes,
        _at_least_float(sampling_locations),
        _at_least_float(attention_weights),
    )
    return out.to(value)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Adds the gradients of `ms_deform_attn_forward` to grad_value, grad_sampling_loc and grad_attn_weight."""
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x in (value, sampling_locations, attention_weights)]
        out = ms_deform_attn_forward(
            inputs[0], value_spatial_shapes, value_level_start_index, inputs[1], inputs[2], im2col_step
        )
        grads = torch.autograd.grad(out, inputs, grad_output)
    for total, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        total += grad


def get_compiler_version() -> str:
    return "n/a (mmcv-lite; ops by eyetoy_mm.compat)"


def get_compiling_cuda_version() -> str:
    return "n/a (mmcv-lite; ops by eyetoy_mm.compat)"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    # mmcv looks up every op when it is imported, so that a missing one must exist until it is called. Not so for names
    # like __path__ and __wrapped__, with which Python asks what kind of object this is.
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"mmcv op {name!r}: mmcv is installed without its compiled ops (mmcv-lite), and eyetoy_mm has no "
            f"replacement for this one. To get full mmcv: {_FULL_MMCV}"
        )

    missing.__name__ = missing.__qualname__ = name
    return missing
