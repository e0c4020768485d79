"""Errors of a run that has not taken its first step: told by the key of the config whose part failed.

Values that only computing shows to be wrong (a scale of three numbers, a threshold that is a list) end a run in its
first step, or in an evaluation. The traceback is kept in a file of the work dir, for those who wrote the part.
"""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import LogProcessor, Runner, TestLoop, ValLoop

from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.compat.data_files import DataFileError
from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.engine.config_places import at, dicts_in, explain, failing_module, was_built
from eyetoy_mm.engine.config_structure import datasets_in
from eyetoy_mm.engine.hooks.common import unwrapped
from eyetoy_mm.engine.rehearsal import rehearse_evaluation
from eyetoy_mm.errors import UNREADABLE_IMAGE, UserError
from eyetoy_mm.registry import type_name

# What is not of a config: files, packages, memory, and what is told already.
_OTHERS = (UserError, CheckpointError, DataFileError, OSError, ImportError, MemoryError, torch.OutOfMemoryError)

_TRUTH = re.compile(r"['\"](?P<name>gt_\w+|img_id)['\"]")


class Run:
    """A run whose errors are explained: its Runner, once there is one."""

    def __init__(self) -> None:
        self.runner: Runner | None = None


@contextlib.contextmanager
def explained_errors(config: Config) -> Iterator[Run]:
    """Tell errors from building the Runner to the end of the first step, and those of evaluations, in one message.

    So is the end of a process that loads images, at any step.

    Args:
        config: Of the run.

    Yields:
        The run, of which the caller sets the ``runner``.

    Raises:
        UserError: In place of such an error, with the key of the config, and where the traceback is.
    """
    run = Run()
    try:
        yield run
    except _OTHERS:
        raise
    except Exception as error:  # whatever a part of a toolbox raises
        origin = _origin(error)
        if lost := [found[0] for one in _chain(error) if (found := _LOST_WORKER.search(str(one)))]:
            raise UserError(_told_of_worker(lost[-1]) + _where_to_go_on(config, run.runner)) from error
        if UNREADABLE_IMAGE.search(str(origin)):
            raise
        codes = {frame.f_code for frame, _ in traceback.walk_tb(origin.__traceback__)}
        evaluates = bool(codes & {ValLoop.run.__code__, TestLoop.run.__code__, rehearse_evaluation.__code__})
        # Runner.iter would build the loop
        if run.runner is not None and run.runner.message_hub.runtime_info.get("iter", 0) > 0 and not evaluates:
            raise
        path = Path(config.work_dir, "traceback.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)))
        told = str(_explained(origin, config, run.runner, evaluates))
        end = "" if told.endswith((".", "?")) else "."
        raise UserError(f"{told}{end} The traceback is in {path}{_where_to_go_on(config, run.runner)}") from error


# What PyTorch says of processes that load images and are no more, or have no room to hand them over.
_LOST_WORKER = re.compile(
    r"DataLoader worker \(pid.*?\) (is killed by signal: [^.]*|exited unexpectedly)|received 0 items of ancdata"
)


def _told_of_worker(words: str) -> str:
    if "ancdata" in words:
        return (
            "images cannot be handed over, for too many files are open: allow more (ulimit -n 65535), or num_workers=0"
        )
    if "Bus error" in words:
        return f"{words}: the shared memory is full. Allow more (docker run --shm-size=8g), or take fewer num_workers"
    return f"{words}, as it happens when the memory is full: take fewer num_workers or smaller images"


def _where_to_go_on(config: Config, runner: Runner | None) -> str:
    """The end of a message: the last checkpoint of a run, if it has saved any."""
    note = Path(config.work_dir, "last_checkpoint")  # which names what is there as a whole
    if runner is None or not runner.message_hub.runtime_info.get("last_ckpt") or not note.is_file():
        return ""
    return f". The last checkpoint is {Path(config.work_dir, note.read_text().strip())}: --resume goes on from it"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those before it. A worker's end is raised wherever the run is, and may become another there."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _origin(error: BaseException) -> BaseException:
    """The error that another only adds words to: mmengine adds the hook to errors of type TypeError."""
    before = error.__cause__ or error.__context__
    return _origin(before) if before is not None and str(before) in str(error) else error


def _explained(error: BaseException, config: Config, runner: Runner | None, evaluates: bool) -> Finding:
    text = " ".join(str(error).split())
    text = (
        f"{type(error).__name__}: {text}" if text else f"it fails {traceback.extract_tb(error.__traceback__)[-1].line}"
    )
    stage = "in an evaluation" if evaluates else "in the first step"
    for key, step in _steps_of_pipelines(config, error):
        return Finding(key, f"{step['type']} fails on {_image_of(error)}: {text}")
    if was_built(error):
        found = explain(error, "", config._cfg_dict, MODELS).finding
        if found.kind and not found.kind.startswith("."):
            return found
        text = f"{found.kind.lstrip('.')}: {found.message}".removeprefix(": ")  # a dict that a part makes itself
    if loss := _loss_of(error):
        return Finding("model", f"{loss}: what loss() returns must be float tensors and lists of them, by name")
    if evaluates and isinstance(error, KeyError | AttributeError) and (truth := _TRUTH.search(text)):
        told = f"the images have no {truth['name']}, which it reads ({text}). Load it, with LoadAnnotations in the"
        advice = "pipeline or with_label of mmpretrain's data sets, or name it in meta_keys of the step that packs"
        return Finding("val_evaluator or test_evaluator", f"{told} {advice}")
    module = failing_module(unwrapped(runner), error) if runner is not None else ""
    part, _, inside = module.partition(".")
    settings = config.model.get(part)
    if isinstance(settings, dict):
        kind = settings.get("type") or type(unwrapped(runner).get_submodule(part)).__name__
        where = f"{kind}, at {inside}," if inside else str(kind)
        return Finding(f"model.{part}", f"{where} fails {stage}: {text}")
    for key in _parts_passed(config, error):
        return Finding(key, f"fails {stage}: {text}")
    return Finding("the run", f"fails {stage}: {text}")


def _loss_of(error: BaseException) -> str:
    """The loss that mmengine could not add up or log, with its value; "" where it failed at something else."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is BaseModel.parse_losses.__code__ and "loss_name" in frame.f_locals:
            value = repr(frame.f_locals["loss_value"])
            return f"loss {frame.f_locals['loss_name']} is {value if len(value) <= 80 else value[:80] + '...'}"
    return ""


def _image_of(error: BaseException) -> str:
    """The path of the image that a pipeline was at, as the steps that an error came through had it."""
    passed = [frame.f_locals.get("results") for frame, _ in traceback.walk_tb(error.__traceback__)]
    paths = [results.get("img_path") for results in passed if isinstance(results, dict)]
    return next((path for path in paths if isinstance(path, str)), "an image")


def _parts_passed(config: Config, error: BaseException) -> Iterator[str]:
    """Parts of the config beside model and data that an error came through, by their key, the innermost first."""
    passed = [type(frame.f_locals.get("self")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    sections = ("custom_hooks", "default_hooks", "val_evaluator", "test_evaluator", "log_processor", "visualizer")
    for kind in reversed(passed):
        for section in sections:
            for key, part in dicts_in(section, config.get(section)):
                if type_name(part) == kind.__name__:
                    yield key
        if issubclass(kind, LogProcessor):  # the one section whose type goes without saying
            yield "log_processor"


def _steps_of_pipelines(config: Config, error: BaseException) -> Iterator[tuple[str, dict]]:
    """The steps of pipelines that an error came through, by the arguments and the class of the innermost."""
    passed = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = [type(one).__name__ for one in passed if hasattr(one, "transform")]
    for split in ("train", "val", "test") if names else ():
        loader: Any = config.get(f"{split}_dataloader") or {}
        for key, dataset in datasets_in(f"{split}_dataloader.dataset", loader.get("dataset")):
            for index, step in enumerate(dataset.get("pipeline") or ()):
                if type_name(step) == names[0]:
                    given = {name: value for name, value in step.items() if name != "type"}
                    yield at(f"{key}.pipeline.{index}", given) if given else f"{key}.pipeline.{index}", step
