"""Convolutions on channels-last tensors; their values are checked with the attention that they tokenize for."""

import torch

from eyetoy_mm.layers.conv import Conv2D


def test_grouped_convolutions_stay_in_float32_under_autocast_on_cpus():
    conv, x = Conv2D(in_channels=8, out_channels=8, kernel_size=3, groups=4, padding=1), torch.randn(1, 5, 6, 8)
    expected = conv(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv(x), expected)
        assert torch.equal(conv(x.bfloat16()), conv(x.bfloat16().float()))
        assert Conv2D(in_channels=8, out_channels=8, kernel_size=3)(x).dtype == torch.bfloat16
