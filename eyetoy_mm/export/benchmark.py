"""Latency, throughput and peak memory of configs and exported files, each in a process of its own, in turns."""

from __future__ import annotations

import ast
import copy
import json
import logging
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from eyetoy_mm.engine import measuring
from eyetoy_mm.errors import UserError
from eyetoy_mm.export.runtimes import is_exported, open_file
from eyetoy_mm.tables import markdown_table

_CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
_PAUSE = 0.02  # seconds before a turn: threads of the model before have stopped to look for more work


@dataclass(frozen=True)
class Task:
    """What every model does in a turn.

    Args:
        mode: ``"forward"``, from images to predictions; or ``"train"``, loss and gradients.
        size: Height and width of the images.
        batch: How many images.
        device: ``"cpu"`` or ``"cuda"``.
        threads: On a CPU.
        clock: ``"wall"``; or ``"processor"``, the time that all threads are at work, which other programs disturb less.
        options: Settings in place of those of each config, as ``--cfg-options`` gives them.
    """

    mode: str
    size: tuple[int, int]
    batch: int
    device: str
    threads: int
    clock: str = "wall"
    options: Mapping[str, Any] | None = None


# --- All models -------------------------------------------------------------------------------------------------------


def measure(models: Sequence[str], task: Task, rounds: int) -> dict[str, Any]:
    """Let models take turns.

    Args:
        models: Config files, names of configs in a package, exported files.
        task: What each does.
        rounds: How often.

    Returns:
        The task, the machine, and of each model its name, seconds of each round, bytes of memory at the peak (None
        where that cannot be seen), number of parameters (None for a file) and whether it predicts by sliding windows.

    Raises:
        UserError: A model cannot do it; the message has its reason.
    """
    if task.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda cannot be used on this machine: PyTorch finds no GPU")
    if task.device == "cuda" and task.clock == "processor":
        raise UserError("--clock processor is for --device cpu: a GPU works while its processor waits")
    files = [model for model in models if is_exported(model)]
    if files and task.mode == "train":
        raise UserError(f"--mode train is for configs, but {', '.join(files)} cannot be trained")
    if task.options and len(files) == len(models):
        raise UserError(f"--cfg-options are for configs, and there is none among {', '.join(files)}")
    with ExitStack() as stack:
        workers = [stack.enter_context(_worker(model, task)) for model in models]
        facts = [worker.read() for worker in workers]
        seconds = measuring.take_turns({number: worker.turn for number, worker in enumerate(workers)}, rounds)
        peaks = [worker.ask("peak")["peak"] for worker in workers]
    measured = [
        dict(model=model, **fact, seconds=seconds[number], peak_memory=peaks[number])
        for number, (model, fact) in enumerate(zip(models, facts, strict=True))
    ]
    return dict(asdict(task), machine=measuring.machine(task.device), torch=torch.__version__, models=measured)


def table(report: dict[str, Any]) -> str:
    """What :func:`measure` found, as text with a markdown table."""
    first = report["models"][0]["seconds"]
    rows = [_row(model, first, report["batch"]) for model in report["models"]]
    height, width = report["size"]
    threads = f", {report['threads']} threads" if report["device"] == "cpu" else ""
    clock = "" if report["clock"] == "wall" else f" {report['clock']} time,"
    options = ", ".join(f"{key}={value}" for key, value in (report.get("options") or {}).items())
    return "\n".join(
        (
            f"{report['machine']}{threads}, PyTorch {report['torch']}; {report['mode']}, batch {report['batch']} of "
            f"{height} x {width};{clock} medians of {len(first)} rounds, with quartiles."
            + f" Configs with {options}."
            * bool(options),
            "",
            markdown_table(
                ["model", "parameters", "ms", "quartiles", "images/s", "time of the first's", "peak memory"], rows
            ),
            *_remarks(report["models"]),
        )
    )


def _remarks(models: Sequence[dict[str, Any]]) -> Iterator[str]:
    if any(is_exported(model["model"]) for model in models):
        for model in models:
            if model.get("windows"):
                yield (
                    f"\n{model['model']} predicts by sliding windows, and exported files the whole image at once: time "
                    "it with --cfg-options model.test_cfg.mode=whole to compare them."
                )


def _row(model: dict[str, Any], first: Sequence[float], batch: int) -> list[str]:
    seconds, parameters, peak = model["seconds"], model["parameters"], model["peak_memory"]
    middle = statistics.median(seconds)
    ratio = statistics.median(own / other for own, other in zip(seconds, first, strict=True))
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [middle] * 3
    return [
        f"`{model['model']}`",
        "-" if parameters is None else f"{parameters / 1e6:.1f} M",
        f"{1e3 * middle:.1f}",
        f"{1e3 * quartiles[0]:.1f} - {1e3 * quartiles[2]:.1f}",
        f"{batch / middle:.1f}",
        f"{ratio:.2f}",
        "-" if peak is None else f"{peak / 1e6:.0f} MB",
    ]


