"""The backbones as timm's and Hugging Face's models."""

import json

import pytest
import torch

from tests.test_layering import MM_PACKAGES, run_without

pytest.importorskip("timm")

import timm

import eyetoy_mm.timm as ours


def test_names_are_those_of_the_backbones():
    assert set(ours.NAMES) <= set(timm.list_models())
    backbones = pytest.importorskip("eyetoy_mm.backbones")
    for name, archs in ours.OPENMMLAB.values():
        assert set(archs) == set(getattr(backbones, name).ARCHS)


def test_needs_no_openmmlab(tmp_path):
    code = f"""
import timm, torch, eyetoy_mm.timm
from eyetoy_mm.timm import Classifier
maps = timm.create_model("eyetoy_demo", features_only=True)(torch.zeros(1, 3, 33, 40))
assert [tuple(x.shape) for x in maps] == [(1, 32, 9, 10), (1, 64, 5, 5), (1, 128, 3, 3), (1, 192, 2, 2)]
model = timm.create_model("eyetoy_demo", num_classes=3).eval()
model.save_pretrained({str(tmp_path)!r})
again = Classifier.from_pretrained({str(tmp_path)!r})
x = torch.randn(1, 3, 32, 32)
assert torch.equal(model(x), again(x))
try:
    timm.create_model("nat_mini")
except ModuleNotFoundError as error:
    assert "eyetoy-mm[lite]" in str(error), error
else:
    raise AssertionError("built without OpenMMLab")
"""
    run_without([*MM_PACKAGES, "natten", "cv2", "matplotlib"], code)


@pytest.mark.parametrize(("name", "pool"), [("eyetoy_demo", "token"), ("eyetoy_demo", "avg"), ("nat_mini", "avg")])
def test_scores_are_those_of_the_openmmlab_backbone(name, pool):
    backbones = pytest.importorskip("eyetoy_mm.backbones")
    model = timm.create_model(name, num_classes=5, global_pool=pool).eval()
    cls = backbones.EyeToy if name.startswith("eyetoy") else backbones.NAT
    out_type = "context_token" if pool == "token" else "avg_featmap"
    backbone = cls(name.split("_")[1], out_type=out_type).eval()
    backbone.load_state_dict(model.backbone.state_dict())
    x = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        (expected,) = backbone(x)
        torch.testing.assert_close(model.forward_head(model.forward_features(x), pre_logits=True), expected)
        torch.testing.assert_close(model(x), model.get_classifier()(expected))


def test_features_of_an_openmmlab_backbone():
    pytest.importorskip("mmengine")
    with torch.device("meta"):
        model = timm.create_model("dinat_s_tiny", features_only=True, out_indices=(0, 2))
        maps = model(torch.empty(1, 3, 70, 96))
    assert [tuple(x.shape) for x in maps] == [(1, 96, 18, 24), (1, 384, 5, 6)]
    assert model.feature_info.channels() == [96, 384] and model.feature_info.reduction() == [4, 16]
    assert not [name for name, _ in model.named_parameters() if "levels.3" in name]


