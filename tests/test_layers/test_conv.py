"""Convolutions on channels-last tensors; their values are checked with the attention that they tokenize for."""

import pytest
import torch
import torch.nn.functional as F

from eyetoy_mm.layers.conv import CONVS, Conv2D, to_channels_first


def test_grouped_convolutions_stay_in_float32_under_autocast_on_cpus():
    conv, x = Conv2D(in_channels=8, out_channels=8, kernel_size=3, groups=4, padding=1), torch.randn(1, 5, 6, 8)
    expected = conv(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv(x), expected)
        assert torch.equal(conv(x.bfloat16()), conv(x.bfloat16().float()))
        assert Conv2D(in_channels=8, out_channels=8, kernel_size=3)(x).dtype == torch.bfloat16


@pytest.mark.parametrize("padding", [0, 1, "same", "valid"])
def test_grouped_convolutions_of_one_position_keep_their_padding(padding):
    """Those that cut maps into cells have a kernel of their own on CPUs, which pads nothing."""
    conv, x = Conv2D(in_channels=8, out_channels=8, kernel_size=1, groups=4, padding=padding), torch.randn(1, 5, 6, 8)
    expected = F.conv2d(to_channels_first(x), conv.weight, conv.bias, padding=padding, groups=4)
    torch.testing.assert_close(to_channels_first(conv(x)), expected)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_maps_of_another_rank_are_refused(kernel_size):
    """PyTorch's own take them: a matrix product any, a convolution one without a batch, whose axes are others here."""
    for ndim, conv in CONVS.items():
        conv = conv(in_channels=8, out_channels=8, kernel_size=kernel_size)
        for axes in {1, 2, 3, 4} - {ndim}:
            with pytest.raises(ValueError, match=rf"{ndim} spatial axes, got .*\(8, {'8, ' * (axes - 1)}8, 8\)"):
                conv(torch.randn(*[8] * (axes + 2)))
        with pytest.raises(ValueError, match=f"{ndim} spatial axes"):
            conv(torch.randn(*[8] * (ndim + 1)))
