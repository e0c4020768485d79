"""Deformable convolution, versions 1 and 2."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.test_compat.test_mmcv_ext.reference import zero_padded_bilinear


def loops(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, stride, padding, dilation, groups, parts) -> Tensor:
    """The definition, with everything a loop."""
    outputs, per_group, kh, kw = weight.shape
    batch, _, rows, columns = mask.shape
    out = torch.zeros(batch, outputs, rows, columns, dtype=x.dtype)
    for b, o, i, j in torch.cartesian_prod(*(torch.arange(n) for n in out.shape)).tolist():
        for c in range(per_group):
            channel = o // (outputs // groups) * per_group + c
            part = channel // (x.size(1) // parts)
            for tap in range(kh * kw):
                row, column = divmod(tap, kw)
                at = part * kh * kw + tap
                y = i * stride[0] - padding[0] + row * dilation[0] + offset[b, 2 * at, i, j].item()
                xx = j * stride[1] - padding[1] + column * dilation[1] + offset[b, 2 * at + 1, i, j].item()
                value = zero_padded_bilinear(x[b, channel], y, xx)
                out[b, o, i, j] += weight[o, c, row, column] * mask[b, at, i, j] * value
    return out


CASES = [
    # groups, deform groups, kernel, stride, padding, dilation
    (1, 1, (3, 3), (1, 1), (1, 1), (1, 1)),
    (2, 1, (3, 2), (2, 1), (1, 0), (1, 2)),
    (1, 2, (1, 3), (1, 2), (0, 2), (1, 2)),
    (2, 2, (2, 2), (1, 1), (0, 0), (1, 1)),
]


def inputs(groups, parts, kernel, stride, padding, dilation) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip((4, 5), kernel, stride, padding, dilation, strict=True)
    ]
    taps = parts * kernel[0] * kernel[1]
    x = torch.randn(2, 4, 4, 5)
    offset = torch.rand(2, 2 * taps, *size) * 1.8 - 0.9
    mask = torch.rand(2, taps, *size)
    weight = torch.randn(2, 4 // groups, *kernel)
    return tuple(t.double().requires_grad_() for t in (x, offset, mask, weight))


@pytest.mark.parametrize(("groups", "parts", "kernel", "stride", "padding", "dilation"), CASES)
def test_it_is_the_loops_and_its_gradients_are_the_derivatives(groups, parts, kernel, stride, padding, dilation):
    from mmcv.ops import deform_conv2d, modulated_deform_conv2d

    x, offset, mask, weight = inputs(groups, parts, kernel, stride, padding, dilation)
    bias = torch.tensor([0.5, -0.5], dtype=torch.double, requires_grad=True)

    def first(x, offset, weight):
        return deform_conv2d(x, offset, weight, stride, padding, dilation, groups, parts, False, 2)

    def second(x, offset, mask, weight, bias):
        return modulated_deform_conv2d(x, offset, mask, weight, bias, stride, padding, dilation, groups, parts)

    expected = partial(loops, stride=stride, padding=padding, dilation=dilation, groups=groups, parts=parts)
    torch.testing.assert_close(first(x, offset, weight), expected(x, offset, torch.ones_like(mask), weight))
    plain = expected(x, offset, mask, weight)
    torch.testing.assert_close(second(x, offset, mask, weight, bias), plain + bias[:, None, None])
    torch.testing.assert_close(second(x, offset, mask, weight, None), plain)
    assert torch.autograd.gradcheck(first, (x, offset, weight), fast_mode=True)
    assert torch.autograd.gradcheck(second, (x, offset, mask, weight, bias), fast_mode=True)


def test_layers_give_mmcvs_numbers():
    """Of mmcv's own tests (tests/test_ops/test_deform_conv.py and test_modulated_deform_conv.py)."""
    from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack

    first = DeformConv2dPack(1, 1, kernel_size=2, stride=1, padding=0)
    offsets = [
        [0.1, 0.4, 0.6, 0.1],
        [0.3, 0.2, 0.1, 0.3],
        [0.5, 0.5, 0.2, 0.8],
        [0.8, 0.3, 0.9, 0.1],
        [0.3, 0.1, 0.2, 0.5],
        [0.3, 0.7, 0.5, 0.3],
        [0.6, 0.2, 0.5, 0.3],
        [0.4, 0.1, 0.8, 0.4],
    ]
    first.conv_offset.weight.data = torch.tensor(offsets).view(8, 1, 2, 2)
    first.conv_offset.bias.data = torch.tensor([0.7, 0.1, 0.8, 0.5, 0.6, 0.5, 0.4, 0.7])
    first.weight.data = torch.tensor([0.4, 0.2, 0.1, 0.9]).view(1, 1, 2, 2)
    x = torch.tensor([[[[1.0, 2, 3], [0, 1, 2], [3, 5, 2]]]], requires_grad=True)
    out = first(x)
    out.sum().backward()
    close = partial(torch.testing.assert_close, rtol=1e-3, atol=1e-6)
    close(out, torch.tensor([[[[1.65, 0], [0, 0]]]]))
    close(x.grad, torch.tensor([[[[-0.666, 0.204, 0], [0.03, -0.416, 0.012], [0, 0.252, 0.129]]]]))
    close(first.weight.grad, torch.tensor([[[[3.62, 0], [0.4, 0.18]]]]))
    close(first.conv_offset.bias.grad, torch.tensor([1.44, -0.72, 0, 0, -0.1, -0.08, -0.54, -0.54]))

    # Offsets of 0: points at the left and upper border lie outside by one pixel, and give no gradient.
    second = ModulatedDeformConv2dPack(1, 1, kernel_size=(2, 2), stride=1, padding=1, bias=False)
    second.weight.data.fill_(1.0)
    x = torch.tensor([[[[1.0, 2, 3], [1, 2, 3], [1, 2, 3]]]], requires_grad=True)
    out = second(x)
    out.sum().backward()
    close(out, torch.tensor([[[[0.5, 1.5, 2.5, 1.5], [1, 3, 5, 3], [1, 3, 5, 3], [0.5, 1.5, 2.5, 1.5]]]]))
    close(x.grad, torch.full((1, 1, 3, 3), 2.0))
    close(second.weight.grad, torch.full((1, 1, 2, 2), 9.0))
    close(second.conv_offset.bias.grad, torch.tensor([-3.0, -1.5] * 4 + [4.5] * 4))
    close(second.conv_offset.weight.grad[:2, 0], torch.tensor([[[-7.0, -4], [0, 0]], [[-9, 7.5], [-6, 5]]]))


