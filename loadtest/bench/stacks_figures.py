"""What the comparison of stacks says, from its samples alone (no I/O).

A rate, a CPU time and a throughput are medians over the rounds, with their interval. A percentile
is that of all rounds' calls together, never a mean of percentiles; its interval comes from drawing
rounds anew. A ratio is paired: both stacks in the same round.

An echo reverses nothing. It is a floor to be held against, so no ratio has it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from capnp_rig.loadtest.bench.pair_figures import CONTRACT, OK, interval_figure
from capnp_rig.loadtest.protocols import CAPNP, ECHO
from capnp_rig.loadtest.stats.disturbance import round_disturbances
from capnp_rig.loadtest.stats.figure import Figure
from capnp_rig.loadtest.stats.histogram import Histogram, merge
from capnp_rig.loadtest.stats.pair_statistics import (
    Interval,
    Judgement,
    Verdict,
    interval_of_median,
    judge,
    noise_floor,
    paired_ratio,
)
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.run_summary import LIMITS, lateness_reason, short_reason
from capnp_rig.loadtest.stats.unit_intervals import added_to_percentiles
from capnp_rig.loadtest.workload import TEXT

CLOSED, OPEN = "closed", "open"
# Of the rate that a stack makes in the closed loop: what it is asked for in the open one.
OPEN_SHARE = 0.5
CALLS, CPU, MB = "calls_per_s", "cpu_us_per_call", "mb_per_s"
PERCENTILES: Mapping[str, float] = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9}
RATIO_CALLS, RATIO_CPU = "ratio_calls_per_s", "ratio_cpu"
GENERATOR_BUSY, SERVER_BUSY = "generator_busy", "server_busy"
FLOOR_CALLS, FLOOR_CPU = "floor_calls_per_s", "floor_cpu"
_FLOOR = "floor: an echo"
_COVERED = 0.95


@dataclass(frozen=True, slots=True, order=True)
class StackLoad:
    """What is measured at a time: a stack under one load."""

    payload_kind: str
    payload_bytes: int
    loop: str
    stack: str


@dataclass(frozen=True, slots=True)
class StackSample:
    """What one generator process saw of one load in one round.

    `again` is whether it is capnp's second turn of the round, `order` the position of the turn.
    `server_cpu_s` is what the server's processes used in the window, `steal` the share of CPU time
    that other machines took; None where they cannot be read. The histograms are those of service,
    response and lateness, as JSON; `failures` go by kind. `surroundings` is what the machine did to
    the processes, as JSON, None in older results.
    """

    stack: str
    payload_kind: str
    payload_bytes: int
    loop: str
    round: int
    order: int
    again: bool
    connections: int
    in_flight: int
    rate_hz: float | None = None
    calls: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    server_cpu_s: float | None = None
    steal: float | None = None
    scheduled: int | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    service: Mapping[str, Any] | None = None
    response: Mapping[str, Any] | None = None
    lateness: Mapping[str, Any] | None = None
    surroundings: Mapping[str, Any] | None = None

    @property
    def load(self) -> StackLoad:
        """Return where it belongs."""
        return StackLoad(self.payload_kind, self.payload_bytes, self.loop, self.stack)

    @property
    def calls_per_s(self) -> float:
        """Answered calls per second."""
        return self.calls / self.seconds

    @property
    def server_busy(self) -> float:
        """The share of its CPU that the server used."""
        return (self.server_cpu_s or 0.0) / self.seconds

    def cpu_us_per_call(self) -> float | None:
        """Return the CPU µs of the server per call, None where it is not known."""
        if self.server_cpu_s is None or not self.calls:
            return None
        return self.server_cpu_s * 1e6 / self.calls

    def seconds_per_call(self) -> float | None:
        """Return the seconds of the window per call, None without one."""
        return self.seconds / self.calls if self.calls else None

    def times(self, name: str) -> Histogram:
        """Return the histogram of a clock."""
        plain = getattr(self, name)
        return Histogram() if plain is None else Histogram.from_json(plain)


def figures(samples: Sequence[StackSample]) -> list[Figure]:
    """Return the figures of a run: those of each load, then the ratios."""
    own = _by_load(sample for sample in samples if not sample.again)
    again = _by_load(sample for sample in samples if sample.again)
    grouped = [figure for chosen in own.values() for figure in _of_load(chosen)]
    closed = [load for load in own if load.loop == CLOSED]
    for payload in dict.fromkeys((load.payload_kind, load.payload_bytes) for load in closed):
        grouped += _ratios(own, again, *payload)
    return grouped


def _by_load(samples: Iterable[StackSample]) -> dict[StackLoad, list[StackSample]]:
    grouped: dict[StackLoad, list[StackSample]] = {}
    for sample in sorted(
        samples, key=lambda each: (each.payload_kind != TEXT, each.load, each.round)
    ):
        grouped.setdefault(sample.load, []).append(sample)
    return grouped


# --- one load --------------------------------------------------------------------------------


def _of_load(samples: Sequence[StackSample]) -> Iterator[Figure]:
    broken = _broken(samples)
    good = [sample for sample in samples if sample.calls]
    if not good:
        yield _figure(samples[0], CALLS, "calls/s", None, _void(broken))
        return
    closed = samples[0].loop == CLOSED
    judged = _void(broken)
    if closed and broken is None and _is_generator_busy(good):
        judged = Judgement(Verdict.AT_LEAST, (_busy_reason(good),))
    rates = [sample.calls_per_s for sample in good]
    yield _figure(samples[0], CALLS, "calls/s", _median(rates), judged)
    yield from _percentiles(good, broken)
    yield _cpu(good, broken)
    rates_mb = [rate * samples[0].payload_bytes / 1e6 for rate in rates]
    yield _figure(samples[0], MB, "MB/s", _median(rates_mb), judged)
    for figure, shares in (
        (GENERATOR_BUSY, [sample.busy for sample in good]),
        (SERVER_BUSY, [sample.server_busy for sample in good]),
    ):
        yield _figure(samples[0], figure, "share", _median(shares))


def _figure(
    sample: StackSample,
    figure: str,
    unit: str,
    measured: Interval | None,
    judged: Judgement = OK,
    **labels: object,
) -> Figure:
    """Return a figure of the load of `sample`."""
    baseline = labels.get("baseline")
    over = f" over {baseline}" if baseline else ""
    payload = f"{sample.payload_kind} of {sample.payload_bytes} B"
    return interval_figure(
        f"{sample.stack}{over}, {payload}, {sample.loop} loop: {figure}",
        measured,
        unit,
        _FLOOR if sample.stack == ECHO else CONTRACT,
        {
            "stack": sample.stack,
            "payload_kind": sample.payload_kind,
            "payload_bytes": sample.payload_bytes,
            "loop": sample.loop,
            "connections": sample.connections,
            "in_flight": sample.in_flight,
            "figure": figure,
            **labels,
        },
        judged,
    )


def _median(values: Sequence[float]) -> Interval:
    return interval_of_median(values)


def _void(*problems: Reason | None) -> Judgement:
    """Return that a figure is void for the first problem, or ok without one."""
    problem = next((each for each in problems if each is not None), None)
    return OK if problem is None else Judgement(Verdict.VOID, (problem,))


def _broken(samples: Sequence[StackSample]) -> Reason | None:
    """Return why nothing of a load can be believed, None where that can."""
    failures: Counter[str] = Counter()
    for sample in samples:
        failures.update(sample.failures)
    if failures:
        kind, count = failures.most_common(1)[0]
        return Reason.of(
            ReasonCode.CALLS_FAILED_MOSTLY, count=failures.total(), most=count, kind=kind
        )
    if not all(sample.calls for sample in samples):
        return Reason(ReasonCode.EMPTY_ROUND)
    steal = sum((sample.steal or 0.0) for sample in samples) / len(samples)
    if steal > LIMITS["steal"]:
        return Reason.of(ReasonCode.STEAL, share=steal)
    service = merge(sample.times("service") for sample in samples)
    disturbed = round_disturbances(
        (sample.surroundings for sample in samples), service, _rate(samples)
    )
    return disturbed[0] if disturbed else None


def _rate(samples: Sequence[StackSample]) -> float:
    """Return the calls per second over all samples."""
    return sum(each.calls for each in samples) / sum(each.seconds for each in samples)


def _is_generator_busy(samples: Sequence[StackSample]) -> bool:
    return median(sample.busy for sample in samples) > LIMITS["busy"]


def _is_server_busy(samples: Sequence[StackSample]) -> bool:
    return median(sample.server_busy for sample in samples) > LIMITS["busy"]


def _busy_reason(samples: Sequence[StackSample], subject: str = "") -> Reason:
    return Reason.of(
        ReasonCode.GENERATOR_LIMITED,
        subject=subject,
        busy=median(sample.busy for sample in samples),
        server=median(sample.server_busy for sample in samples),
    )


def _cpu(samples: Sequence[StackSample], broken: Reason | None) -> Figure:
    costs = [cost for sample in samples if (cost := sample.cpu_us_per_call()) is not None]
    is_known = len(costs) == len(samples)
    problem = _little_cpu(samples) if is_known else Reason(ReasonCode.CPU_NOT_READABLE)
    return _figure(samples[0], CPU, "µs", _median(costs) if costs else None, _void(broken, problem))


def _little_cpu(samples: Sequence[StackSample]) -> Reason | None:
    least_s = LIMITS["least_server_cpu_s"]
    used_s = sum(sample.server_cpu_s or 0.0 for sample in samples)
    return Reason.of(ReasonCode.LITTLE_CPU, least_s=least_s) if used_s < least_s else None


# --- percentiles -----------------------------------------------------------------------------


def _percentiles(samples: Sequence[StackSample], broken: Reason | None) -> Iterator[Figure]:
    """Yield the percentiles: of service times in a closed loop, of response times in an open."""
    is_open = samples[0].loop == OPEN
    times = [sample.times("response" if is_open else "service") for sample in samples]
    whole = merge(times)
    late = _late(samples, whole) if is_open else None
    percents = list(PERCENTILES.values())
    added = added_to_percentiles(times, percents, is_series=False)
    calls_per_s = _rate(samples)
    for name, percent in PERCENTILES.items():
        value_ns = whole.percentile_ns(percent)
        few = short_reason(whole, percent, calls_per_s)
        measured = None
        if value_ns is not None:
            measured = Interval(value_ns / 1000, None, None, len(times))
            if percent in added:
                measured = added[percent].scaled(1e-3).interval.reaching(value_ns / 1000)
        yield _figure(samples[0], name, "µs", measured, _void(broken, late, few))


def _late(samples: Sequence[StackSample], response: Histogram) -> Reason | None:
    """Return why the times of an open loop cannot be believed, None where they can."""
    scheduled = sum(sample.scheduled or 0 for sample in samples)
    answered = sum(sample.calls for sample in samples)
    if answered < LIMITS["sent_share"] * scheduled:
        return Reason.of(ReasonCode.SCHEDULE_MISSED, share=answered / scheduled)
    return lateness_reason(merge(sample.times("lateness") for sample in samples), response)


# --- ratios ----------------------------------------------------------------------------------


def _ratios(
    own: Mapping[StackLoad, Sequence[StackSample]],
    again: Mapping[StackLoad, Sequence[StackSample]],
    payload_kind: str,
    payload_bytes: int,
) -> Iterator[Figure]:
    """Yield capnp against itself and against the others, in the closed loop of one payload."""
    base = StackLoad(payload_kind, payload_bytes, CLOSED, CAPNP)
    if base not in own:
        return
    candidate = own[base]
    for floor_name, name, cost in (
        (FLOOR_CALLS, RATIO_CALLS, StackSample.seconds_per_call),
        (FLOOR_CPU, RATIO_CPU, StackSample.cpu_us_per_call),
    ):
        same = _paired(again.get(base, ()), candidate, cost)
        floor = None if same is None else noise_floor(same)
        yield _figure(candidate[0], floor_name, "ratio", same, Judgement(Verdict.FLOOR))
        for stack in dict.fromkeys(load.stack for load in own):
            rival = own.get(replace(base, stack=stack))
            if rival is not None and stack not in {CAPNP, ECHO}:
                ratio = _paired(rival, candidate, cost)
                judged = _judged(name, rival, candidate, ratio, floor)
                labels = {"baseline": stack, "floor": floor}
                yield _figure(candidate[0], name, "ratio", ratio, judged, **labels)


def _paired(
    baseline: Sequence[StackSample],
    candidate: Sequence[StackSample],
    cost: Callable[[StackSample], float | None],
) -> Interval | None:
    """Return how many times less the candidate costs, over the rounds that have both."""
    old = {sample.round: grouped for sample in baseline if (grouped := cost(sample))}
    new = {sample.round: grouped for sample in candidate if (grouped := cost(sample))}
    rounds = sorted(old.keys() & new.keys())
    if not rounds:
        return None
    return paired_ratio([old[at] for at in rounds], [new[at] for at in rounds])


def _judged(
    name: str,
    rival: Sequence[StackSample],
    candidate: Sequence[StackSample],
    ratio: Interval | None,
    floor: float | None,
) -> Judgement:
    """Return the verdict on a ratio."""
    for samples in (rival, candidate):
        problem = _broken(samples) or (_little_cpu(samples) if name == RATIO_CPU else None)
        if problem is not None:
            return _void(replace(problem, subject=samples[0].stack))
    if ratio is None:
        return _void(Reason(ReasonCode.NO_PAIRS))
    judged = judge(ratio, floor)
    # With a server that is as busy the rate is its own, whatever the generator could do.
    limited = [
        _is_generator_busy(samples) and not _is_server_busy(samples)
        for samples in (rival, candidate)
    ]
    if name == RATIO_CALLS and limited[0]:
        return _void(_busy_reason(rival, rival[0].stack))
    if name == RATIO_CALLS and limited[1] and judged.verdict is not Verdict.VOID:
        bound = (Reason(ReasonCode.LOWER_BOUND), _busy_reason(candidate))
        return Judgement(judged.verdict, bound)
    return judged
