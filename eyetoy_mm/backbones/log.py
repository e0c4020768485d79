"""What the parts that need torch alone log, in mmengine's log: on the console and in the file of a Runner."""

from __future__ import annotations

import logging

from mmengine.logging import print_log


class MMEngineHandler(logging.Handler):
    """Hands records to mmengine's current logger; without a Runner that is one for the console."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record's message at its level."""
        print_log(self.format(record), logger="current", level=record.levelno)


def attach() -> None:
    """Have what ``logging.getLogger("eyetoy_mm")`` is told in mmengine's log, from level INFO on; once."""
    logger = logging.getLogger("eyetoy_mm")
    if not any(isinstance(handler, MMEngineHandler) for handler in logger.handlers):
        logger.addHandler(MMEngineHandler())
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
