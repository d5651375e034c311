"""The figures of a sweep, from its steps alone (no I/O).

Each number of calls in flight has a step per round; a figure is the median over the rounds, with
the interval that they give. By Little's law the calls in flight are the rate times the mean
service time: what is counted must agree with what was asked for, or the clocks are wrong.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from capnp_rig.loadtest.bench.pair_figures import CONTRACT, median_figure
from capnp_rig.loadtest.stats.disturbance import round_disturbances
from capnp_rig.loadtest.stats.figure import Figure, FigureKind
from capnp_rig.loadtest.stats.histogram import Histogram, merge, us_of
from capnp_rig.loadtest.stats.pair_statistics import Judgement, Verdict
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.run_summary import LIMITS, short_reason

RATE, P50, P99 = "calls/s", "service p50", "service p99"
CPU, LITTLE = "server CPU per call", "in flight, by Little's law"
PERCENTILES: Mapping[str, float] = {P50: 50.0, P99: 99.0}
UNITS: Mapping[str, str] = {RATE: "calls/s", P50: "µs", P99: "µs", CPU: "µs", LITTLE: "calls"}
# How far the calls in flight may be from what was asked for.
_LITTLE_MARGIN = 0.05
# What is within so much of the highest rate is as good as it.
_NEAR = 0.95


@dataclass(frozen=True, slots=True)
class SweepStep:
    """A closed loop with `connections`, each with `in_flight` calls under way, in one round.

    `calls` were answered in `seconds`; `busy` is the largest share of them that a generator process
    worked. `server_cpu_s` and `steal` are None where they cannot be read. `service` is a
    `Histogram` made plain, `failed_calls` are examples of failed calls; `surroundings` is a
    `Surroundings` made plain, None in older results. `walks` is a plain `Histogram` of the time
    that the calls of ``--via`` took, None without them.
    """

    round: int
    order: int
    connections: int
    in_flight: int
    calls: int
    seconds: float
    busy: float
    server_cpu_s: float | None
    steal: float | None
    failures: Mapping[str, int]
    service: Mapping[str, Any]
    failed_calls: Sequence[Mapping[str, Any]] = ()
    surroundings: Mapping[str, Any] | None = None
    walks: Mapping[str, Any] | None = None

    @property
    def calls_in_flight(self) -> int:
        """How many calls are under way on all connections."""
        return self.connections * self.in_flight

    def values(self) -> dict[str, float | None]:
        """Return what the step says of each figure, None where it cannot tell."""
        times = Histogram.from_json(self.service)
        rate, mean_ns = self.calls / self.seconds, times.mean_ns
        return {
            RATE: rate,
            **{what: us_of(times.percentile_ns(at)) for what, at in PERCENTILES.items()},
            CPU: self.server_cpu_s * 1e6 / self.calls
            if self.server_cpu_s is not None and self.calls
            else None,
            LITTLE: None if mean_ns is None else rate * mean_ns / 1e9,
        }


def by_flight(steps: Sequence[SweepStep]) -> dict[int, list[SweepStep]]:
    """Return the steps of each number of calls in flight, by round, the fewest first."""
    grouped: dict[int, list[SweepStep]] = {}
    for step in sorted(steps, key=lambda step: (step.calls_in_flight, step.round)):
        grouped.setdefault(step.calls_in_flight, []).append(step)
    return grouped


def figures(steps: Sequence[SweepStep]) -> list[Figure]:
    """Return the figures of a sweep, those of each number of calls in flight together."""
    return [figure for each in by_flight(steps).values() for figure in _of_flight(each)]


def _of_flight(steps: Sequence[SweepStep]) -> Iterator[Figure]:
    first, seen = steps[0], [step.values() for step in steps]
    labels = {
        "kind": FigureKind.VALUE,
        "load": f"{first.connections} x {first.in_flight}",
        "connections": first.connections,
        "in_flight": first.in_flight,
        "calls_in_flight": first.calls_in_flight,
    }
    for what, unit in UNITS.items():
        name = f"{labels['load']}: {what}"
        values = [value for each in seen if (value := each[what]) is not None]
        own = {**labels, "what": what}
        yield median_figure(name, values, unit, CONTRACT, own, judge_steps(what, steps))


def judge_steps(what: str, steps: Sequence[SweepStep]) -> Judgement:
    """Return the rig's verdict on a figure of some steps with as many calls in flight."""
    failed = sum(sum(step.failures.values()) for step in steps)
    steal = max(step.steal or 0.0 for step in steps)
    busy = max(step.busy for step in steps)
    reasons = [Reason.of(ReasonCode.CALLS_FAILED, count=failed)] if failed else []
    if any(not step.calls for step in steps):
        reasons.append(Reason(ReasonCode.NO_CALLS))
    if steal > LIMITS["steal"]:
        reasons.append(Reason.of(ReasonCode.STEAL, share=steal))
    reasons += round_disturbances((step.surroundings for step in steps), *_together(steps))
    reasons += _own_reasons(what, steps)
    if reasons:
        return Judgement(Verdict.VOID, tuple(reasons))
    if what == RATE and busy > LIMITS["busy"]:
        return Judgement(Verdict.AT_LEAST, (Reason.of(ReasonCode.GENERATOR_BUSY, busy=busy),))
    return Judgement(Verdict.OK)


