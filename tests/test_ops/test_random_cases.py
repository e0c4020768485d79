"""Random cases of the operator against a loop over positions, as ``benchmarks/operator_cases.py`` runs by thousands."""

import pytest
import torch

from benchmarks.operator_cases import ALLOWED, differences, draw, forms, laid_out, window
from eyetoy_mm.ops import neighborhood_attention

CASES = 200
BATCHES = 5  # a test each, so that a failure names few cases


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_back_end_equals_the_loop(batch):
    names = [name for name in forms() if not name.startswith("flex")]  # slow, and it has tests of its own
    for number in range(batch, CASES, BATCHES):
        case = draw(number, seed=1)
        for name, (difference, what) in differences(case, names).items():
            assert difference <= ALLOWED[case.dtype], (name, what, case)


def test_the_loop_is_the_definition():
    assert [window(i, 6, 3, 1) for i in range(6)] == [[0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [3, 4, 5]]
    assert [window(i, 4, 2, 1) for i in range(4)] == [[0, 1], [0, 1], [1, 2], [2, 3]]
    assert [window(i, 7, 3, 3) for i in range(7)] == [
        [0, 3, 6], [1, 4], [2, 5], [0, 3, 6], [1, 4], [2, 5], [0, 3, 6],
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("backend", [None, "torch"])
def test_tensors_to_be_negated_when_read_are(backend, dtype):
    """PyTorch's ``copy_`` from float16 to float32 forgets it."""
    x = torch.randn(2, 9, 8, 1, 4).to(dtype)
    bias = torch.zeros(1, 5, 5)
    negative = laid_out(x.shape, "negative")[1](x)
    assert negative.is_neg() and torch.equal(negative, x)
    actual = neighborhood_attention(negative, negative, negative, 3, bias=bias, backend=backend)
    assert torch.equal(actual, neighborhood_attention(x, x, x, 3, bias=bias, backend=backend))
