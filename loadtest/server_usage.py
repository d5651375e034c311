"""CPU time and memory of the processes of a server that runs on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from wire.address import Address

_LOOPBACK = ("127.", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class ServerPart:
    """One process of a server: the ``supervisor``, which listens, or ``worker 0``, … below it."""

    name: str
    process: psutil.Process


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used: CPU seconds (user and system) since its start, and memory now."""

    name: str
    pid: int
    cpu_s: float
    rss_bytes: int


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
        *(ServerPart("supervisor" if workers else "server", root) for root in roots),
        *(ServerPart(f"worker {number}", worker) for number, worker in enumerate(workers)),
    ]


def _listens_on(found: Any, address: Address) -> bool:  # noqa: ANN401 - psutil's named tuple
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
            found.append(Usage(part.name, part.process.pid, cpu_seconds(part.process), rss_bytes))
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
