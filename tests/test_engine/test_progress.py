"""Throughput, ETA and memory in the log of every run, and programs that show logs."""

import importlib.util
import json
import logging
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import eyetoy_mm  # noqa: F401

pytest.importorskip("mmengine")

from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer
from mmengine.visualization.vis_backend import BaseVisBackend

from eyetoy_mm.cli import main
from eyetoy_mm.engine.hooks import ProgressHook, ResultsPictureHook
from eyetoy_mm.engine.hooks.progress import images_in
from eyetoy_mm.engine.runner import CheckedRunner
from eyetoy_mm.engine.tracking import MLflowBackend, add_trackers
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import package_file

STEP, EVALUATION, COUNT = 2.0, 30.0, 12  # seconds by the clock of the test; samples


class Data(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=torch.ones(4), data_samples=BaseDataElement())


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, inputs, data_samples=None, mode="tensor"):
        out = self.layer(torch.stack(inputs))
        return dict(loss=out.square().mean()) if mode == "loss" else data_samples


class Nothing(BaseMetric):
    def process(self, data_batch, data_samples) -> None:
        self.results.append(0)

    def compute_metrics(self, results) -> dict:
        return dict(score=0.5)


class Clock(Hook):
    """Time passes in iterations and evaluations alone; keeps what is told at each iteration."""

    priority = "VERY_HIGH"

    def __init__(self, end: int | None) -> None:
        self.end, self.now, self.eta = end, 100.0, {}

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.eta[runner.iter] = (self.now, runner.message_hub.get_info("eta"))
        if runner.iter == self.end:
            raise KeyboardInterrupt
        self.now += STEP

    def before_val_epoch(self, runner) -> None:
        self.now += EVALUATION

    def after_run(self, runner) -> None:
        self.eta["end"] = (self.now, 0.0)


def run(
    work_dir: Path, monkeypatch, end: int | None = None, by_epoch: bool = False, picture: bool = False, **settings
) -> Clock:
    loader = dict(dataset=Data(), batch_size=3, num_workers=0, collate_fn=dict(type="pseudo_collate"))
    loop = dict(max_epochs=5, val_interval=2) if by_epoch else dict(max_iters=20, val_interval=8)
    infinite = dict(type="DefaultSampler" if by_epoch else "InfiniteSampler", shuffle=True)
    clock = Clock(end)
    monkeypatch.setattr(ProgressHook, "_now", lambda self: clock.now)
    runner = Runner(
        model=Model(),
        work_dir=str(work_dir),
        train_dataloader=dict(loader, sampler=infinite),
        train_cfg=dict(loop, type=f"eyetoy_mm.Exact{'Epoch' if by_epoch else 'Iter'}BasedTrainLoop"),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        val_dataloader=dict(loader, sampler=dict(type="DefaultSampler", shuffle=False)),
        val_cfg=dict(),
        val_evaluator=[Nothing()],
        default_hooks=dict(
            logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=by_epoch),
            checkpoint=dict(type="CheckpointHook", interval=1, by_epoch=False),
        ),
        log_processor=dict(by_epoch=by_epoch),
        experiment_name=f"{work_dir}-{end}-{settings}",
        log_level="ERROR",
        **settings,
    )
    for hook in (clock, ProgressHook(), *([ResultsPictureHook()] if picture else [])):
        runner.register_hook(hook)
    try:
        runner.train()
    except KeyboardInterrupt:
        runner.visualizer.close()
    return clock


@pytest.mark.parametrize("by_epoch", [False, True])
def test_eta_counts_evaluations_and_is_right_after_a_resume(by_epoch, tmp_path, monkeypatch):
    """By a clock of which each second is known; from the first evaluation of a start on, the ETA is exact."""
    first = run(tmp_path, monkeypatch, end=13, by_epoch=by_epoch)
    assert 13 in first.eta and "end" not in first.eta
    again = run(tmp_path, monkeypatch, by_epoch=by_epoch, resume=True)
    total, _ = again.eta.pop("end")
    assert min(again.eta) == 13
    told = {iteration: now + eta for iteration, (now, eta) in again.eta.items() if iteration > 16}
    assert len(told) == 3 and all(ends == pytest.approx(total) for ends in told.values())
    _, eta = again.eta[15]  # no evaluation yet in this start: training alone
    assert eta == pytest.approx(STEP * 5)


