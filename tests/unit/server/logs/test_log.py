import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from capnp_rig.server.logs.log import Log, open_log
from capnp_rig.server.logs.log_limits import BURST
from capnp_rig.server.logs.log_lines import MAX_TRACE_CHARS


class Inner:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, Mapping[str, object]]] = []

    def write(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        self.lines.append((level, event, fields))


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def inner() -> Inner:
    return Inner()


def test_h5_a_flood_is_cut_and_its_rest_told_once(inner: Inner) -> None:
    clock = Clock()
    log = Log(inner.write, "info", clock)
    written = [log.error("oops", kind="oopses") for _ in range(BURST + 5)]
    assert written == [True] * BURST + [False] * 5
    log.flush()
    assert len(inner.lines) == BURST
    clock.now_s = 1.0
    log.flush()
    log.flush()
    assert inner.lines[BURST:] == [
        ("error", "oopses: 5 more left out in 1 s", {"kind": "oopses", "suppressed": 5})
    ]


class UnknowableError(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise SystemExit(3)


def test_h4_a_traceback_that_cannot_be_formatted_is_told_in_a_line(inner: Inner) -> None:
    log = Log(inner.write, "info", Clock())
    assert log.error("oops", traceback=UnknowableError())
    trace = "UnknowableError, whose traceback cannot be shown: SystemExit"
    assert inner.lines == [("error", "oops", {"traceback": trace})]


def test_h5_lines_of_no_kind_are_all_written(inner: Inner) -> None:
    log = Log(inner.write, "info", Clock())
    assert all(log.warning("important") for _ in range(1_000))
    assert len(inner.lines) == 1_000


def test_lines_below_the_level_count_for_nothing(inner: Inner) -> None:
    log = Log(inner.write, "error", Clock())
    assert not any(log.warning("w", kind="k") for _ in range(100))
    log.flush(last=True)
    assert inner.lines == []


def test_h5_a_traceback_is_cut_in_its_middle(inner: Inner) -> None:
    log = Log(inner.write, "info", Clock())
    log.error("oops", kind="k", traceback=ValueError("a" * 100_000 + "end"))
    ((_, _, fields),) = inner.lines
    trace = str(fields["traceback"])
    assert len(trace) < MAX_TRACE_CHARS + 100
    assert trace.endswith("end\n")
    assert "characters left out" in trace


class SecretError(Exception):
    def __str__(self) -> str:
        raise AssertionError


def test_h5_what_is_left_out_is_not_formatted(inner: Inner) -> None:
    log = Log(inner.write, "info", Clock())
    for _ in range(BURST):
        log.error("oops", kind="k")
    assert not log.error("oops", kind="k", traceback=SecretError())


def test_json_lines_have_the_count_as_a_field(capfd: pytest.CaptureFixture[str]) -> None:
    log = open_log("info", "json")
    for _ in range(BURST + 1_234):
        log.error("oops", kind="oopses")
    log.flush(last=True)
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert len(events) == BURST + 1
    assert events[-1]["suppressed"] == 1_234
    assert events[-1]["event"] == "oopses: 1,234 more left out in 1 s"


def test_a_json_line_has_its_fields_level_time_and_process(
    capfd: pytest.CaptureFixture[str],
) -> None:
    open_log("info", "json").info("Called\nwith", worker=1, cause=ValueError("x"))
    line = json.loads(capfd.readouterr().out)
    at = datetime.fromisoformat(line.pop("timestamp"))
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    assert line == {
        "worker": 1,
        "cause": "ValueError('x')",
        "event": "Called\nwith",
        "level": "info",
        "pid": os.getpid(),
    }
