"""Where a run starts, and what changes when it goes on from a checkpoint with another config.

What the user asks for is the config. mmengine takes from a checkpoint also what the config says otherwise: the schedule
with its end, and every setting of the optimizer. Here the checkpoint gives what was learned (weights, averages of
gradients, loss scale, position), and the config the rest; a new schedule is the one that a run with this config would
have at this step. What cannot be joined is refused, and whatever differs is told.
"""

from __future__ import annotations

import ast
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper, OptimWrapperDict, ReduceOnPlateauParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner, find_latest_checkpoint
from torch import Tensor, nn

from eyetoy_mm.compat.whole_checkpoints import newest_whole
from eyetoy_mm.engine.checkpoint import check_state_fits
from eyetoy_mm.engine.distributed import restarted
from eyetoy_mm.errors import UserError, first_few
from eyetoy_mm.layers.checks import is_whole
from eyetoy_mm.state_dicts import local_part, meta_of, unwrap

FIRST_START = ".first_start"  # in a work dir: when torchrun began the run there, and its name

# --- Where a run starts -----------------------------------------------------------------------------------------------


def choose_start(config: Config, resume: str | None) -> str:
    """Set ``resume`` and ``load_from`` of a config: on from a checkpoint, from the weights of one, or from nothing.

    A first start that is asked to go on, as every requeueing script does, is what it would be without that.

    Args:
        config: The config, with its ``work_dir``; it is changed.
        resume: A checkpoint, ``"auto"`` for the latest one in the work dir, or None for what the config says.

    Returns:
        What was chosen, for the log.

    Raises:
        UserError: The work dir names a checkpoint that is not there.
    """
    if resume is None and config.get("resume") and not config.get("load_from"):
        resume = "auto"
    if resume == "auto":
        resume = latest_checkpoint(config.work_dir)
        config.resume = resume is not None
        if resume is None:
            start = f"the weights of {config.load_from}" if config.get("load_from") else "initial weights"
            return f"nothing to resume in {config.work_dir}: this is its first start, from {start}"
        config.load_from = resume
        named = last_named(config.work_dir)
        is_it = named is None or Path(named).name == Path(resume).name
        return f"resume from {resume}" + (
            "" if is_it else f", for {named}, the last to be saved, is not there or broken"
        )
    if resume is not None:
        config.resume, config.load_from = True, resume
    if config.get("resume"):
        return f"resume from {config.load_from}"
    return f"start from the weights of {config.load_from}" if config.get("load_from") else "start from initial weights"


def saved_before_restart(work_dir: str) -> str | None:
    """What a run goes on from that torchrun starts again: its newest whole checkpoint; the same in all processes.

    Nobody can say ``--resume`` to it, and without, it would start at 1 over its own files. Those that were there before
    its first start, which leaves a mark, are of other runs.

    Args:
        work_dir: Where it saves.

    Returns:
        The checkpoint; None at the first start, or where nothing has been saved since.
    """
    again = torch.tensor(int(restarted()))
    dist.all_reduce(again, "max")  # a host that returned does not know
    chosen: list[str | None] = [None]
    if dist.is_main_process():
        mark, run = Path(work_dir, FIRST_START), os.environ.get("TORCHELASTIC_RUN_ID", "")
        if again and mark.is_file() and mark.read_text() == run:
            chosen = [newest_whole(work_dir, since=mark.stat().st_mtime)]
        elif run:
            mark.write_text(run)
    dist.broadcast_object_list(chosen)
    return chosen[0]


def latest_checkpoint(work_dir: str) -> str | None:
    """The newest whole checkpoint of a work dir, or None where no run has saved one there; the same in all processes.

    Raises:
        UserError: A run has saved one, and none is left that is whole.
    """
    latest, named = find_latest_checkpoint(work_dir), last_named(work_dir)
    if latest is None and named is not None:
        pointer = Path(work_dir) / "last_checkpoint"
        raise UserError(
            f"{pointer} names {named or 'nothing'}, and neither that nor another checkpoint there is whole. To go on "
            f"from one elsewhere: --resume CHECKPOINT; to start anew, take {pointer} away"
        )
    return latest


