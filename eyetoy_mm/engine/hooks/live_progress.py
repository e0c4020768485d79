"""A live line on a terminal: how far a run is, its loss and metric, throughput, memory and when it ends."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from eyetoy_mm.engine.hooks.common import told_if_it_fails
from eyetoy_mm.engine.terminal_log import IterationsFilter, may_move, terminal_handlers
from eyetoy_mm.registry import HOOKS

_EVERY = 0.25  # seconds between two looks of the line: it is drawn by this process, no thread


@HOOKS.register_module()
class LiveProgressHook(Hook):
    """Show a line that moves where the output is a terminal; elsewhere lines are those of mmengine's log.

    What else is logged goes above the line. :meth:`close` takes the line away, also after an error.
    """

    priority = "LOW"  # after ProgressHook

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._streams: list[tuple[logging.StreamHandler, Any]] = []
        self._filter = IterationsFilter()
        self._drawn = 0.0
        self._metric = ""

    def before_train(self, runner: Runner) -> None:
        """Show the line."""
        if not dist.is_main_process() or not may_move(sys.stdout):
            return
        with told_if_it_fails(runner, "No live line"):
            console = Console(file=sys.stdout, soft_wrap=True)  # a path that is printed can be copied
            bar = [TextColumn("{task.description}"), BarColumn(bar_width=20)] if console.width >= 80 else []
            columns = [*bar, MofNCompleteColumn(), TextColumn("{task.fields[text]}")]
            self._progress = Progress(*columns, console=console, auto_refresh=False)
            self._train = self._progress.add_task("training", total=runner.max_iters, completed=runner.iter, text="")
            self._progress.start()
            for handler in terminal_handlers(runner.logger):
                self._streams.append((handler, handler.setStream(sys.stdout)))  # rich's, above the line
                handler.addFilter(self._filter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Move it."""
        self._show(runner, completed=runner.iter + 1, last=runner.iter + 1 >= runner.max_iters)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None
    ) -> None:
        """Tell that an evaluation is going on."""
        self._show(runner, evaluating=f"evaluating, batch {batch_idx + 1}")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the first metric."""
        if metrics:
            name, value = next(iter(metrics.items()))
            self._metric = f"{name.rsplit('/', 1)[-1]} {value:.4g}"

    def after_train(self, runner: Runner) -> None:
        """Take it away."""
        self.close()

    def close(self) -> None:
        """Take the line away, and leave streams as they were; a second time does nothing."""
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.stop()
        for handler, stream in self._streams:
            if stream is not None:
                handler.setStream(stream)
            handler.removeFilter(self._filter)
        self._streams = []

    def _show(self, runner: Runner, completed: int | None = None, evaluating: str = "", last: bool = False) -> None:
        now = time.monotonic()
        if self._progress is None or (now - self._drawn < _EVERY and not last):
            return
        self._drawn = now
        try:
            text = evaluating or line_of(runner, self._metric)
            self._progress.update(self._train, text=text, completed=completed)
            self._progress.refresh()
        except Exception as error:
            self.close()
            runner.logger.warning(f"The live line ends: {type(error).__name__}: {error}")


def line_of(runner: Runner, metric: str = "") -> str:
    """What is known of a run, in a line."""
    hub = runner.message_hub
    parts = []
    if (eta := hub.runtime_info.get("eta")) is not None:  # first: a narrow terminal has no room for all
        parts.append(f"ends in {timedelta(seconds=round(eta))}")
    if "train/loss" in hub.log_scalars:
        parts.append(f"loss {hub.get_scalar('train/loss').current():.4g}")
    if metric:
        parts.append(metric)
    if "train/images_per_s" in hub.log_scalars:
        parts.append(f"{hub.get_scalar('train/images_per_s').current():.1f} images/s")
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the GPU")
    elif "train/host_memory" in hub.log_scalars:
        parts.append(f"{hub.get_scalar('train/host_memory').current() / 1e3:.1f} GB")
    return ", ".join(parts)
