"""What of a run's log is for a terminal: the rest is in its file."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from mmengine.logging import MMLogger

# How mmengine's records begin that are hundreds of lines before the first step, and one before each line of a step: the
# environment, the config, the hooks, the learning rate and decay of each parameter, and the name of the run.
_FOR_THE_FILE = (
    "\n" + "-" * 60 + "\nSystem environment:",
    "Config:\n",
    "Hooks will be executed in the following order:",
    "paramwise_options -- ",
    "Exp name: ",
)


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
