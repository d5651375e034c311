"""Times the cases of one process, in the order that its plan and its number give.

`loadtest bench` starts this with pytest, once per process, and reads from a pipe which case is
done, and why one is void.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from functools import cache
from typing import Any

import pytest

from capnp_rig.loadtest.bench.plan import EMPTY_CALL, FLOOR, IN_PLACE, PLANS, Case, order
from capnp_rig.loadtest.benchmarks.transports import Exchange, Transports
from capnp_rig.loadtest.codecs import CODECS
from capnp_rig.loadtest.codecs.codec import (
    COLUMN_WRITES,
    check_outcome,
    timed_call,
    transported_call,
    verify,
)
from capnp_rig.loadtest.codecs.messages import native
from capnp_rig.loadtest.codecs.reading import checksum
from capnp_rig.loadtest.stats.messages import Message

PROCESS_VARIABLE = "CAPNP_RIG_BENCH_PROCESS"
PLAN_VARIABLE = "CAPNP_RIG_BENCH_PLAN"
PIPE_VARIABLE = "CAPNP_RIG_BENCH_PIPE"

# When glibc frees a block of its own mapping, it stops mapping blocks of up to that size, for
# good; until then every message of over 128 KiB costs fresh pages from the kernel. Without
# this, times would depend on whether a larger case came before. It spares those that
# copy most: what is said of zero-copy is the careful side.
_LARGEST_THRESHOLD = 32 << 20
bytes(_LARGEST_THRESHOLD - (64 << 10))


def _parameters() -> list[Any]:
    plan = PLANS[os.environ.get(PLAN_VARIABLE, "tiny")]
    return [
        # GC is off for all; these are the rows that show what it costs.
        pytest.param(
            case, id=case.name, marks=pytest.mark.benchmark(disable_gc=False) if case.gc else ()
        )
        for case in order(plan, int(os.environ.get(PROCESS_VARIABLE, "0")))
    ]


def _floor(case: Case, exchange: Exchange | None) -> Callable[[], Any]:
    if case.subject == EMPTY_CALL:
        return lambda: None
    if case.subject == IN_PLACE:
        values = native(Message.TENSOR, case.size_bytes)
        return lambda: checksum(Message.TENSOR, values, 100)
    data = memoryview(bytearray(case.size_bytes))
    if exchange is not None:
        return lambda: exchange(data)
    return lambda: bytes(data)


@cache
def _problem(codec: str, message: Message, size_bytes: int) -> str:
    """Return why a codec cannot be timed with a message, empty where it can."""
    return _failure(
        lambda: verify(CODECS[codec].messages[message], message, native(message, size_bytes))
    )


def _failure(work: Callable[[], object]) -> str:
    """Return what goes wrong with some work, empty where nothing does."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - whatever is raised voids its rows, no others
        return f"{type(error).__name__}: {error}"
    return ""


def _done(case: Case, problem: str = "") -> None:
    pipe = os.environ.get(PIPE_VARIABLE)
    if pipe is not None:
        line = json.dumps({"case": case.name, **({"void": problem} if problem else {})}) + "\n"
        os.write(int(pipe), line.encode())


@pytest.fixture(scope="module")
def transports() -> Iterator[Transports]:
    """Yield what carries frames; its peers end with this process at the latest."""
    with Transports() as opened:
        yield opened


@pytest.mark.parametrize("case", _parameters())
def test_case(benchmark: Any, case: Case, transports: Transports) -> None:
    """Verify, then time, then look at what came out."""
    benchmark.extra_info["case"] = asdict(case)
    problem = ""
    if case.contract != FLOOR:
        problem = _problem(case.codec, Message(case.message), case.size_bytes)
    if not problem:
        with transports.using(case.transport) if case.transport else nullcontext() as exchange:
            problem = _failure(lambda: _time(benchmark, case, exchange))
    _done(case, problem)
    if problem:
        pytest.skip(problem)


def _time(benchmark: Any, case: Case, exchange: Exchange | None) -> None:
    if case.contract == FLOOR:
        benchmark(_floor(case, exchange))
        return
    message = Message(case.message)
    codec, values = CODECS[case.codec].messages[message], native(message, case.size_bytes)
    # Of a long table it takes seconds, and nobody reads it.
    frame = b"" if case.contract in COLUMN_WRITES else codec.writer()(values)
    if exchange is None:
        call = timed_call(codec, case.contract, values, frame)
    else:
        call = transported_call(codec, values, frame, exchange)
    check_outcome(codec, message, case.contract, values, benchmark(call))
