"""What is particular to the ``torch`` back end: its two forms, and how it cuts a map."""

import pytest
import torch

from eyetoy_mm.ops import backend_torch, dense_form, neighborhood_attention, tiles
from eyetoy_mm.ops.backend_torch import Way
from eyetoy_mm.ops.neighborhood import Axis
from eyetoy_mm.ops.tiles import AtOnce, Plan


@pytest.mark.parametrize(
    ("spatial", "kernel_size"), [((56, 56), 17), ((57, 30), 4), ((14, 14), 11), ((1, 5000), 255), ((20, 33, 18), 11)]
)
def test_strips_hold_every_position_and_little_more(spatial, kernel_size):
    axes = tuple(Axis(length, kernel_size) for length in spatial)
    plan = Plan.of(axes, 1)
    for axis, runs, width in zip(axes[1:], plan.queries.runs, plan.queries.widths, strict=True):
        positions = [
            run.position + run.step * i + j for run in runs for i in range(run.number) for j in range(run.width)
        ]
        assert sorted(positions) == list(range(axis.length)) and width <= axis.length
    copies = 1.0
    for axis, count, width in zip(axes[1:], plan.keys.counts, plan.keys.widths, strict=True):
        copies *= count * width / axis.length
    assert copies < 7


def test_small_maps_are_computed_at_once(monkeypatch):
    calls = []
    attend = dense_form.attend
    monkeypatch.setattr(dense_form, "attend", lambda *arguments: calls.append(1) or attend(*arguments))
    for length, dense in ((16, 1), (17, 1)):
        q = torch.randn(1, length, 16, 1, 4)
        neighborhood_attention(q, q, q, 3, backend="torch")
        assert len(calls) == dense  # 17 x 16 positions are too many


def results(inputs, kernel_size, dilation, scale, how):
    """Output, gradient of its squares' sum for query, key, value and bias; of the operator's own functions."""
    arguments = (*inputs, kernel_size, dilation, scale, how)
    output = backend_torch._forward(*arguments)
    return [output, *backend_torch._backward(2 * output, *arguments)]


def test_takes_more_at_once_on_a_gpu():
    """The same result in a quarter of the turns or less, each of which is some launches there."""
    inputs = [*torch.randn(3, 2, 24, 24, 2, 4), None]
    found = []
    for most in (tiles.AtOnce(2**14, 2**14), tiles.at_once("cuda")):
        found.append(results(inputs, (17, 17), (1, 1), 0.3, Way(most, torch.float32)))
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-4)
    x = torch.empty(1).expand(8, 48, 48, 2, 8)
    on_cpu, on_gpu = (
        sum(len(plan.turns) for plan, _ in backend_torch._maps((17, 17), (1, 1), tiles.at_once(device), x))
        for device in ("cpu", "cuda")
    )
    assert on_gpu * 4 <= on_cpu


@pytest.mark.parametrize(
    ("dtype", "capability", "expected"),
    [
        (torch.bfloat16, 0, torch.float32),
        (torch.bfloat16, 75, torch.float32),
        (torch.bfloat16, 80, torch.bfloat16),
        (torch.float16, 75, torch.float16),
        (torch.float32, 90, torch.float32),
        (torch.float64, 90, torch.float64),
    ],
)
def test_multiplies_16_bits_where_a_gpu_adds_them_up_in_32(dtype, capability, expected):
    assert backend_torch.factors(dtype, capability) == expected


@pytest.mark.parametrize(
    ("dtype", "spatial", "kernel_size", "dilation", "with_bias"),
    [
        (torch.bfloat16, (13, 19), (5, 7), (1, 2), True),
        (torch.float16, (13, 19), (5, 7), (1, 1), False),
        (torch.bfloat16, (70,), (90,), (1,), False),
        (torch.float16, (4, 5, 6), (3, 3, 3), (1, 1, 2), True),
    ],
)
def test_products_of_16_bits_lose_nothing_but_the_factors_digits(dtype, spatial, kernel_size, dilation, with_bias):
    """Scores of some tens would be wrong by a half where they are rounded to bfloat16 themselves."""
    inputs = [(3 * x).to(dtype) for x in torch.randn(3, 2, *spatial, 2, 16)]
    inputs.append(torch.randn(2, *(2 * size - 1 for size in kernel_size)) if with_bias else None)
    scale, most = 0.3, tiles.at_once("cuda")
    actual = results(inputs, kernel_size, dilation, scale, Way(most, dtype))
    leaves = [x.double().requires_grad_() for x in inputs if x is not None]
    output = neighborhood_attention(*leaves[:3], kernel_size, dilation, *leaves[3:], scale=scale, backend="reference")
    expected = [output.detach(), *torch.autograd.grad(output, leaves, 2 * actual[0].double())]
    for a, e in zip(actual, expected):  # without a bias its gradient is empty
        error = float((a.double() - e).abs().max() / e.abs().max())
        assert error <= 2 * torch.finfo(dtype).eps and a.isfinite().all()
    in_float32 = results(inputs, kernel_size, dilation, scale, Way(most, torch.float32))
    assert not torch.equal(actual[0], in_float32[0]) and not torch.equal(actual[1], in_float32[1])


def test_gradients_of_a_bias_of_16_bits_are_summed_in_float32():
    """Over the parts that a large batch is taken in."""
    inputs = list(torch.randn(3, 64, 6, 6, 1, 4).bfloat16())
    inputs.append(torch.randn(1, 5, 5).bfloat16())
    at_once, apart = (
        results(inputs, (3, 3), (1, 1), 0.3, Way(most, torch.float32)) for most in (AtOnce(2**20, 2**20), AtOnce(1, 1))
    )
    assert at_once[-1].dtype == torch.bfloat16
    torch.testing.assert_close(at_once[-1], apart[-1], rtol=2**-7, atol=0)


@pytest.mark.parametrize("backend", ["torch", "reference"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_autocast_converts_the_inputs_and_nothing_within(backend, with_bias):
    """Scores that it rounds to bfloat16 were wrong by a half."""
    inputs = 3 * torch.randn(3, 1, 12, 12, 1, 16)
    bias = torch.randn(1, 9, 9) if with_bias else None
    with torch.autocast("cpu", torch.bfloat16):
        actual = neighborhood_attention(*inputs, 5, bias=bias, backend=backend)
    assert torch.equal(actual, neighborhood_attention(*inputs.bfloat16(), 5, bias=bias, backend=backend))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_gpu_multiplies_as_the_other_way_round(dtype):
    """With products of 16 bits and with those of float32."""
    inputs = [x.to(dtype) for x in torch.randn(3, 2, 40, 44, 2, 32, device="cuda")]
    inputs.append(torch.randn(2, 13, 13, device="cuda"))
    most = tiles.at_once("cuda")
    found = [results(inputs, (7, 7), (1, 1), 0.3, Way(most, of)) for of in (dtype, torch.float32)]
    for actual, expected in zip(*found, strict=True):
        error = float((actual.double() - expected.double()).abs().max() / expected.abs().max())
        assert error <= 4 * torch.finfo(dtype).eps