def _together(steps: Sequence[SweepStep]) -> tuple[Histogram, float]:
    """Return the service times of all steps, and their calls per second."""
    seconds = sum(step.seconds for step in steps)
    calls_per_s = sum(step.calls for step in steps) / seconds if seconds else 0.0
    return merge(Histogram.from_json(step.service) for step in steps), calls_per_s


def _own_reasons(what: str, steps: Sequence[SweepStep]) -> Iterator[Reason]:
    if what in PERCENTILES:
        times, calls_per_s = _together(steps)
        short = short_reason(times, PERCENTILES[what], calls_per_s)
        if short is not None:
            yield short
    used = [step.server_cpu_s for step in steps]
    if what == CPU:
        known_s = [cpu_s for cpu_s in used if cpu_s is not None]
        if len(known_s) < len(used):
            yield Reason(ReasonCode.CPU_NOT_READABLE)
        elif sum(known_s) < LIMITS["least_server_cpu_s"]:
            yield Reason.of(ReasonCode.LITTLE_CPU, least_s=LIMITS["least_server_cpu_s"])
    if what == LITTLE:
        counted = [value for step in steps if (value := step.values()[LITTLE]) is not None]
        asked = steps[0].calls_in_flight
        if counted and abs(median(counted) / asked - 1) > _LITTLE_MARGIN:
            yield Reason.of(ReasonCode.OFF_LITTLES_LAW, margin=_LITTLE_MARGIN, asked=asked)


@dataclass(frozen=True, slots=True)
class Knee:
    """The highest rate, its number of calls in flight, and the fewest that come within 5 % of it.

    `is_least` is whether the generator was the limit, so that the server can do more; `is_last`
    whether no lower number does, and no higher one was tried, so that the rate may still rise.
    """

    rate_hz: float
    in_flight: int
    enough: int
    is_least: bool
    is_last: bool


def knee_of(figures: Sequence[Figure]) -> Knee | None:
    """Return where more calls in flight make no higher rate; None where all rates are void."""
    rates = [
        (figure.value, int(figure.labels["calls_in_flight"]), figure.verdict)
        for figure in figures
        if figure.labels.get("what") == RATE and figure.value is not None and not figure.is_void
    ]
    if not rates:
        return None
    rate_hz, in_flight, verdict = max(rates)
    enough = min(many for rate, many, _ in rates if rate >= _NEAR * rate_hz)
    is_last = enough == max(many for _, many, _ in rates) > min(many for _, many, _ in rates)
    return Knee(rate_hz, in_flight, enough, verdict is Verdict.AT_LEAST, is_last)
