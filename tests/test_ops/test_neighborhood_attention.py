"""Every back end against the reference, and the reference against literal neighborhoods and dense attention."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyetoy_mm.ops import available_backends, backend_cpp, backend_reference, neighborhood_attention
from eyetoy_mm.ops.backend_reference import attended
from eyetoy_mm.ops.neighborhood import Axis, Neighborhood

pytestmark = pytest.mark.usefixtures("forms")
needs_cpp = pytest.mark.skipif(isinstance(backend_cpp.KERNELS, str), reason=str(backend_cpp.KERNELS))
TRAINABLE = [("torch", torch.float64), pytest.param("cpp", torch.float32, marks=needs_cpp)]

CASES = [  # spatial, kernel_size, dilation
    ((1,), 3, 1),
    ((9,), 4, 1),
    ((17,), 5, 3),
    ((1, 1), 7, 1),
    ((8, 4), 3, 1),
    ((4, 8), 4, 1),
    ((5, 7), (3, 9), 1),
    ((19, 21), 7, 1),
    ((13, 11), 3, (4, 2)),
    ((6, 6), 5, 3),
    ((2, 9), 2, 5),
    ((3, 4, 5), 3, 1),
    ((5, 3, 6), (2, 3, 4), (2, 1, 1)),
]


def qkv(spatial, heads=2, dim=8, batch=2, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *spatial, heads, dim)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for _ in range(3)]


def test_windows_shift_at_borders_and_even_kernels_lean_left():
    assert [list(Axis(6, 3).keys(i)) for i in range(6)] == [
        [0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [3, 4, 5],
    ]  # fmt: skip
    assert [list(Axis(6, 4).keys(i)) for i in range(6)] == [
        [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [2, 3, 4, 5],
    ]  # fmt: skip


def test_windows_with_dilation_stay_in_their_group_and_clamp_to_it():
    assert [list(Axis(7, 2, 3).keys(i)) for i in range(7)] == [[0, 3], [1, 4], [2, 5], [0, 3], [1, 4], [2, 5], [3, 6]]
    assert [list(Axis(7, 3, 3).keys(i)) for i in range(7)] == [
        [0, 3, 6], [1, 4], [2, 5], [0, 3, 6], [1, 4], [2, 5], [0, 3, 6],
    ]  # fmt: skip
    assert [list(Axis(2, 3, 4).keys(i)) for i in range(2)] == [[0], [1]]


def test_reference_is_dense_attention_under_a_literal_mask():
    q, k, v = qkv((2, 3), heads=1)
    mask = torch.zeros(6, 6, dtype=torch.bool)
    for (r, c), (rr, cc) in itertools.product(itertools.product(range(2), range(3)), repeat=2):
        # kernel 2 in 2 rows: all rows; kernel 2 in 3 columns: [0, 1], [0, 1], [1, 2]
        mask[3 * r + c, 3 * rr + cc] = cc in ([0, 1], [0, 1], [1, 2])[c]
    dense = [x.flatten(1, 2).transpose(1, 2) for x in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*dense, attn_mask=mask).transpose(1, 2)
    torch.testing.assert_close(neighborhood_attention(q, k, v, 2, backend="reference").flatten(1, 2), expected)


@pytest.mark.parametrize(("backend", "dtype"), TRAINABLE)
@pytest.mark.parametrize(("spatial", "kernel_size", "dilation"), CASES)
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_reference_in_value_and_gradient(backend, dtype, spatial, kernel_size, dilation, with_bias):
    inputs = qkv(spatial, dtype=dtype)
    if with_bias:
        kernel = (kernel_size,) * len(spatial) if isinstance(kernel_size, int) else kernel_size
        inputs.append(torch.randn(2, *(2 * k - 1 for k in kernel), dtype=dtype).requires_grad_())
    q, k, v, *bias = inputs
    bias = bias[0] if bias else None
    weight = torch.randn_like(q)
    results = []
    for name in (backend, "reference"):
        output = neighborhood_attention(q, k, v, kernel_size, dilation, bias, scale=0.3, backend=name)
        results.append([output, *torch.autograd.grad((output * weight).sum(), inputs)])
    tolerance = {} if dtype == torch.float64 else {"atol": 2e-5, "rtol": 1e-4}
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, **tolerance)


def dense(q, k, v, kernel_size):
    mask = torch.ones(1, 1, dtype=torch.bool)
    for length in q.shape[1:-2]:
        mask = torch.kron(mask, attended(Axis(length, kernel_size)))
    q, k, v = (x.flatten(1, -3).transpose(1, 2) for x in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=needs_cpp)])
@pytest.mark.parametrize(
    ("shape", "kernel_size"),
    [
        ((1, 56, 56, 2, 32), 17),
        ((2, 37, 61, 1, 16), 7),
        ((1, 28, 28, 2, 32), 25),
        ((1, 700, 2, 8), 33),
        ((1, 9, 17, 10, 1, 8), 5),
    ],
)
def test_equals_dense_attention_on_larger_maps(backend, shape, kernel_size):
    q, k, v = inputs = [torch.randn(shape, requires_grad=True) for _ in range(3)]
    weight = torch.randn(shape).flatten(1, -3)
    results = []
    for output in (
        neighborhood_attention(q, k, v, kernel_size, backend=backend).flatten(1, -3),
        dense(q, k, v, kernel_size),
    ):
        results.append([output, *torch.autograd.grad((output * weight).sum(), inputs)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-4)


@settings(max_examples=150, deadline=None)
@given(
    axes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 12), st.integers(1, 4)), min_size=1, max_size=2)
    | st.lists(st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 2)), min_size=3, max_size=3),
    with_bias=st.booleans(),
    transposed=st.booleans(),
    batch=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_torch_equals_reference_anywhere(axes, with_bias, transposed, batch, seed):
    spatial, kernel_size, dilation = zip(*axes, strict=True)
    inputs = qkv(spatial, seed=seed, dim=3, batch=batch)
    if with_bias:
        inputs.append(torch.randn(2, *(2 * k - 1 for k in kernel_size), dtype=torch.float64).requires_grad_())
    q, k, v, *bias = inputs
    bias = bias[0] if bias else None
    if transposed:  # not contiguous, and strides that differ
        k, v = (
            k.transpose(0, -1).contiguous().transpose(0, -1),
            v.flip(0).transpose(1, -2).contiguous().transpose(1, -2),
        )
    weight = torch.randn_like(q)
    results = []
    for backend in ("torch", "reference"):
        output = neighborhood_attention(q, k, v, kernel_size, dilation, bias, backend=backend)
        gradients = torch.autograd.grad(
            (output * weight).sum(), inputs, allow_unused=batch == 0, materialize_grads=batch == 0
        )
        results.append([output, *gradients])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_is_near_double(dtype):
    q, k, v = qkv((12, 10), dtype=torch.float64)
    expected = neighborhood_attention(q, k, v, 5, backend="reference")
    actual = neighborhood_attention(q.to(dtype), k.to(dtype), v.to(dtype), 5)
    assert actual.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=needs_cpp)])
def test_equals_natten(backend):
    natten = pytest.importorskip("natten", reason="natten is not installed")
    random = torch.Generator().manual_seed(0)

    def draw(low, high):
        return int(torch.randint(low, high + 1, (), generator=random))

    for number in range(60):
        ndim = 1 + number % 3
        kernel_size = tuple(draw(2, (9, 5, 3)[ndim - 1]) for _ in range(ndim))
        dilation = tuple(draw(1, 3) for _ in range(ndim))
        spatial = tuple(draw(k * d, k * d + 7) for k, d in zip(kernel_size, dilation, strict=True))
        q, k, v = (x.detach() for x in qkv(spatial, dim=8, batch=1, dtype=torch.float32, seed=number))
        expected = getattr(natten, f"na{ndim}d")(q, k, v, kernel_size=kernel_size, dilation=dilation)
        actual = neighborhood_attention(q, k, v, kernel_size, dilation, backend=backend)
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("backend", "dtype"), [*TRAINABLE, ("reference", torch.float64)])
@pytest.mark.parametrize(("heads", "key_heads", "dim", "value_dim"), [(6, 2, 4, 4), (2, 1, 8, 3), (4, 4, 2, 5)])
@pytest.mark.parametrize(("spatial", "kernel_size"), [((9,), 3), ((18, 17), 5), ((4, 4), 7), ((3, 4, 5), 3)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_grouped_heads_and_another_value_dim(
    backend, dtype, heads, key_heads, dim, value_dim, spatial, kernel_size, with_bias
):
    q = torch.randn(2, *spatial, heads, dim, dtype=dtype, requires_grad=True)
    k = torch.randn(2, *spatial, key_heads, dim, dtype=dtype, requires_grad=True)
    v = torch.randn(2, *spatial, key_heads, value_dim, dtype=dtype, requires_grad=True)
    bias = torch.randn(heads, *[2 * kernel_size - 1] * len(spatial), dtype=dtype, requires_grad=True)
    bias = bias if with_bias else None
    inputs = [q, k, v, *([bias] if with_bias else [])]
    weight = torch.randn(2, *spatial, heads, value_dim, dtype=dtype)
    output = neighborhood_attention(q, k, v, kernel_size, bias=bias, backend=backend)
    actual = [output, *torch.autograd.grad((output * weight).sum(), inputs)]
    # head by head, in double precision; the index of SDPA's and NATTEN's groups: consecutive heads share a key
    q, k, v, *table = [x.detach().double().requires_grad_() for x in inputs]
    group = heads // key_heads
    each = []
    for head in range(heads):
        own = [q[..., head : head + 1, :], k[..., head // group, None, :], v[..., head // group, None, :]]
        mask = torch.ones(1, 1, dtype=torch.bool)
        for length in spatial:
            mask = torch.kron(mask, attended(Axis(length, kernel_size)))
        scores = torch.einsum("bqd,bkd->bqk", own[0].flatten(1, -2), own[1].flatten(1, -2)) * dim**-0.5
        if table:
            one = table[0][head : head + 1]
            zero = torch.zeros(1, *spatial, 1, 1, dtype=torch.float64)
            index = backend_reference._bias_index(
                Neighborhood.of(spatial, (kernel_size,) * len(spatial), (1,) * len(spatial)), zero.device
            )
            scores = scores + one.flatten(1)[:, index]
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        each.append((weights @ own[2].flatten(1, -2)).view(2, *spatial, 1, value_dim))
    output = torch.cat(each, dim=-2)
    expected = [output, *torch.autograd.grad((output * weight.double()).sum(), [q, k, v, *table])]
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a.double(), e, **({} if dtype == torch.float64 else {"atol": 3e-5, "rtol": 1e-4}))


@pytest.mark.parametrize("backend", [None, "torch", pytest.param("cpp", marks=needs_cpp)])
@pytest.mark.parametrize("value_dim", [257, 600])
def test_values_wider_than_any_head(backend, value_dim):
    """The kernels of a back end may be for a head dim of at most 256; what it takes of queries it takes of values."""
    x = torch.randn(1, 4, 3, 2, 4)

    def orders(dtype, backend):
        q = x.to(dtype).requires_grad_()
        v = torch.linspace(-2, 2, value_dim, dtype=dtype) * q.sum(-1, keepdim=True)
        output = neighborhood_attention(q, q.sin(), v, 3, bias=torch.ones(2, 5, 5, dtype=dtype), backend=backend)
        (first,) = torch.autograd.grad(output.pow(2).mean(), q, create_graph=True)
        return output, first, *torch.autograd.grad(first.pow(2).sum(), q)

    for actual, expected in zip(orders(torch.float32, backend), orders(torch.float64, "reference"), strict=True):
        torch.testing.assert_close(actual.double(), expected, atol=1e-4, rtol=1e-4)


def test_far_keys_have_no_influence():
    q, k, v = qkv((9, 9))
    before = neighborhood_attention(q, k, v, 3)[:, 4, 4]
    k2, v2 = k.detach().clone(), v.detach().clone()
    k2[:, 0], v2[:, 0], k2[:, :, 6], v2[:, :, 6] = 1e4, 1e4, -1e4, 1e4
    torch.testing.assert_close(neighborhood_attention(q, k2, v2, 3)[:, 4, 4], before, rtol=0, atol=0)


def test_backends_say_why_not():
    q, k, v = qkv((4, 4))
    answer = available_backends(q, 3)
    assert list(answer) == ["cpp", "triton", "natten", "torch", "flex", "reference"]
    assert answer["torch"] is None and "CUDA" in answer["natten"] and "CUDA" in answer["flex"]
    with pytest.raises(RuntimeError, match=r"'natten' cannot run .* CUDA"):
        neighborhood_attention(q, k, v, 3, backend="natten")
    with pytest.raises(ValueError, match="unknown back end 'tpu'"):
        neighborhood_attention(q, k, v, 3, backend="tpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be an int >= 1.*got 0"),
        ({"kernel_size": (3, 3, 3)}, r"kernel_size .* 2 spatial axes"),
        ({"kernel_size": 3.0}, r"kernel_size must be an int >= 1.*got 3.0"),
        ({"kernel_size": None}, r"kernel_size must be an int >= 1.*got None"),
        ({"kernel_size": True}, r"kernel_size must be an int >= 1.*got True"),
        ({"kernel_size": (3, "3")}, r"kernel_size must be an int >= 1"),
        ({"kernel_size": 3, "dilation": 0}, "dilation must be an int >= 1"),
        ({"kernel_size": 3, "bias": torch.zeros(2, 5, 4)}, r"\(2, 5, 5\), got \(2, 5, 4\)"),
        (
            {"kernel_size": 3, "bias": torch.zeros(2, 5, 5, dtype=torch.long)},
            "bias must have .* torch.int64",
        ),
        (
            {"kernel_size": 3, "bias": torch.zeros(2, 5, 5).to(torch.float8_e5m2)},
            "bias must have .*float8_e5m2 on cpu",
        ),
        (
            {"kernel_size": 3, "bias": torch.zeros(2, 5, 5, device="meta")},
            "bias must have a dtype of .* and be on cpu, .* on meta",
        ),
        *(
            ({"kernel_size": 3, "scale": scale}, "scale must be a finite number or None, got")
            for scale in ("a", True, math.nan, -math.inf, 10**400, [1], torch.tensor(1.0))
        ),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        neighborhood_attention(*qkv((4, 4)), **arguments)


def test_integers_of_numpy_are_integers():
    numpy = pytest.importorskip("numpy")
    q, k, v = qkv((5, 6))
    expected = neighborhood_attention(q, k, v, (3, 5), 1)
    sizes = numpy.array([3, 5])
    torch.testing.assert_close(neighborhood_attention(q, k, v, tuple(sizes), numpy.int64(1)), expected)


def test_bad_shapes_are_named():
    q, k, v = qkv((4, 4))
    with pytest.raises(ValueError, match=r"the map of query.*key \(2, 2, 4, 2, 8\)"):
        neighborhood_attention(q, k[:, :2], v, 3)
    with pytest.raises(ValueError, match="value the heads of key"):
        neighborhood_attention(q, k, v[..., :1, :], 3)
    with pytest.raises(ValueError, match="heads of key must divide those of query, got 2 for 3"):
        neighborhood_attention(q[..., :1, :].repeat(1, 1, 1, 3, 1), k, v, 3)
    with pytest.raises(ValueError, match="head_dim must be at least 1"):
        neighborhood_attention(q[..., :0], k[..., :0], v, 3)
    with pytest.raises(ValueError, match="one dtype of float16, bfloat16, float32 and float64"):
        neighborhood_attention(q, k.float(), v, 3)
    for tensors, name in (((None, k, v), "query"), ((q, k.detach().numpy(), v), "key"), ((q, k, [v]), "value")):
        with pytest.raises(TypeError, match=f"{name} must be a tensor, got"):
            neighborhood_attention(*tensors, 3)
    nested = torch.nested.nested_tensor([v[0], v[0]])
    for other, kind in ((v.detach().to_sparse(), "the layout torch.sparse_coo"), (nested, "a nested one")):
        with pytest.raises(TypeError, match=f"value must be a dense tensor, got {kind}"):
            neighborhood_attention(q, k, other, 3)
    with pytest.raises(ValueError, match="one device, got cpu, meta and cpu"):
        neighborhood_attention(q, k.to("meta"), v, 3)
    with pytest.raises(ValueError, match="1 to 3 spatial axes"):
        neighborhood_attention(q[0, 0], k[0, 0], v[0, 0], 3)
