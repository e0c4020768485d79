"""The two halves of a convolution that is computed at some pixels only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Writes the patches of im (1, C, H, W) around pixels (h, w) (M,) into col (C * kernel_h * kernel_w, M)."""
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    rows = torch.arange(kernel_h, device=im.device)[:, None, None] + mask_h_idx
    columns = torch.arange(kernel_w, device=im.device)[:, None] + mask_w_idx
    col.copy_(padded[:, rows, columns].reshape(col.shape))  # (C, kernel_h, kernel_w, M)


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Writes col (C, M), which autocast has in its own dtype, to the pixels (h, w) (M,) of im (1, C, height, width)."""
    im[0, :, mask_h_idx, mask_w_idx] = col.to(im)
