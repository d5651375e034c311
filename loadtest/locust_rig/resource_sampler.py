"""What server, master and machine use while Locust runs: CPU, memory, waits, once a second.

The processes that make load read their own. Both finding the server and reading its figures mean
reading files under /proc. That happens in a real thread, so that no user waits for it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import gevent

from capnp_rig.loadtest.engine.kernel_counters import ProcessTable
from capnp_rig.loadtest.engine.server_usage import (
    WatchedProcess,
    endpoint_cpu_s,
    local_servers,
    machine_time,
    read_usage,
)
from capnp_rig.loadtest.stats.disturbance import (
    SERVER,
    ProcessWindow,
    Surroundings,
    process_windows,
)
from capnp_rig.loadtest.stats.process_use import (
    MachineTime,
    Usage,
    cpu_s_between,
    pressure_between,
    steal_between,
)
from capnp_rig.rigcli.address import AddressError, parse_addresses

_EVERY_S = 1.0
NOT_HERE = "no process of the server was found: it is on another machine, or another user's"

T = TypeVar("T")


def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Call a function in a real thread, and wait for it without holding up other greenlets."""
    result: T = gevent.get_hub().threadpool.apply(function, arguments)
    return result


@dataclass(frozen=True, slots=True)
class ServerReading:
    """What the server's processes and the machine had used, `t_s` after the run started.

    `master` is what a process that collects and makes no load had used, None without one.
    """

    t_s: float
    usages: tuple[Usage, ...]
    machine: MachineTime | None
    master: Usage | None = None


@dataclass(slots=True)
class ServerSampler:
    """Reads the server's processes from the start of a run to its end.

    `readings` has the first and the last one, and those of every second between if asked for.
    """

    host: str
    readings: list[ServerReading] = field(default_factory=list)
    # The process that collects, where it makes no load.
    master: WatchedProcess | None = None
    _parts: list[WatchedProcess] = field(default_factory=list)
    _started_s: float = 0.0
    _greenlet: Any = None
    _table: ProcessTable | None = None

    def start(self, *, every_second: bool) -> None:
        """Find the processes, and read them for the first time."""
        self._started_s = time.monotonic()
        self._find()
        self._table = in_thread(ProcessTable)
        self._read()
        if every_second and self._parts:
            self._greenlet = gevent.spawn(self._follow)

    def stop(self) -> None:
        """Read them for the last time."""
        if self._greenlet is not None:
            self._greenlet.kill()
            self._greenlet = None
        self._read(is_last=True)

    @property
    def is_here(self) -> bool:
        """Whether the server's processes could be found."""
        return bool(self._parts)

    @property
    def age_s(self) -> float:
        """How old the last reading is."""
        return time.monotonic() - self._started_s - self.readings[-1].t_s

    @property
    def cpu_s(self) -> float | None:
        """CPU seconds of all processes so far; None where one came or went, or none is here."""
        return cpu_s_between(self.readings[0].usages, self.readings[-1].usages)

    @property
    def endpoint_cpu_s(self) -> dict[str, float]:
        """The same of each of several endpoints, as far as it is known."""
        return endpoint_cpu_s(self._parts, self.readings[0].usages, self.readings[-1].usages)

    @property
    def steal(self) -> float | None:
        """The share of the machine's CPU time that was stolen; None where it is not known."""
        return steal_between(self.readings[0].machine, self.readings[-1].machine)

    def surroundings(
        self, generators: Sequence[ProcessWindow], in_flight: int | None = None
    ) -> Surroundings:
        """Return what the machine did to the server so far, and to `generators`.

        `in_flight` is how many calls a closed loop has in flight, None where it is not known.
        """
        first, last = self.readings[0], self.readings[-1]
        seconds = last.t_s - first.t_s
        server = tuple(process_windows(SERVER, first.usages, last.usages, seconds))
        own = [each.pid for each in (*server, *generators)]
        return Surroundings(
            (*server, *generators),
            () if self._table is None else self._table.busiest(own),
            pressure_between(first.machine, last.machine, seconds),
            in_flight,
        )

    def shares(self) -> dict[int, float]:
        """Return the share of a CPU that each process used lately, by pid."""
        now = self.readings[-1]
        earlier = (each for each in reversed(self.readings) if now.t_s - each.t_s >= _EVERY_S / 2)
        before = next(earlier, now)
        if before is now:
            return {}
        used = {usage.pid: usage.cpu_s for usage in before.usages}
        passed_s = now.t_s - before.t_s
        return {
            usage.pid: (usage.cpu_s - used[usage.pid]) / passed_s
            for usage in now.usages
            if usage.pid in used
        }

    def _follow(self) -> None:
        while True:
            gevent.sleep(_EVERY_S)
            self._read()
            if len(self.readings[-1].usages) < len(self._parts):
                # A worker died: its successor is another process.
                self._find()

    def _find(self) -> None:
        try:
            addresses = parse_addresses(self.host)
        except AddressError:
            return
        self._parts = in_thread(local_servers, addresses) or self._parts

    def _read(self, *, is_last: bool = False) -> None:
        self.readings.append(in_thread(self._reading, is_last))

    def _reading(self, is_last: bool) -> ServerReading:
        usages = tuple(read_usage(self._parts))
        at_s = time.monotonic() - self._started_s
        if self._table is not None:
            self._table.read(is_last=is_last)
        master = None if self.master is None else self.master.read()
        return ServerReading(at_s, usages, machine_time(), master)
