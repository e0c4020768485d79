"""mmengine's analysis of our models against arithmetic, and of known models against what is published of them."""

import warnings

import pytest
import torch
from mmengine.analysis import FlopAnalyzer, get_model_complexity_info
from torch.utils.flop_counter import FlopCounterMode

import eyetoy_mm  # noqa: F401 - before mmpretrain: supplies what mmcv-lite lacks
from eyetoy_mm.backbones.eyetoy import EyeToy
from eyetoy_mm.ops.flops import is_counting

ARCH = dict(
    embed_dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), num_heads=(1, 1, 1, 2), windows=((5, 3), (9, 3), (3, 3), (3,)),
    merging=((1, 4), (1, 2), (1, 2), (1,)), global_layers=2, global_heads=2, register_tokens=3,
)  # fmt: skip
SIZE = (117, 150)


def analyze(model, *size):
    analyzer = FlopAnalyzer(model, torch.zeros(1, 3, *size))
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad():
        analyzer.total()
    return analyzer


def ceil(number, divisor):
    return -(-number // divisor)


def block_flops(height, width, channels_in, channels, windows, merging, groups, halve):
    """A multiply-add is one; 5 for each element that is normed, 4 for each that is interpolated."""
    total = 5 * height * width * channels_in
    share = channels // len(windows)
    for window, factor in zip(windows, merging, strict=True):
        h, w = ceil(height, factor), ceil(width, factor)
        total += h * w * factor**2 * channels_in // groups * channels  # tokenizer
        total += h * w * channels * 3 * share
        total += 2 * (h * min(window, h)) * (w * min(window, w)) * share
    if halve:
        height, width = ceil(height, 2), ceil(width, 2)
        total += 4 * height * width * (channels_in + channels)
    shortcut = channels_in * channels if channels_in != channels else 0
    return total + height * width * (channels**2 + shortcut + 5 * channels + 8 * channels**2)


def global_layer_flops(positions, tokens, channels):
    length = positions + tokens
    attention = 2 * channels * (tokens * length + positions * tokens)
    return length * (5 * channels + 3 * channels**2 + 5 * channels + 8 * channels**2) + attention


def test_every_layer_is_exact():
    model = EyeToy(arch=ARCH, dropout=0.1).train()  # with dropout, tokenizers and projections stay apart
    counts = analyze(model, *SIZE).by_module()
    height, width = ceil(SIZE[0], 4), ceil(SIZE[1], 4)
    expected = {"encoder.initial_proj": height * width * 7 * 7 * 3 * 8}
    channels, block = 8, 0
    for stage, out in enumerate(ARCH["embed_dims"]):
        for index in range(ARCH["depths"][stage]):
            halve = stage > 0 and index == 0
            groups = torch.gcd(torch.tensor(channels), torch.tensor(out)).item()
            settings = ARCH["windows"][stage], ARCH["merging"][stage], groups
            name = f"encoder.transformer_stack.blocks.{block}"
            expected[name] = block_flops(height, width, channels, out, *settings, halve)
            if halve:
                height, width = ceil(height, 2), ceil(width, 2)
            channels, block = out, block + 1
        expected[f"norm{stage}"] = 5 * height * width * channels
    for layer in range(2):
        expected[f"encoder.global_attention.layers.{layer}"] = global_layer_flops(height * width, 4, channels)
    assert {name: counts[name] for name in expected} == expected
    assert counts[""] == sum(expected.values())


def test_the_toolboxes_entry_point_and_torchs_counter_agree():
    model = EyeToy(arch=ARCH).eval()
    info = get_model_complexity_info(model, (3, *SIZE), show_table=False, show_arch=False)
    assert info["params"] == sum(p.numel() for p in model.parameters()) and info["activations"] > 0
    by_operator = analyze(model, *SIZE).by_operator()
    assert info["flops"] == sum(by_operator.values())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, *SIZE))
    products = info["flops"] - by_operator["layer_norm"] - by_operator["upsample_bilinear2d"]
    assert counter.get_total_flops() == 2 * products


def test_a_graph_for_export_still_has_plain_operators():
    model = EyeToy(arch=ARCH, out_indices=(0,)).eval()
    analyze(model, 32, 32)
    assert not is_counting()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, torch.zeros(1, 3, 32, 32), check_trace=False)
    assert "eyetoy_mm::" not in str(traced.inlined_graph)


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (dict(type="SwinTransformer", arch="tiny"), 4.5e9),  # Swin's paper
        (dict(type="ConvNeXt", arch="tiny"), 4457472768),  # mmpretrain's metafiles, also below
        (dict(type="ResNet", depth=50), 4120000000),
        (dict(type="VisionTransformer", arch="deit-small", img_size=224, patch_size=16), 4607954304),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_known_models_have_the_published_figures(config, published):
    models = pytest.importorskip("mmpretrain.registry", reason="mmpretrain is not installed").MODELS
    model = models.build(config | dict(_scope_="mmpretrain"))  # other tests may have left another scope
    model.eval()
    assert analyze(model, 224, 224).total() == pytest.approx(published, rel=0.01)
