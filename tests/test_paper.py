"""Every block against the equations of docs/architecture.md, restated position by position and head by head.

The restatement shares nothing with the package: it reads the weights by their names in the state dict and its numbers
from the params, and keeps a map as a plain ``{position: vector}``, so that no layout, view or kernel can be wrong in
the same way on both sides. Source: docs/architecture.md, sections 3 to 11.
"""

import copy
import math
from functools import partial
from itertools import product

import pytest
import torch

from eyetoy_mm.encoder import Encoder1D, Encoder2D, Encoder3D
from eyetoy_mm.layers import (
    FeedForward,
    GlobalAttentionStack,
    GlobalAttentionTransformer,
    MSNATTransformer1D,
    MSNATTransformer2D,
    MSNATTransformer3D,
    MultiScaleMultiHeadNA1D,
    MultiScaleMultiHeadNA2D,
    MultiScaleMultiHeadNA3D,
    PositionalEmbedding1D,
    PositionalEmbedding2D,
    PositionalEmbedding3D,
    SharedScaleNA1D,
    SharedScaleNA2D,
    SharedScaleNA3D,
)
from eyetoy_mm.params import (
    ConvParams,
    EncoderParams,
    GlobalAttentionTransformerParams,
    HeadParams,
    MultiHeadAttentionParams,
    NeighborhoodAttentionParams,
    TransformerParams,
)

EMBEDDING = {1: PositionalEmbedding1D, 2: PositionalEmbedding2D, 3: PositionalEmbedding3D}
GROUP = {1: SharedScaleNA1D, 2: SharedScaleNA2D, 3: SharedScaleNA3D}
ATTENTION = {1: MultiScaleMultiHeadNA1D, 2: MultiScaleMultiHeadNA2D, 3: MultiScaleMultiHeadNA3D}
BLOCK = {1: MSNATTransformer1D, 2: MSNATTransformer2D, 3: MSNATTransformer3D}
ENCODER = {1: Encoder1D, 2: Encoder2D, 3: Encoder3D}

# Odd, not square, and with axes of a single position.
SIZES = [(1,), (8,), (11,), (1, 5), (5, 7), (6, 3), (3, 5, 2), (1, 4, 3)]
at_every_size = pytest.mark.parametrize("size", SIZES, ids=["x".join(map(str, size)) for size in SIZES])


# --- maps as {position: vector} ---------------------------------------------------------------------------------------


def positions(size):
    """All positions of a map, as tuples, the last axis fastest."""
    return list(product(*(range(n) for n in size)))


def to_map(x):
    """``(*spatial, C)`` -> {position: vector}."""
    return {p: x[p] for p in positions(x.shape[:-1])}


def size_of(x):
    return tuple(max(p[axis] for p in x) + 1 for axis in range(len(next(iter(x)))))


def to_tensor(x):
    """{position: vector} -> ``(*spatial, C)``."""
    return torch.stack([x[p] for p in positions(size_of(x))]).view(*size_of(x), -1)


# --- the equations ----------------------------------------------------------------------------------------------------


class Weights:
    """The weights of one part of a module, by their names in its state dict."""

    def __init__(self, tensors, prefix=""):
        self.tensors, self.prefix = tensors, prefix

    def __getitem__(self, name):
        return self.tensors[self.prefix + name]

    def of(self, part):
        return Weights(self.tensors, f"{self.prefix}{part}.")


def linear(vector, w):
    return (w["weight"] * vector).sum(dim=1) + w["bias"]


def layer_norm(vector, w):
    mean = vector.sum() / len(vector)
    variance = ((vector - mean) ** 2).sum() / len(vector)
    return (vector - mean) / (variance + 1e-5).sqrt() * w["weight"] + w["bias"]


def softmax(scores):
    return scores.exp() / scores.exp().sum()


def attend(query, keys, values):
    """One query of one head over a list of keys and values."""
    weights = softmax(torch.stack(keys) @ query / math.sqrt(len(query)))
    return weights @ torch.stack(values)


def split_heads(vector, num_heads):
    """The channels of queries, keys and values, each by head: ``[part][head]`` -> vector."""
    dim = len(vector) // (3 * num_heads)
    return [[vector[(part * num_heads + h) * dim :][:dim] for h in range(num_heads)] for part in range(3)]


def feed_forward(vector, w):
    hidden = linear(vector, w.of("fc1"))
    hidden = hidden / 2 * (1 + torch.erf(hidden / math.sqrt(2)))
    return linear(hidden, w.of("fc2"))


