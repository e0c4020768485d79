"""The mask and the score of the ``flex`` back end, uncompiled, against the definition. Kernels need CUDA."""

import math

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention.flex_attention import flex_attention

from eyetoy_mm.ops import backend_flex, neighborhood_attention
from eyetoy_mm.ops.flex import make_block_mask
from eyetoy_mm.ops.neighborhood import Axis, Neighborhood
from tests.block_masks import assert_same_blocks


@pytest.mark.parametrize(
    "axis", [Axis(8, 3), Axis(8, 4), Axis(4, 9), Axis(17, 5, 3), Axis(13, 2, 4), Axis(2, 3, 5), Axis(1, 1)]
)
def test_rule_on_tensors_is_the_rule_on_positions(axis):
    positions = torch.arange(axis.length)
    expected = [[key in axis.keys(query) for key in range(axis.length)] for query in range(axis.length)]
    assert axis.attends(positions[:, None], positions[None, :]).tolist() == expected


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("spatial", "kernel_size", "dilation"),
    [
        ((13,), (4,), (2,)),
        ((8, 4), (3, 3), (1, 1)),
        ((4, 8), (4, 4), (1, 1)),
        ((9, 7), (5, 2), (2, 3)),
        ((3, 4, 5), (3, 2, 9), (1, 2, 1)),
    ],
)
def test_mask_and_score_equal_the_reference(spatial, kernel_size, dilation):
    q, k, v = torch.randn(3, 2, *spatial, 2, 8)
    bias = torch.randn(2, *(2 * size - 1 for size in kernel_size))
    neighborhood = Neighborhood.of(spatial, kernel_size, dilation)
    flat = [x.flatten(1, -3).transpose(1, 2) for x in (q, k, v)]
    block_mask = backend_flex._block_mask(neighborhood, q.device)
    actual = flex_attention(*flat, score_mod=backend_flex.score_mod(neighborhood, bias), block_mask=block_mask)
    expected = neighborhood_attention(q, k, v, kernel_size, dilation, bias, backend="reference")
    torch.testing.assert_close(actual.transpose(1, 2).reshape(q.shape), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("spatial", "kernel_size", "dilation"),
    [
        ((700,), (300,), (1,)),
        ((37, 23), (7, 5), (1, 2)),
        ((20, 32), (20, 3), (1, 1)),
        ((16, 32), (99, 99), (1, 1)),
        ((7, 9, 11), (3, 9, 2), (2, 1, 4)),
        ((5, 6), (3, 3), (1, 1)),
    ],
)
def test_blocks_are_those_of_every_pair(monkeypatch, spatial, kernel_size, dilation):
    monkeypatch.setattr(backend_flex, "PAIRS_AT_ONCE", 10_000)  # several turns
    neighborhood = Neighborhood.of(spatial, kernel_size, dilation)
    actual = backend_flex._block_mask.__wrapped__(neighborhood, torch.device("cpu"))
    expected = make_block_mask(backend_flex.mask_mod(neighborhood), math.prod(spatial), torch.device("cpu"))
    assert_same_blocks(actual, expected)


def test_every_neighborhood_is_compiled_for_itself():
    cases = [Neighborhood.of((9, 9), (kernel_size,) * 2, (1, 1)) for kernel_size in (3, 5)]
    codes = [backend_flex._compiled(case, False)._torchdynamo_orig_callable.__code__ for case in cases]
    assert codes[0] != codes[1]


def test_one_graph_serves_sizes_and_windows():
    """Not compiled by inductor, whose kernels for a CPU have no gradients; what is guarded is the same."""
    torch.compiler.reset()  # compilations of other tests count against a limit
    counter = CompileCounterWithBackend("eager")
    function = torch.compile(backend_flex.attention, dynamic=True, fullgraph=True, backend=counter)
    for spatial, window in [((6, 9), 3), ((7, 5), 4), ((4, 5), 6), ((8, 11), 5)]:
        q, k, v = torch.randn(3, 2, *spatial, 2, 8)
        bias = torch.randn(2, *[2 * window - 1] * 2)
        neighborhood = Neighborhood.of(spatial, (window,) * 2, (1, 1))
        flat = [x.flatten(1, -3).transpose(1, 2) for x in (q, k, v)]
        mask = backend_flex._block_mask(neighborhood, q.device)
        with torch.no_grad():
            actual = function(*flat, bias, mask, 0.3, neighborhood).transpose(1, 2).unflatten(1, spatial)
        expected = neighborhood_attention(q, k, v, window, 1, bias, 0.3, backend="reference")
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert counter.frame_count == 1


def test_what_the_compiler_tells_apart_is_compiled_apart():
    """Of one code object it takes eight graphs and no more; what it is tried with is what trains."""

    def found(*shape, window=3, dilation=1, grad=True):
        q = torch.empty(shape[0], 2, math.prod(shape[1:]), 16, requires_grad=grad)
        return backend_flex.apart(q, Neighborhood.of(shape[1:], (window,) * 2, (dilation,) * 2))

    cases = [found(2, 15, 11), found(1, 15, 11), found(2, 5, 6), found(2, 15, 11, dilation=2),
             found(2, 15, 11, grad=False)]  # fmt: skip
    assert len(set(cases)) == len(cases)
    assert found(2, 15, 11) == found(8, 200, 336, window=7) == found(3, 28, 12, window=4)
    for tried in backend_flex.TRIED.values():
        assert all(math.prod(spatial) > 128 for spatial, _ in tried)


def test_where_one_kernel_for_all_sizes_does_not_work_each_has_its_own(caplog):
    """As on a CPU, which has no gradients of it."""
    kind = backend_flex.Kind(2, torch.float32, 16, 16, True)
    assert not backend_flex._serves_all_sizes(kind, torch.device("cpu"))
    assert "flex is compiled for each size: one kernel for all does not work" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiled flex_attention trains on CUDA alone")
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("spatial", [(20, 24), (33, 20)])
def test_equals_torch_on_cuda(with_bias, spatial):
    tensors = [torch.randn(2, *spatial, 2, 32, device="cuda", requires_grad=True) for _ in range(3)]
    bias = torch.randn(2, 13, 13, device="cuda", requires_grad=True) if with_bias else None
    tensors += [bias] if with_bias else []
    results = []
    for backend in ("flex", "torch"):
        output = neighborhood_attention(*tensors[:3], 7, bias=bias, backend=backend)
        results.append([output, *torch.autograd.grad(output.square().sum(), tensors)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=2e-2, rtol=2e-2)
