"""The backbone contract, from each toolbox."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

import eyetoy_mm  # noqa: F401 - before mmseg and mmdet: supplies what mmcv-lite lacks
from eyetoy_mm.archs import ARCHS
from eyetoy_mm.backbones.eyetoy import EyeToy
from eyetoy_mm.backbones.nat import NAT, DiNAT_s
from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.layers.attention import SharedScaleNA
from eyetoy_mm.layers.conv import Conv2D
from eyetoy_mm.layers.global_attention import GlobalAttentionTransformer

MINI = dict(
    embed_dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), num_heads=(1, 1, 1, 2), windows=((5, 3), (5, 3), (3, 3), (3,)),
    merging=((1, 4), (1, 2), (1, 2), (1,)), global_layers=2, global_heads=2, register_tokens=3,
)  # fmt: skip


@pytest.mark.parametrize("toolbox", ["mmseg", "mmdet", "mmpretrain"])
def test_every_toolbox_builds_it_by_name(toolbox):
    models = pytest.importorskip(f"{toolbox}.registry", reason=f"{toolbox} is not installed").MODELS
    backbone = models.build(dict(type="eyetoy_mm.EyeToy", arch=MINI))
    assert isinstance(backbone, EyeToy)


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (31, 45), (64, 32), (97, 33)])
def test_maps_have_the_strides_at_any_size_with_gradients(size):
    backbone = EyeToy(arch=MINI)
    x = torch.randn(2, 3, *size, requires_grad=True)
    maps = backbone(x)
    assert [m.shape for m in maps] == [
        (2, c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip((8, 16, 24, 32), (4, 8, 16, 32), strict=True)
    ]
    sum(m.square().mean() for m in maps).backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0
    assert all(p.grad is not None for p in backbone.parameters())


@pytest.mark.parametrize("out_type", EyeToy.OUT_TYPES)
def test_an_empty_batch_gives_empty_outputs_and_zero_gradients(out_type):
    backbone = EyeToy(arch=MINI, out_type=out_type)
    empty = backbone(torch.randn(0, 3, 64, 40))
    assert [y.shape for y in empty] == [(0, *y.shape[1:]) for y in backbone(torch.randn(1, 3, 64, 40))]
    sum(y.sum() for y in empty).backward()
    assert all(p.grad is not None and not p.grad.any() for p in backbone.parameters())


def test_it_can_be_differentiated_twice():
    """The curvature along a direction against the slope of gradients, with every kind of layer in between."""
    backbone = EyeToy(arch=MINI).double().eval()
    x, direction = torch.randn(2, 1, 3, 40, 33, dtype=torch.float64)

    def slope(image):
        image.requires_grad_()
        loss = sum(m.sin().sum() for m in backbone(image))
        return (torch.autograd.grad(loss, image, create_graph=True)[0] * direction).sum()

    step = 1e-5
    expected = (slope(x + step * direction) - slope(x - step * direction)) / (2 * step)
    first = slope(x)
    (curvature,) = torch.autograd.grad(first, x, retain_graph=True)
    torch.testing.assert_close((curvature * direction).sum(), expected, rtol=1e-6, atol=1e-6)
    of_weights = torch.autograd.grad(first, list(backbone.parameters()), allow_unused=True)
    assert sum(g is not None and bool(g.any()) for g in of_weights) > 0.9 * len(of_weights)


def test_eval_is_deterministic_and_batch_independent():
    backbone = EyeToy(arch=MINI, dropout=0.3, drop_path_rate=0.3).double().eval()
    x = torch.randn(2, 3, 37, 50, dtype=torch.float64)
    maps = backbone(x)
    for again, first in zip(backbone(x), maps, strict=True):
        assert torch.equal(again, first)
    singles = zip(backbone(x[:1]), backbone(x[1:]), strict=True)
    for single, both in zip(singles, maps, strict=True):
        torch.testing.assert_close(torch.cat(single), both)


def test_a_pixel_changes_the_positions_that_see_it_and_no_others():
    """Reshapes that mix up rows, columns or channels move the change elsewhere."""
    near = MINI | dict(windows=((1,),) * 4, merging=((1,),) * 4, global_layers=0)  # no position looks at another
    backbone = EyeToy(arch=near).double().eval()
    x = torch.zeros(1, 3, 64, 96, dtype=torch.float64)
    before = backbone(x)
    x[:, :, 42, 81] = 0.1
    changed = [(m - b).abs().sum(1)[0] > 0 for m, b in zip(backbone(x), before, strict=True)]
    # stem positions r of stride 4 see pixels 4 r - 3 to 4 r + 3; later maps average pairs
    for change, rows, columns in zip(changed, ((10, 11), (5,), (2,), (1,)), ((20, 21), (10,), (5,), (2,)), strict=True):
        expected = torch.zeros_like(change)
        expected[torch.tensor(rows)[:, None], torch.tensor(columns)] = True
        assert torch.equal(change, expected)


def test_out_indices_select_maps_and_leave_out_later_stages():
    backbone = EyeToy(arch=MINI, out_indices=(1, 2))
    maps = backbone(torch.randn(1, 3, 64, 64))
    assert [m.shape[1:] for m in maps] == [(16, 8, 8), (24, 4, 4)]
    assert len(backbone.encoder.transformer_stack.stages) == 3 and backbone.encoder.global_attention is None
    assert EyeToy(arch=MINI, out_indices=(-2, -1)).out_indices == (2, 3)


def test_what_classifiers_get():
    """The last stage's norm on the context token, or on the map and then its mean."""
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    backbones = {out_type: EyeToy(arch=MINI, out_type=out_type).double().eval() for out_type in EyeToy.OUT_TYPES}
    whole = backbones["featmap"]
    for backbone in backbones.values():
        backbone.load_state_dict(whole.state_dict(), strict=False)
    *_, (_, context_token) = whole.encoder.forward_stages(x)
    torch.testing.assert_close(backbones["context_token"](x), (whole.norm3(context_token)[:, 0],))
    torch.testing.assert_close(backbones["avg_featmap"](x), (whole(x)[-1].mean(dim=(2, 3)),))
    means = EyeToy(arch=MINI, out_type="avg_featmap", out_indices=(0, 3))(x.float())
    assert [m.shape for m in means] == [(2, 8), (2, 32)]


