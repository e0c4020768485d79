"""The constructor that gives a backbone its own learning rate."""

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

import eyetoy_mm  # noqa: F401 - its scope


def settings(model, **paramwise):
    wrapper = build_optim_wrapper(
        model,
        dict(
            type="OptimWrapper",
            constructor="eyetoy_mm.BackboneLROptimWrapperConstructor",
            optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.5),
            paramwise_cfg=paramwise,
        ),
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(g["params"][0])]: (g["lr"], g["weight_decay"]) for g in wrapper.optimizer.param_groups}


def model():
    parts = dict(linear=nn.Linear(2, 2, bias=False), norm=nn.LayerNorm(2, bias=False))
    head = dict(norm=nn.LayerNorm(2, bias=False), slow=nn.Linear(2, 2, bias=False))
    return nn.ModuleDict(dict(backbone=nn.ModuleDict(parts), head=nn.ModuleDict(head)))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = model()["backbone"], model()["head"]


def test_it_multiplies_what_the_other_rules_give():
    keys = dict(norm=dict(decay_mult=0.0), slow=dict(lr_mult=0.5))
    assert settings(Model(), backbone_lr_mult=0.1, custom_keys=keys) == {
        "backbone.linear.weight": (0.1, 0.5),
        "backbone.norm.weight": (0.1, 0.0),
        "head.norm.weight": (1.0, 0.0),
        "head.slow.weight": (0.5, 0.5),
    }


def test_it_says_what_is_missing():
    with pytest.raises(ValueError, match="backbone_lr_mult of at least 0, got None"):
        settings(Model(), norm_decay_mult=0.0)
    with pytest.raises(ValueError, match="Linear has none"):
        settings(nn.Linear(2, 2), backbone_lr_mult=0.1)
