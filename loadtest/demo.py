"""The demo: a server, Locust on it, and a table of what came out.

Both run as commands in sessions of their own; whatever happens, they are ended by id.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from loadtest import record
from loadtest.child import child_environment, kept_alive
from loadtest.load_figures import load_figures
from loadtest.load_file import read_collector
from loadtest.results import Figure, folder_name, make_folder, run_document, write_run
from loadtest.server_process import ServerFailed, cpu_s_between, running_server

_LOCUSTFILE = Path(__file__).resolve().parent / "capnp_user.py"
# Beyond the run itself: Locust starts, spawns, prints and exits.
_GRACE_S = 15.0
_STOP_TIMEOUT_S = 2


class DemoError(Exception):
    """The demo could not be run; the message says why."""


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """How much load, for how long, on how many workers."""

    seconds: int
    users: int
    in_flight: int
    payload_bytes: int
    workers: int
    results: Path


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What came out; `failures` counts failed calls by kind."""

    title: str
    folder: Path
    figures: list[Figure]
    failures: Mapping[str, int]
    exit_status: int


def run(config: DemoConfig, *, say: Callable[[str], None]) -> DemoResult:
    """Run the demo and write its result; `say` gets a line of progress now and then.

    Raises:
        DemoError: The server or Locust did not run.
        OSError: The result cannot be written.
    """
    environment = record.environment()
    now = datetime.now(UTC)
    folder = make_folder(config.results, folder_name(now, environment["commit"]))
    try:
        with running_server(workers=config.workers, log=folder / "server.log") as server:
            say(f"Server at {server.address}, {config.users} users for {config.seconds} s")
            before = server.read_cpu()
            status = _run_locust(config, server.address, folder)
            cpu_s = cpu_s_between(before, server.read_cpu())
    except ServerFailed as error:
        raise DemoError(str(error)) from error
    load = _read_load(folder, status)
    collector = read_collector(load)
    figures = load_figures(collector, cpu_s)
    plain = asdict(config) | {"results": str(config.results), "stop_timeout_s": _STOP_TIMEOUT_S}
    more = {"started": now.isoformat(), "server_cpu_s": cpu_s, "load": load}
    write_run(folder, run_document("demo", plain, environment, figures, **more))
    failures = dict(collector.total.failures)
    bad = bool(failures) or not collector.total.calls or bool(load["problems"])
    return DemoResult(_title(config), folder, figures, failures, status or int(bad))


def _title(config: DemoConfig) -> str:
    return (
        f"{config.users} users x {config.in_flight} in flight, {config.payload_bytes}-byte texts, "
        f"{config.workers} worker(s), closed loop: times are service times, ramp-up included"
    )


def _run_locust(config: DemoConfig, address: str, folder: Path) -> int:
    with (
        (folder / "locust.log").open("wb") as log,
        kept_alive(
            _locust_command(config, address, folder),
            env=child_environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            return process.wait(config.seconds + _GRACE_S)
        except subprocess.TimeoutExpired as error:
            raise DemoError("Locust did not end in time") from error


def _locust_command(config: DemoConfig, address: str, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-P", "-m", "locust", "-f", str(_LOCUSTFILE), "-H", address),
        *("--headless", "-u", str(config.users), "-r", str(config.users)),
        *("-t", f"{config.seconds}s", "--stop-timeout", str(_STOP_TIMEOUT_S), "--only-summary"),
        *("--in-flight", str(config.in_flight), "--payload-bytes", str(config.payload_bytes)),
        *("--csv", str(folder / "locust"), "--json-file", str(folder / "locust")),
        *("--rig-json", str(folder / "load.json")),
    ]


def _read_load(folder: Path, status: int) -> dict[str, object]:
    file = folder / "load.json"
    if not file.is_file():
        log = folder / "locust.log"
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise DemoError(f"Locust exited with {status}: {lines[-1] if lines else 'it said nothing'}")
    document: dict[str, object] = json.loads(file.read_text(encoding="utf-8"))
    return document
