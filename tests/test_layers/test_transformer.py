"""The block, the stack and the small parts around them."""

import dataclasses

import pytest
import torch

from eyetoy_mm.layers import (
    Conv2D,
    DropPath,
    MSNATTransformer1D,
    MSNATTransformer2D,
    MSNATTransformer3D,
    TransformerStack2D,
)
from eyetoy_mm.layers.resize import rescale
from eyetoy_mm.params import ConvParams, msnat_params


def block_params(in_channels=8, out_channels=16, scale_factor=1.0, **changes):
    arguments = dict(windows=(5, 3), merging=(1, 2), num_heads=2, dropout=0.0, conv_groups=4) | changes
    return msnat_params(in_channels, out_channels, scale_factor=scale_factor, **arguments)


@pytest.mark.parametrize("scale_factor", [1.0, 0.5])
@pytest.mark.parametrize("out_channels", [8, 16])
def test_block_is_the_papers_formula(scale_factor, out_channels):
    block = MSNATTransformer2D(**block_params(8, out_channels, scale_factor).__dict__).double()
    x = torch.randn(2, 6, 7, 8, dtype=torch.float64)
    shortcut = rescale(x, scale_factor)
    if out_channels != 8:
        shortcut = shortcut @ block.shortcut.weight.T + block.shortcut.bias
    expected = shortcut + block.multi_head_attention(block.layernorm1(x))
    hidden = torch.nn.functional.gelu(block.layernorm2(expected) @ block.ffn.fc1.weight.T + block.ffn.fc1.bias)
    expected = expected + hidden @ block.ffn.fc2.weight.T + block.ffn.fc2.bias
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(("cls", "shape"), [(MSNATTransformer1D, (9,)), (MSNATTransformer3D, (3, 4, 5))])
def test_other_ranks(cls, shape):
    x = torch.randn(2, *shape, 8, requires_grad=True)
    output = cls(**block_params(scale_factor=0.5).__dict__)(x)
    assert output.shape == (2, *(-(-n // 2) for n in shape), 16)
    output.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_dropout_and_drop_path_act_in_training_alone():
    block = MSNATTransformer2D(**block_params(8, 8, dropout=0.5, drop_path=0.5).__dict__)
    x = torch.randn(2, 4, 4, 8)
    assert not torch.equal(block.train()(x), block(x))
    assert torch.equal(block.eval()(x), block(x))


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 3)
    dropped = DropPath(0.25).train()(x)
    kept = dropped[:, 0, 0] != 0
    assert torch.equal(dropped, kept[:, None, None] * x / 0.75)
    assert abs(kept.float().mean().item() - 0.75) < 0.03


def test_stack_splits_into_stages_where_the_map_is_rescaled():
    stack = TransformerStack2D(
        [block_params(8, 8), block_params(8, 8), block_params(8, 16, 0.5), block_params(16, 24, 0.5, num_heads=3)]
    )
    assert stack.stages == [range(0, 2), range(2, 3), range(3, 4)]
    assert stack.stage_channels == [8, 16, 24]
    x = torch.randn(1, 9, 5, 8)
    maps = list(stack.forward_stages(x))
    assert [tuple(m.shape[1:]) for m in maps] == [(9, 5, 8), (5, 3, 16), (3, 2, 24)]
    assert torch.equal(stack(x), maps[-1])


def test_gradient_checkpointing_changes_no_gradient():
    stack = TransformerStack2D([block_params(8, 8), block_params(8, 16, 0.5)]).double()
    x = torch.randn(2, 7, 6, 8, dtype=torch.float64, requires_grad=True)
    gradients = []
    for stack.gradient_checkpointing in (False, True):
        gradients.append(torch.autograd.grad(stack(x).square().sum(), [x, *stack.parameters()]))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("params", [ConvParams(1), ConvParams(3), ConvParams(4, 4, "valid"), ConvParams(1, groups=2)])
def test_channels_last_convolution_is_torchs(params):
    params = dataclasses.replace(params, in_channels=4, out_channels=6)
    conv = Conv2D(**params.__dict__)
    plain = torch.nn.Conv2d(**params.__dict__)
    plain.load_state_dict(conv.state_dict())
    x = torch.randn(2, 8, 12, 4)
    torch.testing.assert_close(conv(x), plain(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
