"""What is kept for later calls is the same whatever surrounds the call that makes it, and the dtype of buffers too.

In each case the caches are filled under odd circumstances; then the same calls are made as usual, and must equal the
reference in value and gradient.
"""

import concurrent.futures
import contextlib
import importlib
import pkgutil

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import eyetoy_mm.ops
from eyetoy_mm.ops import backend_cpp, create_attention_mask, neighborhood_attention, token_attention
from eyetoy_mm.ops.caching import cached_tensors

needs_cpp = pytest.mark.skipif(isinstance(backend_cpp.KERNELS, str), reason=str(backend_cpp.KERNELS))
CASES = [((9,), 3, 1), ((6, 7), 3, (1, 2)), ((20, 19), 5, 1), ((5, 4), 7, 1), ((3, 8, 7), 3, 1)]
MODULES = [importlib.import_module(f"eyetoy_mm.ops.{m.name}") for m in pkgutil.iter_modules(eyetoy_mm.ops.__path__)]
CACHES = [f for module in MODULES for f in vars(module).values() if hasattr(f, "cache_clear")]
CACHES += [eyetoy_mm.ops.tiles.Plan.of]


def tensors(spatial, kernel_size, dtype=torch.float32):
    generator = torch.Generator(device="cpu").manual_seed(0)
    shapes = [(2, *spatial, 2, 8)] * 3 + [(2, *[2 * kernel_size - 1] * len(spatial))]
    made = (torch.randn(s, generator=generator, dtype=torch.float64, device="cpu") for s in shapes)
    return [x.to(dtype).requires_grad_() for x in made]


def call(backend):
    for spatial, kernel_size, dilation in CASES:
        for with_bias in (False, True):
            *qkv, bias = tensors(spatial, kernel_size)
            output = neighborhood_attention(*qkv, kernel_size, dilation, bias if with_bias else None, backend=backend)
            if output.requires_grad:
                output.sum().backward()
    x = torch.ones(1, 12, 2, 4, device="cpu")
    token_attention(x, x, x, 3)
    create_attention_mask(3, 12)


def check(backend):
    for spatial, kernel_size, dilation in CASES:
        for with_bias in (False, True):
            found = []
            for name, dtype in ((backend, torch.float32), ("reference", torch.float64)):
                *qkv, bias = tensors(spatial, kernel_size, dtype)
                inputs = [*qkv, bias] if with_bias else qkv
                output = neighborhood_attention(
                    *qkv, kernel_size, dilation, inputs[3] if with_bias else None, backend=name
                )
                weight = torch.linspace(-1, 1, output.numel(), dtype=dtype).view(output.shape)
                found.append([output, *torch.autograd.grad((output * weight).sum(), inputs)])
            for actual, expected in zip(*found, strict=True):
                assert actual.dtype == torch.float32 and actual.device.type == "cpu" and not actual.is_inference()
                torch.testing.assert_close(actual.double(), expected, atol=1e-4, rtol=1e-4)
    assert create_attention_mask(3, 12).to_dense().sum() == 1


# --- Circumstances ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def within(*contexts):
    def surround(backend):
        with contextlib.ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context())
            call(backend)

    return surround


def elsewhere(surround):
    return lambda backend: concurrent.futures.ThreadPoolExecutor(1).submit(surround, backend).result()


def each(use):
    """Something is done with each case, as a function of one tensor that is query, key and value."""

    def function(x, *case):
        return neighborhood_attention(x, x, x, *case)

    def surround(backend):
        for spatial, kernel_size, dilation in CASES:
            case = (kernel_size, dilation, None, None, backend)
            use(lambda x, case=case: function(x, *case), tensors(spatial, kernel_size)[0].detach())

    return surround


def on_meta(backend):
    for spatial, kernel_size, dilation in CASES:
        query, key, value, bias = (x.detach().to("meta").requires_grad_() for x in tensors(spatial, kernel_size))
        neighborhood_attention(query, key, value, kernel_size, dilation, bias).sum().backward()
        output = neighborhood_attention(query, key, value, kernel_size, dilation)
        output.sum().backward()
        assert output.is_meta and output.shape == query.shape == query.grad.shape and bias.grad.is_meta


