"""Functions with kernels for eager calls on CPUs, each beside its definition in PyTorch's operators."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.func import jvp, vmap
from torch.utils.flop_counter import FlopCounterMode

from eyetoy_mm.layers.mlp import FeedForward
from eyetoy_mm.ops import backend_cpp, eager, linear, neighborhood_attention, use_backend
from eyetoy_mm.ops.packed_attention import packed_attention
from eyetoy_mm.ops.repeats import join_repeated, repeat_to

needs_cpp = pytest.mark.skipif(isinstance(backend_cpp.KERNELS, str), reason=str(backend_cpp.KERNELS))
needs_onednn = pytest.mark.skipif(linear._PRODUCT is None, reason="a PyTorch without oneDNN")
COMPILED = [name for name in backend_cpp.instruction_sets() if (backend_cpp.FOLDER / f"{name}.so").is_file()]


@dataclass(frozen=True)
class Case:
    """Numbers that are no tensors, and shapes of those that are."""

    name: str
    numbers: tuple[Any, ...]
    shapes: tuple[tuple[int, ...], ...]

    def tensors(self, dtype=torch.float32):
        torch.manual_seed(0)
        return [torch.randn(shape).to(dtype).requires_grad_() for shape in self.shapes]

    def __call__(self, *tensors):
        if self.name == "join":
            return join_repeated(tensors, *self.numbers)
        if self.name == "linear":
            return linear.linear(*tensors)
        return packed_attention(*tensors, *self.numbers)

    def definition(self, *tensors):
        if self.name == "join":
            size, factors = self.numbers
            indices = [[torch.arange(n) // factor for n in size] for factor in factors]
            grids = [torch.meshgrid(*index, indexing="ij") for index in indices]
            return torch.cat([x[(slice(None), *grid)] for x, grid in zip(tensors, grids, strict=True)], dim=-1)
        if self.name == "linear":
            return F.linear(*tensors)
        return neighborhood_attention(*tensors[0].unbind(-3), *self.numbers, backend="reference")


def joined(batch, size, factors, channels):
    shapes = [(batch, *(-(-n // factor) for n in size), c) for factor, c in zip(factors, channels, strict=True)]
    return Case("join", (size, factors), tuple(shapes))


CASES = [
    Case("packed", (3, 1), ((2, 7, 9, 3, 2, 16),)),
    Case("packed", (5, 2), ((1, 13, 3, 1, 8),)),
    Case("packed", (3, 1), ((1, 4, 5, 6, 3, 2, 4),)),
    Case("packed", (7, 1), ((2, 5, 4, 3, 2, 5),)),  # attends to the whole map
    joined(2, (7, 9), (1, 2, 3, 4), (4, 20, 33, 5)),  # ragged
    joined(1, (10,), (1, 3), (8, 3)),
    joined(2, (3, 5, 4), (2, 1), (16, 17)),
    joined(3, (64, 40), (1, 8), (16, 16)),
    Case("linear", (), ((2, 5, 3, 12), (7, 12), (7,))),
    Case("linear", (), ((9, 12), (1, 12), (1,))),
]
ONE_OF_EACH = [CASES[0], CASES[4], CASES[8]]


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch):
    monkeypatch.setattr(linear, "LARGE", 1)
    monkeypatch.setattr(linear, "MANY_ROWS", 1)


@pytest.fixture
def calls(monkeypatch):
    """Names of the kernels that have run."""
    names = []
    call, product = backend_cpp.call, linear._PRODUCT
    monkeypatch.setattr(backend_cpp, "call", lambda name, *a: names.append(name) or call(name, *a))
    monkeypatch.setattr(linear, "_PRODUCT", lambda *a: names.append("product") or product(*a))
    return names


def close(got, expected):
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=4e-6, atol=4e-6 * float(other.detach().abs().max()))


@needs_onednn
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", COMPILED)
def test_every_library_equals_the_definition(name, threads, monkeypatch, calls):
    monkeypatch.setattr(backend_cpp, "KERNELS", backend_cpp.load([name]))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for case in CASES:
            inputs, double = case.tensors(), [x.detach().double().requires_grad_() for x in case.tensors()]
            calls.clear()
            output, expected = case(*inputs), case.definition(*double)
            close([output], [expected])
            gradient = torch.randn(output.shape)
            gradients = torch.autograd.grad(expected, double, gradient.double(), retain_graph=True)
            close(torch.autograd.grad(output, inputs, gradient), gradients)
            assert len(calls) == 2, (case, calls)
            with torch.inference_mode():
                close([case(*inputs)], [expected])
            # as parts of larger tensors, with a gradient that repeats one number
            apart = [torch.stack([x.detach()] * 2, -1)[..., 1].requires_grad_() for x in inputs]
            output, ones = case(*apart), torch.ones(()).expand(expected.shape)
            close([output], [expected])
            expected_ones = torch.autograd.grad(expected, double, ones.double())
            close(torch.autograd.grad(output, apart, ones), expected_ones)
    finally:
        torch.set_num_threads(before)


@needs_cpp
@needs_onednn
@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda case: case.name)
class TestEveryFunction:
    def test_only_the_gradients_that_are_needed(self, case, calls):
        for number in range(len(case.shapes)):
            inputs = [x.requires_grad_(i == number) for i, x in enumerate(case.tensors())]
            weights = torch.randn(case(*inputs).shape)
            expected = torch.autograd.grad((case.definition(*inputs) * weights).sum(), inputs[number])
            calls.clear()
            (case(*inputs) * weights).sum().backward()
            assert calls and [x.grad is None for x in inputs] == [i != number for i in range(len(inputs))]
            torch.testing.assert_close(inputs[number].grad, *expected)

    def test_derivatives_of_gradients_and_batches_of_them(self, case):
        inputs = case.tensors()

        def second(function):
            output = function(*inputs)
            gradients = torch.autograd.grad(output.square().sum(), inputs, create_graph=True)
            return torch.autograd.grad(sum(x.square().sum() for x in gradients), inputs)

        def batched(function):
            output = function(*inputs)
            torch.manual_seed(1)
            gradients = torch.randn(3, *output.shape)
            return torch.autograd.grad(output, inputs, gradients, is_grads_batched=True)

        for results in (second, batched):
            for got, expected in zip(results(case), results(case.definition), strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))

    def test_transforms_and_graphs_have_the_definition(self, case, calls):
        inputs = [x.detach() for x in case.tensors()]
        expected = case.definition(*inputs)
        calls.clear()
        gradients = torch.func.grad(lambda *x: case(*x).sum(), tuple(range(len(inputs))))(*inputs)
        output, pushed = jvp(case, tuple(inputs), tuple(inputs))
        mapped = vmap(case)(*(torch.stack([x, x]) for x in inputs))
        compiled = torch.compile(case.__call__, backend="aot_eager", fullgraph=True)(*inputs)
        for one in (output, mapped[1], compiled):
            torch.testing.assert_close(one, expected)
        assert pushed.shape == expected.shape and [x.shape for x in gradients] == [x.shape for x in inputs]
        with FlopCounterMode(display=False) as counter:
            case(*inputs)
        assert (counter.get_total_flops() > 0) == (case.name in ("packed", "linear"))
        assert not {"eyetoy_join", "product"} & set(calls)

    def test_other_precisions_devices_and_autocast_have_the_definition(self, case, calls):
        for dtype in (torch.float64, torch.bfloat16):
            with torch.no_grad():
                assert case(*case.tensors(dtype)).dtype == dtype
        meta = case(*(x.detach().to("meta") for x in case.tensors()))
        assert meta.is_meta and meta.shape == case(*case.tensors()).shape
        calls.clear()
        with torch.autocast("cpu", torch.bfloat16):
            output = case(*case.tensors())
        assert output.dtype == (torch.bfloat16 if case.name in ("packed", "linear") else torch.float32)
        assert "product" not in calls

    def test_with_checkpointing_and_without_kernels(self, case, calls, monkeypatch):
        inputs = case.tensors()
        output = torch.utils.checkpoint.checkpoint(case, *inputs, use_reentrant=False)
        gradients = torch.autograd.grad(output.sum(), inputs)
        assert calls
        monkeypatch.setattr(backend_cpp, "KERNELS", "not compiled")
        monkeypatch.setattr(linear, "_PRODUCT", None)
        calls.clear()
        for got, expected in zip(gradients, torch.autograd.grad(case(*inputs).sum(), inputs), strict=True):
            torch.testing.assert_close(got, expected)
        assert not calls

    def test_outputs_may_be_written_into(self, case):
        inputs = case.tensors()
        output = case(*inputs)
        output += 1
        output.relu_().sum().backward()
        expected = torch.autograd.grad((case.definition(*inputs) + 1).relu().sum(), inputs)
        for x, gradient in zip(inputs, expected, strict=True):
            torch.testing.assert_close(x.grad, gradient)


@needs_cpp
def test_one_tensor_in_two_places():
    x = torch.randn(1, 4, 4, 8, requires_grad=True)
    join_repeated([x, x], (4, 4), (1, 1)).sum().backward()
    assert x.grad.unique().tolist() == [2]


def test_one_group_is_no_copy_and_other_shapes_are_refused_by_pytorch():
    x = torch.randn(1, 3, 3, 8)
    assert join_repeated([x], (3, 3), (1,)) is x
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        join_repeated([x, torch.randn(2, 2, 2, 8)], (3, 3), (1, 2))
    assert join_repeated([x, x], (3, 3), (1, 2)).shape == (1, 3, 3, 16)  # more tokens than are needed
    assert repeat_to(x, (6, 5), 2).shape == (1, 6, 5, 8)


@needs_cpp
def test_another_back_end_may_be_chosen(calls):
    with use_backend("torch"):
        packed_attention(torch.randn(1, 5, 3, 2, 8), 3)
    assert not calls
    with pytest.raises(ValueError, match="kernel_size must be an int >= 1"):
        packed_attention(torch.randn(1, 5, 3, 2, 8), 0)


@needs_onednn
@pytest.mark.parametrize("needed", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1)])
def test_a_linear_map_keeps_what_pytorch_keeps(needed, calls):
    kept = {}
    for function in (linear.linear, F.linear):
        x, weight, bias = torch.randn(4, 5, 12), torch.randn(7, 12), torch.randn(7)
        inputs = [y.requires_grad_(bool(wanted)) for y, wanted in zip((x, weight, bias), needed, strict=True)]
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda y, sizes=sizes: sizes.append(y.numel()) or y, lambda y: y):
            output = function(*inputs)
        kept[function] = sorted(sizes)
        with torch.no_grad():
            for y, others in ((x, needed[1]), (weight, needed[0]), (bias, False)):
                if not others:
                    y.add_(1)  # nobody's gradient reads it
        output.sum().backward()
        assert [y.grad is not None for y in inputs] == [bool(wanted) for wanted in needed]
    assert kept[linear.linear] == kept[F.linear] and "product" in calls


@needs_onednn
def test_linear_maps_of_any_layout_and_errors_of_pytorch():
    x = torch.randn(4, 5, 12)
    one, weight = torch.randn(1), torch.randn(7, 12)
    overlapping = torch.randn(30).as_strided((7, 12), (2, 1))
    for case in [
        (weight, one.expand(7)),
        (weight, one),
        (weight, one[0]),
        (overlapping, None),
        (one.expand(7, 12), None),
    ]:
        inputs = [x.clone().requires_grad_(), *case]
        output, expected = linear.linear(*inputs), F.linear(*inputs)
        torch.testing.assert_close(output, expected)
        gradients = [torch.autograd.grad(y.square().sum(), inputs[0]) for y in (output, expected)]
        torch.testing.assert_close(*gradients)
    for wrong in [(x[..., 1:], weight, None), (x, weight, torch.randn(6)), (x, weight.double(), None)]:
        messages = []
        for function in (linear.linear, F.linear):
            with pytest.raises(RuntimeError) as error:
                function(*wrong)
            messages.append(str(error.value))
        assert messages[0] == messages[1]


@needs_onednn
def test_whoever_looks_at_layers_sees_those_of_a_block():
    block, x, seen = FeedForward(8), torch.randn(1, 4, 8), []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda layer, *_: seen.append(layer))
    block(x)
    handle.remove()
    assert seen == [block.fc1, block.act, block.fc2, block]
    with FlopCounterMode(display=False) as counter:
        block(x)
    assert "FeedForward.fc1" in counter.get_flop_counts()
    nodes = torch.export.export(block, (x,)).graph.nodes
    assert "fc1" in [path for node in nodes for path, _ in node.meta.get("nn_module_stack", {}).values()]


@needs_onednn
def test_only_large_linear_maps_take_onednn(monkeypatch, calls):
    monkeypatch.setattr(linear, "LARGE", 4 * 8 * 32)
    block = FeedForward(8)
    block(torch.randn(1, 3, 8))
    assert "product" not in calls
    block(torch.randn(1, 4, 8))
    assert calls.count("product") == 2
    monkeypatch.setattr(linear, "MANY_ROWS", 5)
    calls.clear()
    block(torch.randn(1, 4, 8)).sum().backward()
    assert calls.count("product") == 1  # the gradient of the map between the two; nothing asks for the input's
    calls.clear()
    seen = []
    block.fc1.register_forward_hook(lambda *_: seen.append("fc1"))
    block.fc2 = torch.nn.Sequential(block.fc2)  # something else in its place
    block(torch.randn(1, 4, 8))
    block.fc2 = block.fc2[0]
    block.fc2.forward = lambda x, forward=block.fc2.forward: seen.append("fc2") or forward(x)
    block(torch.randn(1, 4, 8))
    assert seen == ["fc1", "fc1", "fc2"] and "product" not in calls
    calls.clear()
    torch.testing.assert_close(linear.linear(torch.ones(8), torch.ones(128, 8), None), torch.full((128,), 8.0))
    with torch.backends.mkldnn.flags(enabled=False):
        block(torch.randn(1, 4, 8))
    assert "product" not in calls


def test_what_is_eager():
    x = torch.randn(2, 2)
    assert eager.is_eager(x, None, torch.nn.Parameter(x))
    others = [x.double(), x.to_sparse(), x.to("meta"), torch.randn(0, 2), torch.nested.nested_tensor([x])]
    assert not any(map(eager.is_eager, others))
    assert not torch.jit.trace(lambda y: y + float(eager.is_eager(y)), x)(x).equal(x + 1)
