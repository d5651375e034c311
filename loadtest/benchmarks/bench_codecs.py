"""Times the cases of one process, in the order that its number gives.

`loadtest bench` starts this with pytest, once per process, and sets the number.
"""

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from loadtest.bench_plan import EMPTY_CALL, FLOOR, Case, order
from loadtest.rivals import CODECS, sample_text, timed_call

PROCESS_VARIABLE = "CAPNP_RIG_BENCH_PROCESS"


def _parameters() -> list[Any]:
    return [
        # GC is off for all; these are the rows that show what it costs.
        pytest.param(
            case, id=case.name, marks=pytest.mark.benchmark(disable_gc=False) if case.gc else ()
        )
        for case in order(int(os.environ.get(PROCESS_VARIABLE, "0")))
    ]


def _floor(case: Case) -> Callable[[], Any]:
    if case.subject == EMPTY_CALL:
        return lambda: None
    data = memoryview(bytearray(sample_text(case.size_bytes).encode()))
    return lambda: bytes(data)


@pytest.mark.parametrize("case", _parameters())
def test_case(benchmark: Any, case: Case) -> None:  # noqa: ANN401 - the plugin's fixture
    """Verify, then time."""
    benchmark.extra_info["case"] = asdict(case)
    if case.contract == FLOOR:
        benchmark(_floor(case))
        return
    call, expected = timed_call(CODECS[case.codec], case.contract, sample_text(case.size_bytes))
    result = benchmark(call)
    assert expected is None or result == expected
