"""The figures of a codec benchmark: times, ratios with A/A, crossovers, memory, sizes (no I/O).

Names start with the kind of figure: ``time``, ``A/A``, ``ratio``, ``crossover`` (in bytes),
``break-even`` (in % of the fields), ``memory``, ``allocated``, ``size``. What each is of stands in
its labels: `codec`, `message`, `contract`, `size_bytes`, `k`, of a ratio also `baseline`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from capnp_rig.loadtest.bench.case_times import CaseTimes
from capnp_rig.loadtest.bench.pair_figures import interval_figure
from capnp_rig.loadtest.bench.plan import CAPNP, Case, Plan, groups, ratios_of
from capnp_rig.loadtest.codecs.codec import BUILD_ENCODE, COLUMN_CONTRACTS, READ_ALL, READ_ONE
from capnp_rig.loadtest.stats.crossover import find_crossover
from capnp_rig.loadtest.stats.figure import Figure, FigureKind
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

_BY_SIZE = (BUILD_ENCODE, READ_ONE, READ_ALL, *COLUMN_CONTRACTS)
# A curve through fewer points says little about where it crosses.
_LEAST_POINTS = 3
_RATIO_UNIT = "times as fast"
ENCODED_SIZE = "encoded size"

# Medians in ns by process, of each case.
_Medians = Mapping[Case, Mapping[int, float]]


def figures(
    plan: Plan,
    samples: Iterable[CaseTimes],
    memory: Iterable[Mapping[str, Any]] = (),
    sizes: Iterable[Mapping[str, Any]] = (),
) -> list[Figure]:
    """Return every figure that the samples support."""
    medians: dict[Case, dict[int, float]] = {}
    voids: dict[Case, str] = {}
    for sample in samples:
        if sample.median_ns is None:
            voids[sample.case] = sample.void
        else:
            medians.setdefault(sample.case, {})[sample.process] = sample.median_ns
    # A codec that was wrong in one process is right in none.
    known = {case: times for case, times in medians.items() if case not in voids}
    grouped = []
    for group in groups(plan):
        grouped += [_time(case, known[case]) for case in group if case in known]
        grouped += [_void(case, voids[case]) for case in group if case in voids]
        grouped += _ratios([case for case in group if case in known], known)
    grouped += _crossovers(plan, known)
    return [*grouped, *_memory(memory), *_sizes(sizes)]


def _time(case: Case, by_process: Mapping[int, float]) -> Figure:
    times = interval_of_median(list(by_process.values()))
    judged = Judgement(Verdict.OK, _interval_reasons(times))
    name = f"time: {case.name}"
    return interval_figure(name, times, "ns", case.contract, _time_labels(case), judged)


def _void(case: Case, reason: str) -> Figure:
    judged = Judgement(Verdict.VOID, (Reason.of(ReasonCode.OTHER, text=reason),))
    name = f"time: {case.name}"
    return interval_figure(name, None, "ns", case.contract, _time_labels(case), judged)


def _time_labels(case: Case) -> dict[str, Any]:
    return {
        "kind": FigureKind.TIME,
        **case.labels(),
        "subject": case.subject,
        "gc": case.gc,
    }


def _interval_reasons(interval: Interval) -> tuple[Reason, ...]:
    return (Reason(ReasonCode.FEW_PROCESSES),) if interval.low is None else ()


def _ratios(group: Sequence[Case], medians: _Medians) -> list[Figure]:
    grouped = []
    for old, second, candidates in ratios_of(group):
        same = _ratio(medians, old, second)
        floor = noise_floor(same)
        labels = {"kind": FigureKind.FLOOR, **old.labels(), "baseline": old.codec}
        judged = Judgement(Verdict.AA, (Reason(ReasonCode.NOISE_FLOOR),))
        name = f"A/A: {old.name}"
        grouped.append(interval_figure(name, same, _RATIO_UNIT, old.contract, labels, judged))
        for new in candidates:
            ratio = _ratio(medians, old, new)
            name = f"ratio: {new.name}, against {old.subject}"
            labels = {"kind": FigureKind.RATIO, **new.labels()}
            labels |= {"baseline": old.codec, "floor": floor}
            judged = judge(ratio, floor)
            grouped.append(interval_figure(name, ratio, _RATIO_UNIT, new.contract, labels, judged))
    return grouped


def _ratio(medians: _Medians, old: Case, new: Case) -> Interval:
    both = sorted(medians[old].keys() & medians[new].keys())
    return paired_ratio([medians[old][p] for p in both], [medians[new][p] for p in both])


# --- where a ratio crosses 1 -----------------------------------------------------------------


def _crossovers(plan: Plan, medians: _Medians) -> Iterator[Figure]:
    """Yield from which size, and up to which share of the fields, Cap'n Proto is ahead."""
    by_size: dict[tuple[str, ...], dict[float, Mapping[int, float]]] = {}
    by_share: dict[tuple[str, ...], dict[float, Mapping[int, float]]] = {}
    labels: dict[tuple[str, ...], dict[str, Any]] = {}
    for old, new in _pairs_of(plan, medians):
        ratios = {
            process: medians[old][process] / medians[new][process]
            for process in medians[old].keys() & medians[new].keys()
        }
        common = {"codec": new.codec, "message": new.message, "baseline": old.codec}
        if new.contract in _BY_SIZE:
            key = (new.message, new.contract, f"{new.codec} over {old.codec}")
            by_size.setdefault(key, {})[new.size_bytes] = ratios
            labels[key] = {**common, "contract": new.contract}
        if new.percent:
            key = (new.message, f"{new.size_bytes} B", f"{new.codec} over {old.codec}")
            by_share.setdefault(key, {})[new.percent] = ratios
            labels[key] = {**common, "contract": "open+read k%", "size_bytes": new.size_bytes}
    yield from _crossing_figures(FigureKind.CROSSOVER, "B", by_size, labels, is_rising=True)
    yield from _crossing_figures(FigureKind.BREAK_EVEN, "%", by_share, labels, is_rising=False)


