"""The trainable back ends within PyTorch: gradients of gradients, autocast, compilation, export, threads, memory."""

import concurrent.futures
import itertools
import sys

import pytest
import torch

from eyetoy_mm.ops import backend_cpp, backend_torch, neighborhood_attention, plain_form
from eyetoy_mm.ops.neighborhood import Neighborhood
from tests import program

pytestmark = pytest.mark.usefixtures("forms")
needs_cpp = pytest.mark.skipif(isinstance(backend_cpp.KERNELS, str), reason=str(backend_cpp.KERNELS))
BACKENDS = ["torch", pytest.param("cpp", marks=needs_cpp)]
MODULES = {"torch": backend_torch, "cpp": backend_cpp}


def inputs(*shape, dtype=torch.float32, bias=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [shape] * 3 + ([(shape[-2], *(2 * k - 1 for k in bias))] if bias else [])
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


def values_and_gradients(function, tensors):
    output = function(*tensors)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(output.dtype)
    return [output, *torch.autograd.grad((output * weight).sum(), tensors)]


def test_gradients_of_every_order():
    q, k, v, bias = inputs(1, 4, 5, 1, 3, dtype=torch.float64, bias=(3, 3))

    def function(*tensors):
        return neighborhood_attention(*tensors[:3], 3, (1, 2), tensors[3], backend="torch")

    assert torch.autograd.gradcheck(function, (q, k, v, bias))
    assert torch.autograd.gradgradcheck(function, (q, k, v, bias), fast_mode=True)


@needs_cpp
def test_gradients_of_gradients_of_kernels_in_float32():
    tensors = inputs(2, 5, 6, 2, 4, bias=(3, 3))
    results = []
    for backend in ("cpp", "reference"):
        output = neighborhood_attention(*tensors[:3], 3, 1, tensors[3], backend=backend)
        first = torch.autograd.grad(output.square().sum(), tensors, create_graph=True)
        results.append(torch.autograd.grad(sum(g.square().sum() for g in first), tensors))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "kernel_size", "dilation"),
    [((2, 13, 2, 4), (4,), (3,)), ((2, 9, 11, 2, 4), (5, 4), (1, 2)), ((1, 4, 5, 6, 2, 4), (3, 3, 2), (1, 1, 2))],
)
@pytest.mark.parametrize("with_bias", [False, True])
def test_plain_form_equals_the_operator(shape, kernel_size, dilation, with_bias):
    tensors = inputs(*shape, dtype=torch.float64, bias=kernel_size if with_bias else None)
    neighborhood = Neighborhood.of(shape[1:-2], kernel_size, dilation)
    results = [
        values_and_gradients(lambda q, k, v, b=None, f=form: f.attend(q, k, v, neighborhood, b, 0.4), tensors)
        for form in (plain_form, backend_torch)
    ]
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    "name", ["neighborhood_attention", pytest.param("neighborhood_attention_cpp", marks=needs_cpp)]
)
def test_the_operator_is_well_behaved(name):
    operator = getattr(torch.ops.eyetoy_mm, name).default
    q, k, v, bias = inputs(2, 6, 7, 2, 4, bias=(3, 3))
    torch.library.opcheck(operator, (q, k, v, bias, (3, 3), (1, 1), 0.5))
    torch.library.opcheck(operator, (q, k, v, None, (3, 3), (2, 1), 0.5))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_break(backend, dynamic):
    def function(q, k, v, bias):
        return neighborhood_attention(q * 2, k, v, 5, (1, 2), bias, backend=backend).relu()

    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for height in (9, 12):
        tensors = inputs(2, height, 11, 2, 4, bias=(5, 5))
        for actual, expected in zip(
            values_and_gradients(compiled, tensors), values_and_gradients(function, tensors), strict=True
        ):
            torch.testing.assert_close(actual, expected)


