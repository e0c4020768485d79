"""What does not fit together in a config though each part is right: loops, schedules, data loaders, hooks, metrics."""

from __future__ import annotations

import copy
import inspect
import logging
import math
import multiprocessing
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EMAHook, LoggerHook
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    FUNCTIONS,
    HOOKS,
    LOG_PROCESSORS,
    LOOPS,
    METRICS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
    Registry,
)
from mmengine.runner import (
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    Priority,
    Runner,
    TestLoop,
    ValLoop,
    get_priority,
)
from torch.utils.data import DataLoader

from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.engine.config_places import (
    argument_findings,
    at,
    built_findings,
    class_of,
    dicts_in,
    did_you_mean,
    explain,
    parameters_of,
    unknown_type,
)
from eyetoy_mm.engine.config_structure import datasets_in
from eyetoy_mm.engine.model_limits import limit_findings
from eyetoy_mm.engine.preprocessing import holds_rgb
from eyetoy_mm.errors import first_few
from eyetoy_mm.layers.checks import is_whole
from eyetoy_mm.paths import is_address
from eyetoy_mm.registry import type_name

_TOOLBOXES = ("mmdet", "mmseg", "mmpretrain")


def rule_findings(config: Config, splits: tuple[str, ...]) -> Iterator[Finding]:
    """Everything found by the rules of this module, for the splits that will be used."""
    yield from _run_findings(config)
    for split in splits:
        if config.get(f"{split}_dataloader") is not None:
            yield from _loader_findings(f"{split}_dataloader", config[f"{split}_dataloader"])
            yield from _loop_findings(config, split)
            yield from _order_findings(config, split)
            yield from _metric_findings(config, split)
    yield from _class_findings(config, splits)
    yield from _preprocessor_findings(config)
    yield from limit_findings(config)
    if "train" in splits and config.get("train_cfg") is not None:
        yield from _schedule_findings(config)
        yield from _odd_schedules(config)
        yield from _best_findings(config)
        yield from _left_out_findings(config)
    yield from _hook_findings(config)


# --- The run ----------------------------------------------------------------------------------------------------------


def _run_findings(config: Config) -> Iterator[Finding]:
    """Sections without a class, the visualizer, and where a run writes."""
    known = set(inspect.signature(Runner.set_randomness).parameters) - {"self"}
    yield from _unknown_keys("randomness", config.get("randomness"), known)
    seed = (config.get("randomness") or {}).get("seed")
    if seed is not None and not (is_whole(seed) and 0 <= seed < 2**32):
        yield Finding(at("randomness.seed", seed), "should be a whole number from 0 to 2**32 - 1, or None")
    for name in ("deterministic", "diff_rank_seed"):
        yield from _switch(f"randomness.{name}", (config.get("randomness") or {}).get(name, False))
    yield from _environment_findings(config.get("env_cfg") or {})
    scaling = config.get("auto_scale_lr")
    if scaling is not None and not isinstance(scaling, dict):
        yield Finding(at("auto_scale_lr", scaling), "should be a dict: enable and base_batch_size")
    elif scaling and not (is_whole(scaling.get("base_batch_size", 1)) and scaling.get("base_batch_size", 1) > 0):
        value = scaling["base_batch_size"]
        yield Finding(at("auto_scale_lr.base_batch_size", value), "should be a whole number, 1 or more")
    if config.get("on_save_error", "stop") not in ("stop", "go_on"):
        yield Finding(at("on_save_error", config.on_save_error), "should be 'stop' or 'go_on'")
    level = config.get("log_level", "INFO")
    if not is_whole(level) and not (isinstance(level, str) and is_whole(getattr(logging, level, None))):
        yield Finding(at("log_level", level), "should be one of DEBUG, INFO, WARNING, ERROR, CRITICAL")
    if config.get("log_processor") is not None:
        yield from _typed("log_processor", dict(type="LogProcessor") | config.log_processor, LOG_PROCESSORS)
    if config.get("visualizer") is not None:
        yield from _typed("visualizer", dict(type="Visualizer") | config.visualizer, VISUALIZERS)
        for index, backend in enumerate(config.visualizer.get("vis_backends") or ()):
            yield from _typed(f"visualizer.vis_backends.{index}", backend, VISBACKENDS, ("save_dir",))
    if config.get("work_dir") is not None:
        yield from _writable("work_dir", config.work_dir)
    load_from = config.get("load_from")
    if load_from is not None and not isinstance(load_from, str):
        yield Finding(at("load_from", load_from), "should be the path or address of a checkpoint, or None")


def _preprocessor_findings(config: Config) -> Iterator[Finding]:
    """Numbers by which every image is normalised and padded: a mistake in them gives NaN, or no pixel."""
    own, common = config.model.get("data_preprocessor"), config.get("data_preprocessor")
    key, settings = ("model.data_preprocessor", own) if own else ("data_preprocessor", common)
    if not isinstance(settings, dict):
        return
    for name in ("mean", "std"):
        values = settings.get(name)
        if values is None:
            continue
        numbers = values if isinstance(values, list | tuple) else [values]
        if not all(isinstance(one, int | float) and math.isfinite(one) for one in numbers):
            yield Finding(at(f"{key}.{name}", values), "should be finite numbers, one for each channel")
        elif name == "std" and not all(one > 0 for one in numbers):
            yield Finding(at(f"{key}.{name}", values), "images are divided by it: it should be above 0")
    if not holds_rgb(config):
        yield from _channel_order(key, settings)
    divisor = settings.get("pad_size_divisor", settings.get("size_divisor"))
    if divisor is not None and not (is_whole(divisor) and divisor > 0):
        name = "pad_size_divisor" if "pad_size_divisor" in settings else "size_divisor"
        yield Finding(at(f"{key}.{name}", divisor), "should be a whole number, 1 or more")
    size = settings.get("size")
    if isinstance(size, list | tuple) and not all(is_whole(side) and side > 0 for side in size):
        yield Finding(at(f"{key}.size", size), "should be a height and a width, 1 or more")


