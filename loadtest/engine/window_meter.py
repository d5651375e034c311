"""What this process, which is a generator, and the server used in one window of time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from capnp_rig.loadtest.engine.kernel_counters import ProcessTable
from capnp_rig.loadtest.engine.server_usage import WatchedProcess, machine_time, read_usage
from capnp_rig.loadtest.stats.disturbance import (
    GENERATOR,
    SERVER,
    Surroundings,
    process_windows,
)
from capnp_rig.loadtest.stats.process_use import (
    MachineTime,
    Usage,
    cpu_s_between,
    pressure_between,
)


@dataclass(frozen=True, slots=True)
class _Reading:
    at_s: float
    own: Usage
    server: list[Usage]
    machine: MachineTime | None


class WindowMeter:
    """Measures the window from `open` to `close`; `name` is that of this process."""

    def __init__(self, name: str, server_pids: Sequence[int]) -> None:
        self._pids = server_pids
        self._own = WatchedProcess(name, psutil.Process())
        self._server = [
            WatchedProcess(f"process {number}", psutil.Process(pid))
            for number, pid in enumerate(server_pids)
        ]

    def open(self) -> None:
        """Read what has been used so far."""
        self._table = ProcessTable()
        self._opened = self._read()

    def close(self) -> dict[str, Any]:
        """Return what was used since `open`, in plain values.

        That is `seconds`, the CPU seconds `cpu_s` and `server_cpu_s`, and `surroundings`, what the
        machine did to both.
        """
        before, after = self._opened, self._read()
        self._table.read(is_last=True)
        seconds = after.at_s - before.at_s
        surroundings = Surroundings(
            (
                *process_windows(SERVER, before.server, after.server, seconds),
                *process_windows(GENERATOR, [before.own], [after.own], seconds),
            ),
            self._table.busiest(self._pids),
            pressure_between(before.machine, after.machine, seconds),
        )
        return {
            "seconds": seconds,
            "cpu_s": after.own.cpu_s - before.own.cpu_s,
            "server_cpu_s": cpu_s_between(before.server, after.server) or 0.0,
            "surroundings": surroundings.to_json(),
        }

    def _read(self) -> _Reading:
        return _Reading(
            time.monotonic(), self._own.read(), read_usage(self._server), machine_time()
        )