def test_without_offsets_it_is_a_convolution():
    from mmcv.ops import DeformConv2d

    layer = DeformConv2d(4, 6, 3, stride=2, padding=1, groups=2, im2col_step=2)
    x = torch.randn(4, 4, 7, 8)
    out = layer(x, torch.zeros(4, 18, 4, 4))
    torch.testing.assert_close(out, F.conv2d(x, layer.weight, None, 2, 1, 1, 2))


def test_larger_offsets_and_masks_are_read_as_if_they_had_the_outputs_size():
    # mmdet's DyHead gives those of the next finer level.
    from mmcv.ops import modulated_deform_conv2d

    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 4, 4), torch.randn(5, 3, 3, 3)
    offset, mask = torch.randn(2, 18, 8, 8, requires_grad=True), torch.rand(2, 9, 8, 8)
    out = modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1, 1, 1, 1)
    read = [torch.stack([image.flatten()[: n * 16].view(n, 4, 4) for image in t]) for t, n in ((offset, 18), (mask, 9))]
    torch.testing.assert_close(out, modulated_deform_conv2d(x, *read, weight, None, 1, 1, 1, 1, 1))
    out.sum().backward()
    assert offset.grad[:, :, 4:].shape == (2, 18, 4, 8) and not offset.grad.flatten(1)[:, 18 * 16 :].any()
    assert offset.grad.flatten(1)[:, : 18 * 16].any()


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_half_precision(dtype):
    from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack

    for kind in (DeformConv2dPack, ModulatedDeformConv2dPack):
        layer = kind(3, 4, 3, padding=1)
        x = torch.randn(2, 3, 6, 6)
        expected = layer(x)
        out = layer.to(dtype)(x.to(dtype))
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
        out.sum().backward()
        assert layer.weight.grad.dtype == dtype and layer.weight.grad.isfinite().all()
