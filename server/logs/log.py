"""The log of one process: debug and info on stdout, warnings and errors on stderr.

A line that peers can provoke has a `kind`, and lines of one kind are limited (`logs.log_limits`).
Its writer returns whether it was written. The owner of the log calls `flush` now and then, which
logs how many lines were left out.
"""

import json
import os
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from capnp_rig.server.logs.line_writer import LineWriter, dropped, open_sink
from capnp_rig.server.logs.log_limits import LineLimits
from capnp_rig.server.logs.log_lines import cut_middle, render_text

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# Takes the level, the event and the fields of a line.
Write = Callable[[str, str, Mapping[str, object]], None]


class Log:
    """Leaves out lines of a kind that come too often; the fields show in the JSON format.

    Two fields are special: `kind` limits the lines of that kind, and a `traceback` may be an
    exception, which is formatted only if the line is written.
    """

    def __init__(self, write: Write, least: str, clock: Callable[[], float]) -> None:
        self._write = write
        self._least = _LEVELS[least]
        self._clock = clock
        self._limits = LineLimits()

    def debug(self, event: str, /, **fields: object) -> bool:
        """Log what the tutorial prints: each connection, and the content of each call."""
        return self._log("debug", event, fields)

    def info(self, event: str, /, **fields: object) -> bool:
        """Log what happens once in a while."""
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
            fields = {"kind": left_out.kind, "suppressed": left_out.count}
            self._write(left_out.level, str(left_out), fields)

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
        self._write(level, event, fields)
        return True


def _trace_text(trace: object) -> str:
    if not isinstance(trace, BaseException):
        return str(trace)
    try:
        return "".join(traceback.format_exception(trace))
    # It may be of a class of the user's, of which each attribute may raise (its notes, its cause).
    except BaseException as error:  # noqa: BLE001 - the log is where failures end
        return f"{type(trace).__name__}, whose traceback cannot be shown: {type(error).__name__}"


def open_log(level: str, style: str) -> Log:
    """Return the log of this process, writing to its stdout and stderr without ever blocking."""
    render, notice = (_json, _json_notice) if style == "json" else (_text, dropped)
    out = LineWriter(open_sink(1), notice)
    err = LineWriter(open_sink(2), notice)
    writers = {"debug": out, "info": out, "warning": err, "error": err}

    def write(level: str, event: str, fields: Mapping[str, object]) -> None:
        writers[level].write(render(level, event, fields))

    return Log(write, level, time.monotonic)


def _text(_level: str, event: str, fields: Mapping[str, object]) -> str:
    return render_text({**fields, "event": event})


def _json(level: str, event: str, fields: Mapping[str, object]) -> str:
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    own = {"event": event, "level": level, "timestamp": now, "pid": os.getpid()}
    return json.dumps({**fields, **own}, default=repr)


def _json_notice(count: int) -> str:
    return json.dumps({"event": dropped(count), "level": "warning", "dropped": count})
