"""The curves of a run as a picture in its work dir."""

from __future__ import annotations

from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from eyetoy_mm.engine.hooks.common import save_figure, told_if_it_fails
from eyetoy_mm.registry import HOOKS

PICTURE = "results.png"


@HOOKS.register_module()
class ResultsPictureHook(Hook):
    """Draw what a run has logged into ``results.png`` of its work dir, when it ends or is told to stop.

    A run whose picture fails is as good as any other: what went wrong is in the log.
    """

    priority = "LOWEST"  # after everything is logged

    def before_stop(self, runner: Runner) -> None:
        """Draw what there is of a run that is told to stop, once it has saved."""
        self.after_train(runner)

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Draw."""
        target = Path(runner.work_dir, PICTURE)
        with told_if_it_fails(runner, f"The curves were not drawn into {target}"):
            from eyetoy_mm.engine.curves import draw_curves, read_curves

            save_figure(draw_curves([read_curves(runner.work_dir)]), target)
            runner.logger.info(f"The curves of this run are in {target}")
