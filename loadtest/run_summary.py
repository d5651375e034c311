"""What a run of the engine says, and whether it may be believed (no I/O)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.engine import EngineResult
from loadtest.histogram import Histogram, merge

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
# When a figure is void: measuring.md's rules.
_BUSY_LIMIT = 0.9
_LATENESS_SHARE = 0.1
_SENT_SHARE = 0.99
_LEAST_BEYOND = 100
_STEAL_LIMIT = 0.02


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen from outside: CPU s of a local server, and the share of stolen CPU time.

    Each is None where it cannot be read; the server's also where it is not on this machine.
    """

    server_cpu_s: float | None
    steal: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """A run of all engine processes together; times are histograms in ns."""

    calls: int
    answered: int
    failures: dict[str, int]
    calls_per_s: float
    response: Histogram
    service: Histogram
    lateness: Histogram
    server_cpu_us_per_call: float | None
    reasons: tuple[str, ...]

    @property
    def errors(self) -> int:
        """Calls that failed, and those without an answer in the end."""
        return sum(self.failures.values())

    @property
    def verdict(self) -> str:
        """``valid``, or ``void`` for the `reasons`."""
        return "void" if self.reasons else "valid"

    def to_json(self) -> dict[str, Any]:
        """Return the summary as the one object of ``--json``."""
        return {
            "calls": self.calls,
            "errors": self.errors,
            "errors_by_kind": self.failures,
            "calls_per_s": self.calls_per_s,
            "response_us": _percentiles(self.response),
            "service_us": _percentiles(self.service),
            "lateness_us": _percentiles(self.lateness),
            "server_cpu_us_per_call": self.server_cpu_us_per_call,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
        }


def _percentiles(times: Histogram) -> dict[str, float | None]:
    found = {f"p{percent:g}": _us(times.percentile_ns(percent)) for percent in PERCENTILES}
    return {**found, "max": _us(times.max_ns)}


def _us(value_ns: int | None) -> float | None:
    return None if value_ns is None else value_ns / 1000


def summarize(results: Sequence[EngineResult], observed: Observed) -> Summary:
    """Merge the processes of one run.

    `results` holds at least one, all of the same length in seconds.
    """
    service = _merged(results, "histogram")
    is_open_loop = results[0].scheduled is not None
    # A call of a closed loop is due when it is sent.
    response = _merged(results, "response") if is_open_loop else service
    lateness = _merged(results, "lateness") if is_open_loop else _zeros(service.count)
    failures: Counter[str] = Counter()
    for result in results:
        failures.update(result.failures)
        if result.unfinished:
            failures["unfinished"] += result.unfinished
    calls = sum(result.calls for result in results)
    answered = sum(result.answered for result in results)
    cpu_us = None
    if observed.server_cpu_s is not None and answered:
        cpu_us = observed.server_cpu_s * 1e6 / answered
    return Summary(
        calls=calls,
        answered=answered,
        failures=dict(failures),
        calls_per_s=calls / results[0].seconds,
        response=response,
        service=service,
        lateness=lateness,
        server_cpu_us_per_call=cpu_us,
        reasons=tuple(_reasons(results, observed, failures, response, lateness)),
    )


def _zeros(count: int) -> Histogram:
    return Histogram(count=count, below=count, min_ns=0, max_ns=0) if count else Histogram()


def _merged(results: Sequence[EngineResult], name: str) -> Histogram:
    return merge(Histogram.from_json(getattr(result, name)) for result in results)


def _reasons(
    results: Sequence[EngineResult],
    observed: Observed,
    failures: Counter[str],
    response: Histogram,
    lateness: Histogram,
) -> list[str]:
    found = []
    if failures:
        found.append(f"{sum(failures.values())} calls failed")
    busy = max(result.busy for result in results)
    if busy > _BUSY_LIMIT:
        found.append(f"the generator was {busy:.0%} busy: the rate is a lower bound")
    scheduled = sum(result.scheduled or 0 for result in results)
    calls = sum(result.calls for result in results)
    if scheduled and calls < _SENT_SHARE * scheduled:
        found.append(f"{calls / scheduled:.1%} of the schedule was answered")
    late, middle = lateness.percentile_ns(99), response.percentile_ns(50)
    if late is not None and middle is not None and late > _LATENESS_SHARE * middle:
        found.append(
            f"the generator was late: p99 {late / 1000:.0f} µs, "
            f"over a tenth of the median response, {middle / 1000:.0f} µs"
        )
    if response.beyond(99) < _LEAST_BEYOND:
        found.append(f"too few samples: under {_LEAST_BEYOND} calls beyond p99")
    if observed.steal is not None and observed.steal > _STEAL_LIMIT:
        found.append(f"{observed.steal:.1%} of the CPU time was stolen by other machines")
    return found
