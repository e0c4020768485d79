"""Multi-scale deformable attention (Deformable DETR, 2010.04159)."""

from __future__ import annotations

import torch
from torch import Tensor

from eyetoy_mm.compat.mmcv_ext.common import at_least_float


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Multi-scale deformable attention (B, queries, channels), by mmcv's own PyTorch function for the CPU.

    On a CPU the layer of mmcv calls that function itself, under autograd. What comes here is on an accelerator: the
    backward pass computes the forward one again, which keeps no sampled values for it.
    """
    # Imported here: mmcv.ops imports this module.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    out = multi_scale_deformable_attn_pytorch(
        at_least_float(value),
        value_spatial_shapes,
        at_least_float(sampling_locations),
        at_least_float(attention_weights),
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
