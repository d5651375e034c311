"""What a candidate is against a baseline, by blocks of servers that took turns (no I/O).

All turns of a server in a block make one value per metric; the log ratios of the blocks are the
sample. The baseline's value is the mean of the logs of its two servers, whose ratio to each other
is the A/A.

No turn is dropped: whoever chose among them would choose among results. What the machine did to
them makes void what it can falsify, rate and times, by the rules of every load run. CPU per call is
judged all the same: waiting is no CPU time, and what else disturbs falls on both and widens the
interval.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from capnp_rig.loadtest.ab.blocks import Blocks, ServerTimes, Turn
from capnp_rig.loadtest.ab.course import Course
from capnp_rig.loadtest.bench.pair_figures import CONTRACT, interval_figure, value_labels
from capnp_rig.loadtest.bench.rounds import AGAIN, BASELINE, CANDIDATE, ROLES
from capnp_rig.loadtest.compare import Comparison, Row
from capnp_rig.loadtest.engine.early_end import EarlyEnd
from capnp_rig.loadtest.stats.disturbance import disturbances
from capnp_rig.loadtest.stats.figure import Figure, FigureKind
from capnp_rig.loadtest.stats.histogram import Histogram, merge, us_of
from capnp_rig.loadtest.stats.looks import mean_ratio, shares
from capnp_rig.loadtest.stats.metric import tail_problems
from capnp_rig.loadtest.stats.pair_statistics import (
    MARGIN,
    Interval,
    Judgement,
    Verdict,
    judge,
    noise_floor,
)
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.stats.run_summary import LIMITS

# With these nothing more is to be asked of the metric that comes first.
_TELLING = frozenset({Verdict.SLOWER, Verdict.FASTER, Verdict.SAME})
RATE, SERVER_CPU = "calls/s", "server CPU per call"
_PERCENTILES = (50.0, 99.0)


@dataclass(frozen=True, slots=True)
class Asked:
    """What to judge: the `metrics` that are named, all where none is, with the user's `margin`.

    `are_fresh` is whether each block has servers of its own; `unchecked` says what of the replies
    nobody compares.
    """

    margin: float = MARGIN
    metrics: tuple[str, ...] = ()
    are_fresh: bool = True
    unchecked: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric of all blocks: for each role a value per block, in order.

    `problems` say why it should not be judged.
    """

    name: str
    unit: str
    values: Mapping[str, Sequence[float]]
    problems: tuple[Reason, ...] = ()

    @property
    def is_higher_better(self) -> bool:
        """Whether more is better: of rates."""
        return self.name == RATE

    @property
    def has_ratio(self) -> bool:
        """Whether there are values, and none of them zero."""
        return bool(self.values) and min(map(min, self.values.values())) > 0

    def logs(self, role: str) -> list[float]:
        """Return the logs of what a role cost, one per block: of rates that falls with more."""
        sign = -1 if self.is_higher_better else 1
        return [sign * math.log(value) for value in self.values[role]]


def measured(blocks: Blocks, percentiles: Sequence[float] = _PERCENTILES) -> list[Measured]:
    """Return the metrics of some blocks, at least one: first the one that ranks servers best."""
    clock = "response" if blocks.is_open_loop else "service"
    by_place = {(each.block, each.role): getattr(each, clock) for each in blocks.times}
    turns: dict[tuple[int, str], list[Turn]] = {place: [] for place in by_place}
    for turn in blocks.turns:
        turns[turn.block, turn.role].append(turn)
    disturbed = tuple(disturbances([blocks.surroundings]))
    listed = [_cpu(turns)]
    if blocks.is_open_loop:
        disturbed += tuple(_schedule_problems(blocks.times))
    else:
        listed.append(_rate(turns, disturbed))
    return listed + [_percentile(clock, percent, by_place, disturbed) for percent in percentiles]


