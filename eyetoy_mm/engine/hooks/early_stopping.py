"""Early stopping that is not forgotten when a run goes on."""

from __future__ import annotations

from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import Runner

from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class ExactEarlyStoppingHook(EarlyStoppingHook):
    """mmengine's hook, which waits on where a run goes on, with the best score that it had."""

    priority = "LOW"  # as schedules that follow metrics: before the best checkpoint, and all that is known, is saved

    @property
    def _key(self) -> str:
        return f"early_stopping/{self.monitor}"

    def before_train(self, runner: Runner) -> None:
        """Go on with what the checkpoint knows, if there is one; a run that had stopped trains no more."""
        kept = runner.message_hub.get_info(self._key) if runner.iter else None
        if kept is None:
            return
        self.wait_count, self.best_score = kept
        if self.wait_count >= self.patience:
            runner.train_loop.stop_training = True  # type: ignore[union-attr]
            runner.logger.info(f"{self.monitor} did not improve in {self.wait_count} evaluations: it stays stopped")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Decide whether to stop, and tell what is saved next."""
        super().after_val_epoch(runner, metrics)
        runner.message_hub.update_info(self._key, (self.wait_count, float(self.best_score)))
