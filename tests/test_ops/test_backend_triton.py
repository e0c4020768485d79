"""The kernels of the ``triton`` back end without a GPU: interpreted beside a loop, and compiled for GPUs elsewhere."""

import functools
import re

import numpy as np
import pytest
import torch
from torch import func
from torch._dynamo.testing import CompileCounterWithBackend

from benchmarks.operator_cases import ALLOWED, Case, differences
from eyetoy_mm.ops import available_backends, backend_triton, neighborhood_attention
from eyetoy_mm.ops.neighborhood import Axis, Neighborhood

triton = pytest.importorskip("triton", reason="triton is not installed: PyTorch comes without it here")

from triton.runtime import interpreter  # noqa: E402

from benchmarks import triton_builds  # noqa: E402
from benchmarks.triton_interpreter import interpreted  # noqa: E402

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
PLAIN = ("contiguous",) * 4


@pytest.fixture
def kernels(monkeypatch):
    monkeypatch.setattr(backend_triton, "PROGRAMS", 8)  # so that one sums the gradient of a bias over several tiles
    with interpreted():
        yield


def case(spatial, kernel_size, dilation, dtype=F32, layouts=PLAIN, dim=8, **others):
    numbers = dict(batch=1, heads=1, key_heads=1, value_dim=dim, bias=None, scale=None) | others
    return Case(0, spatial=spatial, kernel_size=kernel_size, dilation=dilation, dim=dim, dtype=dtype, layouts=layouts,
                threads=1, **numbers)  # fmt: skip


