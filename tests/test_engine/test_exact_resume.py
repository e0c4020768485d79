"""Runs that were interrupted go on as if they had not been."""

import contextlib
import math
import multiprocessing
import os
import pickle
import random
import signal
import sys
import threading
import time
import weakref
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import eyetoy_mm  # noqa: F401

pytest.importorskip("mmengine")

from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.registry import DATASETS, METRICS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.runner import Runner

from eyetoy_mm.engine.curves import read_curves
from eyetoy_mm.engine.exact_resume import PositionedBatches, SeededDataset, go_on_exactly
from eyetoy_mm.engine.hooks import CompareResumedHook, SaveOnSignalHook, SeedIterationsHook
from eyetoy_mm.engine.hooks.save_on_signal import take_back_weights
from eyetoy_mm.errors import UserError


class Noisy(torch.utils.data.Dataset):
    """Samples that draw from all three generators, and count how often they are read."""

    metainfo = dict(classes=("a",))
    read: list[int] = []

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> dict:
        self.read.append(index)
        noise = torch.randn(4) + random.random() + float(np.random.rand())
        return dict(inputs=torch.full((4,), float(index)) / 10 + noise)


class Dropping(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, inputs, mode="tensor"):
        out = self.layers(torch.stack(inputs) if isinstance(inputs, list) else inputs)
        if mode == "predict":
            return list(out[:, 0])
        return dict(loss=F.mse_loss(out, inputs.sum(1, keepdim=True)))


class Two(Dropping):
    """Learns by several optimizers, of which each has a layer."""

    def train_step(self, data, optim_wrapper):
        loss, logged = self.parse_losses(self(**data, mode="loss"))
        loss.backward()
        for each in optim_wrapper.values():
            each.step()
            each.zero_grad()
        return logged


class Constructor:
    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None) -> None:
        self.settings = optim_wrapper_cfg

    def __call__(self, model) -> OptimWrapperDict:
        parts = zip(self.settings.items(), (model.layers[0], model.layers[3]), strict=True)
        return OptimWrapperDict(**{name: build_optim_wrapper(part, dict(settings)) for (name, settings), part in parts})


class Level(BaseMetric):
    """The mean of what is predicted, and of noise."""

    def process(self, data_batch, data_samples) -> None:
        self.results += [float(each) for each in data_samples]

    def compute_metrics(self, results: list) -> dict:
        return dict(acc=float(np.mean(results)) + random.random() / 100)


