"""What the parts that need torch alone log, in mmengine's log: on the console and in the file of a Runner."""

from __future__ import annotations

import logging

from mmengine.logging import MMLogger


class MMEngineHandler(logging.Handler):
    """Hands records to mmengine's current logger where there is one, as in a Runner.

    Asked for without that, mmengine makes one that writes to standard output, which may be a program's result.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record's message at its level."""
        if MMLogger._instance_dict:
            MMLogger.get_current_instance().log(record.levelno, self.format(record))


def attach() -> None:
    """Have what ``logging.getLogger("eyetoy_mm")`` is told in mmengine's log, from level INFO on; once."""
    logger = logging.getLogger("eyetoy_mm")
    if not any(isinstance(handler, MMEngineHandler) for handler in logger.handlers):
        logger.addHandler(MMEngineHandler())
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
