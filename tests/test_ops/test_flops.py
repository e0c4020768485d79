"""Operations are counted by the definition, whatever runs, in torch's counter and in traced graphs."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from eyetoy_mm.ops import backend_cpp, backend_reference, flops, neighborhood_attention, token_attention
from eyetoy_mm.ops.neighborhood import Neighborhood

# (B, *spatial, heads, dim), kernel size, dilation
CASES = [
    ((2, 13, 2, 4), (4,), (1,)),
    ((1, 13, 2, 4), (3,), (5,)),  # groups of 3 and of 2
    ((1, 3, 1, 2), (2,), (7,)),  # more groups than positions
    ((2, 9, 11, 3, 4), (5, 4), (1, 1)),
    ((1, 23, 17, 2, 4), (3, 5), (2, 3)),  # too many positions for the dense form
    ((1, 5, 7, 1, 8), (9, 3), (1, 1)),  # a window larger than the map
    ((2, 3, 5, 4, 2, 2), (3, 2, 7), (1, 2, 1)),
]
BACKENDS = [None, "torch", "reference"] + (["cpp"] if not isinstance(backend_cpp.KERNELS, str) else [])


def multiply_adds(shape, kernel_size, dilation):
    """Of one product, with the keys of every window counted one by one."""
    axes = Neighborhood.of(shape[1:-2], kernel_size, dilation).axes
    keys = math.prod(int(backend_reference.attended(axis).sum()) for axis in axes)
    return shape[0] * shape[-2] * shape[-1] * keys


@pytest.mark.parametrize(("shape", "kernel_size", "dilation"), CASES)
def test_pairs_are_the_keys_of_all_windows(shape, kernel_size, dilation):
    for length, size, step in zip(shape[1:-2], kernel_size, dilation, strict=True):
        (axis,) = Neighborhood.of((length,), (size,), (step,)).axes
        groups = [len(range(position % step, length, step)) for position in range(length)]
        assert axis.pairs == sum(min(size, group) for group in groups)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("shape", "kernel_size", "dilation"), CASES)
def test_torchs_counter_is_exact_in_both_directions(shape, kernel_size, dilation, backend):
    query, key, value = (torch.randn(shape, requires_grad=True) for _ in range(3))
    with FlopCounterMode(display=False) as forward:
        output = neighborhood_attention(query, key, value, kernel_size, dilation, backend=backend)
    with FlopCounterMode(display=False) as backward:
        output.sum().backward()
    once = 2 * multiply_adds(shape, kernel_size, dilation)
    assert forward.get_total_flops() == 2 * once
    assert backward.get_total_flops() == 5 * once


def test_counting_computes_the_same_and_ends():
    query, key, value = (torch.randn(2, 9, 11, 2, 4) for _ in range(3))
    bias = torch.randn(2, 9, 5)
    expected = neighborhood_attention(query, key, value, (5, 3), 2, bias)
    with flops.counting():
        torch.testing.assert_close(neighborhood_attention(query, key, value, (5, 3), 2, bias), expected)
        assert flops.is_counting()
    assert not flops.is_counting()


def test_nothing_is_computed_on_the_meta_device():
    query = torch.empty(1, 512, 2048, 4, 32, device="meta")
    with FlopCounterMode(display=False) as counter:
        neighborhood_attention(query, query, query, 17)
    assert counter.get_total_flops() == 4 * 512 * 2048 * 17 * 17 * 4 * 32


@pytest.mark.parametrize("form", ["split", "flex"])
def test_attention_of_the_tokens(form):
    """Products of matrices; the one of a position with itself is elementwise, which no counter counts."""
    tokens, positions, heads, dim = 3, 14, 2, 4
    query, key, value = (torch.randn(2, tokens + positions, heads, dim, requires_grad=True) for _ in range(3))
    with FlopCounterMode(display=False) as forward:
        output = token_attention(query, key, value, tokens, form=form)
    with FlopCounterMode(display=False) as backward:
        output.sum().backward()
    of_tokens, of_positions = (2 * 2 * heads * dim * n for n in (tokens * (tokens + positions), positions * tokens))
    assert forward.get_total_flops() == 2 * of_tokens + 2 * of_positions
    assert backward.get_total_flops() == 4 * of_tokens + 4 * of_positions  # probabilities are kept