@pytest.mark.parametrize("name", ["eyetoy_demo", "eyetoy_shallow"])
def test_features_have_what_their_info_says(name):
    whole = timm.create_model(name, features_only=True, in_chans=1).eval()
    x = torch.randn(1, 1, 64, 32)
    with torch.no_grad():
        maps = whole(x)
        for features, channels, stride in zip(maps, whole.feature_info.channels(), whole.feature_info.reduction()):
            assert features.shape == (1, channels, 64 // stride, 32 // stride)
        first = timm.create_model(name, features_only=True, in_chans=1, out_indices=(0,)).eval()
        assert sum(p.numel() for p in first.parameters()) < sum(p.numel() for p in whole.parameters())
        names = first.state_dict().keys()
        first.load_state_dict({key: x for key, x in whole.state_dict().items() if key in names})
        torch.testing.assert_close(first(x)[0], maps[0])


def test_stages_are_named_as_in_timm():
    model = timm.create_model("eyetoy_demo", num_classes=0).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        final, maps = model.forward_intermediates(x)
        assert torch.equal(final, maps[-1]) and len(maps) == 4 and model(x).shape == (1, 192)
        for indices, expected in ((2, maps[2:]), ([0, -1], [maps[0], maps[3]]), ((1,), maps[1:2])):
            found = model.forward_intermediates(x, indices, stop_early=True, intermediates_only=True)
            assert len(found) == len(expected) and all(map(torch.equal, found, expected))
    with pytest.raises(ValueError, match="eyetoy_demo has the stages 0 to 3, asked for .*4"):
        timm.create_model("eyetoy_demo", features_only=True, out_indices=(4,))


@pytest.mark.parametrize("name", ["eyetoy_demo", "nat_mini"])
def test_what_is_left_of_a_model_is_as_it_was(name):
    if name == "nat_mini":
        pytest.importorskip("mmengine")
    model = timm.create_model(name, drop_path_rate=0.5).double().eval()
    model.set_grad_checkpointing()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = model.forward_intermediates(x, [1], intermediates_only=True)
        assert model.prune_intermediate_layers([1]) == [1]
        assert torch.equal(model.forward_intermediates(x, [1], intermediates_only=True)[0], expected[0])
    assert not any(part.training for part in model.modules() if part is not model.head.fc)
    assert model.backbone.with_cp


def test_every_parameter_has_a_group_and_a_gradient():
    from timm.models import group_parameters

    for name in ("eyetoy_demo", "nat_mini"):
        if name == "nat_mini":
            pytest.importorskip("mmengine")
        model = timm.create_model(name, num_classes=2)
        model.set_grad_checkpointing()
        model(torch.randn(1, 3, 32, 32)).sum().backward()
        assert all(p.grad is not None for p in model.parameters())
        groups = group_parameters(model, model.group_matcher())
        assert len(groups) > 5 and sum(map(len, groups.values())) == len(list(model.parameters()))


def test_a_checkpoint_with_other_classes_and_channels(tmp_path):
    from safetensors.torch import save_file

    model = timm.create_model("eyetoy_demo", num_classes=7).eval()
    save_file(model.state_dict(), path := tmp_path / "weights.safetensors")
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(timm.create_model("eyetoy_demo", num_classes=7, checkpoint_path=str(path)).eval()(x), model(x))
    cfg = dict(file=str(path), num_classes=7)
    tuned = timm.create_model("eyetoy_demo", pretrained=True, pretrained_cfg_overlay=cfg, num_classes=2, in_chans=1)
    assert tuned.get_classifier().out_features == 2
    stem = model.backbone.encoder.initial_proj.weight.sum(1, keepdim=True)
    torch.testing.assert_close(tuned.backbone.encoder.initial_proj.weight, stem)


def test_reset_classifier_is_saved(tmp_path):
    model = timm.create_model("eyetoy_demo", num_classes=4, global_pool="avg")
    model.reset_classifier(2)
    model.save_pretrained(tmp_path)
    assert {"num_classes": 2, "global_pool": "avg"}.items() <= json.loads(
        (tmp_path / "config.json").read_text()
    ).items()
    assert ours.Classifier.from_pretrained(tmp_path).get_classifier().out_features == 2
    with pytest.raises(ValueError, match="unknown model 'eyetoy_huge'; choose one of eyetoy_shallow"):
        ours.Classifier("eyetoy_huge")
    with pytest.raises(ValueError, match="global_pool must be avg for eyetoy_shallow, got 'token'"):
        ours.Classifier("eyetoy_shallow", global_pool="token")


def test_weights_that_do_not_fit_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    timm.create_model("eyetoy_demo", num_classes=4).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state.pop("head.fc.bias")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match="head.fc.bias"):
        ours.Classifier.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["eyetoy_demo", "nat_mini"])
def test_timm_reads_what_was_saved(name, tmp_path):
    if name == "nat_mini":
        pytest.importorskip("mmengine")
    cfg = dict(mean=(0.5, 0.4), std=(0.2, 0.3), file=str(tmp_path / "elsewhere"))
    model = timm.create_model(name, num_classes=4, in_chans=2, global_pool="avg", pretrained_cfg_overlay=cfg).eval()
    model.save_pretrained(tmp_path / "saved")
    assert "elsewhere" not in (tmp_path / "saved" / "config.json").read_text()
    x = torch.randn(1, 2, 32, 32)
    again = timm.create_model(f"local-dir:{tmp_path}/saved", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
        assert torch.equal(ours.Classifier.from_pretrained(tmp_path / "saved")(x), model(x))
    data = timm.data.resolve_model_data_config(again)
    assert (tuple(data["mean"]), tuple(data["std"]), data["input_size"][0]) == ((0.5, 0.4), (0.2, 0.3), 2)
    tuned = timm.create_model(f"local-dir:{tmp_path}/saved", pretrained=True, num_classes=7)
    assert tuned.get_classifier().out_features == 7


@pytest.mark.parametrize(("name", "positions"), [("eyetoy_demo", 1 + 2), ("nat_mini", 2)])
def test_nothing_is_pooled_where_timm_is_asked_for_that(name, positions):
    if name == "nat_mini":
        pytest.importorskip("mmengine")
    model = timm.create_model(name, num_classes=0, global_pool="").eval()
    x = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        features = model(x)
        assert features.shape == (1, positions, model.num_features)
        assert torch.equal(features, model.forward_features(x))
        model.reset_classifier(5)  # keeps the way to pool
        assert model(x).shape == (1, positions, 5)
        model.reset_classifier(5, "avg")
        assert model(x).shape == (1, 5)
        model.reset_classifier(0, "")
        assert torch.equal(model(x), features)
