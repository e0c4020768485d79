"""Runs that go on: from where, with which schedule and settings, and what is refused."""

from __future__ import annotations

import copy
import itertools
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import eyetoy_mm  # noqa: F401 - first: mmengine loads its own checkpoints with it

pytest.importorskip("mmengine")
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.visualization import Visualizer

from eyetoy_mm.engine import launch, resume
from eyetoy_mm.errors import UserError
from tests.test_compat import compat_tiny_runner

_COUNT = itertools.count()
LONGER = dict(train_cfg=dict(by_epoch=True, max_epochs=8))
# 3 iterations in an epoch; saved after 4 epochs of 4.
SCHEDULES: dict[str, Callable[[int], list[dict[str, Any]]]] = {
    "poly": lambda epochs: [dict(type="PolyLR", power=0.9, end=3 * epochs, by_epoch=False)],
    "warm-up and cosine": lambda epochs: [
        dict(type="LinearLR", start_factor=0.1, end=5, by_epoch=False),
        dict(type="CosineAnnealingLR", begin=1, end=epochs, T_max=epochs - 1, by_epoch=True),
    ],
    "converted": lambda epochs: [
        dict(type="CosineAnnealingLR", T_max=epochs, end=epochs, by_epoch=True, convert_to_iter_based=True)
    ],
    "steps": lambda epochs: [dict(type="MultiStepLR", milestones=[epochs // 2, epochs - 1], gamma=0.1)],
    "one cycle": lambda epochs: [dict(type="OneCycleLR", eta_max=0.05, total_steps=3 * epochs, by_epoch=False)],
}


@pytest.fixture(autouse=True)
def _no_runner_is_left() -> Iterator[None]:
    """mmengine keeps logs, messages and visualizers by the name of a run."""
    before = {cls: set(cls._instance_dict) for cls in (MMLogger, MessageHub, Visualizer)}
    yield
    for cls, names in before.items():
        for name in set(cls._instance_dict) - names:
            del cls._instance_dict[name]


def tiny(work_dir: Path, **kwargs: Any) -> Config:
    hooks = dict(logger=dict(type="LoggerHook", interval=1), checkpoint=dict(type="CheckpointHook", interval=1))
    kwargs = dict(default_hooks=hooks, custom_hooks=[]) | kwargs
    config = compat_tiny_runner.config(str(work_dir), f"resume-{next(_COUNT)}", **kwargs)
    for key in ("val_dataloader", "val_cfg", "val_evaluator"):
        config[key] = None
    return config


def rates(work_dir: Path) -> dict[int, float]:
    """The learning rate of every step, from the log."""
    lines = [line for file in sorted(work_dir.glob("*/vis_data/scalars.json")) for line in file.open()]
    return {entry["step"]: entry["lr"] for entry in map(json.loads, lines) if "lr" in entry}


def said(work_dir: Path) -> str:
    return "".join(file.read_text() for file in sorted(work_dir.glob("*/*.log")))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs of four, of a schedule by iterations."""
    work_dir = tmp_path_factory.mktemp("saved")
    launch.train(
        tiny(
            work_dir,
            param_scheduler=SCHEDULES["poly"](2),
            train_cfg=dict(by_epoch=True, max_epochs=2),
            log_level="INFO",
        )
    )
    return work_dir


def go_on(saved: Path, work_dir: Path, **kwargs: Any) -> str:
    """Resume the saved run, and return what was said."""
    config = tiny(work_dir, **{"param_scheduler": SCHEDULES["poly"](2), "log_level": "INFO", **LONGER, **kwargs})
    launch.train(config, resume=str(saved / "epoch_2.pth"))
    return said(work_dir)


# --- Schedules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_longer_schedule_is_that_of_a_run_that_always_had_it(name: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    launch.train(tiny(whole, param_scheduler=SCHEDULES[name](8), **LONGER))
    launch.train(tiny(parts, param_scheduler=SCHEDULES[name](4)))
    launch.train(tiny(parts, param_scheduler=SCHEDULES[name](8), **LONGER), resume="auto")
    expected, found = rates(whole), rates(parts)
    assert sorted(found) == list(range(1, 25)) and {step: found[step] for step in range(13, 25)} == {
        step: expected[step] for step in range(13, 25)
    }
    assert min(found[step] for step in range(13, 24)) > 0
    assert found[12] != expected[12]  # the schedules do differ


def test_in_iterations_too(tmp_path: Path) -> None:
    def settings(iterations: int) -> dict[str, Any]:
        schedule = [
            dict(type="LinearLR", start_factor=0.1, end=3, by_epoch=False),
            dict(type="PolyLR", begin=3, end=iterations, by_epoch=False),
        ]
        hook = dict(type="CheckpointHook", interval=5, by_epoch=False)
        hooks = dict(logger=dict(type="LoggerHook", interval=1), checkpoint=hook)
        loop = dict(by_epoch=False, max_iters=iterations, val_interval=100)
        loader = tiny(tmp_path).train_dataloader | dict(sampler=dict(type="InfiniteSampler"))
        return dict(param_scheduler=schedule, train_cfg=loop, default_hooks=hooks, train_dataloader=loader)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    launch.train(tiny(whole, **settings(20)))
    launch.train(tiny(parts, **settings(10)))
    launch.train(tiny(parts, **settings(20)), resume=str(parts / "iter_5.pth"))
    expected, found = rates(whole), rates(parts)
    assert {step: found[step] for step in range(6, 21)} == {step: expected[step] for step in range(6, 21)}
    assert found[5] != expected[5]


def test_the_same_schedule_goes_on_as_it_was_saved(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = dict(param_scheduler=SCHEDULES["warm-up and cosine"](4), log_level="INFO")
    launch.train(tiny(whole, **config))
    launch.train(tiny(parts, **config))
    launch.train(tiny(parts, **config), resume=str(parts / "epoch_2.pth"))
    assert rates(parts) == rates(whole)
    assert "at epoch 2, iteration 6: nothing differs from the run that saved it" in said(parts)


def test_another_learning_rate_is_the_configs(saved: Path, tmp_path: Path) -> None:
    optimizer = dict(type="AdamW", lr=0.5, betas=(0.8, 0.9), weight_decay=0.3)
    text = go_on(
        saved,
        tmp_path / "on",
        optim_wrapper=dict(type="OptimWrapper", optimizer=optimizer),
        param_scheduler=SCHEDULES["poly"](8),
    )
    launch.train(
        tiny(
            tmp_path / "whole",
            optim_wrapper=dict(type="OptimWrapper", optimizer=optimizer),
            param_scheduler=SCHEDULES["poly"](8),
            **LONGER,
        )
    )
    expected = rates(tmp_path / "whole")
    assert rates(tmp_path / "on") == {step: expected[step] for step in range(7, 25)}
    assert f"param_scheduler: the config's, as a run with it would be at this step: lr 0 -> {expected[7]:.4g}" in text
    assert "optimizer: weight_decay 0.01 -> 0.3, the config's" in text
    state = torch.load(tmp_path / "on" / "epoch_8.pth", weights_only=True)["optimizer"]
    assert {group["weight_decay"] for group in state["param_groups"]} == {0.3}


def test_without_a_schedule_left_it_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends at iteration 6 with a learning rate of 0, .* is at 6, .* goes on to 24"):
        go_on(saved, tmp_path)


def test_a_schedule_that_follows_metrics_cannot_be_another(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ReduceOnPlateau"):
        go_on(saved, tmp_path, param_scheduler=[dict(type="ReduceOnPlateauLR", monitor="loss")])


def test_one_that_follows_metrics_goes_on_in_a_longer_training(tmp_path: Path) -> None:
    """Its end is that of the training where the config has none; what it has seen stays."""
    schedule = [dict(type="ReduceOnPlateauLR", monitor="loss", patience=0, factor=0.5)]
    launch.train(tiny(tmp_path, param_scheduler=schedule, train_cfg=dict(by_epoch=True, max_epochs=2)))
    before = torch.load(tmp_path / "epoch_2.pth", weights_only=False)["param_schedulers"]
    launch.train(tiny(tmp_path, param_scheduler=schedule, log_level="INFO", **LONGER), resume="auto")
    assert "param_scheduler: as it was saved, and to the end that the config gives it" in said(tmp_path)
    [after] = torch.load(tmp_path / "epoch_8.pth", weights_only=False)["param_schedulers"]
    assert (before[0]["end"], after["end"]) == (2, 8) and after["_global_step"] == before[0]["_global_step"] + 6


def test_no_schedule_any_more_is_said(saved: Path, tmp_path: Path) -> None:
    text = go_on(saved, tmp_path, param_scheduler=None)
    assert "param_scheduler: 1 in the checkpoint, none in the config" in text
    assert set(rates(tmp_path).values()) == {0.01}


def test_nothing_left_to_train_is_said(saved: Path, tmp_path: Path) -> None:
    text = go_on(saved, tmp_path, train_cfg=dict(by_epoch=True, max_epochs=2))
    assert "nothing is left to train: train_cfg ends at max_epochs=2" in text and not rates(tmp_path)


def test_stepping_joins_epochs_and_iterations() -> None:
    class Counting:
        def __init__(self, by_epoch: bool) -> None:
            self.by_epoch, self.at = by_epoch, []  # type: ignore[var-annotated]

        def step(self) -> None:
            self.at.append(len(iterations.at))

    iterations, epochs = Counting(False), Counting(True)
    resume.step_schedulers([iterations, epochs], 7, 3)
    assert len(iterations.at) == 7 and epochs.at == [3, 5, 7]
    iterations, epochs = Counting(False), Counting(True)
    resume.step_schedulers([iterations, epochs], 7, 2, length=3)  # in the third epoch
    assert len(iterations.at) == 7 and epochs.at == [3, 6]


# --- What differs -----------------------------------------------------------------------------------------------------


def test_another_batch_size_is_said_and_epochs_stay_epochs(saved: Path, tmp_path: Path) -> None:
    loader = copy.deepcopy(tiny(tmp_path).train_dataloader) | dict(batch_size=2)
    text = go_on(saved, tmp_path, train_dataloader=loader, param_scheduler=SCHEDULES["converted"](8))
    assert "images in a step: 4 (4 on each of 1 processes) -> 2 (2 on each of 1 processes). The learning rate" in text
    assert "iterations of an epoch: 3 -> 6. It goes on after epoch 2" in text and "6 -> 12" in text
    launch.train(tiny(tmp_path / "whole", train_dataloader=loader, param_scheduler=SCHEDULES["converted"](8), **LONGER))
    expected = rates(tmp_path / "whole")
    assert rates(tmp_path) == {step: expected[step] for step in range(13, 49)}


@pytest.mark.parametrize(
    ("before", "epoch", "iteration", "after", "at", "where"),
    [
        (8, 2, 21, 4, 10, "in epoch 3, after 2 of them"),  # 5 of 8: the images of the fifth come again
        (4, 2, 10, 8, 20, "in epoch 3, after 4 of them"),
        (8, 2, 17, 4, 8, "after epoch 2"),
        (8, 1, 16, 4, 8, "in epoch 2, after 4 of them"),  # saved at its last iteration
    ],
)
def test_an_interrupted_epoch_of_another_length(before, epoch, iteration, after, at, where):
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    runner = SimpleNamespace(cfg=Config(), auto_scale_lr=None, train_loop=loop, train_dataloader=range(after))
    meta = dict(epoch=epoch, iter=iteration, epoch_length=before)
    (told,) = resume._settle_batches(runner, meta, {})
    assert meta["iter"] == at and where in told and f"{iteration} -> {at}" in told


@pytest.mark.parametrize("loop", [dict(by_epoch=False), dict(type="eyetoy_mm.ExactIterBasedTrainLoop")])
def test_iterations_that_go_on_as_epochs(loop):
    """A training by iterations saves all of them as of epoch 0, from which another would begin anew."""
    epochs = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    runner = SimpleNamespace(cfg=Config(), auto_scale_lr=None, train_loop=epochs, train_dataloader=range(4))
    meta = dict(epoch=0, iter=10)
    (told,) = resume._settle_batches(runner, meta, dict(train_cfg=loop))
    assert meta == dict(epoch=2, iter=10) and "iteration 10 is in epoch 3" in told
    assert not list(resume._settle_batches(runner, meta, dict(train_cfg=dict(by_epoch=True))))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(meta=dict(epoch=2, iter="8")), r"meta\['iter'\]='8'"),
        (dict(meta=dict(epoch=-1, iter=8)), r"meta\['epoch'\]=-1"),
        (dict(optimizer=[]), "optimizer, as no training saves it"),
    ],
)
def test_a_training_state_that_is_none(changed, message):
    checkpoint = dict(optimizer={}, message_hub={}, meta=dict(epoch=2, iter=8))
    resume._check_complete(checkpoint, "a.pth")
    with pytest.raises(UserError, match=message):
        resume._check_complete(checkpoint | changed, "a.pth")


def test_seed_averages_precision_and_settings_are_said(saved: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(saved / "epoch_2.pth", weights_only=False)
    checkpoint["optimizer"]["loss_scaler"] = {"scale": 1.0}  # as AmpOptimWrapper saves it
    torch.save(checkpoint, tmp_path / "epoch_2.pth")
    text = go_on(
        tmp_path,
        tmp_path / "on",
        randomness=dict(seed=5),
        custom_hooks=[dict(type="EMAHook")],
        param_scheduler=SCHEDULES["poly"](8),
        optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.01, betas=(0.8, 0.9))),
    )
    assert "seed: 3 in the checkpoint, 5 in the config; the checkpoint's is kept" in text
    assert "averaged weights (EMAHook): off -> on" in text
    assert "mixed precision: on -> off" in text
    assert "optim_wrapper.clip_grad {'max_norm': 1.0} -> None" in text
    assert "train_cfg.max_epochs 2 -> 8" in text


def test_another_number_of_processes_is_said(saved: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(saved / "epoch_2.pth", weights_only=False)
    assert checkpoint["meta"]["world_size"] == 1
    checkpoint["meta"]["world_size"] = 4
    torch.save(checkpoint, tmp_path / "epoch_2.pth")
    text = go_on(tmp_path, tmp_path / "on", param_scheduler=SCHEDULES["poly"](8))
    assert "images in a step: 16 (4 on each of 4 processes) -> 4 (4 on each of 1 processes)" in text


def test_other_classes_are_refused(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = compat_tiny_runner.DATASETS.get("CompatTinyDataset")
    monkeypatch.setattr(dataset, "metainfo", {"classes": ("a", "c", "d")})
    with pytest.raises(
        UserError, match="for 2 classes, and the training data have 3: label 1 is 'b' there and 'c' here"
    ):
        go_on(saved, tmp_path)


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        (dict(optimizer=dict(type="SGD", lr=0.1)), "state of the optimizer AdamW, which SGD of the config"),
        (
            dict(optimizer=dict(type="AdamW", lr=0.01, weight_decay=0.01), paramwise_cfg=dict(norm_decay_mult=0)),
            "parameters in 1 groups of the optimizer, and the config makes 4 others",
        ),
        (
            dict(optimizer=dict(type="AdamW", lr=0.01, betas=(0.8, 0.9), amsgrad=True)),
            "AdamW of the config needs 'max_exp_avg_sq' of each parameter, which the saved state has not",
        ),
    ],
)
def test_another_optimizer_is_refused(wrapper: dict, message: str, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        go_on(saved, tmp_path, optim_wrapper=dict(type="OptimWrapper", **wrapper))


def test_what_later_releases_of_torch_add_to_an_optimizer_is_no_difference(saved: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(saved / "epoch_2.pth", weights_only=False)
    for group in checkpoint["optimizer"]["param_groups"]:
        del group["fused"]
    torch.save(checkpoint, tmp_path / "epoch_2.pth")
    text = go_on(tmp_path, tmp_path / "on", param_scheduler=SCHEDULES["poly"](8))
    assert "optimizer: " not in text and "param_scheduler: " in text


def test_another_model_is_refused(saved: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(saved / "epoch_2.pth", weights_only=False)
    checkpoint["state_dict"]["linear.weight"] = torch.zeros(2, 4)
    torch.save(checkpoint, tmp_path / "epoch_2.pth")
    with pytest.raises(UserError, match=r"does not fit the model of this config: 1 of another shape \(linear.weight"):
        go_on(tmp_path, tmp_path)


def test_weights_alone_cannot_go_on(saved: Path, tmp_path: Path) -> None:
    state = torch.load(saved / "epoch_2.pth", weights_only=False)["state_dict"]
    torch.save(state, tmp_path / "epoch_2.pth")
    with pytest.raises(UserError, match=r"has no optimizer, message_hub, meta\['epoch'\], .* set load_from = '"):
        go_on(tmp_path, tmp_path)


@pytest.mark.parametrize("broken", [True, False])
def test_averages_of_gradients(broken: bool, saved: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(saved / "epoch_2.pth", weights_only=False)
    if broken:
        checkpoint["optimizer"]["state"][1]["exp_avg"].fill_(torch.nan)
    else:
        checkpoint["optimizer"]["state"] = {}
    torch.save(checkpoint, tmp_path / "changed.pth")
    config = tiny(tmp_path, **{"param_scheduler": SCHEDULES["poly"](4), "log_level": "INFO", **LONGER})
    if broken:
        with pytest.raises(UserError, match=r"averages of gradients are NaN or infinite, of 1 of \d+ parameters"):
            launch.train(config, resume=str(tmp_path / "changed.pth"))
    else:
        launch.train(config, resume=str(tmp_path / "changed.pth"))
        assert "optimizer: the checkpoint has no averages of gradients, which begin anew" in said(tmp_path)


def test_configs_in_checkpoints_are_read_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    text = f"import os\na = dict(b=[1, (2.5, 'x')], c=-1, d=dict())\ne = os.system('touch {marker}')\n"
    assert resume.read_config(text) == {
        "a": {"b": [1, [2.5, "x"]], "c": -1, "d": {}},
        "e": f"os.system('touch {marker}')",
    }
    assert not marker.exists()
    config = Config(dict(model=dict(type="A", size=(1, 2)), rate=float("inf"), keys={0: "x"}))
    assert resume.read_config(config.pretty_text)["model"] == {"type": "A", "size": [1, 2]}


# --- Where a run starts -----------------------------------------------------------------------------------------------


def test_a_first_start_that_shall_go_on_takes_its_weights(saved: Path, tmp_path: Path) -> None:
    weights = torch.load(saved / "epoch_2.pth", weights_only=False)["state_dict"]
    frozen = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=1e-30))
    config = tiny(tmp_path, load_from=str(saved / "epoch_2.pth"), optim_wrapper=frozen, log_level="INFO")
    config.param_scheduler, config.train_cfg.max_epochs = None, 1
    launch.train(config, resume="auto")
    found = torch.load(tmp_path / "epoch_1.pth", weights_only=False)["state_dict"]
    assert torch.equal(found["linear.weight"], weights["linear.weight"])
    assert f"nothing to resume in {tmp_path}: this is its first start, from the weights of {saved}" in said(tmp_path)
    assert "loaded 6 of 6 tensors from" in said(tmp_path)


@pytest.mark.parametrize("key", ["resume=True", "--resume"])
def test_the_second_start_goes_on(key: str, saved: Path) -> None:
    config = Config(dict(work_dir=str(saved), resume=key == "resume=True", load_from=None))
    assert resume.choose_start(config, "auto" if key == "--resume" else None) == f"resume from {saved / 'epoch_2.pth'}"
    assert config.resume and config.load_from == str(saved / "epoch_2.pth")


def test_a_last_checkpoint_that_is_not_there(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "last_checkpoint").write_text("epoch_2.pth")
    config = Config(dict(work_dir=str(tmp_path), load_from="weights.pth"))
    with pytest.raises(UserError, match=r"names epoch_2.pth, and neither that nor another checkpoint there is whole"):
        resume.choose_start(config, "auto")
    shutil.copy(saved / "epoch_1.pth", tmp_path)
    message = f"resume from {tmp_path / 'epoch_1.pth'}, for epoch_2.pth, the last to be saved, is not there or broken"
    assert resume.choose_start(config, "auto") == message and config.load_from == str(tmp_path / "epoch_1.pth")


def test_mmengine_alone_forgets_the_longer_schedule(saved: Path, tmp_path: Path) -> None:
    """If this fails, mmengine has mended it, and :mod:`eyetoy_mm.engine.resume` can be simpler."""
    config = tiny(tmp_path, param_scheduler=SCHEDULES["poly"](8), **LONGER)
    config.resume, config.load_from = True, str(saved / "epoch_2.pth")
    logging.disable(logging.WARNING)
    try:
        Runner.from_cfg(config).train()
    finally:
        logging.disable(logging.NOTSET)
    assert set(rates(tmp_path).values()) == {0}


def start_under_torchrun(work_dir: Path, monkeypatch, restarts: int, run: str = "a run") -> str | None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", run)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restarts))
    return resume.saved_before_restart(str(work_dir))


def test_torchruns_restart_goes_on_from_what_this_run_saved(tmp_path, monkeypatch):
    def save(step: int, when: float) -> str:
        path = tmp_path / f"iter_{step}.pth"
        torch.save(dict(meta=dict(iter=step, epoch=0)), path)
        os.utime(path, (when, when))
        return str(path)

    save(900, 1e9)  # of an earlier run in this folder, which nobody asked to resume
    assert start_under_torchrun(tmp_path, monkeypatch, restarts=0) is None
    os.utime(tmp_path / resume.FIRST_START, (1.1e9, 1.1e9))
    assert start_under_torchrun(tmp_path, monkeypatch, restarts=1) is None, "it had saved nothing"
    saved = save(20, 1.2e9)
    assert start_under_torchrun(tmp_path, monkeypatch, restarts=2) == saved
    config = Config(dict(work_dir=str(tmp_path)))
    assert resume.choose_start(config, saved) == f"resume from {saved}" and config.resume
    assert start_under_torchrun(tmp_path, monkeypatch, restarts=1, run="another") is None, "its first died before"
    assert start_under_torchrun(tmp_path, monkeypatch, restarts=2, run="another") is None


def test_without_torchrun_nothing_is_marked(tmp_path):
    assert resume.saved_before_restart(str(tmp_path)) is None and not list(tmp_path.iterdir())