_RED_GREEN_BLUE = (123.675, 116.28, 103.53)  # means of ImageNet, as most pretrained models have them


def _channel_order(key: str, settings: dict) -> Iterator[Finding]:
    """Means in the order of one kind of images, and images of the other, where mmcv loads them: as blue, green, red."""
    mean = settings.get("mean")
    if not isinstance(mean, list | tuple) or len(mean) != 3 or not all(isinstance(x, int | float) for x in mean):
        return
    turns = "to_rgb" if "to_rgb" in settings else "bgr_to_rgb"
    red_first, blue_first = (
        all(abs(x - y) < 1 for x, y in zip(mean, order)) for order in (_RED_GREEN_BLUE, _RED_GREEN_BLUE[::-1])
    )
    if red_first and not settings.get(turns):
        told = f"are of red, green, blue, and images stay blue, green, red: set {turns}=True"
        yield Finding(at(f"{key}.mean", mean), told, fatal=False)
    if blue_first and settings.get(turns):
        told = f"are of blue, green, red, and {turns}=True makes images red, green, blue: turn mean and std, too"
        yield Finding(at(f"{key}.mean", mean), told, fatal=False)


def _environment_findings(env_cfg: dict) -> Iterator[Finding]:
    """What mmengine's ``setup_env`` takes."""
    yield from _unknown_keys("env_cfg", env_cfg, {"cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"})
    yield from _switch("env_cfg.cudnn_benchmark", env_cfg.get("cudnn_benchmark", False))
    for key in ("mp_cfg", "dist_cfg"):
        if key in env_cfg and not isinstance(env_cfg[key], dict):
            yield Finding(at(f"env_cfg.{key}", env_cfg[key]), "should be a dict; leave it out for what is usual")
            return
    limit = env_cfg.get("resource_limit", 4096)
    if not (is_whole(limit) and limit > 0):
        yield Finding(at("env_cfg.resource_limit", limit), "should be a whole number of files, 1 or more")
    processes = env_cfg.get("mp_cfg", {})
    yield from _unknown_keys("env_cfg.mp_cfg", processes, {"mp_start_method", "opencv_num_threads"})
    ways, way = multiprocessing.get_all_start_methods(), processes.get("mp_start_method", "fork")
    if way not in ways:
        yield Finding(at("env_cfg.mp_cfg.mp_start_method", way), f"none of {', '.join(ways)}")
    threads = processes.get("opencv_num_threads", 0)
    if not is_whole(threads):
        yield Finding(at("env_cfg.mp_cfg.opencv_num_threads", threads), "should be a whole number")


def _switch(key: str, value: Any) -> Iterator[Finding]:
    if not isinstance(value, bool):
        yield Finding(at(key, value), "should be True or False")


def _unknown_keys(key: str, section: Any, known: set[str]) -> Iterator[Finding]:
    if section is not None and not isinstance(section, dict):
        yield Finding(at(key, section), "should be a dict")
        return
    for name in set(section or ()) - known - {"_scope_"}:
        yield Finding(f"{key}.{name}", f"nothing reads it{did_you_mean(name, sorted(known))}")


def _writable(key: str, folder: Any) -> Iterator[Finding]:
    if not isinstance(folder, str):
        yield Finding(at(key, folder), "should be the path of a folder")
        return
    if is_address(folder):
        return
    path = Path(folder).absolute()
    existing = next(one for one in (path, *path.parents) if one.exists())
    if not existing.is_dir():
        yield Finding(at(key, folder), f"it cannot be made: {existing} is a file")
    elif not os.access(existing, os.W_OK | os.X_OK):
        yield Finding(key, f"it cannot be written: {existing} may not be written by this user. Give --work-dir FOLDER")


def _typed(key: str, part: Any, registry: Registry, others: tuple[str, ...] = ()) -> Iterator[Finding]:
    """A part that is not built: its class, and its arguments."""
    if not isinstance(part, dict):
        yield Finding(at(key, part), f"should be a dict: the type of a {registry.name}, and its arguments")
        return
    kind = class_of(part, registry)
    if kind is None:
        yield unknown_type(key, part, registry)
    else:
        yield from argument_findings(key, part, kind, others)


# --- Data loaders -----------------------------------------------------------------------------------------------------

_OF_RUNNER = {"dataset", "sampler", "batch_sampler", "collate_fn", "worker_init_fn", "num_batch_per_epoch", "type"}


