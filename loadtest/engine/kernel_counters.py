"""Read what the kernel counts of processes: waits for a CPU, switches, throttling (Linux).

Counters are per thread: a process's own files have its main thread only. What is not readable, for
whatever reason, is None. A thread costs about 40 µs to read, the table of all processes 15 µs for
each of them.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

import psutil

from capnp_rig.loadtest.stats.disturbance import OtherProcess, busiest_others
from capnp_rig.loadtest.stats.process_use import KernelCounts, ThreadSums

_PROC = Path("/proc")
# `CPUCLOCK_SCHED` of a process, as `clock_getcpuclockid` makes it: with the threads that ended.
_CPU_CLOCK = 2
# The table of processes is read for at most this share of the time.
_TABLE_SHARE = 0.01


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU seconds of all threads, in ns where the kernel tells, else in ticks of 10 ms.

    Raises:
        psutil.Error: The process is gone, or not ours to look at.
    """
    try:
        return time.clock_gettime(~process.pid << 3 | _CPU_CLOCK)
    except (OSError, AttributeError):
        times = process.cpu_times()
        return float(times.user + times.system)


# --- threads ---------------------------------------------------------------------------------


@dataclass(slots=True)
class ThreadCounters:
    """The counters of one process over all its threads, also those that have ended."""

    _waits: ThreadSums = field(default_factory=ThreadSums)
    _switches: ThreadSums = field(default_factory=ThreadSums)
    _migrations: ThreadSums = field(default_factory=ThreadSums)

    def read(self, pid: int) -> KernelCounts:
        """Return what the kernel has counted of process `pid` so far."""
        tasks = list((_PROC / f"{pid}/task").glob("*"))
        waits = self._waits.add(_of_threads(tasks, "schedstat", waited_ns))
        switches = self._switches.add(_of_threads(tasks, "status", involuntary_switches))
        migrations = self._migrations.add(_of_threads(tasks, "sched", migrations_of))
        throttles, throttled_s = throttling(pid) or (None, None)
        return KernelCounts(
            None if waits is None else waits / 1e9,
            switches,
            migrations,
            throttles,
            throttled_s,
        )


def _of_threads(tasks: Iterable[Path], file: str, count: Callable[[str], int]) -> dict[int, int]:
    counts = {}
    for task in tasks:
        # A thread may end meanwhile, and a kernel may have no such file.
        with suppress(OSError, ValueError, LookupError):
            counts[int(task.name)] = count((task / file).read_text())
    return counts


def waited_ns(schedstat: str) -> int:
    """Return how long a thread waited in run queues, of its ``schedstat``."""
    return int(schedstat.split()[1])


def involuntary_switches(status: str) -> int:
    """Return how often a thread lost its CPU, of its ``status``."""
    return int(_after(status, "nonvoluntary_ctxt_switches:"))


def migrations_of(sched: str) -> int:
    """Return how often a thread changed its CPU, of its ``sched``."""
    return int(_after(sched, "se.nr_migrations").lstrip(" :"))


def _after(text: str, name: str) -> str:
    line = next((line for line in text.splitlines() if line.startswith(name)), None)
    if line is None:
        raise LookupError(name)
    return line.removeprefix(name)


# --- cgroups ---------------------------------------------------------------------------------


def throttling(pid: int) -> tuple[int, float] | None:
    """Return how often its cgroups have throttled a process, and for how many seconds.

    A quota may be set on its own cgroup or on any above it: all count. None where none has a quota
    that can be read.
    """
    try:
        files = stat_files((_PROC / f"{pid}/cgroup").read_text(), _mounts())
    except OSError:
        return None
    known = []
    for file in files:
        with suppress(OSError, ValueError):
            known.append(throttled(file.read_text()))
    told = [each for each in known if each is not None]
    if not told:
        return None
    return sum(count for count, _ in told), sum(seconds for _, seconds in told)


@cache
def _mounts() -> str:
    return (_PROC / "self/mountinfo").read_text()