WITHOUT_CONTEXT_TOKEN = [dict(global_layers=0), dict(use_context_token=False)]
WITH_CONTEXT_TOKEN = [
    dict(), dict(multi_scale=False), dict(overlap=True), dict(conv_groups=1), dict(stem_channels=4, stem_stride=2),
    dict(padding_mode="replicate"), dict(global_layers=1), dict(register_tokens=0),
]  # fmt: skip
MAPS = [
    dict(), dict(with_cp=True), dict(out_indices=(0,)), dict(out_indices=(1, 2)), dict(out_indices=(0, 3)),
    dict(out_type="avg_featmap"), dict(out_type="avg_featmap", out_indices=(1,)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "outputs"),
    [*product(WITHOUT_CONTEXT_TOKEN, MAPS), *product(WITH_CONTEXT_TOKEN, [*MAPS, dict(out_type="context_token")])],
    ids=str,
)
def test_nothing_is_built_that_gets_no_gradient(changes, outputs):
    """DistributedDataParallel waits for the gradient of every parameter."""
    backbone = EyeToy(arch=MINI | changes, **outputs)
    maps = backbone(torch.randn(2, 3, 64, 64))
    sum((m * torch.randn_like(m)).sum() for m in maps).backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("frozen_stages", [0, 1, 2, 4])
