"""The encoder as the public EyeToy code is used."""

import dataclasses
import re

import pytest
import torch

from eyetoy_mm.archs import encoder_params, resolve
from eyetoy_mm.encoder import INITS, Encoder1D, Encoder2D, Encoder3D
from eyetoy_mm.params import ConvParams, EncoderParams, GlobalAttentionTransformerParams, msnat_params


def small_params(**changes):
    block = dict(windows=(5, 3), merging=(1, 2), num_heads=1, conv_groups=4)
    params = EncoderParams(
        initial_conv_params=ConvParams(3, in_channels=3, out_channels=12),
        transformer_params=(msnat_params(12, 24, scale_factor=0.5, **block), msnat_params(24, 24, **block)),
        global_attention_params=GlobalAttentionTransformerParams(24, num_heads=2, num_layers=2),
        input_channels=3,
        output_channels=24,
    )
    return dataclasses.replace(params, **changes).__dict__


@pytest.mark.parametrize(("cls", "shape"), [(Encoder1D, (13,)), (Encoder2D, (5, 8)), (Encoder3D, (3, 4, 5))])
def test_every_rank_trains(cls, shape):
    encoder = cls(**small_params())
    x = torch.randn(2, 3, *shape, requires_grad=True)
    features, context_token = encoder(x)
    assert features.shape == (2, 24, *(-(-n // 2) for n in shape)) and context_token.shape == (2, 1, 24)
    (features.square().sum() + context_token.sum()).backward()
    assert torch.isfinite(x.grad).all()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (9, 14)])
def test_any_size_deterministic_and_batch_independent(size):
    encoder = Encoder2D(**small_params()).double().eval()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    features, context = encoder(x)
    assert torch.equal(encoder(x)[0], features) and torch.equal(encoder(x)[1], context)
    singles = [encoder(x[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(torch.cat([f for f, _ in singles]), features)
    torch.testing.assert_close(torch.cat([c for _, c in singles]), context)


def test_mirrored_image_and_position_matter():
    encoder = Encoder2D(**small_params()).double().eval()
    x = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    features = encoder(x)[0]
    # an empty image has nothing but positions: no two places look alike
    flat = features.flatten(2)[0].T
    assert torch.cdist(flat, flat).fill_diagonal_(1).min() > 1e-6


def test_without_global_stack():
    features, context_token = Encoder2D(**small_params(global_attention_params=None))(torch.randn(1, 3, 8, 8))
    assert features.shape == (1, 24, 4, 4) and context_token is None


def test_context_token_is_optional():
    stack = GlobalAttentionTransformerParams(24, 2, 2, num_register_tokens=2, use_context_token=False)
    encoder = Encoder2D(**small_params(global_attention_params=stack))
    features, context_token = encoder(torch.randn(1, 3, 8, 8))
    assert context_token is None
    features.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize("cls", [Encoder1D, Encoder2D, Encoder3D])
def test_inputs_of_another_rank_are_named(cls):
    encoder = cls(**small_params())
    for axes in {0, 1, 2, 3, 4} - {cls.ndim}:
        shape = (3, 3, *(5, 6, 7, 8)[:axes])
        with pytest.raises(ValueError, match=f"{cls.__name__} takes .* {cls.ndim} spatial .*{re.escape(str(shape))}"):
            encoder(torch.randn(shape))


def test_initial_weights_of_convolutions_in_groups_keep_the_variance():
    """PyTorch's own rule takes them for whole ones; where there are no groups, both say the same."""
    torch.manual_seed(0)
    x = torch.randn(4, 16, 16, 64)
    spreads = {}
    for init in INITS:
        encoder = Encoder2D(**encoder_params(resolve(dict(type="demo", init=init))).__dict__)
        block = encoder.transformer_stack.blocks[2]
        spreads[init] = [head.tokenizer(x).std().item() for head in block.multi_head_attention.heads]
        assert 0.095 < block.shortcut.weight.std() < 0.11 and not block.shortcut.bias.any()  # 0.102
    assert all(0.7 < spread < 1.4 for spread in spreads["group_xavier_normal"])
    assert all(0.15 < spread < 0.4 for spread in spreads["xavier_normal"])


def test_unknown_initial_weights_are_named():
    with pytest.raises(ValueError, match="init must be one of xavier_normal, group_xavier_normal, got 'kaiming'"):
        Encoder2D(**small_params(init="kaiming"))
