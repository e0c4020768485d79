"""A work dir has one run at a time."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine import dist
from mmengine.logging import print_log

from eyetoy_mm.compat.whole_checkpoints import newest_whole
from eyetoy_mm.errors import UserError
from eyetoy_mm.whole_files import remove_temporaries

LOCK = ".lock"


@contextmanager
def occupied(work_dir: str | Path, force: bool = False) -> Iterator[None]:
    """Keep other runs out of a work dir, and clear away what a killed one was writing.

    The lock is the operating system's: it goes when the process does, however it ends.

    Args:
        work_dir: The folder; it is made.
        force: Run there even so.

    Raises:
        UserError: Another run has it; the message says which. Or it cannot be written to.
    """
    if not dist.is_main_process() or os.name != "posix":
        yield
        return
    import fcntl

    folder = Path(work_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "a+")  # noqa: SIM115 - it is held as long as the run lasts
    except OSError as error:
        raise _not_writable(folder, error) from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):  # file systems of clusters are mounted without locks
                text = f"{folder} cannot be locked ({error.strerror}): a second run in it would not be noticed"
                print_log(text, "current", logging.WARNING)
                yield
                return
            file.seek(0)
            other = file.read().strip() or "unknown"
            if not force:
                raise UserError(
                    f"another run is using {folder} ({other}): they would mix their logs and overwrite each other's "
                    "checkpoints. Give this one a --work-dir of its own, wait, or say --force"
                ) from None
            print_log(f"{folder} is used by another run ({other}); --force", "current", logging.WARNING)
            yield
            return
        holder = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}\n"
        try:  # at once: what a buffer keeps, closing the file would try to write again
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), holder.encode())
        except OSError as error:  # a disk without room, which makes files and takes nothing into them
            raise _not_writable(folder, error) from error
        if removed := remove_temporaries(folder):
            print_log(f"Removed what a killed run was writing: {', '.join(removed)}", "current", logging.INFO)
        yield
        file.truncate(0)


def holder(work_dir: str | Path) -> str | None:
    """Which process has a work dir, as its lock says; None where none has. It is not to be asked of one's own."""
    lock = Path(work_dir, LOCK)
    if os.name != "posix" or not lock.is_file():
        return None
    import fcntl

    try:
        with open(lock, "a+") as file:  # what is locked for one alone has to be open for writing
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    return None
                file.seek(0)
                return file.read().strip() or "unknown"
    except OSError:  # of another user, or on a disk that is read-only: it is told when one is to write there
        pass
    return None


def _not_writable(folder: Path, error: OSError) -> UserError:
    return UserError(f"cannot write to the work dir {folder}: {error.strerror}. Choose another one: --work-dir FOLDER")


@contextmanager
def explained_disk_errors(work_dir: str | Path) -> Iterator[None]:
    """Tell a full or read-only disk from a fault of the program.

    Raises:
        UserError: The disk cannot be written to; the message says from where the run can go on.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        last = newest_whole(work_dir)
        raise UserError(
            f"cannot write {error.filename or f'to {work_dir}'}: {error.strerror}. "
            + (f"The last whole checkpoint is {last}" if last else "No checkpoint was saved")
            + ". Make room or rights, and go on with --resume"
        ) from error
