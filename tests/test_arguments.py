"""What cannot be is refused where it is constructed, with a ValueError that names the field and the value.

The backbone's own arguments are in test_backbones, values of tensors in the tests of the operators.
"""

import dataclasses
import math
from functools import partial

import pytest

from eyetoy_mm.encoder import Encoder1D, Encoder2D, Encoder3D
from eyetoy_mm.layers import (
    Conv1D,
    Conv2D,
    Conv3D,
    DropPath,
    FeedForward,
    GlobalAttentionStack,
    GlobalAttentionTransformer,
    MSNATTransformer2D,
    MultiScaleMultiHeadNA2D,
    PositionalEmbedding1D,
    PositionalEmbedding2D,
    PositionalEmbedding3D,
    SharedScaleNA2D,
    TransformerStack2D,
)
from eyetoy_mm.params import ConvParams, EncoderParams, GlobalAttentionTransformerParams, msnat_params

block = partial(
    msnat_params, in_channels=8, out_channels=16, windows=(5, 3), merging=(1, 4), num_heads=2, conv_groups=4
)


def with_changes(params, changes):
    """Params with some fields changed; a dictionary changes fields inside of a field."""
    return dataclasses.replace(
        params,
        **{
            name: with_changes(getattr(params, name), value) if isinstance(value, dict) else value
            for name, value in changes.items()
        },
    )


def conv(module, **changes):
    return module(**(ConvParams(3, in_channels=8, out_channels=16).__dict__ | changes))


def head(**changes):
    """The first group, which merges nothing."""
    return SharedScaleNA2D(**with_changes(block().attention_params.head_params[0], changes).__dict__)


def attention(**changes):
    return MultiScaleMultiHeadNA2D(**with_changes(block().attention_params, changes).__dict__)


def transformer(**changes):
    return MSNATTransformer2D(**with_changes(block(), changes).__dict__)


def encoder(cls=Encoder2D, **changes):
    params = EncoderParams(
        initial_conv_params=ConvParams(3, in_channels=3, out_channels=8),
        transformer_params=(block(scale_factor=0.5),),
        global_attention_params=GlobalAttentionTransformerParams(16, num_heads=2, num_layers=1),
        input_channels=3,
        output_channels=16,
    )
    return cls(**with_changes(params, changes).__dict__)


def layer(**changes):
    return GlobalAttentionTransformer(**(dict(d_model=8, num_heads=2) | changes))


def stack(**changes):
    return GlobalAttentionStack(**(dict(d_model=8, num_heads=2, num_layers=1) | changes))


HALF_OPEN = "must be at least 0 and less than 1, got"

