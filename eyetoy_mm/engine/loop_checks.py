"""What a config and its data make together, before the first step: loops without steps, batches that cannot be made."""

from __future__ import annotations

import contextlib
import copy
import logging
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from eyetoy_mm.datasets.findings import Finding, refuse_fatal
from eyetoy_mm.engine.config_checks import shape_findings

_SAMPLES = 8  # of a validation set, of which the sizes are compared


def check_loops(runner: Runner) -> None:
    """Look at the loaders of a Runner that is about to train; they are built, as training would next.

    Args:
        runner: With its data sets where the config says they are.

    Raises:
        UserError: Training would take no step, its last batch would have one image where batch norm needs two, or a
            batch of validation would have images of several sizes where the toolbox pads none.
    """
    loader = runner.train_dataloader
    refuse_fatal(_empty(loader))
    with _same_random_numbers():
        loader.dataset[0]  # in this process: an error in a worker's has lost where it came from
        findings = [*_alone(runner, loader), *_mixed_sizes(runner)]
    refuse_fatal(findings)
    _tell_long_schedules(runner)


@contextlib.contextmanager
def _same_random_numbers() -> Iterator[None]:
    """What is tried leaves the random state as the Runner has set it."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _empty(loader: DataLoader) -> list[Finding]:
    if len(loader):
        return []
    images = len(loader.dataset)  # type: ignore[arg-type]
    message = f"{images} images give no batch of {loader.batch_size}"
    if loader.drop_last and images:
        message += ", and incomplete ones are dropped: take a smaller batch_size, or drop_last=False"
    return [Finding("train_dataloader", f"{message}; training would take no step")]


def _alone(runner: Runner, loader: DataLoader) -> list[Finding]:
    """A last batch of one image, for models that cannot train on one."""
    size: Any = loader.batch_size
    sampler: Any = loader.sampler
    if loader.drop_last or isinstance(sampler, InfiniteSampler) or not size or len(sampler) % size != 1:
        return []
    config = copy.deepcopy(runner.cfg)
    config.train_dataloader.batch_size = 1
    return [
        Finding(
            "train_dataloader.drop_last=False",
            f"{len(sampler)} images in batches of {size} leave one for the last, and {finding.message}; or set "
            "drop_last=True",
        )
        for finding in shape_findings(config)
        if finding.kind == "train_dataloader.batch_size=1"
    ]


def _mixed_sizes(runner: Runner) -> list[Finding]:
    """Mmseg stacks the images of a batch of validation as they are."""
    loader = runner.val_dataloader if runner.val_loop is not None else None
    if runner.cfg.get("default_scope") != "mmseg" or loader is None or (loader.batch_size or 1) == 1:
        return []
    sizes: dict[tuple[int, ...], str] = {}
    for sample in islice(iter(loader.dataset), _SAMPLES):
        sizes.setdefault(tuple(sample["inputs"].shape[1:]), sample["data_samples"].metainfo.get("img_path", "an image"))
    if len(sizes) == 1:
        return []
    (first, second), (one, other) = list(sizes)[:2], list(sizes.values())[:2]
    return [
        Finding(
            f"val_dataloader.batch_size={loader.batch_size}",
            f"the pipeline makes {first[0]} x {first[1]} of {one} and {second[0]} x {second[1]} of {other}, and images "
            "of one batch need one size. Take batch_size=1, or a Resize with keep_ratio=False",
        )
    ]


def _tell_long_schedules(runner: Runner) -> None:
    """Say where a schedule in iterations, such as a warm-up, is longer than the training in epochs turned out to be."""
    schedulers = runner.cfg.get("param_scheduler") or ()
    total = runner.max_iters
    for scheduler in schedulers if isinstance(schedulers, list | tuple) else ():
        end = scheduler.get("end")
        if not scheduler.get("by_epoch", True) and isinstance(end, int) and total < end < 1e8:
            text = f"{scheduler['type']} goes on to iteration {end}, and training ends at {total}: it is cut off"
            print_log(f"param_scheduler: {text}", "current", logging.WARNING)
