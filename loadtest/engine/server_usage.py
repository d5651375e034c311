"""Find the processes of a server on this machine, and read what they have used so far."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import psutil

from capnp_rig.loadtest.engine.kernel_counters import ThreadCounters, cpu_seconds, mhz, pressure_s
from capnp_rig.loadtest.stats.process_use import (
    SUPERVISOR,
    MachineTime,
    Usage,
    cpu_s_between,
    is_supervisor,
    ports_key,
)
from capnp_rig.rigcli.address import Address
from capnp_rig.rigcli.gc_page import read_gc

_LOOPBACK = ("127.", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class WatchedProcess:
    """One process of a server: the ``supervisor``, which listens, or ``worker 0``, … below it.

    `endpoints` are the servers of several that it belongs to; then its name begins with the first.
    """

    name: str
    process: psutil.Process
    endpoints: tuple[str, ...] = ()
    # Remembers the threads that have ended.
    threads: ThreadCounters = field(default_factory=ThreadCounters, repr=False, compare=False)

    def read(self) -> Usage:
        """Return what it has used so far.

        Raises:
            psutil.Error: It is gone, or not ours to look at.
        """
        process, pid = self.process, self.process.pid
        rss_bytes = int(process.memory_info().rss)
        kernel = self.threads.read(pid)
        return Usage(self.name, pid, cpu_seconds(process), rss_bytes, read_gc(pid), kernel)


def local_server(address: Address) -> list[WatchedProcess]:
    """Return the processes that listen on `address` on this machine, with their children.

    Empty where there are none, as with a server on another machine, or one of another user.
    """
    try:
        pids = sorted(
            {
                socket.pid
                for socket in psutil.net_connections("inet" if address.path is None else "unix")
                if socket.pid and _listens_on(socket, address)
            }
        )
        roots = [psutil.Process(pid) for pid in pids]
        # A worker may hold the listening socket as well: it is a child then, no root.
        children = {root: root.children(recursive=True) for root in roots}
    except psutil.Error:
        return []
    inherited = {child for below in children.values() for child in below}
    roots = [root for root in roots if root not in inherited]
    workers = [child for root in roots for child in children[root]]
    return [
        *(WatchedProcess(SUPERVISOR if workers else "server", root) for root in roots),
        *(WatchedProcess(f"worker {number}", worker) for number, worker in enumerate(workers)),
    ]


def local_servers(addresses: Sequence[Address]) -> list[WatchedProcess]:
    """Return the processes of one server, or of several, which are told apart by their addresses.

    Empty where one of them is not on this machine: the others alone say nothing of all calls.
    """
    if len(addresses) == 1:
        return local_server(addresses[0])
    by_pid: dict[int, WatchedProcess] = {}
    for address in addresses:
        parts = local_server(address)
        if not parts:
            return []
        for part in parts:
            known = by_pid.get(part.process.pid)
            name = f"{address} {part.name}" if known is None else known.name
            endpoints = (*(() if known is None else known.endpoints), str(address))
            by_pid[part.process.pid] = replace(part, name=name, endpoints=endpoints)
    return list(by_pid.values())


def endpoint_cpu_s(
    processes: Sequence[WatchedProcess], before: Sequence[Usage], after: Sequence[Usage]
) -> dict[str, float]:
    """Return the CPU seconds that each of several endpoints used between two readings.

    One that shares a process with another is left out, and one of which a process came or went.
    """
    shared = {name for each in processes if len(each.endpoints) > 1 for name in each.endpoints}
    pids: dict[str, set[int]] = {}
    for each in processes:
        for name in set(each.endpoints) - shared:
            pids.setdefault(name, set()).add(each.process.pid)
    used = {
        name: cpu_s_between(
            *([each for each in some if each.pid in mine] for some in (before, after))
        )
        for name, mine in pids.items()
    }
    return {name: cpu_s for name, cpu_s in used.items() if cpu_s is not None}


def _listens_on(socket: Any, address: Address) -> bool:
    if address.path is not None:
        return bool(socket.laddr == address.path)
    if socket.status != psutil.CONN_LISTEN or not socket.laddr:
        return False
    return bool(socket.laddr.port == address.port and _is_here(address.host or ""))


def _is_here(host: str) -> bool:
    """Tell whether `host` is this machine, as far as its own interfaces say."""
    if host.startswith(_LOOPBACK):
        return True
    addresses = (each.address for card in psutil.net_if_addrs().values() for each in card)
    return host in addresses


def read_usage(processes: Sequence[WatchedProcess]) -> list[Usage]:
    """Return what each process has used so far; those that are gone are left out."""
    usages = []
    for watched in processes:
        with suppress(psutil.Error):
            usages.append(watched.read())
    return usages


def peers(processes: Sequence[WatchedProcess]) -> dict[int, int]:
    """Return the pid of the process that has each TCP connection, by its `ports_key`.

    It takes 20 ms for 64 connections on two workers, 45 ms for 1,000: nothing to do under load.
    """
    owners: dict[int, int] = {}
    for watched in processes:
        # It has what it is about to hand over, and answers no calls.
        if is_supervisor(watched.name):
            continue
        try:
            connections = watched.process.net_connections("tcp")
        except psutil.Error:
            continue
        owners |= {
            ports_key(connection.raddr.port, connection.laddr.port): watched.process.pid
            for connection in connections
            if connection.raddr
        }
    return owners


def machine_time() -> MachineTime | None:
    """Return the machine's CPU times, None where it does not tell what is stolen."""
    times = psutil.cpu_times()
    steal = getattr(times, "steal", None)
    if steal is None:
        return None
    return MachineTime(float(steal), float(sum(times)), pressure_s(), mhz())
