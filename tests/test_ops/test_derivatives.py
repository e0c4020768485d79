"""Derivatives of every order, in either direction and under torch.func's transforms, against the reference's.

What counts is that query, key and value have a common origin: a gradient with respect to one of them must not go around
through what made it. ``gradgradcheck`` does not see that, for its inputs have no history.
"""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, functionalize, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.utils.flop_counter import FlopCounterMode

from eyetoy_mm.ops import backend_cpp, neighborhood_attention, token_attention

needs_cpp = pytest.mark.skipif(isinstance(backend_cpp.KERNELS, str), reason=str(backend_cpp.KERNELS))
DTYPES = {"torch": torch.float64, "cpp": torch.float32, "reference": torch.float64}
BACKENDS = ["torch", pytest.param("cpp", marks=needs_cpp), "reference"]

# How query, key and value come from one x (B, H, W, heads, 4).
ORIGINS = {
    "one tensor": lambda x: (x, x, x),
    "projections": lambda x: (x, x @ _matrix(x, 1), x @ _matrix(x, 2)),
    "shared key and value": lambda x: (x, x @ _matrix(x, 1), x @ _matrix(x, 1)),
    "key of the query": lambda x: (x @ _matrix(x, 1), (x @ _matrix(x, 1)).tanh(), x),
    "views of one": lambda x: torch.cat([x, x.sin(), x.cos()], -1).chunk(3, -1),
    "constant key": lambda x: (x, _matrix(x, 3)[0, 0].expand_as(x), x.tanh()),
}


MATRICES = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _matrix(x, index):
    return MATRICES[index].to(x)


def a_map(backend, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(DTYPES[backend])


def a_bias(backend, heads=2):
    return a_map(backend, heads, 5, 5, seed=5)


def loss(backend, origin="projections", bias=None):
    """A function of x that is not linear in the output."""

    def function(x, own_bias=bias):
        return neighborhood_attention(*ORIGINS[origin](x), 3, (1, 2), own_bias, backend=backend).pow(3).sum()

    return function


def agree(backend, actual, expected):
    """Within the precision of the back end, whatever the size of the numbers."""
    actual, expected = (torch.utils._pytree.tree_leaves(found) for found in (actual, expected))
    for a, e in zip(actual, expected, strict=True):
        scale = float(e.detach().abs().max())
        assert scale > 0
        tolerance = (1e-9 if DTYPES[backend] == torch.float64 else 1e-4) * scale
        torch.testing.assert_close(a.double(), e.double(), atol=tolerance, rtol=0)


def orders(function, x):
    """The first three derivatives along a direction, each of the graph of the one before."""
    x = x.detach().requires_grad_()
    found = [function(x)]
    for _ in range(3):
        found += torch.autograd.grad(found[-1].square().sum(), x, create_graph=True)
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(
    "spatial", [(4, 5), (18, 17)], ids=str
)  # the torch back end has a way of its own for small maps
def test_orders_with_a_common_origin(backend, origin, with_bias, spatial):
    x = a_map(backend, 1, *spatial, 2, 4)
    bias = a_bias(backend) if with_bias else None
    expected = orders(loss("reference", origin, None if bias is None else bias.double()), x.double())
    agree(backend, orders(loss(backend, origin, bias), x), expected)


def test_the_reference_has_the_right_gradients():
    x = a_map("reference", 1, 3, 4, 1, 2)
    ORIGINS["two"] = lambda x: (x, x.tanh(), x * 2)
    try:
        assert torch.autograd.gradcheck(loss("reference", "two"), x.requires_grad_())
        assert torch.autograd.gradgradcheck(loss("reference", "two"), x)
    finally:
        del ORIGINS["two"]


def test_a_gradient_is_three_times_nothing():
    """Query, key and value are one tensor: its gradient is the sum of theirs, once."""
    x = a_map("torch", 1, 5, 6, 2, 4).requires_grad_()
    copies = [x.detach().clone().requires_grad_() for _ in range(3)]
    neighborhood_attention(*copies, 3, backend="torch").pow(2).sum().backward()
    neighborhood_attention(x, x, x, 3, backend="torch").pow(2).sum().backward(create_graph=True)
    torch.testing.assert_close(x.grad.detach(), sum(copy.grad for copy in copies))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_penalty_trains_a_bias(backend):
    """A second derivative with respect to one input of the first derivative with respect to another."""

    def penalty(backend, dtype):
        x, bias = (y.to(dtype).requires_grad_() for y in (a_map("torch", 2, 6, 7, 2, 4), a_bias("torch")))
        (first,) = torch.autograd.grad(loss(backend, "views of one", bias)(x), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), bias)

    agree(backend, penalty(backend, DTYPES[backend]), penalty("reference", torch.float64))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("with_bias", [False, True])