class _Worker:
    """The other end of :func:`work`."""

    def __init__(self, model: str, process: subprocess.Popen[str]) -> None:
        self.model, self.process = model, process

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise UserError(f"the process of {self.model} ended with code {self.process.wait()}, its output is above")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise UserError(f"{self.model}: {answer['error']}")
        return answer

    def ask(self, question: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(question, file=self.process.stdin, flush=True)
        return self.read()

    def turn(self) -> float:
        time.sleep(_PAUSE)
        return float(self.ask("turn")["seconds"])


@contextmanager
def _worker(model: str, task: Task) -> Iterator[_Worker]:
    arguments = repr(dict(model=model, **asdict(task)))  # JSON has no tuples, which settings may be
    command = [sys.executable, "-c", f"from {__name__} import work; work()", arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield _Worker(model, process)
    finally:
        process.kill()
        process.communicate()


# --- One model, in its process ----------------------------------------------------------------------------------------


def work() -> None:
    """Load a model and answer, a line of JSON each: what it is, then seconds of a turn or the peak, as it is asked."""
    task = ast.literal_eval(sys.argv[1])
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what libraries print is no answer
        try:
            for answer in _answers(task, sys.stdin):
                print(json.dumps(answer), file=answers, flush=True)
        except Exception as error:  # whatever a model or runtime raises is the answer
            text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            print(json.dumps(dict(error=text)), file=answers, flush=True)


def _answers(arguments: dict[str, Any], questions: TextIO) -> Iterator[dict[str, Any]]:
    model = arguments.pop("model")
    task = Task(**arguments)
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # what is told of building a model
    warnings.simplefilter("ignore")
    load = _load_file if is_exported(model) else _load_config
    watches = measuring.can_see_memory() and task.device == "cpu"
    before = measuring.resident_memory() if watches else 0
    turn, parameters, windows = load(model, task)
    if watches:
        measuring.reset_peak()
    turn()
    yield dict(parameters=parameters, windows=windows)
    for question in questions:
        if question.strip() == "turn":
            yield dict(seconds=turn())
        elif watches:
            yield dict(peak=measuring.peak_resident_memory() - before)
        else:  # what other runtimes allocate on a GPU is not seen
            yield dict(peak=torch.cuda.max_memory_allocated() if task.device == "cuda" and parameters else None)


def _load_file(path: str, task: Task) -> tuple[Callable[[], float], None, bool]:
    run = open_file(Path(path), task.device, task.threads)
    images = np.random.default_rng(0).integers(0, 256, (task.batch, 3, *task.size)).astype(np.float32)

    clock = _CLOCKS[task.clock]

    def turn() -> float:
        start = clock()
        run(images)
        return clock() - start

    return turn, None, False


def _load_config(path: str, task: Task) -> tuple[Callable[[], float], int, bool]:
    from eyetoy_mm.engine.config import load_config
    from eyetoy_mm.engine.config_checks import check_config
    from eyetoy_mm.engine.dry_run import build, without_downloads
    from eyetoy_mm.engine.toolbox_batches import make_batch

    config = load_config(path, options=None if task.options is None else dict(task.options))
    check_config(config)
    without_downloads(config)
    for settings in (config.model.get("data_preprocessor"), config.get("data_preprocessor")):
        if settings and settings.get("size") is not None:  # mmseg's pads images in training to it
            settings.size = task.size
    model = build(config).to(task.device)
    training = task.mode == "train"
    batch = make_batch(config, training, task.batch, task.size)
    step = _training_step if training else _prediction
    clock = _CLOCKS[task.clock]
    model.train(training)

    def turn() -> float:
        data = copy.deepcopy(batch)  # predictions are written into its samples
        _synchronize(task)
        start = clock()
        step(model, data)
        _synchronize(task)
        return clock() - start

    windows = not training and (config.model.get("test_cfg") or {}).get("mode") == "slide"
    return turn, sum(parameter.numel() for parameter in model.parameters()), windows


def _prediction(model: Any, data: dict[str, Any]) -> None:
    with torch.no_grad():
        model.test_step(data)


def _training_step(model: Any, data: dict[str, Any]) -> None:
    losses = model(**model.data_preprocessor(data, True), mode="loss")
    model.parse_losses(losses)[0].backward()
    model.zero_grad(set_to_none=True)


def _synchronize(task: Task) -> None:
    if task.device == "cuda":
        torch.cuda.synchronize()
