"""RoIPool, deformable RoIPool and precise RoIPool.

Arguments: input (B, C, H, W); rois (K, 5) of image, x1, y1, x2, y2; output (K, C, height, width); `spatial_scale` from
the coordinates of rois to pixels of input.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eyetoy_mm.compat.mmcv_ext.common import add_gradients, at_least_float
from eyetoy_mm.compat.mmcv_ext.sampling import YX, bin_averages, grid_counts, plane, spread

# --- The largest pixel of each bin ----------------------------------------------------------------------------------


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Writes the maxima of the bins of rois into output, and their pixels (y * W + x, or -1) into argmax.

    A roi reaches to x2 + 1 and y2 + 1, and a bin takes every pixel that it touches. torchvision's `roi_pool` rounds
    rois to whole pixels first, and so takes others.
    """
    boxes = at_least_float(rois)
    low, high = boxes[:, 1:3] * spatial_scale, (boxes[:, 3:5] + 1) * spatial_scale
    (left, top), (right, bottom) = low.unbind(1), high.unbind(1)
    rows = _touched(top, bottom, pooled_height, input.size(2))
    columns = _touched(left, right, pooled_width, input.size(3))
    for index in boxes[:, 0].unique().long().tolist():
        chosen = (boxes[:, 0] == index).nonzero()[:, 0]
        ranges = [end[chosen] for end in (*rows, *columns)]
        values, pixels = _largest_in_rectangles(input[index], *ranges)
        output[chosen] = values.to(output)
        argmax[chosen] = pixels.to(argmax)
    nothing = ((right <= left) | (bottom <= top)).nonzero()[:, 0]
    output[nothing], argmax[nothing] = 0, -1


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Adds the gradient of `roi_pool_forward` to grad_input."""
    image, pixels, grad = rois[:, 0].long(), argmax.long().flatten(2), grad_output.flatten(2)
    planes = torch.zeros_like(grad_input).flatten(2).flatten(0, 1)  # (B C, H W)
    plane_of = image[:, None] * grad_input.size(1) + torch.arange(grad_input.size(1), device=image.device)
    where = plane_of[..., None] * planes.size(1) + pixels.clamp(min=0)
    planes.view(-1).index_add_(0, where.flatten(), (grad * (pixels >= 0)).to(planes).flatten())
    grad_input += planes.view_as(grad_input)


def _touched(start: Tensor, end: Tensor, bins: int, size: int) -> YX:
    """First and behind the last pixel (N, bins) that the bins of start to end (N,) touch, on an axis of `size`."""
    side = (end - start) / bins
    edges = torch.arange(bins + 1, device=start.device).to(start) * side[:, None] + start[:, None]
    first, behind = edges[:, :-1].floor(), edges[:, 1:].ceil()
    return first.clamp(0, size).long(), behind.clamp(0, size).long()


def _largest_in_rectangles(image: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> YX:
    """Maxima (N, C, P, Q) of image (C, H, W) and their first pixels in rectangles of rows (N, P) and columns (N, Q).

    A rectangle is the union of four that overlap, with sides of powers of two. Tables hold the maxima of all of those,
    so that every rectangle costs four look-ups, whatever its size. An empty one gives 0 and -1.
    """
    channels, height, width = image.shape
    pixels = torch.arange(height * width, device=image.device).view(1, height, width).expand(channels, -1, -1)
    rows, columns = _powers(bottom - top), _powers(right - left)
    empty = ((bottom <= top)[:, :, None] | (right <= left)[:, None, :])[:, None]
    values = image.new_zeros(len(top), channels, top.size(1), left.size(1))
    where = torch.full_like(values, -1, dtype=torch.long)
    tall = (image, pixels)
    for row_power in range(int(rows.max()) + 1 if rows.numel() else 0):
        table = tall
        for column_power in range(int(columns.max()) + 1 if columns.numel() else 0):
            uses = (rows == row_power)[:, :, None] & (columns == column_power)[:, None, :] & ~empty[:, 0]
            roi, p, q = uses.nonzero(as_tuple=True)
            if len(roi):
                ys = (top[roi, p], bottom[roi, p] - 2**row_power)
                xs = (left[roi, q], right[roi, q] - 2**column_power)
                quarters = [(table[0][:, y, x], table[1][:, y, x]) for y in ys for x in xs]  # each (C, uses)
                best = quarters[0]
                for quarter in quarters[1:]:
                    best = _larger(best, quarter)
                values[roi, :, p, q], where[roi, :, p, q] = best[0].T, best[1].T
            table = _doubled(table, 2**column_power, dim=2)
        tall = _doubled(tall, 2**row_power, dim=1)
    return values, where


def _powers(length: Tensor) -> Tensor:
    """The largest powers of two, as exponents, that are not above lengths."""
    return torch.frexp(length.clamp(min=1).float()).exponent - 1


def _doubled(table: YX, step: int, dim: int) -> YX:
    """The table for rectangles twice as long: the maximum of each entry and the one `step` further on."""
    length = table[0].size(dim) - step
    if length <= 0:
        return table
    near, far = ([t.narrow(dim, start, length) for t in table] for start in (0, step))
    return _larger((near[0], near[1]), (far[0], far[1]))


def _larger(a: YX, b: YX) -> YX:
    """The larger values of two and their pixels; of equal ones the first pixel."""
    take = (b[0] > a[0]) | ((b[0] == a[0]) & (b[1] < a[1]))
    return torch.where(take, b[0], a[0]), torch.where(take, b[1], a[1])


# --- Bins that are moved --------------------------------------------------------------------------------------------


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Writes the averages of the bins of rois, each moved by an offset, into output (Deformable ConvNets, 1703.06211).

    Args:
        input: (B, C, H, W).
        rois: (K, 5).
        offset: (K, 2, height, width) of x and y, in widths and heights of the roi times gamma; or empty.
        output: (K, C, height, width).
        pooled_height: Rows of bins.
        pooled_width: Columns of bins.
        spatial_scale: From the coordinates of rois to pixels of input.
        sampling_ratio: Samples per bin and axis, or 0 for about one per pixel.
        gamma: Factor of offset.
    """
    bins = (pooled_height, pooled_width)
    output.copy_(_deformed(at_least_float(input), rois, offset, bins, spatial_scale, sampling_ratio, gamma))


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Adds the gradients of `deform_roi_pool_forward` to grad_input and grad_offset.

    Where a sample lies outside of the map, and so is the value at the border, moving it changes nothing: the gradient
    of offset is 0 there. mmcv's kernel goes on with the slope of the last two pixels.
    """
    bins = (pooled_height, pooled_width)
    add_gradients(
        lambda x, offset: _deformed(x, rois, offset, bins, spatial_scale, sampling_ratio, gamma),
        (at_least_float(input), offset),
        grad_output,
        (grad_input, grad_offset),
    )


def _deformed(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    bins: tuple[int, int],
    scale: float,
    sampling_ratio: int,
    gamma: float,
) -> Tensor:
    left, top, right, bottom = (rois[:, 1:].to(input) * scale - 0.5).unbind(1)
    height, width = bottom - top, right - left
    if offset.numel() == 0:
        offset = input.new_zeros(len(rois), 2, *bins)
    move_x, move_y = (gamma * side[:, None, None] * offset[:, i].to(input) for i, side in enumerate((width, height)))

    def points(chosen: Tensor, rows: int, columns: int) -> YX:
        y = spread(top[chosen], height[chosen], bins[0], rows)
        y, x = plane(y, spread(left[chosen], width[chosen], bins[1], columns))
        return y + move_y[chosen, :, :, None], x + move_x[chosen, :, :, None]

    counts = grid_counts(height, width, bins, sampling_ratio)
    return bin_averages(input, rois[:, 0].long(), counts, points, bins)


# --- Exact averages -------------------------------------------------------------------------------------------------


def prroi_pool_forward(
    features: Tensor, rois: Tensor, output: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float
) -> None:
    """Writes the exact averages of the bilinear surface over the bins of rois into output (1807.11590)."""
    output.copy_(_precise(at_least_float(features), rois, (pooled_height, pooled_width), spatial_scale))


def prroi_pool_backward(
    grad_output: Tensor, rois: Tensor, grad_input: Tensor, pooled_height: int, pooled_width: int, spatial_scale: float
) -> None:
    """Adds the gradient of `prroi_pool_forward` to grad_input."""
    add_gradients(
        lambda x: _precise(x, rois, (pooled_height, pooled_width), spatial_scale),
        (torch.zeros_like(at_least_float(grad_input)),),  # linear in it
        grad_output,
        (grad_input,),
    )


def prroi_pool_coor_backward(
    output: Tensor,
    grad_output: Tensor,
    features: Tensor,
    rois: Tensor,
    grad_rois: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Adds the gradient of `prroi_pool_forward` with respect to the corners of rois to grad_rois (K, 5)."""
    x = at_least_float(features)
    add_gradients(
        lambda rois: _precise(x, rois, (pooled_height, pooled_width), spatial_scale),
        (at_least_float(rois),),
        grad_output,
        (grad_rois,),
    )


