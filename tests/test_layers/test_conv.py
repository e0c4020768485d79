"""Convolutions on channels-last tensors; their values are checked with the attention that they tokenize for."""

import pytest
import torch
import torch.nn.functional as F

from eyetoy_mm.layers.conv import Conv2D, to_channels_first


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
