"""The note from which mmengine resumes may name any file: only this run's own are taken."""

from pathlib import Path

import pytest

pytest.importorskip("mmengine")

from mmengine.config import Config

from eyetoy_mm.engine.checkpoint import check_last_checkpoint
from eyetoy_mm.errors import UserError


def config(work_dir: Path, **settings) -> Config:
    return Config(dict(work_dir=str(work_dir), **{"resume": True, **settings}))


def note(folder: Path, named: object) -> Path:
    work_dir = folder / "run"
    work_dir.mkdir()
    (work_dir / "last_checkpoint").write_text(f"{named}\n")
    return work_dir


def test_this_runs_own(tmp_path: Path) -> None:
    work_dir = note(tmp_path, tmp_path / "run/iter_8.pth")
    (work_dir / "iter_8.pth").touch()
    check_last_checkpoint(config(work_dir))
    (work_dir / "last_checkpoint").write_text("iter_8.pth")
    check_last_checkpoint(config(work_dir))
    (tmp_path / "link").symlink_to(work_dir)
    check_last_checkpoint(config(tmp_path / "link"))


@pytest.mark.parametrize("named", ["{}/other.pth", "{}/run/../other.pth", "/etc/passwd", "../other.pth"])
def test_anything_else_is_named_and_refused(named: str, tmp_path: Path) -> None:
    (tmp_path / "other.pth").touch()
    named = named.format(tmp_path)
    work_dir = note(tmp_path, named)
    with pytest.raises(UserError, match=r"last_checkpoint says to resume from .*not in .*run.*--resume"):
        check_last_checkpoint(config(work_dir))
    check_last_checkpoint(config(work_dir, load_from=str(tmp_path / "other.pth")))  # asked for by name
    check_last_checkpoint(config(work_dir, resume=False))


def test_where_the_checkpoint_hook_writes(tmp_path: Path) -> None:
    work_dir = note(tmp_path, tmp_path / "big_disk/run/iter_8.pth")
    (tmp_path / "big_disk/run").mkdir(parents=True)
    (tmp_path / "big_disk/run/iter_8.pth").touch()
    hooks = dict(checkpoint=dict(type="CheckpointHook", out_dir=str(tmp_path / "big_disk")))
    check_last_checkpoint(config(work_dir, default_hooks=hooks))


@pytest.mark.parametrize("text", ["", "/nowhere/gone.pth", "http://localhost/a.pth", "\0"])
def test_what_is_not_there_is_not_resumed_from(text: str, tmp_path: Path) -> None:
    """A folder that was moved: the search for the newest whole checkpoint passes over the name."""
    check_last_checkpoint(config(note(tmp_path, text)))


def test_training_asks_before_it_starts(tmp_path: Path) -> None:
    from eyetoy_mm.engine.launch import train

    work_dir = note(tmp_path, "/etc/passwd")
    with pytest.raises(UserError, match="says to resume from /etc/passwd"):
        train(config(work_dir, resume=False), resume="auto")