def test_throughput_and_memory_are_logged(tmp_path, monkeypatch):
    run(tmp_path, monkeypatch, picture=True)
    (log,) = tmp_path.glob("*/vis_data/scalars.json")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    train = [record for record in records if "loss" in record]
    assert [record["images_per_s"] for record in train] == [3 / STEP] * 20  # evaluations apart
    assert all(10 < record["host_memory"] < 1e6 for record in train)
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_images_of_a_batch():
    sample = BaseDataElement()
    assert images_in(dict(inputs=torch.ones(4, 3, 2, 2), data_samples=[sample] * 4)) == 4
    assert images_in(dict(inputs=[torch.ones(3)] * 2)) == images_in(dict(inputs=torch.ones(2, 3))) == 2
    assert images_in(dict(inputs=dict(a=1), data_samples=dict(sup=[sample], unsup=[sample, sample]))) == 3
    assert images_in(None) == 0


@pytest.mark.parametrize("world_size", [4])
def test_throughput_is_of_all_processes(world_size, monkeypatch):
    monkeypatch.setattr("mmengine.dist.get_world_size", lambda: world_size)
    scalars = {}
    hub = SimpleNamespace(update_scalar=scalars.__setitem__, update_info=scalars.__setitem__)
    runner = SimpleNamespace(message_hub=hub, iter=0, max_iters=10, val_loop=None, train_loop=None)
    hook, times = ProgressHook(), iter([0.0, 100.0, 101.0, 102.0, 103.0, 104.0, 106.0, 108.0])
    monkeypatch.setattr(ProgressHook, "_now", lambda self: next(times))
    hook.before_train(runner)
    for _ in range(7):
        hook.after_train_iter(runner, 0, dict(inputs=[1, 2]))
    assert scalars["train/images_per_s"] == 2 * world_size / 2.0  # the first five are warming up
    assert scalars["eta"] == 9 * 2.0


def test_a_picture_that_fails_ends_no_run(tmp_path, monkeypatch):
    warnings = []
    logger = SimpleNamespace(warning=warnings.append, info=pytest.fail)
    ResultsPictureHook().after_train(SimpleNamespace(work_dir=str(tmp_path), logger=logger))
    assert "were not drawn" in warnings[0] and "there are no logs of a run" in warnings[0]
    assert list(tmp_path.iterdir()) == []


def test_a_picture_leaves_no_state(tmp_path, monkeypatch):
    import matplotlib

    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    settings = matplotlib.rcParams.copy()  # reading one by one would choose a back end
    folder = tmp_path / "1/vis_data"
    folder.mkdir(parents=True)
    (folder / "scalars.json").write_text('{"loss": 1.0, "lr": 0.1, "iter": 1, "step": 1}\n')
    ResultsPictureHook().after_train(SimpleNamespace(work_dir=str(tmp_path), logger=SimpleNamespace(info=print)))
    assert (tmp_path / "results.png").is_file()
    assert "matplotlib.pyplot" not in sys.modules and matplotlib.rcParams.copy() == settings


# --- Programs that show logs ----------------------------------------------------------------------------------------


