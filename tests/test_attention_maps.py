"""Attention maps: the probabilities give back the modules' own outputs, and the boxes lie where the pixels are."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from eyetoy_mm.encoder import Encoder2D
from eyetoy_mm.ops import token_attention
from eyetoy_mm.params import ConvParams, EncoderParams, GlobalAttentionTransformerParams, msnat_params

pytest.importorskip("mmengine", reason="mmengine is not installed")
from eyetoy_mm.attention_maps import record_attention
from eyetoy_mm.backbones import EyeToy
from eyetoy_mm.errors import UserError

HEIGHT, WIDTH = 36, 52  # maps of 9 x 13 and 5 x 7 positions
GLOBAL = GlobalAttentionTransformerParams(d_model=16, num_heads=4, num_layers=2, num_register_tokens=3)


def encoder(global_params=GLOBAL, dilation=1) -> Encoder2D:
    """Cells of 4 x 4 pixels that do not overlap; blocks on 9 x 13, 9 x 13 and 5 x 7 positions."""
    stem = ConvParams(kernel_size=4, stride=4, padding="valid", in_channels=3, out_channels=8)
    blocks = (
        msnat_params(8, 8, windows=(5, 3), merging=(1, 2), num_heads=2, conv_groups=4),
        msnat_params(8, 16, windows=(4, 2), merging=(3, 1), num_heads=1, scale_factor=0.5, conv_groups=4),
        msnat_params(16, 16, windows=(3, 9), merging=(1, 2), num_heads=2, conv_groups=4),
    )
    if dilation > 1:
        attention = blocks[0].attention_params
        heads = tuple(
            dataclasses.replace(head, attn_params=dataclasses.replace(head.attn_params, dilation=dilation))
            for head in attention.head_params
        )
        attention = dataclasses.replace(attention, head_params=heads)
        blocks = (dataclasses.replace(blocks[0], attention_params=attention), *blocks[1:])
    return Encoder2D(**EncoderParams(stem, blocks, global_params, 3, 16).__dict__).double().eval()


def outputs_of(modules, model, images):
    """Inputs and outputs of modules while a model runs."""
    found = {}
    hooks = [
        module.register_forward_hook(lambda module, args, output: found.update({module: (args[0], output)}))
        for module in modules
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    return [found[module] for module in modules]


@pytest.mark.parametrize(("block", "dilation"), [(0, 1), (0, 2), (1, 1), (2, 1)])
def test_probabilities_times_values_are_the_groups_output(block, dilation):
    model = encoder(dilation=dilation)
    images = torch.randn(2, 3, HEIGHT, WIDTH, dtype=torch.float64)
    heads = model.transformer_stack.blocks[block].multi_head_attention.heads
    with record_attention(model, block) as record:
        passed = outputs_of(heads, model, images)
    tokens = set()
    for x in range(0, WIDTH, 3):
        for y in [0, 5, 14, 20, HEIGHT - 1]:
            groups = record.neighborhoods(x, y, image=1)
            assert len(groups) == len(heads)
            for group, head, (given, output) in zip(groups, heads, passed, strict=True):
                height, width = given.shape[1:3]
                padded = F.pad(given, (0, 0, 0, -width % head.merging, 0, -height % head.merging))
                qkv = head.qkv_proj(head.tokenizer(padded))[1]  # whole cells, whatever the border
                values = qkv.unflatten(-1, (3, head.num_heads, -1))[..., 2, :, :]
                attended = values[group.rows.start : group.rows.stop : group.rows.step]
                attended = attended[:, group.columns.start : group.columns.stop : group.columns.step]
                assert attended.shape[:2] == group.probabilities.shape[1:] == group.boxes.shape[:2]
                expected = torch.einsum("hrc,rchd->hd", group.probabilities, attended).flatten()
                torch.testing.assert_close(expected, output[1][group.token])
                torch.testing.assert_close(group.average.sum(), torch.tensor(1.0, dtype=torch.float64))
                assert (group.merging, group.window) == (head.merging, head.attn_params.attention_window)
                tokens.add((head, group.token))
    assert len(tokens) > 20  # borders and interior


@pytest.mark.parametrize("position", [(0, 0), (23, 17), (51, 30), (9, 35)])
def test_boxes_are_the_pixels_that_a_position_sees(position):
    model = encoder()
    images = torch.randn(1, 3, HEIGHT, WIDTH, dtype=torch.float64, requires_grad=True)
    heads = model.transformer_stack.blocks[0].multi_head_attention.heads
    with record_attention(model) as record:
        passed = outputs_of(heads, model, images)
    x, y = position
    for group, (_, output) in zip(record.neighborhoods(x, y), passed, strict=True):
        (gradient,) = torch.autograd.grad(output[0][group.token].sum(), images, retain_graph=True)
        expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
        for left, top, right, bottom in group.boxes.flatten(0, 1).int().tolist():
            assert not expected[top:bottom, left:right].any()
            expected[top:bottom, left:right] = True
        assert torch.equal(gradient[0].abs().amax(0) > 0, expected)
        left, top, right, bottom = group.own_box.tolist()
        assert left <= x < right and top <= y < bottom
        assert (group.boxes == group.own_box).all(-1).any()  # a position attends to itself


def test_boxes_of_odd_maps_that_were_halved():
    model = encoder()
    with record_attention(model, block=2) as record:
        model(torch.randn(1, 3, HEIGHT, WIDTH, dtype=torch.float64))
    near, far = record.neighborhoods(0, 0), record.neighborhoods(WIDTH - 1, HEIGHT - 1)
    torch.testing.assert_close(near[0].own_box, torch.tensor([0, 0, 52 / 7, 36 / 5]))
    torch.testing.assert_close(near[1].own_box, torch.tensor([0, 0, 2 * 52 / 7, 2 * 36 / 5]))
    torch.testing.assert_close(far[1].own_box, torch.tensor([6 * 52 / 7, 4 * 36 / 5, 52, 36]))  # a ragged cell
    for x, y in [(7, 7), (8, 8), (30, 14), (31, 15), (51, 35)]:
        left, top, right, bottom = record.neighborhoods(x, y)[0].own_box.tolist()
        assert left <= x < right and top <= y < bottom


@pytest.mark.parametrize(("context", "registers"), [(True, 3), (True, 0), (False, 3)])
def test_tokens_attend_as_the_operator_has_it(context, registers):
    model = encoder(dataclasses.replace(GLOBAL, num_register_tokens=registers, use_context_token=context))
    images = torch.randn(2, 3, HEIGHT, WIDTH, dtype=torch.float64)
    projections = [layer.qkv_proj for layer in model.global_attention.layers]
    with record_attention(model) as record:
        passed = outputs_of(projections, model, images)
    layers = record.tokens(image=1)
    assert len(layers) == 2
    count = context + registers
    for layer, (_, qkv) in zip(layers, passed, strict=True):
        assert layer.names == ("context",) * context + ("register 0", "register 1", "register 2")[:registers]
        assert layer.on_map.shape == (count, 4, 5, 7) and layer.on_tokens.shape == (count, 4, count)
        assert layer.boxes.shape == (5, 7, 4) and layer.average.shape == (count, 5, 7)
        probabilities = torch.cat([layer.on_tokens, layer.on_map.flatten(2)], dim=-1)
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(count, 4, dtype=torch.float64))
        query, key, value = qkv.unflatten(-1, (3, 4, -1)).unbind(-3)
        expected = token_attention(query, key, value, num_tokens=count)[1, :count]
        torch.testing.assert_close(torch.einsum("qhk,khd->qhd", probabilities, value[1]), expected)


def test_backbone_of_any_size_and_precision_stays_as_it_is():
    backbone = EyeToy("demo").eval()
    images = torch.randn(1, 3, 45, 70)
    before = backbone(images)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), record_attention(backbone, block=2) as record:
        backbone(images)
    assert all(map(torch.equal, before, backbone(images)))
    assert not any(module._forward_hooks for module in backbone.modules())
    for group in record.neighborhoods(69.5, 44):
        assert group.probabilities.dtype == torch.float32
        torch.testing.assert_close(group.probabilities.sum((1, 2)), torch.ones(2))
        assert group.own_box[2:].tolist() == [70, 45]  # cut where the image ends
    sides = record.tokens()[0].boxes.unflatten(-1, (2, 2)).diff(dim=-2).flatten(-2)
    torch.testing.assert_close(sides.prod(-1).sum(), torch.tensor(45.0 * 70.0))


def test_refusals():
    model = encoder(global_params=None)
    images = torch.randn(1, 3, HEIGHT, WIDTH, dtype=torch.float64)
    with pytest.raises(UserError, match="Linear has no EyeToy encoder"), record_attention(torch.nn.Linear(1, 1)):
        pass
    for block in (-1, 3):
        with pytest.raises(UserError, match=f"no block {block}: .* blocks 0 to 2"), record_attention(model, block):
            pass
    with record_attention(model) as record:
        with pytest.raises(UserError, match="nothing was recorded"):
            record.neighborhoods(0, 0)
        model(images)
        with pytest.raises(UserError, match="ran more than once"):
            model(images)
    for position in [(WIDTH, 0), (0, HEIGHT), (-1, 0)]:
        with pytest.raises(UserError, match="outside the image of 52 x 36 pixels"):
            record.neighborhoods(*position)
    with pytest.raises(UserError, match="no global stack"):
        record.tokens()