class Losses(Hook):
    """Keeps the losses; ends the run in the middle of an iteration, after all that it has to do."""

    priority = "VERY_LOW"

    def __init__(self, end: int | None = None) -> None:
        self.end, self.values = end, {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.values[runner.iter] = outputs["loss"].item()
        if runner.iter + 1 == self.end:
            self.stop()

    @staticmethod
    def stop() -> None:
        raise KeyboardInterrupt


def train(
    work_dir: Path, end: int | None = None, resume: bool = False, workers: int = 0, **settings
) -> dict[int, float]:
    loader = dict(
        dataset=dict(type="Noisy"), batch_size=3,
        num_workers=workers, persistent_workers=settings.pop("persistent", False),
        sampler=dict(type="DefaultSampler", shuffle=True), collate_fn=dict(type="default_collate"),
    )  # fmt: skip
    loader |= settings.pop("loader", {})
    more_hooks = settings.pop("more_hooks", ())
    hooks = dict(checkpoint=dict(type="CheckpointHook", interval=1, by_epoch=False) | settings.pop("checkpoint", {}))
    by_epoch = settings.get("train_cfg", {}).get("by_epoch", True)
    hooks["logger"] = dict(type="LoggerHook", log_metric_by_epoch=by_epoch)
    if settings.pop("evaluated", False):
        settings |= dict(val_dataloader=loader | dict(sampler=dict(type="DefaultSampler", shuffle=False)))
        settings |= dict(val_cfg=dict(), val_evaluator=dict(type="Level"))
    config = dict(
        train_cfg=dict(by_epoch=True, max_epochs=4),
        optim_wrapper=dict(optimizer=dict(type="Adam", lr=0.01)),
        param_scheduler=dict(type="CosineAnnealingLR", T_max=12, by_epoch=False),
        randomness=dict(seed=3),
        custom_hooks=[dict(type="EMAHook")],
    )
    config = Config(
        dict(log_level="ERROR") | config | settings | dict(default_hooks=hooks, work_dir=str(work_dir), resume=resume)
    )
    go_on_exactly(config)
    config.train_dataloader = loader
    losses = Losses(end)
    source = (work_dir / "last_checkpoint").read_text() if resume else None
    config.experiment_name = f"{work_dir}-{end}-{resume}-{workers}"
    runner = Runner.from_cfg(Config(dict(dict(model=dict(type="Dropping")), **config)))
    runner.register_hook(SeedIterationsHook())
    runner.register_hook(CompareResumedHook(source))
    for hook in (losses, *more_hooks):
        runner.register_hook(hook)
    try:
        runner.train()
    except KeyboardInterrupt:
        assert end
    finally:
        for batches in _READING:
            batches._shutdown_workers()
    return losses.values


@pytest.fixture(autouse=True, scope="module")
def _registered():
    kinds = [(MODELS, Dropping), (MODELS, Two), (DATASETS, Noisy), (METRICS, Level)]
    kinds += [(OPTIM_WRAPPER_CONSTRUCTORS, Constructor)]
    for registry, kind in kinds:
        registry.register_module(module=kind)
    yield
    for registry, kind in kinds:
        del registry.module_dict[kind.__name__]


_READING: weakref.WeakSet = weakref.WeakSet()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """Of mmengine between two passes over the data, two seconds each time; nor of the garbage collector for workers.

    It may end their queues before it tells them to end, and then waits five seconds for each.
    """
    begin = _MultiProcessingDataLoaderIter.__init__

    def begin_noted(self, loader):
        begin(self, loader)
        _READING.add(self)

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "__init__", begin_noted)
    monkeypatch.setattr("mmengine.runner.loops.time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """As those have that are forked and killed: Adam moves what has no gradient but its rounding in full steps."""


ITERATIONS = dict(
    train_cfg=dict(by_epoch=False, max_iters=14),
    loader=dict(sampler=dict(type="InfiniteSampler", shuffle=True)),
)
PASSES = dict(train_cfg=dict(by_epoch=False, max_iters=14))  # a sampler that ends, begun again


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        ({}, 2), ({}, 4), ({}, 9),  # in an epoch, at the end of one, in a later one
        (dict(randomness=dict(seed=None)), 6),
        (ITERATIONS, 5), (ITERATIONS | dict(randomness=dict(seed=None)), 5), (PASSES, 6),
    ],
)  # fmt: skip
def test_losses_are_those_of_the_uninterrupted_run(settings, end, tmp_path, monkeypatch):
    before = train(tmp_path / "run", end, **settings)
    if settings.get("randomness", {}).get("seed", 0) is None:  # the seed of the first run is in its checkpoint
        saved = torch.load(tmp_path / f"run/iter_{end}.pth", weights_only=False)["meta"]["seed"]
        settings = settings | dict(randomness=dict(seed=saved))
        whole = train(tmp_path / "whole", **settings)
        settings = settings | dict(randomness=dict(seed=None))
    else:
        whole = train(tmp_path / "whole", **settings)
    after = train(tmp_path / "run", resume=True, **settings)
    assert len(whole) == (14 if "train_cfg" in settings else 16)
    assert before == {step: whole[step] for step in range(end)}
    assert after == {step: whole[step] for step in range(end, len(whole))}


def test_any_number_of_workers(tmp_path):
    whole = train(tmp_path / "0", **ITERATIONS)
    assert train(tmp_path / "2", 5, workers=2, persistent=True, **ITERATIONS) == {s: whole[s] for s in range(5)}
    assert train(tmp_path / "2", resume=True, workers=1, **ITERATIONS) == {s: whole[s] for s in range(5, 14)}


def test_what_was_seen_is_not_read_again(tmp_path):
    train(tmp_path, 9)
    Noisy.read.clear()
    train(tmp_path, resume=True)
    assert len(Noisy.read) == 4 * 11 - (2 * 11 + 3)  # two epochs of 4 batches are over, and a batch of the third


class NoisyPixels:
    """Last step of a pipeline: four pixels of an image, with noise of all generators."""

    def __call__(self, results: dict) -> dict:
        pixels = torch.from_numpy(results["img"].astype(np.float32)).ravel()[:4] / 255
        return dict(inputs=pixels + torch.randn(4) + random.random() + float(np.random.rand()))


@pytest.fixture
def packed(tmp_path) -> dict:
    """A loader of eleven images of two classes in a pack of several shards, each of another colour."""
    pytest.importorskip("mmpretrain")
    import cv2
    from mmpretrain.registry import TRANSFORMS

    from eyetoy_mm.datasets.packing import pack_folder

    for number in range(11):
        path = tmp_path / f"photos/{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(number).integers(0, 256, (2, 2, 3), np.uint8))
    assert len(pack_folder(tmp_path / "photos", tmp_path / "pack", shard_size=2000).shards) > 2
    TRANSFORMS.register_module(module=NoisyPixels)
    pipeline = [dict(type="mmcv.LoadImageFromFile"), dict(type="mmpretrain.NoisyPixels")]
    dataset = dict(type="eyetoy_mm.ClassFolders", data_root=f"pack://{tmp_path}/pack", pipeline=pipeline)
    yield dict(dataset=dataset, sampler=dict(type="InfiniteSampler", shuffle=True))
    del TRANSFORMS.module_dict["NoisyPixels"]


def killed_at(end: int, work_dir: Path, **settings) -> None:
    torch.set_num_threads(1)  # forked: OpenMP would wait for the threads of the other process
    Losses.stop = staticmethod(lambda: os.kill(os.getpid(), signal.SIGKILL))
    train(work_dir, end, **settings)


def kill(end: int, work_dir: Path, **settings) -> None:
    """Train in a process that is killed where others are interrupted: in the middle of an iteration or evaluation."""
    process = multiprocessing.get_context("fork").Process(target=killed_at, args=(end, work_dir), kwargs=settings)
    process.start()
    process.join(120)
    process.kill()
    assert process.exitcode == -signal.SIGKILL


def test_data_in_a_pack_after_a_kill_with_other_numbers_of_workers(packed, tmp_path):
    settings = dict(train_cfg=dict(by_epoch=False, max_iters=9), loader=packed)
    whole = train(tmp_path / "whole", **settings)
    kill(5, tmp_path / "run", workers=2, **settings)
    assert (tmp_path / "run/iter_5.pth").exists()
    after = train(tmp_path / "run", workers=3, resume=True, **settings)
    assert after == {step: whole[step] for step in range(5, 9)} and len(set(whole.values())) == 9


def test_pipelines_are_switched_in_the_data_set_itself():
    """As mmdet's PipelineSwitchHook and mmpretrain's SwitchRecipeHook do it, which see what the loader has."""

    class Piped(Noisy):
        pipeline = "first"

    seeded = pickle.loads(pickle.dumps(SeededDataset(Noisy())))
    assert not hasattr(seeded, "pipeline") and len(seeded) == 11
    seeded = SeededDataset(dataset := Piped())
    seeded.pipeline = "second"
    assert dataset.pipeline == seeded.pipeline == "second"


# --- What is not exact ------------------------------------------------------------------------------------------------


def accumulating(optimizer: str = "Adam") -> dict:
    return ITERATIONS | dict(optim_wrapper=dict(optimizer=dict(type=optimizer, lr=0.01), accumulative_counts=4))


def by_mmengine(checkpoint: dict) -> None:
    meta = checkpoint["meta"]
    for fact in ("world_size", "epoch_length", "images"):
        del meta[fact]
    meta["cfg"] = meta["cfg"].replace("type='eyetoy_mm.ExactEpochBasedTrainLoop'", "by_epoch=True")


def by_mmengine_in_two_parts(checkpoint: dict) -> None:
    """It begins an epoch anew, and goes on to count iterations."""
    by_mmengine(checkpoint)
    checkpoint["meta"].update(epoch=2, iter=14)


def change(work_dir: Path, changed) -> None:
    path = work_dir / (work_dir / "last_checkpoint").read_text()
    checkpoint = torch.load(path, weights_only=False)
    changed(checkpoint)
    torch.save(checkpoint, path)


@pytest.mark.parametrize(
    ("settings", "others", "changed", "told", "steps"),
    [
        (
            ITERATIONS, dict(loader=ITERATIONS["loader"] | dict(batch_size=4)), None,
            "images that were seen: 18. The data go on after 24, as if all steps had had as many as now", 8,
        ),
        (
            accumulating(), {}, None,
            "gradients: those of the last 2 of 4 iterations, which were being accumulated, are in no checkpoint", 8,
        ),
        ({}, {}, by_mmengine, "it was saved by mmengine alone: what augmentation and dropout draw", 10),
        ({}, {}, by_mmengine_in_two_parts, "iteration 14 is not in epoch 3 of 4 iterations each", 8),
    ],
    ids=["batch size", "accumulation", "mmengine", "epochs begun anew"],
)  # fmt: skip
def test_what_is_not_exact_is_said(settings, others, changed, told, steps, tmp_path):
    train(tmp_path, 6, **settings)
    change(tmp_path, changed or (lambda checkpoint: None))
    assert len(train(tmp_path, resume=True, log_level="INFO", **settings | others)) == steps
    assert f"  {told}" in said(tmp_path) and "  settings" not in said(tmp_path)


@pytest.mark.parametrize("settings", [{}, ITERATIONS])
def test_other_data_are_said(settings, tmp_path, monkeypatch):
    """As many batches in an epoch as before, and another order."""
    train(tmp_path, 6, **settings)
    monkeypatch.setattr(Noisy, "__len__", lambda self: 12)
    train(tmp_path, resume=True, log_level="INFO", **settings)
    assert "  images of the training set: 11 -> 12. From here on they come in the order" in said(tmp_path)


def test_nothing_is_said_where_all_is_as_it_was(tmp_path):
    """Nor of gradients at the end of a training, where all are used."""
    train(tmp_path, **accumulating())
    train(tmp_path, resume=True, log_level="INFO", **accumulating())
    (line,) = [line for line in said(tmp_path).splitlines() if line.startswith("  nothing is left")]
    assert line == "  nothing is left to train: train_cfg ends at max_iters=14" and "  gradients" not in said(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda x: x["ema_state_dict"].pop("module.layers.0.weight"), "without layers.0.weight, as no training saves"),
        (lambda x: x["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)), r"the shapes \(3,\) for \(8, 4\)"),
    ],
)
def test_a_state_that_is_not_whole_is_refused(changed, message, tmp_path):
    """The average of a weight was taken for it; averages of gradients failed in the first step."""
    train(tmp_path, 6)
    change(tmp_path, changed)
    with pytest.raises(UserError, match=message):
        train(tmp_path, resume=True)


def several(**optimizers: dict) -> dict:
    wrappers = {name: dict(optimizer=optimizer) for name, optimizer in optimizers.items()}
    return dict(model=dict(type="Two"), optim_wrapper=dict(constructor="Constructor", **wrappers))


def test_several_optimizers_go_on(tmp_path):
    """Which ended in an AttributeError. mmengine restores all of them as it was, and that is said."""
    first, second = dict(type="Adam", lr=0.01), dict(type="SGD", lr=0.1, momentum=0.9)
    whole = train(tmp_path / "whole", **several(a=first, b=second))
    train(tmp_path, 6, **several(a=first, b=second))
    for others, message in (
        (several(a=first, b=first), "the optimizer SGD, which Adam of the config cannot go on with"),
        (several(a=first, c=second), r"the state of several \(a, b\), and the config makes several \(a, c\)"),
        ({}, r"the state of several \(a, b\), and the config makes one, of optimizers"),
    ):
        with pytest.raises(UserError, match=message):
            train(tmp_path, resume=True, log_level="INFO", **others)
    others = several(a=first, b=second | dict(lr=1.0))
    went_on = train(tmp_path, resume=True, log_level="INFO", **others)
    assert went_on == {step: whole[step] for step in range(6, 16)}
    told = "the checkpoint's: optim_wrapper.b.optimizer.lr 0.1, not 1.0"
    assert f"  settings of several optimizers and their schedules, {told}" in said(
        tmp_path
    ) and "from here on" not in said(tmp_path)


# --- Evaluations ------------------------------------------------------------------------------------------------------


class Evaluations(Hook):
    """Keeps the metrics by step; ends the run in the middle of one of its evaluations."""

    priority = "VERY_LOW"

    def __init__(self, end: int | None = None) -> None:
        self.end, self.values = end, {}

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        if batch_idx == 1 and runner.iter == self.end:
            Losses.stop()

    def after_val_epoch(self, runner, metrics=None) -> None:
        assert runner.iter not in self.values, "evaluated twice"
        self.values[runner.iter] = metrics["acc"]


EVALUATED = dict(
    evaluated=True,
    checkpoint=dict(save_best="acc", max_keep_ckpts=2, interval=4),
    param_scheduler=dict(type="ReduceOnPlateauLR", monitor="acc", rule="greater", patience=1, by_epoch=True),
)
BY_ITERATIONS = dict(loader=ITERATIONS["loader"], param_scheduler=dict(type="ConstantLR", by_epoch=False))


def saved(work_dir: Path) -> dict:
    """What is left of a run: its files, and what is known of evaluations in the last one."""
    names = sorted(path.name for path in work_dir.glob("*.pth"))
    last = torch.load(work_dir / (work_dir / "last_checkpoint").read_text(), weights_only=False)
    (schedule,), known = last["param_schedulers"], last["message_hub"]["runtime_info"]
    return dict(
        names=names, best=known["best_score"], where=Path(known["best_ckpt"]).name, done=known["evaluated"],
        waits=known.get("early_stopping/acc"), bad=(schedule.get("best"), schedule.get("num_bad_epochs")),
    )  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        dict(train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=1)),
        dict(
            train_cfg=dict(by_epoch=True, max_epochs=4, val_interval=3, dynamic_intervals=[(4, 1)]),
            checkpoint=dict(save_best="acc", by_epoch=True),
        ),
        dict(
            train_cfg=dict(by_epoch=False, max_iters=9, val_interval=4, val_begin=2, dynamic_intervals=[(6, 2)]),
            checkpoint=dict(save_best="acc", interval=2),
            **BY_ITERATIONS,
        ),
        dict(
            train_cfg=dict(by_epoch=False, max_iters=9, val_interval=2),
            checkpoint=dict(save_best="acc", interval=2),
            custom_hooks=[dict(type="EarlyStoppingHook", monitor="acc", patience=2)],
            **BY_ITERATIONS,
        ),
    ],
    ids=["epochs", "dynamic epochs", "dynamic iterations", "stopped early"],
)
def test_an_evaluation_in_which_a_run_is_killed_is_made_when_it_goes_on(settings, tmp_path):
    settings = EVALUATED | settings
    losses = train(tmp_path / "whole", more_hooks=[whole := Evaluations()], **settings)
    assert len(whole.values) > 1
    for end in (min(whole.values), max(whole.values)):
        run = tmp_path / f"{end}"
        before, after = Evaluations(end), Evaluations()
        seen = train(run, end=-1, more_hooks=[before], **settings)
        went_on = train(run, resume=True, more_hooks=[after], **settings)
        assert end not in before.values and next(iter(after.values)) == end
        assert before.values | after.values == whole.values and seen | went_on == losses
        assert saved(run) == saved(tmp_path / "whole")


def test_a_kill_in_the_last_evaluation(tmp_path):
    settings = EVALUATED | BY_ITERATIONS | dict(train_cfg=dict(by_epoch=False, max_iters=4, val_interval=2))
    train(tmp_path / "whole", **settings)
    kill(-1, tmp_path / "run", more_hooks=[Evaluations(4)], **settings)
    assert read_curves(tmp_path / "run").of("acc").keys() == {2}
    assert train(tmp_path / "run", resume=True, **settings) == {}
    assert read_curves(tmp_path / "run").of("acc") == read_curves(tmp_path / "whole").of("acc")
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")


def test_what_was_evaluated_and_saved_is_not_evaluated_again(tmp_path):
    settings = EVALUATED | dict(train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=1))
    train(tmp_path, more_hooks=[whole := Evaluations()], **settings)
    last = torch.load(tmp_path / "iter_8.pth", weights_only=False)
    assert whole.values.keys() == {4, 8}
    was_best = last["message_hub"]["runtime_info"]["evaluated"] == 2
    train(tmp_path, resume=True, more_hooks=[again := Evaluations()], **settings)
    assert again.values == ({} if was_best else {8: whole.values[8]})


def test_a_run_stays_stopped(tmp_path):
    settings = EVALUATED | BY_ITERATIONS
    settings |= dict(
        train_cfg=dict(by_epoch=False, max_iters=9, val_interval=1),
        checkpoint=dict(save_best="acc", interval=1),
        custom_hooks=[dict(type="EarlyStoppingHook", monitor="acc", rule="less", patience=2)],
    )
    losses = train(tmp_path, **settings)
    assert 2 <= len(losses) < 9
    assert train(tmp_path, resume=True, **settings) == {}


@pytest.mark.parametrize(
    "settings",
    [
        dict(train_cfg=dict(by_epoch=True, max_epochs=9, val_interval=1), checkpoint=dict(by_epoch=True, interval=8)),
        BY_ITERATIONS
        | dict(train_cfg=dict(by_epoch=False, max_iters=40, val_interval=1), checkpoint=dict(interval=30)),
    ],
    ids=["epochs", "iterations"],
)
def test_the_end_of_a_run_that_stops_early_is_saved(settings, tmp_path):
    stops = [dict(type="EarlyStoppingHook", monitor="acc", min_delta=9.0, patience=1)]
    losses = train(tmp_path, **EVALUATED | settings | dict(custom_hooks=stops))
    (last,) = tmp_path.glob("*.pth")
    assert len(losses) == torch.load(last, weights_only=False)["meta"]["iter"] < 36
    assert last.name == (tmp_path / "last_checkpoint").read_text()
    assert train(tmp_path, resume=True, **EVALUATED | settings | dict(custom_hooks=stops)) == {}
    assert [*tmp_path.glob("*.pth")] == [last]


class Known(Hook):
    def after_train(self, runner) -> None:
        self.info = dict(runner.message_hub.runtime_info)


def test_the_best_that_could_not_be_saved_is_not_known_as_such(tmp_path, monkeypatch):
    """Or nothing below it was saved as the best from there on."""
    settings = EVALUATED | dict(train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=1))
    train(tmp_path / "whole", more_hooks=[whole := Evaluations()], **settings)
    rule = "less" if whole.values[8] < whole.values[4] else "greater"
    settings |= dict(checkpoint=dict(save_best="acc", rule=rule), on_save_error="go_on")
    save = Runner.save_checkpoint

    def full(runner, out_dir, filename, *args, **kwargs):
        if filename == "best_acc_iter_8.pth":
            raise OSError(28, "No space left on device")
        save(runner, out_dir, filename, *args, **kwargs)

    monkeypatch.setattr(Runner, "save_checkpoint", full)
    train(tmp_path / "full", more_hooks=[known := Known()], **settings)
    assert known.info["best_score"] == whole.values[4]
    assert Path(known.info["best_ckpt"]).name == "best_acc_iter_4.pth" and Path(known.info["best_ckpt"]).is_file()


class Failing(Hook):
    """Fails at a place of the evaluation after some iteration; the last in line: all others have done their part."""

    priority = "LOWEST"

    def __init__(self, place: str, iteration: int) -> None:
        self.place, self.iteration = place, iteration

    def _fail_at(self, place: str, runner) -> None:
        if (self.place, self.iteration) == (place, runner.iter):
            raise RuntimeError(f"fails at {place}")

    def before_val(self, runner) -> None:
        self._fail_at("its begin", runner)

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        if batch_idx == 1:
            self._fail_at("an image", runner)
        if (self.place, self.iteration) == ("metric", runner.iter):
            (metric,) = runner.val_loop.evaluator.metrics
            metric.compute_metrics = lambda results: self._fail_at("metric", runner)

    def after_val_epoch(self, runner, metrics=None) -> None:
        self._fail_at("its end", runner)


def said(work_dir: Path) -> str:
    return "".join(path.read_text() for path in work_dir.glob("*/*.log"))


@pytest.mark.parametrize(
    "settings",
    [
        dict(
            train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=1),
            checkpoint=dict(save_best="acc", rule="less", by_epoch=True, interval=9),
        ),
        dict(
            train_cfg=dict(by_epoch=False, max_iters=9, val_interval=3),
            checkpoint=dict(save_best="acc", rule="less", interval=7),
            loader=ITERATIONS["loader"],
            custom_hooks=[dict(type="EMAHook"), dict(type="EarlyStoppingHook", monitor="acc", patience=2)],
            param_scheduler=EVALUATED["param_scheduler"] | dict(patience=0),
        ),
    ],
    ids=["epochs", "iterations"],
)
def test_an_evaluation_that_fails_loses_nothing(settings, tmp_path):
    """Nothing was saved before; averaged weights, schedules and best scores are in all states between two."""
    settings = EVALUATED | settings
    losses = train(tmp_path / "whole", more_hooks=[whole := Evaluations()], **settings)
    first, second, *_ = whole.values
    for place, at in (("its begin", first), ("an image", second), ("metric", second), ("its end", second)):
        run = tmp_path / place
        with pytest.raises(RuntimeError, match=f"fails at {place}"):
            train(run, more_hooks=[Failing(place, at)], **settings)
        told = f"The evaluation failed after iteration {at}, which is saved in {run}/iter_{at}.pth: --resume evaluates"
        assert told in said(run)
        went_on = train(run, resume=True, more_hooks=[after := Evaluations()], **settings)
        assert went_on == {step: losses[step] for step in range(at, len(losses))}
        assert after.values == {step: x for step, x in whole.values.items() if step >= at}
        one, other = (saved(folder) for folder in (run, tmp_path / "whole"))
        assert {**one, "names": 0} == {**other, "names": 0}


def test_what_was_saved_before_an_evaluation_that_fails_is_named(tmp_path):
    settings = EVALUATED | dict(train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=1))
    settings |= dict(checkpoint=dict(by_epoch=True))
    with pytest.raises(RuntimeError, match="fails"):
        train(tmp_path, more_hooks=[Failing("an image", 4)], **settings)
    assert f"which is saved in {tmp_path}/epoch_1.pth: --resume" in said(tmp_path)
    assert [path.name for path in tmp_path.glob("*.pth")] == ["epoch_1.pth"]


@pytest.mark.parametrize(
    ("settings", "workers"), [({}, 0), (ITERATIONS, 1), (PASSES, 0)], ids=["epochs", "iterations", "passes"]
)
def test_a_batch_that_cannot_be_read_loses_nothing(settings, workers, tmp_path, monkeypatch):
    settings = settings | dict(checkpoint=dict(interval=99))
    losses = train(tmp_path / "whole", **settings)
    read, number = Noisy.__getitem__, multiprocessing.Value("i", 0)

    def broken(self, index: int) -> dict:
        number.value += 1
        if number.value == 3 * 5 + 2:  # in the sixth batch
            raise OSError("cannot be read")
        return read(self, index)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="cannot be read"):
        patch.setattr(Noisy, "__getitem__", broken)
        train(tmp_path / "run", workers=workers, **settings)
    told = f"The next batch could not be read after iteration 5, which is saved in {tmp_path}/run/iter_5.pth: --resume"
    assert told in said(tmp_path / "run")
    assert train(tmp_path / "run", resume=True, **settings) == {step: losses[step] for step in range(5, len(losses))}


class FailingBetween(Hook):
    """Fails at a point between two steps, before all other hooks or after them."""

    def __init__(self, point: str, priority: str, iteration: int, buffers: bool = False) -> None:
        self.priority, self.iteration, self.buffers = priority, iteration, buffers
        setattr(self, point, self._fail)

    def _fail(self, runner) -> None:
        if runner.iter == self.iteration:
            if self.buffers:
                next(runner.model.buffers()).add_(1)
            raise RuntimeError("fails between")


SCHEDULES = [
    dict(type="CosineAnnealingLR", T_max=12, end=12, by_epoch=False),  # to a learning rate of 0
    dict(type="StepLR", step_size=1, gamma=0.5, by_epoch=True),
]


@pytest.mark.parametrize("priority", ["VERY_HIGH", "LOWEST"])
@pytest.mark.parametrize(
    ("point", "at", "part"),
    [
        ("before_train_epoch", 4, "The begin of the epoch"),
        ("after_train_epoch", 8, "The end of the epoch"),
        ("after_train_epoch", 12, "The end of the epoch"),
        ("after_train", 12, "The end of the training"),
    ],
)
def test_a_hook_that_fails_between_two_steps_loses_nothing(point, at, part, priority, tmp_path):
    """It is called again, whatever other hooks had done by then, as schedules by epochs."""
    settings = EVALUATED | dict(train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=1), param_scheduler=SCHEDULES)
    settings |= dict(checkpoint=dict(interval=99, save_last=False))
    losses = train(tmp_path / "whole", more_hooks=[whole := Evaluations()], **settings)
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="fails between"):
        train(run, more_hooks=[FailingBetween(point, priority, at)], **settings)
    assert f"{part} failed after iteration {at}, which is saved in {run}/iter_{at}.pth: --resume goes on" in said(run)
    went_on = train(run, resume=True, more_hooks=[after := Evaluations()], **settings)
    assert went_on == {step: losses[step] for step in range(at, len(losses))}
    done = at if point != "after_train_epoch" else at - 1  # the evaluation comes after it
    assert after.values == {step: x for step, x in whole.values.items() if step > done}


def test_the_end_of_a_training_by_iterations_too(tmp_path):
    settings = ITERATIONS | dict(checkpoint=dict(interval=99, save_last=False), param_scheduler=SCHEDULES)
    for point in ("after_train_epoch", "after_train"):
        run = tmp_path / point
        with pytest.raises(RuntimeError, match="fails between"):
            train(run, more_hooks=[FailingBetween(point, "LOWEST", 14)], **settings)
        assert f"The end of the training failed after iteration 14, which is saved in {run}/iter_14.pth" in said(run)
        assert train(run, resume=True, **settings) == {}


def test_buffers_that_hooks_have_set_anew_are_not_saved(tmp_path):
    settings = dict(checkpoint=dict(interval=3))
    with pytest.raises(RuntimeError, match="fails between"):
        train(tmp_path, more_hooks=[FailingBetween("after_train_epoch", "LOWEST", 8, buffers=True)], **settings)
    assert "The end of the epoch failed after iteration 8, which cannot be saved" in said(tmp_path)
    assert (tmp_path / "last_checkpoint").read_text() == "iter_6.pth"


def test_a_step_that_fails_says_what_is_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(Losses, "stop", lambda self: math.sqrt(-1))
    with pytest.raises(ValueError, match="math domain"):
        train(tmp_path, 8, checkpoint=dict(interval=3))
    told = "The step after iteration 7 failed, and is not saved, for its weights may be half of it. The last checkpoint"
    assert f"{told} is {tmp_path}/iter_6.pth." in said(tmp_path)


class Spoiling(Hook):
    """Leaves other weights in the model than those of the training, as half a swap does."""

    def before_val(self, runner) -> None:
        next(runner.model.parameters()).data.add_(1)
        raise RuntimeError("half a swap")


def test_what_is_not_the_training_is_not_saved(tmp_path, monkeypatch):
    """Nor a step that fails, nor an evaluation before the first."""
    settings = EVALUATED | dict(
        train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=1), checkpoint=dict(interval=9)
    )
    with pytest.raises(RuntimeError, match="half a swap"):
        train(tmp_path / "spoilt", more_hooks=[Spoiling()], **settings)
    told = "after iteration 4, which cannot be saved: RuntimeError: the model does not have the weights of the training"
    assert told in said(tmp_path / "spoilt")
    with pytest.raises(RuntimeError, match="fails at an image"):
        hooks = dict(custom_hooks=[dict(type="eyetoy_mm.EvaluateUntrainedHook")])
        train(tmp_path / "untrained", more_hooks=[Failing("an image", 0)], **settings | hooks)
    monkeypatch.setattr(Losses, "stop", lambda self: math.sqrt(-1))
    with pytest.raises(ValueError, match="math domain"):
        train(tmp_path / "step", 2, **settings)
    assert not list(tmp_path.glob("*/*.pth"))


# --- More processes ---------------------------------------------------------------------------------------------------


def test_more_processes_read_the_same_data_in_the_same_order(monkeypatch):
    def stream(rank: int, world_size: int, batch_size: int) -> list[tuple]:
        from mmengine.dataset import InfiniteSampler
        from torch.utils.data import BatchSampler

        for place in ("mmengine.dataset.sampler.get_dist_info", "mmengine.dist.get_dist_info"):
            monkeypatch.setattr(place, lambda: (rank, world_size))
        sampler = InfiniteSampler(Noisy(), seed=1)
        batches = PositionedBatches(BatchSampler(sampler, batch_size, drop_last=True), seed=1)
        return [[(int(x), x.stream) for x in batch] for batch, _ in zip(batches, range(6), strict=False)]

    one, two = stream(0, 1, 4), [stream(rank, 2, 2) for rank in (0, 1)]
    for alone, first, second in zip(one, *two, strict=True):
        assert sorted(alone, key=lambda sample: sample[1]) == sorted(first + second, key=lambda sample: sample[1])


def one_of_two(rank: int, work_dir: Path, place: str, failing: int, engine: str | None) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=f"{rank}", LOCAL_RANK=f"{rank}", WORLD_SIZE="2")
    store = dist.FileStore(f"{work_dir}.store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    hooks = [SaveOnSignalHook(), *([Failing(place, 3)] if rank == failing else [])]
    iterations = dict(train_cfg=dict(by_epoch=False, max_iters=6, val_interval=3), loader=ITERATIONS["loader"])
    settings = EVALUATED | BY_ITERATIONS | iterations | dict(launcher="pytorch", engine=engine)
    settings |= dict(model_wrapper_cfg=dict(type="MMDistributedDataParallel", device_ids=None))
    train(work_dir, more_hooks=hooks, **settings | dict(checkpoint=dict(interval=2)))
    os._exit(0)


@pytest.mark.parametrize(
    ("place", "failing", "engine"), [("metric", 0, None), ("an image", 1, None), ("metric", 0, "FSDP2")]
)
def test_an_evaluation_that_fails_in_one_process_ends_all(place, failing, engine, tmp_path):
    """And process 0 saves what is in it as a whole, whoever failed."""
    context, run = multiprocessing.get_context("fork"), tmp_path / "run"
    processes = [context.Process(target=one_of_two, args=(rank, run, place, failing, engine)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        process.kill()
    assert [process.exitcode for process in processes] == [1, 1]
    if engine is None:
        assert f"which is saved in {run}/iter_3.pth: --resume evaluates again" in said(run)
        last = torch.load(run / "iter_3.pth", weights_only=False)
        assert last["meta"]["iter"] == 3 and last["message_hub"]["runtime_info"].get("evaluated") is None
    else:
        assert "is not saved: the 2 processes have a shard of the model each" in said(run)
        assert f"The last checkpoint is {run}/iter_2.pth" in said(run)
        assert [path.name for path in run.glob("*.pth")] == ["iter_2.pth"]


def test_iterations_and_processes_draw_different_numbers(monkeypatch):
    drawn = set()
    for rank in (0, 1):
        monkeypatch.setattr("mmengine.dist.get_rank", lambda rank=rank: rank)
        for step in range(3):
            for _ in range(2):  # the same each time
                SeedIterationsHook().before_train_iter(SimpleNamespace(seed=0, iter=step), 0)
                drawn.add((float(torch.rand(())), random.random(), float(np.random.rand())))
    assert len(drawn) == 6 and len({numbers[0] for numbers in drawn}) == 6


# --- Signals ----------------------------------------------------------------------------------------------------------


class Told(Hook):
    """Sends a signal to its process in the middle of a step, or of the evaluation after one."""

    def __init__(self, step: int | None = None, evaluation: int | None = None, number: int = signal.SIGTERM) -> None:
        self.step, self.evaluation, self.number = step, evaluation, number

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter + 1 == self.step:
            self.tell()

    def before_val_iter(self, runner, batch_idx, data_batch=None) -> None:
        if batch_idx == 1 and runner.iter == self.evaluation:
            self.tell()

    def tell(self) -> None:
        for process in (*multiprocessing.active_children(), multiprocessing.current_process()):
            os.kill(process.pid, self.number)


@pytest.fixture
def signals(monkeypatch):
    """What the hook changes is left as it was."""
    monkeypatch.setattr("mmengine.runner.runner.default_worker_init_fn", lambda *_, **__: None)
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite that runs in the background ignores it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "settings",
    [
        dict(
            train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=2),
            checkpoint=dict(save_best="acc", by_epoch=True, interval=9),
        ),
        dict(
            train_cfg=dict(by_epoch=False, max_iters=8, val_interval=8),
            checkpoint=dict(save_best="acc", interval=3),
            **BY_ITERATIONS,
        ),
    ],
    ids=["epochs", "iterations"],
)
def test_an_evaluation_is_left_and_made_when_the_run_goes_on(settings, tmp_path, signals):
    """With nothing saved at this step before, and averaged weights in the place of those that are trained."""
    settings = EVALUATED | settings
    losses = train(tmp_path / "whole", more_hooks=[whole := Evaluations()], **settings)
    run, (first, *_) = tmp_path / "run", whole.values
    with pytest.raises(SystemExit, match="85"):
        train(run, more_hooks=[Told(evaluation=first), SaveOnSignalHook(), before := Evaluations()], **settings)
    assert (run / "last_checkpoint").read_text() == f"iter_{first}.pth" and not before.values
    went_on = train(run, resume=True, more_hooks=[after := Evaluations()], **settings)
    assert after.values == whole.values and went_on == {step: losses[step] for step in range(first, len(losses))}
    one, other = (saved(folder) for folder in (run, tmp_path / "whole"))
    assert {**one, "names": 0} == {**other, "names": 0}


@pytest.mark.parametrize("told", [Told(6, number=signal.SIGINT), Told(evaluation=8, number=signal.SIGINT)])
def test_an_interrupt_loses_nothing(told, tmp_path, signals):
    """A terminal sends it to all processes of the run: those that read images are not disturbed."""
    settings = EVALUATED | dict(
        train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=2), checkpoint=dict(interval=9)
    )
    whole = train(tmp_path / "whole", workers=2, **settings)
    train(tmp_path, end=99, workers=2, more_hooks=[told, SaveOnSignalHook()], **settings)
    step = told.step or told.evaluation
    assert (tmp_path / "last_checkpoint").read_text() == f"iter_{step}.pth"
    assert train(tmp_path, resume=True, workers=2, **settings) == {i: whole[i] for i in range(step, len(whole))}


def test_a_terminal_that_is_closed_loses_nothing(tmp_path, signals):
    whole = train(tmp_path / "whole", workers=2)
    told = Told(6, number=signal.SIGHUP)
    with pytest.raises(SystemExit, match="85"):
        train(tmp_path, workers=2, more_hooks=[told, SaveOnSignalHook()], checkpoint=dict(interval=99))
    assert train(tmp_path, resume=True) == {step: whole[step] for step in range(6, len(whole))}


def train_into_tee(work_dir: Path, number: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a suite under nohup ignores it
    read, write = os.pipe()
    for output in (1, 2):
        os.dup2(write, output)
    os.close(write)
    os.close(read)
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
    train(work_dir, more_hooks=[Told(3, number=number), SaveOnSignalHook()], checkpoint=dict(interval=99), end=99)
    print("interrupted", file=sys.stderr)
    sys.exit(0)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGHUP, 85)])
def test_a_reader_of_the_output_that_ends_first_loses_nothing(number, status, tmp_path):
    """A terminal sends Ctrl-C to all of `eyetoy train ... | tee log`; one that is closed reads no more itself."""
    process = multiprocessing.get_context("fork").Process(target=train_into_tee, args=(tmp_path, number))
    process.start()
    process.join(120)
    process.kill()
    assert process.exitcode == status and (tmp_path / "last_checkpoint").read_text() == "iter_3.pth"


def test_only_what_trains_takes_an_interrupt_and_only_one(signals, capfd):
    with contextlib.closing(SaveOnSignalHook()) as hook:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        hook.before_train(SimpleNamespace())
        for _ in range(2):  # from the terminal, and from a launcher that has it from there
            signal.raise_signal(signal.SIGINT)
        assert hook.told == signal.SIGINT and capfd.readouterr().err.count("Ctrl-C: ") == 1
        time.sleep(1.1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("theirs", [signal.SIG_IGN, lambda *_: None])
def test_a_signal_of_a_terminal_that_is_ignored_or_taken_stays_so(number, theirs, signals):
    """In the background of a shell, under nohup, and in a program that has a handler of its own."""
    signal.signal(number, theirs)
    with contextlib.closing(SaveOnSignalHook()):
        assert signal.getsignal(number) is theirs


def test_a_second_training_of_a_process_takes_the_signals_of_one_that_failed(signals):
    """In a notebook: the first left its handlers, which told a run that was no more."""
    before = signal.getsignal(signal.SIGTERM)
    first = SaveOnSignalHook()
    first.before_train(SimpleNamespace())
    with contextlib.closing(SaveOnSignalHook()) as second:
        second.before_train(SimpleNamespace())
        signal.raise_signal(signal.SIGINT)
        assert (first.told, second.told) == (0, signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_handler_that_came_after_stays(signals):
    hook = SaveOnSignalHook()
    signal.signal(signal.SIGINT, theirs := lambda *_: None)
    hook.close()
    assert signal.getsignal(signal.SIGINT) is theirs


def test_a_run_that_ends_in_another_thread_fails_not_there(signals):
    """Where alone the main thread may set handlers."""
    failed, hook = [], SaveOnSignalHook()

    def end() -> None:
        try:
            hook.after_train(None)
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=end)
    thread.start()
    thread.join()
    assert not failed
    hook.close()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_that_is_told_in_its_last_step_goes_on_to_its_evaluation(tmp_path, signals):
    """Its learning rate is 0, with which --resume refused to train."""
    settings = EVALUATED | dict(train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=2))
    settings |= dict(param_scheduler=dict(type="PolyLR", end=8, by_epoch=False), checkpoint=dict(by_epoch=True))
    with pytest.raises(SystemExit, match="85"):
        train(tmp_path, more_hooks=[Told(8), SaveOnSignalHook()], **settings)
    assert train(tmp_path, resume=True, more_hooks=[after := Evaluations()], **settings) == {}
    assert after.values.keys() == {8} and (tmp_path / "epoch_2.pth").is_file()


def exit_by_handler(expected) -> None:
    sys.exit(signal.getsignal(signal.SIGINT) != expected)


def test_processes_that_are_started_after_a_run_are_as_any(signals):
    hook = SaveOnSignalHook()
    for expected in (signal.SIG_IGN, signal.default_int_handler):
        child = multiprocessing.get_context("fork").Process(target=exit_by_handler, args=(expected,))
        child.start()
        child.join(20)
        assert child.exitcode == 0
        hook.close()


def test_what_is_saved_when_runs_are_told_is_replaced_as_others_are(tmp_path, signals):
    """Epochs of four steps, one checkpoint kept: what was saved in the middle goes when the epoch is saved."""
    settings = dict(checkpoint=dict(by_epoch=True, max_keep_ckpts=1))

    def files() -> list[str]:
        return sorted(path.name for path in tmp_path.glob("*.pth"))

    for step, left in ((6, ["epoch_1.pth", "iter_6.pth"]), (10, ["epoch_2.pth", "iter_10.pth"])):
        with pytest.raises(SystemExit, match="85"):
            train(tmp_path, resume=step > 6, more_hooks=[Told(step), SaveOnSignalHook()], **settings)
        assert files() == left
    train(tmp_path, resume=True, **settings)
    assert files() == ["epoch_4.pth"]


def test_what_was_saved_stays_until_there_is_another(tmp_path, signals):
    """An evaluation that is not the best saves nothing."""
    settings = EVALUATED | dict(train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=1))
    train(tmp_path / "whole", more_hooks=[whole := Evaluations()], **settings)
    rule = "less" if whole.values[8] > whole.values[4] else "greater"
    settings |= dict(checkpoint=dict(by_epoch=True, max_keep_ckpts=1, save_best="acc", rule=rule))
    run = tmp_path / "run"
    with pytest.raises(SystemExit, match="85"):
        train(run, more_hooks=[Told(evaluation=8), SaveOnSignalHook()], **settings)
    train(run, end=9, resume=True, more_hooks=[after := Evaluations()], **settings)  # killed before the next is saved
    assert after.values.keys() == {8} and (run / "iter_8.pth").is_file()


def test_a_run_that_is_told_before_it_has_trained_saves_nothing(tmp_path, signals):
    settings = EVALUATED | dict(custom_hooks=[dict(type="eyetoy_mm.EvaluateUntrainedHook")])
    with pytest.raises(SystemExit, match="85"):
        train(tmp_path, more_hooks=[Told(evaluation=0), SaveOnSignalHook()], log_level="WARNING", **settings)
    assert not list(tmp_path.glob("*.pth"))
    assert "SIGTERM: nothing is trained yet" in said(tmp_path) and "Saved." not in said(tmp_path)


def test_what_could_not_be_saved_is_not_said_to_be(tmp_path, signals, monkeypatch):
    def no_room(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Runner, "save_checkpoint", no_room)
    with pytest.raises(SystemExit, match="85"):
        train(tmp_path, more_hooks=[Told(2), SaveOnSignalHook()], on_save_error="go_on", checkpoint=dict(interval=9))
    assert "Not saved: " in said(tmp_path)


def test_weights_are_taken_back_without_another_evaluation():
    """Which mmpretrain's hook makes in after_val_epoch; nor swapped where it evaluates those of the training."""
    pytest.importorskip("mmpretrain")
    from mmpretrain.engine import EMAHook

    hook, swaps = EMAHook(evaluate_on_origin=True), []
    hook._swap_ema_parameters = lambda: swaps.append(hook)
    take_back_weights(SimpleNamespace(hooks=[hook]))
    assert swaps == [hook]
    hook.evaluate_on_ema = False
    take_back_weights(SimpleNamespace(hooks=[hook]))
    assert swaps == [hook]


def begin_and_sleep(begun):
    begun.set()
    time.sleep(60)


def test_a_run_that_fails_leaves_signals_as_they_were(monkeypatch):
    """A process that catches the error and goes on ended at no SIGTERM any more."""
    monkeypatch.setattr("mmengine.runner.runner.default_worker_init_fn", lambda *_, **__: None)
    before = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(RuntimeError), contextlib.closing(SaveOnSignalHook()) as hook:
        assert signal.getsignal(signal.SIGTERM) == hook._tell
        raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) is before
    signal.signal(signal.SIGTERM, other := lambda *_: None)
    try:
        hook.close()
        assert signal.getsignal(signal.SIGTERM) is other  # of whoever came after
    finally:
        signal.signal(signal.SIGTERM, before)


