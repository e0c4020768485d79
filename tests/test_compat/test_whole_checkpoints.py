"""Checkpoints that are whole or not there: written beside their place, and removed after the next one is saved."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import eyetoy_mm  # noqa: F401
from eyetoy_mm.compat.whole_checkpoints import newest_whole

pytest.importorskip("mmengine")

from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner, find_latest_checkpoint
from mmengine.visualization import LocalVisBackend

from tests.test_compat import compat_tiny_runner


def save(path: Path, iteration: int) -> Path:
    torch.save(dict(meta=dict(iter=iteration, epoch=0), state_dict=dict(x=torch.randn(999))), path)
    return path


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "cut off":
        path.write_bytes(content[: len(content) // 2])
    elif how == "one byte":
        middle = len(content) // 2  # in the weights
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif how == "zeros":  # what some file systems leave of a file after a power cut
        path.write_bytes(bytes(len(content)))


@pytest.mark.parametrize("how", ["empty", "cut off", "one byte", "zeros"])
def test_the_newest_whole_one_is_found(how, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("mmengine.logging.print_log", lambda message, *_: said.append(message))
    for step in (4, 12, 8):  # the order of writing is not that of training, as in a copy
        save(tmp_path / f"iter_{step}.pth", step)
    (tmp_path / "last_checkpoint").write_text("iter_12.pth")
    save(tmp_path / "best_mIoU_iter_16.pth", 16)  # without optimizer
    assert newest_whole(tmp_path) == str(tmp_path / "iter_12.pth") and not said
    damage(tmp_path / "iter_12.pth", how)
    assert newest_whole(tmp_path) == str(tmp_path / "iter_8.pth")
    assert "iter_12.pth (" in said[0] and f"Going on from {tmp_path}/iter_8.pth" in said[0]
    for step in (4, 8):
        damage(tmp_path / f"iter_{step}.pth", how)
    assert newest_whole(tmp_path) is None and "None of the checkpoints is whole" in said[1]


def test_epochs_and_iterations_are_compared_by_what_is_in_them(tmp_path):
    save(tmp_path / "epoch_3.pth", 300)
    save(tmp_path / "iter_250.pth", 250)
    assert newest_whole(tmp_path) == str(tmp_path / "epoch_3.pth")
    save(tmp_path / "iter_310.pth", 310)
    assert newest_whole(tmp_path) == str(tmp_path / "iter_310.pth")
    assert newest_whole(tmp_path / "none") is None


def build(work_dir: Path) -> Runner:
    runner = compat_tiny_runner.build(str(work_dir), str(work_dir))
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    hook.max_keep_ckpts = 1
    return runner


@pytest.mark.parametrize("kind", ["interval", "best"])
def test_the_old_one_goes_after_the_new_one_is_there(kind, tmp_path, monkeypatch):
    """At each write there is a whole checkpoint, from the second on: whatever moment a kill chooses."""
    runner = build(tmp_path / "run")
    put, seen = LocalBackend.put, []

    def watched(self, content, path):
        work_dir = tmp_path / "run"
        seen.append([p.name for p in work_dir.glob("best*.pth" if kind == "best" else "[ei]*.pth")])
        put(self, content, path)

    monkeypatch.setattr(LocalBackend, "put", watched)
    runner.train()
    first = next(i for i, names in enumerate(seen) if names)
    assert all(seen[first:]) and len(seen) > first + 1
    assert len(list((tmp_path / "run").glob("best*.pth"))) == 1


def test_a_moved_folder_goes_on(tmp_path):
    build(tmp_path / "run").train()
    name = (tmp_path / "run/last_checkpoint").read_text()
    assert "/" not in name and (tmp_path / "run" / name).is_file()
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert find_latest_checkpoint(str(tmp_path / "moved")) == str(tmp_path / "moved" / name)


def test_checkpoints_elsewhere_are_found_through_a_link_to_the_work_dir(tmp_path):
    """Work dirs and checkpoints on other disks, the first behind a link that leads deeper than it is."""
    (tmp_path / "disk/deep/runs").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "disk/deep/runs")
    runner = build(tmp_path / "runs/run")
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    hook.out_dir = str(tmp_path / "checkpoints")
    (tmp_path / "checkpoints/run").mkdir(parents=True)
    (tmp_path / "checkpoints/run/.iter_1.pth.77.part").touch()
    runner.train()
    assert not list((tmp_path / "checkpoints/run").glob("*.part"))
    found = find_latest_checkpoint(str(tmp_path / "runs/run"))
    (saved,) = (tmp_path / "checkpoints/run").glob("[ei]*.pth")
    assert found is not None and Path(found).samefile(saved)

    earlier = save(saved.with_name("iter_1.pth"), 1)
    damage(saved, "cut off")
    found = find_latest_checkpoint(str(tmp_path / "runs/run"))
    assert found is not None and Path(found).samefile(earlier)


@pytest.mark.parametrize("moved", [True, False])
def test_the_best_of_another_folder_is_left_alone(moved, tmp_path):
    """A run that goes on in a moved folder replaces its best there; one elsewhere does not touch the first one's."""
    run = str(tmp_path / "run")
    compat_tiny_runner.build(run, run, train_cfg=dict(by_epoch=True, max_epochs=2)).train()
    (best,) = (tmp_path / "run").glob("best*.pth")
    last = tmp_path / "run" / (tmp_path / "run/last_checkpoint").read_text()
    here = tmp_path / "here"
    if moved:
        shutil.copytree(tmp_path / "run", here)
        last = here / last.name
    compat_tiny_runner.build(str(here), str(here), resume=True, load_from=str(last)).train()
    assert best.is_file()
    assert [path.name for path in here.glob("best*.pth")] == ["best_score_epoch_4.pth"]


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_full_disk(goes_on, tmp_path, monkeypatch):
    runner = build(tmp_path / "run")
    runner.cfg.on_save_error = "go_on" if goes_on else "stop"
    put, writes = Path.write_bytes, []

    def full_from_the_second(self, content):
        writes.append(self)
        if len(writes) == 1:
            return put(self, content)
        put(self, content[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full_from_the_second)
    if goes_on:
        runner.train()
    else:
        with pytest.raises(OSError, match="No space left"):
            runner.train()
    monkeypatch.undo()
    assert newest_whole(tmp_path / "run") is not None
    assert not list((tmp_path / "run").glob(".*.part"))


@pytest.mark.parametrize("goes_on", [False, True])
def test_numbers_that_cannot_be_logged(goes_on, tmp_path, monkeypatch):
    from mmengine.visualization import LocalVisBackend

    runner = compat_tiny_runner.build(
        str(tmp_path / "run"), str(tmp_path), default_hooks=dict(logger=dict(type="LoggerHook", interval=1))
    )
    runner.visualizer.add_scalars({"x": 1})  # makes its folder
    runner.cfg.on_save_error = "go_on" if goes_on else "stop"
    calls = []

    def full(self, *args, **kwargs):
        calls.append(args)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "scalars.json")

    monkeypatch.setattr(LocalVisBackend, "add_scalars", full)
    if goes_on:
        runner.train()
        assert len(calls) == 12 + 4  # steps and evaluations
    else:
        with pytest.raises(OSError, match="No space left"):
            runner.train()


def test_a_folder_of_logs_that_is_taken_away_ends_no_run(tmp_path):
    backend = LocalVisBackend(str(tmp_path / "run/vis_data"))
    backend.add_scalars(dict(loss=2.0), step=1)
    shutil.rmtree(tmp_path / "run")
    for step in (2, 3):
        backend.add_scalars(dict(loss=1.0), step=step)
    lines = (tmp_path / "run/vis_data/scalars.json").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 3]