def _loader_findings(key: str, loader: dict) -> Iterator[Finding]:
    """What PyTorch says of a loader without data, and the parts that mmengine makes for it."""
    taken = set(inspect.signature(DataLoader.__init__).parameters) - {"self"} | _OF_RUNNER
    for name in loader:
        if name not in taken:
            yield Finding(
                at(f"{key}.{name}", loader[name]), f"a data loader takes no {name}{did_you_mean(name, taken)}"
            )
    for name, least in (("batch_size", 1), ("num_workers", 0)):
        value = loader.get(name, least)
        if not is_whole(value) or value < least:
            yield Finding(at(f"{key}.{name}", value), f"should be a whole number, {least} or more")
            return
    if "batch_size" not in loader and "batch_sampler" not in loader:
        yield Finding(f"{key}.batch_size", "is missing: how many images a batch has")
    plain = {name: value for name, value in loader.items() if name in taken - _OF_RUNNER}
    if plain.get("persistent_workers") and not plain.get("num_workers"):
        yield Finding(f"{key}.persistent_workers=True", "needs num_workers of 1 or more; set it to False with none")
    elif plain.get("prefetch_factor") is not None and not plain.get("num_workers"):
        yield Finding(at(f"{key}.prefetch_factor", plain["prefetch_factor"]), "needs num_workers of 1 or more")
    else:
        try:
            DataLoader([0], **plain)  # type: ignore[arg-type]
        except Exception as error:  # whatever it refuses
            yield Finding(key, f"PyTorch refuses it: {error}")
    for name in ("sampler", "batch_sampler"):
        if name == "sampler" and loader.get(name) is None:
            yield Finding(f"{key}.sampler", "is missing: dict(type='DefaultSampler', shuffle=...) or 'InfiniteSampler'")
        elif loader.get(name) is not None:
            others = ("dataset", "seed", "sampler", "batch_size")
            yield from _typed(f"{key}.{name}", loader[name], DATA_SAMPLERS, others)
    if loader.get("num_batch_per_epoch") is not None:
        told = "all but so many batches are left out of each epoch, as in a trial"
        yield Finding(at(f"{key}.num_batch_per_epoch", loader["num_batch_per_epoch"]), told, fatal=False)
    for name in ("collate_fn", "worker_init_fn"):
        if isinstance(loader.get(name), dict) and class_of(loader[name], FUNCTIONS) is None:
            yield unknown_type(f"{key}.{name}", loader[name], FUNCTIONS)


_ENDLESS = {"InfiniteSampler", "MultiSourceSampler", "GroupMultiSourceSampler"}


def _order_findings(config: Config, split: str) -> Iterator[Finding]:
    """Samplers that never end where a loop waits for it, and images that are always trained on in one order."""
    key = f"{split}_dataloader.sampler"
    sampler: Any = (config[f"{split}_dataloader"] or {}).get("sampler")
    kind: Any = class_of(sampler, DATA_SAMPLERS)
    names = {cls.__name__ for cls in getattr(kind, "__mro__", ())}
    loop = _loop_of(config, split)[0]
    waits = split != "train" or (inspect.isclass(loop) and issubclass(loop, EpochBasedTrainLoop))
    if names & _ENDLESS and waits:
        what = "the first epoch" if split == "train" else "an evaluation"
        remedy = f"Take dict(type='DefaultSampler', shuffle={split == 'train'})"
        yield Finding(at(f"{key}.type", sampler["type"]), f"it never ends, and so {what} would not. {remedy}")
    elif split == "train" and "DefaultSampler" in names and sampler.get("shuffle") is False:
        told = "images are trained on in the order of the data set, class by class where it is sorted so"
        yield Finding(f"{key}.shuffle=False", told, fatal=False)


# --- Loops and schedules ----------------------------------------------------------------------------------------------


def _loop_of(config: Config, split: str) -> tuple[Callable[..., Any] | None, dict]:
    """The class of a loop, as the Runner finds it, and its arguments."""
    settings = dict(config[f"{split}_cfg"])
    if "type" in settings:
        return class_of(settings, LOOPS), settings
    if split != "train":
        return dict(val=ValLoop, test=TestLoop)[split], settings
    by_epoch = settings.pop("by_epoch", None)
    return (EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop) if by_epoch is not None else None, settings


_LOOPS: dict[str, tuple[type, ...]] = {
    "train": (EpochBasedTrainLoop, IterBasedTrainLoop),
    "val": (ValLoop,),
    "test": (TestLoop,),
}


