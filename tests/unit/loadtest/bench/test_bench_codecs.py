"""What a benchmark process does with a case, without pytest-benchmark and its clock."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from capnp_rig.loadtest.bench.plan import EMPTY_CALL, EMPTY_RPC, FLOOR, IN_PLACE, MEMCPY, Case
from capnp_rig.loadtest.benchmarks import bench_codecs
from capnp_rig.loadtest.codecs import CODECS
from capnp_rig.loadtest.codecs.codec import READ_ALL
from capnp_rig.loadtest.stats.messages import Message

CASE = Case("wire", Message.TEXT, READ_ALL, 64)


class FakeBenchmark:
    """Calls once, and keeps what it was given."""

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}
        self.calls: list[Callable[[], Any]] = []

    def __call__(self, call: Callable[[], Any]) -> Any:
        self.calls.append(call)
        return call()


class FakeTransports(bench_codecs.Transports):
    """Carries frames to nowhere and back, and says over what, and how large they were."""

    def __init__(self, changed: Callable[[Any], Any] = bytes) -> None:
        super().__init__()
        self.carried: list[tuple[str, int]] = []
        self._changed = changed

    @contextmanager
    def using(self, transport: str) -> Iterator[bench_codecs.Exchange]:
        def exchange(frame: Any) -> Any:
            self.carried.append((transport, len(frame)))
            return self._changed(frame)

        yield exchange


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
    bench_codecs.test_case(benchmark, CASE, FakeTransports())
    assert len(benchmark.calls) == 1
    assert Case(**benchmark.extra_info["case"]) == CASE
    assert said() == [{"case": "text, open+read 100%, 64 B, wire"}]


@pytest.mark.parametrize("subject", [MEMCPY, EMPTY_CALL, IN_PLACE])
def test_a_floor_is_timed(subject: str, said: Callable[[], list[dict[str, str]]]) -> None:
    benchmark = FakeBenchmark()
    bench_codecs.test_case(benchmark, Case(subject, "", FLOOR, 64), FakeTransports())
    assert len(benchmark.calls) == 1
    assert said() == [{"case": f"floor, 64 B, {subject}"}]


def test_a_codec_that_is_wrong_is_not_timed_and_its_reason_told(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[dict[str, str]]]
) -> None:
    break_codec(monkeypatch, to_native=lambda _: "other")
    benchmark = FakeBenchmark()
    with pytest.raises(pytest.skip.Exception):
        bench_codecs.test_case(benchmark, CASE, FakeTransports())
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
        bench_codecs.test_case(FakeBenchmark(), CASE, FakeTransports())
    bench_codecs.test_case(FakeBenchmark(), replace(CASE, subject="orjson"), FakeTransports())
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
        bench_codecs.test_case(Drifting(), CASE, FakeTransports())
    (line,) = said()
    assert line["void"].endswith("gave something else while it was timed")


def test_a_frame_is_tried_on_its_transport_and_then_timed(
    said: Callable[[], list[dict[str, str]]],
) -> None:
    case, transports = replace(CASE, contract="round trip over TCP"), FakeTransports()
    bench_codecs.test_case(FakeBenchmark(), case, transports)
    assert transports.carried == [("TCP", 96)] * 2
    assert said() == [{"case": "text, round trip over TCP, 64 B, wire"}]


@pytest.mark.parametrize(
    ("case", "carried"),
    [
        (Case("echo over a socket pair", "", FLOOR, 64), ("a socket pair", 64)),
        (Case(EMPTY_RPC, "", FLOOR, 0), ("RPC", 0)),
    ],
)
def test_a_floor_of_a_transport_carries_as_many_bytes(
    case: Case, carried: tuple[str, int], said: Callable[[], list[dict[str, str]]]
) -> None:
    transports = FakeTransports()
    bench_codecs.test_case(FakeBenchmark(), case, transports)
    assert transports.carried == [carried]
    assert said() == [{"case": case.name}]


@pytest.mark.parametrize("subject", ["wire", "echo over RPC"])
def test_a_transport_that_fails_voids_the_row_only(
    subject: str, said: Callable[[], list[dict[str, str]]]
) -> None:
    def fail(_: object) -> bytes:
        raise EOFError("the peer has ended")

    contract, message = ("round trip over RPC", "text") if subject == "wire" else (FLOOR, "")
    case = Case(subject, message, contract, 64)
    with pytest.raises(pytest.skip.Exception):
        bench_codecs.test_case(FakeBenchmark(), case, FakeTransports(fail))
    assert said() == [{"case": case.name, "void": "EOFError: the peer has ended"}]
