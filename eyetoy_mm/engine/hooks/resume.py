"""A run that goes on from a checkpoint: compared with the run that saved it."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from eyetoy_mm.engine.resume import run_facts, settle
from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class CompareResumedHook(Hook):
    """Say before the first step what differs from the run that is resumed, and refuse what would go wrong in silence.

    Args:
        source: The checkpoint that the run goes on from; None where it starts anew.
    """

    priority = "VERY_HIGH"

    def __init__(self, source: str | None = None) -> None:
        self.source = source

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare, and settle what the run takes from the checkpoint and what from its config.

        Raises:
            UserError: The run cannot go on as it is asked for.
        """
        if self.source is not None:
            runner.logger.info(settle(runner, checkpoint, self.source))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep what a config does not say of a run."""
        checkpoint["meta"].update(run_facts(runner))
