"""Measures a Locust process from within, whatever its users do: a locustfile beside theirs.

``locust -f users.py,loadtest/locust_rig/process_meter.py --meter-file FILE …``. When all users
are there it waits for the warm-up, reads how many requests Locust has counted and how much CPU was
used, reads again after the window, writes the differences to the file as a JSON object, and ends
the run: it is over by the time that Locust begins to end it.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import psutil
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from capnp_rig.loadtest.engine.kernel_counters import ProcessTable
from capnp_rig.loadtest.engine.server_usage import WatchedProcess, machine_time, read_usage
from capnp_rig.loadtest.locust_rig.run_context import context
from capnp_rig.loadtest.stats.disturbance import (
    GENERATOR,
    SERVER,
    OtherProcess,
    Surroundings,
    process_windows,
)
from capnp_rig.loadtest.stats.process_use import (
    MachineTime,
    Usage,
    cpu_s_between,
    pressure_between,
)


def _add_options(parser: LocustArgumentParser) -> None:
    for name, kind, text in (
        ("file", Path, "where to write what was measured"),
        ("warmup", float, "seconds from when all users are there"),
        ("seconds", float, "length of the window"),
    ):
        parser.add_argument(
            f"--meter-{name}", type=kind, required=True, help=text, include_in_web_ui=False
        )
    parser.add_argument(
        "--meter-server",
        type=int,
        action="append",
        default=[],
        metavar="PID",
        help="a process of the server; repeatable",
        include_in_web_ui=False,
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """What had been counted and used by an instant of the monotonic clock."""

    at_s: float
    requests: int
    failures: int
    own: Usage
    server: list[Usage]
    machine: MachineTime | None


def _read(environment: Environment, own: WatchedProcess, server: list[WatchedProcess]) -> _Reading:
    # The rig's users update Locust's statistics in bulk, a little later; others have none of it.
    context.update_locust()
    total = environment.stats.total
    counts = (total.num_requests, total.num_failures)
    return _Reading(time.monotonic(), *counts, own.read(), read_usage(server), machine_time())


def _measure(environment: Environment) -> None:
    options: Any = environment.parsed_options
    own = WatchedProcess("locust", psutil.Process())
    server = [
        WatchedProcess(f"process {number}", psutil.Process(pid))
        for number, pid in enumerate(options.meter_server)
    ]
    gevent.sleep(options.meter_warmup)
    table = ProcessTable()
    before = _read(environment, own, server)
    gevent.sleep(options.meter_seconds)
    after = _read(environment, own, server)
    table.read(is_last=True)
    used = _between(before, after, table.busiest(options.meter_server))
    options.meter_file.write_text(json.dumps(used), encoding="utf-8")
    assert environment.runner is not None
    environment.runner.quit()


def _between(before: _Reading, after: _Reading, others: tuple[OtherProcess, ...]) -> dict[str, Any]:
    """Return what was counted and used between two readings, in plain values."""
    seconds = after.at_s - before.at_s
    surroundings = Surroundings(
        (
            *process_windows(SERVER, before.server, after.server, seconds),
            *process_windows(GENERATOR, [before.own], [after.own], seconds),
        ),
        others,
        pressure_between(before.machine, after.machine, seconds),
    )
    return {
        "seconds": seconds,
        "requests": after.requests - before.requests,
        "failures": after.failures - before.failures,
        "cpu_s": after.own.cpu_s - before.own.cpu_s,
        "server_cpu_s": cpu_s_between(before.server, after.server) or 0.0,
        "surroundings": surroundings.to_json(),
    }


def _on_init(environment: Environment, **_: object) -> None:
    # Locust says that all users are there, but not in which environment.
    _events.spawning_complete.add_listener(lambda **_: gevent.spawn(_measure, environment))


# Locust ships type information, but not for its hooks.
_events: Any = events
_events.init_command_line_parser.add_listener(_add_options)
_events.init.add_listener(_on_init)
