"""The first lines of a run: what is trained, on what, where; then how long it takes; at its end, what comes next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from mmengine import dist
from mmengine.dist import master_only
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner

from eyetoy_mm.engine.hooks.common import name_of, told_if_it_fails, unwrapped
from eyetoy_mm.errors import counted
from eyetoy_mm.registry import HOOKS

_EXPECTED_AFTER = 10  # iterations: the first ones are slower


@HOOKS.register_module()
class DescribeRunHook(Hook):
    """Tell what a run is, how long it is expected to take, and with which commands its result is used."""

    priority = "LOWEST"  # after ProgressHook, which knows how long it takes, and after the pictures

    @master_only
    def before_train(self, runner: Runner) -> None:
        """Tell what is trained, on what, on which device, and where everything goes."""
        self._seen = 0
        with told_if_it_fails(runner, "The run is not described"):
            for line in (_model(runner), *_data(runner), _device(runner), _places(runner)):
                runner.logger.info(line)

    @master_only
    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Tell once how long it will take."""
        self._seen += 1
        eta = runner.message_hub.runtime_info.get("eta")
        if self._seen == _EXPECTED_AFTER and eta is not None and runner.iter + 1 < runner.max_iters:
            runner.logger.info(
                f"Expected: {runner.max_iters - runner.iter - 1} more iterations in {timedelta(seconds=round(eta))}, "
                "evaluations apart until the first one is measured"
            )

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Tell what comes next."""
        with told_if_it_fails(runner, "What comes next is not told"):
            runner.logger.info("\n".join(("Next:", *(f"    {command}" for command in _next_commands(runner)))))


def _model(runner: Runner) -> str:
    model = unwrapped(runner)
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) / 1e6
    backbone = getattr(model, "backbone", None)
    size = ((runner.cfg.get("model") or {}).get("backbone") or {}).get("arch")
    size = size.get("type", "") if isinstance(size, dict) else size or ""
    of = f" on {type(backbone).__name__}{f'-{size}' if isinstance(size, str) and size else ''}" if backbone else ""
    frozen = f", {trained:.1f} M of them trained" if trained < count else ""
    return f"Model: {type(model).__name__}{of}, {count:.1f} M parameters{frozen}"


def _data(runner: Runner) -> Iterator[str]:
    for name, loop in (("Training", runner.train_loop), ("Evaluation", runner.val_loop)):
        if loop is None:
            continue
        loader: Any = loop.dataloader
        dataset = loader.dataset
        classes = len((getattr(dataset, "metainfo", None) or {}).get("classes") or ())
        of = f" of {classes} classes" if classes else ""
        root = getattr(dataset, "data_root", None)
        where = f", in {root}" if root else ""
        size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
        batch = f", {size} a batch" if size else ""
        yield f"{name} data: {len(dataset)} samples{of} ({name_of(dataset)}){where}{batch}"


def _device(runner: Runner) -> str:
    device = next(unwrapped(runner).parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else counted(torch.get_num_threads(), "thread")
    processes = dist.get_world_size()
    several = f", {processes} processes" if processes > 1 else ""
    precision = "mixed precision" if isinstance(runner.optim_wrapper, AmpOptimWrapper) else "float32"
    return f"Device: {device} ({name}){several}, {precision}; the back end of attention is told at its first use"


def _places(runner: Runner) -> str:
    log = getattr(runner.logger, "log_file", None)
    return f"Everything goes to {runner.work_dir}; environment, config and hooks are in {log or 'the log file'}"


def _next_commands(runner: Runner) -> Iterator[str]:
    config = runner.cfg.filename or os.path.join(runner.work_dir, "CONFIG.py")
    checkpoint = _checkpoint_of(runner)
    given = f"{shlex.quote(os.path.relpath(config))} {shlex.quote(os.path.relpath(checkpoint))}"
    yield f"eyetoy test {given} --show-dir {shlex.quote(os.path.relpath(os.path.join(runner.work_dir, 'shown')))}"
    yield f"eyetoy infer {given} PHOTO --out painted"
    yield f"eyetoy export {given} --out model.onnx"


def _checkpoint_of(runner: Runner) -> str:
    """The best checkpoint of a run, where it is kept, else the last."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            best = getattr(hook, "best_ckpt_path", None)
            last = getattr(hook, "last_ckpt", None)
            if found := best or last:
                return str(found)
    return os.path.join(runner.work_dir, "CHECKPOINT.pth")
