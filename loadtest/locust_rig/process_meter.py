"""Measures a Locust process from within, whatever its users do: a locustfile beside theirs.

``locust -f users.py,loadtest/locust_rig/process_meter.py --meter-file FILE …``. When all users
are there it waits for the warm-up, reads how many requests Locust has counted and how much CPU was
used, reads again after the window, writes the differences to the file as a JSON object, and ends
the run: it is over by the time that Locust begins to end it.
"""

import json
from pathlib import Path
from typing import Any

import gevent
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from capnp_rig.loadtest.engine.window_meter import WindowMeter
from capnp_rig.loadtest.locust_rig.run_context import context


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


def _counted(environment: Environment) -> tuple[int, int]:
    # The rig's users update Locust's statistics in bulk, a little later; others have none of it.
    context.update_locust()
    total = environment.stats.total
    return total.num_requests, total.num_failures


def _measure(environment: Environment) -> None:
    options: Any = environment.parsed_options
    meter = WindowMeter("locust", options.meter_server)
    gevent.sleep(options.meter_warmup)
    meter.open()
    requests, failures = _counted(environment)
    gevent.sleep(options.meter_seconds)
    requests_now, failures_now = _counted(environment)
    used = meter.close()
    used |= {"requests": requests_now - requests, "failures": failures_now - failures}
    options.meter_file.write_text(json.dumps(used), encoding="utf-8")
    assert environment.runner is not None
    environment.runner.quit()


def _on_init(environment: Environment, **_: object) -> None:
    # Locust says that all users are there, but not in which environment.
    _events.spawning_complete.add_listener(lambda **_: gevent.spawn(_measure, environment))


# Locust ships type information, but not for its hooks.
_events: Any = events
_events.init_command_line_parser.add_listener(_add_options)
_events.init.add_listener(_on_init)
