"""The runs of a study: each trained by ``eyetoy train`` in a process and a work dir of its own, and read from its logs.

A run is finished when its last evaluation is in its log. What is finished is never trained again; what was cut off goes
on from its last checkpoint, wherever it, or the study, was killed.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eyetoy_mm.engine.children import run_child
from eyetoy_mm.engine.config import read_config
from eyetoy_mm.engine.config_places import at
from eyetoy_mm.engine.curves import LOGS, is_of_training, read_curves
from eyetoy_mm.engine.resume import differences
from eyetoy_mm.engine.study import Study, slug
from eyetoy_mm.engine.work_dir import holder
from eyetoy_mm.errors import UserError, counted, first_few
from eyetoy_mm.paths import is_address
from eyetoy_mm.whole_files import write_whole

_MACHINES = "machines.txt"  # in the work dir of a run: what trained it, one a line


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
        UserError: As :func:`check_unchanged` does; nothing is written then.
    """
    check_unchanged(study, folder)
    for name, config in study.variants.items():
        write_whole(config_file(folder, name), config.pretty_text)


def check_unchanged(study: Study, folder: Path, only_report: bool = False) -> None:
    """Check that the runs that are there were made with the configs of the study.

    Data may have moved: their folders are compared only where what they were is still there.

    Args:
        study: The study.
        folder: Its work dir.
        only_report: Nothing will be trained, so that it does not matter where the data are.

    Raises:
        UserError: One has runs with another config: they would be compared with others' recipe.
    """
    for name, config in study.variants.items():
        path = config_file(folder, name)
        if not path.is_file() or not any(path.parent.glob(f"seed-*/{LOGS}")):
            continue
        if path.read_text(encoding="utf-8") == config.pretty_text:
            continue
        had = [
            f"{key}={before!r}" if _is_place(key) else at(key, before)
            for key, before, now in differences(read_config(path).to_dict(), config.to_dict())
            if not (_is_place(key) and (only_report or _has_moved(before, now)))
        ]
        if had:
            raise UserError(
                f"{name} of {study.name} has changed since its runs in {path.parent} began, whose config, {path}, has "
                f"{first_few(had, 3)}. Undo that, give the study another --work-dir, or remove these runs"
            )


def _is_place(key: str) -> bool:
    return key.rpartition(".")[2] in ("data_root", "ann_file")


def _has_moved(before: Any, now: Any) -> bool:
    """Whether two paths are of the same data, or there is nothing at the first one any more."""
    if not isinstance(before, str) or not isinstance(now, str) or is_address(before):
        return False
    return not Path(before).exists() or (Path(now).exists() and Path(before).samefile(now))


def config_file(folder: Path, variant: str) -> Path:
    """Where the config of a variant is."""
    return folder / slug(variant) / "config.py"


def work_dir(folder: Path, variant: str, seed: int) -> Path:
    """Where a run writes."""
    return folder / slug(variant) / f"seed-{seed}"


def this_machine() -> str:
    """What trains here: the GPU, or the CPU with its threads, and the version of PyTorch."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None and accelerator.type == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{accelerator or 'CPU'}, {counted(torch.get_num_threads(), 'thread')}, torch {torch.__version__}"


def machines(folder: Path, runs: Iterable[tuple[str, int]]) -> list[str]:
    """Those that trained some runs; none where it was not noted of any of them."""
    files = [work_dir(folder, *run) / _MACHINES for run in runs]
    noted = [file for file in files if file.is_file()]
    found = dict.fromkeys(line for file in noted for line in _lines(file))
    return [*found, *(["others that were not noted"] if found and len(noted) < len(files) else [])]


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
    if not isinstance(evaluation.get(study.metric), int | float):
        keys = ", ".join(sorted(set(evaluation) - {"step", "time", "data_time"}))
        raise UserError(
            f"{run} has no metric {study.metric!r}; its evaluations have {keys}. Name one of these in the study: what "
            "is finished is not trained again"
        )
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


class Elsewhere(str):
    """Of a run that is not started, for another process trains it: which one."""


def train_missing(
    study: Study, folder: Path, start: Callable[[list[str], Path], int] = run_child
) -> Iterator[tuple[str, int, str | None]]:
    """Train the runs that are not finished, one after the other, but for those that another process is training.

    So several of them share the runs of a study, and one that was killed goes on beside the run that it left behind.

    Args:
        study: The study.
        folder: Its work dir, with the configs.
        start: Runs a command to its end, writes its output into a file, and returns its exit code.

    Yields:
        Variant and seed of each, and what went wrong, as its last lines say it, or None where it is finished. An
        :class:`Elsewhere` where another process is training it.
    """
    for variant, seed in study.runs():
        run = work_dir(folder, variant, seed)
        if read_result(study, run) is not None:
            continue
        if other := holder(run):
            yield variant, seed, Elsewhere(other)
            continue
        command = [sys.executable, "-m", "eyetoy_mm.cli", "train", str(config_file(folder, variant))]
        command += ["--work-dir", str(run), "--resume", "--cfg-options", f"randomness.seed={seed}"]
        run.mkdir(parents=True, exist_ok=True)
        here, there = this_machine(), run / _MACHINES
        if not there.is_file() or here not in _lines(there):
            with open(there, "a", encoding="utf-8") as file:
                file.write(f"{here}\n")
        code = start(command, output := run / "output.txt")
        if code != 0:
            other = holder(run)  # it was quicker
            yield variant, seed, Elsewhere(other) if other else _tail(output)
        elif read_result(study, run) is None:
            yield variant, seed, f"it ended, and no evaluation at step {study.length.steps} is logged in {run}"
        else:
            yield variant, seed, None


def _last_evaluation(study: Study, run: Path) -> dict[str, float] | None:
    """What the evaluation after the last step has logged; what else hooks log there counts where that lacks."""
    other = None
    for log in sorted(run.glob(LOGS), reverse=True):
        for line in reversed(_lines(log)):
            try:
                record = json.loads(line)
            except ValueError:  # half a line, of a run that was killed
                continue
            if not isinstance(record, dict) or is_of_training(record) or record.get("step") != study.length.steps:
                continue
            if study.metric in record:
                return record
            other = other or record
    return other


def _tail(output: Path, lines: int = 15) -> str:
    return "\n".join(_lines(output)[-lines:])


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