def test_frozen_stages_stay_frozen_and_in_eval_mode(frozen_stages):
    backbone = EyeToy(arch=MINI, frozen_stages=frozen_stages, dropout=0.1)
    backbone.train()
    stack = backbone.encoder.transformer_stack
    assert not any(p.requires_grad for p in backbone.encoder.initial_proj.parameters())
    for stage, blocks in enumerate(stack.stages):
        for index in blocks:
            frozen = stage < frozen_stages
            assert stack.blocks[index].training != frozen
            assert all(p.requires_grad != frozen for p in stack.blocks[index].parameters())
        assert backbone.get_submodule(f"norm{stage}").weight.requires_grad == (stage >= frozen_stages)
    assert any(p.requires_grad for p in backbone.parameters()) == (frozen_stages < 4)


def test_with_cp_gives_equal_maps_and_gradients():
    plain = EyeToy(arch=MINI).double().train()
    checkpointed = EyeToy(arch=MINI, with_cp=True).double().train()
    checkpointed.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 40, 33, dtype=torch.float64)
    for backbone in (plain, checkpointed):
        sum(m.square().sum() for m in backbone(x)).backward()
    for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_drop_path_grows_linearly():
    backbone = EyeToy(arch=MINI, drop_path_rate=0.4)
    rates = [block.drop_path.rate for block in backbone.encoder.transformer_stack.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_init_cfg_loads_a_checkpoint(tmp_path):
    source = EyeToy(arch=MINI)
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "m.pth")
    target = EyeToy(arch=MINI, init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "m.pth"), prefix="backbone."))
    target.init_weights()
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


def pretrained(state, tmp_path, prefix=None, **more):
    """A backbone that was initialised from a file with these tensors."""
    torch.save(state, tmp_path / "m.pth")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "m.pth"), prefix=prefix)
    backbone = EyeToy(**(dict(arch=MINI) | more), init_cfg=init_cfg)
    backbone.init_weights()
    return backbone


def whole(**more):
    """The state dict of a model with this backbone."""
    return {f"backbone.{key}": x for key, x in EyeToy(**(dict(arch=MINI) | more)).state_dict().items()} | {
        "decode_head.conv_seg.weight": torch.zeros(2)
    }


