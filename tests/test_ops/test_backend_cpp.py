"""What is particular to the ``cpp`` back end: each of its libraries, its threads, and where it cannot run."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyetoy_mm.ops import available_backends, backend_cpp, neighborhood_attention

needs_cpp = pytest.mark.skipif(isinstance(backend_cpp.KERNELS, str), reason=str(backend_cpp.KERNELS))
COMPILED = [name for name in backend_cpp.instruction_sets() if (backend_cpp.FOLDER / f"{name}.so").is_file()]


def results(q, k, v, bias, kernel_size, dilation, weight, backend):
    inputs = [x for x in (q, k, v, bias) if x is not None]
    output = neighborhood_attention(q, k, v, kernel_size, dilation, bias, backend=backend)
    return [output, *torch.autograd.grad((output * weight).sum(), inputs)]


@pytest.mark.parametrize("name", COMPILED)
def test_every_library_equals_the_reference_anywhere(name):
    before = backend_cpp.KERNELS
    backend_cpp.KERNELS = backend_cpp.load([name])

    @settings(max_examples=120, deadline=None)
    @given(
        axes=st.lists(st.tuples(st.integers(1, 24), st.integers(1, 12), st.integers(1, 3)), min_size=1, max_size=2)
        | st.lists(st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 2)), min_size=3, max_size=3),
        heads=st.integers(1, 3),
        dim=st.sampled_from([1, 3, 8, 16, 20, 32, 40, 64, 72, 130]),
        with_bias=st.booleans(),
        packed=st.booleans(),
        threads=st.integers(1, 5),
        seed=st.integers(0, 99),
    )
    def run(axes, heads, dim, with_bias, packed, threads, seed):
        spatial, kernel_size, dilation = zip(*axes, strict=True)
        generator = torch.Generator().manual_seed(seed)
        q, k, v = torch.randn(2, *spatial, 3, heads, dim, generator=generator).unbind(-3)
        if not packed:
            q, k, v = q.contiguous(), k.transpose(0, -1).contiguous().transpose(0, -1), v.contiguous()
        table = (heads, *(2 * size - 1 for size in kernel_size))
        bias = torch.randn(table, generator=generator) if with_bias else None
        inputs = [x if x is None else x.detach().requires_grad_() for x in (q, k, v, bias)]
        exact = [x if x is None else x.detach().double().requires_grad_() for x in inputs]
        weight = torch.randn(q.shape, generator=generator)
        torch.set_num_threads(threads)
        actual = results(*inputs, kernel_size, dilation, weight, "cpp")
        expected = results(*exact, kernel_size, dilation, weight, "reference")
        for a, e in zip(actual, expected, strict=True):
            torch.testing.assert_close(a.double(), e, atol=1e-5 * (1 + float(e.detach().abs().max())), rtol=1e-5)

    try:
        run()
    finally:
        backend_cpp.KERNELS = before


@needs_cpp
@pytest.mark.parametrize("parallel", [backend_cpp.PARALLEL, None], ids=["torch's threads", "own threads"])
def test_result_does_not_depend_on_threads(parallel, monkeypatch):
    monkeypatch.setattr(backend_cpp, "PARALLEL", parallel)
    q, k, v = (torch.randn(1, 67, 23, 1, 16, requires_grad=True) for _ in range(3))
    bias = torch.randn(1, 13, 13, requires_grad=True)
    weight = torch.randn(q.shape)
    found = []
    for threads in (1, 3, 3):
        torch.set_num_threads(threads)
        found.append(results(q, k, v, bias, 7, 1, weight, "cpp"))
    for one, three, again in zip(*found, strict=True):
        torch.testing.assert_close(one, three)
        assert torch.equal(three, again)


@needs_cpp
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_numbers_are_not_swallowed(bad):
    q, k, v = (torch.randn(1, 9, 9, 1, 8) for _ in range(3))
    q[0, 4, 4] = bad
    output = neighborhood_attention(q, k, v, 3, backend="cpp")
    assert output[0, 4, 4].isnan().all() and output[0, :4].isfinite().all()


@needs_cpp
def test_large_scores_do_not_overflow():
    q, k, v = (torch.randn(1, 9, 9, 1, 8) * 300 for _ in range(3))
    expected = neighborhood_attention(q.double(), k.double(), v.double(), 5, backend="reference")
    torch.testing.assert_close(neighborhood_attention(q, k, v, 5, backend="cpp").double(), expected, atol=1, rtol=1e-3)


def test_says_what_it_cannot_run():
    q = torch.zeros(1, 4, 4, 1, 8)
    assert "float64" in available_backends(q.double(), 3)["cpp"]
    assert "meta" in available_backends(q.to("meta"), 3)["cpp"]
    assert "at most 256, got 300" in available_backends(torch.zeros(1, 4, 4, 1, 300), 3)["cpp"]


def test_without_libraries_another_back_end_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(backend_cpp, "FOLDER", tmp_path)
    monkeypatch.setattr(backend_cpp, "KERNELS", backend_cpp.load(["avx2", "baseline"]))
    q = torch.randn(1, 4, 4, 1, 8)
    assert "install a C++ compiler" in available_backends(q, 3)["cpp"]
    neighborhood_attention(q, q, q, 3)
    with pytest.raises(RuntimeError, match="'cpp' cannot run .* not compiled"):
        neighborhood_attention(q, q, q, 3, backend="cpp")
    (tmp_path / "avx2.so").write_text("no library")
    assert "cannot be loaded" in backend_cpp.load(["avx2", "baseline"])


def test_libraries_of_another_version_are_refused(monkeypatch):
    monkeypatch.setattr(backend_cpp, "INTERFACE", -1)
    answer = backend_cpp.load(COMPILED)
    assert isinstance(answer, str) and ("another version" in answer if COMPILED else "not compiled" in answer)


# --- The boundary: whatever comes there, it is refused or right -------------------------------------------------------

RAW = torch.ops.eyetoy_mm


def node(*tensors, kernel_size=(3, 3), dilation=(1, 1)):
    name = "neighborhood_attention_cpp" if len(tensors) == 3 else "neighborhood_attention_cpp_backward"
    return getattr(RAW, name)(*tensors, None, list(kernel_size), list(dilation), 1.0)


@needs_cpp
@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (dict(kernel_size=[3]), r"kernel_size must be at least 1 on each of 2 spatial axes, got \[3\]"),
        (dict(kernel_size=[0, 3]), "kernel_size must be at least 1"),
        (dict(kernel_size=[-3, -3]), "kernel_size must be at least 1"),
        (dict(dilation=[0, 1]), "dilation must be at least 1"),
        (dict(dilation=[1, 1, 1]), "dilation must be at least 1"),
    ],
)
def test_numbers_of_who_calls_the_node_are_checked(numbers, message, count):
    x = torch.randn(1, 8, 8, 2, 8)
    with pytest.raises(ValueError, match=message):
        node(*[x] * count, **numbers)


@needs_cpp
@pytest.mark.parametrize("shape", [(1, 8, 8, 2, 300), (1, 4, 4, 4, 4, 2, 8), (1, 2, 8)])
def test_shapes_of_who_calls_the_node_are_checked(shape):
    with pytest.raises(ValueError, match="1 to 3 spatial axes and a head_dim of 1 to 256"):
        node(*[torch.randn(shape)] * 3, kernel_size=[3] * (len(shape) - 3), dilation=[1] * (len(shape) - 3))


@needs_cpp
def test_memory_that_is_not_there():
    """As sharding and offloading free it, between a forward and a backward pass or before."""
    q, k = torch.randn(1, 8, 8, 2, 8, requires_grad=True), torch.randn(1, 8, 8, 2, 8)
    output = neighborhood_attention(q, k, k, 3, backend="cpp")
    k.untyped_storage().resize_(0)
    for call in (lambda: output.sum().backward(), lambda: neighborhood_attention(q, k, q, 3, backend="cpp")):
        with pytest.raises(TypeError, match="tensors with memory behind them, got Tensor .* with 0 bytes on cpu"):
            call()


@needs_cpp
@pytest.mark.parametrize("position", range(4))
def test_tensors_that_wrap_others_in_any_place(position):
    """The query is not the only one that may be: of a fake mode, of tensor parallelism, of somebody's own."""
    from torch._subclasses import FakeTensorMode
    from torch.testing._internal.two_tensor import TwoTensor

    tensors = [*torch.randn(3, 1, 8, 8, 2, 8), torch.randn(2, 5, 5)]
    plain = neighborhood_attention(*tensors[:3], 3, bias=tensors[3], backend="cpp")
    wrapped = [x.clone().requires_grad_() for x in tensors]
    wrapped[position] = TwoTensor(tensors[position].clone(), tensors[position].clone()).requires_grad_()
    output = neighborhood_attention(*wrapped[:3], 3, bias=wrapped[3], backend="cpp")
    torch.testing.assert_close(output.a, plain)
    output.sum().backward()
    assert type(wrapped[position].grad) is TwoTensor
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = mode.from_tensor(tensors[position])
    tensors[position] = fake
    assert neighborhood_attention(*tensors[:3], 3, bias=tensors[3], backend="cpp").shape == plain.shape
    with pytest.raises(TypeError, match="got FakeTensor"):
        backend_cpp._forward(*tensors[:3], tensors[3], [3, 3], [1, 1], 1.0)
