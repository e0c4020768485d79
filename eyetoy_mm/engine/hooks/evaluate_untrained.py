"""What a model does before it has learned anything."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class EvaluateUntrainedHook(Hook):
    """Evaluate once before the first iteration, so that a log shows what training added. Does nothing on resume."""

    priority = "LOWEST"  # after CheckpointHook.before_train, which prepares what saving a best checkpoint needs

    def before_train(self, runner: Runner) -> None:
        """Run the validation loop."""
        if runner.iter == 0 and runner.val_loop is not None:
            runner.val_loop.run()
