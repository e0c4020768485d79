"""NAT, DiNAT and DiNAT_s: the backbone contract, the published sizes, and the rules for small maps."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from mmengine.analysis import FlopAnalyzer

import eyetoy_mm  # noqa: F401 - before mmseg and mmdet: supplies what mmcv-lite lacks
from eyetoy_mm.backbones import NAT, DiNAT, DiNAT_s
from eyetoy_mm.backbones.nat import BiasedNA, NATArch

FAMILY = [NAT, DiNAT, DiNAT_s]
MINI = dict(arch=None, embed_dims=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 4), kernel_size=3, mlp_ratio=2)
GAPS = dict(dilations=[[2], [1, 3], [2], [1]])
family = pytest.mark.parametrize("cls", FAMILY, ids=lambda cls: cls.__name__)


@pytest.mark.parametrize("toolbox", ["mmseg", "mmdet", "mmpretrain"])
@family
def test_every_toolbox_builds_it_by_name(toolbox, cls):
    models = pytest.importorskip(f"{toolbox}.registry", reason=f"{toolbox} is not installed").MODELS
    assert type(models.build(dict(type=f"eyetoy_mm.{cls.__name__}", **MINI))) is cls


@pytest.mark.parametrize(
    ("cls", "arch", "parameters"),  # with a head of 1000 classes, as counted by the published code
    [
        (NAT, "mini", 19_984_174), (NAT, "tiny", 27_901_582), (NAT, "small", 50_743_297), (NAT, "base", 89_769_652),
        (DiNAT, "mini", 19_984_174), (DiNAT, "tiny", 27_901_582), (DiNAT, "small", 50_719_681),
        (DiNAT, "base", 89_769_652), (DiNAT, "large", 200_943_514), (DiNAT_s, "tiny", 28_288_354),
        (DiNAT_s, "small", 49_606_258), (DiNAT_s, "base", 87_768_224), (DiNAT_s, "large", 196_532_476),
    ],
)  # fmt: skip
def test_parameters_are_the_published_to_the_last(cls, arch, parameters):
    assert count(cls, arch) == parameters


def test_parameters_of_the_windows_of_11():
    assert count(DiNAT, "large", kernel_size=11) == 201_144_250


@family
def test_arch_may_be_a_mapping_with_numbers_of_its_own(cls):
    with torch.device("meta"):
        named, changed = cls("tiny"), cls(dict(type="tiny", depths=[1, 1, 1, 1], kernel_size=3))
        bare = cls(dict(embed_dims=8, depths=[1, 1], num_heads=[1, 2], mlp_ratio=2), mlp_ratio=3)
        assert changed.arch == cls("tiny", depths=(1, 1, 1, 1), kernel_size=3).arch
    assert cls.ARCHS["tiny"] == named.arch
    assert cls.ARCHS["tiny"] == replace(changed.arch, depths=named.arch.depths, kernel_size=7)
    assert bare.arch == NATArch(8, (1, 1), (1, 2), mlp_ratio=3)  # the flat number wins


def count(cls, arch, **more):
    with torch.device("meta"):
        backbone = cls(arch, out_type="avg_featmap", **more)
    head = 1000 * (backbone.arch.embed_dims * 8 + 1)
    return sum(p.numel() for p in backbone.parameters()) + head


@pytest.mark.parametrize(("cls", "arch", "flops"), [(NAT, "mini", 2_711_119_872), (DiNAT_s, "tiny", 4_509_194_496)])
def test_flops_are_those_of_the_published_code(cls, arch, flops):
    """As fvcore and natten's own formulas count the original models at 224 x 224."""
    analyzer = FlopAnalyzer(cls(arch, out_type="avg_featmap").eval(), torch.zeros(1, 3, 224, 224))
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.no_grad():
        assert analyzer.total() == pytest.approx(flops, rel=0.001)


