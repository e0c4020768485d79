"""Both forms of token attention against dense attention under the mask that defines it."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import flex_attention

from eyetoy_mm.ops import create_attention_mask, token_attention
from eyetoy_mm.ops.flex import make_block_mask
from tests.block_masks import assert_same_blocks

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def definition(num_tokens, length):
    block_mask = create_attention_mask(num_tokens, length)
    return flex_attention.create_mask(block_mask.mask_mod, None, None, length, length, device="cpu")


def values_and_gradients(function, inputs):
    output = function(*inputs)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
    return [output, *torch.autograd.grad((output * weight).sum(), inputs)]


def test_mask_is_the_papers():
    assert definition(2, 5)[0, 0].int().tolist() == [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 0, 1],
    ]


def test_mask_skips_blocks_that_no_position_attends_to():
    mask = create_attention_mask(9, 1000)
    assert mask.shape == (1, 1, 1000, 1000) and create_attention_mask(9, 1000) is mask
    blocks = mask.to_dense()[0, 0].bool()  # of 128 x 128
    index = torch.arange(8)
    assert torch.equal(blocks, (index[:, None] == 0) | (index == 0) | (index[:, None] == index))


@pytest.mark.parametrize(
    ("num_tokens", "length"), [(0, 300), (9, 1000), (128, 256), (140, 300), (256, 256), (300, 300), (9, 5)]
)
def test_blocks_are_those_of_every_pair(num_tokens, length):
    mask = create_attention_mask(num_tokens, length)
    assert_same_blocks(mask, make_block_mask(mask.mask_mod, length, torch.device("cpu")))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("form", ["split", "flex"])
@pytest.mark.parametrize(("num_tokens", "positions"), [(0, 6), (1, 1), (1, 12), (3, 10), (4, 0), (33, 140), (0, 0)])
def test_equals_masked_dense_attention(num_tokens, positions, form, dtype, monkeypatch):
    # flex_attention refuses inputs that require gradients on a CPU, though its uncompiled form has them
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    length = num_tokens + positions
    inputs = [torch.randn(2, length, 3, 5, dtype=dtype, requires_grad=True) for _ in range(3)]

    def dense(*inputs):
        q, k, v = (x.transpose(1, 2) for x in inputs)
        mask = definition(num_tokens, length) if length else None
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)

    actual = values_and_gradients(lambda q, k, v: token_attention(q, k, v, num_tokens, form=form), inputs)
    for a, e in zip(actual, values_and_gradients(dense, inputs), strict=True):
        torch.testing.assert_close(a, e, **({"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {}))


def test_forms_take_a_scale_and_autocast():
    inputs = torch.randn(3, 2, 12, 2, 16)
    forms = [token_attention(*inputs, 3, scale=0.7, form=form) for form in ("split", "flex")]
    torch.testing.assert_close(*forms)
    assert not torch.allclose(forms[0], token_attention(*inputs, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = [token_attention(*inputs, 3, scale=0.7, form=form) for form in ("split", "flex")]
    assert half[0].dtype == half[1].dtype == torch.bfloat16
    for output in half:
        torch.testing.assert_close(output.float(), forms[0], atol=3e-2, rtol=3e-2)


def test_split_form_stays_finite_in_float16():
    q = torch.full((1, 6, 1, 64), 40.0, dtype=torch.float16)  # 64 * 40 * 40 is more than float16 holds
    assert torch.isfinite(token_attention(q, q, q, 2)).all()


def test_mask_made_in_inference_mode_trains(monkeypatch):
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    create_attention_mask.cache_clear()
    x = torch.randn(1, 7, 1, 8)
    with torch.inference_mode():
        token_attention(x, x, x, 2, form="flex")
    token_attention(x.requires_grad_(), x, x, 2, form="flex").sum().backward()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiled flex_attention trains on CUDA alone")
@pytest.mark.parametrize(("num_tokens", "positions"), [(0, 60), (1, 300), (33, 200)])
def test_forms_are_equal_on_cuda(num_tokens, positions):
    inputs = [torch.randn(2, num_tokens + positions, 2, 32, device="cuda", requires_grad=True) for _ in range(3)]
    split, flex = (
        values_and_gradients(lambda q, k, v, f=form: token_attention(q, k, v, num_tokens, form=f), inputs)
        for form in ("split", "flex")
    )
    for actual, expected in zip(flex, split, strict=True):
        torch.testing.assert_close(actual, expected, atol=2e-2, rtol=2e-2)


def test_bad_arguments_are_named():
    x = torch.randn(1, 4, 2, 8)
    with pytest.raises(ValueError, match="num_tokens must be between 0 and the length 4, got 5"):
        token_attention(x, x, x, 5)
    with pytest.raises(ValueError, match="one shape"):
        token_attention(x, x[:, :2], x, 1)
    with pytest.raises(ValueError, match="form must be 'split' or 'flex', got 'dense'"):
        token_attention(x, x, x, 1, form="dense")
    with pytest.raises(NotImplementedError, match="backward on CPU"):
        token_attention(x.requires_grad_(), x, x, 1, form="flex")