def last_named(work_dir: str) -> str | None:
    """What the ``last_checkpoint`` of a work dir says."""
    pointer = Path(work_dir) / "last_checkpoint"
    return pointer.read_text().strip() if pointer.is_file() else None


# --- What differs -----------------------------------------------------------------------------------------------------


def run_facts(runner: Runner) -> dict[str, Any]:
    """What a checkpoint has to know of a run beside its config."""
    loader = runner.train_dataloader
    return {"world_size": get_world_size(), "epoch_length": len(loader), "images": len(loader.dataset)}


def settle(runner: Runner, checkpoint: dict[str, Any], source: str) -> str:
    """Compare a checkpoint with the run that shall go on from it, and let the config win where it may.

    Args:
        runner: Built, and nothing restored yet.
        checkpoint: As saved; what the run restores from it is changed.
        source: Its file, for messages.

    Returns:
        What differs and what happens, for the log.

    Raises:
        UserError: It has no whole training state, or was of other classes, another model or another optimizer.
    """
    _check_complete(checkpoint, source)
    check_state_fits(runner.model, unwrap(checkpoint, source), source)
    _check_classes(runner, meta_of(checkpoint), source)
    saved, asked = saved_config(checkpoint), read_config(runner.cfg.pretty_text)
    _check_optimizers(runner, checkpoint["optimizer"], saved, asked, source)
    _check_average(runner, checkpoint, source)
    meta = checkpoint["meta"]
    head = f"resume from {source}, at epoch {meta['epoch']}, iteration {meta['iter']}"
    notes = [
        *_lost_gradients(meta, saved),
        *_other_data(runner, meta),
        *_settle_batches(runner, meta, saved),
        *_settle_schedule(runner, checkpoint),
        *_settle_optimizer(runner, checkpoint["optimizer"]),
        *_other_state(runner, checkpoint, asked),
        *_kept_of_several(runner, saved, asked),
        *_other_settings(runner, saved, asked),
        *_what_is_left(runner, checkpoint, source),
    ]
    if not notes:
        return f"{head}: nothing differs from the run that saved it"
    return "\n".join(
        [f"{head}. What differs from the run that saved it, and what happens:", *(f"  {x}" for x in notes)]
    )


def _check_complete(checkpoint: Mapping[str, Any], source: str) -> None:
    missing = [key for key in ("optimizer", "message_hub") if key not in checkpoint]
    missing += [f"meta[{key!r}]" for key in ("epoch", "iter") if key not in (checkpoint.get("meta") or {})]
    if missing:
        raise UserError(
            f"{source} has no {', '.join(missing)}: it has weights, but not the state of a training that could go on. "
            f"To start a new one from these weights, set load_from = {source!r} and leave --resume out"
        )
    meta: Any = checkpoint["meta"]
    counts = {key: meta[key] for key in ("epoch", "iter")}
    wrong = [f"meta[{key!r}]={count!r}" for key, count in counts.items() if not (is_whole(count) and count >= 0)]
    wrong += [key for key in ("optimizer", "message_hub") if not isinstance(checkpoint[key], Mapping)]
    if wrong:
        raise UserError(
            f"{source} has {', '.join(wrong)}, as no training saves it: it is damaged, or was changed. Go on from "
            "another checkpoint: --resume CHECKPOINT"
        )


def _check_classes(runner: Runner, meta: Mapping[str, Any], source: str) -> None:
    before = (meta.get("dataset_meta") or {}).get("classes")
    now = (getattr(runner.train_dataloader.dataset, "metainfo", None) or {}).get("classes")
    if before is None or now is None or list(before) == list(now):
        return
    pairs = list(zip(before, now))
    label = next((i for i, (first, second) in enumerate(pairs) if first != second), len(pairs))
    told = [f"{list(classes)[label]!r}" if label < len(classes) else "no class" for classes in (before, now)]
    raise UserError(
        f"{source} was trained for {len(before)} classes, and the training data have {len(now)}: label {label} is "
        f"{told[0]} there and {told[1]} here. Its heads would go on with wrong classes; to start a new training from "
        f"its weights, set load_from = {source!r} and leave --resume out"
    )