def _loop_findings(config: Config, split: str) -> Iterator[Finding]:
    key, settings = f"{split}_cfg", config[f"{split}_cfg"]
    kind, arguments = _loop_of(config, split)
    if split == "train" and ("type" in settings) == ("by_epoch" in settings):
        yield Finding(
            key,
            f"needs one of type='EpochBasedTrainLoop' (or 'IterBasedTrainLoop') and by_epoch=True (or False), has "
            f"{'both' if 'type' in settings else 'neither'}",
        )
        return
    if kind is None:
        yield unknown_type(key, settings, LOOPS)
        return
    for other_split, loops in _LOOPS.items():
        if other_split != split and inspect.isclass(kind) and issubclass(kind, loops):
            yield Finding(at(f"{key}.type", settings["type"]), f"is a loop of {other_split}_cfg; leave type out here")
            return
    other = {IterBasedTrainLoop: "max_epochs", EpochBasedTrainLoop: "max_iters"}.get(kind)  # type: ignore[arg-type]
    if other in arguments:
        loop, by_epoch = ("EpochBased", True) if other == "max_epochs" else ("IterBased", False)
        told = (
            f"is of {loop}TrainLoop: set it with by_epoch={by_epoch} in place of type, or with type='{loop}TrainLoop'"
        )
        yield Finding(at(f"{key}.{other}", arguments[other]), told)
    else:
        yield from argument_findings(key, arguments, kind, ("runner", "dataloader", "evaluator"))
    for name in ("max_epochs", "max_iters", "val_interval", "val_begin"):
        value: Any = arguments.get(name)
        if name not in arguments or isinstance(value, str):
            continue  # text is told above
        least = 0 if name == "val_begin" else 1
        is_count = is_whole(value) or (isinstance(value, float) and value.is_integer())
        if not (is_count and value >= least):
            yield Finding(at(f"{key}.{name}", value), f"should be a whole number, {least} or more")
    begin: Any = arguments.get("val_begin")
    length: Any = arguments.get("max_epochs", arguments.get("max_iters"))
    if is_whole(begin) and is_whole(length) and begin > length and config.get("val_cfg") is not None:
        told = f"training ends at {length}: there will be no evaluation"
        yield Finding(at(f"{key}.val_begin", begin), told, fatal=False)
    steps = arguments.get("dynamic_intervals")
    if steps is not None and not (isinstance(steps, list) and all(map(_is_interval, steps))):
        yield Finding(
            at(f"{key}.dynamic_intervals", steps),
            "should be a list of tuples: from when on, and the interval, 1 or more",
        )


def _is_interval(step: Any) -> bool:
    return isinstance(step, tuple) and len(step) == 2 and all(map(is_whole, step)) and step[1] >= 1


def _schedule_findings(config: Config) -> Iterator[Finding]:
    """Schedulers as the Runner makes them, on a parameter of their own, and a few of their steps."""
    kind, settings = _loop_of(config, "train")
    iterates = inspect.isclass(kind) and issubclass(kind, IterBasedTrainLoop)
    length: Any = settings.get("max_iters" if iterates else "max_epochs")
    schedulers = config.get("param_scheduler")
    if not is_whole(length) or schedulers is None or (isinstance(schedulers, dict) and "type" not in schedulers):
        return  # several optimizers have a dict of them
    listed = isinstance(schedulers, list | tuple)
    for index, scheduler in enumerate(schedulers if listed else [schedulers]):
        key = f"param_scheduler.{index}" if listed else "param_scheduler"
        yield from _scheduler_findings(key, scheduler, length, iterates)


def _scheduler_findings(key: str, scheduler: dict, length: int, iterates: bool) -> Iterator[Finding]:
    if class_of(scheduler, PARAM_SCHEDULERS) is None:
        yield unknown_type(key, scheduler, PARAM_SCHEDULERS)
        return
    by_epoch = scheduler.get("by_epoch", True)
    unit = "epochs" if by_epoch else "iterations"
    follows_metric = getattr(class_of(scheduler, PARAM_SCHEDULERS), "need_val_args", False)  # it steps in evaluations
    if by_epoch and iterates and not follows_metric and not scheduler.get("convert_to_iter_based"):
        yield Finding(
            f"{key}.by_epoch=True",
            f"training counts iterations, so this {scheduler['type']} would never act. Set by_epoch=False, with "
            "begin, end and milestones in iterations",
        )
        return
    begin, end = scheduler.get("begin", 0), scheduler.get("end")
    wrong = [*_number_findings(key, scheduler)]
    if wrong:
        yield from wrong
        return
    comparable = by_epoch != iterates and is_whole(begin) and (end is None or isinstance(end, int | float))
    if comparable and begin >= length:
        told = (
            f"begins at {begin}, and training ends after {length} {unit}: it never acts. Leave it out, or train longer"
        )
        yield Finding(key, told, fatal=end is None)  # the Runner's default end would come before its begin
        if end is None:
            return
    elif comparable and end is not None and length < end < 1e8:
        yield Finding(key, f"ends at {end}, and training after {length} {unit}: it is cut off", fatal=False)
    total = scheduler.get("total_steps")
    if comparable and is_whole(total) and total < min(length, length if end is None else end) - begin:
        told = f"it ends the training with an error after {total} {unit}, and training goes on to {length}"
        yield Finding(at(f"{key}.total_steps", total), f"{told}: set it to as many")
        return
    milestones = scheduler.get("milestones")
    if milestones is not None:
        if not isinstance(milestones, list | tuple) or not all(is_whole(one) and one >= 1 for one in milestones):
            yield Finding(at(f"{key}.milestones", milestones), f"should be a list of {unit}, 1 or more")
            return
        if by_epoch != iterates and milestones and min(milestones) >= length:
            told = f"training ends after {length} {unit}: none is reached"
            yield Finding(at(f"{key}.milestones", milestones), told, fatal=False)
    yield from _stepped(key, dict(scheduler), length if by_epoch != iterates else 10**9)


def _number_findings(key: str, scheduler: dict) -> Iterator[Finding]:
    """Numbers that are taken as they are, and by which a rate is below 0 and training climbs, in the end or at once."""
    if not isinstance(scheduler.get("by_epoch", True), bool):
        yield Finding(at(f"{key}.by_epoch", scheduler["by_epoch"]), "should be True or False")
    for name, least in _LEAST.items():
        value = scheduler.get(name)
        if isinstance(value, int | float) and not value >= least:
            yield Finding(at(f"{key}.{name}", value), f"should be {least:g} or more")


