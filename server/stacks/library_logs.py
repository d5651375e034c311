"""Passes the log of a stack's libraries to ours: on stderr, they might block."""

import logging
from collections.abc import Callable

from capnp_rig.server.logs.log import Log


def lead_to(log: Log, *names: str, is_peers: Callable[[BaseException], bool]) -> None:
    """Send the warnings and errors of the loggers called `names` to `log`.

    Warnings, and the exceptions that `is_peers` picks, are the fault of a peer. They get the level
    debug, because a peer can cause any number of them. Other errors stay errors.
    """
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers = [_Passing(log, is_peers)]
        logger.propagate = False
        logger.setLevel(logging.WARNING)


class _Passing(logging.Handler):
    def __init__(self, log: Log, is_peers: Callable[[BaseException], bool]) -> None:
        super().__init__()
        self._log = log
        self._is_peers = is_peers

    def emit(self, record: logging.LogRecord) -> None:
        event = f"{record.name}: {record.getMessage().strip()}"
        error = record.exc_info[1] if record.exc_info else None
        is_ours = record.levelno >= logging.ERROR and not (error and self._is_peers(error))
        write = self._log.error if is_ours else self._log.debug
        write(event, kind=f"{record.name} {'errors' if is_ours else 'notes'}", traceback=error)