@pytest.mark.parametrize(
    ("cls", "arch", "name", "expected"),
    [
        (NAT, "mini", None, "111 1111 111111 11111"),
        (DiNAT, "mini", None, "1.8.1 1.4.1.4 1.2.1.2.1.2 1.1.1.1.1"),
        (DiNAT, "mini", "coco", "1.28.1 1.7.1.14 1.3.1.5.1.7 1.3.1.3.1"),
        (DiNAT, "mini", "ade20k", "1.16.1 1.4.1.8 1.2.1.3.1.4 1.2.1.2.1"),
        (DiNAT, "large", "imagenet-384", "1.13.1 1.6.1.6 1.3.1.3.1.3.1.3.1.3.1.3.1.3.1.3.1.3 1.1.1.1.1"),
        (DiNAT, "large", "ade20k-640", "1.20.1 1.5.1.10 1.2.1.3.1.4.1.5.1.2.1.3.1.4.1.5.1.5 1.2.1.2.1"),
        (DiNAT, "large", "mask2former", "1.14.1 1.4.1.7 1.2.1.3.1.2.1.3.1.2.1.3.1.2.1.3.1.3 1.1.1.1.1"),
        (DiNAT_s, "tiny", None, "1.8 1.4 1.2.1.2.1.2 1.1"),
        (DiNAT_s, "tiny", "coco", "1.28 1.14 1.3.1.5.1.7 1.3"),
        (DiNAT_s, "tiny", "ade20k", "1.16 1.8 1.2.1.3.1.4 1.2"),
        (DiNAT_s, "large", "ade20k-640", "1.20 1.10 1.2.1.3.1.4.1.5.1.2.1.3.1.4.1.5.1.5 1.2"),
    ],
)
def test_dilations_are_the_published(cls, arch, name, expected):
    with torch.device("meta"):
        backbone = cls(arch, dilations=name)
    of_stages = [stage.split(".") if "." in stage else stage for stage in expected.split()]
    assert backbone.dilations == tuple(tuple(map(int, stage)) for stage in of_stages)
    used = tuple(tuple(block.attn.dilation for block in level.blocks) for level in backbone.levels)
    assert used == backbone.dilations


def test_dilations_in_one_list_are_those_of_the_stages():
    flat, nested = DiNAT(**MINI, dilations=[1, 8, 1, 2, 4]), DiNAT(**MINI, dilations=[[1], [8, 1], [2], [4]])
    assert flat.dilations == nested.dilations == ((1,), (8, 1), (2,), (4,))