_LEAST = dict.fromkeys(("begin", "gamma", "power", "eta_min", "eta_min_ratio", "eta_max", "factor", "end_factor"), 0)
_LEAST |= {"T_max": 1}


def _odd_schedules(config: Config) -> Iterator[Finding]:
    """Schedules by which a rate rises where it should fall."""
    schedulers: Any = config.get("param_scheduler") or ()
    rate = ((config.get("optim_wrapper") or {}).get("optimizer") or {}).get("lr")
    for index, scheduler in enumerate(schedulers if isinstance(schedulers, list | tuple) else ()):
        key, lowest = f"param_scheduler.{index}", scheduler.get("eta_min")
        is_rate = type_name(scheduler).endswith("LR")  # others are of momentum or weight decay
        if is_rate and isinstance(lowest, int | float) and isinstance(rate, int | float) and lowest > rate > 0:
            told = f"is above optim_wrapper.optimizer.lr={rate!r}: the rate rises to it"
            yield Finding(at(f"{key}.eta_min", lowest), told, fatal=False)
        steps = scheduler.get("begin", 0), scheduler.get("end"), scheduler.get("T_max")
        if "Cosine" not in str(scheduler.get("type")) or not all(map(is_whole, steps)):
            continue
        begin, end, lowest_at = steps
        if lowest_at < end - begin < 1e8:
            told = f"it is at its lowest after T_max={lowest_at}, and rises again until {end=}: set T_max={end - begin}"
            yield Finding(key, told, fatal=False)


def _stepped(key: str, scheduler: dict, end: int) -> Iterator[Finding]:
    scheduler = dict(end=end) | scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    try:
        built = PARAM_SCHEDULERS.build(
            copy.deepcopy(scheduler), default_args=dict(optimizer=optimizer, epoch_length=100)
        )
        for _ in range(3):
            optimizer.step()
            built.step()
    except Exception as error:  # whatever it refuses
        yield explain(error, key, scheduler, PARAM_SCHEDULERS).finding
        return
    values = [value for group in optimizer.param_groups for value in (group["lr"], group["momentum"])]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        yield Finding(key, f"gives a rate of {values[0]!r} after three steps")


# --- Hooks ------------------------------------------------------------------------------------------------------------

_DEFAULT_HOOKS = {
    *(
        "runtime_info",
        "timer",
        "sampler_seed",
        "logger",
        "param_scheduler",
        "checkpoint",
        "sync_buffers",
        "visualization",
    ),
}


def _hook_findings(config: Config) -> Iterator[Finding]:
    hooks = [(f"default_hooks.{name}", hook) for name, hook in (config.get("default_hooks") or {}).items()]
    custom = config.get("custom_hooks") or ()
    hooks += [(f"custom_hooks.{index}", hook) for index, hook in enumerate(custom)]
    for key, hook in hooks:
        name = key.rpartition(".")[2]
        if hook is None:
            continue
        if "type" not in hook and key.startswith("default") and name not in _DEFAULT_HOOKS:
            yield Finding(key, f"has no type, and is no default hook{did_you_mean(name, sorted(_DEFAULT_HOOKS))}")
            continue
        found = [*_typed(key, hook, HOOKS, ("priority",)), *_priority_findings(key, hook.get("priority", "NORMAL"))]
        kind = class_of(hook, HOOKS)
        if kind is CheckpointHook:
            taken = (
                parameters_of(kind)[0].keys()
                | parameters_of(Runner.save_checkpoint)[0].keys()
                | {"priority", "type", "_scope_"}
            )
            found += [_not_taken(key, hook, name, taken) for name in hook if name not in taken]
            found += _checkpoint_findings(key, hook)
        found += _late_findings(key, hook, config)
        yield from found
        if not found and getattr(kind, "__module__", "").startswith("mmengine.hooks"):
            yield from _built_hook(key, hook)
    if config.get("train_cfg") and _loop_of(config, "train")[0] is IterBasedTrainLoop:
        yield from _epochs_counted(config)


def _left_out_findings(config: Config) -> Iterator[Finding]:
    """What does not happen without a default hook, or without a file of it."""
    hooks = config.get("default_hooks") or {}
    taken_out = [name for name, hook in hooks.items() if hook is None]
    if "param_scheduler" in taken_out and config.get("param_scheduler"):
        told = "without it no schedule acts, and param_scheduler has some. Leave the key out, or take these out"
        yield Finding("default_hooks.param_scheduler=None", told)
    if "sampler_seed" in taken_out:
        told = "without it every epoch has the same order of images"
        yield Finding("default_hooks.sampler_seed=None", told, fatal=False)
    if "checkpoint" in taken_out:
        yield Finding("default_hooks.checkpoint=None", "nothing that is learnt will be saved", fatal=False)
    checkpoint = hooks.get("checkpoint") or {}
    if checkpoint.get("save_last") is False and checkpoint.get("interval", -1) == -1:
        told = "with no interval, nothing that is learnt will be saved"
        yield Finding("default_hooks.checkpoint.save_last=False", told, fatal=bool(not checkpoint.get("save_best")))