CASES = {
    "sequence, packed": case((41,), (6,), (3,), layouts=("packed",) * 4, batch=2),
    "map, even window, borders": case((7, 9), (4, 5), (1, 2), scale=-0.5),
    "volume": case((3, 2, 5), (2, 3, 3), (1, 1, 2), F16, dim=16),
    "window larger than the map, a bias": case((2, 2), (3, 2), (1, 1), bias=F32, heads=2),
    "volume, a bias": case((2, 1, 3), (2, 1, 2), (1, 1, 1), BF16, bias=BF16),
    "sequence of several tiles, a bias": case((35,), (3,), (1,), bias=F32),
    "whole map": case((3, 4), (5, 4), (1, 1), BF16),
    "dilation beyond the map, wide values": case((2, 9), (2, 2), (5, 1), dim=3, value_dim=17),
    "grouped heads, any layout": case(
        (4, 5), (3, 3), (1, 1), BF16, ("transposed", "sliced", "expanded", "negative"), 24, heads=2, batch=2
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_equals_the_loop_in_value_and_gradient(kernels, case):
    ((difference, what),) = differences(case, ["triton"]).values()
    assert difference <= ALLOWED[case.dtype], what


def qkv(*shape, dtype=F32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def test_columns_are_the_definition():
    """Who attends to a key is an interval too, and is less than two windows long."""
    for length, window in [(9, 4), (9, 5), (3, 5), (7, 7), (8, 1)]:
        axis = Axis(length, window)
        width, left = min(window, length), window // 2
        for key in range(length):
            first = 0 if key < width else key - width + 1 + left
            last = length - 1 if key >= length - width else key + left
            assert [query for query in range(length) if key in axis.keys(query)] == list(range(first, last + 1))
            assert last - first < 2 * window


def test_launches_of_a_call(kernels, monkeypatch):
    """One forward, two backward, one more for a bias; a further forward pass in the backward pass there is not."""
    launched = []
    run = interpreter.GridExecutor.__call__

    def counted(self, *arguments, **named):
        launched.append(self.fn.__name__.removeprefix("attention_"))
        return run(self, *arguments, **named)

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", counted)
    inputs, bias = qkv(1, 3, 3, 1, 8), torch.zeros(1, 3, 3, requires_grad=True)
    neighborhood_attention(*inputs, 2, backend="triton").sum().backward()
    assert launched == ["forward", "query_gradient", "key_value_gradient"]
    launched.clear()
    neighborhood_attention(*inputs, 2, bias=bias, backend="triton").sum().backward()
    assert launched == ["forward", "query_gradient", "key_value_gradient", "bias_gradient"]


# --- Within PyTorch ---------------------------------------------------------------------------------------------------


def agree(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=2e-5 * max(1.0, float(e.detach().abs().max())), rtol=0)


def test_the_operator_is_well_behaved(kernels):
    q, k, v = qkv(1, 3, 4, 1, 8)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(backend_triton.OPERATOR.node, (q, k, v, None, (3, 3), (1, 1), 0.5), test_utils=tests)


def test_is_one_node_that_serves_other_sizes(kernels):
    def function(q, k, v):
        return neighborhood_attention(q * 2, k, v, 3, backend="triton").relu()

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=counter)
    for height in (4, 6):
        inputs = qkv(1, height, 5, 1, 8)
        outputs = [f(*inputs) for f in (compiled, function)]
        agree(*[[y, *torch.autograd.grad(y.square().sum(), inputs)] for y in outputs])
    assert counter.frame_count == 1
    nodes = [str(node.target) for node in counter.graphs[0].graph.nodes]
    assert sum("neighborhood_attention_triton" in name for name in nodes) == 1


def test_a_window_as_large_as_the_map_is_no_graph_of_its_own(kernels):
    """Nor is it another kernel for the graph: that a whole map is taken as a sequence is settled when it runs."""
    counter = CompileCounterWithBackend("aot_eager")
    function = functools.partial(neighborhood_attention, kernel_size=4, backend="triton")
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=counter)
    for spatial in ((5, 6), (3, 4), (4, 7)):
        inputs = qkv(1, *spatial, 1, 8)
        outputs = [f(*inputs) for f in (compiled, functools.partial(neighborhood_attention, kernel_size=4))]
        agree(*[[y, *torch.autograd.grad(y.square().sum(), inputs)] for y in outputs])
    assert counter.frame_count == 1
    plans = [backend_triton._plan((1, *size, 1, 8), F32, torch.device("cpu"), (4, 4), (1, 1), False)
             for size in ((3, 4), (5, 6))]  # fmt: skip
    assert [plan.numbers[2:5] for plan in plans] == [(1, 1, 12), (1, 5, 6)]


def test_second_derivatives_of_a_common_origin(kernels):
    x = qkv(1, 3, 4, 1, 8)[0]
    bias = torch.randn(1, 5, 5, requires_grad=True)
    results = []
    for name in ("triton", "reference"):
        output = neighborhood_attention(x, x.tanh(), x * 2, 3, bias=bias, backend=name)
        first = torch.autograd.grad(output.square().sum(), (x, bias), create_graph=True)
        results.append([*first, *torch.autograd.grad(sum(g.square().sum() for g in first), (x, bias))])
    agree(*results)


def test_takes_part_in_transforms(kernels):
    x, bias = torch.randn(2, 1, 2, 3, 1, 8), torch.randn(2, 1, 3, 3)
    results = []
    for name in ("triton", "reference"):

        def loss(x, bias=None, name=name):
            return neighborhood_attention(x, x.sin(), x, 2, bias=bias, backend=name).square().sum()

        of_x = func.vmap(func.grad(loss))(x)
        of_both = func.vmap(func.grad(loss, (0, 1)))(x, bias)
        results.append([of_x, *of_both, *func.jvp(loss, (x[0],), (x[1],))])
    agree(*results)


def test_forward_mode_keeps_the_tangent(kernels):
    from torch.autograd import forward_ad

    x = torch.randn(1, 3, 4, 1, 8)
    tangents = []
    for name in ("triton", "reference"):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, x.cos())
            output = neighborhood_attention(dual, dual, dual, 3, backend=name)
            tangents.append(forward_ad.unpack_dual(output).tangent)
    agree(*[[t] for t in tangents])


# --- What it refuses --------------------------------------------------------------------------------------------------


def test_says_where_it_cannot_run():
    q = torch.randn(1, 4, 4, 1, 8)
    assert "GPUs of NVIDIA and AMD, the query is on cpu" in available_backends(q, 3)["triton"]
    with pytest.raises(RuntimeError, match="'triton' cannot run .* the query is on cpu"):
        neighborhood_attention(q, q, q, 3, backend="triton")


class OnCuda:
    """What a refusal asks about, before there is a GPU."""

    is_cuda, device = True, torch.device("cuda", 0)

    def __init__(self, *shape, dtype=BF16):
        self.shape, self.dtype = torch.Size(shape), dtype


