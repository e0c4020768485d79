"""Trap: a run that is killed while it saves.

What breaks: mmengine writes checkpoints in place, so that a kill or a full disk leaves half a file under the final
name, and removes the one before first: with `max_keep_ckpts=1`, or `save_best`, nothing usable is left.
`last_checkpoint` is written after it in the same way and holds the path as it was given, so that a moved folder cannot
go on; and nothing looks for an older checkpoint that is whole. A run that goes on takes the path of the best checkpoint
from the last one, and removes that of another folder's run; and it does not save again what it went on from when that
turns out to be the best.

What we do: files of the local disk are written beside their place, flushed, and moved there; checkpoints are removed
once the new one is on the disk; `last_checkpoint` names its file relative to its folder; and going on from the latest
one means the newest that is whole, with a line that says which were not. A run that goes on looks for its best
checkpoint in its own folder, and knows that it has saved before.

Delete this file when mmengine does so.
"""

from __future__ import annotations

import copy
import functools
import json
import logging
import os
import re
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from eyetoy_mm.compat._import_hooks import Function, after_import, replace_function, replace_method
from eyetoy_mm.compat.checkpoint_loading import damaged_part, peek
from eyetoy_mm.whole_files import remove_temporaries, write_whole

REST, SIZES = "rest.pth", "sizes.json"
"""Of a checkpoint that is a directory, to which several processes write: what is in no shard; the sizes of files."""

# What a hook knows of what it has saved.
_FILES = ("last_ckpt", "keep_ckpt_ids", "best_ckpt_path", "best_ckpt_path_dict")
_SAVED = re.compile(r"(iter|epoch)_\d+(\.pth)?")


def needed() -> bool:
    """Whether mmengine is installed."""
    return find_spec("mmengine") is not None


def apply() -> None:
    """Wraps what writes, removes and looks for checkpoints, once its files are imported."""
    if needed():
        after_import("mmengine.fileio.backends.local_backend", _write_beside)
        after_import("mmengine.hooks.checkpoint_hook", _save_before_removing)
        after_import("mmengine.hooks.logger_hook", _log_if_possible)
        after_import("mmengine.runner.checkpoint", _look_for_whole_ones)
        after_import("mmengine.visualization.vis_backend", _log_into_folders_that_are_there)


# --- Writing ----------------------------------------------------------------------------------------------------------


def _write_beside(local_backend: ModuleType) -> None:
    def put(self: Any, obj: bytes, filepath: str | Path) -> None:
        write_whole(filepath, obj)

    local_backend.LocalBackend.put = put


# --- Removing ---------------------------------------------------------------------------------------------------------


