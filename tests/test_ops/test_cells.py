"""Convolutions of cells by compiled kernels, beside PyTorch's in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, jvp, vmap
from torch.utils.flop_counter import FlopCounterMode

from eyetoy_mm.layers.conv import CONVS
from eyetoy_mm.ops import backend_cpp
from eyetoy_mm.ops.cells import convolve_cells, have_kernels_for

needs_cpp = pytest.mark.skipif(isinstance(backend_cpp.KERNELS, str), reason=str(backend_cpp.KERNELS))
COMPILED = [name for name in backend_cpp.instruction_sets() if (backend_cpp.FOLDER / f"{name}.so").is_file()]
CASES = [  # batch, spatial, cell, groups, channels of a group in and out
    (2, (8, 8), (2, 2), 4, 3, 5),
    (1, (9, 6), (3, 3), 32, 12, 12),
    (3, (7, 5), (1, 1), 32, 12, 18),
    (1, (24, 16), (8, 8), 32, 2, 4),
    (2, (24,), (4,), 8, 2, 2),
    (1, (4, 6, 8), (2, 2, 2), 6, 5, 7),
    (1, (4, 6, 6), (1, 3, 2), 2, 1, 1),
    (1, (2, 2), (2, 2), 3, 1, 1),
    (5, (26, 26), (2, 2), 7, 18, 13),
]


def tensors(batch, spatial, cell, groups, inputs, outputs, dtype=torch.float32):
    torch.manual_seed(0)
    shapes = ((batch, *spatial, groups * inputs), (groups * outputs, inputs, *cell), (groups * outputs,))
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


def by_pytorch(x, weight, bias, groups):
    cell = weight.shape[2:]
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(cell) - 1]
    return convolve(x.movedim(-1, 1), weight, bias, stride=cell, groups=groups).movedim(1, -1)


def close(got, expected):
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=2e-6, atol=2e-6 * float(other.detach().abs().max()))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", COMPILED)
def test_every_library_equals_pytorchs_convolution(name, threads, monkeypatch):
    monkeypatch.setattr(backend_cpp, "KERNELS", backend_cpp.load([name]))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for case in CASES:
            inputs, groups = tensors(*case), case[3]
            assert have_kernels_for(*inputs, groups)
            output = convolve_cells(*inputs, groups)
            double = [x.detach().double().requires_grad_() for x in inputs]
            expected = by_pytorch(*double, groups)
            gradient = torch.randn_like(output)
            close([output], [expected])
            close(
                torch.autograd.grad(output, inputs, gradient),
                torch.autograd.grad(expected, double, gradient.double()),
            )
    finally:
        torch.set_num_threads(before)


@needs_cpp
def test_only_the_gradients_that_are_needed_and_any_layout():
    x, weight, bias = tensors(2, (8, 6), (2, 2), 4, 3, 5)
    inputs = [x.detach().movedim(1, 2).contiguous().movedim(1, 2), weight.detach().requires_grad_(), None]
    output = convolve_cells(*inputs, 4)
    expected = by_pytorch(*inputs, 4)
    torch.testing.assert_close(output, expected)
    gradient = torch.randn(2, 20, 4, 3).movedim(1, -1)  # channels first in memory
    for number in (0, 1):
        inputs[0].requires_grad_(number == 0)
        inputs[1].requires_grad_(number == 1)
        got = torch.autograd.grad(convolve_cells(*inputs, 4), inputs[number], gradient)
        torch.testing.assert_close(got, torch.autograd.grad(by_pytorch(*inputs, 4), inputs[number], gradient))
    with torch.no_grad():
        assert not convolve_cells(x, weight, bias, 4).requires_grad


@needs_cpp
def test_derivatives_of_any_order():
    inputs = tensors(1, (4, 4), (2, 2), 2, 2, 3)

    def third(convolve):
        """A number of the third derivatives of a sum of squares, in each tensor."""
        value = convolve(*inputs, 2).square().sum()
        for _ in range(2):
            gradients = torch.autograd.grad(value, inputs, create_graph=True)
            value = sum((g.square() * torch.arange(g.numel()).view(g.shape)).sum() for g in gradients) * 1e-3
        return torch.autograd.grad(value, inputs)

    for got, expected in zip(third(convolve_cells), third(by_pytorch), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def convolution(ndim=2):
    torch.manual_seed(0)
    return CONVS[ndim](in_channels=8, out_channels=12, kernel_size=2, stride=2, padding=0, groups=4)


@needs_cpp
def test_batched_gradients_and_transforms_get_pytorchs_convolution():
    conv, x = convolution(), torch.randn(2, 4, 4, 8)

    def of_weight(weight, x):
        return torch.func.functional_call(conv, {"weight": weight}, (x,)).square().sum()

    conv(x).square().sum().backward()
    torch.testing.assert_close(grad(of_weight)(conv.weight.detach(), x), conv.weight.grad)
    each = vmap(grad(of_weight), (None, 0))(conv.weight.detach(), x[:, None])
    torch.testing.assert_close(each.sum(0), conv.weight.grad)
    tangent = torch.randn_like(x)
    pushed = jvp(conv, (x,), (tangent,))[1]
    torch.testing.assert_close(pushed, conv(tangent) - conv.bias)
    one = torch.randn(1, 2, 2, 8)
    jacobians = [torch.autograd.functional.jacobian(conv, one, vectorize=vectorize) for vectorize in (False, True)]
    torch.testing.assert_close(*jacobians)


@needs_cpp
def test_layers_take_the_kernels_where_cells_are_whole_and_nobody_looks(monkeypatch):
    calls = []
    monkeypatch.setattr("eyetoy_mm.layers.conv.convolve_cells", lambda *a: calls.append(a) or convolve_cells(*a))

    def taken(conv, x):
        calls.clear()
        conv(x)
        return len(calls)

    conv, x = convolution(), torch.randn(1, 4, 6, 8)
    assert taken(conv, x)
    assert taken(convolution(1), torch.randn(1, 4, 8)) and taken(convolution(3), torch.randn(1, 2, 4, 6, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert taken(conv, x.bfloat16())
    others = {
        "a length that the cell does not divide": lambda: taken(conv, torch.randn(1, 5, 6, 8)),
        "no map": lambda: taken(conv, torch.randn(0, 4, 6, 8)),
        "another dtype": lambda: taken(convolution().double(), x.double()),
        "the meta device": lambda: taken(convolution().to("meta"), x.to("meta")),
        "overlap": lambda: taken(
            CONVS[2](in_channels=8, out_channels=8, kernel_size=4, stride=2, padding=1, groups=4), x
        ),
        "one group": lambda: taken(CONVS[2](in_channels=8, out_channels=8, kernel_size=2, stride=2, padding=0), x),
    }
    assert {name: case() for name, case in others.items()} == dict.fromkeys(others, 0)
    with pytest.raises(RuntimeError, match="channels"):
        conv(torch.randn(1, 4, 6, 4))
    with FlopCounterMode(display=False) as counter:
        assert not taken(conv, x)
    assert counter.get_total_flops() == 2 * x.numel() * 3
    graph = torch.export.export(conv, (x,)).graph
    assert any("conv" in str(node.target) for node in graph.nodes)
    monkeypatch.setattr(backend_cpp, "KERNELS", "not compiled")
    assert not taken(conv, x)


@needs_cpp
def test_one_graph_when_compiled():
    conv, x = convolution(), torch.randn(1, 4, 6, 8)
    compiled = torch.compile(conv, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), conv(x))
