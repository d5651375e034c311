"""What a load run says, and whether it may be believed (no I/O)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, NamedTuple, Self

from capnp_rig.loadtest.stats.disturbance import (
    BUSY_LIMIT,
    WAIT_LIMIT,
    Surroundings,
    disturbances,
    idleness,
)
from capnp_rig.loadtest.stats.endpoint_summary import (
    EndpointsOfRepeat,
    EndpointSummary,
    endpoint_summaries,
)
from capnp_rig.loadtest.stats.failures import FailedCall, first_examples
from capnp_rig.loadtest.stats.figure import Figure
from capnp_rig.loadtest.stats.histogram import Histogram, us_of
from capnp_rig.loadtest.stats.pair_statistics import Interval, Verdict
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.run_units import (
    RATE,
    SERVER_CPU,
    CpuSample,
    Unit,
    percentile_key,
    units_of,
)
from capnp_rig.loadtest.stats.tally import WARMUP, Clocks, Report, Times, Window, add_windows

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
# What programs get beside.
_SUMMARIZED = sorted((*PERCENTILES, 95.0))
# When a figure is void: measuring.md's rules.
LIMITS: Mapping[str, float] = {
    "busy": BUSY_LIMIT,
    "lateness_share": 0.1,
    "sent_share": 0.99,
    "least_beyond": 100,
    "steal": 0.02,
    "cpu_wait": WAIT_LIMIT,
    "drift": 0.05,
    "least_server_cpu_s": 1.0,
}
# What the machine does to a run; with the rest it makes every figure void, others only some.
OF_MACHINE = frozenset({ReasonCode.STEAL, ReasonCode.CPU_WAIT, ReasonCode.THROTTLED})
DISTURBANCES = OF_MACHINE | {ReasonCode.DRIFTED, ReasonCode.NEITHER_BUSY}
_LATE = frozenset({ReasonCode.GENERATOR_LATE, ReasonCode.SCHEDULE_MISSED})
# Fewer full seconds have no thirds worth comparing.
_DRIFT_SECONDS = 9
_CONTRACT = "round trip"


@dataclass(frozen=True, slots=True)
class MeasuredRepeat:
    """One repeat: what each process reported, over how many seconds of the measured window.

    `busy` is the largest share of a process that was at work. `server_cpu_s` is what the server
    used in the window, `steal` the share of CPU time that other machines took; None where
    they cannot be read, the server's also where it is not on this machine. `surroundings` is what
    the machine did to the processes. `lost` says which generator processes ended without a report,
    and why. `server_cpu` has what each of the server's processes had used now and then, each in
    the order of time. `endpoint_cpu_s` is what each of several endpoints used, as far as that is
    known.
    """

    reports: Sequence[Report]
    seconds: float
    busy: float
    server_cpu_s: float | None = None
    steal: float | None = None
    surroundings: Surroundings = field(default_factory=Surroundings)
    lost: tuple[str, ...] = ()
    server_cpu: Sequence[CpuSample] = ()
    endpoint_cpu_s: Mapping[str, float] = field(default_factory=dict)


class Spread(NamedTuple):
    """What a figure was in the repeats of a run."""

    lowest: float
    median: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Return the spread of at least one value."""
        return cls(min(values), median(values), max(values))


