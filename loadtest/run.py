"""``loadtest run``: engine processes on CPUs of their own, one summary, one result folder."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from loadtest import record
from loadtest.child import child_environment, kept_alive
from loadtest.engine import EngineConfig, EngineResult
from loadtest.results import folder_name, make_folder, run_document, write_run
from loadtest.run_summary import Observed, Summary, summarize
from loadtest.server_process import cpu_s_of
from wire.address import Address

_WARMUP_S = 0.5
_GRACE_S = 20.0
_POLL_S = 0.1


class RunError(Exception):
    """The load could not be run; the message says why."""


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What `loadtest run` was asked for; `rate_hz` None is a closed loop."""

    address: Address
    connections: int
    in_flight: int
    rate_hz: float | None
    arrivals: str
    seconds: float
    payload_bytes: int
    processes: int
    seed: int
    pin: bool
    results: Path


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where a run was written, and what it says."""

    folder: Path
    summary: Summary


# Gets the seconds done and the calls answered so far.
Report = Callable[[float, int], None]


def run(config: RunConfig, report: Report) -> RunResult:
    """Load the server, write the result, and return it.

    Raises:
        RunError: An engine process failed.
        OSError: The result cannot be written.
    """
    environment = record.environment()
    now = datetime.now(UTC)
    server = _local_server(config.address)
    cpu_before, steal_before = cpu_s_of(server), _stolen_s()
    results = _run_engines(plan_engines(config, sorted(os.sched_getaffinity(0))), report)
    observed = Observed(_cpu_between(cpu_before, cpu_s_of(server)), _steal_since(steal_before))
    summary = summarize(results, observed)
    folder = make_folder(config.results, folder_name(now, environment["commit"]))
    plain = asdict(config) | {"address": str(config.address), "results": str(config.results)}
    write_run(
        folder,
        run_document(
            *("run", plain, environment, ()),
            started=now.isoformat(),
            summary=summary.to_json(),
            observed=asdict(observed),
            engines=[asdict(result) for result in results],
        ),
    )
    return RunResult(folder, summary)


def plan_engines(config: RunConfig, cpus: list[int]) -> list[EngineConfig]:
    """Share the load among the processes, pinned to the last of `cpus` first.

    Servers pin their workers from the first CPU on.
    """
    count = min(config.processes, config.connections)
    return [
        EngineConfig(
            address=str(config.address),
            connections=config.connections // count + (number < config.connections % count),
            in_flight=config.in_flight,
            seconds=config.seconds,
            warmup_s=_WARMUP_S,
            payload_bytes=config.payload_bytes,
            cpu=cpus[-1 - number % len(cpus)] if config.pin else None,
            rate_hz=None if config.rate_hz is None else config.rate_hz / count,
            arrivals=config.arrivals,
            seed=config.seed + number,
        )
        for number in range(count)
    ]


def _run_engines(configs: list[EngineConfig], report: Report) -> list[EngineResult]:
    with ExitStack() as stack:
        engines = [_Engine(config, stack) for config in configs]
        started_s = time.monotonic()
        limit_s = configs[0].warmup_s + configs[0].seconds + _GRACE_S
        while any(engine.running for engine in engines):
            passed_s = time.monotonic() - started_s
            if passed_s > limit_s:
                raise RunError("an engine process did not end in time")
            report(min(passed_s, configs[0].seconds), sum(engine.answered for engine in engines))
            time.sleep(_POLL_S)
        return [engine.result() for engine in engines]


class _Engine:
    """One engine process, and what it has said so far."""

    def __init__(self, config: EngineConfig, stack: ExitStack) -> None:
        self.answered = 0
        self._last = ""
        self._process = stack.enter_context(
            kept_alive(
                [sys.executable, "-P", "-m", "loadtest.engine", json.dumps(asdict(config))],
                env=child_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._last = line.decode()
            if self._last.strip().isdigit():
                self.answered = int(self._last)

    def result(self) -> EngineResult:
        self._reader.join(5)
        if self._process.returncode or not self._last.startswith("{"):
            assert self._process.stderr is not None
            said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
            raise RunError(said[-1] if said else "the engine said nothing")
        return EngineResult(**json.loads(self._last))


def _local_server(address: Address) -> list[psutil.Process]:
    """Return the processes that listen on `address` on this machine, with their children."""
    try:
        pids = {
            found.pid
            for found in psutil.net_connections("inet" if address.path is None else "unix")
            if found.pid and _listens_on(found, address)
        }
        roots = [psutil.Process(pid) for pid in pids]
        children = [child for root in roots for child in root.children(recursive=True)]
    except psutil.Error:
        return []
    return list(dict.fromkeys([*roots, *children]))


def _listens_on(found: Any, address: Address) -> bool:  # noqa: ANN401 - psutil's named tuple
    if address.path is not None:
        return bool(found.laddr == address.path)
    listens = found.status == psutil.CONN_LISTEN
    return bool(listens and found.laddr and found.laddr.port == address.port)


def _cpu_between(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _stolen_s() -> tuple[float, float] | None:
    times = psutil.cpu_times()
    steal = getattr(times, "steal", None)
    return None if steal is None else (float(steal), float(sum(times)))


def _steal_since(before: tuple[float, float] | None) -> float | None:
    after = _stolen_s()
    if before is None or after is None or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])
