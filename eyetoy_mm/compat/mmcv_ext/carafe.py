"""CARAFE: upsampling by a kernel of its own for every output pixel (1905.02188).

Arguments: features (B, C, H, W); masks (B, groups * k * k, s H, s W), the kernels; output (B, C, s H, s W). The r*
tensors are room to work for mmcv's kernels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from eyetoy_mm.compat.mmcv_ext.common import add_gradients, at_least_float


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Writes the upsampled features into output, and keeps features in rfeatures for the backward pass."""
    # mmcv gives nothing else of them to carafe_backward. Its own layout there is (B, H, W, C); the size is the same.
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Adds the gradients of `carafe_forward` to bottom_grad (of features) and mask_grad."""
    carafe_naive_backward(top_grad, rfeatures, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor)


def carafe_naive_forward(
    features: Tensor, masks: Tensor, output: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> None:
    """Writes the upsampled features into output."""
    for i in range(len(features)):  # one image at a time: the patches are k * k times its features
        x, mask = at_least_float(features[i]), at_least_float(masks[i])
        output[i] = _reassemble(x, mask, kernel_size, group_size, scale_factor).to(output)


def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Adds the gradients of `carafe_naive_forward` to bottom_grad (of features) and mask_grad."""
    for i in range(len(features)):
        add_gradients(
            lambda x, mask: _reassemble(x, mask, kernel_size, group_size, scale_factor),
            (at_least_float(features[i]), at_least_float(masks[i])),
            top_grad[i],
            (bottom_grad[i], mask_grad[i]),
        )


def _reassemble(features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    """One image: features (C, H, W), masks (groups * k * k, s H, s W)."""
    channels, height, width = features.shape
    patches = F.unfold(features[None], kernel, padding=kernel // 2)[0]
    patches = patches.view(groups, channels // groups, kernel**2, height, width).permute(0, 3, 4, 1, 2)
    masks = masks.view(groups, kernel**2, height, scale, width, scale).permute(0, 2, 4, 1, 3, 5).flatten(4)
    out = patches @ masks.to(patches)  # (groups, H, W, C / groups, s * s)
    out = out.unflatten(4, (scale, scale)).permute(0, 3, 1, 4, 2, 5)
    return out.reshape(channels, height * scale, width * scale)