def test_processes_of_a_run_end_when_it_ends_them(monkeypatch):
    """A pool of a metric that fails waited for ever for its processes, which ignored SIGTERM."""
    monkeypatch.setattr("mmengine.runner.runner.default_worker_init_fn", lambda *_, **__: None)  # left as it was
    hook = SaveOnSignalHook()
    try:
        context = multiprocessing.get_context("fork")
        begun = context.Event()
        child = context.Process(target=begin_and_sleep, args=(begun,), daemon=True)
        child.start()
        assert begun.wait(60)  # Python forgets what is signalled before
        child.terminate()
        child.join(20)
        ended = child.exitcode
        child.kill()
        assert ended is not None
    finally:
        hook.after_train(None)


def test_a_signal_waits_for_gradients_that_are_accumulated(tmp_path, signals):
    settings = ITERATIONS | dict(optim_wrapper=dict(optimizer=dict(type="Adam", lr=0.01), accumulative_counts=4))
    whole = train(tmp_path / "whole", **settings)
    run = tmp_path / "run"
    with pytest.raises(SystemExit, match="85"):
        train(run, more_hooks=[Told(6), SaveOnSignalHook()], **settings)
    assert (run / "last_checkpoint").read_text() == "iter_8.pth"
    assert train(run, resume=True, **settings) == {step: whole[step] for step in range(8, 14)}