@dataclass(frozen=True, slots=True)
class Summary:
    """A load run as a whole, all processes and repeats together; times are histograms in ns.

    In an open loop `offered` calls were due, None in a closed loop; `held` of them found no room
    when they were, and `unsent` of these were never sent.
    """

    calls: int
    failures: Mapping[str, int]
    calls_per_s: float
    response: Histogram
    service: Histogram
    lateness: Histogram
    is_open_loop: bool
    server_cpu_s: float | None
    busy: float
    reasons: tuple[Reason, ...] = ()
    labels: Mapping[str, Times] = field(default_factory=dict)
    connects: Histogram = field(default_factory=Histogram)
    reconnects: Histogram = field(default_factory=Histogram)
    walks: Histogram = field(default_factory=Histogram)
    # By figure, as `run_units` calls them: its 95 % interval, and what it is in each repeat.
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    repeats: tuple[Mapping[str, float], ...] = ()
    # The first failed calls, and what of the replies nobody compared.
    examples: tuple[FailedCall, ...] = ()
    unchecked: tuple[Reason, ...] = ()
    offered: int | None = None
    held: int = 0
    unsent: int = 0
    # Where several servers shared the load.
    endpoints: tuple[EndpointSummary, ...] = ()

    @property
    def sent(self) -> int | None:
        """How many of the calls that were offered were sent, None in a closed loop."""
        return None if self.offered is None else self.offered - self.unsent

    @property
    def errors(self) -> int:
        """Calls and connects that failed, and calls without an answer in the end."""
        return sum(self.failures.values())

    @property
    def server_cpu_us_per_call(self) -> float | None:
        """CPU µs of all server processes per answered call, None where it cannot be read."""
        if self.server_cpu_s is None or not self.calls:
            return None
        return self.server_cpu_s * 1e6 / self.calls

    @property
    def too_short_for(self) -> dict[str, float]:
        """The percentiles with too few calls beyond them, each with the seconds that it takes."""
        return {
            f"p{percent:g}": seconds_for(percent, self.calls_per_s)
            for percent in PERCENTILES
            if self.calls and self.response.beyond(percent) < LIMITS["least_beyond"]
        }

    @property
    def interval_unit(self) -> str:
        """What its intervals rest on: its repeats or, of a single one, its seconds."""
        return "repeat" if self.repeats else "second"

    @property
    def spread(self) -> dict[str, Spread]:
        """How each figure differs over the repeats; empty for a single run."""
        keys = dict.fromkeys(key for each in self.repeats for key in each)
        return {key: Spread.of([each[key] for each in self.repeats if key in each]) for key in keys}

    @property
    def verdict(self) -> Verdict:
        """``valid``, or for the `reasons` ``failed`` or else ``void``."""
        if any(reason.is_failure for reason in self.reasons):
            return Verdict.FAILED
        return Verdict.VOID if self.reasons else Verdict.VALID

    def to_json(self) -> dict[str, Any]:
        """Return the summary as the one object of ``--json``."""
        return {
            "calls": self.calls,
            "errors": self.errors,
            "errors_by_kind": dict(self.failures),
            "calls_per_s": self.calls_per_s,
            "offered": self.offered,
            "sent": self.sent,
            "held_back": self.held,
            "response_us": _times_us(self.response),
            "service_us": _times_us(self.service),
            "lateness_us": _times_us(self.lateness),
            "too_short_for": self.too_short_for,
            "reconnects": self.reconnects.count,
            "walks": walks_json(self.walks),
            "server_cpu_us_per_call": self.server_cpu_us_per_call,
            "interval_unit": self.interval_unit,
            "spread": {key: each._asdict() for key, each in self.spread.items()},
            "verdict": str(self.verdict),
            "reasons": [reason.text for reason in self.reasons],
            "reason_codes": [reason.to_json() for reason in self.reasons],
            "failed_calls": [each.to_json() for each in self.examples],
            "checked": checked(self.unchecked),
            "endpoints": [each.to_json() for each in self.endpoints],
        }


def checked(unchecked: Sequence[Reason]) -> dict[str, Any]:
    """Return in plain values whether all content of the replies was compared, and what was not."""
    return {
        "content": not unchecked,
        "unchecked": [reason.text for reason in unchecked],
        "unchecked_codes": [reason.to_json() for reason in unchecked],
    }


def plain_examples(summaries: Iterable[Summary]) -> list[dict[str, Any]]:
    """Return the first failed calls of several runs in plain values."""
    examples = first_examples(each for summary in summaries for each in summary.examples)
    return [each.to_json() for each in examples]


def walks_json(walks: Histogram) -> dict[str, float | None] | None:
    """Return in plain values how long it took to walk a chain of calls, None without one."""
    return {"count": walks.count, **_times_us(walks)} if walks.count else None


def _times_us(times: Histogram) -> dict[str, float | None]:
    named = {f"p{percent:g}": us_of(times.percentile_ns(percent)) for percent in _SUMMARIZED}
    return {"mean": us_of(times.mean_ns), **named, "max": us_of(times.max_ns)}


