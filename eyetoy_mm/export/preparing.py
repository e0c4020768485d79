"""What happens to an image between the pipeline and the backbone, as part of the exported graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from eyetoy_mm.errors import UserError

# By the class of a part, which computes with the lengths of a map as Python's whole numbers: a graph has these as
# constants, those of the example.
KEPT_NUMBERS = {
    "ShiftWindowMSA": (
        "Swin's attention counts the windows of a padded map, and fills the mask of shifted ones, in Python's numbers"
    ),
}


class Preparation(nn.Module):
    """The data preprocessor of a model: order of channels, normalisation, padding.

    Args:
        preprocessor: Of mmseg, mmdet or mmpretrain.
        channel_order: Of the images that the pipeline gives it, ``"bgr"`` or ``"rgb"``.

    Raises:
        UserError: It pads to a fixed size.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessor: Any, channel_order: str) -> None:
        super().__init__()
        test_cfg = getattr(preprocessor, "test_cfg", None) or {}
        if test_cfg.get("size"):
            raise UserError(
                f"the data preprocessor pads every image to size={test_cfg['size']} in test_cfg, so there is no graph "
                "for other sizes: set model.data_preprocessor.test_cfg.size_divisor instead"
            )
        self.divisor = int(test_cfg.get("size_divisor") or getattr(preprocessor, "pad_size_divisor", 1) or 1)
        self.pad_value = float(getattr(preprocessor, "pad_val", getattr(preprocessor, "pad_value", 0)))
        swaps = any(
            getattr(preprocessor, name, False) for name in ("channel_conversion", "_channel_conversion", "to_rgb")
        )
        self.to_bgr = swaps != (channel_order == "bgr")
        self.normalizes = bool(getattr(preprocessor, "_enable_normalize", False))
        if self.normalizes:
            self.register_buffer("mean", preprocessor.mean.detach().clone().view(1, -1, 1, 1))
            self.register_buffer("std", preprocessor.std.detach().clone().view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """RGB images of 0..255 ``(B, 3, H, W)`` -> what the backbone takes, padded at the right and at the bottom."""
        x = images.flip(1) if self.to_bgr else images
        if self.normalizes:
            x = (x - self.mean) / self.std
        for axis in (2, 3):
            x = self._pad(x, axis)
        return x

    def _pad(self, x: Tensor, axis: int) -> Tensor:
        """By a select and a mask: a pad that depends on the size is not exported for every size."""
        if self.divisor == 1:
            return x
        length = x.shape[axis]
        position = torch.arange((length + self.divisor - 1) // self.divisor * self.divisor, device=x.device)
        inside = (position < length).view(-1, 1) if axis == 2 else position < length
        return torch.where(inside, x.index_select(axis, position.clamp(max=length - 1)), self.pad_value)


class AveragePool(nn.Module):
    """Adaptive average pooling of a map of any size: a product with averaging matrices on either side.

    Args:
        size: Rows and columns of the output.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, C, *size)``."""
        rows, columns = (_averaging(x, x.shape[2 + i], size) for i, size in enumerate(self.size))
        return rows @ x @ columns.transpose(0, 1)


def _averaging(x: Tensor, length: int, size: int) -> Tensor:
    """``(size, length)``: row ``i`` averages from ``floor(i * length / size)`` to ``ceil((i + 1) * length / size)``."""
    cell, position = torch.arange(size, device=x.device)[:, None], torch.arange(length, device=x.device)
    start, end = cell * length // size, ((cell + 1) * length + size - 1) // size
    return ((position >= start) & (position < end)).to(x.dtype) / (end - start).to(x.dtype)


def replace_pools(model: nn.Module) -> None:
    """Put :class:`AveragePool` in the place of torch's adaptive pools, whose graphs are for one size, in place."""
    for name, child in model.named_children():
        if not isinstance(child, nn.AdaptiveAvgPool2d):
            replace_pools(child)
            continue
        size: Any = child.output_size if isinstance(child.output_size, tuple) else (child.output_size,) * 2
        if size != (1, 1):  # that is a mean, for every size
            setattr(model, name, AveragePool(size))


def kept_numbers(model: nn.Module) -> str | None:
    """Why a graph of a model would be for the size and the batch of the example alone, if it would."""
    found = {type(module).__name__ for module in model.modules()}
    return next((reason for part, reason in KEPT_NUMBERS.items() if part in found), None)
