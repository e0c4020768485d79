"""RoIAlign by maximum, on rotated regions, and BorderAlign. (Averages: test_mmcv_ops.)"""

from __future__ import annotations

import math

import pytest
import torch

from tests.test_compat.test_mmcv_ext.reference import bilinear

ROIS = torch.tensor(
    [[0, 1.3, 0.7, 7.9, 6.2], [1, -3.4, -2.0, 5.5, 3.3], [1, 4.1, 3.2, 14.0, 12.0], [0, 2.2, 5.1, 2.3, 5.2]]
).double()


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_maxima_are_the_loops_and_their_gradient_is_the_derivative(aligned, ratio):
    from mmcv.ops import roi_align

    torch.manual_seed(0)
    x = torch.randn(2, 2, 9, 12, dtype=torch.double, requires_grad=True)
    expected = torch.zeros(4, 2, 2, 3, dtype=torch.double)
    for k, (image, *corners) in enumerate(ROIS.tolist()):
        left, top, right, bottom = (v * 0.8 - 0.5 * aligned for v in corners)
        height, width = bottom - top, right - left
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        rows, columns = ratio or math.ceil(height / 2), ratio or math.ceil(width / 3)
        for c, p, q in torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(3)).tolist():
            expected[k, c, p, q] = max(
                bilinear(
                    x[int(image), c],
                    top + (p + (i + 0.5) / rows) * height / 2,
                    left + (q + (j + 0.5) / columns) * width / 3,
                )
                for i in range(rows)
                for j in range(columns)
            )
    out = roi_align(x, ROIS, (2, 3), 0.8, ratio, "max", aligned)
    torch.testing.assert_close(out, expected)
    assert torch.autograd.gradcheck(lambda x: roi_align(x, ROIS, (2, 3), 0.8, ratio, "max", aligned), x, fast_mode=True)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_a_region_without_size_has_no_samples(mode):
    """Not aligned, it is a pixel large; turned round, it has no size either."""
    from mmcv.ops import roi_align

    x = torch.randn(1, 2, 4, 5, requires_grad=True)
    rois = torch.tensor([[0, 2.0, 2, 2, 3], [0, 3.0, 3, 1, 2]])
    out = roi_align(x, rois, 2, 1.0, 0, mode, True)
    out.sum().backward()
    assert not out.any() and not x.grad.any()
    assert roi_align(x, rois, 2, 1.0, 0, mode, False).any()


# --- Rotated --------------------------------------------------------------------------------------------------------


def centred(rois: torch.Tensor, angle: float) -> torch.Tensor:
    low, high = rois[:, 1:3], rois[:, 3:5]
    return torch.cat([rois[:, :1], (low + high) / 2, high - low, torch.full_like(rois[:, :1], angle)], dim=1)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_an_upright_region_is_roi_aligns(aligned, ratio):
    from mmcv.ops import roi_align, roi_align_rotated

    x = torch.randn(2, 3, 9, 12, dtype=torch.double)
    rois = ROIS[:3]  # without the tiny one: its size is made 1 around its centre here, from its corner there
    expected = roi_align(x, rois, (2, 3), 0.8, ratio, "avg", aligned)
    for clockwise in (True, False):
        out = roi_align_rotated(x, centred(rois, 0.0), (2, 3), 0.8, ratio, aligned, clockwise)
        torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("clockwise", [True, False])
def test_a_quarter_turn_of_the_map_is_a_quarter_turn_of_the_region(clockwise):
    from mmcv.ops import roi_align_rotated

    torch.manual_seed(0)
    x = torch.randn(1, 2, 9, 9, dtype=torch.double, requires_grad=True)
    roi = torch.tensor([[0, 4.0, 4, 5, 3, 0.4 if clockwise else -0.4]]).double()
    out = roi_align_rotated(x, roi, (3, 5), 1.0, 2, False, clockwise)
    turned = torch.rot90(x, 1, (2, 3))  # counterclockwise, about (4, 4)
    roi[0, 5] += -math.pi / 2 if clockwise else math.pi / 2
    torch.testing.assert_close(roi_align_rotated(turned, roi, (3, 5), 1.0, 2, False, clockwise), out)
    assert torch.autograd.gradcheck(
        lambda x: roi_align_rotated(x, roi, (3, 5), 1.0, 2, False, clockwise), x, fast_mode=True
    )


def test_rotation_invariant_alignment_turns_channels():
    from mmcv.ops import riroi_align_rotated, roi_align_rotated

    torch.manual_seed(0)
    x = torch.randn(1, 8, 9, 9, dtype=torch.double, requires_grad=True)  # two of four orientations
    for quarters, part in ((0, 0.0), (1, 0.5), (3, 0.25)):
        roi = torch.tensor([[0, 4.0, 4, 5, 3, (quarters + part) * math.pi / 2]], dtype=torch.double)
        plain = roi_align_rotated(x, roi, (2, 2), 1.0, 2, False, False).unflatten(1, (2, 4))
        expected = (1 - part) * plain.roll(quarters, 2) + part * plain.roll(quarters - 1, 2)
        out = riroi_align_rotated(x, roi, (2, 2), 1.0, 2, 4, False)
        torch.testing.assert_close(out, expected.flatten(1, 2))
    assert torch.autograd.gradcheck(lambda x: riroi_align_rotated(x, roi, (2, 2), 1.0, 2, 4, False), x, fast_mode=True)


# --- Borders --------------------------------------------------------------------------------------------------------


def test_border_align_is_the_loops_and_its_gradient_is_the_derivative():
    from mmcv.ops import border_align

    torch.manual_seed(0)
    x = torch.randn(2, 8, 3, 4, dtype=torch.double)
    corner = torch.rand(2, 12, 2, dtype=torch.double) * 2
    boxes = torch.cat([corner, corner + torch.rand(2, 12, 2) * 3 + 0.2], dim=2)
    out = border_align(x, boxes, 5)
    assert out.shape == (2, 2, 12, 4)
    for b, c, k in torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(12)).tolist():
        x1, y1, x2, y2 = boxes[b, k].tolist()
        steps = [i / 5 for i in range(6)]
        borders = (
            [(y1, x1 + s * (x2 - x1)) for s in steps],  # top, left, bottom, right
            [(y1 + s * (y2 - y1), x1) for s in steps],
            [(y2, x1 + s * (x2 - x1)) for s in steps],
            [(y1 + s * (y2 - y1), x2) for s in steps],
        )
        for border, points in enumerate(borders):
            expected = max(float(bilinear(x[b, 2 * border + c], *point)) for point in points)
            assert out[b, c, k, border].item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda x: border_align(x, boxes, 5), x.requires_grad_(), fast_mode=True)
