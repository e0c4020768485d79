"""Bilinear samples of feature maps, and their reduction over the bins of regions of interest.

mmcv's rule, which all its operators on regions share: pixel (i, j) is the point (i, j); a point up to one pixel outside
of the map takes the value at its border, and one further out is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

YX = tuple[Tensor, Tensor]
Points = Callable[[Tensor, int, int], YX]
BinSamples = tuple[Tensor, Tensor, YX]


def sample(features: Tensor, image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Values (N, C, P) of feature maps (B, C, H, W) at points y, x (N, P) of the images `image` (N,).

    Differentiable with respect to features, y and x.
    """
    height, width = features.shape[2:]
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1).to(features)  # (N, P, 2)
    values = features.new_zeros(len(image), features.size(1), y.size(1))
    for index in image.unique().tolist():
        rows = (image == index).nonzero()[:, 0]
        one = F.grid_sample(features[None, index], grid[None, rows], padding_mode="border", align_corners=False)
        values = values.index_copy(0, rows, one[0].transpose(0, 1))
    return values * inside[:, None]


def add_to_samples(total: Tensor, image: Tensor, y: Tensor, x: Tensor, grad: Tensor) -> None:
    """Adds the gradient of samples, at points of their own for each channel, to that of the feature maps.

    Args:
        total: (B, C, H, W), added to.
        image: (N,), the image of each row of points.
        y: (N, C, P).
        x: (N, C, P).
        grad: (N, C, P), gradient of the values at these points.
    """
    _, channels, height, width = total.shape
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    plane_start = (image[:, None] * channels + torch.arange(channels, device=image.device))[..., None] * height * width
    flat = total.new_zeros(total.numel())
    for row in (y.floor(), y.floor() + 1):
        for column in (x.floor(), x.floor() + 1):
            weight = (1 - (y - row).abs()) * (1 - (x - column).abs()) * inside
            where = plane_start + row.clamp(max=height - 1).long() * width + column.clamp(max=width - 1).long()
            flat.index_add_(0, where.flatten(), (weight * grad).to(flat).flatten())
    total += flat.view_as(total)


def bin_samples(features: Tensor, image: Tensor, counts: Tensor, points: Points) -> Iterator[BinSamples]:
    """Samples in the bins of regions, for one size of the grid of samples after the other.

    Args:
        features: (B, C, H, W).
        image: (N,), the image of each region.
        counts: (N, 2), the rows and columns of samples in each bin of a region.
        points: Gives y and x (n, rows of bins, columns of bins, samples) for indices (n,) of regions, rows and columns.

    Yields:
        Indices (n,) of regions, their samples (n, C, rows of bins, columns of bins, samples), and the points of these.
    """
    for rows, columns in counts.unique(dim=0).tolist():
        chosen = (counts == counts.new_tensor([rows, columns])).all(dim=1).nonzero()[:, 0]
        if rows * columns > 0:
            y, x = points(chosen, rows, columns)
            values = sample(features, image[chosen], y.flatten(1), x.flatten(1))
            yield chosen, values.unflatten(2, y.shape[1:]), (y, x)


def bin_averages(features: Tensor, image: Tensor, counts: Tensor, points: Points, bins: tuple[int, int]) -> Tensor:
    """Averages (N, C, *bins) of `bin_samples`; 0 where there is no sample."""
    out = features.new_zeros(len(image), features.size(1), *bins)
    for chosen, values, _ in bin_samples(features, image, counts, points):
        out = out.index_copy(0, chosen, values.mean(dim=-1))
    return out


def grid_counts(height: Tensor, width: Tensor, bins: tuple[int, int], sampling_ratio: int) -> Tensor:
    """Rows and columns of samples (N, 2) in the bins of regions of a height and width (N,), which is 1 per pixel.

    Args:
        height: (N,), in pixels of the feature map; there are no samples where it is not positive.
        width: (N,).
        bins: Rows and columns of bins.
        sampling_ratio: Rows and columns of samples instead, where it is not 0.
    """
    if sampling_ratio > 0:
        return torch.full((len(height), 2), sampling_ratio, device=height.device)
    return torch.stack([(height / bins[0]).ceil(), (width / bins[1]).ceil()], dim=1).long().clamp(min=0)


def spread(start: Tensor, size: Tensor, bins: int, samples: int) -> Tensor:
    """Where the samples (N, bins, samples) lie on an axis, from start (N,) on, in regions of a size (N,)."""
    steps = torch.arange(bins * samples, device=start.device).to(start) + 0.5
    return (start[:, None] + steps * (size / (bins * samples))[:, None]).unflatten(1, (bins, samples))


def plane(y: Tensor, x: Tensor) -> YX:
    """The points of every row (N, bins, samples) with every column, as y and x (N, row bins, column bins, samples)."""
    n, row_bins, rows = y.shape
    column_bins, columns = x.shape[1:]
    shape = (n, row_bins, column_bins, rows, columns)
    y = y[:, :, None, :, None].expand(shape)
    x = x[:, None, :, None, :].expand(shape)
    return y.flatten(3), x.flatten(3)
