"""Which benchmarks a process runs, in which order, and what their samples say (no I/O).

The cases of one group (contract, size) run side by side: the two baselines, each a second
time for A/A, and the candidates. Even processes run them one way, odd ones the other, so
half the pairs go AB and half BA; groups are shuffled per process.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from loadtest.pair_statistics import (
    BOOTSTRAP_PAIRS,
    Interval,
    interval_of_median,
    judge,
    noise_floor,
    paired_ratio,
)
from loadtest.results import Figure
from loadtest.rivals import CODECS, CONTRACTS, ENCODE, SIZES_BYTES

BASELINES = ("orjson", "json")
CANDIDATES = ("pycapnp", "wire")
# A second timing of a baseline, to be held against its first.
AGAIN = " again"
MEMCPY, EMPTY_CALL = "memcpy", "empty call"
FLOOR = "floor"


@dataclass(frozen=True, slots=True)
class Case:
    """One benchmark: a codec, or a floor, under a contract, at a payload size in bytes."""

    subject: str
    contract: str
    size_bytes: int
    gc: bool = False

    @property
    def name(self) -> str:
        """A name that no other case has."""
        return f"{self.contract}, {self.size_bytes} B, {self.subject}{', GC on' * self.gc}"

    @property
    def codec(self) -> str:
        """The name of the codec behind the subject."""
        return self.subject.removesuffix(AGAIN)


def groups() -> list[list[Case]]:
    """Return the cases; those of a group are compared with each other."""
    found = []
    for size in SIZES_BYTES:
        for contract in CONTRACTS:
            names = [name for name in CODECS if contract != ENCODE or CODECS[name].build]
            subjects = [*names, *(name + AGAIN for name in BASELINES)]
            found.append([Case(subject, contract, size) for subject in subjects])
        found.append([Case(MEMCPY, FLOOR, size), Case(EMPTY_CALL, FLOOR, size)])
    found.append([Case(name, CONTRACTS[0], SIZES_BYTES[0], gc=True) for name in CODECS])
    return found


def order(process: int) -> list[Case]:
    """Return the cases in the order in which a process runs them."""
    rng = random.Random(process // 2)  # noqa: S311 - repeatable, not secret
    found = groups()
    # Both processes of a pair get the same shuffle, and the reverse of each other.
    rng.shuffle(found)
    for group in found:
        rng.shuffle(group)
    cases = [case for group in found for case in group]
    return cases if process % 2 == 0 else cases[::-1]


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process timed of one case: seconds per call in each round."""

    process: int
    position: int
    case: Case
    rounds_s: tuple[float, ...]
    iterations: int

    @property
    def median_ns(self) -> float:
        """The median of the rounds, in ns."""
        return median(self.rounds_s) * 1e9


def samples_of(process: int, benchmark_json: Mapping[str, Any]) -> Iterator[Sample]:
    """Yield the samples in one file of pytest-benchmark."""
    for position, entry in enumerate(benchmark_json["benchmarks"]):
        stats = entry["stats"]
        case = Case(**entry["extra_info"]["case"])
        yield Sample(process, position, case, tuple(stats["data"]), stats["iterations"])


def sample_to_json(sample: Sample) -> dict[str, Any]:
    """Return plain values, the median among them."""
    case = sample.case
    return {
        "process": sample.process,
        "position": sample.position,
        "subject": case.subject,
        "contract": case.contract,
        "size_bytes": case.size_bytes,
        "gc": case.gc,
        "iterations": sample.iterations,
        "median_ns": sample.median_ns,
        "rounds_s": sample.rounds_s,
    }


def sample_from_json(plain: Mapping[str, Any]) -> Sample:
    """Return what `sample_to_json` wrote."""
    case = Case(plain["subject"], plain["contract"], plain["size_bytes"], plain["gc"])
    return Sample(
        plain["process"], plain["position"], case, tuple(plain["rounds_s"]), plain["iterations"]
    )


def figures(samples: Iterable[Sample]) -> list[Figure]:
    """Return every figure that the samples support: times, A/A rows and ratios."""
    medians: dict[Case, dict[int, float]] = {}
    for sample in samples:
        medians.setdefault(sample.case, {})[sample.process] = sample.median_ns
    cases = [case for group in groups() for case in group if case in medians]
    found = [_time(case, medians[case]) for case in cases]
    for group in groups():
        found += _ratios([case for case in group if case in medians], medians)
    return found


def _time(case: Case, by_process: Mapping[int, float]) -> Figure:
    times = interval_of_median(list(by_process.values()), seed=0)
    return Figure(
        name=f"time: {case.name}",
        value=times.value,
        unit="ns",
        contract=case.contract,
        n=times.n,
        low=times.low,
        high=times.high,
        reason=_interval_kind(times),
    )


def _interval_kind(interval: Interval) -> str:
    if interval.low is None:
        return "too few processes for an interval"
    return "interval is the plain range" if interval.n < BOOTSTRAP_PAIRS else ""


def _ratios(group: Sequence[Case], medians: Mapping[Case, Mapping[int, float]]) -> list[Figure]:
    by_subject = {case.subject: case for case in group if not case.gc}
    found = []
    for baseline in BASELINES:
        if baseline not in by_subject or baseline + AGAIN not in by_subject:
            continue
        old = by_subject[baseline]
        again = _ratio(medians, old, by_subject[baseline + AGAIN])
        floor = noise_floor(again)
        found.append(_ratio_figure(f"A/A: {old.name}", old.contract, again, "A/A", "noise floor"))
        for name in CANDIDATES:
            if name in by_subject:
                new = by_subject[name]
                ratio = _ratio(medians, old, new)
                judged = judge(ratio, floor)
                label = f"ratio: {new.name}, against {baseline}"
                figure = _ratio_figure(label, old.contract, ratio, judged.verdict, judged.reason)
                found.append(figure)
    return found


def _ratio(medians: Mapping[Case, Mapping[int, float]], old: Case, new: Case) -> Interval:
    both = sorted(medians[old].keys() & medians[new].keys())
    return paired_ratio([medians[old][p] for p in both], [medians[new][p] for p in both])


def _ratio_figure(name: str, contract: str, ratio: Interval, verdict: str, reason: str) -> Figure:
    return Figure(
        name=name,
        value=ratio.value,
        unit="times as fast",
        contract=contract,
        n=ratio.n,
        low=ratio.low,
        high=ratio.high,
        verdict=str(verdict),
        reason=reason,
    )
