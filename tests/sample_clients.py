"""Rounds of a bench-clients that nobody has measured."""

from collections.abc import Iterable, Mapping
from typing import Any

from capnp_rig.loadtest.clients.client_figures import JUDGED, ClientSample
from capnp_rig.loadtest.stats.histogram import Histogram

MS = 1_000_000


def _second(
    number: int, times_ms: Iterable[float], failures: Mapping[str, int], late_ms: float = 0.01
) -> dict[str, Any]:
    good = [round(each * MS) for each in times_ms]
    due = len(good) + sum(failures.values())
    return {
        "second": number,
        "due": due,
        "good": Histogram.of(good).to_json(),
        "lateness": Histogram.of([round(late_ms * MS)] * due).to_json(),
        "failures": failures,
    }


def client_sample(
    contender: str = JUDGED,
    *,
    failed: int = 0,
    executions: int = 10_000,
    slow_ms: float = 6.0,
    late_ms: float = 0.01,
) -> ClientSample:
    """Return a round of 10,000 calls healthy and 10,000 with faults, 2 % of which are slow."""
    fast, slow = [5.0] * (9800 - failed), [slow_ms] * 200
    failures = {"Disconnected": failed} if failed else {}
    return ClientSample(
        *(contender, 0, 0, 1.0),
        executions=[[3000, 3000, 4000], [executions, 0, 0]],
        per_second=[
            _second(0, [5.0] * 10_000, {}, late_ms),
            _second(1, [*fast, *slow], failures, late_ms),
        ],
    )