def test_the_choice_of_a_back_end_compiles():
    def function(q, k, v):
        return neighborhood_attention(q, k, v, 3)

    tensors = inputs(1, 5, 6, 2, 4)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*tensors), function(*tensors))


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_casts_inputs_and_gradients_come_back(backend):
    tensors = inputs(1, 8, 9, 2, 8, bias=(3, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = neighborhood_attention(*tensors[:3], 3, bias=tensors[3], backend=backend)
    assert output.dtype == torch.bfloat16
    gradients = torch.autograd.grad(output.float().sum(), tensors)
    assert {g.dtype for g in gradients} == {torch.float32}
    exact = neighborhood_attention(*tensors[:3], 3, bias=tensors[3], backend="reference")
    torch.testing.assert_close(output.float(), exact, atol=3e-2, rtol=3e-2)


class Layer(torch.nn.Module):
    def __init__(self, backend=None):
        super().__init__()
        self.backend = backend
        self.bias = torch.nn.Parameter(torch.randn(2, 9, 9))

    def forward(self, q, k, v):
        return neighborhood_attention(q, k, v, 5, (1, 2), self.bias, backend=self.backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_exports_in_plain_operators_for_any_batch(backend):
    layer = Layer(backend)
    q, k, v = (x.detach() for x in inputs(2, 9, 11, 2, 4))
    shapes = {name: {0: torch.export.Dim("batch")} for name in "qkv"}
    exported = torch.export.export(layer, (q, k, v), dynamic_shapes=shapes)
    assert not [node for node in exported.graph.nodes if "eyetoy_mm" in str(node.target)]
    traced = torch.jit.trace(layer, (q, k, v), check_trace=False)
    q, k, v = (torch.cat([x, -x, x]) for x in (q, k, v))
    torch.testing.assert_close(exported.module()(q, k, v), layer(q, k, v))
    torch.testing.assert_close(traced(q, k, v), layer(q, k, v))


def test_export_of_an_open_size_keeps_the_node_and_serves_every_size():
    layer = Layer()
    tensors = tuple(x.detach() for x in inputs(2, 9, 11, 2, 4))
    shapes = {name: {1: torch.export.Dim("height")} for name in "qkv"}
    exported = torch.export.export(layer, tensors, dynamic_shapes=shapes, strict=False)
    targets = [str(node.target) for node in exported.graph.nodes]
    assert "eyetoy_mm.neighborhood_attention.default" in targets
    for height in (2, 9, 30):
        other = tuple(x.detach() for x in inputs(2, height, 11, 2, 4, seed=height))
        torch.testing.assert_close(exported.module()(*other), layer(*other))


def test_exports_to_onnx(tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    layer = Layer()
    q, k, v = (x.detach() for x in inputs(2, 9, 11, 2, 4))
    torch.onnx.export(layer, (q, k, v), tmp_path / "layer.onnx", input_names=["q", "k", "v"], dynamo=True)
    session = runtime.InferenceSession(tmp_path / "layer.onnx")
    (output,) = session.run(None, {"q": q.numpy(), "k": k.numpy(), "v": v.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), layer(q, k, v).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_do_not_disturb_each_other(backend):
    cases = [(inputs(1, 8 + n, 9, 2, 4, seed=n), 3 + n % 3) for n in range(6)]

    def run(case):
        tensors, kernel_size = case
        return values_and_gradients(
            lambda q, k, v: neighborhood_attention(q, k, v, kernel_size, backend=backend), tensors
        )

    alone = [run(case) for case in cases]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        together = list(pool.map(run, cases * 10))
    for actual, expected in zip(together, itertools.cycle(alone)):  # the second never ends
        for a, e in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, e)


@pytest.mark.parametrize("backend", BACKENDS)
def test_inference_mode_leaves_nothing_behind(backend):
    tensors = inputs(1, 6, 6, 2, 4)
    with torch.inference_mode():
        neighborhood_attention(*tensors, 3, backend=backend)
    values_and_gradients(lambda q, k, v: neighborhood_attention(q, k, v, 3, backend=backend), tensors)


MEMORY = """
import pathlib, torch
torch.set_num_threads(1)
from eyetoy_mm.ops import neighborhood_attention
def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: getrusage has that of the parent in it
small = [torch.randn(1, 20, 20, 2, 32, requires_grad=True) for _ in range(3)]
neighborhood_attention(*small, 17, backend="{backend}").sum().backward()
q, k, v = (torch.randn(1, 160, 160, 2, 32, requires_grad={train}) for _ in range(3))
before = peak()
output = neighborhood_attention(q, k, v, 17, backend="{backend}")
if {train}:
    output.sum().backward()
print((peak() - before) / (3 * q.nbytes))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("train", "most"), [(False, 5), (True, 10)])
def test_memory_is_a_small_multiple_of_the_inputs(backend, train, most):
    # in copies of q, k and v together; 17 * 17 copies of k and v would be 193
    code = MEMORY.format(train=train, backend=backend)
    done = program.run_code(code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < most
