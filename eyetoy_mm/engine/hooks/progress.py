"""How fast a run is, how long it will take, and the memory of its process."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from eyetoy_mm.engine.hooks.common import samples_of
from eyetoy_mm.registry import HOOKS

_WARM_UP = 5  # iterations of each start: caches are filled, kernels chosen, workers started


@HOOKS.register_module()
class ProgressHook(Hook):
    """Log the mean throughput of this start of a run, its process's memory, and when it will end.

    ``images_per_s`` is of all processes, from the first iterations on, evaluations apart. ``host_memory`` is the peak
    in MB of process 0, beside ``memory`` of its GPU. mmengine's ETA is that of the training iterations alone; here
    evaluations to come count, as long as those were that this start has made.
    """

    priority = "NORMAL"  # after mmengine's IterTimerHook, before its LoggerHook

    def before_train(self, runner: Runner) -> None:
        """Begin to count: a run that goes on knows nothing of how fast it was on another machine."""
        self._iterations = self._images = self._evaluations = 0
        self._seconds = self._evaluating = 0.0
        self._seen = 0
        self._mark = self._now()

    def before_train_epoch(self, runner: Runner) -> None:
        """Leave out what was between two epochs."""
        self._mark = self._now()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Count the iteration; tell mmengine's log what is known."""
        now = self._now()
        self._seen += 1
        if self._seen == _WARM_UP + 1:
            self._iterations = self._images = 0
            self._seconds = 0.0
        self._iterations += 1
        self._seconds += now - self._mark
        self._images += images_in(data_batch) * dist.get_world_size()
        self._mark = now
        hub = runner.message_hub
        if self._seconds > 0:
            hub.update_scalar("train/images_per_s", self._images / self._seconds)
        if memory := peak_memory():
            hub.update_scalar("train/host_memory", memory)
        hub.update_info("eta", self._seconds_left(runner))

    def before_val(self, runner: Runner) -> None:
        """Begin an evaluation."""
        self._val_mark = self._now()

    def after_val(self, runner: Runner) -> None:
        """Count the evaluation, apart from training."""
        now = self._now()
        self._evaluations = getattr(self, "_evaluations", 0) + 1
        self._evaluating = getattr(self, "_evaluating", 0.0) + now - self._val_mark
        self._mark = now

    def after_train(self, runner: Runner) -> None:
        """Tell the mean of this start."""
        if not self._seconds:
            return
        processes = dist.get_world_size()
        runner.logger.info(
            f"{self._seen} iterations, {self._images / self._seconds:.1f} images/s on {processes} "
            f"process{'es' if processes > 1 else ''} ({self._seconds / self._iterations:.4f} s an iteration); "
            f"{self._evaluations} evaluation{'s' if self._evaluations != 1 else ''} in "
            f"{timedelta(seconds=round(self._evaluating))}"
        )

    def _seconds_left(self, runner: Runner) -> float:
        left = (runner.max_iters - runner.iter - 1) * self._seconds / self._iterations
        if self._evaluations:
            left += evaluations_left(runner) * self._evaluating / self._evaluations
        return left

    @staticmethod
    def _now() -> float:
        return time.perf_counter()


def images_in(data_batch: Any) -> int:
    """Images of a batch, as the toolboxes have them; 0 where it does not say."""
    samples = sum(1 for _ in samples_of(data_batch))
    inputs: Any = data_batch.get("inputs") if isinstance(data_batch, dict) else None
    return samples or (len(inputs) if isinstance(inputs, Sequence | Tensor) else 0)


def peak_memory() -> float:
    """Peak of the memory of this process in MB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))


def evaluations_left(runner: Runner) -> int:
    """Evaluations that a run still makes, that of the current iteration or epoch included."""
    loop: Any = runner.train_loop
    if runner.val_loop is None or not hasattr(loop, "val_interval"):
        return 0
    by_epoch = hasattr(loop, "run_epoch")
    done, total = (runner.epoch, loop.max_epochs) if by_epoch else (runner.iter, loop.max_iters)
    done = max(done, loop.val_begin - 1)
    if done >= total:
        return 0
    return total // loop.val_interval - done // loop.val_interval + bool(total % loop.val_interval)
