"""The global stack against a dense, masked re-statement of docs/architecture.md, equation 12."""

import pytest
import torch

from eyetoy_mm.layers import GlobalAttentionStack, GlobalAttentionTransformer


def restated(layer, x, context, registers):
    """Equations 12 and 13 of the page, with a full matrix of scores."""
    sequence = layer.layernorm1(torch.cat([context, registers, x.flatten(1, 2)], dim=1))
    batch, length, channels = sequence.shape
    heads, contexts, tokens = layer.num_heads, context.shape[1], context.shape[1] + registers.shape[1]
    q, k, v = (sequence @ layer.qkv_proj.weight.T + layer.qkv_proj.bias).chunk(3, dim=-1)
    q, k, v = (part.view(batch, length, heads, channels // heads).transpose(1, 2) for part in (q, k, v))
    scores = q @ k.transpose(-1, -2) / (channels // heads) ** 0.5
    for row in range(tokens, length):
        for column in range(tokens, length):
            if row != column:
                scores[:, :, row, column] = -torch.inf
    attended = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, channels)
    sequence = sequence + attended  # the residual leaves from LayerNorm1's output
    sequence = sequence + layer.ffn(layer.layernorm2(sequence))
    return sequence[:, tokens:].view(x.shape), sequence[:, :contexts], sequence[:, contexts:tokens]


# Registers, and whether there is a context token; to have neither is refused.
tokens_of_all_kinds = pytest.mark.parametrize(("registers", "context"), [(3, True), (0, True), (3, False), (1, False)])


def build(registers, context, num_layers=2):
    return GlobalAttentionStack(8, 2, num_layers, registers, dropout=0.3, use_context_token=context).double().eval()


@tokens_of_all_kinds
def test_stack_is_equation_12(registers, context):
    stack = build(registers, context)
    x = torch.randn(2, 3, 4, 8, dtype=torch.float64)
    state = (x, stack.layers[0].context_token.expand(2, -1, -1), stack.layers[0].register_tokens.expand(2, -1, -1))
    for layer in stack.layers:
        state = restated(layer, *state)
    features, context_token = stack(x)
    torch.testing.assert_close(features, state[0])
    if context:
        torch.testing.assert_close(context_token, state[1])
    else:
        assert context_token is None


def test_positions_keep_their_identity():
    stack = GlobalAttentionStack(8, num_heads=2, num_layers=2).double().eval()
    x = torch.randn(1, 5, 6, 8, dtype=torch.float64)
    order = torch.randperm(30)
    features, context = stack(x)
    permuted, same_context = stack(x.flatten(1, 2)[:, order].unflatten(1, (5, 6)))
    torch.testing.assert_close(permuted.flatten(1, 2), features.flatten(1, 2)[:, order])
    torch.testing.assert_close(same_context, context)


def test_any_rank_and_first_layer_owns_the_tokens():
    stack = GlobalAttentionStack(8, num_heads=2, num_layers=3, num_register_tokens=5)
    owners = [name for name, _ in stack.named_parameters() if "token" in name]
    assert owners == ["layers.0.context_token", "layers.0.register_tokens"]
    for shape in [(7,), (2, 3), (2, 3, 2)]:
        features, context = stack(torch.randn(2, *shape, 8))
        assert features.shape == (2, *shape, 8) and context.shape == (2, 1, 8)


@pytest.mark.parametrize("num_layers", [1, 3])
@tokens_of_all_kinds
def test_every_parameter_gets_a_gradient_from_each_output_alone(registers, context, num_layers):
    stack = build(registers, context, num_layers)
    owned = [name.removeprefix("layers.0.") for name, _ in stack.named_parameters() if "token" in name]
    assert owned == ["context_token"] * context + ["register_tokens"] * (registers > 0)
    for output in stack(torch.randn(2, 3, 3, 8, dtype=torch.float64)):
        if output is not None:
            gradients = torch.autograd.grad(output.square().sum(), list(stack.parameters()), retain_graph=True)
            assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_memory_is_linear_in_the_positions():
    """The largest tensor kept for backward grows with N, not with N squared."""
    layer = GlobalAttentionTransformer(8, num_heads=2, num_register_tokens=3)

    def largest(positions: int) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            layer(torch.randn(1, positions, 8))
        return max(sizes)

    assert largest(4096) < 4.5 * largest(1024)


def test_missing_and_superfluous_tokens_are_named():
    with pytest.raises(ValueError, match="context_token must be given"):
        GlobalAttentionTransformer(8, 2, use_input_context_token=True)(torch.randn(1, 4, 8))
    with pytest.raises(ValueError, match="register_tokens must not be given"):
        GlobalAttentionTransformer(8, 2)(torch.randn(1, 4, 8), register_tokens=torch.randn(1, 4, 8))