SURROUNDINGS = {
    "meta as the default device": within(lambda: torch.device("meta")),
    "meta tensors": on_meta,
    "fake tensors": within(FakeTensorMode),
    "inference mode": within(torch.inference_mode),
    "no grad": within(torch.no_grad),
    "float64": within(lambda: default_dtype(torch.float64)),
    "bfloat16": within(lambda: default_dtype(torch.bfloat16)),
    "float16": within(lambda: default_dtype(torch.float16)),
    "deterministic": within(deterministic),
    "autocast": within(lambda: torch.autocast("cpu", torch.bfloat16)),
    "another thread": elsewhere(call),
    "another thread in inference mode": elsewhere(within(torch.inference_mode, lambda: torch.device("meta"))),
    "torch.func.grad": each(lambda f, x: torch.func.grad(lambda y: torch.func.grad(lambda z: f(z).sum())(y).sum())(x)),
    "torch.func.vmap": each(lambda f, x: torch.func.vmap(f)(x[None])),
    "torch.func.jvp": each(lambda f, x: torch.func.jvp(f, (x,), (x,))),
    "make_fx": each(lambda f, x: make_fx(lambda y: f(y))(x)),
    "tracing": each(lambda f, x: torch.jit.trace(lambda y: f(y), x, check_trace=False)),
}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=needs_cpp)])
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_surroundings_leave_nothing_behind(name, backend):
    for cache in CACHES:
        cache.cache_clear()
    SURROUNDINGS[name](backend)
    check(backend)


@needs_cpp
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_gradients_of_kernels_do_not_follow_the_default_dtype(dtype):
    with default_dtype(dtype):
        check("cpp")


def test_kept_once_and_not_while_something_looks():
    made = []

    @cached_tensors(maxsize=2)
    def make(length):
        """Zeros."""
        made.append(length)
        return torch.zeros(length, device="cpu")

    assert make.__doc__ == "Zeros."
    with torch.inference_mode():
        first = make(3)
    assert make(3) is first and not first.is_inference() and made == [3]
    with FakeTensorMode() as mode:
        assert make(4).fake_mode is mode
    torch.func.vmap(lambda x: x + make(5).sum())(torch.zeros(2))
    assert not hasattr(make(4), "fake_mode") and made == [3, 4, 5, 4]
    assert make(5) is make(5) and made == [3, 4, 5, 4, 5]


@needs_cpp
class TestBoundary:
    """No call reaches the compiled kernels with a tensor that is not what they take for granted."""

    def run(self, replace, index):
        q = torch.zeros(1, 5, 6, 2, 4)
        tensors = [q.clone() for _ in range(4)]
        tensors[index] = replace(tensors[index])
        backend_cpp.run("eyetoy_forward", tensors, (3, 3), (1, 1), 0.5, None)

    @pytest.mark.parametrize("index", range(4))
    @pytest.mark.parametrize(
        ("replace", "message"),
        [
            (lambda x: x.double(), "torch.float64"),
            (lambda x: x.bfloat16(), "torch.bfloat16"),
            (lambda x: x.to("meta"), "on meta"),
            (lambda x: x.to_sparse(), "torch.sparse_coo"),
            (lambda x: torch._neg_view(x), "negative bit"),
            (lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2), "last stride of 1"),
            (lambda x: x[:, :4], r"shape \(1, 5, 6, 2, 4\)"),
            (lambda x: x[..., :1], r"shape \(1, 5, 6, 2, 4\)"),
        ],
    )
    def test_refuses(self, replace, message, index):
        if index == 0 and message.startswith("shape"):
            index = 1  # the query gives the shape
        with pytest.raises(TypeError, match=message):
            self.run(replace, index)

    @pytest.mark.parametrize("bias", [torch.zeros(2, 5, 4), torch.zeros(1, 5, 5), torch.zeros(2, 5, 5).double()])
    def test_refuses_a_bias(self, bias):
        q = torch.zeros(1, 5, 6, 2, 4)
        with pytest.raises(TypeError, match="the kernels take"):
            backend_cpp.run("eyetoy_forward", [q] * 4, (3, 3), (1, 1), 0.5, bias)
        with pytest.raises(TypeError, match="the kernels take"):
            backend_cpp.run("eyetoy_backward", [q] * 7, (3, 3), (1, 1), 0.5, None, bias)
        with pytest.raises(TypeError, match="contiguous bias"):
            backend_cpp.run(
                "eyetoy_forward", [q] * 4, (3, 3), (1, 1), 0.5, torch.zeros(2, 5, 5).transpose(1, 2)[:, ::1]
            )

    def test_takes_views_of_any_kind(self):
        z = torch.randn(2, 6, 7, 2, 8, dtype=torch.complex64)
        q, k, v = z.conj().imag, z.imag, z.real.flip(1)  # negative bit, strides of 2
        assert q.is_neg()
        expected = neighborhood_attention(*(x.double() for x in (q, k, v)), 3, backend="reference")
        torch.testing.assert_close(
            neighborhood_attention(q, k, v, 3, backend="cpp").double(), expected, atol=1e-5, rtol=1e-4
        )
