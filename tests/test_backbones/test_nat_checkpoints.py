"""Published files of NAT, DiNAT and DiNAT_s: results of the original code, and loading that drops nothing silently.

``nat_parity/*.npz`` hold outputs and gradients of the original models with natten 0.17.5, and names and shapes of their
weights, whose values follow from the names; ``benchmarks/nat.py --record`` writes them.
"""

import json
import math
import re
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

import eyetoy_mm  # noqa: F401 - before mmpretrain: supplies what mmcv-lite lacks
from eyetoy_mm import backbones
from eyetoy_mm.backbones.nat_checkpoints import describe, split, to_official, to_openmmlab
from eyetoy_mm.compat.checkpoint_loading import CheckpointError

RECORDED = sorted((Path(__file__).parent / "nat_parity").glob("*.npz"))
of_all = pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)


@cache
def recorded(path):
    """Arrays, and the case: type, numbers, size of the image, padding."""
    with np.load(path) as arrays:
        found = dict(arrays)
    return found, json.loads(str(found["case"]))


def draw(name, shape):
    """The image, or weights with which every part matters, as ``benchmarks/nat.py`` draws them."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name == "image":
        values = random.randint(-2, 3, shape)
    elif len(shape) == 1:
        values = 0.1 * random.randn(*shape) + bool(re.search(r"norm.*weight|gamma", name))
    else:
        values = random.randn(*shape) * (0.5 if name.endswith("rpb") else math.prod(shape[1:]) ** -0.5)
    return torch.from_numpy(np.float32(values))


def official(path, kind):
    """A file as the original code saves it: of a classifier, or of a dense backbone."""
    shapes = json.loads(str(recorded(path)[0]["shapes"]))[kind]
    return {key: draw(key, shape) for key, shape in shapes.items()}


def build(path, checkpoint=None, prefix=None, **more):
    _, (kind, numbers, _, padding) = recorded(path)
    init_cfg = checkpoint and dict(type="Pretrained", checkpoint=str(checkpoint), prefix=prefix)
    return getattr(backbones, kind)(None, **(numbers | dict(padding=padding) | more), init_cfg=init_cfg)


def saved(state, tmp_path):
    torch.save(state, tmp_path / "checkpoint.pth")
    return tmp_path / "checkpoint.pth"


def path_of(name):
    return next(path for path in RECORDED if path.stem == name)


@pytest.fixture
def log(monkeypatch):
    """What mmengine logs, as one string when called."""
    lines = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, "callHandlers", lambda record: lines.append(record.getMessage()))
    return lambda: "\n".join(lines)


@of_all
@pytest.mark.parametrize("kind", ["classifier", "dense"])
def test_results_are_those_of_the_original_code(path, kind, tmp_path):
    """Logits or every map, and gradients by the image and by a table of bias, within 1e-4 of the largest value."""
    arrays, (_, numbers, size, _) = recorded(path)
    state = official(path, kind)
    out_type = "avg_featmap" if kind == "classifier" else "featmap"
    backbone = build(path, saved(state, tmp_path), out_type=out_type)
    backbone.init_weights()
    backbone.eval()
    image = draw("image", (1, 3, *size)).requires_grad_()
    outputs = backbone(image)
    if kind == "classifier":
        outputs = (outputs[0] @ state["head.weight"].T + state["head.bias"],)
    assert len(outputs) == (len(numbers["depths"]) if kind == "dense" else 1)
    gradients = torch.autograd.grad(sum(y.sin().sum() for y in outputs), [image, backbone.levels[0].blocks[0].attn.rpb])
    found = {f"output {i}": y for i, y in enumerate(outputs)}
    found |= {"image gradient": gradients[0][..., ::5, ::5], "bias gradient": gradients[1]}
    for name, mine in found.items():
        theirs = torch.from_numpy(arrays[f"{kind}/{name}"])
        assert (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max(), name


def test_the_records_cover_what_was_promised():
    cases = [recorded(path)[1] for path in RECORDED]
    assert {numbers["kernel_size"] for _, numbers, *_ in cases} == {3, 5, 7, 11}
    assert {kind for kind, *_ in cases} == {"NAT", "DiNAT", "DiNAT_s"} and {case[3] for case in cases} == {
        "clamp",
        "zeros",
    }
    assert any(numbers["layer_scale"] for _, numbers, *_ in cases)
    assert sum(path.stat().st_size for path in RECORDED) < 300_000


@of_all
def test_a_classifier_starts_a_dense_backbone_with_fresh_norms(path, tmp_path, log):
    state = official(path, "classifier")
    backbone = build(path, saved(state, tmp_path))
    backbone.init_weights()
    own, _ = split(state)
    for key, x in backbone.state_dict().items():
        if key.startswith("norm"):
            assert torch.equal(x, torch.full_like(x, float(key.endswith("weight")))), key
        else:
            assert torch.equal(x, own[key]), key
    last = len(backbone.levels) - 1
    assert f"has no such output, stage or head: norm{last}.weight, norm{last}.bias" in log()
    assert "left as they were: norm0.weight, norm0.bias" in log() and "head.fc.weight" in log()


def test_a_backbone_cut_short_takes_its_part(tmp_path, log):
    path = path_of("window-3")
    state = official(path, "dense")
    backbone = build(path, saved(state, tmp_path), out_indices=(1, 2))
    backbone.init_weights()
    assert all(torch.equal(x, state[key]) for key, x in backbone.state_dict().items())
    assert all(name in log() for name in ("norm0.bias", "norm3.weight", "levels.2.downsample.norm.bias", "levels.3."))


@pytest.mark.parametrize("prefix", [None, "backbone.", "backbone"])
@pytest.mark.parametrize("name", ["dilated", "swin"])
def test_files_of_a_whole_detector(name, prefix, tmp_path, log):
    """Published ones and ours; with or without saying the prefix."""
    path = path_of(name)
    state = official(path, "dense")
    whole = {f"backbone.{key}": x for key, x in state.items()} | {"neck.convs.0.weight": torch.zeros(1)}
    for file in (whole, {"state_dict": to_openmmlab(whole), "meta": {}}, {"model": whole}):
        backbone = build(path, saved(file, tmp_path), prefix)
        backbone.init_weights()
        own, _ = split(state)
        assert all(torch.equal(x, own[key]) for key, x in backbone.state_dict().items())
        assert "not of the backbone: neck.convs.0.weight" in log()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("levels.1.blocks.0.attn.rpb"), r"1 missing \(levels.1.blocks.0.attn.rpb\)$"),
        (lambda s: s.pop("norm1.bias"), r"1 missing \(norm1.bias\)$"),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 not in the model \(extra\)$"),
        (lambda s: s.update({"levels.2.blocks.0.norm1.bias": torch.zeros(1)}), r"1 not in the model \(levels.2"),
        (lambda s: s.update({"norm7.bias": torch.zeros(1)}), r"1 not in the model \(norm7.bias\)"),
        (
            lambda s: s.update({"levels.0.blocks.0.attn.rpb": torch.zeros(2, 13, 13)}),
            r"1 of another shape \(levels.0.blocks.0.attn.rpb \(2, 13, 13\) for \(2, 5, 5\)\)$",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(change, message, tmp_path):
    path = path_of("dilated")
    state = official(path, "dense")
    change(state)
    backbone = build(path, saved(state, tmp_path))
    before = {key: x.clone() for key, x in backbone.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        backbone.init_weights()
    text = str(caught.value)
    assert "checkpoint.pth does not fit this DiNAT, and nothing was loaded: " in text
    assert re.search(message, text.split(". Is it")[0]), text
    assert all(torch.equal(x, before[key]) for key, x in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (dict(kernel_size=5), r"4 of another shape \(levels.0.blocks.0.attn.rpb \(2, 5, 5\) for \(2, 9, 9\), levels"),
        (dict(layer_scale=1e-5), r"8 missing \(levels.0.blocks.0.gamma1, levels.0.blocks.0.gamma2, "),
        (dict(depths=(2, 1), dilations=None), r"13 not in the model \(levels.1.blocks.1.norm1.weight, .* and 5 more\)"),
        (dict(in_channels=4), r"1 of another shape \(patch_embed.proj.0.weight \(2, 3, 3, 3\) for \(2, 4, 3, 3\)\)"),
    ],
)
def test_another_model_is_an_error(more, message, tmp_path):
    path = path_of("dilated")
    backbone = build(path, saved(official(path, "classifier"), tmp_path), **more)
    with pytest.raises(CheckpointError, match=message):
        backbone.init_weights()


def test_files_that_are_something_else(tmp_path):
    path = path_of("dilated")
    for file, prefix, message in (
        ({"conv1.weight": torch.zeros(1)}, None, r"\d+ missing .*; 1 not in the model \(conv1.weight\)"),
        ({"conv1.weight": torch.zeros(1)}, "backbone.", "no name starts with 'backbone.', but conv1.weight"),
        ([1, 2], None, "not a dict of named tensors but list"),
        ({"epoch": 3}, None, "epoch should be tensors"),
    ):
        with pytest.raises(CheckpointError, match=message):
            build(path, saved(file, tmp_path), prefix).init_weights()


@of_all
@pytest.mark.parametrize("kind", ["classifier", "dense", "detector"])
def test_names_go_to_openmmlab_and_back(path, kind):
    state = official(path, "classifier" if kind == "classifier" else "dense")
    if kind == "detector":
        state = {f"backbone.{key}": x for key, x in state.items()} | {"roi_head.bbox_head.fc_cls.bias": torch.zeros(3)}
    there = to_openmmlab(state)
    for found, expected in ((to_official(there), state), (to_openmmlab(there), there), (to_official(state), state)):
        assert found.keys() == expected.keys() and all(found[key] is expected[key] for key in found)
    assert not any("layers." in key or key.startswith(("norm", "backbone.norm.")) for key in there)


def test_a_classifier_of_mmpretrain_takes_the_converted_file():
    models = pytest.importorskip("mmpretrain.registry", reason="mmpretrain is not installed").MODELS
    init_default_scope("mmpretrain")  # another test may have left another one
    path = path_of("swin")
    _, (_, numbers, *_) = recorded(path)
    backbone = dict(type="eyetoy_mm.DiNAT_s", arch=None, **numbers, out_type="avg_featmap")
    head = dict(type="LinearClsHead", num_classes=10, in_channels=8)
    model = models.build(dict(type="mmpretrain.ImageClassifier", backbone=backbone, head=head))
    model.load_state_dict(to_openmmlab(official(path, "classifier")))


@of_all
def test_the_weights_tell_the_backbone(path):
    _, (kind, numbers, *_) = recorded(path)
    own, _ = split(official(path, "dense"))
    told = describe(own)
    assert told.pop("type") == ("eyetoy_mm.DiNAT_s" if kind == "DiNAT_s" else "eyetoy_mm.NAT")
    assert bool(told.pop("layer_scale")) == bool(numbers["layer_scale"])
    expected = {key: numbers[key] for key in ("embed_dims", "depths", "num_heads", "kernel_size", "mlp_ratio")}
    assert told == expected | dict(arch=None, in_channels=3, out_indices=list(range(len(numbers["depths"]))))
