"""What is particular to the ``torch`` back end: its two forms, and how it cuts a map."""

import pytest
import torch

from eyetoy_mm.ops import backend_torch, dense_form, neighborhood_attention, tiles
from eyetoy_mm.ops.neighborhood import Axis
from eyetoy_mm.ops.tiles import Plan


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


def test_takes_more_at_once_on_a_gpu(monkeypatch):
    """The same result in a quarter of the turns or less, each of which is some launches there."""
    q, k, v = inputs = [torch.randn(8, 48, 48, 2, 8, requires_grad=True) for _ in range(3)]
    results, turns = [], []
    for most in (tiles.at_once("cpu"), tiles.at_once("cuda")):
        monkeypatch.setattr(backend_torch, "at_once", lambda device, most=most: most)
        output = neighborhood_attention(q, k, v, 17, backend="torch")
        results.append([output, *torch.autograd.grad(output.square().sum(), inputs)])
        turns.append(sum(len(plan.turns) for plan, _ in backend_torch._maps((17, 17), (1, 1), q)))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-4)
    assert turns[1] * 4 <= turns[0]
