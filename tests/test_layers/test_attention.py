"""Head groups and their combination: token identity, ragged borders, and a plain re-statement of the equations."""

import dataclasses

import pytest
import torch

from eyetoy_mm.layers import MultiScaleMultiHeadNA1D, MultiScaleMultiHeadNA2D, MultiScaleMultiHeadNA3D, SharedScaleNA2D
from eyetoy_mm.layers.resize import repeat_to, rescale
from eyetoy_mm.ops.neighborhood import Axis
from eyetoy_mm.params import ConvParams, NeighborhoodAttentionParams, msnat_params

SIZES = [(1, 1), (1, 9), (2, 3), (7, 5), (16, 16), (13, 22)]


def attention_params(**changes):
    arguments = dict(in_channels=8, out_channels=16, windows=(5, 3), merging=(1, 4), num_heads=2, dropout=0.0)
    return msnat_params(**(arguments | changes), conv_groups=4).attention_params


def one_head(window=3, factor=1, heads=2, dim=4, channels=8, **conv):
    params = NeighborhoodAttentionParams(window)
    conv_params = ConvParams(factor, factor, "valid", in_channels=channels, out_channels=8, **conv)
    return SharedScaleNA2D(params, heads, channels, dim, conv_params, dropout=0.0).double()


def test_shared_scale_equals_the_equations_token_by_token():
    """Loops over tokens and heads; shares nothing with the module but its weights."""
    head = one_head(window=3, factor=2)
    x = torch.randn(1, 5, 7, 8, dtype=torch.float64)
    padded = torch.zeros(6, 8, 8, dtype=torch.float64)  # 5 x 7 positions in cells of 2 x 2
    padded[:5, :7] = x[0]
    weight, bias = head.tokenizer.weight, head.tokenizer.bias
    tokens = torch.zeros(3, 4, 8, dtype=torch.float64)
    for r in range(3):
        for c in range(4):
            cell = padded[2 * r : 2 * r + 2, 2 * c : 2 * c + 2]
            tokens[r, c] = torch.einsum("yxc,ocyx->o", cell, weight) + bias
    qkv = tokens @ head.qkv_proj.weight[:, :, 0, 0].T + head.qkv_proj.bias  # q heads, k heads, v heads
    expected = torch.zeros(1, 3, 4, 8, dtype=torch.float64)
    for h in range(2):
        q, k, v = (qkv[..., 8 * part + 4 * h : 8 * part + 4 * h + 4] for part in range(3))
        for r in range(3):
            for c in range(4):
                keys = [(i, j) for i in Axis(3, 3).keys(r) for j in Axis(4, 3).keys(c)]
                scores = torch.stack([q[r, c] @ k[i, j] / 2 for i, j in keys])  # 2 = sqrt(head dim)
                values = torch.stack([v[i, j] for i, j in keys])
                expected[0, r, c, 4 * h : 4 * h + 4] = scores.softmax(0) @ values
    torch.testing.assert_close(head(x), expected)


