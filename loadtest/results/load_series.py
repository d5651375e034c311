"""Time series of a load run: each second's calls, and what each process used (no I/O)."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from capnp_rig.loadtest.results.load_samples import LoadRun, UsageSample
from capnp_rig.loadtest.stats.process_use import gc_between
from capnp_rig.loadtest.stats.tally import Clocks, Window
from capnp_rig.rigcli.gc_page import GcUse


@dataclass(frozen=True, slots=True)
class Second:
    """A second of a repeat, over all processes; `length_s` of it lie in the measured window.

    `length_s` is 0 for the warm-up and for what was answered after the end. `connections` stood
    at its end, by endpoint where there are several.
    """

    second: int
    length_s: float
    window: Window
    clocks: Clocks
    connections: Mapping[str, int] = field(default_factory=dict)

    @property
    def calls_per_s(self) -> float | None:
        """Answered calls per second; None outside the measured window."""
        return self.window.answered / self.length_s if self.length_s else None


@dataclass(frozen=True, slots=True)
class UsageInterval:
    """What a process used between two samples: CPU in cores, and its memory at the end.

    `gc` has its garbage collections in between, None where it does not tell of them.
    """

    usage: UsageSample
    from_s: float
    cores: float
    gc: GcUse | None = None

    @property
    def until_s(self) -> float:
        """When it ends, in seconds after the window opened."""
        return self.usage.t_s


def seconds_of(load: LoadRun, repeat: int) -> list[Second]:
    """Return the seconds of a repeat, those without any answer among them."""
    windows, length_s = load.windows(repeat), load.repeats[repeat].seconds
    measured = range(math.ceil(length_s))
    seconds = []
    standing: Counter[str] = Counter()
    for second in sorted({*windows, *measured}):
        window = windows.get(second, Window())
        clocks = Clocks.of(window.times, is_open_loop=load.is_open_loop)
        inside_s = min(1.0, length_s - second) if second in measured else 0.0
        for name, part in window.endpoints.items():
            standing[name] += part.connects.count + part.reconnects.count - part.ended
        seconds.append(Second(second, inside_s, window, clocks, dict(standing)))
    return seconds


def usage_intervals(load: LoadRun, repeat: int) -> dict[tuple[str, str, int], list[UsageInterval]]:
    """Return what each process of a repeat used between its samples, by role, name and pid.

    A process that was sampled once has none.
    """
    by_process: dict[tuple[str, str, int], list[UsageSample]] = {}
    for usage in load.usage:
        if usage.repeat == repeat:
            by_process.setdefault((usage.role, usage.name, usage.pid), []).append(usage)
    return {
        key: [
            UsageInterval(
                now,
                before.t_s,
                (now.cpu_s - before.cpu_s) / (now.t_s - before.t_s),
                gc_between(before.gc, now.gc),
            )
            for before, now in pairwise(sorted(usages, key=lambda usage: usage.t_s))
            if now.t_s > before.t_s
        ]
        for key, usages in by_process.items()
    }


def used_between(
    intervals: Iterable[UsageInterval], from_s: float, until_s: float
) -> tuple[float, float]:
    """Return the CPU seconds used within a stretch of time, and how much of it was watched."""
    cpu_s = watched_s = 0.0
    for interval in intervals:
        overlap_s = min(until_s, interval.until_s) - max(from_s, interval.from_s)
        if overlap_s > 0:
            cpu_s += overlap_s * interval.cores
            watched_s += overlap_s
    return cpu_s, watched_s


def steal_share(load: LoadRun, repeat: int) -> list[tuple[float, float]]:
    """Return when the machine was sampled, and the share of CPU time stolen since the last time."""
    samples = [sample for sample in load.machine if sample.repeat == repeat]
    return [
        (now.t_s, (now.steal_s - before.steal_s) / (now.total_s - before.total_s))
        for before, now in pairwise(sorted(samples, key=lambda sample: sample.t_s))
        if now.total_s > before.total_s
    ]


@dataclass(frozen=True, slots=True)
class SecondUsage:
    """What a process used in one second: CPU in cores, None where it was not watched, and memory.

    `rss_bytes` is that of the last sample in it, None without one.
    """

    cores: float | None
    rss_bytes: int | None


def usage_by_second(
    load: LoadRun, repeat: int
) -> dict[tuple[str, str, int], dict[int, SecondUsage]]:
    """Return what each process of a repeat used in each second, by role, name and pid."""
    used: dict[tuple[str, str, int], dict[int, SecondUsage]] = {}
    for key, intervals in usage_intervals(load, repeat).items():
        if not intervals:
            continue
        seconds = range(math.floor(intervals[0].from_s), math.ceil(intervals[-1].until_s))
        by_second: dict[int, list[UsageInterval]] = {second: [] for second in seconds}
        for interval in intervals:
            for second in range(math.floor(interval.from_s), math.ceil(interval.until_s)):
                by_second[second].append(interval)
        used[key] = {second: _of_second(second, those) for second, those in by_second.items()}
    return used


def _of_second(second: int, intervals: list[UsageInterval]) -> SecondUsage:
    cpu_s, watched_s = used_between(intervals, second, second + 1)
    ended = [interval.usage.rss_bytes for interval in intervals if interval.until_s <= second + 1]
    return SecondUsage(cpu_s / watched_s if watched_s else None, ended[-1] if ended else None)
