"""The first evaluation before the first step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner

from eyetoy_mm.engine.rehearsal import rehearse_evaluation, try_metrics
from eyetoy_mm.registry import HOOKS


@HOOKS.register_module()
class RehearseEvaluationHook(Hook):
    """Run what only an evaluation touches on one or two images, before training; see :mod:`eyetoy_mm.engine.rehearsal`.

    In a test metrics are computed of the first batch, before the others are predicted.
    """

    priority = "LOW"  # after those that check classes and data, whose messages say more

    def before_train(self, runner: Runner) -> None:
        """Rehearse the validation."""
        rehearse_evaluation(runner)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Compute the metrics of the first batch."""
        evaluator = getattr(runner.test_loop, "evaluator", None)
        if batch_idx == 0 and isinstance(evaluator, Evaluator):
            try_metrics(evaluator)