def _schedule_problems(times: Sequence[ServerTimes]) -> Iterator[Reason]:
    """Yield why the times of an open loop are not those of its schedule."""
    scheduled = sum(each.scheduled or 0 for each in times)
    response, lateness = (
        merge(getattr(each, name) for each in times) for name in ("response", "lateness")
    )
    if response.count < LIMITS["sent_share"] * scheduled:
        yield Reason.of(ReasonCode.SCHEDULE_MISSED, share=response.count / scheduled)
    late_us, median_us = (
        us_of(lateness.percentile_ns(99)) or 0,
        us_of(response.percentile_ns(50)) or 0,
    )
    if late_us > LIMITS["lateness_share"] * median_us:
        yield Reason.of(ReasonCode.GENERATOR_LATE, late_us=late_us, median_us=median_us)


def _by_role(by_place: Mapping[tuple[int, str], float]) -> dict[str, list[float]]:
    roles = dict.fromkeys(role for _, role in by_place)
    return {
        role: [by_place[place] for place in sorted(by_place) if place[1] == role] for role in roles
    }


def _metric(
    name: str, unit: str, by_place: Mapping[tuple[int, str], float], *problems: Reason
) -> Measured:
    values = _by_role(by_place)
    if min(map(min, values.values())) <= 0:
        problems = (*problems, Reason.of(ReasonCode.VALUE_OF_ZERO))
    return Measured(name, unit, values, problems)


def _cpu(turns: Mapping[tuple[int, str], Sequence[Turn]]) -> Measured:
    if any(turn.server_cpu_s is None for each in turns.values() for turn in each):
        return Measured(SERVER_CPU, "µs", {}, (Reason.of(ReasonCode.CPU_NOT_KNOWN),))
    cpu_us = {
        place: sum(turn.server_cpu_s or 0.0 for turn in each) * 1e6 / _calls(each)
        for place, each in turns.items()
    }
    return _metric(SERVER_CPU, "µs", cpu_us)


def _calls(turns: Iterable[Turn]) -> int:
    # Without a call there is no rate either, which is a problem of its own.
    return max(1, sum(turn.calls for turn in turns))


def _rate(turns: Mapping[tuple[int, str], Sequence[Turn]], disturbed: Sequence[Reason]) -> Measured:
    rates = {
        place: sum(turn.calls for turn in each) / sum(turn.seconds for turn in each)
        for place, each in turns.items()
    }
    busy = median(turn.busy for each in turns.values() for turn in each)
    is_bound = busy > LIMITS["busy"]
    bound = [Reason.of(ReasonCode.GENERATOR_BUSY, busy=busy)] if is_bound else []
    return _metric(RATE, "calls/s", rates, *disturbed, *bound)


def _percentile(
    clock: str,
    percent: float,
    by_place: Mapping[tuple[int, str], Histogram],
    disturbed: Sequence[Reason],
) -> Measured:
    problems = [*disturbed, *tail_problems(merge(by_place.values()), percent)]
    times_us = {
        place: (each.percentile_ns(percent) or 0) / 1000 for place, each in by_place.items()
    }
    return _metric(f"{clock}.p{percent:g}", "µs", times_us, *problems)


def judged(metric: Measured, level: float, *, margin: float) -> Row:
    """Hold the candidate against the baseline; `level` is the chance to err.

    A metric with problems is void, and shows its ratio where it has one.
    """
    void = Judgement(Verdict.VOID, metric.problems)
    if not metric.has_ratio:
        means = {role: _mean(metric, role) for role in ROLES}
        place = (metric.name, metric.unit, means[BASELINE], means[CANDIDATE])
        n = len(metric.values.get(BASELINE, ()))
        return Row(*place, None, None, None, None, n, void.verdict, void.reasons)
    first, again, other = (metric.logs(role) for role in (BASELINE, AGAIN, CANDIDATE))
    both = [(one + two) / 2 for one, two in zip(first, again, strict=True)]
    ratio = mean_ratio([old - new for old, new in zip(both, other, strict=True)], level)
    same = mean_ratio([one - two for one, two in zip(first, again, strict=True)], level)
    floor = noise_floor(same)
    verdict = void if void.reasons else judge(ratio, floor, margin=margin, unit="blocks")
    sign = -1 if metric.is_higher_better else 1
    return Row(
        metric=metric.name,
        unit=metric.unit,
        baseline=math.exp(sign * fmean(both)),
        candidate=math.exp(sign * fmean(other)),
        ratio=ratio.value,
        low=ratio.low,
        high=ratio.high,
        floor=floor,
        n=ratio.n,
        verdict=verdict.verdict,
        reasons=verdict.reasons,
    )


