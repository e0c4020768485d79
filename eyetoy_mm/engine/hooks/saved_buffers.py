"""Evaluations of the model that is saved, in all processes."""

from __future__ import annotations

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner

from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class EvaluateSavedBuffersHook(Hook):
    """Have all processes evaluate with the buffers of process 0, which are those that checkpoints have.

    Batch norm has running means of the images that its process has seen. Left as they are, each process evaluates
    another model than the one that is saved: its metrics are not those of the checkpoint, and no run that goes on from
    it has them again. Training with batch norm does not depend on them.
    """

    priority = "LOW"  # after EMAHook, which puts the averaged model in the place of the other

    def before_val_epoch(self, runner: Runner) -> None:
        """Take over the buffers of process 0; those that no checkpoint has may differ in their sizes, and stay."""
        if dist.get_world_size() == 1:
            return
        saved = runner.model.state_dict().keys()
        for name, buffer in runner.model.named_buffers():
            if name in saved:
                dist.broadcast(buffer)
