"""What one process timed of one case, as a value and in ``samples.jsonl.gz`` (no I/O)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from capnp_rig.loadtest.bench.plan import Case

# pytest-benchmark's own files have more digits than any clock.
_DIGITS = 6
# The position of a case that was not timed.
_NOWHERE = -1


@dataclass(frozen=True, slots=True)
class CaseTimes:
    """Seconds per call in each round; `position` counts the cases of the process.

    With a reason in `void` the codec failed its verification: nothing was timed, or in vain.
    """

    process: int
    position: int
    case: Case
    rounds_s: tuple[float, ...]
    iterations: int
    void: str = ""

    @property
    def median_ns(self) -> float | None:
        """The median of the rounds, in ns; None of void ones."""
        return None if self.void else median(self.rounds_s) * 1e9


def case_times_of(
    process: int, benchmark_json: Mapping[str, Any], voids: Mapping[Case, str] | None = None
) -> Iterator[CaseTimes]:
    """Yield what is in one file of pytest-benchmark, then the void cases."""
    reasons = voids or {}
    for position, entry in enumerate(benchmark_json["benchmarks"]):
        stats, case = entry["stats"], Case(**entry["extra_info"]["case"])
        if case not in reasons:
            rounds_s = tuple(float(f"{value:.{_DIGITS}g}") for value in stats["data"])
            yield CaseTimes(process, position, case, rounds_s, stats["iterations"])
    for case, reason in reasons.items():
        yield CaseTimes(process, _NOWHERE, case, (), 0, reason)


def case_times_to_json(times: CaseTimes) -> dict[str, Any]:
    """Return plain values: what the case is, and what was timed, the median among it."""
    case = times.case
    return {
        "process": times.process,
        "position": times.position,
        "case": case.name,
        "subject": case.subject,
        **case.labels(),
        "gc": case.gc,
        "iterations": times.iterations,
        "rounds": len(times.rounds_s),
        "median_ns": times.median_ns,
        "rounds_s": times.rounds_s,
        **({"void": times.void} if times.void else {}),
    }
