"""The masks of point-wise spatial attention (PSANet, ECCV 2018)."""

from __future__ import annotations

import torch
from torch import Tensor


def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Writes the attention between all pairs of pixels into output; 0 where they are further apart than the mask.

    Args:
        input: (B, h_mask * w_mask, H, W): what each pixel has to say to the pixels around it.
        output: (B, H * W, H, W): of pixel (dim 1) and the pixel that says it (dims 2, 3) with psa_type 0 ("collect");
            the other way round with psa_type 1 ("distribute").
        psa_type: 0 or 1.
        num_: B.
        h_feature: H.
        w_feature: W.
        h_mask: Height of the mask.
        w_mask: Width of the mask.
        half_h_mask: Its middle.
        half_w_mask: Its middle.
    """
    cell, inside = _cells(h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask, input.device)
    pairs = input.flatten(2).gather(1, cell.expand(num_, -1, -1)) * inside
    # Not copy_, by which torch.compile (2.11) takes the gradient of an autograd function for zero, without a word.
    output[...] = (pairs.transpose(1, 2) if psa_type else pairs).view_as(output)


def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Adds the gradient of `psamask_forward` to grad_input (B, h_mask * w_mask, H, W)."""
    cell, inside = _cells(h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask, grad_output.device)
    grad = grad_output.flatten(2)
    grad = (grad.transpose(1, 2) if psa_type else grad) * inside
    grad_input.flatten(2).scatter_add_(1, cell.expand(num_, -1, -1), grad.to(grad_input))


def _cells(
    height: int, width: int, h_mask: int, w_mask: int, half_h: int, half_w: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Which cell of the mask of a pixel (dim 1) another pixel (dim 0) is in, (H W, H W), and whether it is in any."""
    pixel = torch.arange(height * width, device=device)
    y, x = pixel // width, pixel % width
    row, column = y[:, None] - y + half_h, x[:, None] - x + half_w
    inside = (row >= 0) & (row < h_mask) & (column >= 0) & (column < w_mask)
    return torch.where(inside, row * w_mask + column, 0), inside