def _pairs_of(plan: Plan, medians: _Medians) -> Iterator[tuple[Case, Case]]:
    for group in groups(plan):
        for old, _, candidates in ratios_of([case for case in group if case in medians]):
            yield from ((old, new) for new in candidates if new.codec in CAPNP)


def _crossing_figures(
    kind: FigureKind,
    unit: str,
    curves: Mapping[tuple[str, ...], Mapping[float, Mapping[int, float]]],
    labels: Mapping[tuple[str, ...], Mapping[str, Any]],
    *,
    is_rising: bool,
) -> Iterator[Figure]:
    for key, curve in curves.items():
        if len(curve) >= _LEAST_POINTS:
            crossing = find_crossover(curve, is_rising=is_rising)
            own = {"kind": kind, **labels[key]}
            judged = Judgement(Verdict.OK, crossing.reasons)
            name = f"{kind}: {', '.join(key)}"
            yield interval_figure(name, crossing, unit, own["contract"], own, judged)


# --- memory and sizes ------------------------------------------------------------------------


def _memory(measured: Iterable[Mapping[str, Any]]) -> Iterator[Figure]:
    """Yield the median over fresh processes of how far the peak of the RSS rose."""
    grouped: dict[tuple[str, str, int, str], list[Mapping[str, Any]]] = {}
    for each in measured:
        key = (each["message"], each["contract"], each["size_bytes"], each["codec"])
        grouped.setdefault(key, []).append(each)
    for (message, contract, size, codec), several in grouped.items():
        place = f"{message}, {contract}, {size} B, {codec}"
        labels = {"codec": codec, "message": message, "contract": contract, "size_bytes": size}
        for kind, field in (
            (FigureKind.MEMORY, "rss_bytes"),
            (FigureKind.ALLOCATED, "python_bytes"),
        ):
            values = [each[field] for each in several if each[field] is not None]
            value = median(values) if values else None
            yield Figure(
                f"{kind}: {place}",
                value,
                "B",
                contract,
                len(values),
                verdict=Verdict.OK if values else Verdict.VOID,
                reasons=() if values else (Reason(ReasonCode.NOT_READABLE),),
                labels={"kind": kind, **labels},
            )


def _sizes(measured: Iterable[Mapping[str, Any]]) -> Iterator[Figure]:
    for each in measured:
        place = f"{each['message']}, {each['size_bytes']} B, {each['codec']}"
        labels = {name: each[name] for name in ("message", "size_bytes", "codec", "method")}
        yield Figure(
            f"size: {place}, {each['method']}",
            each["encoded_bytes"],
            "B",
            ENCODED_SIZE,
            1,
            labels={"kind": FigureKind.SIZE, **labels, "compress_ns": each["compress_ns"]},
        )
