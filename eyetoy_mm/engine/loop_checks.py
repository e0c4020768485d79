"""What a config and its data make together, before the first step: loops without steps, batches that cannot be made."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import MODELS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from eyetoy_mm.backbones.staged import StagedBackbone
from eyetoy_mm.datasets.files import why_no_image
from eyetoy_mm.datasets.findings import Finding, refuse_fatal
from eyetoy_mm.datasets.guarded_loading import plain_datasets
from eyetoy_mm.engine.config_checks import shape_findings
from eyetoy_mm.engine.config_places import class_of
from eyetoy_mm.engine.hooks.common import unwrapped

_NORMALISED = 3  # images of training of which the numbers are looked at
_TOO_LARGE = 300.0  # images of 0 to 255 that are shifted alone stay below
_AS_STORED = 50.0  # images that are neither shifted nor scaled go to 255, normalised ones not to 5
_TOO_ALIKE = 0.1  # between the smallest and the largest number of a channel, of a mean and std of 0 and 1
_SAMPLES = 8  # of a validation set, of which the sizes are compared


def check_loops(runner: Runner) -> None:
    """Look at the loaders of a Runner that is about to train; they are built, as training would next.

    Args:
        runner: With its data sets where the config says they are.

    Raises:
        UserError: Training would take no step, validation has no image, a pipeline packs nothing, a last batch of
            training would have one image where batch norm needs two, or a batch of validation would have images of
            several sizes where the toolbox pads none.
    """
    loader = runner.train_dataloader
    refuse_fatal([*_empty(loader), *_unseen("val", runner.val_loop), *_empty_part("train_dataloader", loader.dataset)])
    with same_random_numbers():
        sample = loader.dataset[0]  # in this process: an error in a worker's has lost where it came from
        refuse_fatal(_unpacked("train", sample))
        if runner.val_loop is not None:
            refuse_fatal(_unpacked("val", runner.val_dataloader.dataset[0]))
        findings = [*_alone(runner, loader, sample), *_mixed_sizes(runner), *_odd_numbers(runner, loader)]
    refuse_fatal(findings)
    _tell_long_schedules(runner)
    _tell_cut_accumulations(runner)
    _tell_what_is_saved_late(runner)


def check_test_loop(runner: Runner) -> None:
    """Look at the loader of a Runner that is about to test; it is built, as the test would next.

    Raises:
        UserError: There is no image, or one of several data sets has none.
    """
    refuse_fatal(_unseen("test", runner.test_loop))


@contextlib.contextmanager
def same_random_numbers() -> Iterator[None]:
    """What is tried leaves the random state as the Runner has set it."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _empty(loader: DataLoader) -> list[Finding]:
    if len(loader):
        return []
    images = len(loader.dataset)  # type: ignore[arg-type]
    batches: Any = loader.batch_sampler
    message = f"{images} images give no batch of {getattr(batches, 'batch_size', loader.batch_size)}"
    if getattr(batches, "drop_last", False) and images:
        message += ", and incomplete ones are dropped: take a smaller batch_size, or drop_last=False"
    return [Finding("train_dataloader", f"{message}; training would take no step")]


def _unseen(split: str, loop: BaseLoop | None) -> list[Finding]:
    """An evaluation without an image, which mmengine passes over with an empty score."""
    if loop is None or not hasattr(loop.dataloader, "dataset"):
        return []
    key, dataset = f"{split}_dataloader", loop.dataloader.dataset
    if not len(loop.dataloader):
        return [Finding(key, f"has no image: it would score nothing. {why_no_image(dataset)}")]
    return list(_empty_part(key, dataset))


def _empty_part(key: str, dataset: Any) -> Iterator[Finding]:
    """A data set without an image among several, which are put together without a word."""
    parts = [part for part in plain_datasets(dataset) if hasattr(part, "__len__")]
    for index, part in enumerate(parts):
        if len(parts) > 1 and not len(part):
            yield Finding(key, f"data set {index} of {len(parts)} has no image. {why_no_image(part)}, or take it out")


def _unpacked(split: str, sample: Any) -> list[Finding]:
    """What a pipeline of the toolboxes makes where it ends without the step that packs."""
    if not isinstance(sample, dict) or "inputs" in sample or "img" not in sample:
        return []
    told = "ends without a step that packs images and annotations: PackSegInputs, PackDetInputs or PackInputs"
    return [Finding(f"{split}_dataloader.dataset.pipeline", told)]


def _alone(runner: Runner, loader: DataLoader, sample: Any) -> list[Finding]:
    """A batch of one image, mostly the last, for models that cannot train on one."""
    batches: Any = loader.batch_sampler  # the loader itself has no batch size where its batches are of a class of ours
    size: Any = getattr(batches, "batch_size", None)
    sampler: Any = getattr(batches, "sampler", None)
    whole = getattr(batches, "drop_last", False) or sampler is None or isinstance(sampler, InfiniteSampler)
    if not size or (size > 1 and (whole or len(sampler) % size != 1)):
        return []
    config = copy.deepcopy(runner.cfg)
    config.train_dataloader.batch_size = 1
    findings = [
        finding
        for finding in shape_findings(config, _size_in_model(runner, loader, sample))
        if finding.kind == "train_dataloader.batch_size=1"
    ]
    if size == 1:
        return findings
    told = f"{len(sampler)} images in batches of {size} leave one for the last, and "
    kind = "train_dataloader.drop_last=False"
    return [Finding(kind, f"{told}{finding.message}; or set drop_last=True") for finding in findings]


