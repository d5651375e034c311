"""What the processes of a server on this machine use: CPU time, memory, pauses, calls."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from capnp_rig.rigcli.address import Address
from capnp_rig.rigcli.gc_page import GcUse, read_gc

_SUPERVISOR = "supervisor"
_LOOPBACK = ("127.", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class ServerPart:
    """One process of a server: the ``supervisor``, which listens, or ``worker 0``, … below it."""

    name: str
    process: psutil.Process


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used: CPU seconds (user and system) since its start, and memory now.

    `gc` has its garbage collections, None where it does not tell.
    """

    name: str
    pid: int
    cpu_s: float
    rss_bytes: int
    gc: GcUse | None = None


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


def local_server(address: Address) -> list[ServerPart]:
    """Return the processes that listen on `address` on this machine, with their children.

    Empty where there are none, as with a server on another machine, or one of another user.
    """
    try:
        pids = sorted(
            {
                found.pid
                for found in psutil.net_connections("inet" if address.path is None else "unix")
                if found.pid and _listens_on(found, address)
            }
        )
        roots = [psutil.Process(pid) for pid in pids]
        # A worker may hold the listening socket as well: it is a child then, no root.
        children = {root: root.children(recursive=True) for root in roots}
    except psutil.Error:
        return []
    inherited = {child for found in children.values() for child in found}
    roots = [root for root in roots if root not in inherited]
    workers = [child for root in roots for child in children[root]]
    return [
        *(ServerPart(_SUPERVISOR if workers else "server", root) for root in roots),
        *(ServerPart(f"worker {number}", worker) for number, worker in enumerate(workers)),
    ]


def _listens_on(found: Any, address: Address) -> bool:
    if address.path is not None:
        return bool(found.laddr == address.path)
    if found.status != psutil.CONN_LISTEN or not found.laddr:
        return False
    return bool(found.laddr.port == address.port and _is_here(address.host or ""))


def _is_here(host: str) -> bool:
    """Tell whether `host` is this machine, as far as its own interfaces say."""
    if host.startswith(_LOOPBACK):
        return True
    own = (one.address for found in psutil.net_if_addrs().values() for one in found)
    return host in own


def read_usage(parts: Sequence[ServerPart]) -> list[Usage]:
    """Return what each process has used so far; those that are gone are left out."""
    found = []
    for part in parts:
        try:
            rss_bytes = int(part.process.memory_info().rss)
            pid = part.process.pid
            cpu_s = cpu_seconds(part.process)
            found.append(Usage(part.name, pid, cpu_s, rss_bytes, read_gc(pid)))
        except psutil.Error:
            continue
    return found


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU seconds of all threads: the nanoseconds of the scheduler, where it tells.

    Ticks of 10 ms are what `psutil` has, far too coarse for a short run.
    """
    try:
        threads = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
        return sum(int(file.read_text().split()[0]) for file in threads) / 1e9
    except (OSError, ValueError, IndexError):
        times = process.cpu_times()
        return float(times.user + times.system)


def cpu_s_between(before: Sequence[Usage], after: Sequence[Usage]) -> float | None:
    """Return the CPU seconds of all processes; None where there is none, or one came or went."""
    used = {usage.pid: usage.cpu_s for usage in after}
    if not before or used.keys() != {usage.pid for usage in before}:
        return None
    return sum(used.values()) - sum(usage.cpu_s for usage in before)


def peers(parts: Sequence[ServerPart]) -> dict[int, int]:
    """Return the pid of the process that has each TCP connection, by the port at its other end.

    It takes 20 ms for 64 connections on two workers, 45 ms for 1,000: nothing to do under load.
    """
    found: dict[int, int] = {}
    for part in parts:
        # It has what it is about to hand over, and answers no calls.
        if part.name == _SUPERVISOR:
            continue
        try:
            connections = part.process.net_connections("tcp")
        except psutil.Error:
            continue
        found |= {one.raddr.port: part.process.pid for one in connections if one.raddr}
    return found


def used_by_each(
    before: Sequence[Usage],
    after: Sequence[Usage],
    owners: Mapping[int, int],
    by_port: Iterable[Mapping[int, int]],
) -> list[ProcessUse]:
    """Return what each process used between two readings; empty where one came or went.

    `owners` is what `peers` returned, `by_port` the calls of each generator process by its local
    ports. Where a connection has no owner, or there is none at all, no calls are told.
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
            *(usage.name, usage.pid, usage.cpu_s - first[usage.pid].cpu_s),
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
    names = [[one.name for one in each] for each in repeats]
    if not names or any(each != names[0] for each in names):
        return []
    return [_sum(uses) for uses in zip(*repeats, strict=True)]


def _sum(uses: Sequence[ProcessUse]) -> ProcessUse:
    calls = [one.calls for one in uses if one.calls is not None]
    collected = [one.gc for one in uses if one.gc is not None]
    return ProcessUse(
        *(uses[0].name, uses[0].pid, sum(one.cpu_s for one in uses)),
        calls=sum(calls) if len(calls) == len(uses) else None,
        gc=GcUse(
            count=sum(one.count for one in collected),
            pause_ns=sum(one.pause_ns for one in collected),
            longest_ns=max(one.longest_ns for one in collected),
        )
        if len(collected) == len(uses)
        else None,
    )


def workers_of(server: Iterable[ProcessUse]) -> list[ProcessUse]:
    """Return the processes that answer calls: all but the supervisor."""
    return [one for one in server if one.name != _SUPERVISOR]


def gc_between(before: GcUse | None, after: GcUse | None) -> GcUse | None:
    """Return the garbage collections between two readings; None where they do not tell of them."""
    return None if before is None or after is None else after.since(before)


@dataclass(frozen=True, slots=True)
class MachineTime:
    """CPU seconds of the whole machine since it started: stolen by others, and all there were."""

    steal_s: float
    total_s: float


def machine_time() -> MachineTime | None:
    """Return the machine's CPU times, None where it does not tell what is stolen."""
    times = psutil.cpu_times()
    steal = getattr(times, "steal", None)
    return None if steal is None else MachineTime(float(steal), float(sum(times)))


def steal_between(before: MachineTime | None, after: MachineTime | None) -> float | None:
    """Return the share of CPU time that was stolen, None where it is not known."""
    if before is None or after is None or after.total_s <= before.total_s:
        return None
    return (after.steal_s - before.steal_s) / (after.total_s - before.total_s)