@family
@pytest.mark.parametrize("padding", NAT.PADDINGS)
@pytest.mark.parametrize("size", [(1, 1), (31, 45), (64, 32)])
def test_maps_have_the_strides_at_any_size_with_gradients(cls, padding, size):
    backbone = cls(**MINI, **GAPS, layer_scale=0.1, padding=padding)
    x = torch.randn(2, 3, *size, requires_grad=True)
    maps = backbone(x)
    assert [m.shape for m in maps] == [
        (2, c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip((8, 16, 32, 64), (4, 8, 16, 32), strict=True)
    ]
    sum((m * torch.randn_like(m)).sum() for m in maps).backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


def test_a_pixel_changes_the_positions_that_see_it_and_no_others():
    """Reshapes that mix up rows, columns or channels move the change elsewhere."""
    near = dict(MINI, kernel_size=1)  # no position looks at another
    for cls, rows, columns in ((NAT, [(10, 11)], [(20, 21)]), (DiNAT_s, [(10,), (5,), (2,)], [(20,), (10,), (5,)])):
        backbone = cls(**near).double().eval()
        x = torch.zeros(1, 3, 64, 96, dtype=torch.float64)
        before = backbone(x)
        x[:, :, 42, 81] = 0.1
        for m, b, across, down in zip(backbone(x), before, rows, columns, strict=False):
            expected = torch.zeros(m.shape[2:], dtype=torch.bool)
            expected[torch.tensor(across)[:, None], torch.tensor(down)] = True
            assert torch.equal((m - b).abs().sum(1)[0] > 0, expected)


def slow_attention(layer: BiasedNA, x: torch.Tensor) -> torch.Tensor:
    """The layer by loops over positions, zeros appended to the input where a window with its gaps does not fit."""
    kernel, dilation, heads = layer.kernel_size, layer.dilation, layer.num_heads
    height, width = x.shape[1:3]
    if layer.padding == "zeros":
        grown = x.new_zeros(len(x), max(height, kernel * dilation), max(width, kernel * dilation), x.shape[-1])
        grown[:, :height, :width] = x
        x = grown
    query, key, value = (y.unflatten(-1, (heads, -1)) for y in layer.qkv(x).chunk(3, dim=-1))
    output = torch.zeros_like(x)

    def window(position: int, length: int) -> list[int]:
        of_group = list(range(position % dilation, length, dilation))
        first = min(max(of_group.index(position) - kernel // 2, 0), max(len(of_group) - kernel, 0))
        return of_group[first : first + kernel]

    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            keys = [(a, b) for a in window(i, x.shape[1]) for b in window(j, x.shape[2])]
            for head in range(heads):
                scores = torch.stack(
                    [
                        (query[:, i, j, head] * key[:, a, b, head]).sum(-1) * query.shape[-1] ** -0.5
                        + layer.rpb[head, (a - i) // dilation + kernel - 1, (b - j) // dilation + kernel - 1]
                        for a, b in keys
                    ],
                    dim=-1,
                )
                values = torch.stack([value[:, a, b, head] for a, b in keys], dim=1)
                mixed = (scores.softmax(-1).unsqueeze(-1) * values).sum(1)
                output[:, i, j].unflatten(-1, (heads, -1))[:, head] = mixed
    return layer.proj(output)[:, :height, :width]


@pytest.mark.parametrize("padding", NAT.PADDINGS)
@pytest.mark.parametrize(
    ("kernel_size", "dilation", "size"),
    [(3, 1, (2, 5)), (3, 2, (4, 7)), (5, 2, (3, 11)), (3, 3, (9, 10)), (3, 4, (1, 2))],
)
def test_small_maps_by_either_rule(padding, kernel_size, dilation, size):
    layer = BiasedNA(8, 2, kernel_size, dilation, padding).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    x = torch.randn(1, *size, 8, dtype=torch.float64, requires_grad=True)
    found, expected = layer(x), slow_attention(layer, x)
    torch.testing.assert_close(found, expected)
    weights, leaves = torch.randn_like(found), [x, *layer.parameters()]
    gradients = [torch.autograd.grad((y * weights).sum(), leaves) for y in (found, expected)]
    for mine, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, slow)


def test_the_rules_differ_on_small_maps_and_nowhere_else():
    clamp, zeros = (BiasedNA(8, 2, 3, 2, padding) for padding in NAT.PADDINGS)
    zeros.load_state_dict(clamp.state_dict())
    torch.nn.init.ones_(clamp.qkv.bias)  # what zeros are after the projection
    torch.nn.init.ones_(zeros.qkv.bias)
    x = torch.randn(1, 6, 7, 8)
    assert torch.equal(clamp(x), zeros(x))
    assert not torch.allclose(clamp(x[:, :5]), zeros(x[:, :5]))
    padded = F.pad(x[:, :5], (0, 0, 0, 0, 0, 1))
    torch.testing.assert_close(clamp(padded)[:, :5], zeros(x[:, :5]))


@pytest.mark.parametrize("padding", NAT.PADDINGS)
@pytest.mark.parametrize(("cls", "depths"), [(DiNAT, (3, 4, 6, 5)), (DiNAT_s, (2, 2, 6, 2))])
def test_the_dilations_of_detection_take_small_images(cls, depths, padding):
    """28 * 7 positions at stride 4 are 784 pixels, below which natten refuses since 0.17."""
    numbers = dict(MINI, depths=depths, num_heads=(1, 1, 2, 4), kernel_size=7, mlp_ratio=1)
    maps = cls(**numbers, dilations="coco", padding=padding)(torch.randn(1, 3, 320, 213))
    assert [m.shape[1:] for m in maps] == [(8, 80, 54), (16, 40, 27), (32, 20, 14), (64, 10, 7)]
    sum(m.sin().sum() for m in maps).backward()
    assert all(m.isfinite().all() for m in maps)


def test_out_indices_select_maps_and_leave_out_later_stages():
    backbone = DiNAT(**MINI, out_indices=(1, 2))
    assert [m.shape[1:] for m in backbone(torch.randn(1, 3, 64, 64))] == [(16, 8, 8), (32, 4, 4)]
    assert len(backbone.levels) == 3 and backbone.levels[-1].downsample is None
    assert NAT(**MINI, out_indices=(-2, -1)).out_indices == (2, 3)
    sum(m.sin().sum() for m in backbone(torch.randn(1, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in backbone.parameters())


@family
@pytest.mark.parametrize(
    ("out_indices", "channels", "strides"), [(None, (8, 16, 32, 64), (4, 8, 16, 32)), ((0, 2), (8, 32), (4, 16))]
)
def test_channels_and_strides_are_those_of_the_maps(cls, out_indices, channels, strides):
    backbone = cls(**MINI, out_indices=out_indices)
    assert (backbone.out_channels, backbone.out_strides) == (channels, strides)
    maps = backbone(torch.randn(1, 3, 64, 96))
    assert [m.shape[1:] for m in maps] == [(c, 64 // s, 96 // s) for c, s in zip(channels, strides, strict=True)]


def test_classifiers_get_the_mean_of_the_normed_map():
    maps, means = NAT(**MINI).eval(), NAT(**MINI, out_type="avg_featmap").eval()
    means.load_state_dict({key: x for key, x in maps.state_dict().items() if key in means.state_dict()})
    x = torch.randn(2, 3, 64, 70)
    torch.testing.assert_close(means(x), (maps(x)[-1].mean(dim=(2, 3)),))


@pytest.mark.parametrize("frozen_stages", [0, 1, 2, 4])
def test_frozen_stages_stay_frozen_and_in_eval_mode(frozen_stages):
    backbone = DiNAT(**MINI, frozen_stages=frozen_stages, drop_path_rate=0.5)
    assert backbone.train() is backbone
    assert not any(p.requires_grad for p in backbone.patch_embed.parameters())
    for stage, level in enumerate(backbone.levels):
        frozen = stage < frozen_stages
        parts = [level, backbone.get_submodule(f"norm{stage}")]
        assert all(part.training != frozen for part in parts)
        assert all(p.requires_grad != frozen for part in parts for p in part.parameters())


@family
def test_with_cp_gives_equal_maps_and_gradients(cls):
    plain, checkpointed = (cls(**MINI, with_cp=with_cp).double().train() for with_cp in (False, True))
    checkpointed.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 40, 33, dtype=torch.float64)
    for backbone in (plain, checkpointed):
        sum(m.sin().sum() for m in backbone(x)).backward()
    for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_drop_path_grows_linearly():
    backbone = NAT(**MINI, drop_path_rate=0.4)
    rates = [block.drop_path.rate for level in backbone.levels for block in level.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_first_weights_are_as_published():
    with torch.no_grad():
        backbone = NAT("mini", layer_scale=1e-5, depths=(1, 1, 1, 1))
    block = backbone.levels[3].blocks[0]
    for weight in (block.attn.qkv.weight, block.attn.rpb, block.mlp.fc1.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not block.attn.qkv.bias.any() and (block.gamma1 == 1e-5).all()


@family
def test_layer_depth_ascends_from_stem_to_head(cls):
    backbone = cls(**MINI)
    depths = [backbone.get_layer_depth(f"backbone.{name}", "backbone.") for name, _ in backbone.named_parameters()]
    assert {total for _, total in depths} == {5 + 2} and {depth for depth, _ in depths} == set(range(7))
    assert backbone.get_layer_depth("backbone.levels.1.blocks.1.attn.rpb", "backbone.") == (3, 7)
    assert backbone.get_layer_depth("levels.1.downsample.norm.weight") == (4, 7)
    assert backbone.get_layer_depth("decode_head.conv_seg.weight", "backbone.") == (6, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(arch="huge"), "unknown arch 'huge'; NAT has mini, tiny, small, base"),
        (dict(arch=dict(type="huge")), "unknown arch 'huge'; NAT has mini, tiny, small, base"),
        (
            dict(arch=dict(type="tiny", heads=3)),
            "arch has no field heads; it has embed_dims, depths, num_heads, mlp_ratio",
        ),
        (dict(embed_dims=None, mlp_ratio=None), "arch without a type needs embed_dims, mlp_ratio"),
        (dict(arch=dict(depths=[1]), embed_dims=None), r"arch without a type needs embed_dims too, got {'depths'"),
        (dict(depths=(1, 1)), r"one entry per stage, got \(1, 1\) and \(1, 2, 2, 4\)"),
        (dict(depths=(), num_heads=()), r"one entry per stage, got \(\) and \(\)"),
        (dict(depths=(1, 0, 1, 1)), "depths must be at least 1, got 0"),
        (dict(num_heads=(1, 2, 3, 4)), "num_heads=3 of stage 2 does not divide its 32 channels"),
        (dict(kernel_size=0), "kernel_size must be at least 1, got 0"),
        (dict(kernel_size=8), "kernel_size must be odd.* got 8"),
        (dict(mlp_ratio=2.5), "mlp_ratio must be a whole number, got 2.5"),
        (dict(layer_scale=-1.0), "layer_scale must be a finite number of at least 0, got -1.0"),
        (dict(dilations="coco"), "unknown dilations 'coco' of NAT; it has none by name"),
        (dict(dilations=[[1], [1], [1], [1]]), r"one number per block .* got \[\[1\], \[1\]"),
        (dict(dilations=[[1], [1, 0], [1], [1]]), "dilations must be at least 1, got 0"),
        (dict(dilations=[1, 8, 1]), r"as one list of 5, got \[1, 8, 1\]"),
        (dict(dilations=[1, 8, 1, 8, 0]), "dilations must be at least 1, got 0"),
        (dict(dilations=[[1], [1, "2"], [1], [1]]), r"one number per block .* got \[\[1\], \[1, '2'\]"),
        (dict(dilations=8), "one number per block .* got 8"),
        (dict(out_indices=(0, 4)), r"ascending stages from 0 to 3, got \(0, 4\)"),
        (dict(out_type="cls"), "out_type must be one of featmap, avg_featmap, got 'cls'"),
        (dict(padding="reflect"), "padding must be one of clamp, zeros, got 'reflect'"),
        (dict(frozen_stages=5), "frozen_stages must be between -1 and 4, got 5"),
        (dict(drop_path_rate=1.0), "drop_path_rate must be .* less than 1, got 1.0"),
        (dict(depths=["1", 1, 1, 1]), r"depths must be whole numbers, got \('1', 1"),
        (dict(depths=3), r"one entry per stage, got 3 and"),
        (dict(embed_dims="8"), "embed_dims must be a whole number, got '8'"),
        (dict(kernel_size=3.0), "kernel_size must be a whole number, got 3.0"),
        (dict(layer_scale="1"), "layer_scale must be a finite number of at least 0, got '1'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        NAT(**(MINI | arguments))


def test_dilations_by_name_are_named():
    with pytest.raises(
        ValueError, match="unknown dilations 'coc' of DiNAT; choose one of imagenet, imagenet-384, coco"
    ):
        DiNAT(**MINI, dilations="coc")


@pytest.mark.gpu
@family
def test_it_trains_on_a_gpu(cls, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # ten bits of a convolution's products otherwise
    backbone = cls(**MINI, **GAPS).cuda()
    here = cls(**MINI, **GAPS)
    here.load_state_dict(backbone.state_dict())
    x = torch.randn(1, 3, 45, 50)
    for b, y in ((backbone, x.cuda()), (here, x)):
        sum(m.sin().sum() for m in b(y)).backward()
    for mine, other in zip(backbone.parameters(), here.parameters(), strict=True):
        torch.testing.assert_close(mine.grad.cpu(), other.grad, rtol=1e-3, atol=1e-3)