def _epochs_counted(config: Config) -> Iterator[Finding]:
    """Hooks and logs that count epochs, where training counts iterations and is one long epoch for them."""
    default = dict(checkpoint=dict(type="CheckpointHook", interval=1), logger=dict(type="LoggerHook"))  # the Runner's
    hooks = [(f"default_hooks.{name}", hook) for name, hook in (default | (config.get("default_hooks") or {})).items()]
    hooks += [(f"custom_hooks.{index}", hook) for index, hook in enumerate(config.get("custom_hooks") or ())]
    for key, hook in hooks:
        kind = class_of(hook, HOOKS)
        if kind is None or (kind is LoggerHook and config.get("val_cfg") is None):
            continue
        if kind is CheckpointHook and hook.get("interval", -1) == -1:
            continue
        parameters = parameters_of(kind)[0]
        for name, value in ({name: one.default for name, one in parameters.items()} | dict(hook)).items():
            counts = "epoch" in name and (value is True or (is_whole(value) and value > 0))
            if name in parameters and (counts or "action_epoch" in str(value)):
                told = "training counts iterations, and is one epoch: it acts at the end, or never as it should"
                yield Finding(at(f"{key}.{name}", value), _COUNTED.get(kind, told), fatal=False)
    processor = config.get("log_processor") or {}
    if processor.get("by_epoch", True):
        told = "training counts iterations: lines of the log count an epoch that does not end. Set by_epoch=False"
        yield Finding("log_processor.by_epoch=True", told, fatal=False)


_COUNTED = {
    CheckpointHook: "training counts iterations: only its end is saved. Set by_epoch=False and interval in iterations",
    LoggerHook: "training counts iterations: all evaluations are logged as of step 0. Set log_metric_by_epoch=False",
    EMAHook: "training counts iterations: the average never begins. Set begin_iter",
}


def _late_findings(key: str, hook: dict, config: Config) -> Iterator[Finding]:
    """What hooks put in place in the last epochs alone: other pipelines, and data sets that can leave steps out."""
    name = type_name(hook)
    loader: Any = config.get("train_dataloader") or {}
    dataset = loader.get("dataset")
    if name == "PipelineSwitchHook":
        steps = hook.get("switch_pipeline")
        if not isinstance(steps, list | tuple) or not steps or not all(isinstance(step, dict) for step in steps):
            yield Finding(
                at(f"{key}.switch_pipeline", steps), "should be a list of the steps that load and pack an image"
            )
            return
        for index, step in enumerate(steps):
            yield from built_findings(f"{key}.switch_pipeline.{index}", step, TRANSFORMS)
    if name == "YOLOXModeSwitchHook" and isinstance(dataset, dict):
        kind = class_of(dataset, DATASETS)
        if kind is not None and not hasattr(kind, "update_skip_type_keys"):
            told = f"leaves out steps of a MultiImageMixDataset in the last epochs, and this is a {type_name(dataset)}"
            yield Finding(key, f"{told}: it would end the training there. Take the hook out")


def _priority_findings(key: str, priority: Any) -> Iterator[Finding]:
    try:
        get_priority(priority)
    except (KeyError, ValueError, TypeError):
        names = ", ".join(each.name for each in Priority)
        yield Finding(at(f"{key}.priority", priority), f"should be one of {names}, or a number from 0 to 100")


def _not_taken(key: str, hook: dict, argument: str, taken: Collection[str]) -> Finding:
    """An argument that it would hand on to the Runner when the first checkpoint is saved."""
    known = did_you_mean(argument, sorted(taken))
    return Finding(at(f"{key}.{argument}", hook[argument]), f"{hook['type']} takes no {argument}{known}")


_OF_CHECKPOINTS = ("meta", "state_dict", "ema_state_dict", "optimizer", "param_schedulers", "message_hub")


def _checkpoint_findings(key: str, hook: dict) -> Iterator[Finding]:
    """Names and places of files, which are looked at when the first is written, and what of the last is published."""
    if hook.get("out_dir") is not None:
        yield from _writable(f"{key}.out_dir", hook["out_dir"])
    template = hook.get("filename_tmpl")
    if template is not None:
        try:
            names = {template.format(step) for step in (1, 2)}
        except (AttributeError, LookupError, ValueError):
            names = set()
        if len(names) < 2:
            told = "should have a place for the step, as 'epoch_{}.pth' has: each checkpoint is a file of its own"
            yield Finding(at(f"{key}.filename_tmpl", template), told)
    for name in _listed(hook.get("published_keys")):
        if name is not None and name not in _OF_CHECKPOINTS:
            yield Finding(
                at(f"{key}.published_keys", name), f"no checkpoint has it{did_you_mean(name, _OF_CHECKPOINTS)}"
            )


def _built_hook(key: str, hook: dict) -> Iterator[Finding]:
    """What building one of mmengine's hooks says, and of those that act every few steps the interval."""
    arguments = {name: value for name, value in hook.items() if name != "priority"}
    try:
        built = HOOKS.build(copy.deepcopy(arguments))
    except (OSError, ImportError):
        return  # of packages for profiling
    except Exception as error:  # whatever it refuses
        yield explain(error, key, arguments, HOOKS).finding
        return
    patience = getattr(built, "patience", 1)
    if not (isinstance(patience, int | float) and patience >= 1):
        yield Finding(at(f"{key}.patience", patience), "should be a number of evaluations, 1 or more")
    interval = getattr(built, "interval", 1)
    if not is_whole(interval) or interval == 0:
        yield Finding(at(f"{key}.interval", interval), "should be a whole number, not 0")


