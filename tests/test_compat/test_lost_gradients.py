"""Gradients that mmcv's own operators lose: kept, or an error where they cannot be."""

from __future__ import annotations

import pytest
import torch

import eyetoy_mm  # noqa: F401 - before mmcv: supplies what mmcv-lite lacks

ops = pytest.importorskip("mmcv.ops")
ROIS = torch.tensor([[0, 1, 1, 6, 5], [0, 2, 0, 7, 7]], dtype=torch.float)
ROTATED = torch.tensor([[0, 4, 4, 5, 3, 0.4], [0, 3, 5, 4, 4, -1]], dtype=torch.float)
LABELS = torch.tensor([0, 2, 3, 1])
MASKS = torch.rand(1, 9, 16, 16, generator=torch.Generator().manual_seed(0))

OF_MAPS = {
    "carafe": lambda x: ops.carafe(x, MASKS, 3, 1, 2),
    "carafe_naive": lambda x: ops.carafe_naive(x, MASKS, 3, 1, 2),
    "softmax_focal_loss": lambda x: ops.softmax_focal_loss(x.flatten(2)[0, :, :4], LABELS),
    "roi_align_rotated": lambda x: ops.roi_align_rotated(x, ROTATED, (2, 3), 1.0, 2),
    "riroi_align_rotated": lambda x: ops.riroi_align_rotated(x, ROTATED, (2, 3), 1.0, 2, 4),
    "roi_align": lambda x: ops.roi_align(x, ROIS, (2, 3)),  # mmcv's own word
    "deform_conv": lambda x: ops.deform_conv2d(x, x.new_zeros(1, 18, 6, 6), x.new_ones(2, 4, 3, 3)),
}


@pytest.mark.parametrize("name", OF_MAPS)
def test_a_gradient_without_a_graph_is_not_differentiated_again(name: str) -> None:
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(OF_MAPS[name](x).pow(2).sum(), x, create_graph=True)
    penalty = gradient.square().sum() + x.square().sum()  # which has a gradient in any case
    with pytest.raises(RuntimeError, match="differentiate twice"):
        penalty.backward()


def test_psa_masks_are_differentiated_twice() -> None:
    """It is nothing but indexing, which has a graph."""
    x = torch.randn(1, 15, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double, requires_grad=True)
    layer = ops.PSAMask("collect", (3, 5))
    assert torch.autograd.gradgradcheck(lambda x: layer(x).pow(2), x, fast_mode=True)


@pytest.mark.parametrize("classes", [4, 6])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_softmax_focal_loss_of_each_row(classes: int, reduction: str) -> None:
    x = torch.randn(4, classes, generator=torch.Generator().manual_seed(0), dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ops.softmax_focal_loss(x, LABELS, 2.0, 0.25, None, reduction), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_prroi_pool_in_other_types(dtype: torch.dtype) -> None:
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    out = ops.prroi_pool(x, ROIS.to(dtype), (2, 3), 0.5)
    out.float().square().sum().backward()
    leaf = x.detach().float().requires_grad_()
    expected = ops.prroi_pool(leaf, ROIS, (2, 3), 0.5)
    expected.square().sum().backward()
    assert out.dtype == x.grad.dtype == dtype
    torch.testing.assert_close(out.float(), expected, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(x.grad.float(), leaf.grad, rtol=2e-2, atol=2e-2)
