"""nms_match, bbox_overlaps and the softmax focal loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision


def test_nms_match_gives_mmcvs_groups():
    """Of mmcv's own tests (tests/test_ops/test_nms.py)."""
    from mmcv.ops import nms_match

    boxes = [[3, 6, 9, 11], [2, 5, 6, 12], [1, 4, 8, 10], [4, 5, 9, 12], [5, 6, 12, 12]]
    dets = torch.tensor(
        [[float(v) for v in (*box, s)] for box, s in zip(boxes, (0.9, 0.8, 0.6, 0.5, 0.4), strict=True)]
    )
    groups = nms_match(dets, 0.4)
    assert [g.tolist() for g in groups] == [g.tolist() for g in nms_match(dets.numpy(), 0.4)]
    assert sorted(torch.cat(groups).tolist()) == [0, 1, 2, 3, 4]
    assert nms_match(torch.zeros(0, 5), 0.5) == []


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7])
def test_nms_match_is_the_loop(threshold):
    from mmcv.ops import nms_match

    torch.manual_seed(0)
    start = torch.rand(60, 2) * 40
    dets = torch.cat([start, start + 5 + torch.rand(60, 2) * 30, torch.rand(60, 1)], dim=1)
    overlaps = torchvision.ops.box_iou(dets[:, :4], dets[:, :4])
    left, expected = dets[:, 4].argsort(descending=True).tolist(), []
    while left:
        best, *others = left
        taken = [i for i in others if overlaps[best, i] >= threshold]
        expected.append([best, *taken])
        left = [i for i in others if i not in taken]
    assert [group.tolist() for group in nms_match(dets, threshold)] == expected


@pytest.mark.parametrize("offset", [0, 1])
def test_bbox_overlaps(offset):
    from mmcv.ops import bbox_overlaps

    a = torch.tensor([[1.0, 1, 3, 4], [2, 2, 3, 4], [7, 7, 8, 8]])
    b = torch.tensor([[0.0, 2, 2, 5], [2, 1, 3, 3]])
    grown = torch.tensor([0.0, 0, offset, offset])
    expected = torchvision.ops.box_iou(a + grown, b + grown)
    torch.testing.assert_close(bbox_overlaps(a, b, offset=offset), expected)
    torch.testing.assert_close(bbox_overlaps(a[:2], b, aligned=True, offset=offset), expected[:2].diagonal())
    area_a, area_b = torchvision.ops.box_area(a + grown), torchvision.ops.box_area(b + grown)
    inter = expected / (1 + expected) * (area_a[:, None] + area_b)
    torch.testing.assert_close(bbox_overlaps(a, b, mode="iof", offset=offset), inter / area_a[:, None])
    assert bbox_overlaps(a.half(), b.half()).dtype == torch.half
    assert bbox_overlaps(torch.zeros(0, 4), b).shape == (0, 2)


# --- Softmax focal loss ---------------------------------------------------------------------------------------------


def definition(logits, labels, gamma, alpha, weight):
    p = logits.softmax(dim=1)[torch.arange(len(labels)), labels]
    return -alpha * weight[labels] * (1 - p) ** gamma * p.log()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_softmax_focal_loss_and_its_gradient(gamma):
    from mmcv.ops import softmax_focal_loss

    torch.manual_seed(0)
    logits = torch.randn(6, 4, dtype=torch.double, requires_grad=True)
    labels, weight = torch.tensor([0, 1, 2, 3, 3, 1]), torch.tensor([1.0, 2, 3, 4]).double()
    expected = definition(logits, labels, gamma, 0.25, weight)
    torch.testing.assert_close(softmax_focal_loss(logits, labels, gamma, 0.25, weight, "none"), expected)
    torch.testing.assert_close(softmax_focal_loss(logits, labels, gamma, 0.25, weight, "mean"), expected.mean())
    (expected_grad,) = torch.autograd.grad(expected.mean(), logits)
    (grad,) = torch.autograd.grad(softmax_focal_loss(logits, labels, gamma, 0.25, weight, "mean"), logits)
    torch.testing.assert_close(grad, expected_grad)


def test_softmax_focal_loss_far_out_and_ignored():
    from mmcv.ops import softmax_focal_loss

    logits = torch.tensor([[200.0, -200], [-200, 200], [1, 0]], requires_grad=True)
    labels = torch.tensor([0, 0, -1])
    out = softmax_focal_loss(logits, labels, 0.5, 0.25, None, "none")
    # mmcv's function has a gradient for sums and means only.
    (grad,) = torch.autograd.grad(softmax_focal_loss(logits, labels, 0.5, 0.25, None, "sum"), logits)
    assert out.isfinite().all() and grad.isfinite().all()
    assert out[0] == 0 and out[1] > 10 and out[2] == 0 and not grad[2].any()
    np.testing.assert_array_equal(grad[0], 0)
