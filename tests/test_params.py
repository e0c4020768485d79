"""The named defaults: EyeToy's numbers, stated as numbers, and encoders of every rank that train."""

import dataclasses

import pytest
import torch

from eyetoy_mm.encoder import Encoder1D, Encoder2D, Encoder3D
from eyetoy_mm.params import (
    DEFAULT_IMG_ENCODER_PARAMS,
    DEFAULT_SEQ_ENCODER_PARAMS,
    DEFAULT_VOL_ENCODER_PARAMS,
    ConvParams,
    GlobalAttentionTransformerParams,
    HeadParams,
    MultiHeadAttentionParams,
    NeighborhoodAttentionParams,
    TransformerParams,
    msnat_params,
)

# Per block: channels in and out, scale factor, tokenizers' kernel = stride, windows, heads of a group, head dimension.
IMAGE_BLOCKS = [
    (64, 128, 0.5, (1, 2, 4, 8), (17, 13, 11, 9), 2, 16),
    (128, 128, 1.0, (1, 2, 4, 8), (17, 13, 11, 9), 2, 16),
    (128, 256, 0.5, (1, 2, 4, 8), (17, 13, 11, 9), 2, 32),
    (256, 256, 1.0, (1, 2, 4, 8), (17, 13, 11, 9), 2, 32),
    (256, 512, 0.5, (1, 2, 3, 4), (7, 5, 3, 3), 2, 64),
    (512, 512, 1.0, (1, 2, 3, 4), (7, 5, 3, 3), 2, 64),
    (512, 1024, 0.5, (1, 2, 3, 4), (7, 5, 3, 3), 2, 128),
    (1024, 1024, 1.0, (1,), (7,), 8, 128),
]


def test_image_encoder_has_the_numbers_of_eyetoys_code():
    params = DEFAULT_IMG_ENCODER_PARAMS
    assert params.initial_conv_params == ConvParams(
        kernel_size=3, stride=1, padding="same", dilation=1, groups=1, bias=True, in_channels=3, out_channels=64
    )
    assert params.global_attention_params == GlobalAttentionTransformerParams(
        d_model=1024, num_heads=8, num_layers=4, num_register_tokens=32, dropout=0.2, use_context_token=True
    )
    assert (params.input_channels, params.output_channels) == (3, 1024)
    assert len(params.transformer_params) == 8
    for block, numbers in zip(params.transformer_params, IMAGE_BLOCKS, strict=True):
        c_in, c_out, scale, merging, windows, heads, dim = numbers
        groups = tuple(
            HeadParams(
                NeighborhoodAttentionParams(attention_window=window, attention_stride=1, dilation=1),
                num_heads=heads,
                in_channels=c_in,
                intermediate_channels=dim,
                conv_params=ConvParams(
                    s, s, "same" if s == 1 else "valid", groups=32, in_channels=c_in, out_channels=c_out
                ),
                dropout=0.2,
            )
            for s, window in zip(merging, windows, strict=True)
        )
        projection = ConvParams(kernel_size=1, in_channels=c_out, out_channels=c_out)
        attention = MultiHeadAttentionParams(groups, dim, c_out, projection, scale)
        assert block == TransformerParams(c_in, c_out, attention, scale, dropout=0.2, drop_path=0.0)


def test_usage_example_of_eyetoys_code():
    encoder = Encoder2D(**DEFAULT_IMG_ENCODER_PARAMS.__dict__).eval()
    with torch.no_grad():
        output, context_token = encoder(torch.randn(1, 3, 32, 32))
    assert output.shape == (1, 1024, 2, 2) and context_token.shape == (1, 1, 1024)


@pytest.mark.parametrize(
    ("encoder_type", "params", "size", "output_shape"),
    [
        (Encoder1D, DEFAULT_SEQ_ENCODER_PARAMS, (50,), (2, 256, 13)),
        (Encoder3D, DEFAULT_VOL_ENCODER_PARAMS, (8, 5, 7), (2, 192, 2, 2, 2)),
    ],
    ids=["sequence", "volume"],
)
def test_defaults_of_other_ranks_train(encoder_type, params, size, output_shape):
    encoder = encoder_type(**params.__dict__)
    assert 1e6 < sum(p.numel() for p in encoder.parameters()) < 5e6
    output, context_token = encoder(torch.randn(2, params.input_channels, *size))
    assert output.shape == output_shape and context_token.shape == (2, 1, params.output_channels)
    (output.square().mean() + context_token.square().mean()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_params_are_plain_and_frozen():
    changed = dataclasses.replace(DEFAULT_SEQ_ENCODER_PARAMS, global_attention_params=None)
    assert Encoder1D(**changed.__dict__).global_attention is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULT_IMG_ENCODER_PARAMS.input_channels = 1


@pytest.mark.parametrize(
    ("channels", "asked", "groups"),
    [
        ((8, 16), 4, 4),
        ((6, 16), 4, 2),
        ((6, 12), 4, 3),
        ((48, 48), 32, 24),
        ((48, 96), 32, 24),
        ((400, 400), 32, 25),
        ((7, 11), 32, 1),
        ((8, 8), 512, 8),
        ((48, 48), "depthwise", 48),
        ((48, 96), "depthwise", 48),
        ((384, 576), "depthwise", 192),
    ],
)
def test_tokenizers_have_the_most_groups_up_to_the_number_asked_for(channels, asked, groups):
    params = msnat_params(*channels, windows=(3,), merging=(2,), num_heads=1, conv_groups=asked)
    assert params.attention_params.head_params[0].conv_params.groups == groups
