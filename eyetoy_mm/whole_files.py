"""Files and folders that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Network and user-space file systems (CIFS, some of FUSE) say so of any folder: the file itself is on the disk already.
_NO_FLUSH = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
_TEMPORARY = re.compile(r"\..+\.\d+\.part")
_ASIDE = re.compile(r"\.(.+)\.before\.\d+\.part")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    Args:
        path: Where it will be; its folder is made.

    Yields:
        Where to write it: a temporary file beside it, which takes its place, flushed to the disk, when all went well.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(path)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary), temporary):
            error.filename, error.filename2 = str(path), None  # a full disk names none: the file was open already
        raise
    _flush_names(path.parent)


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Write a file, text in UTF-8, whole or not at all."""
    with replacing(path) as file:
        file.write_bytes(content.encode() if isinstance(content, str) else content)


def renamed_over(temporary: Path, path: Path) -> None:
    """Give a directory, whose files are on the disk, its name, in place of what has it.

    A directory cannot replace another in one step: between the two that it takes, neither has the name. Where a
    process is killed there, :func:`remove_temporaries` puts the former one back.
    """
    _flush_names(temporary)
    aside = beside(path, "before.")
    if path.exists():
        os.replace(path, aside)
    os.replace(temporary, path)
    _flush_names(path.parent)
    _remove(aside)


def beside(path: Path, what: str = "") -> Path:
    """A name for this process to write at, in the same folder and thus on the same disk."""
    return path.with_name(f".{path.name}.{what}{os.getpid()}.part")


def remove_temporaries(folder: str | Path) -> list[str]:
    """Remove what killed processes left in a folder, and return the names.

    A directory that had its name taken, and nothing in its place yet, is whole: it gets its name back.
    """
    removed = []
    for path in sorted(Path(folder).glob(".*.part")):
        if (aside := _ASIDE.fullmatch(path.name)) and path.is_dir() and any(path.iterdir()):
            name = path.with_name(aside[1])
            if not name.exists():
                os.replace(path, name)
                continue
        if _TEMPORARY.fullmatch(path.name):
            _remove(path)
            removed.append(path.name)
    return removed


def _flush_names(folder: Path) -> None:
    if os.name == "posix":
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        except OSError as error:
            if error.errno not in _NO_FLUSH:
                raise
        finally:
            os.close(opened)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
