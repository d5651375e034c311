"""What processes and the machine used between two readings: CPU time, pauses, calls (no I/O)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field

from capnp_rig.rigcli.gc_page import GcUse

SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True)
class KernelCounts:
    """What the kernel has counted of a process, over all its threads; None is not readable.

    `wait_s` is how long they were ready to run and had no CPU; `involuntary` how often another one
    took the CPU from them, `migrations` how often they changed it. Its cgroup, or one above it, has
    used up its quota `throttles` times, and kept it from running for `throttled_s`.
    """

    wait_s: float | None = None
    involuntary: int | None = None
    migrations: int | None = None
    throttles: int | None = None
    throttled_s: float | None = None

    def since(self, before: "KernelCounts") -> "KernelCounts":
        """Return what was counted since `before`; what one of the two does not tell is None."""
        pairs = zip(astuple(self), astuple(before), strict=True)
        return KernelCounts(
            *(None if now is None or then is None else now - then for now, then in pairs)
        )

    @classmethod
    def total(cls, parts: Iterable["KernelCounts"]) -> "KernelCounts":
        """Add counts; what one of them does not tell is None."""
        columns = zip(*map(astuple, parts), strict=True)
        return cls(*(None if None in column else sum(column) for column in columns))


class ThreadSums:
    """Adds up what the kernel counts per thread, so that a thread that ends takes nothing away.

    The most that was seen of each thread counts. One that begins and ends between two looks is
    missed, as is what a thread has counted that was given the id of one that ended.
    """

    def __init__(self) -> None:
        self._most: dict[int, int] = {}

    def add(self, threads: Mapping[int, int]) -> int | None:
        """Take the counts of the threads that there are, by id; return the sum over all so far.

        None where no thread was ever seen. Two looks at once may come in either order.
        """
        for thread, count in threads.items():
            self._most[thread] = max(count, self._most.get(thread, 0))
        return sum(self._most.values()) if self._most else None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used: CPU seconds (user and system) since its start, and memory now.

    `gc` has its garbage collections, None where it does not tell; `kernel` is what the kernel tells
    of it beside.
    """

    name: str
    pid: int
    cpu_s: float
    rss_bytes: int
    gc: GcUse | None = None
    kernel: KernelCounts = field(default_factory=KernelCounts)


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What a process used in the measured window.

    `calls` were answered on the connections that it has, None where that cannot be told; `gc` has
    its garbage collections, None where it does not tell.
    """

    name: str
    pid: int
    cpu_s: float
    calls: int | None = None
    gc: GcUse | None = None

    @property
    def cpu_us_per_call(self) -> float | None:
        """CPU µs per call; None without a call, or where they cannot be told."""
        return self.cpu_s * 1e6 / self.calls if self.calls else None


@dataclass(frozen=True, slots=True)
class MachineTime:
    """CPU seconds of the whole machine since it started: stolen by others, and all there were.

    `pressure_s` is for how long some process of it has waited for a CPU, `mhz` the mean clock of
    its CPUs now; None where they are not readable.
    """

    steal_s: float
    total_s: float
    pressure_s: float | None = None
    mhz: float | None = None


def cpu_s_between(before: Sequence[Usage], after: Sequence[Usage]) -> float | None:
    """Return the CPU seconds of all processes; None where there is none, or one came or went."""
    used = {usage.pid: usage.cpu_s for usage in after}
    if not before or used.keys() != {usage.pid for usage in before}:
        return None
    return sum(used.values()) - sum(usage.cpu_s for usage in before)


def steal_between(before: MachineTime | None, after: MachineTime | None) -> float | None:
    """Return the share of CPU time that was stolen, None where it is not known."""
    if before is None or after is None or after.total_s <= before.total_s:
        return None
    return (after.steal_s - before.steal_s) / (after.total_s - before.total_s)


def pressure_between(
    before: MachineTime | None, after: MachineTime | None, seconds: float
) -> float | None:
    """Return the share of `seconds` in which some process waited for a CPU, None if not known."""
    if before is None or after is None or seconds <= 0:
        return None
    if before.pressure_s is None or after.pressure_s is None:
        return None
    return (after.pressure_s - before.pressure_s) / seconds


def ports_key(generator_port: int, server_port: int) -> int:
    """Return by what a TCP connection is known: one port may serve for several servers."""
    return generator_port << 16 | server_port


def used_by_each(
    before: Sequence[Usage],
    after: Sequence[Usage],
    owners: Mapping[int, int],
    by_port: Iterable[Mapping[int, int]],
) -> list[ProcessUse]:
    """Return what each process used between two readings; empty where one came or went.

    `owners` is what `engine.server_usage.peers` returned, `by_port` the calls of each generator
    process by the same keys. Where a connection has no owner, or there is none at all, no calls
    are told.
    """
    first = {usage.pid: usage for usage in before}
    if not before or first.keys() != {usage.pid for usage in after}:
        return []
    made = [(owners.get(port), count) for ports in by_port for port, count in ports.items()]
    calls: Counter[int | None] = Counter()
    for pid, count in made:
        calls[pid] += count
    is_known = bool(made) and calls.keys() <= first.keys()
    return [
        ProcessUse(
            usage.name,
            usage.pid,
            usage.cpu_s - first[usage.pid].cpu_s,
            calls=calls[usage.pid] if is_known else None,
            gc=gc_between(first[usage.pid].gc, usage.gc),
        )
        for usage in after
    ]


def add_up(repeats: Iterable[Sequence[ProcessUse]]) -> list[ProcessUse]:
    """Return what each process used in all repeats together; empty where one is not known.

    Processes are told apart by name: where the server was started anew, their ids differ.
    """
    repeats = list(repeats)
    names = [[use.name for use in each] for each in repeats]
    if not names or any(each != names[0] for each in names):
        return []
    return [_sum(uses) for uses in zip(*repeats, strict=True)]


def _sum(uses: Sequence[ProcessUse]) -> ProcessUse:
    calls = [use.calls for use in uses if use.calls is not None]
    collected = [use.gc for use in uses if use.gc is not None]
    return ProcessUse(
        uses[0].name,
        uses[0].pid,
        sum(use.cpu_s for use in uses),
        calls=sum(calls) if len(calls) == len(uses) else None,
        gc=GcUse(
            count=sum(each.count for each in collected),
            pause_ns=sum(each.pause_ns for each in collected),
            longest_ns=max(each.longest_ns for each in collected),
        )
        if len(collected) == len(uses)
        else None,
    )


def workers_of(server: Iterable[ProcessUse]) -> list[ProcessUse]:
    """Return the processes that answer calls: all but the supervisor."""
    return [process for process in server if not is_supervisor(process.name)]


def is_supervisor(name: str) -> bool:
    """Tell whether a process of a server is its supervisor; of several, the address is in front."""
    return name.rpartition(" ")[2] == SUPERVISOR


def gc_between(before: GcUse | None, after: GcUse | None) -> GcUse | None:
    """Return the garbage collections between two readings; None where they do not tell of them."""
    return None if before is None or after is None else after.since(before)
