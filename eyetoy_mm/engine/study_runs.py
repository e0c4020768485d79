"""The runs of a study: each trained by ``eyetoy train`` in a process and a work dir of its own, and read from its logs.

A run is finished when its last evaluation is in its log. What is finished is never trained again; what was cut off goes
on from its last checkpoint, wherever it, or the study, was killed.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from eyetoy_mm.engine.children import run_child
from eyetoy_mm.engine.curves import LOGS, is_of_training, read_curves
from eyetoy_mm.engine.study import Study, slug
from eyetoy_mm.errors import UserError


@dataclass(frozen=True)
class Result:
    """What a finished run reached.

    Attributes:
        metric: Of its last evaluation.
        loss: In training, the mean over the last tenth of its steps.
        images_per_second: In training, by the median of the times of its steps.
        memory: The most that it had, in MB: of its GPU if it was on one, else of its process.
    """

    metric: float
    loss: float
    images_per_second: float
    memory: float


def write_configs(study: Study, folder: Path) -> None:
    """Write the config of every variant, whole.

    Args:
        study: The study.
        folder: Its work dir.

    Raises:
        UserError: One is there already, differs, and has runs: they would be compared with others' recipe.
    """
    for name, config in study.variants.items():
        path = config_file(folder, name)
        text = config.pretty_text
        if path.is_file() and path.read_text(encoding="utf-8") != text and any(path.parent.glob(f"seed-*/{LOGS}")):
            raise UserError(
                f"{name} of {study.name} has changed since its runs in {path.parent} began, whose config is in {path}. "
                "Give the study another --work-dir, or remove these runs"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def config_file(folder: Path, variant: str) -> Path:
    """Where the config of a variant is."""
    return folder / slug(variant) / "config.py"


def work_dir(folder: Path, variant: str, seed: int) -> Path:
    """Where a run writes."""
    return folder / slug(variant) / f"seed-{seed}"


def results(study: Study, folder: Path) -> dict[tuple[str, int], Result]:
    """Of every run that is finished."""
    found = {run: read_result(study, work_dir(folder, *run)) for run in study.runs()}
    return {run: result for run, result in found.items() if result is not None}


def read_result(study: Study, run: Path) -> Result | None:
    """What a run reached, None where it has not been evaluated after its last step.

    Raises:
        UserError: It has, but not by the study's metric.
    """
    evaluation = _last_evaluation(study, run)
    if evaluation is None:
        return None
    if study.metric not in evaluation:
        keys = ", ".join(sorted(set(evaluation) - {"step", "time", "data_time"}))
        raise UserError(f"{run} has no metric {study.metric!r}; its evaluations have {keys}")
    curves = read_curves(run)
    losses = curves.of("loss")
    late = [loss for step, loss in losses.items() if step > 0.9 * max(losses)]
    times = curves.of("time").values()
    memory = [*curves.of("memory").values()] or [*curves.of("host_memory").values()]
    speed = study.length.batch_size / statistics.median(times) if times else float("nan")
    return Result(
        metric=evaluation[study.metric],
        loss=statistics.mean(late) if late else float("nan"),
        images_per_second=speed,
        memory=max(memory, default=float("nan")),
    )


def train_missing(
    study: Study, folder: Path, start: Callable[[list[str], Path], int] = run_child
) -> Iterator[tuple[str, int, str | None]]:
    """Train the runs that are not finished, one after the other.

    Args:
        study: The study.
        folder: Its work dir, with the configs.
        start: Runs a command to its end, writes its output into a file, and returns its exit code.

    Yields:
        Variant and seed of each, and what went wrong, as its last lines say it, or None where it is finished.
    """
    for variant, seed in study.runs():
        run = work_dir(folder, variant, seed)
        if read_result(study, run) is not None:
            continue
        command = [sys.executable, "-m", "eyetoy_mm.cli", "train", str(config_file(folder, variant))]
        command += ["--work-dir", str(run), "--resume", "--cfg-options", f"randomness.seed={seed}"]
        run.mkdir(parents=True, exist_ok=True)
        code = start(command, output := run / "output.txt")
        if code != 0:
            yield variant, seed, _tail(output)
        elif read_result(study, run) is None:
            yield variant, seed, f"it ended, and no evaluation at step {study.length.steps} is logged in {run}"
        else:
            yield variant, seed, None


def _last_evaluation(study: Study, run: Path) -> dict[str, float] | None:
    """What the evaluation after the last step has logged."""
    for log in sorted(run.glob(LOGS), reverse=True):
        for line in reversed(log.read_text(encoding="utf-8", errors="replace").splitlines()):
            try:
                record = json.loads(line)
            except ValueError:  # half a line, of a run that was killed
                continue
            if not is_of_training(record) and record.get("step") == study.length.steps:
                return record
    return None


def _tail(output: Path, lines: int = 15) -> str:
    return "\n".join(output.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
