"""What a model does before it has learned anything."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class EvaluateUntrainedHook(Hook):
    """Evaluate once before the first iteration, so that a log shows what training added. Does nothing on resume."""

    priority = "LOWEST"

    def before_train_epoch(self, runner: Runner) -> None:
        """Run the validation loop, once every hook has prepared what it needs, and the run is described."""
        if runner.iter == 0 and runner.val_loop is not None:
            runner.val_loop.run()
