"""What a benchmark process does with a case, without pytest-benchmark and its clock."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from loadtest.bench_plan import EMPTY_CALL, FLOOR, IN_PLACE, MEMCPY, Case
from loadtest.benchmarks import bench_codecs
from loadtest.codecs import CODECS
from loadtest.codecs.codec import READ_ALL
from loadtest.codecs.messages import Message

CASE = Case("wire", Message.TEXT, READ_ALL, 64)


class FakeBenchmark:
    """Calls once, and keeps what it was given."""

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}
        self.calls: list[Callable[[], Any]] = []

    def __call__(self, call: Callable[[], Any]) -> Any:
        self.calls.append(call)
        return call()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, str]]]]:
    """Yield what reads the lines that the process wrote into its pipe."""
    reading, writing = os.pipe()
    monkeypatch.setenv(bench_codecs.PIPE_VARIABLE, str(writing))
    bench_codecs._problem.cache_clear()
    yield lambda: [json.loads(line) for line in os.read(reading, 1 << 16).splitlines()]
    os.close(reading)
    os.close(writing)
    bench_codecs._problem.cache_clear()


def break_codec(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Make `wire` carry texts in another way."""
    one = replace(CODECS["wire"].messages[Message.TEXT], **changes)
    broken = replace(CODECS["wire"], messages={Message.TEXT: one})
    monkeypatch.setitem(CODECS, "wire", broken)


def test_a_case_is_timed_and_named(said: Callable[[], list[dict[str, str]]]) -> None:
    benchmark = FakeBenchmark()
    bench_codecs.test_case(benchmark, CASE)
    assert len(benchmark.calls) == 1
    assert Case(**benchmark.extra_info["case"]) == CASE
    assert said() == [{"case": "text, open+read 100%, 64 B, wire"}]


@pytest.mark.parametrize("subject", [MEMCPY, EMPTY_CALL, IN_PLACE])
def test_a_floor_is_timed(subject: str, said: Callable[[], list[dict[str, str]]]) -> None:
    benchmark = FakeBenchmark()
    bench_codecs.test_case(benchmark, Case(subject, "", FLOOR, 64))
    assert len(benchmark.calls) == 1
    assert said() == [{"case": f"floor, 64 B, {subject}"}]


def test_a_codec_that_is_wrong_is_not_timed_and_its_reason_told(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[dict[str, str]]]
) -> None:
    break_codec(monkeypatch, to_native=lambda _: "other")
    benchmark = FakeBenchmark()
    with pytest.raises(pytest.skip.Exception):
        bench_codecs.test_case(benchmark, CASE)
    assert benchmark.calls == []
    reason = "CodecMismatch: build+encode of text gives back other values"
    assert said() == [{"case": CASE.name, "void": reason}]


def test_a_codec_that_fails_voids_its_own_rows_only(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[dict[str, str]]]
) -> None:
    def fail(_: object) -> bytes:
        raise OverflowError("too large")

    break_codec(monkeypatch, build_encode=fail)
    with pytest.raises(pytest.skip.Exception):
        bench_codecs.test_case(FakeBenchmark(), CASE)
    bench_codecs.test_case(FakeBenchmark(), replace(CASE, subject="orjson"))
    first, second = said()
    assert first["void"] == "OverflowError: too large"
    assert "void" not in second


def test_what_goes_wrong_only_while_it_is_timed_voids_the_row_too(
    said: Callable[[], list[dict[str, str]]],
) -> None:
    class Drifting(FakeBenchmark):
        def __call__(self, call: Callable[[], Any]) -> Any:
            return super().__call__(call) + 1

    with pytest.raises(pytest.skip.Exception):
        bench_codecs.test_case(Drifting(), CASE)
    (line,) = said()
    assert line["void"].endswith("gave something else while it was timed")