# --- Metrics and classes ----------------------------------------------------------------------------------------------

# What a metric computes, by the argument that chooses; some look at it only when the first evaluation ends.
_CHOICES = {
    "IoUMetric": ("iou_metrics", ("mIoU", "mDice", "mFscore")),
    "CocoMetric": ("metric", ("bbox", "segm", "proposal", "proposal_fast")),
    "VOCMetric": ("metric", ("recall", "mAP")),
}
_IOU = {
    "mIoU": ("aAcc", "mIoU", "mAcc"),
    "mDice": ("aAcc", "mDice", "mAcc"),
    "mFscore": ("aAcc", "mFscore", "mPrecision", "mRecall"),
}
_COCO = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")


def _metrics(config: Config, split: str) -> Iterator[tuple[str, dict]]:
    given = config.get(f"{split}_evaluator")
    if isinstance(given, dict):
        metrics = given.get("metrics")
        if class_of(given, METRICS) is None and metrics is not None:  # an evaluator of its own
            given, base = (metrics if isinstance(metrics, list | tuple) else [metrics]), f"{split}_evaluator.metrics"
            yield from ((f"{base}.{index}", metric) for index, metric in enumerate(given))
        else:
            yield f"{split}_evaluator", given
    else:
        yield from ((f"{split}_evaluator.{index}", metric) for index, metric in enumerate(given or ()))


def _metric_findings(config: Config, split: str) -> Iterator[Finding]:
    scope = config.get("default_scope")
    evaluator = config.get(f"{split}_evaluator")
    if evaluator is not None and not evaluator:
        yield Finding(at(f"{split}_evaluator", evaluator), "has no metric: nothing would be scored. Name one")
        return
    for key, metric in _metrics(config, split):
        yield from _typed(key, metric, METRICS)
        kind = class_of(metric, METRICS)
        toolbox = getattr(kind, "__module__", "").partition(".")[0]
        if scope in _TOOLBOXES and toolbox in _TOOLBOXES and toolbox != scope:
            yield Finding(
                f"{key}.type", f"{metric['type']!r} reads the predictions of {toolbox}, and this is for {scope}"
            )
        name = getattr(kind, "__name__", "")
        argument, choices = _CHOICES.get(name, (None, ()))
        chosen = metric.get(argument) if argument else None
        for one in _listed(chosen):
            if chosen is not None and one not in choices:
                yield Finding(at(f"{key}.{argument}", one), f"none of {', '.join(choices)}")
        if name == "Accuracy":
            yield from _topk_findings(f"{key}.topk", metric.get("topk", 1), config)
        if name == "CocoMetric":
            yield from _beyond_coco(key, metric)
        for argument in ("output_dir", "outfile_prefix"):
            if isinstance(metric.get(argument), str):
                folder = metric[argument] if argument == "output_dir" else os.path.dirname(metric[argument]) or "."
                yield from _writable(f"{key}.{argument}", folder)
        if name == "IoUMetric" and metric.get("format_only") and not metric.get("output_dir"):
            yield Finding(f"{key}.format_only=True", "needs output_dir, the folder for the label maps")
        for argument in {"thr", "thrs"} & metric.keys() if toolbox == "mmpretrain" else ():
            if any(isinstance(one, int | float) and one >= 1 for one in _listed(metric[argument])):
                yield Finding(at(f"{key}.{argument}", metric[argument]), "should be below 1: no score is above it")
    head = config.model.get("head")
    if isinstance(head, dict) and head.get("cal_acc"):
        yield from _topk_findings("model.head.topk", head.get("topk", 1), config)


def _beyond_coco(key: str, metric: dict) -> Iterator[Finding]:
    """Numbers with which pycocotools scores nothing: each result would be 0 or -1."""
    for argument, least, most, wanted in (
        ("proposal_nums", 1, math.inf, "numbers of detections, 1 or more"),
        ("iou_thrs", 1e-6, 1, "overlaps above 0, up to 1"),
    ):
        values = _listed(metric.get(argument))
        if values != [None] and not (values and all(isinstance(x, int | float) and least <= x <= most for x in values)):
            yield Finding(at(f"{key}.{argument}", metric[argument]), f"should be {wanted}")


def _topk_findings(key: str, topk: Any, config: Config) -> Iterator[Finding]:
    head = config.model.get("head")
    classes = head.get("num_classes") if isinstance(head, dict) else None
    values = _listed(topk)
    if not values or not all(is_whole(k) and k >= 1 for k in values):
        yield Finding(at(key, topk), "should be whole numbers, 1 or more")
    elif is_whole(classes) and max(values) > classes:
        fit = tuple(k for k in values if k <= classes) or (1,)
        yield Finding(at(key, topk), f"above the number of classes, model.head.num_classes={classes}; take {fit}")