def stat_files(cgroup: str, mountinfo: str) -> list[Path]:
    """Return where the CPU statistics of a process's cgroups are, its own and those above it.

    `cgroup` is its ``/proc/PID/cgroup``, `mountinfo` our own: version 1 has a mount for the
    controller ``cpu``, version 2 one for all.
    """
    paths: dict[str, PurePosixPath] = {}
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            paths["cgroup"] = PurePosixPath(path)
        elif not controllers:
            paths["cgroup2"] = PurePosixPath(path)
    found = []
    for kind, root, mount in _cpu_mounts(mountinfo):
        own = paths.get(kind)
        if own is not None and own.is_relative_to(root) and ".." not in own.parts:
            below = own.relative_to(root)
            found += [Path(mount) / part / "cpu.stat" for part in (below, *below.parents)]
    return list(dict.fromkeys(found))


def _cpu_mounts(mountinfo: str) -> Iterator[tuple[str, str, str]]:
    """Yield the kind, root and place of each mount that has CPU statistics."""
    for line in mountinfo.splitlines():
        mounted, _, made = line.partition(" - ")
        _, _, _, root, place, *_ = mounted.split()
        kind, _, options = made.split()[:3]
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            yield kind, root, place


def throttled(cpu_stat: str) -> tuple[int, float] | None:
    """Return how often a cgroup was throttled, and for how many seconds, of its ``cpu.stat``.

    Version 1 counts ns, version 2 µs; the topmost one of version 2 has no such count.
    """
    values = dict(line.split() for line in cpu_stat.splitlines() if line)
    if "nr_throttled" not in values:
        return None
    ns = int(values.get("throttled_time", 0)) + 1000 * int(values.get("throttled_usec", 0))
    return int(values["nr_throttled"]), ns / 1e9


# --- the machine -----------------------------------------------------------------------------


def pressure_s() -> float | None:
    """Return for how many seconds some process of the machine has waited for a CPU so far."""
    try:
        return pressure_of((_PROC / "pressure/cpu").read_text())
    except (OSError, ValueError, LookupError):
        return None


def pressure_of(text: str) -> float:
    """Return the seconds in ``/proc/pressure/cpu``, which has µs."""
    line = _after(text, "some ")
    return int(line.rpartition("total=")[2]) / 1e6


def mhz() -> float | None:
    """Return the mean clock of the CPUs, None where it is not readable."""
    try:
        clock = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError):
        return None
    return float(clock.current) if clock is not None and clock.current else None


class ProcessTable:
    """The CPU time of all processes of the machine, from when it was made, to name a culprit."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        self._before = {key: cpu_s for key, (_, cpu_s) in _process_times().items()}
        self._after: dict[tuple[int, int], tuple[str, float]] = {}
        self._took_s = time.monotonic() - self._started_s
        self._read_s = time.monotonic()

    def read(self, *, is_last: bool = False) -> None:
        """Look again, so that one that ends soon is known; not too often, except for the last."""
        started_s = time.monotonic()
        if is_last or started_s - self._read_s > self._took_s / _TABLE_SHARE:
            self._after |= _process_times()
            self._read_s = time.monotonic()
            self._took_s = self._read_s - started_s

    def busiest(self, own: Iterable[int]) -> tuple[OtherProcess, ...]:
        """Return the processes that used most so far; `own` are those of the run."""
        seconds = self._read_s - self._started_s
        return busiest_others(self._before, self._after, [*own, os.getpid()], seconds)


def _process_times() -> dict[tuple[int, int], tuple[str, float]]:
    """Return the name and CPU seconds of each process, by its pid and when it started."""
    times = {}
    for file in _PROC.glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            name, started, cpu_s = process_times(file.read_text())
            times[int(file.parent.name), started] = (name, cpu_s)
    return times


def process_times(stat: str) -> tuple[str, int, float]:
    """Return the name, the start in ticks and the CPU seconds of a process, of its ``stat``."""
    # The name may hold spaces, brackets, and what a terminal takes for a command.
    name, _, rest = stat.partition("(")[2].rpartition(")")
    shown = "".join(char if char.isprintable() else "?" for char in name)
    values = rest.split()
    ticks = int(values[11]) + int(values[12])
    return shown, int(values[19]), ticks / os.sysconf("SC_CLK_TCK")
