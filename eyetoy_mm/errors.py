"""Mistakes of the user, told in one message instead of a traceback."""

from __future__ import annotations

import errno
import functools
import os
import re
import select
import sys
from collections.abc import Callable, Iterable
from typing import ParamSpec, TextIO

from eyetoy_mm.compat.checkpoint_loading import CheckpointError
from eyetoy_mm.compat.data_files import DataFileError
from eyetoy_mm.zoo import ZooError

_Arguments = ParamSpec("_Arguments")


class UserError(Exception):
    """Something the user can mend; the message says what is wrong and what to do."""


# Errors of the toolboxes that are really the user's, by their message: mmcv's image loader has no class of its own.
UNREADABLE_IMAGE = re.compile(r"failed to load image: (?P<path>.+)")
# A data loader's worker puts its traceback into the message of what it raises.
_FROM_WORKER = re.compile(
    r"^Caught \w+ in DataLoader worker process.*\n(?:[\w.]+\.)?"
    r"(?:UserError|CheckpointError|DataFileError|ImageTooLargeError): ",
    re.DOTALL,
)
# mmengine's, of a client of other storage: petrel_client for s3://, lmdb, memcached.
_NO_CLIENT = re.compile(r"Please (install (?P<package>\w+)|run \"pip install (?P<command>\w+)\") to enable \w+Backend")
_SIGINT, _SIGPIPE = 128 + 2, 128 + 13  # exit codes of what a signal ended
_OPENMMLAB = ("mmengine", "mmcv", "mmdet", "mmseg", "mmpretrain")
# What a file system refuses: rights, a folder where a file should be, space.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, *_FULL),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
}


def report_user_errors(main: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """Decorate a program's ``main``: a :class:`UserError` ends it with exit code 1 and its message on stderr.

    So does a file or folder that was refused: :class:`CheckpointError`, :class:`DataFileError`, :class:`ZooError`, and
    what the file system does not allow. Ctrl-C, and a reader that has seen enough, as ``| head`` does, end it with
    the codes that a shell gives them.
    """

    @functools.wraps(main)
    def run(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            main(*args, **kwargs)
            print(end="", flush=True)
        except BrokenPipeError:
            if not let_go_of(sys.stdout):
                raise
            sys.exit(_SIGPIPE)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(_SIGINT)
        except (UserError, CheckpointError, DataFileError, ZooError) as error:
            sys.exit(f"error: {_FROM_WORKER.sub('', str(error)).rstrip()}")
        except ModuleNotFoundError as error:
            package = (error.name or "").split(".")[0]
            if package not in _OPENMMLAB:
                raise
            sys.exit(f"error: this needs {package}, which is not installed: pip install 'eyetoy-mm[lite]'")
        except ImportError as error:
            found = _NO_CLIENT.search(str(error))
            if found is None:
                raise
            sys.exit(
                f"error: these data are not on a disk, and {found['package'] or found['command']}, with which mmengine "
                "reads them, is not installed: install it, or give a path on a disk"
            )
        except OSError as error:
            if error.errno in _FULL and (error.filename, error.strerror) == (None, os.strerror(error.errno)):
                sys.exit(f"error: {error.strerror}, where this was writing: free some, or write to another disk")
            if error.errno not in _REFUSED or error.filename is None:
                raise
            sys.exit(f"error: {error.filename} cannot be used: {error.strerror}")
        except AssertionError as error:
            # The last one: before it a worker's traceback quotes the line of code with the message's pattern.
            match = next(reversed(list(UNREADABLE_IMAGE.finditer(str(error)))), None)
            if match is None:
                raise
            sys.exit(
                f"error: {match['path']} is not an image that OpenCV can read; replace it or take it off the dataset"
            )

    return run


def let_go_of(stream: TextIO | None) -> bool:
    """Whether nobody reads a stream any more; what is written to it goes nowhere then, and fails no second time."""
    if stream is None:  # of a program without a console
        return False
    try:
        poll = select.poll()
        poll.register(stream, 0)
    except (AttributeError, TypeError, ValueError):  # Windows, whose pipes tell nothing; a stream that is of no file
        return False
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    return True


def counted(number: int, noun: str) -> str:
    """``1 image``, ``2,000 images``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def first_few(values: Iterable[str], limit: int = 5) -> str:
    """The first of ``values`` and how many follow, for a message."""
    values = list(values)
    rest = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(values[:limit]) + rest