def convolution(x, w, conv):
    """One output for every ``stride`` positions, the last perhaps over the edge; beyond the map are zeros."""
    before = {"same": conv.dilation * (conv.kernel_size - 1) // 2, "valid": 0}.get(conv.padding, conv.padding)
    channels_in, channels_out = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    y = {}
    for p in positions(math.ceil(n / conv.stride) for n in size_of(x)):
        y[p] = w["bias"] if conv.bias else 0
        for tap in positions((conv.kernel_size,) * len(p)):
            source = tuple(i * conv.stride - before + t * conv.dilation for i, t in zip(p, tap, strict=True))
            if source in x:
                weight = w["weight"][(slice(None), slice(None), *tap)]
                groups = [
                    weight[g * channels_out :][:channels_out] @ x[source][g * channels_in :][:channels_in]
                    for g in range(conv.groups)
                ]
                y[p] = y[p] + torch.cat(groups)
    return y


def window(position, length, size):
    """Keys of a position on one axis: ``size`` neighbors, shifted inwards at a border, never more than there are."""
    if size >= length:
        return range(length)
    start = position - size // 2
    while start < 0:
        start += 1
    while start + size > length:
        start -= 1
    return range(start, start + size)


def neighborhood(position, size, window_size):
    return list(product(*(window(i, n, window_size) for i, n in zip(position, size, strict=True))))


def shared_scale(x, w, head):
    """Tokens, then queries, keys and values, then attention of each token to its neighborhood, head by head."""
    tokens = convolution(x, w.of("tokenizer"), head.conv_params)
    projection = ConvParams(
        1,
        in_channels=head.conv_params.out_channels,
        out_channels=3 * head.num_heads * head.intermediate_channels,
    )
    qkv = {p: split_heads(v, head.num_heads) for p, v in convolution(tokens, w.of("qkv_proj"), projection).items()}
    y = {}
    for p in qkv:
        near = neighborhood(p, size_of(tokens), head.attn_params.attention_window)
        heads = [
            attend(qkv[p][0][h], [qkv[j][1][h] for j in near], [qkv[j][2][h] for j in near])
            for h in range(head.num_heads)
        ]
        y[p] = torch.cat(heads)
    return y


def rescale(x, factor):
    """Linear interpolation along each axis, positions taken at the middle of their cells (align_corners=False)."""
    if factor == 1:
        return x
    for axis, length in enumerate(size_of(x)):
        size = list(size_of(x))
        size[axis] = math.ceil(length * factor)
        y = {}
        for p in positions(size):
            place = max((p[axis] + 0.5) * length / size[axis] - 0.5, 0)
            low = int(place)
            high = min(low + 1, length - 1)
            at = [x[(*p[:axis], i, *p[axis + 1 :])] for i in (low, high)]
            y[p] = (1 - (place - low)) * at[0] + (place - low) * at[1]
        x = y
    return x


def multi_scale(x, w, params):
    """Each position takes the token it was merged into, from every group; concatenate, rescale, project."""
    groups = [shared_scale(x, w.of(f"heads.{g}"), head) for g, head in enumerate(params.head_params)]
    strides = [head.conv_params.stride for head in params.head_params]
    y = {p: torch.cat([g[tuple(i // s for i in p)] for g, s in zip(groups, strides, strict=True)]) for p in x}
    return convolution(rescale(y, params.scale_factor), w.of("out_proj"), params.final_conv_params)


def msnat(x, w, params):
    """x = Shortcut(Rescale(x)) + MultiScaleMultiHeadNA(LayerNorm1(x)); x = x + FFN(LayerNorm2(x))."""
    normed = {p: layer_norm(v, w.of("layernorm1")) for p, v in x.items()}
    attended = multi_scale(normed, w.of("multi_head_attention"), params.attention_params)
    x = rescale(x, params.scale_factor)
    if params.in_channels != params.out_channels:
        x = {p: linear(v, w.of("shortcut")) for p, v in x.items()}
    x = {p: x[p] + attended[p] for p in x}
    return {p: v + feed_forward(layer_norm(v, w.of("layernorm2")), w.of("ffn")) for p, v in x.items()}


def global_layer(x, tokens, w, num_heads):
    """Tokens attend to tokens and positions, a position to itself and the tokens, never to another position."""
    sequence = [layer_norm(v, w.of("layernorm1")) for v in (*tokens, *x.values())]
    qkv = [split_heads(linear(v, w.of("qkv_proj")), num_heads) for v in sequence]
    everything, of_tokens = list(range(len(sequence))), list(range(len(tokens)))
    out = []
    for i, normed in enumerate(sequence):
        seen = everything if i in of_tokens else [*of_tokens, i]
        heads = [
            attend(qkv[i][0][h], [qkv[j][1][h] for j in seen], [qkv[j][2][h] for j in seen]) for h in range(num_heads)
        ]
        v = normed + torch.cat(heads)  # equation 12: the residual leaves from LayerNorm1, not from the input
        out.append(v + feed_forward(layer_norm(v, w.of("layernorm2")), w.of("ffn")))
    return dict(zip(x, out[len(tokens) :], strict=True)), out[: len(tokens)]


def global_stack(x, w, num_heads, num_layers):
    """The first layer owns the tokens, each passes its own on to the next; the context token leaves with the map."""
    first = w.of("layers.0")
    tokens = [*first["context_token"][0], *first["register_tokens"][0]]
    for layer in range(num_layers):
        x, tokens = global_layer(x, tokens, w.of(f"layers.{layer}"), num_heads)
    return x, tokens[0]


def embedding(position, dim):
    """Vaswani et al., section 3.5, for each axis in turn."""
    dim = dim // len(position)
    channels = []
    for i in position:
        for pair in range(dim // 2):
            angle = i / 10000 ** (2 * pair / dim)
            channels += [math.sin(angle), math.cos(angle)]
    return torch.tensor(channels, dtype=torch.float64)


def encoder(x, w, params):
    """Stem, a tenth of the embedding, blocks, global stack; the input is channels-first, this map is not."""
    x = convolution(x, w.of("initial_proj"), params.initial_conv_params)
    x = {p: v + 0.1 * embedding(p, len(v)) for p, v in x.items()}
    for block, block_params in enumerate(params.transformer_params):
        x = msnat(x, w.of(f"transformer_stack.blocks.{block}"), block_params)
    stack = params.global_attention_params
    return global_stack(x, w.of("global_attention"), stack.num_heads, stack.num_layers)


# --- the comparison ---------------------------------------------------------------------------------------------------


def prepared(module):
    """In double precision, without dropout, and with weights of which none is a zero or a one that could hide."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.5)
    return module.double().eval()


def assert_same(module, inputs, restated, tolerance=1e-10, dtype=torch.float64):
    """Values, and gradients to all inputs and all weights, for ``restated(weights, sample index) -> tensors``.

    The restatement computes in double precision, the module in ``dtype``.
    """
    tensors = dict(module.named_parameters())
    computed = copy.deepcopy(module).to(dtype)
    outputs = computed(*(x.to(dtype) for x in inputs))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    samples = [restated(Weights(tensors), i) for i in range(len(inputs[0]))]
    expected = tuple(torch.stack(parts) for parts in zip(*samples, strict=True))
    weights = [torch.randn_like(y) for y in expected]
    gradients = []
    for values, leaves in ((outputs, computed.parameters()), (expected, module.parameters())):
        total = sum((y * weight).sum() for y, weight in zip(values, weights, strict=True))
        gradients.append(torch.autograd.grad(total, [*leaves, *inputs], materialize_grads=True))
    close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance, check_dtype=False)
    for actual, wanted in zip(outputs, expected, strict=True):
        assert actual.dtype == dtype
        close(actual, wanted)
    names = [*tensors, *(f"input {i}" for i in range(len(inputs)))]
    for name, actual, wanted in zip(names, *gradients, strict=True):
        close(actual, wanted, msg=lambda text, name=name: f"gradient of {name}: {text}")


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


# --- numbers ----------------------------------------------------------------------------------------------------------


def head_params(in_channels, window, heads=2, dim=2, tokens=4, **conv):
    conv = dict(kernel_size=1, in_channels=in_channels, out_channels=tokens) | conv
    return HeadParams(NeighborhoodAttentionParams(window), heads, in_channels, dim, ConvParams(**conv), dropout=0.3)


def merging(factor, **conv):
    return dict(kernel_size=factor, stride=factor, padding="valid") | conv


def attention_params(in_channels, out_channels, scale_factor=1.0, final_kernel=1):
    """Three scales with windows, head counts and head dimensions of their own."""
    groups = (
        head_params(in_channels, window=3, heads=2, dim=2),
        head_params(in_channels, window=2, heads=1, dim=3, **merging(2, groups=2)),
        head_params(in_channels, window=5, heads=1, dim=1, **merging(3)),
    )
    final = ConvParams(final_kernel, in_channels=8, out_channels=out_channels)
    return MultiHeadAttentionParams(groups, 2, out_channels, final, scale_factor)


def block_params(in_channels, out_channels, scale_factor=1.0):
    attention = attention_params(in_channels, out_channels, scale_factor)
    return TransformerParams(in_channels, out_channels, attention, scale_factor, dropout=0.3, drop_path=0.3)


# --- the tests --------------------------------------------------------------------------------------------------------


@at_every_size
def test_positional_embedding_is_sine_and_cosine_of_each_axis(size):
    dim = 12 * len(size)
    actual = EMBEDDING[len(size)](dim)(torch.zeros(2, *size, 5, dtype=torch.float64))
    assert actual.shape == (*size, dim)
    for p in positions(size):
        # It is computed in float32.
        torch.testing.assert_close(actual[p], embedding(p, dim), rtol=0, atol=2e-6)


TOKENIZERS = {
    "no merging": dict(),
    "no merging, in groups": dict(groups=2),
    "no merging, depthwise, no bias": dict(groups=4, bias=False),
    "merging 2 in groups": merging(2, groups=2),
    "merging 3 depthwise": merging(3, groups=4),
    "merging 4": merging(4),
    "overlapping": dict(kernel_size=3, stride=2, padding=1),
    "overlapping, no padding": dict(kernel_size=3, stride=2, padding="valid"),
    "smoothing": dict(kernel_size=3),
    "even kernel": dict(kernel_size=2),
}


@pytest.mark.parametrize("conv", TOKENIZERS.values(), ids=TOKENIZERS)
@at_every_size
def test_head_group_is_tokens_then_softmax_over_each_tokens_window(size, conv):
    params = head_params(4, window=3, heads=2, dim=3, tokens=8, **conv)
    module = prepared(GROUP[len(size)](**params.__dict__))
    x = random(1, *size, 4)
    assert_same(module, [x], lambda w, i: [to_tensor(shared_scale(to_map(x[i]), w, params))])


@pytest.mark.parametrize("window_size", [1, 2, 4, 5, 6, 8])
@pytest.mark.parametrize("size", [(7,), (5, 4)], ids=["7", "5x4"])
def test_windows_of_any_size_shift_at_borders_and_end_with_the_map(size, window_size):
    params = head_params(3, window_size, heads=1)
    module = prepared(GROUP[len(size)](**params.__dict__))
    x = random(1, *size, 3)
    assert_same(module, [x], lambda w, i: [to_tensor(shared_scale(to_map(x[i]), w, params))])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize(
    ("size", "window_size"),
    [((261,), 6), ((261,), 3), ((19, 14), 4), ((19, 14), 3), ((7, 6, 7), 2), ((7, 6, 7), 3)],
    ids=lambda value: value if isinstance(value, int) else "x".join(map(str, value)),
)
def test_windows_on_a_map_of_more_than_256_positions(size, window_size, dtype):
    """From there on, scores are no longer computed for all pairs."""
    params = head_params(2, window_size, heads=1)
    module = prepared(GROUP[len(size)](**params.__dict__))
    x = random(1, *size, 2)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert_same(module, [x], lambda w, i: [to_tensor(shared_scale(to_map(x[i]), w, params))], tolerance, dtype)


@pytest.mark.parametrize("scale_factor", [1.0, 0.5])
@at_every_size
def test_multi_scale_attention_brings_groups_back_concatenates_rescales_and_projects(size, scale_factor):
    params = attention_params(4, 5, scale_factor)
    module = prepared(ATTENTION[len(size)](**params.__dict__))
    x = random(1, *size, 4)
    assert_same(module, [x], lambda w, i: [to_tensor(multi_scale(to_map(x[i]), w, params))])


@pytest.mark.parametrize("scale_factor", [0.4, 1.5, 2.0])
@pytest.mark.parametrize("size", [(7,), (5, 4), (2, 3, 3)], ids=["7", "5x4", "2x3x3"])
def test_other_scale_factors_and_a_wider_projection(size, scale_factor):
    params = attention_params(4, 5, scale_factor, final_kernel=3)
    module = prepared(ATTENTION[len(size)](**params.__dict__))
    x = random(1, *size, 4)
    assert_same(module, [x], lambda w, i: [to_tensor(multi_scale(to_map(x[i]), w, params))])


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 1, 3)], ids=["5", "2x3", "2x1x3"])
def test_feed_forward_is_linear_gelu_linear_at_every_position(shape):
    module = prepared(FeedForward(3))
    x = random(2, *shape, 3)
    assert_same(module, [x], lambda w, i: [to_tensor({p: feed_forward(v, w) for p, v in to_map(x[i]).items()})])


@pytest.mark.parametrize("out_channels", [4, 6])
@pytest.mark.parametrize("scale_factor", [1.0, 0.5])
@at_every_size
def test_block_is_two_residual_branches_after_a_rescaled_shortcut(size, scale_factor, out_channels):
    params = block_params(4, out_channels, scale_factor)
    module = prepared(BLOCK[len(size)](**params.__dict__))
    x = random(1, *size, 4)
    assert_same(module, [x], lambda w, i: [to_tensor(msnat(to_map(x[i]), w, params))])


@pytest.mark.parametrize("size", [(9,), (7, 5), (3, 4, 3)], ids=["9", "7x5", "3x4x3"])
def test_block_in_single_precision(size):
    """Kernels that compute in single precision alone take part here."""
    params = block_params(4, 6, 0.5)
    module = prepared(BLOCK[len(size)](**params.__dict__))
    x = random(2, *size, 4)
    assert_same(module, [x], lambda w, i: [to_tensor(msnat(to_map(x[i]), w, params))], 1e-4, torch.float32)


@pytest.mark.parametrize("registers", [0, 3])
@at_every_size
def test_global_layer_lets_tokens_see_all_and_positions_themselves_and_the_tokens(size, registers):
    module = GlobalAttentionTransformer(
        6, 2, registers, dropout=0.3, use_input_context_token=True, use_input_register_tokens=True
    )
    inputs = [random(2, *size, 6), random(2, 1, 6), random(2, registers, 6)]

    def restated(w, i):
        x, tokens = global_layer(to_map(inputs[0][i]), [*inputs[1][i], *inputs[2][i]], w, num_heads=2)
        return to_tensor(x), torch.stack(tokens[:1]), torch.stack(tokens[1:]) if registers else inputs[2][i]

    assert_same(prepared(module), inputs, restated)


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("size", [(7,), (3, 2), (2, 1, 3)], ids=["7", "3x2", "2x1x3"])
def test_global_stack_owns_tokens_once_and_passes_them_on(size, num_layers):
    module = prepared(GlobalAttentionStack(6, 3, num_layers, num_register_tokens=2, dropout=0.3))
    x = random(2, *size, 6)

    def restated(w, i):
        features, context = global_stack(to_map(x[i]), w, num_heads=3, num_layers=num_layers)
        return to_tensor(features), context[None]

    assert_same(module, [x], restated)


def encoder_params(ndim, stem):
    width = 4 * ndim
    return EncoderParams(
        initial_conv_params=ConvParams(**stem, in_channels=3, out_channels=width),
        transformer_params=(block_params(width, 6, 0.5), block_params(6, 6), block_params(6, 4, 0.5)),
        global_attention_params=GlobalAttentionTransformerParams(4, 2, num_layers=2, num_register_tokens=3),
        input_channels=3,
        output_channels=4,
    )


STEMS = {"stem 3": dict(kernel_size=3), "stem 2 stride 2": merging(2)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize(
    ("size", "stem"),
    [((9,), "stem 3"), ((5, 4), "stem 3"), ((3, 2, 3), "stem 3"),
     ((10,), "stem 2 stride 2"), ((6, 10), "stem 2 stride 2"), ((4, 2, 6), "stem 2 stride 2")],
    ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value)),
)  # fmt: skip
def test_encoder_is_stem_embedding_blocks_and_global_stack(size, stem, dtype):
    params = encoder_params(len(size), STEMS[stem])
    module = prepared(ENCODER[len(size)](**params.__dict__))
    x = random(1, 3, *size)

    def restated(w, i):
        features, context = encoder(to_map(x[i].movedim(0, -1)), w, params)
        return to_tensor(features).movedim(-1, 0), context[None]

    # In double precision all is exact but the embedding, which is always computed in single.
    assert_same(module, [x], restated, 1e-6 if dtype == torch.float64 else 1e-4, dtype)
