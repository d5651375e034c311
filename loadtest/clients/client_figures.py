"""What a comparison of clients says, from its samples alone (no I/O).

Every figure is of one contender and one phase, over the calls of all rounds together. A percentile
counts a call without a right reply as one of `DEADLINE_S`, so that failing fast is not fast. The
attempts are what the servers counted, over the calls that were due.

`CRITERIA` judge the default stack: a figure that misses one has failed. Where the machine was
disturbed, times are void; goodput and attempts are judged all the same. Calls leave late where
others have the CPU, and where the client itself is at work: a percentile is void if the p99 of the
lateness is over a tenth of it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from capnp_rig.loadtest.bench.pair_figures import CONTRACT, voided
from capnp_rig.loadtest.clients.fault_plan import DEADLINE_S
from capnp_rig.loadtest.stats.disturbance import round_disturbances
from capnp_rig.loadtest.stats.exit_status import ExitStatus
from capnp_rig.loadtest.stats.figure import Figure
from capnp_rig.loadtest.stats.histogram import Histogram, merge
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.run_summary import LIMITS, short_reason

JUDGED = "default"
HEALTHY, FAULTS = "healthy", "faults"
GOOD, ATTEMPTS, P99_RATIO = "good", "attempts per call", "p99 over healthy"
PERCENTILES: Mapping[str, float] = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9}
_DEADLINE_NS = round(DEADLINE_S * 1e9)


@dataclass(frozen=True, slots=True)
class ClientSample:
    """What a contender made of one round; `order` is the position of its turn.

    `executions` are what each of the servers counted, while all were healthy and from then on.
    `per_second` has `process.SecondReport` of each second, as JSON; those from `healthy_s` on are
    those of the faults. `surroundings` is what the machine did to the processes, as JSON.
    """

    contender: str
    round: int
    order: int
    healthy_s: float
    executions: Sequence[Sequence[int]]
    per_second: Sequence[Mapping[str, Any]]
    surroundings: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Criterion:
    """What the default stack is asked for, while servers fail: a bound of a figure."""

    figure: str
    limit: float
    is_least: bool = False

    def judges(self, figure: Figure) -> bool:
        """Whether it is about a figure."""
        labels = figure.labels
        place = labels["contender"], labels["phase"], labels["figure"]
        return place == (JUDGED, FAULTS, self.figure)

    def is_met(self, value: float) -> bool:
        """Whether a value keeps it."""
        return value >= self.limit if self.is_least else value <= self.limit

    @property
    def bound(self) -> str:
        """Which side of the limit is asked for."""
        return "at least" if self.is_least else "at most"


CRITERIA = (
    Criterion(GOOD, 0.999, is_least=True),
    Criterion(ATTEMPTS, 1.2),
    Criterion(P99_RATIO, 3),
)


class Calls:
    """The calls of some seconds together."""

    def __init__(self, seconds: Iterable[Mapping[str, Any]]) -> None:
        """Add up what `process.SecondReport` has, as JSON."""
        seconds = list(seconds)
        self.due = sum(each["due"] for each in seconds)
        self.good = merge(Histogram.from_json(each["good"]) for each in seconds)
        self.lateness = merge(Histogram.from_json(each["lateness"]) for each in seconds)
        self.failures = Counter[str]()
        for each in seconds:
            self.failures.update(each["failures"])

    @property
    def times(self) -> Histogram:
        """Return the response times, each call without a right reply counted as the deadline."""
        return merge([self.good, Histogram.of([_DEADLINE_NS] * self.failures.total())])


def figures(samples: Sequence[ClientSample]) -> list[Figure]:
    """Return the figures of every contender, in both phases."""
    by_contender: dict[str, list[ClientSample]] = {}
    for sample in samples:
        by_contender.setdefault(sample.contender, []).append(sample)
    return [_judged(figure) for each in by_contender.values() for figure in _of_contender(each)]


def criteria_of(figures: Iterable[Figure]) -> Iterator[tuple[Criterion, Figure]]:
    """Yield each criterion with the figure that it judges; nothing without the default stack."""
    listed = list(figures)
    for criterion in CRITERIA:
        yield from ((criterion, figure) for figure in listed if criterion.judges(figure))


def client_statuses(figures: Iterable[Figure]) -> Iterator[ExitStatus]:
    """Yield what holds of the criteria, for `exit_status`: that one was missed, or is void."""
    for _, figure in criteria_of(figures):
        if figure.is_void:
            yield ExitStatus.VOID
        elif figure.verdict is Verdict.FAILED:
            yield ExitStatus.FAILED


def timeline(samples: Sequence[ClientSample]) -> Iterator[dict[str, Any]]:
    """Yield what each contender did in each second, over all rounds: plain values for a chart."""
    seconds: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for sample in samples:
        for each in sample.per_second:
            seconds.setdefault((sample.contender, each["second"]), []).append(each)
    for (contender, second), some in seconds.items():
        calls = Calls(some)
        yield {
            "contender": contender,
            "second": second,
            GOOD: calls.good.count / calls.due,
            "p99_ns": calls.times.percentile_ns(99),
        }


def _of_contender(samples: Sequence[ClientSample]) -> Iterator[Figure]:
    phases = {phase: _phase_calls(samples, phase) for phase in (HEALTHY, FAULTS)}
    disturbed = round_disturbances(sample.surroundings for sample in samples)
    for phase, calls in phases.items():
        yield from _counts(samples, phase, calls)
        yield from voided(_percentiles(samples[0].contender, phase, calls), disturbed)
    late = _late(phases[HEALTHY], 99)
    yield from voided([_p99_ratio(samples[0].contender, phases)], (*disturbed, *late))


def _phase_calls(samples: Iterable[ClientSample], phase: str) -> Calls:
    return Calls(
        second
        for sample in samples
        for second in sample.per_second
        if (second["second"] >= sample.healthy_s) is (phase == FAULTS)
    )


def _counts(samples: Sequence[ClientSample], phase: str, calls: Calls) -> Iterator[Figure]:
    contender, count = samples[0].contender, calls.due
    executions = sum(sum(sample.executions[phase == FAULTS]) for sample in samples)
    failures = dict(calls.failures)
    good = calls.good.count / count
    yield _figure(contender, phase, GOOD, value=good, n=count, unit="share", failures=failures)
    attempts = executions / count
    yield _figure(contender, phase, ATTEMPTS, value=attempts, n=count, unit="executions/call")


def _percentiles(contender: str, phase: str, calls: Calls) -> Iterator[Figure]:
    times = calls.times
    for name, percent in PERCENTILES.items():
        value_ms = (times.percentile_ns(percent) or 0) / 1e6
        few = short_reason(times, percent, 0.0)
        figure = _figure(contender, phase, name, value=value_ms, n=calls.due, unit="ms")
        yield from voided([figure], (*_late(calls, percent), *(() if few is None else (few,))))


def _p99_ratio(contender: str, phases: Mapping[str, Calls]) -> Figure:
    times = {phase: calls.times.interpolated_ns(99) or 1.0 for phase, calls in phases.items()}
    ratio, count = times[FAULTS] / times[HEALTHY], phases[FAULTS].due
    return _figure(contender, FAULTS, P99_RATIO, value=ratio, n=count, unit="ratio")


def _figure(*place: str, value: float, n: int, unit: str, **labels: object) -> Figure:
    """Return a figure of a contender, phase and name."""
    known = dict(zip(("contender", "phase", "figure"), place, strict=True))
    title = "{contender}, {phase}: {figure}".format_map(known)
    return Figure(title, value, unit, CONTRACT, n, labels={**known, **labels})


def _judged(figure: Figure) -> Figure:
    """Return a figure as failed if it misses a criterion; one that is void is not judged."""
    for criterion, _ in criteria_of([figure]):
        if not figure.is_void and not criterion.is_met(figure.value or 0.0):
            reason = Reason.of(
                ReasonCode.CRITERION_MISSED, bound=criterion.bound, limit=criterion.limit
            )
            return replace(figure, verdict=Verdict.FAILED, reasons=(reason,))
    return figure


def _late(calls: Calls, percent: float) -> Iterator[Reason]:
    """Yield that calls left too late for a percentile of their response times to be believed."""
    late_ns = calls.lateness.percentile_ns(99) or 0
    value_ns = calls.times.percentile_ns(percent) or 0
    if late_ns > LIMITS["lateness_share"] * value_ns:
        yield Reason.of(ReasonCode.LATE_FOR_IT, late_us=late_ns / 1000, value_us=value_ns / 1000)