def _mean(metric: Measured, role: str) -> float | None:
    values = metric.values.get(role)
    return fmean(values) if values else None


def judge_blocks(blocks: Blocks, level: float, asked: Asked) -> list[Row]:
    """Hold the candidate against the baseline by each metric that is asked for.

    `level` is the chance to err of all together; a metric that is void takes no part of it away.
    """
    listed = [each for each in measured(blocks) if each.name in asked.metrics or not asked.metrics]
    parts = iter(shares(max(1, sum(not each.problems for each in listed))))
    return [
        judged(each, level * (1.0 if each.problems else next(parts)), margin=asked.margin)
        for each in listed
    ]


def verdict_of(rows: Iterable[Row]) -> Verdict:
    """Return the verdict of a comparison: slower if a metric is, else that of its first one.

    Void metrics do not count.
    """
    verdicts = [row.verdict for row in rows if row.verdict is not Verdict.VOID]
    if Verdict.SLOWER in verdicts:
        return Verdict.SLOWER
    return verdicts[0] if verdicts else Verdict.VOID


def metric_names(*, is_open_loop: bool) -> list[str]:
    """Return the names of what is compared: first the one that ranks servers best."""
    clock = "response" if is_open_loop else "service"
    rate = [] if is_open_loop else [RATE]
    return [SERVER_CPU, *rate, *(f"{clock}.p{percent:g}" for percent in _PERCENTILES)]


def is_decided(rows: Iterable[Row]) -> bool:
    """Return whether the verdict stands, and no further block is needed."""
    return verdict_of(rows) in _TELLING


def comparison_of(
    rows: Sequence[Row],
    blocks: Blocks,
    course: Course,
    asked: Asked,
    early_end: EarlyEnd | None = None,
) -> Comparison:
    """Return the comparison that consists of `rows`, with what there is to say beside them."""
    doubt = ""
    if early_end is not None:
        doubt = f"ended early, after {blocks.count} blocks: {early_end.text}"
        rows = [replace(row, verdict=Verdict.VOID) for row in rows]
    return Comparison(
        kind="ab",
        unit="block",
        margin=asked.margin,
        rows=tuple(rows),
        verdict=verdict_of(rows),
        objections=(doubt,) if doubt else (),
        doubt=doubt,
        notes=tuple(_notes(blocks, course, asked)),
        forced=False,
    )


def _notes(blocks: Blocks, course: Course, asked: Asked) -> Iterator[str]:
    planned = f" of {course.planned} planned" if course.planned else ""
    yield (
        f"{blocks.count}{planned} blocks, look {course.taken} of {len(course.looks)}. The "
        "intervals of all looks and metrics together hold the truth in 95 of 100 comparisons. "
        "The verdict is slower where a metric is, else that of the first that is not void."
    )
    yield from (reason.text for reason in asked.unchecked)
    if not asked.are_fresh:
        yield (
            "The servers ran already, and the A/A is one process twice: how much a fresh process "
            "of each would differ is in no interval here. --a and --b start fresh ones."
        )


def figures(rows: Sequence[Row], load: str) -> Iterator[Figure]:
    """Yield the figures of a comparison: of each metric the values of both, and their ratio."""
    for row in rows:
        for role, value in ((BASELINE, row.baseline), (CANDIDATE, row.candidate)):
            name, labels = f"{load}: {role} {row.metric}", value_labels(load, role, row.metric)
            yield Figure(name, value, row.unit, CONTRACT, row.n, labels=labels)
        place = {"load": load, "what": row.metric, "baseline": BASELINE, "subject": CANDIDATE}
        floor = {} if row.floor is None else {"floor": row.floor}
        labels = {"kind": FigureKind.RATIO.value, **place, **floor}
        ratio = None if row.ratio is None else Interval(row.ratio, row.low, row.high, row.n)
        name, judgement = f"{load}: {CANDIDATE}, {row.metric}", Judgement(row.verdict, row.reasons)
        yield interval_figure(name, ratio, "ratio", CONTRACT, labels, judgement)