def _precise(features: Tensor, rois: Tensor, bins: tuple[int, int], scale: float) -> Tensor:
    # The bilinear surface is a sum of tents, each a product of one function of y and one of x: so is its integral.
    left, top, right, bottom = (rois[:, 1:].to(features) * scale).unbind(1)
    rows = _tent_integrals(top, (bottom - top).clamp(min=0), bins[0], features.size(2))
    columns = _tent_integrals(left, (right - left).clamp(min=0), bins[1], features.size(3))
    image = rois[:, 0].detach().long()
    out = features.new_zeros(len(rois), features.size(1), *bins)
    for index in image.unique().tolist():
        chosen = (image == index).nonzero()[:, 0]
        pooled = torch.einsum("npy,cyx,nqx->ncpq", rows[chosen], features[index], columns[chosen])
        out = out.index_copy(0, chosen, pooled)
    area = (bottom - top).clamp(min=0) * (right - left).clamp(min=0) / (bins[0] * bins[1])
    filled = (area > 0)[:, None, None, None]
    return torch.where(filled, out / torch.where(filled, area[:, None, None, None], 1.0), 0.0)


def _tent_integrals(start: Tensor, size: Tensor, bins: int, pixels: int) -> Tensor:
    """Integrals (N, bins, pixels) of the tent of each pixel over each bin of start to start + size (N,)."""
    edges = start[:, None] + torch.arange(bins + 1, device=start.device).to(start) * (size / bins)[:, None]
    t = (edges[..., None] - torch.arange(pixels, device=start.device).to(start)).clamp(-1, 1)
    below = 0.5 + t - t * t.abs() / 2  # integral of 1 - |t| from -1 on
    return below[:, 1:] - below[:, :-1]
