"""How the times of a load run are spread: histogram and cumulative distribution (no I/O)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from capnp_rig.loadtest.report.chart import (
    SOLID,
    Axis,
    Line,
    LineChart,
    Look,
    Panel,
    Point,
    decade_ticks,
)
from capnp_rig.loadtest.report.document import Part
from capnp_rig.loadtest.report.line_styles import CLOCKS
from capnp_rig.loadtest.report.sources import Source
from capnp_rig.loadtest.report.spectrum import clocks_of, loop_text
from capnp_rig.loadtest.report.units import digits, sentence, time_text
from capnp_rig.loadtest.stats.histogram import LOWEST_NS, Histogram

# A step of 6 %: several of the histogram's own buckets, and still a point every few px.
_PER_DECADE = 40


def distribution_parts(source: Source) -> Iterator[Part]:
    """Yield the distribution of a load run's times by clock; nothing without a call.

    The generator's lateness is left out: next to nothing of it would be seen.
    """
    assert source.load is not None
    summary = source.load.summary()
    clocks = {
        name: times
        for name, times in clocks_of(summary).items()
        if name != "lateness" and times.count
    }
    if not clocks:
        return
    edges = edges_of(list(clocks.values()))
    yield LineChart(
        key=f"distribution-{source.slug}",
        title=f"Distribution of times: {loop_text(source, summary)}",
        finding=_finding(*next(iter(clocks.items()))),
        x=Axis("time of a call", is_log=True, ticks=decade_ticks(edges, time_text)),
        panels=[
            Panel(
                Axis("calls, in % per step of 6 %", low=0),
                [Line(name, steps(times, edges), _look(name)) for name, times in clocks.items()],
            ),
            Panel(
                Axis("calls that took at most so long, in %", low=0, high=100),
                [Line(name, ecdf(times, edges), _look(name)) for name, times in clocks.items()],
                weight=0.8,
            ),
        ],
    )


def _look(clock: str) -> Look:
    # Dashes would blur the steps.
    return replace(CLOCKS[clock], dash=SOLID)


def edges_of(histograms: Sequence[Histogram]) -> list[float]:
    """Return edges in ns around all values, at equal steps of their logarithm."""
    lows = [times.min_ns for times in histograms if times.min_ns is not None]
    highs = [times.max_ns for times in histograms if times.max_ns is not None]
    first = math.floor(math.log10(max(min(lows), LOWEST_NS)) * _PER_DECADE)
    last = math.ceil(math.log10(max(*highs, LOWEST_NS)) * _PER_DECADE)
    return [10 ** (step / _PER_DECADE) for step in range(first, max(last, first + 1) + 1)]


def ecdf(times: Histogram, edges: Sequence[float]) -> list[Point]:
    """Return the share of the values, in %, up to each edge."""
    points = []
    for edge in edges:
        share = 100 * (1 - times.count_above(round(edge)) / times.count)
        points.append(Point(edge, share, text=f"{digits(share)} % within {time_text(edge)}"))
    return points


def steps(times: Histogram, edges: Sequence[float]) -> list[Point]:
    """Return the share of the values, in %, between each two edges, as a line of steps.

    What is below the first edge, under 1 µs, counts into the first step.
    """
    within = [0.0, *(point.y for point in ecdf(times, edges)[1:])]
    shares = [share - before for before, share in pairwise(within)]
    points = []
    for (low, high), share in zip(pairwise(edges), shares, strict=True):
        said = f"{digits(share)} % from {time_text(low)} to {time_text(high)}"
        # A line is drawn from left to right: no two of its points may have one x.
        points += [Point(low, share, text=said), Point(high * (1 - 1e-6), share, text=said)]
    return points


def _finding(clock: str, times: Histogram) -> str:
    middle = [time_text(times.percentile_ns(percent)) for percent in (5, 95)]
    said = f"nine in ten {clock} times lie between {middle[0]} and {middle[1]}"
    return sentence(said)
