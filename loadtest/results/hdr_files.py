"""``latency.hlog`` and ``latency.hgrm``: a load run for the tools around HdrHistogram.

``latency.hlog`` is a histogram log, version 1.2 with V2-encoded histograms in ns: for each second
of the measured window one line per clock, Tag=response, Tag=service and Tag=lateness. The
warm-up is left out; repeats follow each other on the time axis. ``latency.hgrm`` is the percentile
distribution of the response times in µs.

Counts are exact. A time is written as the upper edge of its bucket, at most the maximum, so it is
at most 0.8 % too high, and under 1 µs it counts as 999 ns. HdrHistogram at three significant digits
adds up to 0.1 % in the log, which ends at an hour: longer times count as one.
"""

import importlib
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

from capnp_rig.loadtest.results.load_samples import LoadRun, Result
from capnp_rig.loadtest.results.load_series import seconds_of
from capnp_rig.loadtest.results.writing import write_whole
from capnp_rig.loadtest.stats.histogram import (
    HIGHEST_NS,
    LOWEST_NS,
    PART_BITS,
    Histogram,
    bucket_of,
    bucket_range_ns,
)
from capnp_rig.loadtest.stats.tally import WARMUP

LOG, DISTRIBUTION = "latency.hlog", "latency.hgrm"
TAGS = ("response", "service", "lateness")
_LOWEST_NS = 1
_HIGHEST_NS = 3_600_000_000_000
_DIGITS = 3
_NS_PER_MS = 1e6
_NS_PER_US = 1e3
# Per halving of what is left to 100 %.
_STEPS = 5


class HdrMissing(Exception):
    """The package hdrhistogram is not installed; the message says what to do, in one line."""


def write_hdr_files(folder: Path, result: Result) -> list[Path]:
    """Write both files of a load run into its folder, and return their paths.

    Raises:
        HdrMissing: The package that writes the log is not installed; the distribution is written.
        OSError: A file cannot be written.
        ResultError: The result is no load run, or damaged.
    """
    load = result.load
    log, distribution = folder / LOG, folder / DISTRIBUTION
    write_whole(distribution, distribution_of(load).encode())
    log_text = log_of(load, started_s=_started_s(result.document.get("started")))
    write_whole(log, log_text.encode())
    return [log, distribution]


def _started_s(text: object) -> float:
    """Return when a run started, in seconds since the epoch; 0 where it does not say."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


def log_of(load: LoadRun, *, started_s: float) -> str:
    """Return the histogram log of a run that started `started_s` after the epoch.

    Raises:
        HdrMissing: The package that writes it is not installed.
    """
    stream = StringIO()
    writer = _module("log").HistogramLogWriter(stream)
    loop = "open loop" if load.is_open_loop else "closed loop: a call is due when it is sent"
    writer.output_comment(f"[capnp-rig: nanoseconds, {loop}; without warm-up]")
    writer.output_log_format_version()
    # The writer's own method for this calls one that no datetime has (hdrhistogram 0.10.8).
    started = datetime.fromtimestamp(started_s, UTC).isoformat(timespec="seconds")
    writer.output_comment(f"[StartTime: {started_s:.3f} (seconds since epoch), {started}]")
    writer.output_base_time(started_s * 1000)
    writer.output_legend()
    stream.writelines(_lines(load))
    return stream.getvalue()


def _lines(load: LoadRun) -> Iterator[str]:
    offset_s = 0.0
    for repeat in load.repeats:
        seconds = [second for second in seconds_of(load, repeat) if second.second != WARMUP]
        for second in seconds:
            for tag in TAGS:
                times = getattr(second.clocks, tag)
                # Not by the writer: it has no tags, and cuts the maximum to whole milliseconds.
                where = f"Tag={tag},{offset_s + second.second:.3f},1.000"
                largest_ms = (times.max_ns or 0) / _NS_PER_MS
                yield f"{where},{largest_ms:.6f},{hdr_of(times).encode().decode()}\n"
        offset_s += seconds[-1].second + 1 if seconds else 0


def distribution_of(load: LoadRun) -> str:
    """Return the percentiles of all response times, in µs."""
    times = load.summary().response
    rows = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    rows += [
        f"{value_us:12.3f} {share:14.12f} {seen:10d}"
        + (f" {1 / (1 - share):14.2f}" if share < 1 else "")
        for value_us, share, seen in _steps(times)
    ]
    mean_us, max_us = (times.mean_ns or 0) / _NS_PER_US, (times.max_ns or 0) / _NS_PER_US
    octaves = (bucket_of(HIGHEST_NS) - bucket_of(LOWEST_NS)) // (1 << PART_BITS) + 1
    what = "response time" if load.is_open_loop else "service time, closed loop"
    rows += [
        f"#[Mean    = {mean_us:12.3f}, StdDeviation   = {_deviation_us(times):12.3f}]",
        f"#[Max     = {max_us:12.3f}, TotalCount     = {times.count:12d}]",
        f"#[Buckets = {octaves:12d}, SubBuckets     = {1 << PART_BITS:12d}]",
        f"#[Unit    = µs, {what}]",
    ]
    return "\n".join(rows) + "\n"


def _steps(times: Histogram) -> Iterator[tuple[float, float, int]]:
    """Yield values in µs, the shares of calls that do not exceed them, and how many these are.

    Each halving of what is left to 1 takes five steps, as in HdrHistogram's own output; its
    Python port (0.10.8) goes by other shares, neither the median nor p99 among them.
    """
    shares, seen = _shares(), 0
    share = next(shares)
    for upper_ns, number in _upper_edges(times):
        seen += number
        while seen >= share * times.count and seen < times.count:
            yield upper_ns / _NS_PER_US, float(share), seen
            share = next(shares)
    if times.max_ns is not None:
        yield times.max_ns / _NS_PER_US, 1.0, times.count


def _shares() -> Iterator[Fraction]:
    """Yield 0, 0.1, … 0.5, 0.55, … 0.75, 0.775, … without end."""
    for halvings in count():
        for step in range(_STEPS):
            yield 1 - Fraction(1, 2**halvings) * (1 - Fraction(step, 2 * _STEPS))


def _deviation_us(times: Histogram) -> float:
    if not times.count or times.mean_ns is None:
        return 0.0
    mean_ns = times.mean_ns
    squares = sum(number * (upper_ns - mean_ns) ** 2 for upper_ns, number in _upper_edges(times))
    return math.sqrt(squares / times.count) / _NS_PER_US


def hdr_of(times: Histogram) -> Any:
    """Return an `hdrh.histogram.HdrHistogram` with the same counts.

    Raises:
        HdrMissing: The package is not installed.
    """
    histogram = _module("histogram").HdrHistogram(_LOWEST_NS, _HIGHEST_NS, _DIGITS)
    for upper_ns, number in _upper_edges(times):
        is_recorded = histogram.record_value(min(upper_ns, _HIGHEST_NS), number)
        assert is_recorded
    return histogram


def _upper_edges(times: Histogram) -> Iterator[tuple[int, int]]:
    if times.max_ns is None:
        return
    if times.below:
        yield min(LOWEST_NS - 1, times.max_ns), times.below
    for bucket, number in sorted(times.counts.items()):
        yield min(bucket_range_ns(bucket)[1], times.max_ns), number
    if times.above:
        yield times.max_ns, times.above


def _module(name: str) -> Any:
    """Import lazily: the package is an extra."""
    try:
        return importlib.import_module(f"hdrh.{name}")
    except ModuleNotFoundError as error:
        raise HdrMissing(
            f"{LOG} is not written, hdrhistogram is missing: install capnp-rig[loadtest]"
        ) from error