@pytest.mark.parametrize("prefix", [None, "backbone", "backbone."])
def test_init_cfg_finds_the_backbone_in_a_model(prefix, tmp_path):
    state = whole()
    for file in (state, {"state_dict": state}, {"model": {f"module.{key}": x for key, x in state.items()}}):
        own = pretrained(file, tmp_path, prefix).state_dict()
        assert all(torch.equal(x, state[f"backbone.{key}"]) for key, x in own.items())
    alone = {key.removeprefix("backbone."): x for key, x in state.items() if key.startswith("backbone.")}
    assert torch.equal(pretrained(alone, tmp_path).norm0.weight, alone["norm0.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("backbone.norm1.bias"), r"1 missing \(norm1.bias\)\. Is it"),
        (lambda s: s.update({"backbone.other": torch.zeros(1)}), r"1 not in the model \(other\)\. Is it"),
        (lambda s: s.update({"backbone.norm0.weight": torch.zeros(9)}), r"1 of another shape \(norm0.weight \(9,\)"),
        (lambda s: [s.pop(key) for key in list(s) if "context_token" in key], r"1 missing \(encoder.global_attention"),
        (lambda s: s.update({"backbone.encoder.transformer_stack.blocks.5.ffn.fc1.bias": torch.zeros(1)}), "blocks.5"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named_and_none_is_loaded(change, message, tmp_path):
    state = whole()
    change(state)
    with pytest.raises(CheckpointError, match=message):
        pretrained(state, tmp_path)


BACKBONES = {
    "EyeToy": lambda **more: EyeToy(MINI, **more),
    "NAT": lambda **more: NAT(None, embed_dims=8, depths=(1, 1), num_heads=(1, 2), mlp_ratio=2, **more),
    "DiNAT_s": lambda **more: DiNAT_s(None, embed_dims=8, depths=(1, 1), num_heads=(1, 2), mlp_ratio=2, **more),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_is_as_strict(name, tmp_path):
    build, state = BACKBONES[name], BACKBONES[name]().state_dict()

    def load(changes, **more):
        torch.save(state | changes, tmp_path / "m.pth")
        backbone = build(init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "m.pth"), **more))
        before = {key: x.clone() for key, x in backbone.state_dict().items()}
        try:
            backbone.init_weights()
        except CheckpointError:
            assert all(torch.equal(x, before[key]) for key, x in backbone.state_dict().items())
            raise
        return backbone.state_dict()

    loaded = load({"head.fc.weight": torch.zeros(3)})
    assert all(torch.equal(x, state[key]) for key, x in loaded.items())
    half = load({"norm1.bias": torch.full_like(state["norm1.bias"], 0.5, dtype=torch.float16)})
    assert (half["norm1.bias"] == 0.5).all()
    with pytest.raises(CheckpointError, match=r"1 not in the model \(other\)"):
        load({"other": torch.zeros(1)})
    for value in (math.nan, math.inf):
        with pytest.raises(CheckpointError, match="1 tensors .* nothing was loaded: norm1.bias: NaN or infinite"):
            load({"norm1.bias": torch.full_like(state["norm1.bias"], value)})
    with pytest.raises(CheckpointError, match="norm1.bias: torch.int8, not floating point"):
        load({"norm1.bias": state["norm1.bias"].to(torch.int8)})
    with pytest.raises(CheckpointError, match="without values, on the meta device"):
        load({}, map_location="meta")


def test_files_of_other_models_are_refused(tmp_path):
    """Names behind a prefix of a trainer are the model's; behind that of another part mmengine would take none."""
    other = {f"net.{key}": x for key, x in EyeToy(arch=MINI).state_dict().items()}
    own = pretrained(other, tmp_path).state_dict()
    assert all(torch.equal(x, other[f"net.{key}"]) for key, x in own.items())
    with pytest.raises(CheckpointError, match="no name starts with 'backbone.', but net.encoder"):
        pretrained(other, tmp_path, "backbone.")
    assert pretrained(other, tmp_path, "net")
    with pytest.raises(CheckpointError, match="m.pth does not fit this EyeToy, and nothing was loaded: .* missing"):
        pretrained(whole(arch=MINI | dict(global_layers=1)), tmp_path)
    with pytest.raises(CheckpointError, match=r"register_tokens \(1, 3, 32\) for \(1, 4, 32\)"):
        pretrained(whole(), tmp_path, arch=MINI | dict(register_tokens=4))


def test_what_out_indices_leave_out_may_be_in_the_file(tmp_path):
    state = whole()
    own = pretrained(state, tmp_path, out_indices=(1, 2)).state_dict()
    assert all(torch.equal(x, state[f"backbone.{key}"]) for key, x in own.items())
    assert not any(key.startswith(("norm0", "norm3", "encoder.global_attention")) for key in own)
    with pytest.raises(CheckpointError, match=r"not in the model \(encoder.global_attention"):  # left out by the arch
        pretrained(state, tmp_path, arch=MINI | dict(global_layers=0))


def test_a_classifier_starts_a_dense_backbone_with_fresh_norms(tmp_path):
    state = whole(out_type="context_token")
    state["backbone.norm3.weight"] += 1
    backbone = pretrained(state, tmp_path)
    for key, x in backbone.state_dict().items():
        if key.startswith("norm"):
            assert torch.equal(x, torch.full_like(x, float(key.endswith("weight")))), key
        else:
            assert torch.equal(x, state[f"backbone.{key}"]), key
    again = pretrained(state, tmp_path, out_type="avg_featmap")
    assert torch.equal(again.norm3.weight, state["backbone.norm3.weight"])


@pytest.mark.parametrize(
    ("arch", "more", "channels", "strides"),
    [
        (MINI, {}, (8, 16, 24, 32), (4, 8, 16, 32)),
        (MINI, dict(out_indices=(1, -1)), (16, 32), (8, 32)),
        (MINI, dict(out_type="context_token"), (32,), (32,)),
        (MINI | dict(stem_stride=2, stem_channels=4), {}, (8, 16, 24, 32), (4, 8, 16, 32)),
        ("shallow", {}, (128, 256), (2, 4)),
    ],
)
def test_channels_and_strides_are_those_of_the_outputs(arch, more, channels, strides):
    backbone = EyeToy(arch=arch, **more)
    assert (backbone.out_channels, backbone.out_strides) == (channels, strides)
    outputs = backbone(torch.randn(1, 3, 64, 64))
    assert [y.shape[1] for y in outputs] == list(channels)
    assert all(y.dim() == 2 or y.shape[2:] == (64 // s, 64 // s) for y, s in zip(outputs, strides, strict=True))


def test_layer_depth_ascends_from_stem_to_head():
    backbone = EyeToy(arch=MINI)
    depths = [backbone.get_layer_depth(f"backbone.{name}", "backbone.") for name, _ in backbone.named_parameters()]
    assert {total for _, total in depths} == {5 + 2 + 2}
    assert {depth for depth, _ in depths} == set(range(9))
    assert backbone.get_layer_depth("backbone.encoder.initial_proj.weight", "backbone.") == (0, 9)
    assert backbone.get_layer_depth("decode_head.conv_seg.weight", "backbone.") == (8, 9)


def flops(backbone: nn.Module, size: int) -> int:
    """Multiply-accumulates of one image, counted from what each layer does."""
    total = 0

    def linear(module, inputs, output):
        nonlocal total
        total += output.numel() * module.in_features

    def conv(module, inputs, output):
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    def neighborhood(module, inputs, output):
        nonlocal total
        window = module.attn_params.attention_window
        keys = min(window, output.shape[1]) * min(window, output.shape[2])
        total += 2 * output.numel() * keys

    def tokens(module, inputs, output):
        nonlocal total
        positions, channels = inputs[0].flatten(1, -2).shape[1:]
        extra = 1 + module.num_register_tokens
        total += 2 * channels * (extra * (positions + extra) + positions * (extra + 1))

    counters = {nn.Linear: linear, Conv2D: conv, SharedScaleNA: neighborhood, GlobalAttentionTransformer: tokens}
    for module in backbone.modules():
        for cls, counter in counters.items():
            if isinstance(module, cls):
                module.register_forward_hook(counter)
    with torch.no_grad():
        backbone.eval()(torch.zeros(1, 3, size, size))
    return total


@pytest.mark.parametrize(
    ("arch", "parameters", "gflops"), [("tiny", 28e6, 4.5), ("small", 50e6, 8.7), ("base", 88e6, 15.4)]
)
def test_named_sizes_stand_beside_swin(arch, parameters, gflops):
    backbone = EyeToy(arch=arch)
    assert abs(sum(p.numel() for p in backbone.parameters()) / parameters - 1) < 0.15
    assert flops(backbone, 224) <= gflops * 1e9


def test_shallow_is_the_seeds_classifier():
    """4 blocks of 4 groups x 2 heads for 32 x 32 pixels, pooled, with a linear head for 10 classes."""
    backbone = EyeToy(arch="shallow", out_type="avg_featmap")
    stem, blocks = backbone.encoder.initial_proj, backbone.encoder.transformer_stack.blocks
    assert (stem.in_channels, stem.out_channels, stem.kernel_size, stem.stride) == (3, 64, (3, 3), (1, 1))
    numbers = [(b.layernorm1.normalized_shape, b.layernorm2.normalized_shape, b.scale_factor) for b in blocks]
    assert numbers == [((64,), (128,), 0.5), ((128,), (128,), 1), ((128,), (256,), 0.5), ((256,), (256,), 1)]
    assert all([head.num_heads for head in block.multi_head_attention.heads] == [2, 2, 2, 2] for block in blocks)
    assert backbone.encoder.global_attention is None
    head = nn.Linear(256, 10)
    parameters = sum(p.numel() for p in [*backbone.parameters(), *head.parameters()])
    assert parameters == 2_351_370 <= 3.3e6
    (features,) = backbone(torch.randn(2, 3, 32, 32))
    assert head(features).shape == (2, 10)
    assert [m.shape[1:] for m in EyeToy(arch="shallow")(torch.randn(1, 3, 32, 32))] == [(128, 16, 16), (256, 8, 8)]


def groups_of(**changes):
    """Of every block of the demo: each group's window, merging, kernel, groups of the tokenizer, and heads."""
    backbone = EyeToy(arch=dict(type="demo", **changes))
    return [
        [
            (head.attn_params.attention_window, head.merging, head.tokenizer.kernel_size[0], head.tokenizer.groups,
             head.num_heads)
            for head in block.multi_head_attention.heads
        ]
        for block in backbone.encoder.transformer_stack.blocks
    ]  # fmt: skip


def test_switches_change_what_they_name_and_nothing_else():
    usual = groups_of()
    assert groups_of(multi_scale=False) == [[(*groups[0][:-1], sum(heads for *_, heads in groups))] for groups in usual]
    assert groups_of(windows=[[7] * 4] * 3 + [[7]]) == [[(7, *rest) for _, *rest in groups] for groups in usual]
    assert groups_of(merging=[[1] * 4] * 3 + [[1]]) == [
        [(window, 1, 1, *rest) for window, _, _, *rest in groups] for groups in usual
    ]
    assert groups_of(overlap=True) == [
        [(window, s, {1: 1, 2: 4, 3: 5, 4: 8, 8: 16}[k], *rest) for window, s, k, *rest in groups] for groups in usual
    ]
    assert groups_of(conv_groups="depthwise") == [
        [(*rest[:3], math.gcd(*channels), rest[4]) for rest in groups]
        for channels, groups in zip([(32, 32), (32, 64), (64, 128), (128, 128), (128, 192)], usual, strict=True)
    ]
    assert groups_of(conv_groups=1) == [[(*rest[:3], 1, rest[4]) for rest in groups] for groups in usual]
    for changes in (dict(global_layers=0), dict(register_tokens=3), dict(use_context_token=False)):
        assert groups_of(**changes) == usual


def test_early_windows_are_the_seeds():
    for arch in ARCHS.values():
        assert arch.windows[:2] == ((17, 13, 11, 9),) * 2 and arch.merging[:2] == ((1, 2, 4, 8),) * 2


def test_arch_by_name_with_changes():
    backbone = EyeToy(arch=dict(type="demo", register_tokens=2, global_layers=3, use_context_token=False))
    assert backbone.arch.embed_dims == ARCHS["demo"].embed_dims
    layers = backbone.encoder.global_attention.layers
    assert (len(layers), layers[0].num_register_tokens, layers[0].num_context_tokens) == (3, 2, 0)
    assert EyeToy(arch=dict(type="demo", global_layers=0)).encoder.global_attention is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "huge"}, "unknown arch 'huge'; choose one of shallow, demo, tiny, small, base"),
        ({"arch": dict(type="demo", embed_dim=3)}, "arch has no field embed_dim"),
        ({"arch": dict(depths=[1])}, "needs embed_dims, num_heads"),
        ({"arch": MINI | dict(depths=(1, 1))}, "one entry per stage"),
        ({"arch": MINI | dict(depths=4)}, "one entry per stage in every list, got .*'depths': 4"),
        ({"arch": MINI | dict(windows=(7, 7, 7, 7))}, r"one number per head group .* windows=\(7, 7, 7, 7\)"),
        ({"arch": MINI | dict(depths=(1, 0, 1, 1))}, "depths must be at least 1, got 0"),
        ({"arch": MINI | dict(embed_dims=(6, 16, 24, 32))}, "2 x 2 axes .* got dim=6"),
        ({"arch": MINI | dict(stem_stride=0)}, "stem_stride must be at least 1, got 0"),
        ({"arch": MINI | dict(stem_channels=0)}, "stem_channels must be at least 1, got 0"),
        ({"arch": MINI | dict(conv_groups=0)}, "conv_groups must be at least 1, got 0"),
        ({"arch": MINI | dict(conv_groups="each")}, "conv_groups must be a number or 'depthwise', got 'each'"),
        ({"arch": MINI | dict(global_layers=-1)}, "global_layers must be at least 0, got -1"),
        ({"arch": MINI | dict(register_tokens=-1)}, "register_tokens must be at least 0, got -1"),
        ({"arch": MINI | dict(global_heads=3)}, "d_model=32 and num_heads=3"),
        ({"arch": MINI | dict(register_tokens=0, use_context_token=False)}, "global attention needs a token"),
        ({"arch": MINI | dict(use_context_token=False), "out_type": "context_token"}, "use_context_token=False"),
        ({"arch": MINI | dict(global_layers=0), "out_type": "context_token"}, "global_layers=0"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"arch": MINI | dict(num_heads=(3, 1, 1, 2))}, "out_channels=8 does not divide by 2 groups x num_heads=3"),
        ({"arch": MINI | dict(windows=((5, 0), (5, 3), (3, 3), (3,)))}, "windows must be at least 1, got 0"),
        ({"out_indices": (0, 4)}, r"ascending stages from 0 to 3, got \(0, 4\)"),
        ({"out_indices": (2, 1)}, "ascending stages"),
        ({"frozen_stages": 5}, "frozen_stages must be between -1 and 4, got 5"),
        ({"out_indices": ()}, "ascending stages"),
        ({"drop_path_rate": 1.0}, "drop_path_rate must be .* less than 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must be at least 0 .* got -0.1"),
        ({"out_type": "cls"}, "out_type must be one of featmap, avg_featmap, context_token, got 'cls'"),
        ({"out_type": "context_token", "out_indices": (2, 3)}, r"needs out_indices=\(3,\) .* got \(2, 3\)"),
        ({"arch": None}, "arch must be one of shallow, .* got None"),
        ({"arch": MINI | dict(depths=["1", 1, 1, 1])}, r"depths must be whole numbers, got \('1', 1"),
        ({"arch": MINI | dict(windows=[[7.5]] * 4)}, r"windows must be whole numbers, got \(\(7.5,\)"),
        ({"arch": MINI | dict(multi_scale="no")}, "multi_scale must be True or False, got 'no'"),
        ({"arch": MINI | dict(use_context_token=None)}, "use_context_token must be True or False, got None"),
        *(
            ({"arch": MINI | dict(conv_groups=value)}, f"conv_groups must be a number or 'depthwise', got {value}")
            for value in (True, None, 7.5)
        ),
        *(
            ({"arch": MINI | dict(register_tokens=value)}, f"register_tokens must be a whole number, got {value!r}")
            for value in ("8", None, 8.5, True)
        ),
        ({"arch": MINI | dict(stem_stride=2.0)}, "stem_stride must be a whole number, got 2.0"),
        ({"arch": MINI | dict(stem_channels="8")}, "stem_channels must be a whole number, got '8'"),
        ({"arch": MINI | dict(global_heads=2.0)}, "global_heads must be a whole number, got 2.0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        EyeToy(**({"arch": MINI} | arguments))


def test_integers_of_numpy_are_integers():
    numbers = {key: np.array(MINI[key]) for key in ("embed_dims", "depths", "num_heads")}
    backbone = EyeToy(MINI | {key: list(value) for key, value in numbers.items()}, out_indices=list(np.arange(4)))
    assert backbone.arch == EyeToy(MINI).arch and {type(depth) for depth in backbone.arch.depths} == {int}
    assert NAT(None, embed_dims=np.int64(8), depths=list(np.ones(2, int)), num_heads=(1, 2), mlp_ratio=2).out_channels