class _Later:
    """A file backend that removes nothing until it is told to."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.removals: list[Callable[[], None]] = []

    def remove(self, path: str) -> None:
        self.removals.append(functools.partial(self.backend.remove, path))

    def rmtree(self, path: str) -> None:
        self.removals.append(functools.partial(self.backend.rmtree, path))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


def _save_before_removing(checkpoint_hook: ModuleType) -> None:
    hook = checkpoint_hook.CheckpointHook
    replace_method(hook, "_save_checkpoint_with_step", _naming_its_file)
    for name in ("_save_checkpoint_with_step", "_save_best_checkpoint"):
        replace_method(hook, name, _removing_last)
    replace_method(hook, "before_train", _knowing_its_files)


def _knowing_its_files(prepare: Function) -> Function:
    def run(self: Any, runner: Any) -> None:
        prepare(self, runner)
        if runner.rank == 0 and "://" not in self.out_dir:
            remove_temporaries(self.out_dir)  # of a killed run; it need not be the work dir
        if not runner.iter:
            return
        last = _in_its_folder(self, runner.message_hub.get_info("last_ckpt"))
        self.last_ckpt = last if last and self.file_backend.exists(last) else None
        if self.max_keep_ckpts > 0 and self.last_ckpt and not _is_its_own(self, self.last_ckpt):
            self._to_replace = self.last_ckpt
        if hasattr(self, "best_ckpt_path"):
            self.best_ckpt_path = _in_its_folder(self, self.best_ckpt_path)
        if hasattr(self, "best_ckpt_path_dict"):
            self.best_ckpt_path_dict = {key: _in_its_folder(self, x) for key, x in self.best_ckpt_path_dict.items()}

    return run


def _is_its_own(hook: Any, path: str) -> bool:
    """Whether a hook has given a checkpoint its name; one saved when a run was told to stop has another."""
    before, after = map(re.escape, hook.filename_tmpl.split("{}"))
    return re.fullmatch(rf"{before}\d+{after}", Path(path).name) is not None


def _in_its_folder(hook: Any, path: str | None) -> str | None:
    """Where a checkpoint hook has a file that a run had before: its folder may have been moved."""
    return None if path is None else hook.file_backend.join_path(hook.out_dir, Path(path).name)


def _naming_its_file(save: Function) -> Function:
    def run(self: Any, runner: Any, *args: Any, **kwargs: Any) -> None:
        note = Path(runner.work_dir) / "last_checkpoint"
        before = note.read_text() if runner.rank == 0 and note.is_file() else None
        save(self, runner, *args, **kwargs)
        if runner.rank != 0:
            return
        if (replaced := self.__dict__.pop("_to_replace", None)) not in (None, self.last_ckpt):
            _remove(self.file_backend, replaced)
        if "://" in self.last_ckpt:
            return
        if getattr(runner, "saves_in_background", False):  # mmengine has named it, which is too early
            note.unlink() if before is None else write_whole(note, before)
        # Of real places: `..` leads out of where a link points to, and not of the folder that the link is in.
        relative = os.path.relpath(os.path.realpath(self.last_ckpt), os.path.realpath(runner.work_dir))
        _when_saved(runner, functools.partial(write_whole, note, relative))

    return run


def _remove(backend: Any, path: str) -> None:
    if backend.isdir(path):
        backend.rmtree(path)
    elif backend.isfile(path):
        backend.remove(path)


def _when_saved(runner: Any, action: Callable[[], None]) -> None:
    """Do something now, or as soon as the checkpoint is complete that a runner writes in the background."""
    getattr(runner, "when_saved", _at_once)(action)


def _at_once(action: Callable[[], None]) -> None:
    action()


def _removing_last(save: Function) -> Function:
    def run(self: Any, runner: Any, *args: Any, **kwargs: Any) -> None:
        backend, known = self.file_backend, runner.message_hub.runtime_info
        kept, was_known = {name: copy.copy(vars(self)[name]) for name in _FILES if name in vars(self)}, dict(known)
        self.file_backend = later = _Later(backend)
        try:
            save(self, runner, *args, **kwargs)
        except OSError as error:
            if not _goes_on(runner):
                raise
            runner.logger.error(
                f"Not saved: {error}. Going on, as on_save_error='go_on' says; the last good file stays."
            )
            vars(self).update(kept)
            known.clear()
            known.update(was_known)  # the best score that is saved, among others
            return
        finally:
            self.file_backend = backend
        for remove in later.removals:
            _when_saved(runner, remove)

    return run


# --- Logs -------------------------------------------------------------------------------------------------------------


def _goes_on(runner: Any) -> bool:
    return runner.cfg.get("on_save_error", "stop") == "go_on"


def _log_if_possible(logger_hook: ModuleType) -> None:
    for name in ("after_train_iter", "after_val_epoch", "after_test_epoch"):
        replace_method(logger_hook.LoggerHook, name, _going_on)


def _going_on(log: Function) -> Function:
    """Logs of numbers are written by back ends that know no run, and raise; the text log does not."""

    def run(self: Any, runner: Any, *args: Any, **kwargs: Any) -> None:
        try:
            log(self, runner, *args, **kwargs)
        except OSError as error:
            if not _goes_on(runner):
                raise
            if not getattr(self, "_told_of", None):  # once: it comes at every interval
                runner.logger.error(f"Not logged: {error}. Going on, as on_save_error='go_on' says.")
            self._told_of = error

    return run


def _log_into_folders_that_are_there(vis_backend: ModuleType) -> None:
    replace_method(vis_backend.LocalVisBackend, "_dump", _making_its_folder)


def _making_its_folder(dump: Function) -> Function:
    """A folder of logs that somebody has taken away ends no run: it is made again, and what was in it is lost."""

    def run(self: Any, value_dict: dict, file_path: str, file_format: str) -> None:
        folder = os.path.dirname(file_path)
        if folder and not os.path.lexists(folder):
            from mmengine.logging import print_log

            os.makedirs(folder, exist_ok=True)
            message = f"{folder} is gone, with the logs of this run: it is made again, and goes on from here"
            print_log(message, "current", logging.WARNING)
        dump(self, value_dict, file_path, file_format)

    return run


# --- Looking for one --------------------------------------------------------------------------------------------------


def newest_whole(folder: str | Path, since: float = 0) -> str | None:
    """The checkpoint from which a run in this folder goes on.

    Args:
        folder: A work dir. Its own checkpoints are looked at, and the one that its `last_checkpoint` names, with those
            beside it where that is in another folder, an `out_dir`.
        since: Those written before, in seconds since the epoch, are left out.

    Returns:
        The path of the one with the most iterations that is whole, None where there is none. What is passed over is
        logged.
    """
    from mmengine.logging import print_log

    broken = []
    found: list[tuple[tuple[int, float], Path]] = []
    for path in _candidates(Path(folder)):
        try:
            written = path.stat().st_mtime
            if written >= since:
                found.append(((_iterations(path), written), path))
        except Exception as error:  # whatever half a file makes of a reader
            broken.append(f"{path.name} ({_in_short(error)})")
    for _, path in sorted(found, reverse=True):
        if (reason := _damage(path)) is None:
            if broken:
                print_log(
                    f"Passed over, being broken: {', '.join(broken)}. Going on from {path}, the newest whole one.",
                    "current",
                    logging.WARNING,
                )
            return str(path)
        broken.append(f"{path.name} ({reason})")
    if broken:
        print_log(f"None of the checkpoints is whole: {', '.join(broken)}.", "current", logging.WARNING)
    return None


def _candidates(folder: Path) -> list[Path]:
    try:
        last = (folder / "last_checkpoint").read_text().strip()
    except (OSError, UnicodeDecodeError):
        last = ""
    named = folder / last
    # Named relative to here, it may be in an `out_dir` with those before it; a whole path is of who knows which folder.
    elsewhere = bool(last) and not os.path.isabs(last) and named.parent.is_dir() and not named.parent.samefile(folder)
    folders = [folder] * folder.is_dir() + [named.parent] * elsewhere
    candidates = [path for each in folders for path in each.iterdir() if _SAVED.fullmatch(path.name)]
    # A moved folder has its checkpoint still, under the name that it had elsewhere.
    if last and named.exists() and not any(path.samefile(named) for path in candidates if path.exists()):
        candidates.append(named)
    return candidates


def _iterations(path: Path) -> int:
    """How long a checkpoint's run had trained."""
    if path.is_dir():  # of several processes, see `_damage`
        rest = path / REST
        if not rest.is_file():
            raise OSError("it is not complete")
        path = rest
    if not path.stat().st_size:
        raise OSError("it is empty")
    return int(peek(path)["meta"]["iter"])


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, None for one that is whole: all of it is read, and its checksums compared."""
    if path.is_dir():
        return _damage_of_directory(path)
    if not zipfile.is_zipfile(path):
        return None  # of an old PyTorch, read as a whole before
    try:
        wrong = damaged_part(path)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return _in_short(error)
    return None if wrong is None else f"its part {wrong} is damaged"


def _damage_of_directory(path: Path) -> str | None:
    for name in (".metadata", SIZES):
        if not (path / name).is_file():
            return f"it is not complete: {name} is missing"
    try:
        sizes = json.loads((path / SIZES).read_text())
        wrong = [name for name, size in sizes.items() if (path / name).stat().st_size != size]
    except (OSError, ValueError) as error:
        return _in_short(error)
    return f"its part {wrong[0]} is cut short" if wrong else None


def _in_short(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _look_for_whole_ones(checkpoint: ModuleType) -> None:
    def choose(find: Callable[[str], str | None]) -> Callable[[str], str | None]:
        def find_latest_checkpoint(path: str) -> str | None:
            from mmengine import dist

            if "://" in str(path):
                return find(path)
            chosen = [newest_whole(path)] if dist.is_main_process() else [None]
            dist.broadcast_object_list(chosen)  # one choice for all processes
            return chosen[0]

        return find_latest_checkpoint

    replace_function(checkpoint, "find_latest_checkpoint", choose)