def test_orders_of_what_is_recomputed(backend, with_bias):
    """Gradient checkpointing hands out what was saved only once."""
    x = a_map(backend, 1, 18, 17, 2, 4)
    function = loss(backend, bias=a_bias(backend) if with_bias else None)

    def recomputed(x):
        return torch.utils.checkpoint.checkpoint(function, x, use_reentrant=False)

    agree(backend, orders(recomputed, x), orders(function, x))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_gradient_that_is_recomputed_or_kept_elsewhere(backend, with_bias):
    """As the forces of an energy are: checkpointing hands out what the gradient saved only once, too."""
    x = a_map(backend, 1, 18, 17, 2, 4)
    function = loss(backend, bias=a_bias(backend) if with_bias else None)

    def force(x):
        return torch.autograd.grad(function(x), x, create_graph=True)[0]

    def recomputed(x):
        return torch.utils.checkpoint.checkpoint(force, x, use_reentrant=False)

    agree(backend, orders(recomputed, x)[1:3], orders(force, x)[1:3])
    with torch.autograd.graph.save_on_cpu():
        agree(backend, orders(function, x), orders(function, x.clone()))


# --- Forward mode -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=needs_cpp)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_backward_pass_within_autocast_is_that_without(backend, with_bias):
    """What is computed again there is the forward pass' own, and no product of it is rounded to 16 bits."""
    inputs = [(3 * x).requires_grad_() for x in torch.randn(3, 1, 17, 18, 1, 8)]
    bias = torch.randn(1, 5, 5, requires_grad=True) if with_bias else None
    leaves = [*inputs, bias] if with_bias else inputs
    found = []
    for within in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            output = neighborhood_attention(*inputs, 3, bias=bias, backend=backend).float()
        with torch.autocast("cpu", torch.bfloat16, enabled=within):
            first = torch.autograd.grad(output.square().sum(), leaves, create_graph=True)
            found.append([*first, *torch.autograd.grad(sum(x.square().sum() for x in first), leaves)])
    for outside, inside in zip(*found, strict=True):
        assert torch.equal(outside, inside)


