"""What is for a terminal: of a run's log, whose rest is in its file, and lines that move."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import Progress

T = TypeVar("T")

# How mmengine's records begin that are hundreds of lines before the first step, and one before each line of a step: the
# environment, the config, the hooks, the learning rate and decay of each parameter, and the name of the run; and those
# that say what ours say, or what mmengine has to change of its own code.
_FOR_THE_FILE = (
    "\n" + "-" * 60 + "\nSystem environment:",
    "Config:\n",
    "Hooks will be executed in the following order:",
    "paramwise_options -- ",
    "Exp name: ",
    "Checkpoints will be saved to ",
    "Load checkpoint from ",
    "Distributed training is not used, all SyncBatchNorm",
    "The prefix is not set in metric class ",
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias of ',
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What is tried before it counts is neither logged, errors aside, nor printed: it will be said again."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # what has no logger prints
            yield
    finally:
        logger.setLevel(level)


class LongRecordsFilter(logging.Filter):
    """Keeps from a terminal what is as long as that, and no news."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown."""
        return not str(record.msg).startswith(_FOR_THE_FILE)


class IterationsFilter(logging.Filter):
    """Keeps the lines of iterations from a terminal on which a live line has them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown."""
        return not (record.module == "logger_hook" and record.funcName in ("after_train_iter", "after_val_iter"))


def terminal_handlers(logger: MMLogger) -> Iterator[logging.StreamHandler]:
    """The handlers of a logger that write to a stream and to no file."""
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            yield handler


def shorten(logger: MMLogger) -> None:
    """Leave what is hundreds of lines long to the file of a logger, if it has one."""
    if getattr(logger, "log_file", None):
        for handler in terminal_handlers(logger):
            if not any(isinstance(present, LongRecordsFilter) for present in handler.filters):
                handler.addFilter(LongRecordsFilter())


def may_move(stream: TextIO | None) -> bool:
    """Whether a line may move on a stream: a notebook, whose cells are terminals to a program, keeps all its states."""
    if stream is None:  # it was closed
        return False
    return stream.isatty() and os.environ.get("TERM") != "dumb" and "JPY_PARENT_PID" not in os.environ


def tracked(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    """Go through items; standard error shows how far it is where it is a terminal, and nothing of it stays there.

    What is printed meanwhile goes above the bar where it goes to a terminal, unbroken, so that a path can be copied,
    and to its file where it does not.
    """
    progress = Progress(
        console=Console(stderr=True, soft_wrap=True), disable=not may_move(sys.stderr), transient=True,
        redirect_stdout=may_move(sys.stdout),
    )  # fmt: skip
    with progress:
        yield from progress.track(items, total=total, description=description)