def test_the_switch(monkeypatch):
    monkeypatch.setattr("eyetoy_mm.engine.tracking.find_spec", lambda name: name)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    config = Config(dict(work_dir="runs/a/", track=["tensorboard", "wandb"]))
    add_trackers(config)
    local, board, wandb = config.visualizer.vis_backends
    assert (local.type, board.type) == ("mmengine.LocalVisBackend", "mmengine.TensorboardVisBackend")
    assert wandb.init_kwargs == dict(mode="offline", project="eyetoy", name="a")
    add_trackers(config)  # what a config has already is not there twice
    assert len(config.visualizer.vis_backends) == 3
    toolbox = dict(type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")], name="visualizer")
    config = Config(dict(work_dir="a", track="tensorboard", visualizer=toolbox))
    add_trackers(config)
    assert [b.type for b in config.visualizer.vis_backends] == ["LocalVisBackend", "mmengine.TensorboardVisBackend"]
    plain = Config(dict(work_dir="a"))
    add_trackers(plain)
    assert "visualizer" not in plain


def test_what_cannot_be_tracked(monkeypatch):
    with pytest.raises(UserError, match="track='comet' should name tensorboard, wandb, mlflow"):
        add_trackers(Config(dict(track="comet", work_dir="a")))
    monkeypatch.setattr("eyetoy_mm.engine.tracking.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs the package wandb, which is not installed: pip install wandb"):
        add_trackers(Config(dict(track="wandb", work_dir="a")))


def test_the_switch_on_the_command_line(monkeypatch, tmp_path):
    pytest.importorskip("mmseg")
    monkeypatch.setattr("eyetoy_mm.engine.tracking.find_spec", lambda name: None)
    config = str(package_file("configs/sample/upernet_eyetoy-demo_sample.py"))
    with pytest.raises(SystemExit, match="error: track='tensorboard' needs the package tensorboard"):
        main(["train", config, "--work-dir", str(tmp_path), "--log", "tensorboard,wandb"])


def tracked(name: str, tmp_path: Path, monkeypatch) -> None:
    """A run that is killed at iteration 13 of 20 and goes on."""
    config = Config(dict(work_dir=str(tmp_path), track=name))
    add_trackers(config)
    monkeypatch.setattr(Visualizer, "_instance_dict", Visualizer._instance_dict.copy())
    for settings in (dict(end=13), dict(resume=True)):
        visualizer = dict(config.visualizer.to_dict(), name=f"{name}-{settings}")
        run(tmp_path, monkeypatch, visualizer=visualizer, **settings)


class Lost(BaseVisBackend):
    """A program whose server is away at some calls."""

    def __init__(self, save_dir: str, away: set[int]) -> None:
        super().__init__(save_dir)
        self.away, self.calls, self.taken = away, 0, []

    def _init_env(self) -> None: ...

    @property
    def experiment(self): ...

    def add_scalars(self, scalar_dict, step=0, file_path=None, **kwargs) -> None:
        self.calls += 1
        if self.calls in self.away:
            raise ConnectionError("no answer")
        self.taken.append(step)

    def close(self) -> None:
        raise ConnectionError("no answer")


def test_a_program_that_fails_ends_no_run(tmp_path, caplog):
    runner = CheckedRunner.__new__(CheckedRunner)
    runner.logger = logging.getLogger("lost")
    backends = [Lost(str(tmp_path), {2, 3}), Lost(str(tmp_path), set(range(2, 9)))]
    visualizer = Visualizer("lost", vis_backends=backends[0], save_dir=str(tmp_path))
    visualizer._vis_backends["again"] = backends[1]
    runner.build_visualizer(visualizer)
    for step in range(1, 7):
        visualizer.add_scalars(dict(loss=1.0), step)
    visualizer.close()
    assert [backend.taken for backend in backends] == [[1, 4, 5, 6], [1]]
    assert backends[1].calls == 4
    assert "Lost failed in add_scalars: ConnectionError: no answer. The run goes on, and Lost lacks that" in caplog.text
    assert caplog.text.count("is given nothing more") == 1 and "failed in close" in caplog.text


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_shows_every_iteration(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracked("tensorboard", tmp_path, monkeypatch)
    points = {}
    for path in sorted(tmp_path.glob("*/vis_data/events.*")):
        events = EventAccumulator(str(path)).Reload()
        assert {"loss", "images_per_s"} <= set(events.Tags()["scalars"])
        points |= {event.step: event.value for event in events.Scalars("loss")}
        if "score" in events.Tags()["scalars"]:
            assert all(event.value == 0.5 for event in events.Scalars("score"))
    assert sorted(points) == list(range(1, 21))


def wandb_records(path: Path) -> list[bytes]:
    """Of a ``.wandb`` file: LevelDB's log format, blocks of 32 KiB with records of a header of 7 bytes each."""
    content, place, records, parts = path.read_bytes(), 7, [], []
    while place + 7 <= len(content):
        if (rest := -place % 32768) < 7:
            place += rest
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(b"".join(parts))
            parts = []
    return records


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_is_offline_and_knows_iterations(tmp_path, monkeypatch):
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.delenv("WANDB_MODE", raising=False)
    tracked("wandb", tmp_path, monkeypatch)
    steps = []
    for path in tmp_path.glob("*/vis_data/wandb/offline-run-*/*.wandb"):
        for data in wandb_records(path):
            record = Record()
            record.ParseFromString(data)
            items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            if "loss" in items:
                steps.append(int(items["step"]))
    assert sorted(steps) == list(range(1, 21))


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed")
def test_mlflow_has_every_iteration_and_the_config(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracked("mlflow", tmp_path, monkeypatch)
    points = []
    for path in tmp_path.glob("*/vis_data/mlflow.db"):
        client = MlflowClient(f"sqlite:///{path}")
        (one,) = client.search_runs([client.get_experiment_by_name("eyetoy").experiment_id])
        assert one.info.run_name == tmp_path.name and one.info.status == "FINISHED"
        points += [(metric.step, metric.value) for metric in client.get_metric_history(one.info.run_id, "loss")]
    assert sorted(step for step, _ in points) == list(range(1, 21))

    backend = MLflowBackend(str(tmp_path / "files"))
    backend.add_config(Config(dict(long="x" * 7000)))
    backend.add_image("painted", np.zeros((8, 9, 3), np.uint8), step=3)
    backend.close()
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.glob("files/mlflow/*/artifacts/**/*.*"))
    assert [file.name for file in files] == ["config.py", "3.png"]
