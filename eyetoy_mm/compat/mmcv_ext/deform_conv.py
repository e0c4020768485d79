"""Deformable convolution, version 1 and version 2 (with a mask), by torchvision's `deform_conv2d`.

Arguments, in both: input (B, C, H, W), weight (C_out, C / groups, kH, kW), offset (B, 2 * deform_groups * kH * kW,
H_out, W_out) of y and x in turn, mask (B, deform_groups * kH * kW, H_out, W_out). `columns` and `ones` are room to work
for mmcv's kernels, and `im2col_step` is the number of images that these take at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eyetoy_mm.compat.mmcv_ext.common import add_gradients, at_least_float, torchvision


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Writes the convolution (B, C_out, H_out, W_out) into output."""
    geometry = (dH, dW), (padH, padW), (dilationH, dilationW)
    output.copy_(_convolve(input, weight, None, offset, None, *geometry))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Adds the gradients of `deform_conv_forward` to grad_input and grad_offset."""
    geometry = (dH, dW), (padH, padW), (dilationH, dilationW)
    add_gradients(
        lambda input, offset: _convolve(input, weight, None, offset, None, *geometry),
        (input, offset),
        grad_output,
        (grad_input, grad_offset),
    )


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Adds the gradient of `deform_conv_forward`, times scale, to grad_weight."""
    geometry = (dH, dW), (padH, padW), (dilationH, dilationW)
    # Linear in the weight, so that any weight gives the gradient.
    add_gradients(
        lambda weight: _convolve(input, weight, None, offset, None, *geometry),
        (grad_weight,),
        scale * grad_output,
        (grad_weight,),
    )


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Writes the convolution (B, C_out, H_out, W_out) into output; bias is (C_out,), or empty."""
    geometry = (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w)
    size = (output.size(2), output.size(3))
    offset, mask = _as_read(offset, size), _as_read(mask, size)
    output.copy_(_convolve(input, weight, bias if with_bias else None, offset, mask, *geometry))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Adds the gradients of `modulated_deform_conv_forward` to the five grad_*."""
    geometry = (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w)
    size = (grad_output.size(2), grad_output.size(3))

    def convolve(input: Tensor, weight: Tensor, bias: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        offset, mask = _as_read(offset, size), _as_read(mask, size)
        return _convolve(input, weight, bias if with_bias else None, offset, mask, *geometry)

    totals = (grad_input, grad_weight, grad_bias, grad_offset, grad_mask)
    add_gradients(convolve, (input, weight, bias, offset, mask), grad_output, totals)


def _convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    offset: Tensor,
    mask: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    # Groups and deform groups follow from the shapes.
    function = torchvision("deform_conv" if mask is None else "modulated_deform_conv").ops.deform_conv2d
    x = at_least_float(input)
    offset = _still_outside(offset.to(x), (weight.size(2), weight.size(3)), stride, padding, dilation)
    mask, bias = (None if t is None else t.to(x) for t in (mask, bias))
    return function(x, offset, weight.to(x), bias, stride, padding, dilation, mask)


def _still_outside(
    offset: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """Takes the gradient from offsets whose point is outside of the map by one pixel or more.

    A point outside by exactly one pixel is at a kink: it is 0 and would become more if it were moved inwards.
    torchvision gives the slope inwards, mmcv 0. All offsets of a new layer are 0, so that this is every pixel at the
    left and upper border of a padded convolution.
    """
    if not offset.requires_grad:
        return offset
    pairs = offset.unflatten(1, (-1, *kernel, 2))  # (B, deform_groups, kH, kW, 2, H_out, W_out)
    start = [
        torch.arange(taps, device=offset.device)[:, None] * step + torch.arange(size, device=offset.device) * jump - pad
        for taps, step, size, jump, pad in zip(kernel, dilation, offset.shape[2:], stride, padding, strict=True)
    ]  # (kH, H_out) and (kW, W_out)
    y = pairs[:, :, :, :, 0] + start[0][:, None, :, None]
    x = pairs[:, :, :, :, 1] + start[1][:, None, :]
    moves = torch.stack([y, x], dim=4) > -1
    return torch.where(moves, pairs, pairs.detach()).flatten(1, 4)


def _as_read(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The part of offset or mask that mmcv's kernel reads, which takes them to be of the output's size.

    mmdet's DyHead gives larger ones, made for the next finer level, and was trained so.
    """
    if tuple(x.shape[2:]) == size:
        return x
    return x.flatten(1)[:, : x.size(1) * size[0] * size[1]].unflatten(1, (x.size(1), *size))
