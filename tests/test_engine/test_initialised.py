"""Backbones that read their pretrained weights themselves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import eyetoy_mm  # noqa: F401

pytest.importorskip("mmengine")
from mmengine.model import BaseModule
from mmengine.runner.checkpoint import CheckpointLoader

from eyetoy_mm.backbones.pretrained import allow_missing
from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.engine.hooks import CheckInitialisedHook


class OfItsOwn(BaseModule):
    """Loads as mmdet's Swin does."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
        self.positions = nn.Parameter(torch.arange(4.0).sin()[None], requires_grad=False)

    def init_weights(self) -> None:
        state = CheckpointLoader.load_checkpoint(self.init_cfg["checkpoint"], map_location="cpu")
        self.load_state_dict(state, strict=False)


def start(tmp_path: Path, *left_out: str) -> None:
    """What a Runner does, of a model whose file is without some names."""
    state = {key: x for key, x in OfItsOwn().state_dict().items() if key not in left_out}
    torch.save(state, path := str(tmp_path / "weights.pth"))
    model = nn.Module()
    model.backbone = OfItsOwn(dict(type="Pretrained", checkpoint=path))
    hook, runner = CheckInitialisedHook(), SimpleNamespace(model=model)
    hook.before_run(runner)
    model.backbone.init_weights()
    hook.before_train(runner)


def test_what_is_loaded_is_taken(tmp_path: Path) -> None:
    start(tmp_path)
    start(tmp_path, "layers.0.bias")  # of one dimension


def test_what_is_as_it_was_built_is_refused(tmp_path: Path) -> None:
    message = r"weights.pth does not fit backbone: 1 of 3 weights are as they were built \(backbone.layers.1.weight\)"
    with pytest.raises(CheckpointError, match=message):
        start(tmp_path, "layers.1.weight")
    with allow_missing(["backbone.layers.1"]):
        start(tmp_path, "layers.1.weight")
