"""Test-time augmentation: what every tool does with ``tta_pipeline`` and ``tta_model`` of a config."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.config import Config
from torch import nn

from eyetoy_mm.engine.config_parts import datasets_of
from eyetoy_mm.errors import UserError
from eyetoy_mm.registry import type_name


def augment(config: Config) -> None:
    """Let every test dataset, whatever is around it, prepare images as ``tta_pipeline`` says, in place.

    Raises:
        UserError: The config has no test-time augmentation.
    """
    missing = [key for key in ("tta_model", "tta_pipeline") if not config.get(key)]
    if missing:
        raise UserError(f"{config.filename} has no test-time augmentation: {' and '.join(missing)} missing")
    for _, dataset in datasets_of(config, ("test",)):
        dataset["pipeline"] = copy.deepcopy(config.tta_pipeline)
    if config.get("test_pipeline"):
        config.test_pipeline = copy.deepcopy(config.tta_pipeline)


def merging_model(config: Config) -> dict[str, Any]:
    """``tta_model`` of a config; mmdet's, which merges boxes and refuses masks, becomes ours, which merges both."""
    settings = copy.deepcopy(config.tta_model)
    if type_name(settings) == "DetTTAModel":
        from eyetoy_mm.engine.instance_tta import InstanceTTAModel

        settings["type"] = InstanceTTAModel
    return settings


def check_can_be_merged(model: nn.Module) -> None:
    """Check that what a model predicts for several views of an image can be merged, before it predicts anything.

    Raises:
        UserError: It predicts panoptic segments, which have no scores to merge by.
    """
    fusion = getattr(model, "panoptic_fusion_head", None)
    if fusion is not None and (getattr(fusion, "test_cfg", None) or {}).get("panoptic_on", True):
        raise UserError(
            "--tta: segments of a panoptic model cannot be merged, they have no scores. Leave it out, or take its "
            "objects alone: --cfg-options model.test_cfg.panoptic_on=False model.test_cfg.instance_on=True"
        )