def _check_optimizers(
    runner: Runner, state: Mapping[str, Any], saved: Mapping[str, Any], asked: Mapping[str, Any], source: str
) -> None:
    wrapper: Any = runner.optim_wrapper
    several = isinstance(wrapper, OptimWrapperDict)
    if not several and not isinstance(wrapper, OptimWrapper):
        return
    names = [*wrapper.keys()] if several else []
    had = [] if "param_groups" in state else [*state]
    if sorted(names) != sorted(had):
        was, now = (f"several ({', '.join(each)})" if each else "one" for each in (had, names))
        raise UserError(
            f"{source} has the state of {was}, and the config makes {now}, of optimizers. {_afresh(source)}, or set "
            "what it had"
        )
    for name in names or [None]:
        place = ("optim_wrapper", *([name] if name else []), "optimizer", "type")
        types = [str(_get(config, *place)).split(".")[-1] for config in (saved, asked)]
        _check_optimizer(wrapper[name] if name else wrapper, state[name] if name else state, types, source)


def _is_one(runner: Runner) -> bool:
    """Whether it has one optimizer, and not several or something else."""
    wrapper = runner.optim_wrapper
    return isinstance(wrapper, OptimWrapper) and not isinstance(wrapper, OptimWrapperDict)


def _afresh(source: str) -> str:
    return f"To start it afresh from these weights, set load_from = {source!r} and leave --resume out"


def _check_optimizer(wrapper: OptimWrapper, state: Mapping[str, Any], types: list[str], source: str) -> None:
    groups, saved_groups = wrapper.optimizer.param_groups, state["param_groups"]
    restart = _afresh(source)
    # Releases of torch add settings to an optimizer; where no config was saved, these tell that each kind keeps.
    kept = {"betas", "momentum", "alpha", "rho"}
    named = "None" not in types
    differs = types[0] != types[1] if named else _settings(saved_groups) & kept != _settings(groups) & kept
    if differs:
        was = types[0] if named else f"one with {', '.join(sorted(_settings(saved_groups)))}"
        raise UserError(
            f"{source} has the state of the optimizer {was}, which {type(wrapper.optimizer).__name__} "
            f"of the config cannot go on with. {restart}, or set the optimizer that it had"
        )
    if [len(group["params"]) for group in saved_groups] != [len(group["params"]) for group in groups]:
        raise UserError(
            f"{source} has its parameters in {len(saved_groups)} groups of the optimizer, and the config makes "
            f"{len(groups)} others (paramwise_cfg, or the optimizer's constructor). {restart}, or set what it had"
        )
    if bad := [number for number, kept in state["state"].items() if not _is_finite(kept)]:
        raise UserError(
            f"{source} has an optimizer whose averages of gradients are NaN or infinite, of {len(bad)} of "
            f"{len(state['state'])} parameters: the first step would make their weights so. Go on from an earlier "
            "checkpoint: --resume CHECKPOINT"
        )
    parameters = [x for group in groups for x in group["params"]]
    shapes = [
        (tuple(kept[key].shape), tuple(parameters[number].shape))
        for number, kept in state["state"].items()
        for key in ("exp_avg", "momentum_buffer")
        if isinstance(kept, Mapping) and isinstance(kept.get(key), Tensor) and isinstance(number, int)
    ]
    if differing := [f"{was} for {now}" for was, now in shapes if was != now]:
        raise UserError(
            f"{source} has an optimizer whose averages of gradients are of other parameters than the model's, or in "
            f"another order: they have the shapes {first_few(differing, 3)}. {restart}"
        )
    if lacking := _lacking(wrapper.optimizer, state):
        raise UserError(
            f"{source}: {type(wrapper.optimizer).__name__} of the config needs {lacking!r} of each "
            f"parameter, which the saved state has not: it was made with other settings. {restart}, or set what it had"
        )


def _check_average(runner: Runner, checkpoint: Mapping[str, Any], source: str) -> None:
    """Averaged weights that lack one leave the model the average in its place, and the average what it began with."""
    average = checkpoint.get("ema_state_dict")
    if average is None or not any(isinstance(hook, EMAHook) for hook in runner.hooks):
        return
    if missing := [name for name in checkpoint["state_dict"] if f"module.{name}" not in average]:
        raise UserError(
            f"{source} has averaged weights (EMAHook) without {first_few(missing)}, as no training saves it: it is "
            "damaged, or was changed. Go on from another checkpoint: --resume CHECKPOINT"
        )


