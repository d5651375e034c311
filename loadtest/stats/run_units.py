"""The units of a load run, its repeats or blocks of its seconds, and what its figures are (no I/O).

Figures go by keys: `RATE`, `SERVER_CPU`, and ``service.p99`` for each clock and percentile.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from capnp_rig.loadtest.stats.histogram import Histogram, us_of
from capnp_rig.loadtest.stats.tally import WARMUP, Report, Window, add_windows
from capnp_rig.loadtest.stats.unit_intervals import (
    LEAST_BLOCKS,
    LEAST_REPEATS,
    Added,
    added_to_percentiles,
    added_to_ratio,
)

RATE, SERVER_CPU = "calls_per_s", "server_cpu_us_per_call"
# The clock of a process and of the window may differ by as much.
_NEARLY_A_SECOND = 0.9
# The sampler, which looks twice a second, misses the edges of the window.
_LEAST_WATCHED = 0.2


class CpuSample(NamedTuple):
    """CPU seconds that a process of the server had used `t_s` after the window opened."""

    t_s: float
    pid: int
    cpu_s: float


class Measured(Protocol):
    """What of a repeat its units need, as `run_summary.MeasuredRepeat` has it."""

    @property
    def reports(self) -> Sequence[Report]:
        """What each process reported."""

    @property
    def seconds(self) -> float:
        """The length of its measured window."""

    @property
    def server_cpu_s(self) -> float | None:
        """CPU seconds of the server in it."""

    @property
    def server_cpu(self) -> Sequence[CpuSample]:
        """What each process of the server had used now and then."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What came within `seconds` of a run; `server_cpu_s` is None where it is not known."""

    seconds: float
    calls: int
    clocks: Mapping[str, Histogram]
    server_cpu_s: float | None

    @classmethod
    def of(cls, window: Window, seconds: float, server_cpu_s: float | None) -> "Unit":
        """Return what came within a window of an open loop, or of a closed one."""
        times = window.times
        clocks = {"response": times.response, "service": times.service, "lateness": times.lateness}
        # In a closed loop only the service time is kept.
        known = {clock: histogram for clock, histogram in clocks.items() if histogram.count}
        return cls(seconds, window.answered, known, server_cpu_s)

    def values(self, percents: Sequence[float]) -> dict[str, float]:
        """Return its own figures, in calls/s and µs; what cannot be had is missing."""
        values: dict[str, float | None] = {}
        if self.seconds:
            values[RATE] = self.calls / self.seconds
        for clock, times in self.clocks.items():
            for percent in percents:
                values[percentile_key(clock, percent)] = us_of(times.percentile_ns(percent))
        if self.server_cpu_s is not None and self.calls:
            values[SERVER_CPU] = self.server_cpu_s * 1e6 / self.calls
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Units:
    """The units of a run: its repeats or, where it is a single one, blocks of its seconds."""

    units: tuple[Unit, ...]
    is_series: bool

    @property
    def kind(self) -> str:
        """What they are, for people."""
        return "second" if self.is_series else "repeat"

    @property
    def least(self) -> int:
        """How many it takes for an interval."""
        return LEAST_BLOCKS if self.is_series else LEAST_REPEATS

    def added(self, percents: Sequence[float]) -> dict[str, Added]:
        """Return what each unit has added to each figure, in calls/s and µs.

        Figures without are missing, all of them where there are too few units.
        """
        if len(self.units) < self.least:
            return {}
        calls = [unit.calls for unit in self.units]
        parts = {RATE: self._ratio(calls, [unit.seconds for unit in self.units])}
        for clock in dict.fromkeys(clock for unit in self.units for clock in unit.clocks):
            times = [unit.clocks.get(clock, Histogram()) for unit in self.units]
            by_percent = added_to_percentiles(times, percents, is_series=self.is_series)
            parts |= {
                percentile_key(clock, percent): part.scaled(1e-3)
                for percent, part in by_percent.items()
            }
        cpu_us = [unit.server_cpu_s * 1e6 for unit in self.units if unit.server_cpu_s is not None]
        if len(cpu_us) == len(self.units):
            parts[SERVER_CPU] = self._ratio(cpu_us, calls)
        return {key: part for key, part in parts.items() if part is not None}

    def _ratio(self, tops: Sequence[float], bottoms: Sequence[float]) -> Added | None:
        return added_to_ratio(tops, bottoms, is_series=self.is_series)


def percentile_key(clock: str, percent: float) -> str:
    """Return the key of a percentile, such as ``service.p99.9``."""
    return f"{clock}.p{percent:g}"


def units_of(parts: Sequence[Measured]) -> Units:
    """Return the units of a run of at least one repeat; none of a single one that is too short."""
    if len(parts) > 1:
        repeats = (
            Unit.of(
                add_windows(report.total for report in part.reports),
                part.seconds,
                part.server_cpu_s,
            )
            for part in parts
        )
        return Units(tuple(repeats), is_series=False)
    return Units(tuple(_blocks(parts[0])), is_series=True)


def _blocks(part: Measured) -> Iterator[Unit]:
    """Yield blocks of equally many full seconds, 30 of them or some more.

    What is left at the end, and what was answered later, belongs to the last one.
    """
    full = int(part.seconds + 1 - _NEARLY_A_SECOND)
    if full < LEAST_BLOCKS:
        return
    each = full // LEAST_BLOCKS
    count = full // each
    windows: list[list[Window]] = [[] for _ in range(count)]
    for report in part.reports:
        for second, window in report.windows.items():
            if second != WARMUP:
                windows[min(second // each, count - 1)].append(window)
    ends = [number * each for number in range(1, count)] + [part.seconds]
    for number, (end, inside) in enumerate(zip(ends, windows, strict=True)):
        start = number * each
        cpu_s = _cpu_between(part.server_cpu, start, end)
        yield Unit.of(add_windows(inside), end - start, cpu_s)


def _cpu_between(samples: Sequence[CpuSample], from_s: float, until_s: float) -> float | None:
    """Return the CPU seconds of all processes in a stretch of time, None where nobody watched.

    What was watched stands for all of it.
    """
    by_process: dict[int, list[CpuSample]] = {}
    for sample in samples:
        by_process.setdefault(sample.pid, []).append(sample)
    used_s = 0.0
    for process in by_process.values():
        first, last = max(from_s, process[0].t_s), min(until_s, process[-1].t_s)
        if last - first < _LEAST_WATCHED * (until_s - from_s):
            return None
        used = _cpu_at(process, last) - _cpu_at(process, first)
        used_s += used / (last - first) * (until_s - from_s)
    return used_s if by_process else None


def _cpu_at(process: Sequence[CpuSample], t_s: float) -> float:
    """Return what a process had used at an instant between its first and its last sample."""
    at = min(bisect_right(process, t_s, key=lambda sample: sample.t_s), len(process) - 1)
    before, after = process[at - 1], process[at]
    share = (t_s - before.t_s) / (after.t_s - before.t_s) if after.t_s > before.t_s else 0.0
    return before.cpu_s + share * (after.cpu_s - before.cpu_s)
