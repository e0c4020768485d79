"""Curves of runs, from the logs that mmengine writes for mmdet, mmseg and mmpretrain alike, and a picture of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eyetoy_mm.errors import UserError, first_few

LOGS = "*/vis_data/scalars.json"
_OF_TRAINING = ("loss", "lr", "grad_norm", "images_per_s")  # panels, where a run has them
_TIMES = ("step", "iter", "epoch", "time", "data_time")
_MOST_METRICS = 6


@dataclass
class Curves:
    """What was logged of a run: values by iteration, of each key.

    Args:
        name: Of the run.
        train: ``loss``, its parts, ``lr``, ``time``, ...
        val: The metrics of evaluations.
        broken: Lines that could not be read.
    """

    name: str
    train: dict[str, dict[int, float]] = field(default_factory=dict)
    val: dict[str, dict[int, float]] = field(default_factory=dict)
    broken: int = 0

    def of(self, key: str) -> dict[int, float]:
        """Values of a key of training or evaluation, by iteration."""
        return self.train.get(key) or self.val.get(key) or {}


def read_curves(path: str | Path) -> Curves:
    """Read the logs of a run.

    Of a run that was resumed, or started again in its work dir, each start takes the place of what was logged from
    there on before.

    Args:
        path: Its work dir, the folder of one start in it, or a ``scalars.json``.

    Raises:
        UserError: There are no logs.
    """
    path = Path(path)
    curves = Curves(path.resolve().name if path.is_dir() else str(path))
    for log in _logs(path):
        _add(curves, log)
    if not curves.train and not curves.val:
        raise UserError(f"{path} has no curves: nothing was logged in it ({LOGS}); default_hooks.logger.interval?")
    return curves


def draw_curves(runs: Sequence[Curves], keys: Sequence[str] = ()) -> Figure:
    """Draw a panel for each key, with a line for each run.

    Args:
        runs: One or several.
        keys: What is drawn; by default loss, learning rate, gradient norm, throughput and the first metrics.

    Returns:
        The figure; ``savefig`` writes it, and nothing of it stays in matplotlib.

    Raises:
        UserError: No run has one of the keys.
    """
    logged = list(dict.fromkeys(key for run in runs for key in (*run.train, *run.val)))
    if unknown := [key for key in keys if key not in logged]:
        raise UserError(f"no run has {first_few(unknown)}; logged are {', '.join(sorted(set(logged) - set(_TIMES)))}")
    keys = keys or shown_keys(runs)
    columns = min(len(keys), 3)
    rows = math.ceil(len(keys) / columns)
    figure = Figure(figsize=(5 * columns, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for key, panel in zip(keys, axes):
        _draw(panel, key, runs)
    for panel in axes[len(keys) :]:
        panel.set_axis_off()
    return figure


def shown_keys(runs: Sequence[Curves]) -> list[str]:
    """What is drawn by default; of the metrics, the first."""
    trained = [key for key in _OF_TRAINING if any(key in run.train for run in runs)]
    metrics = dict.fromkeys(key for run in runs for key in run.val if key not in _TIMES)
    return [*trained, *list(metrics)[:_MOST_METRICS]]


def is_of_training(record: Mapping[str, Any]) -> bool:
    """Whether a line of a log is of training; else it is of an evaluation."""
    return "iter" in record and any(key.endswith(("loss", "lr")) for key in record)


def _logs(path: Path) -> list[Path]:
    """The files of a run, in the order of its starts, which their folders are named by."""
    if path.is_file():
        return [path]
    logs = sorted(path.glob(LOGS)) or sorted(path.glob("vis_data/scalars.json"))
    if not logs:
        raise UserError(f"there are no logs of a run in {path}; it should be a work dir, which has {LOGS}")
    return logs


def _add(curves: Curves, log: Path) -> None:
    """Add what one start has logged."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"cannot read {log}: {error.strerror}") from error
    iteration, started = 0, False
    for line in lines:
        try:
            record = {key: value for key, value in json.loads(line).items() if isinstance(value, int | float)}
        except (ValueError, AttributeError):  # a run that is killed leaves half a line
            curves.broken += 1
            continue
        step = int(record.get("step", 0))
        trains = is_of_training(record)
        # Evaluations are logged by iteration, or by epoch, whose number is smaller than that of its iterations.
        iteration = step if trains or step >= iteration else iteration
        if not started:
            if not trains:  # the run went on with an evaluation that was due
                iteration = _end_of_epoch(curves, step) or step
            _forget_from(curves, iteration, trains)
            started = True
        for key, value in record.items():
            (curves.train if trains else curves.val).setdefault(key, {})[iteration] = float(value)


def _end_of_epoch(curves: Curves, epoch: int) -> int | None:
    """The last iteration that was logged of an epoch, None where training was not logged by epochs."""
    epochs = curves.train.get("epoch", {})
    return max((at for at, each in epochs.items() if each == epoch), default=None)


def _forget_from(curves: Curves, iteration: int, trains: bool) -> None:
    """Forget what was logged from an iteration on; one that is evaluated again was trained before."""
    for part, end in ((curves.train, iteration + (not trains)), (curves.val, iteration)):
        for key in list(part):
            part[key] = {at: value for at, value in part[key].items() if at < end}
            if not part[key]:
                del part[key]


def _draw(panel: Axes, key: str, runs: Sequence[Curves]) -> None:
    for run in runs:
        points = sorted(run.of(key).items())
        if points:
            marker = "o" if len(points) < 40 else None
            panel.plot(*zip(*points), label=run.name, linewidth=1.2, marker=marker, markersize=3)
    panel.set(title=key, xlabel="iteration")
    panel.grid(alpha=0.3)
    if len(runs) > 1:
        panel.legend(fontsize=8)