def _is_finite(kept: Any) -> bool:
    tensors = [local_part(x) for x in kept.values() if isinstance(x, Tensor)] if isinstance(kept, Mapping) else []
    return all(bool(x.isfinite().all()) for x in tensors if x.is_floating_point())


def _lacking(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> str | None:
    """What an optimizer with these settings misses in a saved state, found by a step on one number."""
    settings = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    kept = next(iter(state["state"].values()), None)
    if not isinstance(kept, Mapping):
        return None
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    one = {key: _of_one_number(value) for key, value in kept.items()}
    try:
        make: Any = type(optimizer)
        trial = make([{"params": [parameter], **settings}])
        trial.load_state_dict({"state": {0: one}, "param_groups": [{**settings, "params": [0]}]})
        trial.step()
    except KeyError as error:
        return str(error.args[0])
    except Exception:  # of an optimizer that is made or stepped in another way: the run will tell
        return None
    return None


def _of_one_number(value: Any) -> Any:
    """A part of an optimizer's state cut down from a whole parameter; counters and settings stay."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return value.flatten()[:1].clone() if value.dim() else value.clone()


def _settings(groups: Iterable[Mapping[str, Any]]) -> set[str]:
    return {key for group in groups for key in group if key != "params" and not key.startswith("initial_")}


# --- Batches ----------------------------------------------------------------------------------------------------------


def _lost_gradients(meta: Mapping[str, Any], saved: Mapping[str, Any]) -> Iterator[str]:
    """Those that were being accumulated; at the end of a training all are used."""
    iteration, loop = meta["iter"], saved.get("train_cfg") or {}
    counts = _get(saved, "optim_wrapper", "accumulative_counts") or 1
    end = loop.get("max_iters") or (loop.get("max_epochs") or 0) * meta.get("epoch_length", 0)
    if is_whole(counts) and iteration % counts and iteration != end:
        yield (
            f"gradients: those of the last {iteration % counts} of {counts} iterations, which were being accumulated, "
            "are in no checkpoint: it goes on without them, and not exactly"
        )


def _other_data(runner: Runner, meta: Mapping[str, Any]) -> Iterator[str]:
    if "world_size" not in meta:
        yield (
            "it was saved by mmengine alone: what augmentation and dropout draw from here on is not what they would "
            "have drawn there"
        )
    before, now = meta.get("images"), len(runner.train_dataloader.dataset)  # type: ignore[arg-type]
    if before not in (None, now):
        yield (
            f"images of the training set: {before} -> {now}. From here on they come in the order that they would have "
            "if there had always been so many"
        )


def _settle_batches(runner: Runner, meta: dict[str, Any], saved: Mapping[str, Any]) -> Iterator[str]:
    """Epochs go on as epochs: where one has another length now, iterations are counted as if it always had."""
    sizes = _get(saved, "train_dataloader", "batch_size"), _get(runner.cfg, "train_dataloader", "batch_size")
    processes = meta.get("world_size", get_world_size()), get_world_size()
    if None not in sizes and (sizes[0], processes[0]) != (sizes[1], processes[1]):
        was, now = (f"{size * n} ({size} on each of {n} processes)" for size, n in zip(sizes, processes))
        scaled = (runner.auto_scale_lr or {}).get("enable")
        yield (
            f"images in a step: {was} -> {now}. The learning rate is "
            + ("scaled to that" if scaled else "the config's, not scaled to that (--auto-scale-lr would)")
        )
        before, now = (size * n * meta["iter"] for size, n in zip(sizes, processes))
        if before != now and not isinstance(runner.train_loop, EpochBasedTrainLoop):
            yield f"images that were seen: {before}. The data go on after {now}, as if all steps had had as many as now"
    length = len(runner.train_dataloader)
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    if by_epoch and _counted_iterations(saved):
        meta["epoch"] = meta["iter"] // meta.get("epoch_length", length)
        yield (
            f"training counted iterations and counts epochs now: iteration {meta['iter']} is in epoch "
            f"{meta['epoch'] + 1}"
        )
    epoch, iteration, before = meta["epoch"], meta["iter"], meta.get("epoch_length")
    if by_epoch and before not in (None, length):
        done = (iteration - epoch * before) * length // before  # of an epoch that was interrupted
        meta["iter"] = epoch * length + done
        where = f"in epoch {epoch + 1}, after {done} of them," if done else f"after epoch {epoch},"
        yield (
            f"iterations of an epoch: {before} -> {length}. It goes on {where} and iterations are counted as if all "
            f"epochs had {length}: {iteration} -> {meta['iter']}"
        )
    elif by_epoch and not epoch * length <= iteration <= (epoch + 1) * length:
        meta["iter"] = epoch * length
        yield (
            f"iteration {iteration} is not in epoch {epoch + 1} of {length} iterations each, as of a run that mmengine "
            f"alone had begun anew in the middle of one. It goes on at the begin of this epoch: {iteration} -> "
            f"{meta['iter']}"
        )


def _counted_iterations(saved: Mapping[str, Any]) -> bool:
    """Whether a config trained by iterations, in which no epoch ends: its checkpoints are all of epoch 0."""
    loop = saved.get("train_cfg") or {}
    return "IterBased" in str(loop.get("type")) or loop.get("by_epoch") is False


# --- Schedule and optimizer -------------------------------------------------------------------------------------------

# What stepping changes; the rest of a scheduler's state is what it was built with.
_POSITION = {"last_step", "_global_step", "_last_value", "_get_value_called_within_step", "verbose", "anneal_func"}
_POSITION |= {"best", "num_bad_epochs", "cooldown_counter", "patience_counter", "last_value"}


def _settle_schedule(runner: Runner, checkpoint: dict[str, Any]) -> Iterator[str]:
    """Where the config's schedule is another than the saved one, step it to where the run is."""
    schedulers = runner.param_schedulers or []
    saved = checkpoint.get("param_schedulers") or []
    if not isinstance(schedulers, list) or not isinstance(saved, list):  # of several optimizers
        return
    if not schedulers and saved:
        yield f"param_scheduler: {len(saved)} in the checkpoint, none in the config: all stays as its optimizer says"
    asked = [each.state_dict() for each in schedulers]
    if not schedulers or [*map(_constants, saved)] == [*map(_constants, asked)]:
        return
    if any(isinstance(each, ReduceOnPlateauParamScheduler) for each in schedulers):
        if _end_later(saved, schedulers):
            yield "param_scheduler: as it was saved, and to the end that the config gives it"
            return
        raise UserError(
            "param_scheduler differs from that of the checkpoint, and has a ReduceOnPlateau, which follows the metrics "
            "of all evaluations before: what it would be now is not known. Set what the checkpoint had, or start a new "
            "training from its weights: load_from"
        )
    meta = checkpoint["meta"]
    names = dict.fromkeys(each.param_name for each in schedulers)
    groups = checkpoint["optimizer"]["param_groups"]
    before = {name: _range(groups, name) for name in names}
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    step_schedulers(schedulers, meta["iter"], meta["epoch"], len(runner.train_dataloader) if by_epoch else None)
    checkpoint["param_schedulers"] = [each.state_dict() for each in schedulers]
    wrapper: Any = runner.optim_wrapper
    moved = {key for name in names for key in _keys_of(name)}
    for group, now in zip(groups, wrapper.optimizer.param_groups):
        group.update({key: now[key] for key in moved if key in now})
    if "base_param_settings" in checkpoint["optimizer"]:
        checkpoint["optimizer"]["base_param_settings"] = wrapper.base_param_settings
    values = ", ".join(f"{name} {before[name]} -> {_range(groups, name)}" for name in names)
    yield f"param_scheduler: the config's, as a run with it would be at this step: {values}"


def _end_later(saved: list[dict[str, Any]], schedulers: list[Any]) -> bool:
    """Whether what follows metrics has another end alone, as of a longer training; the saved one is then set to it."""
    ends = [each.end for each in schedulers]
    asked = [_constants(each.state_dict()) for each in schedulers]
    plateaus = [isinstance(each, ReduceOnPlateauParamScheduler) for each in schedulers]
    moved = [dict(state, end=end) if plateau else state for state, end, plateau in zip(saved, ends, plateaus)]
    if len(saved) != len(schedulers) or [*map(_constants, moved)] != asked:
        return False
    saved[:] = moved
    return True


def step_schedulers(schedulers: Iterable[Any], iterations: int, epochs: int, length: int | None = None) -> None:
    """Step fresh schedulers as a run of so many iterations in so many whole epochs, of one length if given, does."""
    schedulers = list(schedulers)
    ends = [length * epoch if length else math.ceil(iterations * epoch / epochs) for epoch in range(1, epochs + 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no step of the optimizer comes between
        for iteration in range(1, iterations + 1):
            for each in schedulers:
                if not each.by_epoch:
                    each.step()
            while ends and ends[0] <= iteration:
                ends.pop(0)
                for each in schedulers:
                    if each.by_epoch:
                        each.step()


def _keys_of(name: str) -> list[str]:
    """Where a scheduler keeps a parameter in the groups of an optimizer; momentum may be the first of the betas."""
    return [name, f"initial_{name}", *(["betas"] if name == "momentum" else [])]


def _constants(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(x) for key, x in state.items() if key not in _POSITION}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _settle_optimizer(runner: Runner, state: dict[str, Any]) -> Iterator[str]:
    """Settings that no schedule moves are the config's."""
    if not _is_one(runner):
        return
    schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
    scheduled = {key for each in schedulers for key in _keys_of(each.param_name)}
    groups = runner.optim_wrapper.optimizer.param_groups
    for key in sorted(_settings(groups) - scheduled):
        if key not in state["param_groups"][0]:
            continue  # of a later release of torch, which sets it
        if [_plain(group.get(key)) for group in state["param_groups"]] != [_plain(group.get(key)) for group in groups]:
            yield f"optimizer: {key} {_range(state['param_groups'], key)} -> {_range(groups, key)}, the config's"
            for group, now in zip(state["param_groups"], groups):
                group[key] = now.get(key)


def _range(groups: Iterable[Mapping[str, Any]], key: str) -> str:
    values = list(dict.fromkeys(str(_short(group.get(key))) for group in groups))
    return values[0] if len(values) == 1 else f"{values[0]} ... {values[-1]}"


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


# --- The rest ---------------------------------------------------------------------------------------------------------


def _other_state(runner: Runner, checkpoint: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    seed, asked_seed = checkpoint["meta"].get("seed"), _get(asked, "randomness", "seed")
    if None not in (seed, asked_seed) and seed != asked_seed:
        yield f"seed: {seed} in the checkpoint, {asked_seed} in the config; the checkpoint's is kept"
    if checkpoint["meta"]["iter"] and not checkpoint["optimizer"].get("state") and _keeps_averages(runner):
        yield "optimizer: the checkpoint has no averages of gradients, which begin anew"
    had, has = "loss_scaler" in checkpoint["optimizer"], hasattr(runner.optim_wrapper, "loss_scaler")
    if had != has:
        yield "mixed precision: " + ("on -> off" if had else "off -> on, with a loss scale that starts anew")
    had, has = "ema_state_dict" in checkpoint, any(isinstance(hook, EMAHook) for hook in runner.hooks)
    if had != has:
        yield "averaged weights (EMAHook): " + (
            "on -> off; the run goes on from the averaged weights" if had else "off -> on; averages start from here"
        )


def _keeps_averages(runner: Runner) -> bool:
    optimizer = getattr(runner.optim_wrapper, "optimizer", None)
    return any(group.get("betas") or group.get("momentum") for group in getattr(optimizer, "param_groups", ()))


_COMPARED = (
    "model",
    "data_preprocessor",
    "train_dataloader",
    "train_cfg",
    "optim_wrapper",
    "custom_hooks",
    "auto_scale_lr",
)
_TOLD_ELSEWHERE = ("train_dataloader.batch_size", "optim_wrapper.optimizer.", "optim_wrapper.type")
_WITHOUT_EFFECT = ("init_cfg", "pretrained", "num_workers", "persistent_workers", "pin_memory", "prefetch_factor")


def _kept_of_several(runner: Runner, saved: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    """What of several optimizers is as mmengine restores it, whatever the config says."""
    sections = ("optim_wrapper", "param_scheduler")
    if _is_one(runner) or not saved:
        return
    if changed := [
        f"{key} {before!r}, not {now!r}"
        for section in sections
        for key, before, now in differences(saved.get(section), asked.get(section), section)
    ]:
        yield f"settings of several optimizers and their schedules, the checkpoint's: {first_few(changed, 12)}"


def _other_settings(runner: Runner, saved: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    if not saved:
        yield "settings: the checkpoint has no config that can be read, so that they were not compared"
        return
    saved, asked = ({**each, "train_cfg": _loop(each)} for each in (saved, asked))
    changes = [
        f"{key} {before!r} -> {now!r}"
        for section in _COMPARED
        if section != "optim_wrapper" or _is_one(runner)
        for key, before, now in differences(saved.get(section), asked.get(section), section)
        if not key.startswith(_TOLD_ELSEWHERE) and not set(key.split(".")) & set(_WITHOUT_EFFECT)
    ]
    if changes:
        yield f"settings, the config's from here on: {first_few(changes, 12)}"


def _loop(config: Mapping[str, Any]) -> dict[str, Any]:
    """The training loop of a config: the same whether it is mmengine's, by its name or not, or goes on exactly."""
    loop = dict(config.get("train_cfg") or {})
    by_epoch = "EpochBasedTrainLoop" if loop.pop("by_epoch", True) else "IterBasedTrainLoop"
    return {**loop, "type": str(loop.get("type") or by_epoch).split(".")[-1].removeprefix("Exact")}


def _what_is_left(runner: Runner, checkpoint: Mapping[str, Any], source: str) -> Iterator[str]:
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    iteration, last = checkpoint["meta"]["iter"], runner.max_iters
    if iteration >= last or (by_epoch and checkpoint["meta"]["epoch"] >= runner.max_epochs):
        limit = f"max_epochs={runner.max_epochs}" if by_epoch else f"max_iters={last}"
        yield f"nothing is left to train: train_cfg ends at {limit}"
        return
    schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
    epoch_length = len(runner.train_dataloader) if by_epoch else last
    ends = [each.end * (epoch_length if each.by_epoch else 1) for each in schedulers if each.param_name == "lr"]
    if not ends or max(ends) > iteration:
        return
    if all(group["lr"] == 0 for group in checkpoint["optimizer"]["param_groups"]):
        raise UserError(
            f"param_scheduler ends at iteration {max(ends)} with a learning rate of 0, {source} is at {iteration}, and "
            f"train_cfg goes on to {last}: nothing more would be learned. Set the `end` of param_scheduler (and T_max, "
            "where it is given) to where training ends"
        )
    yield f"param_scheduler ended at iteration {max(ends)}: the learning rate stays as it is until {last}"


# --- Configs as data --------------------------------------------------------------------------------------------------


def saved_config(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the run that saved a checkpoint, by :func:`read_config`; empty where it has none to be read."""
    meta = checkpoint.get("meta")
    text = meta.get("cfg") if isinstance(meta, Mapping) else None
    try:
        return read_config(text) if isinstance(text, str) else {}
    except (SyntaxError, ValueError, RecursionError):
        return {}


def read_config(text: str) -> dict[str, Any]:
    """Read a config as mmengine prints it, without running it: it comes out of a file that others may have made.

    What is no literal is kept as its source.
    """
    assigned = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    return {node.targets[0].id: _value(node.value) for node in assigned if isinstance(node.targets[0], ast.Name)}


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {ast.unparse(k) if k else None: _value(v) for k, v in zip(node.keys, node.values)}
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(each) for each in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path, former and present value of each setting that differs; a list as a whole where its length does."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before | now:
            yield from differences(before.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (first, second) in enumerate(zip(before, now)):
            yield from differences(first, second, f"{path}.{index}")
    elif before != now:
        yield path, before, now


def _get(config: Mapping[str, Any], *keys: str) -> Any:
    for key in keys:
        config = (config or {}).get(key)  # type: ignore[assignment]
    return config
