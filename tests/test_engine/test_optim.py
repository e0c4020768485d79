"""Layer-wise learning rate decay through each toolbox' own optimizer builder."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

import eyetoy_mm.backbones  # noqa: F401 - registers, and supplies what mmcv-lite lacks
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.registry import MODELS

CONFIGS = {
    "mmseg": "configs/sample/upernet_eyetoy-demo_sample.py",
    "mmdet": "configs/mask_rcnn_eyetoy_coco.py",
    "mmpretrain": "configs/eyetoy_imagenet.py",
}
DEMO = {
    "mmseg": {},
    "mmdet": {"model.backbone.arch.type": "demo", "model.neck.in_channels": [32, 64, 128, 192]},
    "mmpretrain": {"model.backbone.arch.type": "demo", "model.head.in_channels": 192},
}


def wrapper_config(**changes):
    return dict(
        type="OptimWrapper",
        optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.1),
        constructor="eyetoy_mm.LayerDecayOptimWrapperConstructor",
        paramwise_cfg=dict(layer_decay_rate=0.5, custom_keys=dict(norm=dict(decay_mult=0.0))) | changes,
    )


@pytest.mark.parametrize("toolbox", CONFIGS)
def test_rates_fall_with_the_distance_from_the_head(toolbox):
    pytest.importorskip(toolbox, reason=f"{toolbox} is not installed")
    config = load_config(CONFIGS[toolbox], options=DEMO[toolbox])
    init_default_scope(toolbox)
    model = MODELS.build(config.model)
    groups = build_optim_wrapper(model, wrapper_config()).optimizer.param_groups
    group_of = {id(p): group for group in groups for p in group["params"]}
    of = {name: group_of[id(p)] for name, p in model.named_parameters()}
    # demo: stem, five blocks, one global layer, what follows
    stack = "backbone.encoder.transformer_stack.blocks"
    expected = {"backbone.encoder.initial_proj": 7, f"{stack}.0": 6, f"{stack}.4": 2}
    expected |= {"backbone.encoder.global_attention.layers.0": 1, "backbone.norm3": 0}
    for prefix, distance in expected.items():
        rates = {group["lr"] for name, group in of.items() if name.startswith(f"{prefix}.")}
        assert rates == {0.5**distance}, prefix
    assert {group["lr"] for name, group in of.items() if not name.startswith("backbone.")} == {1.0}
    assert all(group["weight_decay"] == (0.0 if "norm" in name else 0.1) for name, group in of.items())


def test_rates_multiply_those_of_custom_keys():
    config = load_config(CONFIGS["mmseg"])
    pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
    init_default_scope("mmseg")
    model = MODELS.build(config.model)
    changes = dict(custom_keys={"initial_proj": dict(lr_mult=0.1)})
    groups = build_optim_wrapper(model, wrapper_config(**changes)).optimizer.param_groups
    stem = {id(p) for p in model.backbone.encoder.initial_proj.parameters()}
    assert [g["lr"] for g in groups if id(g["params"][0]) in stem] == pytest.approx([0.1 * 0.5**7] * len(stem))


@pytest.mark.parametrize("rate", [None, 0.0, 1.5])
def test_rates_out_of_range(rate):
    with pytest.raises(ValueError, match=f"layer_decay_rate in \\(0, 1\\], got {rate}"):
        build_optim_wrapper(nn.Linear(2, 2), wrapper_config(layer_decay_rate=rate))


def test_models_that_do_not_tell_depths():
    model = nn.Module()
    model.backbone = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="get_layer_depth; Linear has none"):
        build_optim_wrapper(model, wrapper_config())


def test_bfloat16_on_any_device():
    """The forward pass runs in bfloat16, weights and gradients stay float32, and clipping counts the true gradient."""
    model = nn.Linear(4, 2)
    wrapper = build_optim_wrapper(
        model,
        dict(
            type="eyetoy_mm.BFloat16OptimWrapper",
            optimizer=dict(type="SGD", lr=1.0),
            accumulative_counts=2,
            clip_grad=dict(max_norm=1e9),
        ),
    )
    wrapper.initialize_count_status(model, 0, 2)
    x, before = torch.randn(3, 4), model.weight.detach().clone()
    for _ in range(2):
        with wrapper.optim_context(model):
            loss = model(x).sum()
        assert loss.dtype == torch.bfloat16
        wrapper.update_params(loss)
    assert not torch.is_autocast_enabled("cpu") and model.weight.dtype == torch.float32
    torch.testing.assert_close(before - model.weight, x.sum(0).expand(2, 4), rtol=2e-2, atol=2e-2)
