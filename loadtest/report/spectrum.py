"""Latency by percentile: the tail of a load run, stretched by the nines (no I/O)."""

import math
from collections.abc import Iterator

from capnp_rig.loadtest.report.cells import cell, row
from capnp_rig.loadtest.report.chart import Axis, Line, LineChart, Point, log_panel
from capnp_rig.loadtest.report.document import Cell, Paragraph, Part, Table
from capnp_rig.loadtest.report.line_styles import CLOCKS
from capnp_rig.loadtest.report.run_tables import interval_basis, interval_cell, load_notes
from capnp_rig.loadtest.report.sources import Source
from capnp_rig.loadtest.report.units import (
    count_text,
    plural,
    sentence,
    time_text,
    us_text,
)
from capnp_rig.loadtest.stats.histogram import LOWEST_NS, Histogram
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import ReasonCode, doubts_of, text_of
from capnp_rig.loadtest.stats.run_summary import LIMITS, Summary
from capnp_rig.loadtest.stats.run_units import percentile_key

# Points of a percentile curve in each factor of ten of 1 / (1 - q).
_PER_DECADE = 12
_NINES = (50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999)
# What makes a capacity a lower bound, or a tail short, leaves the times as they are.
_LEAVE_TIMES = {ReasonCode.GENERATOR_BUSY, ReasonCode.FEW_SAMPLES}
_TABLED = (50.0, 90.0, 99.0, 99.9, 99.99)


def tail_of(percent: float) -> float:
    """Return 1 / (1 - q) of a percentile: 2 of the median, 100 of p99."""
    return 1 / (1 - percent / 100)


def nines_ticks(most: float) -> list[tuple[float, str]]:
    """Return ticks at the nines, up to the tail that `most` calls have."""
    ticks = [(tail_of(percent), f"p{percent:.6g}") for percent in _NINES]
    return [tick for tick in ticks if tick[0] <= most * 1.001]


def spectrum_points(times: Histogram, void: str = "", name: str = "") -> list[Point]:
    """Return time in ns against 1 / (1 - q), up to the last of the calls.

    Void throughout for the reason given, and where too few calls lie beyond the percentile.
    Times under 1 µs, which the histogram does not tell apart, are left out.
    """
    if not times.count:
        return []
    steps = math.floor(math.log10(times.count) * _PER_DECADE) if times.count > 1 else 0
    tails = {10 ** (step / _PER_DECADE) for step in range(steps + 1)} | {float(times.count)}
    percents = {tail: 100 * (1 - 1 / tail) for tail in tails}
    # These as they are: by way of their tails they may miss a call at the edge.
    percents |= {tail_of(each): each for each in _NINES if tail_of(each) <= times.count}
    points = []
    for tail, percent in sorted(percents.items()):
        value_ns = times.percentile_ns(percent)
        if value_ns is None or value_ns < LOWEST_NS:
            continue
        beyond = times.beyond(percent)
        few = f"under {LIMITS['least_beyond']:g} calls beyond it"
        reasons = [void] * bool(void) + [few] * (beyond < LIMITS["least_beyond"])
        said = f"{name} p{percent:.6g}: {time_text(value_ns)}, {plural(beyond, 'call')} beyond"
        points.append(Point(tail, value_ns, void="; ".join(reasons), text=said))
    return points


def clocks_of(summary: Summary) -> dict[str, Histogram]:
    """Return the times of a run by clock: a closed loop has service times only."""
    if not summary.is_open_loop:
        return {"service": summary.service}
    return {
        "response": summary.response,
        "service": summary.service,
        "lateness": summary.lateness,
    }


def spectrum_parts(source: Source) -> Iterator[Part]:
    """Yield the curves of a load run's clocks, and their percentiles as a table."""
    assert source.load is not None
    summary = source.load.summary()
    clocks = clocks_of(summary)
    void = _void_of(source, summary)
    lines = [
        Line(f"{name} (n = {times.count:,})", spectrum_points(times, void, name), CLOCKS[name])
        for name, times in clocks.items()
    ]
    lines = [line for line in lines if line.points]
    if not lines:
        yield Paragraph(f"{source.name}: no call was answered rightly.", quiet=True)
        yield from load_notes(summary)
        return
    clock = "time" if len(clocks) > 1 else f"{next(iter(clocks))} time"
    most = max(point.x for line in lines for point in line.points)
    yield LineChart(
        key=f"spectrum-{source.slug}",
        title=loop_text(source, summary),
        finding=_spectrum_finding(summary, void),
        x=Axis("share of the calls that were faster", is_log=True, ticks=nines_ticks(most)),
        panels=[log_panel(f"{clock} of a call", lines, time_text)],
    )
    yield _percentile_table(source, summary, void)
    yield from load_notes(summary)


def loop_text(source: Source, summary: Summary) -> str:
    """Return what made the load, how, and at which rate, as a title."""
    who = "Locust" if source.kind == "locust" else "loadtest run"
    rate = count_text(summary.calls_per_s)
    return f"{who}, {'open' if summary.is_open_loop else 'closed'} loop, {rate} calls/s"


def _void_of(source: Source, summary: Summary) -> str:
    """Return why no time of the run counts, empty where it does."""
    verdict, reasons = source.judged(summary)
    if verdict is Verdict.VALID:
        return ""
    doubts = doubts_of(reasons)
    return text_of(reason for reason in doubts if reason.code not in _LEAVE_TIMES)


def _spectrum_finding(summary: Summary, void: str) -> str:
    p50, p99 = (summary.response.percentile_ns(percent) for percent in (50, 99))
    said = f"half of the calls took under {time_text(p50)}, 99 % under {time_text(p99)}"
    if summary.is_open_loop:
        said += "; response counts from when a call was due, lateness is the generator's own"
    else:
        said += "; callers wait for replies, so these are service times"
    return sentence(said) + (f" Void: {void}." if void else "")


def _percentile_table(source: Source, summary: Summary, void: str) -> Table:
    rows = []
    for name, times in clocks_of(summary).items():
        for percent in _TABLED:
            interval = summary.intervals.get(percentile_key(name, percent))
            few = times.beyond(percent) < LIMITS["least_beyond"]
            reasons = [void] * bool(void) + ["too few calls beyond it"] * few
            rows.append(
                row(
                    name,
                    Cell(f"p{percent:g}", percent),
                    cell(times.percentile_ns(percent), time_text),
                    interval_cell(interval, us_text),
                    cell(times.beyond(percent), count_text),
                    void="; ".join(reasons),
                )
            )
    return Table(
        f"percentiles-{source.slug}",
        f"Percentiles; {interval_basis(summary)}",
        ["clock", "percentile", "time", "95 % interval", "calls beyond"],
        rows,
        folded=True,
    )
