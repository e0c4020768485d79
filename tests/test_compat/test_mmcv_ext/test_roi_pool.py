"""RoIPool, deformable and precise RoIPool."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.test_compat.test_mmcv_ext.reference import bilinear

# Inputs, results and gradients of mmcv's own tests (test_roi_pool.py, test_deform_roi_pool.py, test_prroi_pool.py).
SMALL = [[[[1.0, 2], [3, 4]]]]
TWO = [[[[1.0, 2], [3, 4]], [[4, 3], [2, 1]]]]
LARGE = [[[[1.0, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16]]]]
MAPS = [(SMALL, [[0.0, 0, 0, 1, 1]]), (TWO, [[0.0, 0, 0, 1, 1]]), (LARGE, [[0.0, 0, 0, 3, 3]])]
# Off the grid, over the border, outside, empty, tiny, on a second image.
ROIS = [
    [0, 1.3, 0.7, 7.9, 6.2],
    [0, -3.4, -2.0, 5.5, 3.3],
    [1, 4.1, 3.2, 14.0, 12.0],
    [0, 30, 30, 40, 40],
    [1, 3.0, 3.0, 1.0, 1.5],
    [1, 2.2, 5.1, 2.3, 5.2],
    [0, 0, 0, 11, 8],
]


def outcome(layer, x: list, rois: list) -> tuple[Tensor, Tensor]:
    features = torch.tensor(x, requires_grad=True)
    out = layer(features, torch.tensor(rois))
    out.backward(torch.ones_like(out))
    return out.detach(), features.grad


# --- RoIPool --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "expected", "grad"),
    [
        (MAPS[0], SMALL, [[[[1.0, 1], [1, 1]]]]),
        (MAPS[1], TWO, [[[[1.0, 1], [1, 1]], [[1, 1], [1, 1]]]]),
        (MAPS[2], [[[[4.0, 8], [12, 16]]]], [[[[0.0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]]]]),
    ],
)
def test_roi_pool_gives_mmcvs_numbers(case, expected, grad):
    from mmcv.ops import RoIPool

    out, found = outcome(RoIPool((2, 2), 1.0), *case)
    assert torch.equal(out, torch.tensor(expected)) and torch.equal(found, torch.tensor(grad))


def largest_by_loops(x: Tensor, rois: Tensor, bins: tuple[int, int], scale: float) -> Tensor:
    out = torch.zeros(len(rois), x.size(1), *bins, dtype=x.dtype)
    for k, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        left, top, right, bottom = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
        if right <= left or bottom <= top:
            continue
        for p in range(bins[0]):
            for q in range(bins[1]):
                high, wide = (bottom - top) / bins[0], (right - left) / bins[1]
                rows = range(max(0, math.floor(p * high + top)), min(x.size(2), math.ceil((p + 1) * high + top)))
                columns = range(max(0, math.floor(q * wide + left)), min(x.size(3), math.ceil((q + 1) * wide + left)))
                if len(rows) and len(columns):
                    part = x[int(image), :, rows.start : rows.stop, columns.start : columns.stop]
                    out[k, :, p, q] = part.amax(dim=(1, 2))
    return out


@pytest.mark.parametrize("scale", [1.0, 0.6])
@pytest.mark.parametrize("bins", [(1, 1), (3, 2), (7, 7)])
def test_roi_pool_is_the_loops_and_its_gradient_is_the_derivative(bins, scale):
    from mmcv.ops import roi_pool

    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 12, dtype=torch.double, requires_grad=True)
    rois = torch.tensor(ROIS, dtype=torch.double)
    expected = largest_by_loops(x, rois, bins, scale)
    out = roi_pool(x, rois, bins, scale)
    assert torch.equal(out, expected)
    weight = torch.randn_like(out)
    (expected_grad,) = torch.autograd.grad((expected * weight).sum(), x)
    (grad,) = torch.autograd.grad((out * weight).sum(), x)
    torch.testing.assert_close(grad, expected_grad)


def test_roi_pool_takes_the_first_of_equal_pixels():
    from mmcv.ops import roi_pool

    x = torch.zeros(1, 1, 5, 6, requires_grad=True)
    roi_pool(x, torch.tensor([[0.0, 1, 1, 4, 3]]), 1).backward()
    assert x.grad.nonzero().tolist() == [[0, 0, 1, 1]]


def test_no_regions():
    from mmcv.ops import deform_roi_pool, prroi_pool, roi_pool

    x = torch.randn(1, 2, 5, 5, requires_grad=True)
    rois = torch.zeros(0, 5)
    for out in (roi_pool(x, rois, 3), deform_roi_pool(x, rois, None, 3), prroi_pool(x, rois, (3, 3), 1.0)):
        assert out.shape == (0, 2, 3, 3)
        out.sum().backward()
    assert not x.grad.any()


# --- Deformable RoIPool ---------------------------------------------------------------------------------------------

GRAD_2 = [[3.0625, 0.4375], [0.4375, 0.0625]]
GRAD_4 = [
    [0.47265625, 0.4296875, 0.4296875, 0.04296875],
    [0.4296875, 0.390625, 0.390625, 0.0390625],
    [0.4296875, 0.390625, 0.390625, 0.0390625],
    [0.04296875, 0.0390625, 0.0390625, 0.00390625],
]


@pytest.mark.parametrize(
    ("case", "expected", "grad"),
    [
        (MAPS[0], [[[[1.0, 1.25], [1.5, 1.75]]]], [[GRAD_2]]),
        (MAPS[1], [[[[1.0, 1.25], [1.5, 1.75]], [[4, 3.75], [3.5, 3.25]]]], [[GRAD_2, GRAD_2]]),
        (MAPS[2], [[[[1.9375, 4.75], [7.5625, 10.375]]]], [[GRAD_4]]),
    ],
)
def test_deform_roi_pool_gives_mmcvs_numbers(case, expected, grad):
    from mmcv.ops import DeformRoIPoolPack

    out, found = outcome(DeformRoIPoolPack((2, 2), len(expected[0]), spatial_scale=1.0, sampling_ratio=2), *case)
    torch.testing.assert_close(out, torch.tensor(expected))
    torch.testing.assert_close(found, torch.tensor(grad))


def test_deform_roi_pool_is_the_loops_and_its_gradients_are_the_derivatives():
    from mmcv.ops import deform_roi_pool

    torch.manual_seed(0)
    x = torch.randn(2, 2, 9, 12, dtype=torch.double, requires_grad=True)
    rois = torch.tensor(ROIS, dtype=torch.double)[[0, 2]]  # the largest samples of the second are outside
    offset = torch.randn(2, 2, 2, 3, dtype=torch.double, requires_grad=True)
    out = deform_roi_pool(x, rois, offset, (2, 3), 0.7, 0, 0.1)
    for k, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        left, top, right, bottom = (v * 0.7 - 0.5 for v in (x1, y1, x2, y2))
        high, wide = (bottom - top) / 2, (right - left) / 3
        rows, columns = math.ceil(high), math.ceil(wide)
        for c, p, q in torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(3)).tolist():
            move_x = 0.1 * (right - left) * offset[k, 0, p, q].item()
            move_y = 0.1 * (bottom - top) * offset[k, 1, p, q].item()
            values = [
                bilinear(
                    x[int(image), c],
                    top + (p + (i + 0.5) / rows) * high + move_y,
                    left + (q + (j + 0.5) / columns) * wide + move_x,
                )
                for i in range(rows)
                for j in range(columns)
            ]
            assert out[k, c, p, q].item() == pytest.approx((sum(values) / len(values)).item())
    inside = rois[:1]
    assert torch.autograd.gradcheck(
        lambda x, offset: deform_roi_pool(x, inside, offset, (2, 3), 0.7, 0, 0.1), (x, offset[:1]), fast_mode=True
    )


def test_modulated_deform_roi_pool_trains():
    from mmcv.ops import ModulatedDeformRoIPoolPack

    torch.manual_seed(0)
    layer = ModulatedDeformRoIPoolPack((3, 3), 2, spatial_scale=1.0, sampling_ratio=2)
    x = torch.randn(1, 2, 9, 12, requires_grad=True)
    out = layer(x, torch.tensor(ROIS[:1]))
    out.square().sum().backward()
    # Offsets are 0 and masks 1/2 at the start.
    torch.testing.assert_close(out * 2, type(layer).__mro__[1]((3, 3), 1.0, 2)(x, torch.tensor(ROIS[:1]), None))
    assert all(p.grad.isfinite().all() for p in layer.parameters()) and layer.offset_fc[-1].weight.grad.any()


# --- Precise RoIPool ------------------------------------------------------------------------------------------------

THIRDS = [
    [1 / 9, 2 / 9, 2 / 9, 1 / 9],
    [2 / 9, 4 / 9, 4 / 9, 2 / 9],
    [2 / 9, 4 / 9, 4 / 9, 2 / 9],
    [1 / 9, 2 / 9, 2 / 9, 1 / 9],
]


@pytest.mark.parametrize(
    ("case", "expected", "grad", "grad_rois"),
    [
        (MAPS[0], [[[[1.75, 2.25], [2.75, 3.25]]]], [[[[1.0, 1], [1, 1]]]], [[0.0, 2, 4, 2, 4]]),
        (
            MAPS[1],
            [[[[1.75, 2.25], [2.75, 3.25]], [[3.25, 2.75], [2.25, 1.75]]]],
            [[[[1.0, 1], [1, 1]], [[1, 1], [1, 1]]]],
            [[0.0, 0, 0, 0, 0]],
        ),
        (MAPS[2], [[[[3.75, 83 / 12], [121 / 12, 13.25]]]], [[THIRDS]], [[0.0, 10 / 3, 20 / 3, 10 / 3, 20 / 3]]),
    ],
)
def test_prroi_pool_gives_mmcvs_numbers(case, expected, grad, grad_rois):
    from mmcv.ops import prroi_pool

    x, rois = (torch.tensor(t, requires_grad=True) for t in case)
    out = prroi_pool(x, rois, (2, 2), 1.0)
    out.sum().backward()
    torch.testing.assert_close(out, torch.tensor(expected))
    torch.testing.assert_close(x.grad, torch.tensor(grad), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(rois.grad, torch.tensor(grad_rois), rtol=1e-4, atol=1e-5)


def test_prroi_pool_has_gradients_of_maps_in_any_layout():
    from mmcv.ops import PrRoIPool

    torch.manual_seed(0)
    x, rois = torch.randn(2, 3, 6, 5), torch.tensor([[0, 1.0, 1, 8, 9], [1, 0, 2, 7, 6]])
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        maps = x.clone(memory_format=layout).requires_grad_()
        gradients += torch.autograd.grad(PrRoIPool((2, 3), 0.5)(maps, rois).square().sum(), maps)
    assert gradients[0].any()
    torch.testing.assert_close(gradients[1], gradients[0])


def test_prroi_pool_is_the_average_of_many_samples():
    from mmcv.ops import prroi_pool

    torch.manual_seed(0)
    x, roi = torch.randn(1, 1, 9, 12), [0, 1.3, -1.2, 7.9, 6.2]
    out = prroi_pool(x, torch.tensor([roi]), (1, 1), 0.9)
    padded = torch.nn.functional.pad(x[0, 0], (3, 3, 3, 3))  # this one is 0 outside
    left, top, right, bottom = (v * 0.9 + 3 for v in roi[1:])
    steps = (torch.arange(60) + 0.5) / 60
    values = [
        bilinear(padded, y, xx)
        for y in (top + (bottom - top) * steps).tolist()
        for xx in (left + (right - left) * steps).tolist()
    ]
    assert out.item() == pytest.approx(float(sum(values)) / len(values), abs=1e-3)