@pytest.mark.parametrize(
    ("capability", "query", "kernel_size", "bias", "reason"),
    [
        ((9, 0), OnCuda(2, 56, 56, 4, 32), (7, 7), None, None),
        ((9, 0), OnCuda(2, 56, 56, 4, 32, dtype=torch.float64), (7, 7), None, "bfloat16, the query is torch.float64"),
        ((9, 0), OnCuda(2, 9, 1, 257), (3,), None, "at most 256, got 257"),
        ((7, 5), OnCuda(2, 9, 1, 32, dtype=F16), (3,), None, None),
        ((7, 5), OnCuda(2, 9, 1, 64, dtype=F16), (3,), None, "below compute capability 8.0"),
        ((7, 5), OnCuda(2, 9, 1, 32), (3,), None, "this GPU has 7.5, .* torch.bfloat16"),
        ((7, 0), OnCuda(2, 9, 1, 32, dtype=F16), (3,), None, "this GPU has 7.0"),
        ((9, 0), OnCuda(2, 100000, 1, 32), (40000,), None, "windows of at most 16351 along an axis, got"),
        ((9, 0), OnCuda(2, 8, 8, 600, 1, 8), (3, 3, 500), None, "windows of at most 223 along an axis"),
        ((9, 0), OnCuda(2, 99, 1, 8), (17000,), "a bias", "biases are for windows of at most 16351"),
        ((9, 0), OnCuda(1, 16384, 16384, 1, 32), (3, 3), None, "fewer than 2..31 elements"),
    ],
)
def test_says_what_it_cannot_run(monkeypatch, capability, query, kernel_size, bias, reason):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(backend_triton, "_known_refusal", backend_triton._refusal)  # nothing is kept of another GPU
    ones = (1,) * len(kernel_size)
    found = backend_triton.refusal(query, Neighborhood.of(tuple(query.shape[1:-2]), kernel_size, ones), bias)
    assert found is None if reason is None else re.search(reason, found)


def test_the_node_refuses_what_the_kernels_would_not_survive(kernels):
    q, k, v = (x.detach() for x in qkv(1, 3, 4, 1, 8))
    node = torch.ops.eyetoy_mm.neighborhood_attention_triton
    freed = torch.randn(1, 3, 4, 1, 8)
    freed.untyped_storage().resize_(0)
    bias = torch.zeros(1, 3, 3)
    for arguments, message in [
        ((q, k[:, :2], v, None, (3, 3), (1, 1)), "query, key and value alike"),
        ((q, k, v.double(), None, (3, 3), (1, 1)), "query, key and value alike"),
        ((q, k, v, None, (3,), (1, 1)), r"kernel_size must be at least 1 on each of 2 .* \[3\]"),
        ((q, k, v, None, (3, 3), (1, 0)), r"dilation must be at least 1 .* \[1, 0\]"),
        ((q, k, v, bias, (3, 3), (1, 1)), r"a bias \(1, 5, 5\)"),
        ((q, freed, v, None, (3, 3), (1, 1)), "memory behind them"),
        ((q.double(), k.double(), v.double(), None, (3, 3), (1, 1)), "the query is torch.float64"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            node(*arguments, 1.0)


def test_asking_for_the_gpu_leaves_a_graph_whole(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))

    def function(x):
        return x + 1 if backend_triton._too_old(backend_triton._capability(0), x.dtype, x.shape[-1]) else x

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="eager")
    for dim in (32, 33, 64):
        x = torch.zeros(2, dim)
        assert torch.equal(compiled(x), function(x))