def summarize(parts: Sequence[MeasuredRepeat], *, interrupted: bool = False) -> Summary:
    """Add up the repeats of a run, at least one, and judge it."""
    reports = [report for part in parts for report in part.reports]
    total = add_windows(report.total for report in reports)
    scheduled = [report.scheduled for report in reports if report.scheduled is not None]
    is_open_loop = bool(scheduled)
    clocks = Clocks.of(total.times, is_open_loop=is_open_loop)
    failures = Counter(total.failures)
    unfinished = sum(report.unfinished for report in reports)
    if unfinished:
        failures["unfinished"] += unfinished
    seconds = sum(part.seconds for part in parts)
    used = [part.server_cpu_s for part in parts if part.server_cpu_s is not None]
    server_cpu_s = sum(used) if len(used) == len(parts) else None
    units = units_of(parts)
    whole = Unit.of(total, seconds, server_cpu_s).values(PERCENTILES)
    summary = Summary(
        calls=total.answered,
        failures=dict(failures),
        calls_per_s=total.answered / seconds if seconds else 0.0,
        response=clocks.response,
        service=clocks.service,
        lateness=clocks.lateness,
        is_open_loop=is_open_loop,
        server_cpu_s=server_cpu_s,
        busy=max(part.busy for part in parts),
        labels=total.calls,
        connects=total.connects,
        reconnects=total.reconnects,
        walks=total.walks,
        intervals={
            # A percentile that is shown is the end of its bucket, at most 0.8 % too high; what is
            # known of CPU time at the edges of the window is more than its samples say.
            key: (
                part.scaled(whole[key] / part.value) if key == SERVER_CPU else part
            ).interval.reaching(whole[key])
            for key, part in units.added(PERCENTILES).items()
            if key in whole
        },
        repeats=() if units.is_series else tuple(each.values(PERCENTILES) for each in units.units),
        examples=first_examples(each for report in reports for each in report.examples),
        unchecked=tuple(dict.fromkeys(each for report in reports for each in report.unchecked)),
        offered=sum(scheduled) if is_open_loop else None,
        held=sum(report.held for report in reports),
        unsent=sum(report.unsent for report in reports),
        endpoints=endpoint_summaries(
            total,
            [
                EndpointsOfRepeat(
                    part.seconds, [report.changes for report in part.reports], part.endpoint_cpu_s
                )
                for part in parts
            ],
            is_open_loop=is_open_loop,
        ),
    )
    stopped = [Reason.of(ReasonCode.INTERRUPTED, seconds=seconds)] if interrupted else []
    stopped += [
        Reason.of(ReasonCode.ENGINE_LOST, cause=cause) for part in parts for cause in part.lost
    ]
    return replace(summary, reasons=(*stopped, *_reasons(summary, sum(scheduled), parts)))


def _reasons(summary: Summary, scheduled: int, parts: Sequence[MeasuredRepeat]) -> Iterator[Reason]:
    if summary.errors:
        yield Reason.of(ReasonCode.CALLS_FAILED, count=summary.errors)
    if not summary.calls:
        yield Reason(ReasonCode.NO_CALLS)
    if summary.busy > LIMITS["busy"]:
        yield Reason.of(ReasonCode.GENERATOR_BUSY, busy=summary.busy)
    if scheduled and summary.calls < LIMITS["sent_share"] * scheduled:
        yield Reason.of(ReasonCode.SCHEDULE_MISSED, share=summary.calls / scheduled)
    late = lateness_reason(summary.lateness, summary.response)
    if late is not None:
        yield late
    steal = max((part.steal or 0.0 for part in parts), default=0.0)
    if steal > LIMITS["steal"]:
        yield Reason.of(ReasonCode.STEAL, share=steal)
    yield from disturbances([part.surroundings for part in parts])
    for part in parts:
        idle = idleness(part.surroundings, summary.service, summary.calls_per_s)
        if idle is not None:
            yield idle
        drifted = drift(part, summary.is_open_loop)
        if drifted is not None:
            yield drifted


def lateness_reason(lateness: Histogram, response: Histogram) -> Reason | None:
    """Return why the times of an open loop cannot be believed, None where they can."""
    late_ns, median_ns = lateness.percentile_ns(99), response.percentile_ns(50)
    if late_ns is None or median_ns is None:
        return None
    if late_ns <= LIMITS["lateness_share"] * median_ns:
        return None
    return Reason.of(ReasonCode.GENERATOR_LATE, late_us=late_ns / 1000, median_us=median_ns / 1000)


def drift(part: MeasuredRepeat, is_open_loop: bool) -> Reason | None:
    """Return how the last third of a repeat differs from the first, None where it hardly does.

    Compared are the medians of the full seconds: of the rate in a closed loop, of the median
    response time in an open one, whose rate is given.
    """
    seconds = _full_seconds(part)
    third = len(seconds) // 3
    if len(seconds) < _DRIFT_SECONDS:
        return None
    if is_open_loop:
        medians_ns = (second.times.response.percentile_ns(50) for second in seconds)
        values = [(median_ns or 0) / 1000 for median_ns in medians_ns]
    else:
        values = [second.answered for second in seconds]
    first, last = median(values[:third]), median(values[-third:])
    change = abs(last - first) / first if first else 0.0
    if change <= LIMITS["drift"]:
        return None
    unit = "µs p50" if is_open_loop else "calls/s"
    return Reason.of(ReasonCode.DRIFTED, change=change, first=first, last=last, unit=unit)


def _full_seconds(part: MeasuredRepeat) -> list[Window]:
    windows: dict[int, list[Window]] = {second: [] for second in range(int(part.seconds))}
    for report in part.reports:
        for second, window in report.windows.items():
            if second != WARMUP and second in windows:
                windows[second].append(window)
    return [add_windows(each) for each in windows.values()]


