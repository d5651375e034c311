"""Leads what a stack's libraries log into ours: they would write to stderr, and may block there."""

import logging
import traceback

from server.log import Log


def lead_to(log: Log, *names: str) -> None:
    """Send the warnings and errors of the loggers called `names` to `log`.

    What only a peer can be to blame for is of the level debug, for it comes as often as peers
    like; errors are passed on as such.
    """
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers = [_Passing(log)]
        logger.propagate = False
        logger.setLevel(logging.WARNING)


class _Passing(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        event = f"{record.name}: {record.getMessage().strip()}"
        trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else None
        write = self._log.error if record.levelno >= logging.ERROR else self._log.debug
        write(event, traceback=trace)