def _names_of(metric: dict) -> set[str] | None:
    """The names of what a metric gives, without its prefix where it has the usual one; None where not known."""
    name = getattr(class_of(metric, METRICS), "__name__", "")
    if metric.get("format_only") and name in _CHOICES:
        return set()
    if name == "IoUMetric":
        chosen = _listed(metric.get("iou_metrics", "mIoU"))
        return {one for kind in chosen if isinstance(kind, str) for one in _IOU.get(kind, ())}
    if name == "CocoMetric" and not metric.get("classwise") and metric.get("metric_items") is None:
        chosen = list(map(str, _listed(metric.get("metric", "bbox"))))
        names = {f"{metric.get('prefix') or 'coco'}/{kind}_{item}" for kind in chosen for item in _COCO}
        return None if any("proposal" in kind for kind in chosen) else names
    if name == "Accuracy" and isinstance(metric.get("thrs", 0.0), int | float):
        return {f"{metric.get('prefix') or 'accuracy'}/top{k}" for k in _listed(metric.get("topk", 1))}
    return None


def _listed(value: Any) -> list[Any]:
    """One value, or several in a list."""
    return list(value) if isinstance(value, list | tuple) else [value]


def _best_findings(config: Config) -> Iterator[Finding]:
    """Metrics by which hooks and schedules choose, and that no evaluator gives, as far as the config says it."""
    names: set[str] = set()
    for _, metric in _metrics(config, "val"):
        given = _names_of(metric) if isinstance(metric, dict) else None
        if given is None:
            return
        names |= (
            {f"{metric['prefix']}/{one}" for one in given}
            if given and metric.get("prefix") and "/" not in min(given)
            else given
        )
    yield from _lowest_findings(config, names)
    found = monitor_findings(config, sorted(names))
    yield from (each for each in found if "loss" not in each.kind)  # a model may give losses in validation


def _lowest_findings(config: Config, names: Collection[str]) -> Iterator[Finding]:
    """The worst taken for the best: ``rule="less"`` of a metric of which more is better, as all are that are known."""
    for key, value, rule in _monitored(config):
        rules = _listed(rule)
        known = [one for one in _listed(value) if one in names]
        if "less" in rules and known and len(set(rules)) == 1:
            above, _, name = key.rpartition(".")
            told = f"of {name}={known[0]!r} more is better: set rule='greater'"
            yield Finding(f"{above}.rule='less'", told)


def monitor_findings(config: Config, names: Sequence[str]) -> Iterator[Finding]:
    """Metrics by which hooks and schedules choose, and that no evaluation gives: the first would end the training.

    Args:
        config: The config.
        names: What the evaluation gives.
    """
    for key, value, _ in _monitored(config):
        for one in _listed(value):
            if one is None or one in names or (one == "auto" and names):
                continue
            if config.get("val_evaluator") is None:
                yield Finding(at(key, one), "has no evaluation: val_evaluator is missing")
            elif not names:
                yield Finding(at(key, one), "val_evaluator gives no metric: it has format_only=True")
            else:
                yield Finding(at(key, one), f"not what val_evaluator gives{did_you_mean(one, names)}")


def _monitored(config: Config) -> Iterator[tuple[str, Any, Any]]:
    """Where hooks and schedules name metrics, which, and whether more of them is better: None where mmengine knows."""
    checkpoint = (config.get("default_hooks") or {}).get("checkpoint") or {}
    yield "default_hooks.checkpoint.save_best", checkpoint.get("save_best"), checkpoint.get("rule")
    for index, hook in enumerate(config.get("custom_hooks") or ()):
        if "EarlyStoppingHook" in str(type_name(hook)):
            yield f"custom_hooks.{index}.monitor", hook.get("monitor"), hook.get("rule")
    for key, scheduler in dicts_in("param_scheduler", config.get("param_scheduler")):
        if "ReduceOnPlateau" in str(type_name(scheduler)):
            yield f"{key}.monitor", scheduler.get("monitor", "loss"), scheduler.get("rule", "less")


def _class_findings(config: Config, splits: tuple[str, ...]) -> Iterator[Finding]:
    """The number of classes of data sets, as far as the config and their class say it, and of the heads."""
    for where, head in _heads_with_classes(config):
        for split in splits:
            found = _other_number_of_classes(config, split, head["num_classes"])
            if found is not None:
                yield Finding(at(f"model.{where}.num_classes", head["num_classes"]), found)
                break


def _other_number_of_classes(config: Config, split: str, number: int) -> str | None:
    loader = config.get(f"{split}_dataloader") or {}
    for key, dataset in datasets_in(f"{split}_dataloader.dataset", loader.get("dataset")):
        kind: Any = class_of(dataset, DATASETS)
        meta = (getattr(kind, "METAINFO", None) or {}) | (dataset.get("metainfo") or {})
        classes = meta.get("classes")
        if isinstance(classes, list | tuple) and "thing_classes" not in meta and len(classes) != number:
            return f"{key} ({dataset['type']}) has {len(classes)} classes ({first_few(map(str, classes), 3)})"
    return None


def _heads_with_classes(config: Config) -> Iterator[tuple[str, dict]]:
    """The head with an output for each class of the data: the last of mmseg's. A hook looks at detectors'."""
    name = {"mmseg": "decode_head", "mmpretrain": "head"}.get(config.get("default_scope"))
    head = config.model.get(name)
    last = head[-1] if isinstance(head, list | tuple) and head else head
    if isinstance(last, dict) and is_whole(last.get("num_classes")):
        yield (str(name) if last is head else f"{name}.{len(head) - 1}"), last