@pytest.mark.parametrize(
    "case",
    [
        case((5, 13), (3, 5), (1, 2), bias=F32),
        case((37,), (5,), (4,), bias=BF16, dtype=BF16),
        case((3, 3, 5), (2, 2, 3), (1, 1, 1), bias=F32),
    ],
    ids=["map", "sequence", "volume"],
)
def test_reads_and_writes_nothing_that_is_not_there(kernels, monkeypatch, case):
    """Rows of a tile beyond the map too; a CPU has something before and behind a tensor, a GPU may not."""
    regions, checked = [], []
    launch = interpreter.GridExecutor._init_args_hst

    def remembered(self, arguments, named):
        tensors = [x for x in arguments if isinstance(x, torch.Tensor)]
        regions[:] = sorted(
            (x.untyped_storage().data_ptr(), x.untyped_storage().data_ptr() + x.untyped_storage().nbytes())
            for x in tensors
        )
        return launch(self, arguments, named)

    def checked_access(name):
        access = getattr(interpreter.InterpreterBuilder, name)

        def run(self, pointers, *others):
            mask = others[1 if name.endswith("store") else 0].data.astype(bool)
            addresses = pointers.data.astype(np.int64)[np.broadcast_to(mask, pointers.data.shape)]
            inside = np.zeros(addresses.shape, bool)
            for begin, end in regions:
                inside |= (addresses >= begin) & (addresses < end)
            checked.append(inside.all())
            return access(self, pointers, *others)

        monkeypatch.setattr(interpreter.InterpreterBuilder, name, run)

    monkeypatch.setattr(interpreter.GridExecutor, "_init_args_hst", remembered)
    checked_access("create_masked_load")
    checked_access("create_masked_store")
    differences(case, ["triton"])
    assert checked and all(checked)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_kernel_is_launched_again_for_what_it_was_compiled_for():
    """Storage that begins anywhere, strides of any kind, and the same again: with Triton's choice, and without."""
    for dtype in (BF16, F32, BF16, F32):
        for offset, dim in ((0, 32), (1, 32), (0, 24), (3, 8)):
            memory = torch.randn(3, 2 * 9 * 10 * 2 * dim + offset, device="cuda").to(dtype)
            inputs = [x[offset:].view(2, 9, 10, 2, dim).requires_grad_() for x in memory]
            found = []
            for name in ("triton", "torch"):
                output = neighborhood_attention(*inputs, 5, backend=name)
                found.append([output, *torch.autograd.grad(output.float().square().sum(), inputs)])
            for actual, expected in zip(*found, strict=True):
                tolerance = 1e-4 if dtype == F32 else 3e-2
                torch.testing.assert_close(actual, expected, atol=tolerance * float(expected.abs().max()), rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [F32, F16, BF16])
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_torch_on_a_gpu(dtype, with_bias):
    inputs = [x.cuda().detach().requires_grad_() for x in qkv(2, 20, 24, 2, 32, dtype=dtype)]
    bias = torch.randn(2, 13, 13, device="cuda", requires_grad=True) if with_bias else None
    inputs += [bias] if with_bias else []
    results = []
    for name in ("triton", "triton", "torch"):
        output = neighborhood_attention(*inputs[:3], 7, bias=bias, backend=name)
        results.append([output, *torch.autograd.grad(output.float().square().sum(), inputs)])
    tolerance = 1e-4 if dtype == F32 else 3e-2
    for first, again, expected in zip(*results, strict=True):
        assert torch.equal(first, again)
        torch.testing.assert_close(first, expected, atol=tolerance * max(1.0, float(expected.abs().max())), rtol=0)


# --- Compiled for GPUs that are not here ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Nothing is taken from an earlier run, or left."""
    with triton.knobs.cache.scope():
        triton.knobs.cache.dir = str(tmp_path_factory.mktemp("triton"))
        yield


@pytest.mark.parametrize("kernel", triton_builds.KERNELS)
def test_compiles_for_an_h100_and_fits_its_registers(cache, kernel):
    built = triton_builds.build(kernel, "sm_90")
    assert built.spilled == built.atomics == 0  # nothing depends on the order of programs
    assert built.registers <= 168 and built.shared <= 16 * 1024  # 6 programs or more of 2 warps on a quarter of an SM
    assert built.matrix >= 16 and 100 < built.loop < (600 if kernel == "bias" else 400)


def test_sizes_are_no_reason_to_compile_again():
    """What a kernel is compiled for are its constants, dtypes, and whether strides divide by 16."""
    for kernel in triton_builds.KERNELS.values():
        anew = {p.name for p in kernel.params if not p.is_constexpr and not p.do_not_specialize}
        sizes = {"heads", "tiles", *(a + b for a in "LKSN" for b in "DHW")}
        assert not sizes & anew and sizes <= set(kernel.arg_names)