@pytest.mark.parametrize("size", SIZES)
def test_multi_scale_keeps_the_grid_at_any_size_with_gradients(size):
    module = MultiScaleMultiHeadNA2D(**attention_params().__dict__).double()
    x = torch.randn(2, *size, 8, dtype=torch.float64, requires_grad=True)
    output = module(x)
    assert output.shape == (2, *size, 16)
    output.square().sum().backward()
    assert torch.isfinite(x.grad).all()
    # all weights take part, except that no softmax over a single key depends on queries and keys
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("size", SIZES)
def test_downsampling_rounds_up(size):
    module = MultiScaleMultiHeadNA2D(**attention_params(scale_factor=0.5).__dict__)
    assert module(torch.randn(1, *size, 8)).shape == (1, -(-size[0] // 2), -(-size[1] // 2), 16)


def test_groups_come_back_to_the_positions_they_were_merged_from():
    """With window 1 a token attends to itself alone: a position depends on its own cell and on nothing else."""
    params = attention_params(windows=(1,), merging=(4,))
    module = MultiScaleMultiHeadNA2D(**params.__dict__).double()
    x = torch.randn(1, 10, 7, 8, dtype=torch.float64)
    before = module(x)
    x[:, 4:8, 0:4] += 1.0
    changed = (module(x) - before).abs().amax(dim=(0, 3)) > 0
    expected = torch.zeros(10, 7, dtype=torch.bool)
    expected[4:8, 0:4] = True
    assert torch.equal(changed, expected)


def test_permuted_pixels_stay_themselves():
    """Windows over the whole map without merging know no positions: permuting pixels permutes outputs."""
    params = attention_params(windows=(99,), merging=(1,))
    module = MultiScaleMultiHeadNA2D(**params.__dict__).double()
    x = torch.randn(1, 5, 6, 8, dtype=torch.float64)
    order = torch.randperm(30)
    permuted = x.flatten(1, 2)[:, order].unflatten(1, (5, 6))
    torch.testing.assert_close(module(permuted).flatten(1, 2), module(x).flatten(1, 2)[:, order])


@pytest.mark.parametrize(("cls", "shape"), [(MultiScaleMultiHeadNA1D, (11,)), (MultiScaleMultiHeadNA3D, (3, 5, 2))])
def test_other_ranks(cls, shape):
    module = cls(**attention_params(scale_factor=0.5).__dict__)
    assert module(torch.randn(2, *shape, 8)).shape == (2, *(-(-n // 2) for n in shape), 16)


def test_rescale_of_even_axes_averages_pairs():
    x = torch.arange(24.0).view(1, 4, 6, 1)
    expected = x.view(1, 2, 2, 3, 2, 1).mean(dim=(2, 4))
    torch.testing.assert_close(rescale(x, 0.5), expected)
    assert rescale(x, 1) is x


def test_repeat_to_gives_each_position_its_token():
    x = torch.tensor([[10.0, 20.0, 30.0]]).view(1, 3, 1)
    assert repeat_to(x, (8,), 3).flatten().tolist() == [10, 10, 10, 20, 20, 20, 30, 30]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale_factor": 0.0}, "scale_factor must be positive, got 0.0"),
        ({"scale_factor": -1.0}, "scale_factor must be positive"),
        ({"head_params": ()}, "at least one head group"),
        ({"out_channels": 12}, "16 channels to out_channels=12"),
    ],
)
def test_multi_scale_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        MultiScaleMultiHeadNA2D(**(attention_params().__dict__ | changes))


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("attn_params", {"attention_window": 0}, "attention_window must be at least 1, got 0"),
        ("attn_params", {"attention_stride": 2}, "attention_stride must be 1"),
        ("attn_params", {"dilation": 0}, "dilation must be at least 1"),
        ("conv_params", {"stride": 0}, "stride must be at least 1"),
        ("conv_params", {"in_channels": 4}, "tokenizer takes in_channels=4, the group in_channels=8"),
        (None, {"num_heads": 0}, "num_heads must be at least 1"),
    ],
)
def test_head_group_refuses(part, changes, message):
    head = attention_params().head_params[0]
    if part is None:
        head = dataclasses.replace(head, **changes)
    else:
        head = dataclasses.replace(head, **{part: dataclasses.replace(getattr(head, part), **changes)})
    with pytest.raises(ValueError, match=message):
        SharedScaleNA2D(**head.__dict__)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"windows": (3,)}, "one entry per head group"),
        ({"num_heads": 3}, "out_channels=16 does not divide by 2 groups x num_heads=3"),
    ],
)
def test_block_numbers_that_do_not_divide(changes, message):
    with pytest.raises(ValueError, match=message):
        attention_params(**changes)


@pytest.mark.parametrize(("channels", "groups"), [((8, 16), 4), ((6, 16), 2), ((6, 12), 6), ((400, 400), 400)])
def test_tokenizer_groups(channels, groups):
    """The given number where it divides both, else as many as possible: depthwise where the output is a multiple."""
    conv_groups = 4 if channels != (400, 400) else 32
    params = msnat_params(*channels, windows=(3,), merging=(2,), num_heads=2, conv_groups=conv_groups)
    assert params.attention_params.head_params[0].conv_params.groups == groups
