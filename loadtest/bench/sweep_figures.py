"""The figures of a sweep, from its steps alone (no I/O).

Each number of calls in flight has a step per round; a figure is the median over the rounds, with
the interval that they give. By Little's law the calls in flight are the rate times the mean
service time: what is counted must agree with what was asked for, or the clocks are wrong.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from capnp_rig.loadtest.bench.pair_run import median_figure
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.histogram import Histogram, merge
from capnp_rig.loadtest.stats.run_summary import LIMITS

RATE, P50, P99, CPU, LITTLE = (
    *("calls/s", "service p50", "service p99"),
    *("server CPU per call", "in flight, by Little's law"),
)
UNITS: Mapping[str, str] = {RATE: "calls/s", P50: "µs", P99: "µs", CPU: "µs", LITTLE: "calls"}
# How far the calls in flight may be from what was asked for.
_LITTLE_MARGIN = 0.05
# What is within so much of the highest rate is as good as it.
_NEAR = 0.95
_CONTRACT = "round trip"


@dataclass(frozen=True, slots=True)
class Step:
    """A closed loop with `connections`, each with `in_flight` calls under way, in one round.

    `calls` were answered in `seconds`; `busy` is the largest share of them that a generator process
    worked. `server_cpu_s` and `steal` are None where they cannot be read. `service` is a
    `Histogram` made plain.
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
            P50: _us(times.percentile_ns(50)),
            P99: _us(times.percentile_ns(99)),
            CPU: self.server_cpu_s * 1e6 / self.calls
            if self.server_cpu_s is not None and self.calls
            else None,
            LITTLE: None if mean_ns is None else rate * mean_ns / 1e9,
        }


def _us(value_ns: int | None) -> float | None:
    return None if value_ns is None else value_ns / 1000


def by_flight(steps: Sequence[Step]) -> dict[int, list[Step]]:
    """Return the steps of each number of calls in flight, by round, the fewest first."""
    found: dict[int, list[Step]] = {}
    for step in sorted(steps, key=lambda step: (step.calls_in_flight, step.round)):
        found.setdefault(step.calls_in_flight, []).append(step)
    return found


def figures(steps: Sequence[Step]) -> list[Figure]:
    """Return the figures of a sweep, those of each number of calls in flight together."""
    return [one for each in by_flight(steps).values() for one in _of_flight(each)]


def _of_flight(steps: Sequence[Step]) -> Iterator[Figure]:
    first, seen = steps[0], [step.values() for step in steps]
    labels = {
        "kind": "value",
        "load": f"{first.connections} x {first.in_flight}",
        "connections": first.connections,
        "in_flight": first.in_flight,
        "calls_in_flight": first.calls_in_flight,
    }
    for what, unit in UNITS.items():
        name = f"{labels['load']}: {what}"
        values = [value for one in seen if (value := one[what]) is not None]
        verdict, reason = judged(what, steps)
        if values:
            found = median_figure(name, values, unit, _CONTRACT, verdict=verdict, reason=reason)
        else:
            found = Figure(name, None, unit, _CONTRACT, 0, verdict=verdict, reason=reason)
        yield Figure(**{**_plain(found), "labels": {**labels, "what": what}})


def _plain(figure: Figure) -> dict[str, Any]:
    return {name: getattr(figure, name) for name in Figure.__dataclass_fields__}


def judged(what: str, steps: Sequence[Step]) -> tuple[str, str]:
    """Return the rig's verdict on a figure of some steps with as many calls in flight, and why."""
    failed = sum(sum(step.failures.values()) for step in steps)
    steal = max(step.steal or 0.0 for step in steps)
    busy = max(step.busy for step in steps)
    reasons = [f"{failed:,} calls failed"] * bool(failed)
    reasons += ["no call was answered"] * any(not step.calls for step in steps)
    if steal > LIMITS["steal"]:
        reasons.append(f"{steal:.1%} of the CPU time was stolen by other machines")
    reasons += list(_own_reasons(what, steps))
    if reasons:
        return "void", "; ".join(reasons)
    if what == RATE and busy > LIMITS["busy"]:
        return "at least", f"the generator was {busy:.0%} busy"
    return "ok", ""


def _own_reasons(what: str, steps: Sequence[Step]) -> Iterator[str]:
    if what in {P50, P99}:
        times = merge(Histogram.from_json(step.service) for step in steps)
        if times.beyond(float(what.rpartition("p")[2])) < LIMITS["least_beyond"]:
            yield f"under {LIMITS['least_beyond']:g} calls beyond it"
    used = [step.server_cpu_s for step in steps]
    if what == CPU:
        known_s = [one for one in used if one is not None]
        if len(known_s) < len(used):
            yield "not readable: the server is elsewhere, or a worker came or went"
        elif sum(known_s) < LIMITS["least_server_cpu_s"]:
            yield f"under {LIMITS['least_server_cpu_s']:g} s of server CPU"
    if what == LITTLE:
        counted = [value for step in steps if (value := step.values()[LITTLE]) is not None]
        asked = steps[0].calls_in_flight
        if counted and abs(median(counted) / asked - 1) > _LITTLE_MARGIN:
            yield f"over {_LITTLE_MARGIN:.0%} from the {asked:,} that were asked for"


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


def knee_of(found: Sequence[Figure]) -> Knee | None:
    """Return where more calls in flight make no higher rate; None where all rates are void."""
    rates = [
        (one.value, int(one.labels["calls_in_flight"]), one.verdict)
        for one in found
        if one.labels.get("what") == RATE and one.value is not None and one.verdict != "void"
    ]
    if not rates:
        return None
    rate_hz, in_flight, verdict = max(rates)
    enough = min(many for rate, many, _ in rates if rate >= _NEAR * rate_hz)
    is_last = enough == max(many for _, many, _ in rates) > min(many for _, many, _ in rates)
    return Knee(rate_hz, in_flight, enough, verdict == "at least", is_last)
