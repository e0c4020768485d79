"""RoIAlign and its relatives: features at regular points of regions of interest, averaged or the largest.

Arguments: input (B, C, H, W); rois (K, 5) of image, x1, y1, x2, y2, or (K, 6) of image, centre x, centre y, width,
height, angle in radians; output (K, C, height, width); `spatial_scale` from the coordinates of rois to pixels of input;
`sampling_ratio` samples per bin and axis, or 0 for about one per pixel; `aligned` for pixel centres at half
coordinates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eyetoy_mm.compat.mmcv_ext.common import add_gradients, at_least_float, torchvision
from eyetoy_mm.compat.mmcv_ext.sampling import (
    YX,
    Points,
    add_to_samples,
    bin_averages,
    bin_samples,
    grid_counts,
    plane,
    sample,
    spread,
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
    """Writes the averages (pool_mode 1) or maxima (0) of rois into output, and the points of maxima into argmax_*."""
    x, bins = at_least_float(input), (aligned_height, aligned_width)
    if pool_mode == 1:
        align = torchvision("roi_align_forward").ops.roi_align
        output.copy_(align(x, rois.to(x), bins, spatial_scale, sampling_ratio, aligned))
        return
    counts, points = _upright(rois.to(x), bins, spatial_scale, sampling_ratio, aligned)
    for argmax in (argmax_y, argmax_x):
        argmax.fill_(-2)  # outside of the map: where there are no samples, no pixel gets a gradient
    for chosen, values, (ys, xs) in bin_samples(x, rois[:, 0].long(), counts, points):
        largest = values.max(dim=-1)
        output[chosen] = largest.values.to(output)
        for argmax, where in ((argmax_y, ys), (argmax_x, xs)):
            argmax[chosen] = where[:, None].expand_as(values).gather(-1, largest.indices[..., None])[..., 0].to(argmax)


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
    if pool_mode != 1:
        y, x, grad = (at_least_float(t).flatten(2) for t in (argmax_y, argmax_x, grad_output))
        add_to_samples(grad_input, rois[:, 0].long(), y, x, grad)
        return
    align, bins = torchvision("roi_align_backward").ops.roi_align, (aligned_height, aligned_width)
    # Linear in the input, so that any input gives the gradient. Through the public function, which also has a
    # deterministic version for torch.use_deterministic_algorithms on CUDA; the kernel alone would refuse.
    x = torch.zeros_like(at_least_float(grad_input))
    add_gradients(
        lambda x: align(x, rois.to(x), bins, spatial_scale, sampling_ratio, aligned), (x,), grad_output, (grad_input,)
    )


def _upright(
    rois: Tensor, bins: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Points]:
    """Numbers of samples and the points of rois (K, 5)."""
    corners = rois[:, 1:] * scale - (0.5 if aligned else 0.0)
    left, top, right, bottom = corners.unbind(1)
    height, width = bottom - top, right - left
    if not aligned:
        height, width = height.clamp(min=1), width.clamp(min=1)

    def points(chosen: Tensor, rows: int, columns: int) -> YX:
        y = spread(top[chosen], height[chosen], bins[0], rows)
        return plane(y, spread(left[chosen], width[chosen], bins[1], columns))

    return grid_counts(height, width, bins, sampling_ratio), points


# --- Rotated regions ------------------------------------------------------------------------------------------------


def roi_align_rotated_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> None:
    """Writes the averages of rotated rois (K, 6) into output."""
    bins = (pooled_height, pooled_width)
    output.copy_(_rotated(at_least_float(input), rois, bins, spatial_scale, sampling_ratio, aligned, clockwise))


def roi_align_rotated_backward(
    grad_output: Tensor,
    rois: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> None:
    """Adds the gradient of `roi_align_rotated_forward` to grad_input."""
    bins = (pooled_height, pooled_width)
    add_gradients(
        lambda x: _rotated(x, rois, bins, spatial_scale, sampling_ratio, aligned, clockwise),
        (torch.zeros_like(at_least_float(grad_input)),),  # linear in it
        grad_output,
        (grad_input,),
    )


def _rotated(
    input: Tensor,
    rois: Tensor,
    bins: tuple[int, int],
    scale: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> Tensor:
    rois = rois.to(input)
    image, angle = rois[:, 0].long(), -rois[:, 5] if clockwise else rois[:, 5]
    centre = rois[:, 1:3] * scale - (0.5 if aligned else 0.0)
    size = rois[:, 3:5] * scale
    if not aligned:
        size = size.clamp(min=1)
    width, height = size.unbind(1)

    def points(chosen: Tensor, rows: int, columns: int) -> YX:
        y = spread(-height[chosen] / 2, height[chosen], bins[0], rows)
        y, x = plane(y, spread(-width[chosen] / 2, width[chosen], bins[1], columns))
        cos, sin = (t[chosen, None, None, None] for t in (angle.cos(), angle.sin()))
        centre_x, centre_y = (t[chosen, None, None, None] for t in centre.unbind(1))
        return y * cos - x * sin + centre_y, y * sin + x * cos + centre_x

    return bin_averages(input, image, grid_counts(height, width, bins, sampling_ratio), points, bins)


def riroi_align_rotated_forward(
    features: Tensor,
    rois: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    num_samples: int,
    num_orientations: int,
    clockwise: bool,
) -> None:
    """Writes the averages of rotated rois (K, 6), of channels turned as they are, into output (ReDet, 2103.07733)."""
    bins = (pooled_height, pooled_width)
    x = at_least_float(features)
    output.copy_(_turned(x, rois, bins, spatial_scale, num_samples, num_orientations, clockwise))


def riroi_align_rotated_backward(
    grad_output: Tensor,
    rois: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    num_samples: int,
    num_orientations: int,
    clockwise: bool,
) -> None:
    """Adds the gradient of `riroi_align_rotated_forward` to grad_input."""
    bins = (pooled_height, pooled_width)
    add_gradients(
        lambda x: _turned(x, rois, bins, spatial_scale, num_samples, num_orientations, clockwise),
        (torch.zeros_like(at_least_float(grad_input)),),  # linear in it
        grad_output,
        (grad_input,),
    )


def _turned(
    features: Tensor,
    rois: Tensor,
    bins: tuple[int, int],
    scale: float,
    num_samples: int,
    orientations: int,
    clockwise: bool,
) -> Tensor:
    pooled = _rotated(features, rois, bins, scale, num_samples, aligned=False, clockwise=clockwise)
    pooled = pooled.unflatten(1, (-1, orientations))  # (K, C / orientations, orientations, *bins)
    turns = rois[:, 5].to(features) * orientations / (2 * math.pi)
    part = (turns - turns.floor())[:, None, None, None, None]
    channel = torch.arange(orientations, device=rois.device) - turns.floor().long()[:, None]  # (K, orientations)

    def turned(channel: Tensor) -> Tensor:
        return pooled.gather(2, (channel % orientations)[:, None, :, None, None].expand_as(pooled))

    return ((1 - part) * turned(channel) + part * turned(channel + 1)).flatten(1, 2)


# --- Borders --------------------------------------------------------------------------------------------------------


def border_align_forward(input: Tensor, boxes: Tensor, output: Tensor, argmax_idx: Tensor, pool_size: int) -> None:
    """Writes the largest feature on each border of boxes into output (BorderDet, 2007.11056).

    Args:
        input: (B, 4 C, H, W), C channels for each of the top, left, bottom and right border.
        boxes: (B, K, 4), x1 y1 x2 y2 in pixels of input.
        output: (B, C, K, 4).
        argmax_idx: (B, C, K, 4), written to: which of the points on the border it is.
        pool_size: A border has pool_size + 1 points.
    """
    x, image = at_least_float(input), _image_of_boxes(boxes)
    for border, (ys, xs) in enumerate(_border_points(boxes.to(x), pool_size)):
        values = sample(x.chunk(4, dim=1)[border], image, ys, xs)  # (B K, C, points)
        largest = values.max(dim=-1)
        for out, result in ((output, largest.values), (argmax_idx, largest.indices)):
            out[..., border] = result.unflatten(0, boxes.shape[:2]).transpose(1, 2).to(out)


def border_align_backward(
    grad_output: Tensor, boxes: Tensor, argmax_idx: Tensor, grad_input: Tensor, pool_size: int
) -> None:
    """Adds the gradient of `border_align_forward` to grad_input (B, 4 C, H, W)."""
    image, grads = _image_of_boxes(boxes), at_least_float(grad_output)
    for border, (ys, xs) in enumerate(_border_points(boxes.to(grads), pool_size)):
        index, grad = (t[..., border].transpose(1, 2).flatten(0, 1) for t in (argmax_idx.long(), grads))  # (B K, C)
        y, x = ys.gather(1, index), xs.gather(1, index)
        add_to_samples(grad_input.chunk(4, dim=1)[border], image, y[..., None], x[..., None], grad[..., None])


def _image_of_boxes(boxes: Tensor) -> Tensor:
    return torch.arange(boxes.size(0), device=boxes.device).repeat_interleave(boxes.size(1))


def _border_points(boxes: Tensor, pool_size: int) -> list[YX]:
    """Points y, x (B K, pool_size + 1) on the top, left, bottom and right border; the last two go backwards."""
    x1, y1, x2, y2 = (t[:, None] for t in boxes.flatten(0, 1).unbind(1))
    steps = torch.arange(pool_size + 1, device=boxes.device).to(boxes) / pool_size
    across, down, stay = (x2 - x1) * steps, (y2 - y1) * steps, torch.zeros_like(steps)
    return [(y1 + stay, x1 + across), (y1 + down, x1 + stay), (y2 + stay, x2 - across), (y2 - down, x2 + stay)]
