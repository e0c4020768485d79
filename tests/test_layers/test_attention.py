"""Head groups and their combination: token identity, ragged borders, and a plain re-statement of the equations."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode

from eyetoy_mm.layers import (
    MultiScaleMultiHeadNA1D,
    MultiScaleMultiHeadNA2D,
    MultiScaleMultiHeadNA3D,
    SharedScaleNA1D,
    SharedScaleNA2D,
    SharedScaleNA3D,
)
from eyetoy_mm.layers.resize import rescale
from eyetoy_mm.ops import use_backend
from eyetoy_mm.ops.neighborhood import Axis
from eyetoy_mm.ops.repeats import repeat_to
from eyetoy_mm.params import ConvParams, NeighborhoodAttentionParams, msnat_params

SIZES = [(1, 1), (1, 9), (2, 3), (7, 5), (16, 16), (13, 22)]


def attention_params(**changes):
    arguments = dict(in_channels=8, out_channels=16, windows=(5, 3), merging=(1, 4), num_heads=2, dropout=0.0)
    return msnat_params(**(arguments | changes), conv_groups=4).attention_params


def one_head(window=3, factor=1, heads=2, dim=4, channels=8, **conv):
    params = NeighborhoodAttentionParams(window)
    conv_params = ConvParams(factor, factor, "valid", in_channels=channels, out_channels=8, **conv)
    return SharedScaleNA2D(params, heads, channels, dim, conv_params, dropout=0.0).double()


def test_autocast_on_a_gpu_converts_a_map_once_for_all_groups():
    """On a GPU without memory: what layer norm leaves there is float32, and is copied in 16 bits."""
    launched = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            output = function(*args, **(kwargs or {}))
            if function.__name__.split(".")[0] in ("_to_copy", "clone", "constant_pad_nd"):
                launched.append((function.__name__.split(".")[0], args[0].dtype, tuple(args[0].shape)))
            return output

    with FakeTensorMode(), use_backend("torch"), torch.device("cuda"):
        module = MultiScaleMultiHeadNA2D(**attention_params().__dict__)
        x = torch.empty(2, 18, 18, 8)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        torch.set_autocast_enabled("cuda", True)
        try:
            with Watch():
                output = module(x)
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.clear_autocast_cache()
    assert output.dtype == torch.bfloat16
    of_maps = [(name, dtype) for name, dtype, shape in launched if shape[0] == 2 and shape[-1] == 8 and len(shape) > 3]
    assert of_maps.count(("_to_copy", torch.float32)) == 1
    assert [name for name, dtype in of_maps if dtype == torch.float32] == [
        "_to_copy"
    ]  # neither padded nor copied before


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


@pytest.mark.parametrize(("length", "factor", "size"), [(50, 1.1, 55), (51, 1.1, 57), (100, 0.55, 55), (6, 1 / 3, 2)])
def test_rescale_rounds_up_what_is_no_whole_number_and_nothing_else(length, factor, size):
    assert rescale(torch.zeros(1, length, 1), factor).shape[1] == size


def test_repeat_to_gives_each_position_its_token():
    x = torch.tensor([[10.0, 20.0, 30.0]]).view(1, 3, 1)
    assert repeat_to(x, (8,), 3).flatten().tolist() == [10, 10, 10, 20, 20, 20, 30, 30]


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_merged_tokens_see_their_cell_and_half_of_each_neighbors_where_they_overlap(factor, overlap):
    params = attention_params(windows=(1,), merging=(factor,), overlap=overlap).head_params[0]
    head = SharedScaleNA1D(**params.__dict__).double()
    x = torch.randn(1, 21, 8, dtype=torch.float64, requires_grad=True)
    tokens = head(x)
    assert tokens.shape[1] == -(-21 // factor)
    reach = factor // 2 if overlap else 0
    for token in range(tokens.shape[1]):
        (gradient,) = torch.autograd.grad(tokens[:, token].sum(), x, retain_graph=True)
        seen = gradient.abs().sum(dim=(0, 2)).nonzero().flatten().tolist()
        assert seen == list(range(max(0, token * factor - reach), min(21, (token + 1) * factor + reach)))


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("layer_type", [SharedScaleNA1D, SharedScaleNA2D, SharedScaleNA3D])
def test_a_replicated_border_adds_nothing_that_is_not_in_the_map(layer_type, overlap):
    """A map of one value has tokens of one value, those whose cells the map does not fill among them."""
    x = torch.randn(8, dtype=torch.float64).expand(1, *(7, 5, 9)[: layer_type.ndim], 8)
    for padding_mode in ("zeros", "replicate"):
        params = msnat_params(8, 16, (3,), (4,), 2, dropout=0.0, overlap=overlap, padding_mode=padding_mode)
        layer = layer_type(**params.attention_params.head_params[0].__dict__).double()
        tokens = layer.tokenizer(layer._pad(x)).flatten(1, -2)
        assert tokens.shape[1] == math.prod((2, 2, 3)[: layer_type.ndim])
        assert torch.allclose(tokens, tokens[:, :1]) == (padding_mode == "replicate")
        (gradient,) = torch.autograd.grad(layer(x.clone().requires_grad_()).sum(), layer.tokenizer.weight)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("merging", [1, 2, 3])
@pytest.mark.parametrize("layer_type", [SharedScaleNA1D, SharedScaleNA2D, SharedScaleNA3D])
def test_tokenizer_and_projection_may_be_one_matrix(monkeypatch, groups, merging, layer_type):
    """As on a GPU where cells are merged; ragged cells, and weights in any layout."""
    conv = ConvParams(merging, merging, "valid", groups=groups, in_channels=8, out_channels=16)
    layer = layer_type(NeighborhoodAttentionParams(3), 2, 8, 8, conv, dropout=0.5).double().eval()
    if layer.ndim == 2:
        layer = layer.to(memory_format=torch.channels_last)
    x = torch.randn(2, *(9, 7, 4)[: layer.ndim], 8, dtype=torch.float64, requires_grad=True)
    parameters = [x, *layer.parameters()]
    found = []
    for one_matrix in (True, False):
        monkeypatch.setattr(layer, "_repays_a_matrix", lambda x, answer=one_matrix: answer)
        output = layer(x)
        found.append([output, *torch.autograd.grad(output.square().sum(), parameters)])
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected)


def test_what_becomes_one_matrix():
    """Merged cells, and small maps, on a GPU alone; never where cells overlap, or tokens are dropped."""

    class OnGpu(torch.Tensor):
        is_cuda = True

    x = torch.zeros(1, 16, 16, 8)
    gpu = x.as_subclass(OnGpu)

    def found(merging, overlap=False, dropout=0.0, size=16):
        params = msnat_params(8, 16, (3,), (merging,), 2, dropout=dropout, overlap=overlap).attention_params
        layer = SharedScaleNA2D(**params.head_params[0].__dict__)
        return layer._repays_a_matrix(x[:, :size]), layer._repays_a_matrix(gpu[:, :size])

    assert found(1) == (True, True)
    assert found(1, size=0) == (False, True)
    assert found(2) == (False, True)
    assert found(2, overlap=True) == (False, False)
    assert found(2, dropout=0.5) == (False, False)


def test_what_is_hooked_or_replaced_is_called():
    """Where tokenizer and projection would become one matrix, which skips what runs with a call of either."""

    class Scaled(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return 0.5 * self.inner(x)

    layer = SharedScaleNA2D(**attention_params(windows=(3,), merging=(1,)).head_params[0].__dict__)
    x = torch.randn(1, 5, 5, 8, requires_grad=True)
    assert layer._repays_a_matrix(x)
    for name in ("tokenizer", "qkv_proj"):
        module = getattr(layer, name)
        for register in ("forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook"):
            calls = []
            with getattr(module, f"register_{register}")(lambda *found, calls=calls: calls.append(found)):
                layer(x).sum().backward()
            assert len(calls) == 1, register
        before = layer(x)
        prune.l1_unstructured(module, "weight", 0.5)
        for _ in range(2):  # each call makes the weights anew, with a graph of their own
            layer(x).sum().backward()
        assert not torch.allclose(layer(x), before) and module.weight_orig.grad.any()
        prune.remove(module, "weight")
        before = layer(x)
        setattr(layer, name, Scaled(module))
        assert not torch.allclose(layer(x), before)
        setattr(layer, name, module)


def test_dropout_of_tokens_keeps_the_tokenizer_apart():
    conv = ConvParams(1, in_channels=8, out_channels=16)
    layer = SharedScaleNA2D(NeighborhoodAttentionParams(3), 2, 8, 8, conv, dropout=0.5).train()
    x = torch.randn(2, 9, 7, 8)
    assert not torch.equal(layer(x), layer(x))
