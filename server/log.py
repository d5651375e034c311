"""The log of one process: tutorial lines on stdout, warnings and errors on stderr.

structlog takes a tenth of a second to import (it brings rich along), so nothing here imports it
before `open_log` is called, and callers open the log once they are ready to serve.
"""

import json
import os
from collections.abc import MutableMapping
from typing import Any, Protocol

from server.line_writer import LineWriter, open_sink
from server.log_lines import render_text

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log(Protocol):
    """What the server asks of its log; the fields show in the JSON format."""

    def debug(self, event: str, /, **fields: object) -> object:
        """Log what only someone looking for a fault wants to see."""

    def info(self, event: str, /, **fields: object) -> object:
        """Log what the tutorial prints."""

    def warning(self, event: str, /, **fields: object) -> object:
        """Log what an operator should know."""

    def error(self, event: str, /, **fields: object) -> object:
        """Log what failed."""


class _Streams:
    """What structlog writes to: each level goes to the stream a person expects it on."""

    def __init__(self, out: LineWriter, err: LineWriter) -> None:
        self.debug = self.info = out.write
        self.warning = self.error = err.write


def open_log(level: str, style: str) -> Log:
    """Return the log of this process, writing to its stdout and stderr without ever blocking."""
    import structlog  # noqa: PLC0415 - slow to import, see above

    notice = _json_notice if style == "json" else _text_notice
    streams = _Streams(LineWriter(open_sink(1), notice), LineWriter(open_sink(2), notice))
    log: Log = structlog.wrap_logger(
        streams,
        processors=_json_processors() if style == "json" else [_text],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return log


def _text(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    return render_text(event)


def _json_processors() -> list[Any]:
    import structlog  # noqa: PLC0415 - slow to import, see above

    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_pid,
        structlog.processors.JSONRenderer(),
    ]


def _add_pid(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    event["pid"] = os.getpid()
    return event


def _text_notice(count: int) -> str:
    return f"{count} log lines dropped"


def _json_notice(count: int) -> str:
    return json.dumps({"event": _text_notice(count), "level": "warning", "dropped": count})