def dual(function, x, mode):
    with mode(), forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(x, x.cos()))).tangent


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
@pytest.mark.parametrize("spatial", [(4, 5), (18, 17)], ids=str)
def test_forward_mode_keeps_the_tangent(backend, with_bias, mode, spatial):
    x = a_map(backend, 1, *spatial, 2, 4)
    bias = a_bias(backend) if with_bias else None
    function = loss(backend, bias=bias)
    (gradient,) = torch.autograd.grad(loss("reference", bias=bias)(y := x.detach().requires_grad_()), y)
    expected = (gradient * x.cos()).sum()
    agree(backend, dual(function, x, mode), expected)
    with mode():
        agree(backend, jvp(function, (x,), (x.cos(),))[1], expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_forward_mode_over_reverse_mode(backend):
    x = a_map(backend, 1, 5, 6, 2, 4)
    products = []
    for name in (backend, "reference"):
        y = x.detach().requires_grad_()
        with forward_ad.dual_level():
            output = loss(name, bias=a_bias(backend))(forward_ad.make_dual(y, x.cos()))
            products.append(forward_ad.unpack_dual(torch.autograd.grad(output, y)[0]).tangent)
    agree(backend, *products)


# --- torch.func -------------------------------------------------------------------------------------------------------


TRANSFORMS = {
    "grad": lambda f: grad(f),
    "vjp": lambda f: lambda x: vjp(f, x)[1](torch.ones((), dtype=x.dtype)),
    "jvp": lambda f: lambda x: jvp(f, (x,), (x.cos(),)),
    "jvp of grad": lambda f: lambda x: jvp(grad(f), (x,), (x.cos(),)),
    "grad of jvp": lambda f: grad(lambda x: jvp(f, (x,), (x.cos(),))[1]),
    "functionalized": lambda f: functionalize(f),
    "functionalized grad": lambda f: functionalize(grad(f)),
    "grad of functionalized": lambda f: grad(functionalize(f)),
    "grad of grad": lambda f: grad(lambda x: grad(f)(x).square().sum()),
    "vmap": lambda f: lambda x: vmap(f)(torch.stack([x, x.sin(), x.cos()])),
    "vmap of grad": lambda f: lambda x: vmap(grad(f))(torch.stack([x, x.sin(), x.cos()])),
    "vmap of vmap of grad": lambda f: lambda x: vmap(vmap(grad(f)))(torch.stack([x, x.sin()]).unsqueeze(1)),
    "vmap of jvp of grad": lambda f: (
        lambda x: vmap(lambda y: jvp(grad(f), (y,), (y.cos(),)))(torch.stack([x, x.sin()]))
    ),
    "grad of vmap": lambda f: grad(lambda x: vmap(f, in_dims=1)(torch.stack([x, x.sin()], 1)).square().sum()),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("spatial", [(4, 5), (18, 17)], ids=str)
def test_transforms(backend, transform, with_bias, spatial):
    x = a_map(backend, 1, *spatial, 2, 4)
    bias = a_bias(backend) if with_bias else None
    double = None if bias is None else bias.double()
    actual = TRANSFORMS[transform](loss(backend, bias=bias))(x)
    agree(backend, actual, TRANSFORMS[transform](loss("reference", bias=double))(x.double()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("of_x", "of_bias"), [(0, 0), (0, None), (None, 0), (2, 1)])
def test_vmap_over_maps_and_biases(backend, of_x, of_bias):
    """A gradient of the bias for each entry, also where all have the same bias."""
    x, bias = a_map(backend, 1, 4, 5, 2, 4), a_bias(backend)
    xs = x if of_x is None else torch.stack([x, x.sin(), x.cos()], of_x)
    biases = bias if of_bias is None else torch.stack([bias, bias.sin(), bias.cos()], of_bias)
    mapped = vmap(grad(loss(backend), argnums=(0, 1)), in_dims=(of_x, of_bias))(xs, biases)
    for index in range(3):
        one = [y if dim is None else y.select(dim, index) for y, dim in ((xs, of_x), (biases, of_bias))]
        leaves = [y.detach().double().requires_grad_() for y in one]
        expected = torch.autograd.grad(loss("reference")(*leaves), leaves)
        agree(backend, [found[index] for found in mapped], expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "twice", [hessian, lambda f: jacrev(jacrev(f)), lambda f: jacfwd(jacfwd(f)), lambda f: jacrev(jacfwd(f))]
)
@pytest.mark.parametrize("with_bias", [False, True])
def test_hessians(backend, twice, with_bias):
    x = a_map(backend, 1, 2, 3, 1, 4)
    bias = a_bias(backend, heads=1) if with_bias else None
    y = x.double()
    double = None if bias is None else bias.double()
    expected = torch.autograd.functional.hessian(loss("reference", bias=double), y)
    agree(backend, twice(loss(backend, bias=bias))(x), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients_that_autograd_batches(backend, with_bias):
    """``is_grads_batched`` maps over gradients in a way of its own, and ``vectorize`` by it."""
    x = a_map(backend, 1, 2, 3, 1, 4)
    bias = a_bias(backend, heads=1) if with_bias else None
    function, y = loss(backend, bias=bias), x.detach().requires_grad_()
    expected = loss("reference", bias=None if bias is None else bias.double())
    (first,) = torch.autograd.grad(expected(z := x.double().requires_grad_()), z, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), z)
    factors = torch.tensor([1, -2], dtype=x.dtype)
    (mapped,) = torch.autograd.grad(function(y), y, factors, is_grads_batched=True, create_graph=True)
    agree(backend, mapped, torch.stack([first, -2 * first]))
    agree(backend, torch.autograd.grad(mapped.square().sum(), y), [5 * second])
    agree(
        backend,
        torch.autograd.functional.hessian(function, x, vectorize=True),
        torch.autograd.functional.hessian(expected, x.double()),
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_vmap_over_nothing(backend):
    """As over a batch of none: empty, and zero for what all entries share."""
    xs, bias = a_map(backend, 0, 1, 4, 5, 2, 4), a_bias(backend)
    assert vmap(grad(loss(backend)))(xs).shape == xs.shape
    of_x, of_bias = vmap(grad(loss(backend), argnums=(0, 1)), in_dims=(0, None))(xs, bias)
    assert of_x.shape == xs.shape and of_bias.shape == (0, *bias.shape)
    assert not grad(lambda bias: vmap(loss(backend), in_dims=(0, None))(xs, bias).sum())(bias).any()


@pytest.mark.parametrize("backend", BACKENDS[:2])
def test_transforms_within_a_compiled_function(backend):
    x = a_map(backend, 3, 1, 5, 6, 2, 4)

    def per_sample(x):
        return vmap(grad(loss(backend)))(x)

    compiled = torch.compile(per_sample, backend="aot_eager", fullgraph=True)
    agree(backend, compiled(x), per_sample(x))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kernel_size", [3, 9])
@pytest.mark.parametrize("spatial", [(4, 5), (18, 17)], ids=str)
@pytest.mark.parametrize("with_bias", [False, True])
def test_linearize(backend, kernel_size, spatial, with_bias):
    """A trace in forward mode; the nodes that a trace has otherwise would lose the tangent without a word."""
    x = a_map(backend, 1, *spatial, 2, 4)
    bias = a_map(backend, 2, *[2 * kernel_size - 1] * 2, seed=5) if with_bias else None

    def function(x):
        return neighborhood_attention(x, x.tanh(), x * 2, kernel_size, bias=bias, backend=backend).pow(3).sum()

    output, along = linearize(function, x)
    expected, tangent = jvp(function, (x,), (x.cos(),))
    agree(backend, (output, along(x.cos())), (expected, tangent))


@pytest.mark.parametrize("backend", BACKENDS[:2])
def test_transforms_while_operations_are_counted(backend):
    x = a_map(backend, 2, 1, 18, 17, 2, 4)
    function = loss(backend)
    expected = [vmap(grad(function))(x), jvp(function, (x[0],), (x[0].cos(),)), dual(function, x[0], torch.no_grad)]
    with FlopCounterMode(display=False):
        found = [vmap(grad(function))(x), jvp(function, (x[0],), (x[0].cos(),)), dual(function, x[0], torch.no_grad)]
    agree(backend, found, expected)


def test_token_attention_under_transforms():
    x = a_map("reference", 1, 7, 2, 4)

    def split(x):
        return token_attention(x, x.tanh(), x * 2, 3).pow(3).sum()

    def masked(x):  # the definition
        positions = torch.arange(7)
        mask = (positions[:, None] < 3) | (positions < 3) | (positions[:, None] == positions)
        q, k, v = (y.transpose(1, 2) for y in (x, x.tanh(), x * 2))
        weights = (q @ k.transpose(-2, -1) * 0.5).masked_fill(~mask, -torch.inf).softmax(-1)
        return (weights @ v).pow(3).sum()

    for name, transform in TRANSFORMS.items():
        actual, expected = transform(split)(x), transform(masked)(x)
        for a, e in zip(*map(torch.utils._pytree.tree_leaves, (actual, expected)), strict=True):
            torch.testing.assert_close(a, e, msg=lambda text, name=name: f"{name}: {text}")
    torch.testing.assert_close(hessian(split)(x), hessian(masked)(x))


# --- Models -----------------------------------------------------------------------------------------------------------


def models():
    pytest.importorskip("mmengine", reason="mmengine is not installed")
    from eyetoy_mm.backbones import NAT, EyeToy

    torch.manual_seed(3)
    eyetoy = EyeToy(
        arch=dict(
            embed_dims=(8, 16), depths=(1, 1), num_heads=(1, 1), windows=((5, 3), (3,)), merging=((1, 2), (1,)),
            global_layers=1, global_heads=2, register_tokens=2, stem_stride=2,
        )
    )  # fmt: skip
    return {
        "EyeToy": eyetoy,
        "NAT": NAT(None, embed_dims=8, depths=(1, 1), num_heads=(2, 2), kernel_size=3, mlp_ratio=2),
    }


@pytest.mark.parametrize("name", ["EyeToy", "NAT"])
def test_models_under_transforms(name):
    model = models()[name].double().eval()
    parameters = {key: x.detach() for key, x in model.named_parameters()}
    images = torch.randn(2, 3, 13, 11, dtype=torch.float64)

    def loss_of(parameters, images):
        maps = functional_call(model, parameters, (images,))
        return sum((y.pow(3) * torch.linspace(-1, 2, y[0].numel()).view(y.shape[1:])).sum() for y in maps)

    def ordinary(images):
        leaves = {key: x.clone().requires_grad_() for key, x in parameters.items()}
        found = torch.autograd.grad(loss_of(leaves, images), list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, found, strict=True))

    torch.testing.assert_close(grad(loss_of)(parameters, images), ordinary(images))
    per_sample = vmap(grad(loss_of), in_dims=(None, 0))(parameters, images[:, None])
    expected = [ordinary(image[None]) for image in images]
    torch.testing.assert_close(per_sample, {key: torch.stack([one[key] for one in expected]) for key in parameters})

    tangents = {key: torch.randn_like(x) for key, x in parameters.items()}
    _, along = jvp(lambda p: loss_of(p, images), (parameters,), (tangents,))
    whole = ordinary(images)
    torch.testing.assert_close(along, sum((whole[key] * tangents[key]).sum() for key in parameters))

    direction = torch.randn_like(images)
    leaf = images.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss_of(parameters, leaf), leaf, create_graph=True)
    (second,) = torch.autograd.grad((first * direction).sum(), leaf)
    _, forward = jvp(grad(lambda x: loss_of(parameters, x)), (images,), (direction,))
    torch.testing.assert_close(second, forward)
    step = 1e-5  # and both are the difference of first derivatives
    ends = [
        torch.autograd.grad(loss_of(parameters, y := (images + s * direction).requires_grad_()), y)[0]
        for s in (step, -step)
    ]
    torch.testing.assert_close(
        second, (ends[0] - ends[1]) / (2 * step), atol=1e-5 * float(second.abs().max()), rtol=1e-4
    )
