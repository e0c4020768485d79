"""The split form of token attention against dense attention under its mask."""

import pytest
import torch

from eyetoy_mm.ops import token_attention, token_attention_mask


def test_mask_is_the_papers():
    assert token_attention_mask(2, 5).int().tolist() == [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 0, 1],
    ]


@pytest.mark.parametrize(("num_tokens", "positions"), [(0, 6), (1, 1), (3, 10), (4, 0)])
def test_equals_masked_dense_attention(num_tokens, positions):
    length = num_tokens + positions
    inputs = [torch.randn(2, length, 3, 5, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    mask = token_attention_mask(num_tokens, length)
    dense = torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in inputs), attn_mask=mask)
    actual, expected = token_attention(*inputs, num_tokens), dense.transpose(1, 2)
    torch.testing.assert_close(actual, expected)
    weight = torch.randn_like(actual)
    for a, e in zip(*(torch.autograd.grad((x * weight).sum(), inputs) for x in (actual, expected)), strict=True):
        torch.testing.assert_close(a, e)


def test_bad_arguments_are_named():
    x = torch.randn(1, 4, 2, 8)
    with pytest.raises(ValueError, match="num_tokens must be between 0 and the length 4, got 5"):
        token_attention(x, x, x, 5)
    with pytest.raises(ValueError, match="one shape"):
        token_attention(x, x[:, :2], x, 1)
