"""The log of one process: tutorial lines on stdout, warnings and errors on stderr.

A line that peers can provoke has a `kind`, and lines of one kind are limited (`logs.log_limits`).
Its writer returns whether it was written. The owner of the log calls `flush` now and then, which
logs how many lines were left out.

structlog takes a tenth of a second to import (it brings rich along), so nothing here imports it
before `open_log` is called, and callers open the log once they are ready to serve.
"""

import json
import os
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Protocol

from capnp_rig.server.logs.line_writer import LineWriter, open_sink
from capnp_rig.server.logs.log_limits import LineLimits
from capnp_rig.server.logs.log_lines import cut_middle, render_text

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log(Protocol):
    """What the server asks of its log; the fields show in the JSON format.

    Two of them are special: `kind` limits the lines of that kind, and a `traceback` may be an
    exception, which is formatted only if the line is written. Only False means that it was not.
    """

    def debug(self, event: str, /, **fields: object) -> object:
        """Log what only someone looking for a fault wants to see."""

    def info(self, event: str, /, **fields: object) -> object:
        """Log what the tutorial prints."""

    def warning(self, event: str, /, **fields: object) -> object:
        """Log what an operator should know."""

    def error(self, event: str, /, **fields: object) -> object:
        """Log what failed."""

    def flush(self, *, last: bool = False) -> None:
        """Log how many lines were left out a while ago; all of them if `last`."""


class LimitedLog:
    """A log that leaves out lines of a kind that come too often."""

    def __init__(self, inner: Any, level: str, clock: Callable[[], float]) -> None:
        self._inner = inner
        self._least = _LEVELS[level]
        self._clock = clock
        self._limits = LineLimits()

    def debug(self, event: str, /, **fields: object) -> bool:
        """Log what only someone looking for a fault wants to see."""
        return self._log("debug", event, fields)

    def info(self, event: str, /, **fields: object) -> bool:
        """Log what the tutorial prints."""
        return self._log("info", event, fields)

    def warning(self, event: str, /, **fields: object) -> bool:
        """Log what an operator should know."""
        return self._log("warning", event, fields)

    def error(self, event: str, /, **fields: object) -> bool:
        """Log what failed."""
        return self._log("error", event, fields)

    def flush(self, *, last: bool = False) -> None:
        """Log how many lines were left out a while ago; all of them if `last`."""
        for left_out in self._limits.take_left_out(self._clock(), all_of_it=last):
            write = getattr(self._inner, left_out.level)
            write(str(left_out), kind=left_out.kind, suppressed=left_out.count)

    def _log(self, level: str, event: str, fields: Mapping[str, object]) -> bool:
        if _LEVELS[level] < self._least:
            return False
        kind = fields.get("kind")
        if isinstance(kind, str):
            if not self._limits.admit(kind, level, self._clock()):
                return False
            event = cut_middle(event)
        trace = fields.get("traceback")
        if trace is not None:
            fields = {**fields, "traceback": cut_middle(_trace_text(trace))}
        getattr(self._inner, level)(event, **fields)
        return True


def _trace_text(trace: object) -> str:
    if not isinstance(trace, BaseException):
        return str(trace)
    try:
        return "".join(traceback.format_exception(trace))
    # It may be of a class of the user's, of which each attribute may raise (its notes, its cause).
    except BaseException as error:  # noqa: BLE001 - the log is where failures end
        return f"{type(trace).__name__}, whose traceback cannot be shown: {type(error).__name__}"


class _Streams:
    """What structlog writes to: stdout or stderr, by the level of the line."""

    def __init__(self, out: LineWriter, err: LineWriter) -> None:
        self.debug = self.info = out.write
        self.warning = self.error = err.write


def open_log(level: str, style: str) -> Log:
    """Return the log of this process, writing to its stdout and stderr without ever blocking."""
    import structlog

    notice = _json_notice if style == "json" else _text_notice
    streams = _Streams(LineWriter(open_sink(1), notice), LineWriter(open_sink(2), notice))
    inner = structlog.wrap_logger(
        streams,
        processors=_json_processors() if style == "json" else [_text],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return LimitedLog(inner, level, time.monotonic)


def _text(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    return render_text(event)


def _json_processors() -> list[Any]:
    import structlog

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
