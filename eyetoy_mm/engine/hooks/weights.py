"""Checkpoints under the names that the model has."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from eyetoy_mm.backbones.loading import prepare
from eyetoy_mm.compat.checkpoint_loading import LAST_READ
from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class PrepareWeightsHook(Hook):
    """Make of what a Runner reads what mmengine saves: bare and published files too, for every hook that takes weights.

    What does not fit is refused where it is loaded; see :mod:`eyetoy_mm.backbones.loading`.
    """

    priority = "VERY_HIGH"  # before EMAHook, which copies `state_dict` into the averaged model

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Rename in place.

        Raises:
            CheckpointError: It is not a dict of named tensors, or not all of a backbone of ours.
        """
        prepare(runner.model, checkpoint, LAST_READ.get())