REFUSED = [
    # convolutions
    *(
        (conv, dict(module=module, **{name: value}), f"{name} must be at least 1, got {value}")
        for module in (Conv1D, Conv2D, Conv3D)
        for name, value in [("kernel_size", 0), ("stride", 0), ("dilation", -1), ("in_channels", 0), ("groups", 0)]
    ),
    (conv, dict(module=Conv2D, groups=3), "groups=3 for in_channels=8 and out_channels=16"),
    (conv, dict(module=Conv2D, stride=2), "padding='same' needs stride=1, got stride=2"),
    (conv, dict(module=Conv2D, padding="full"), "padding must be a number, 'same' or 'valid', got 'full'"),
    (conv, dict(module=Conv2D, padding=-1), "padding must be at least 0, got -1"),
    # embeddings, feed-forward network, drop path
    (PositionalEmbedding1D, dict(dim=3), "2 x 1 axes .* got dim=3"),
    (PositionalEmbedding2D, dict(dim=6), "2 x 2 axes .* got dim=6"),
    (PositionalEmbedding3D, dict(dim=8), "2 x 3 axes .* got dim=8"),
    (PositionalEmbedding2D, dict(dim=0), "got dim=0"),
    (FeedForward, dict(channels=0), "channels must be at least 1, got 0"),
    (FeedForward, dict(channels=8, ratio=0), "ratio must be at least 1, got 0"),
    *((DropPath, dict(rate=rate), f"drop_path {HALF_OPEN} {rate}") for rate in (-0.1, 1.0, math.nan)),
    # a head group
    (head, dict(attn_params=dict(attention_window=0)), "attention_window must be at least 1, got 0"),
    (head, dict(attn_params=dict(dilation=0)), "dilation must be at least 1, got 0"),
    (head, dict(attn_params=dict(attention_stride=2)), "attention_stride must be 1 .* got 2"),
    (head, dict(num_heads=0), "num_heads must be at least 1, got 0"),
    (head, dict(intermediate_channels=0), "intermediate_channels must be at least 1, got 0"),
    (head, dict(in_channels=4), "in_channels=8, the group in_channels=4"),
    (head, dict(conv_params=dict(stride=0)), "stride must be at least 1, got 0"),
    (head, dict(conv_params=dict(kernel_size=0)), "kernel_size must be at least 1, got 0"),
    (head, dict(conv_params=dict(kernel_size=3, padding="valid")), "keep the size .*kernel_size=3, .*padding='valid'"),
    (head, dict(conv_params=dict(kernel_size=2, stride=2, padding=1)), "padding must be at most 0.5, .*padding=1"),
    (head, dict(conv_params=dict(kernel_size=4, stride=2, padding=3)), "padding must be at most 1.5, .*padding=3"),
    (head, dict(conv_params=dict(padding_mode="reflect")), "'zeros' or 'replicate', got 'reflect'"),
    (head, dict(dropout=1.0), f"dropout {HALF_OPEN} 1.0"),
    # groups together
    *((attention, dict(scale_factor=x), f"scale_factor must be positive, got {x}") for x in (0.0, -1.0, math.inf)),
    (attention, dict(head_params=()), "head_params must have at least one head group, got none"),
    (attention, dict(intermediate_channels=0), "intermediate_channels must be at least 1, got 0"),
    (attention, dict(out_channels=12), "16 channels to out_channels=12, got 16 to 16"),
    (attention, dict(final_conv_params=dict(in_channels=12)), "16 channels to out_channels=16, got 12 to 16"),
    (attention, dict(final_conv_params=dict(kernel_size=3, padding=0)), "keep the size .*kernel_size=3"),
    # blocks
    (transformer, dict(scale_factor=0.5), "the block has scale_factor=0.5, its attention 1.0"),
    (transformer, dict(out_channels=8), "the block has out_channels=8, its attention 16"),
    (transformer, dict(in_channels=4), "the block has in_channels=4, head group 0 has 8"),
    (transformer, dict(dropout=-0.5), f"dropout {HALF_OPEN} -0.5"),
    (transformer, dict(drop_path=1.5), f"drop_path {HALF_OPEN} 1.5"),
    (TransformerStack2D, dict(transformer_params=[]), "at least one block, got none"),
    (TransformerStack2D, dict(transformer_params=[block(), block()]),
     "block 1 takes in_channels=8, but block 0 gives out_channels=16"),
    (block, dict(windows=(3,)), r"windows=\(3,\) and merging=\(1, 4\)"),
    (block, dict(windows=(5, 0)), "windows must be at least 1, got 0"),
    (block, dict(merging=(0, 1)), "merging must be at least 1, got 0"),
    (block, dict(num_heads=0), "num_heads must be at least 1, got 0"),
    (block, dict(num_heads=3), "out_channels=16 does not divide by 2 groups x num_heads=3"),
    (block, dict(in_channels=0), "in_channels must be at least 1, got 0"),
    (block, dict(conv_groups=0), "conv_groups must be at least 1, got 0"),
    (block, dict(conv_groups="all"), "conv_groups must be a number or 'depthwise', got 'all'"),
    # global attention, one layer and the stack
    *(
        case
        for build in (layer, stack)
        for case in [
            (build, dict(num_heads=3), "d_model=8 and num_heads=3"),
            (build, dict(num_heads=0), "num_heads must be at least 1, got 0"),
            (build, dict(d_model=0), "d_model must be at least 1, got 0"),
            (build, dict(num_register_tokens=-1), "num_register_tokens must be at least 0, got -1"),
            (build, dict(dropout=1.0), f"dropout {HALF_OPEN} 1.0"),
            (build, dict(num_register_tokens=0, use_context_token=False),
             "needs a token, got use_context_token=False and num_register_tokens=0"),
        ]
    ),
    (stack, dict(num_layers=0), "num_layers must be at least 1, got 0"),
    # encoders
    (encoder, dict(input_channels=1), "initial_conv_params.in_channels=3 does not fit input_channels=1"),
    (encoder, dict(output_channels=8), r"output_channels=8 does not fit transformer_params\[-1\].out_channels=16"),
    (encoder, dict(global_attention_params=dict(d_model=8)), "global_attention_params.d_model=8 does not fit"),
    (encoder, dict(initial_conv_params=dict(out_channels=4)), r"transformer_params\[0\].in_channels=8 does not fit"),
    (encoder, dict(initial_conv_params=dict(stride=0)), "stride must be at least 1, got 0"),
    (encoder, dict(transformer_params=()), "transformer_params must have at least one block, got none"),
    (encoder, dict(cls=Encoder1D, initial_conv_params=dict(out_channels=7)), "2 x 1 axes .* got dim=7"),
    (encoder, dict(cls=Encoder3D), "2 x 3 axes .* got dim=8"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("build", "arguments", "message"), REFUSED, ids=[f"{i}-{case[2][:40]}" for i, case in enumerate(REFUSED)]
)
def test_refused(build, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


@pytest.mark.parametrize("build", [head, attention, transformer, encoder, layer, stack, block])
def test_what_is_changed_above_is_built_unchanged(build):
    build()
