"""Does a model config of mmdet, mmseg or mmpretrain build, step and predict here, without data, weights or a GPU?"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import re
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope

from eyetoy_mm.engine.toolbox_batches import make_batch, segmentation_size

TOOLBOXES = ("mmdet", "mmseg", "mmpretrain")
STAGES = ("builds", "steps", "predicts")
HAS_NONE = "has none"  # no loss, as its authors have it, or no predictions


@dataclass
class Outcome:
    """How far a config got.

    Attributes:
        toolbox: Package that the config is of.
        config: Its path in the package's folder of configs.
        cells: What there is to say of each of :data:`STAGES` that it passed.
        reason: What ended it, if it did not pass all.
        seconds: How long it took.
    """

    toolbox: str
    config: str
    cells: list[str] = field(default_factory=list)
    reason: str = ""
    seconds: float = 0.0


# --- Configs --------------------------------------------------------------------------------------------------------


def config_root(toolbox: str) -> Path:
    """The folder of configs that comes with an installed toolbox."""
    return Path(importlib.import_module(toolbox).__path__[0]) / ".mim" / "configs"


def config_files(toolbox: str) -> list[str]:
    """Paths below :func:`config_root` of the configs that are not only a part of others, sorted."""
    root = config_root(toolbox)
    paths = sorted(path.relative_to(root) for path in root.rglob("*.py"))
    return [str(path) for path in paths if "_base_" not in path.parts]


def has_model(toolbox: str, config: str) -> bool:
    """Whether a config has a model, and not only data or a schedule; one that cannot be read counts, too."""
    try:
        return "model" in _load(config_root(toolbox) / config)
    except Exception:  # the survey tells what it is
        return True


def first_of_each_folder(toolbox: str, configs: Sequence[str]) -> list[str]:
    """The first config with a model of each folder that has one."""
    folders: dict[str, list[str]] = {}
    for config in configs:
        folders.setdefault(os.path.dirname(config), []).append(config)
    firsts = (
        next((config for config in siblings if has_model(toolbox, config)), None) for siblings in folders.values()
    )
    return [config for config in firsts if config is not None]


def load_small(toolbox: str, config: str) -> Config:
    """A config with its scope, without what would be downloaded first, and with little to do for small images."""
    loaded = _load(config_root(toolbox) / config)
    loaded.setdefault("default_scope", toolbox)
    _lighten(loaded.model)
    if toolbox == "mmseg":
        _shrink_images(loaded)
    return loaded


def _load(path: Path) -> Config:
    return Config.fromfile(str(path))


def _shrink_images(config: Config) -> None:
    """Small images for a model of mmseg, which else pads them to the size that it is trained with."""
    backbone = config.model.get("backbone") or {}
    if "img_size" in backbone:
        backbone["img_size"] = (128, 128)
    for preprocessor in (config.model.get("data_preprocessor"), config.get("data_preprocessor")):
        if preprocessor is not None:
            preprocessor.size = segmentation_size(config)


# Numbers of proposals and queries, which make up most of the time with small images.
_FEW = dict(nms_pre=100, max_per_img=100, max_num=50, num=32, num_queries=100, num_proposals=100)


def _lighten(node: Any) -> None:
    if isinstance(node, dict):
        if "checkpoint" in (node.get("init_cfg") or {}):
            node["init_cfg"] = None
        for key in ("pretrained", "teacher_ckpt"):
            if isinstance(node.get(key), str):
                node[key] = None
        if "batch_augments" in node:  # these pad to the size of large images
            node["batch_augments"] = None
        node.update({key: few for key, few in _FEW.items() if isinstance(node.get(key), int) and node[key] > few})
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            _lighten(child)


# --- One config -----------------------------------------------------------------------------------------------------


def build(config: Config) -> BaseModel:
    """The model of a config as the Runner builds it, with its initial weights."""
    init_default_scope(config.default_scope)
    if config.get("data_preprocessor") is not None:
        config.model.setdefault("data_preprocessor", config.data_preprocessor)
    model = MODELS.build(config.model)
    model.init_weights()
    return model


def step(model: BaseModel, batch: dict[str, Any]) -> float:
    """The loss of a batch, after its backward pass.

    Raises:
        FloatingPointError: The loss or a gradient is not finite, or there is no gradient at all.
    """
    model.train()  # not all of mmdet's return themselves
    MessageHub.get_current_instance().update_info_dict(dict(epoch=0, iter=0, max_epochs=1, max_iters=1))
    data = model.data_preprocessor(batch, True)
    if _is_headless(model):
        loss = sum(features.square().mean() for features in model.extract_feat(data["inputs"]))
    else:
        loss, _ = model.parse_losses(model(**data, mode="loss"))
    loss.backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if not torch.isfinite(loss) or not grads or not all(grad.isfinite().all() for grad in grads):
        raise FloatingPointError(f"loss {loss.item()}; {len(grads)} parameters have a gradient, not all finite")
    return loss.item()


def _is_headless(model: BaseModel) -> bool:
    return hasattr(model, "with_head") and not model.with_head  # mmpretrain's backbones of others' models


def _only_pretrains(model: BaseModel) -> bool:
    return any(kind.__name__ == "BaseSelfSupervisor" for kind in type(model).__mro__)


def stages(toolbox: str, config: str) -> Iterator[str]:
    """Cells for :data:`STAGES`, one after the other."""
    os.chdir(config_root(toolbox).parent)  # some configs name others from there
    small = load_small(toolbox, config)
    torch.manual_seed(0)
    model = build(small)
    yield f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M"
    try:
        yield f"loss {step(model, make_batch(small)):.3g}"
    except NotImplementedError as error:
        if "compiled ops" in str(error):
            raise
        yield HAS_NONE
    if _is_headless(model) or _only_pretrains(model):
        yield HAS_NONE
        return
    model.eval()
    with torch.no_grad():
        model.test_step(make_batch(small, training=False))
    yield "yes"


def survey(toolbox: str, config: str) -> Outcome:
    """Runs :func:`stages` in this process."""
    began, outcome = time.monotonic(), Outcome(toolbox, config)
    with open(os.devnull, "w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            outcome.cells.extend(stages(toolbox, config))
        except Exception as error:  # whatever it is, it is the answer
            outcome.reason = reason_of(error)
    outcome.seconds = time.monotonic() - began
    return outcome


_MISSING_PACKAGE = re.compile(
    r"""No module named '(?P<module>\w+)|pip install (?!-)["'`]?(?P<pip>[\w-]+(\[\w+\])?)"""
    r"""|lease install (?P<name>\w+) first"""
)


def reason_of(error: BaseException) -> str:
    """An error in a line: the package that is missing, if that is it, or its kind and the beginning of its text."""
    text = " ".join(str(error).split())
    missing = _MISSING_PACKAGE.search(text)
    if missing is not None:
        return f"needs the package {missing['module'] or missing['pip'] or missing['name']}"
    if isinstance(error, URLError):
        return "downloads weights when it is built"
    if isinstance(error, MemoryError) or "can't allocate memory" in text:
        return "needs more memory than it was given"
    return f"{type(error).__name__}: {text[:160]}"


# --- Many configs ---------------------------------------------------------------------------------------------------


def survey_all(
    configs: Sequence[tuple[str, str]], jobs: int = 1, seconds: float = 300, memory: int = 8 << 30
) -> Iterator[Outcome]:
    """Outcomes of configs, each in a process of its own, as they come.

    Processes are forked, so that the toolboxes are imported once.

    Args:
        configs: Toolbox and path of each.
        jobs: Number of processes at a time, each on one thread.
        seconds: A config that takes longer is given up.
        memory: A config that takes more (bytes) is given up.
    """
    for toolbox in {toolbox for toolbox, _ in configs}:
        importlib.import_module(f"{toolbox}.models")
    torch.set_num_threads(1)
    waiting = list(configs)[::-1]
    running: dict[Connection, tuple[BaseProcess, float, Outcome]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            toolbox, config = waiting.pop()
            process, receiver = _start(toolbox, config, memory)
            running[receiver] = process, time.monotonic() + seconds, Outcome(toolbox, config)
        first_deadline = min(deadline for _, deadline, _ in running.values())
        ready = wait(list(running), timeout=max(0.0, min(1.0, first_deadline - time.monotonic())))
        for receiver, (process, deadline, outcome) in list(running.items()):
            if receiver in ready:
                yield _received(receiver, outcome)
            elif time.monotonic() > deadline:
                outcome.reason = f"no result after {seconds:.0f} s"
                yield outcome
            else:
                continue
            process.terminate()
            process.join()
            del running[receiver]


def _start(toolbox: str, config: str, memory: int) -> tuple[BaseProcess, Connection]:
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_send_survey, args=(toolbox, config, memory, sender))
    process.start()
    sender.close()
    return process, receiver


def _send_survey(toolbox: str, config: str, memory: int, sender: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    sender.send(survey(toolbox, config))


def _received(receiver: Connection, outcome: Outcome) -> Outcome:
    try:
        return receiver.recv()
    except EOFError:
        outcome.reason = "the process died"
        return outcome