def figures(summary: Summary) -> list[Figure]:
    """Return every figure of a run with its interval and its own verdict."""
    listed = [_rate(summary)]
    clocks = {"service": "service time"}
    if summary.is_open_loop:
        clocks = {"response": "response time", **clocks, "lateness": "lateness"}
    for clock, name in clocks.items():
        listed += [_percentile(summary, clock, name, percent) for percent in PERCENTILES]
    listed.append(_failures(summary))
    listed.append(_cpu_per_call(summary))
    lost = [reason for reason in summary.reasons if reason.code is ReasonCode.ENGINE_LOST]
    # Some of the calls are counted nowhere.
    return [_voided(figure, lost) for figure in listed] if lost else listed


def _voided(figure: Figure, reasons: Sequence[Reason]) -> Figure:
    verdict = Verdict.FAILED if figure.verdict is Verdict.FAILED else Verdict.VOID
    return replace(figure, verdict=verdict, reasons=(*reasons, *figure.reasons))


def seconds_for(percent: float, calls_per_s: float) -> float:
    """Return how long a run takes until enough calls lie beyond a percentile."""
    return LIMITS["least_beyond"] / (1 - percent / 100) / calls_per_s


def short_reason(times: Histogram, percent: float, calls_per_s: float) -> Reason | None:
    """Return why there is no such percentile, None where enough calls lie beyond it."""
    least = LIMITS["least_beyond"]
    if times.beyond(percent) >= least:
        return None
    if not calls_per_s:
        return Reason.of(ReasonCode.FEW_BEYOND, least=least)
    seconds = seconds_for(percent, calls_per_s)
    return Reason.of(ReasonCode.TOO_SHORT, least=least, seconds=seconds)


def _with(codes: frozenset[ReasonCode], summary: Summary) -> list[Reason]:
    return [reason for reason in summary.reasons if reason.code in codes]


def _figure(name: str, value: float | None, unit: str, n: int, *problems: Reason | None) -> Figure:
    """Return a figure that is void where there is a problem."""
    reasons = tuple(problem for problem in problems if problem is not None)
    verdict = Verdict.VOID if reasons else Verdict.OK
    return Figure(name, value, unit, _CONTRACT, n, verdict=verdict, reasons=reasons)


def _with_interval(figure: Figure, summary: Summary, key: str) -> Figure:
    interval = summary.intervals.get(key)
    if interval is None:
        return figure
    labels = {"interval_unit": summary.interval_unit}
    return replace(figure, low=interval.low, high=interval.high, labels=labels)


def _failures(summary: Summary) -> Figure:
    calls = summary.calls + summary.errors
    figure = _figure("failures", summary.errors, "calls", calls)
    failed = tuple(_with(frozenset({ReasonCode.CALLS_FAILED}), summary))
    return replace(figure, verdict=Verdict.FAILED, reasons=failed) if failed else figure


def _rate(summary: Summary) -> Figure:
    name = f"answered calls, {'open' if summary.is_open_loop else 'closed'} loop"
    problems = _with(DISTURBANCES, summary)
    if not summary.calls:
        problems.append(Reason(ReasonCode.NO_CALLS))
    figure = _figure(name, summary.calls_per_s, "calls/s", summary.calls, *problems)
    figure = _with_interval(figure, summary, RATE)
    if not problems and summary.busy > LIMITS["busy"] and not summary.is_open_loop:
        busy = Reason.of(ReasonCode.GENERATOR_BUSY, busy=summary.busy)
        return replace(figure, verdict=Verdict.AT_LEAST, reasons=(busy,))
    return figure


def _percentile(summary: Summary, clock: str, name: str, percent: float) -> Figure:
    times: Histogram = getattr(summary, clock)
    problems = [
        *_with(DISTURBANCES | _LATE, summary),
        short_reason(times, percent, summary.calls_per_s),
    ]
    value_us = us_of(times.percentile_ns(percent))
    figure = _figure(f"{name} p{percent:g}", value_us, "µs", times.count, *problems)
    return _with_interval(figure, summary, percentile_key(clock, percent))


def _cpu_per_call(summary: Summary) -> Figure:
    problem: Reason | None = None
    if summary.server_cpu_s is None:
        problem = Reason(ReasonCode.CPU_NOT_READABLE)
    elif not summary.calls:
        problem = Reason(ReasonCode.NO_CALLS)
    elif summary.server_cpu_s < LIMITS["least_server_cpu_s"]:
        problem = Reason.of(ReasonCode.LITTLE_CPU, least_s=LIMITS["least_server_cpu_s"])
    cpu_us = summary.server_cpu_us_per_call
    problems = [*_with(DISTURBANCES, summary), problem]
    figure = _figure("server CPU per call", cpu_us, "µs", summary.calls, *problems)
    return _with_interval(figure, summary, SERVER_CPU)
