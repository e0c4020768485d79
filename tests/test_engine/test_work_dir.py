"""One run at a time in a work dir, and runs that are told to stop."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("mmengine")

from eyetoy_mm.engine.work_dir import explained_disk_errors, occupied
from eyetoy_mm.errors import UserError
from tests import program

DEMO = "configs/sample/upernet_eyetoy-demo_sample.py"


@pytest.fixture
def other_run(tmp_path):
    """A process that has the work dir, until it is killed."""
    told, tell = os.pipe()
    process = os.fork()
    if not process:
        with occupied(tmp_path):
            os.write(tell, b"x")
            time.sleep(600)
    os.read(told, 1)
    yield process
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def test_a_second_run_is_refused_by_name(other_run, tmp_path):
    with (
        pytest.raises(UserError, match=rf"another run is using .*process {other_run} on .*--force"),
        occupied(tmp_path),
    ):
        pytest.fail("both run")
    with occupied(tmp_path, force=True):
        pass


def test_a_killed_run_leaves_no_lock(tmp_path):
    process = os.fork()
    if not process:
        with occupied(tmp_path):
            (tmp_path / ".iter_4.pth.77.part").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    with occupied(tmp_path):
        assert not list(tmp_path.glob("*.part"))


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    told = []
    monkeypatch.setattr("fcntl.lockf", refuse)
    monkeypatch.setattr("eyetoy_mm.engine.work_dir.print_log", lambda text, *args: told.append(text))
    with occupied(tmp_path):
        assert told == [f"{tmp_path} cannot be locked (No locks available): a second run in it would not be noticed"]


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    message = "cannot write to the work dir .*exists.*--work-dir"
    with pytest.raises(UserError, match=message), occupied(tmp_path / "file"):
        pass


def test_a_disk_without_room_for_the_name_of_the_run(tmp_path):
    """Files can be made, and take nothing in: a limit of the process does that as a full disk does."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot write to the work dir .*too large.*--work-dir"), occupied(tmp_path):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with occupied(tmp_path):  # it is not locked
        assert f"process {os.getpid()} on " in (tmp_path / ".lock").read_text()


def test_disk_errors_say_where_to_go_on(tmp_path):
    message = "cannot write x: No space left on device. No checkpoint was saved.*--resume"
    with pytest.raises(UserError, match=message), explained_disk_errors(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")
    with pytest.raises(FileNotFoundError), explained_disk_errors(tmp_path):
        (tmp_path / "none").read_text()


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for workers in /proc")
def test_a_run_that_is_told_to_stop_saves_and_goes_on(tmp_path):
    """The signal goes to the workers, too, and first, as launchers send it to whole groups."""
    pytest.importorskip("mmseg", reason="mmsegmentation is not installed")
    options = [
        "train_dataloader.dataset.pipeline.3.crop_size=(64,64)", "model.data_preprocessor.size=(64,64)",
        "train_dataloader.batch_size=2", "train_dataloader.num_workers=2", "val_dataloader.dataset.indices=1",
        "val_dataloader.num_workers=0", "val_dataloader.persistent_workers=False", "default_hooks.logger.interval=1",
        "custom_hooks=[]",
    ]  # fmt: skip
    arguments = ["tools/train.py", DEMO, "--work-dir", tmp_path, "--cfg-options", *options]
    started = program.start(*arguments)
    while "Iter(train)" not in (started.stdout.read_text() if started.stdout.exists() else ""):
        assert started.process.is_alive(), started.stderr.read_text()
        time.sleep(0.05)
    main = started.process.pid
    workers = children(main)
    assert len(workers) >= 2
    for process in (*workers, main):
        os.kill(process, signal.SIGTERM)
    started.process.join(100)
    assert started.process.exitcode == 85, started.stderr.read_text()
    said = started.stdout.read_text()
    assert "SIGTERM: saving at iteration" in said and "--resume" in said
    assert (tmp_path / "results.png").is_file()  # of a run that is told to stop, too
    (checkpoint,) = tmp_path.glob("iter_*.pth")
    step = int(checkpoint.stem[5:])

    done = program.run(*arguments[:4], "--resume", *arguments[4:], f"train_cfg.max_iters={step + 1}")
    assert done.returncode == 0, done.stderr
    assert f"resumed epoch: 0, iter: {step}" in done.stdout
    assert (tmp_path / f"iter_{step + 1}.pth").is_file()