def _size_in_model(runner: Runner, loader: DataLoader, sample: Any) -> tuple[int, int] | None:
    """Height and width of an image of training as the model gets it; None where that cannot be told."""
    inputs = _in_model(runner, loader, sample)
    return None if inputs is None else (inputs.shape[2], inputs.shape[3])


def _in_model(runner: Runner, loader: DataLoader, sample: Any) -> torch.Tensor | None:
    """A batch of one image of training as the model gets it ``(1, C, H, W)``; None where that cannot be told."""
    try:
        batch = unwrapped(runner).data_preprocessor(loader.collate_fn([sample]), True)  # type: ignore[misc]
    except Exception:  # of those that need a run; what is wrong with it the first step tells
        return None
    inputs = batch.get("inputs") if isinstance(batch, dict) else None
    return inputs if isinstance(inputs, torch.Tensor) and inputs.ndim == 4 else None


def _odd_numbers(runner: Runner, loader: DataLoader) -> Iterator[Finding]:
    """Images normalised by numbers of another scale than theirs, which trains, and badly."""
    shown = largest = spread = smallest = 0.0
    for index in range(min(_NORMALISED, len(loader.dataset))):  # type: ignore[arg-type]
        sample = loader.dataset[index]
        raw = sample.get("inputs") if isinstance(sample, dict) else None
        seen = _in_model(runner, loader, sample)
        if seen is None or not isinstance(raw, torch.Tensor) or not raw.numel():
            return
        seen = seen[..., : raw.shape[-2], : raw.shape[-1]]  # without what fills a batch
        smallest = min(smallest, float(seen.min()))
        shown, largest = max(shown, float(seen.abs().max())), max(largest, float(raw.abs().max()))
        spread = max(spread, float((seen.amax((0, 2, 3)) - seen.amin((0, 2, 3))).max()))
    if shown > _AS_STORED and smallest >= 0 and _from_weights_of_ours(runner.cfg):
        told = f"is missing, and images come to the model as numbers of 0 to {shown:.0f}: our weights were trained on "
        yield Finding("data_preprocessor.mean", f"{told}normalised ones. Set mean and std as they were", fatal=False)
    too_large = shown > _TOO_LARGE and largest <= 255
    if not too_large and not (0 < largest <= 10 and spread < _TOO_ALIKE):
        return
    key = "model.data_preprocessor" if runner.cfg.model.get("data_preprocessor") else "data_preprocessor"
    settings = runner.cfg.model.get("data_preprocessor") or runner.cfg.get("data_preprocessor") or {}
    numbers = f"mean={settings.get('mean')}, std={settings.get('std')}"
    if too_large:
        told = (
            f"makes numbers of up to {shown:,.0f} of images of 0 to {largest:.0f}: they seem to be for images of 0 to 1"
        )
        yield Finding(f"{key}.std", f"{numbers} {told}. Multiply both by 255")
    else:
        told = (
            f"is for images of 0 to 255, and the pipeline makes numbers of up to {largest:.2g}: all images become alike"
        )
        yield Finding(
            f"{key}.std", f"{numbers} {told}. Take a step that normalises out of the pipeline, or these numbers"
        )


def _from_weights_of_ours(config: Config) -> bool:
    """Whether the model is ours, and begins with weights that the config names."""
    backbone = config.model.get("backbone") or {}
    kind = class_of(backbone, MODELS)
    ours = isinstance(kind, type) and issubclass(kind, StagedBackbone)
    return ours and not config.get("resume") and bool(config.get("load_from") or backbone.get("init_cfg"))


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


def _tell_cut_accumulations(runner: Runner) -> None:
    """Say where checkpoints will be saved while gradients wait for those of more steps; they do not hold these."""
    counts = (runner.cfg.get("optim_wrapper") or {}).get("accumulative_counts", 1)
    if counts > runner.max_iters:
        text = f"gradients of {counts} steps are accumulated, and training has {runner.max_iters}: one update is made"
        print_log(f"optim_wrapper.accumulative_counts: {text}", "current", logging.WARNING)
    for hook, steps in _saving_steps(runner):
        if steps % counts == 0:
            continue
        fits = counts // math.gcd(counts, len(runner.train_loop.dataloader)) if hook.by_epoch else counts
        text = (
            f"interval={hook.interval} saves every {steps} steps, and gradients of {counts} are accumulated "
            "(optim_wrapper.accumulative_counts): checkpoints between do not hold those that wait, and what goes "
            f"on from one is not exact. Take an interval of {fits}, or a multiple of it"
        )
        print_log(f"default_hooks.checkpoint: {text}", "current", logging.WARNING)


def _tell_what_is_saved_late(runner: Runner) -> None:
    """Say where no checkpoint is saved before training ends, though the config asks for some."""
    total = runner.max_iters
    for hook, steps in _saving_steps(runner):
        if steps >= total:
            unit = "epochs" if hook.by_epoch else "iterations"
            what = "only its end is saved" if hook.save_last else "nothing is saved"
            text = (
                f"interval={hook.interval} ({unit}) saves every {steps} steps, and training has {total}: {what}, and a "
                "run that dies before begins anew"
            )
            print_log(f"default_hooks.checkpoint: {text}", "current", logging.WARNING)


def _saving_steps(runner: Runner) -> Iterator[tuple[CheckpointHook, int]]:
    """Each hook that saves while a loop trains, with the number of steps after which it does."""
    loop = runner.train_loop
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook) or hook.interval < 1:
            continue
        if not hook.by_epoch:
            yield hook, hook.interval
        elif isinstance(loop, EpochBasedTrainLoop):
            yield hook, hook.interval * len(loop.dataloader)
