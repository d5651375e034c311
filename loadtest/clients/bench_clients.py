"""Clients of three servers that fail in turn, side by side: what each makes of the same faults.

In each round every contender gets three fresh servers and a fresh process, in shuffled order; the
process has the last CPU, the servers have the others. The load is open, with the same schedule for
all, and so are the faults (`fault_plan`). A call takes `CALL_US` in the mean in a healthy server,
whose methods do nothing but wait. The count of executions of each server lies in a file that it
shares with us: it outlives a killed process, and no client has a say in it.
"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from capnp_rig.loadtest.bench.rounds import BenchError, Turn, cpu_each, rounds
from capnp_rig.loadtest.clients.client_figures import ClientSample, figures, timeline
from capnp_rig.loadtest.clients.contenders import ATTEMPTS, CONTENDERS, GRPC
from capnp_rig.loadtest.clients.fault_page import ENVIRONMENT_NAME, FaultPage
from capnp_rig.loadtest.clients.fault_plan import (
    CALL_US,
    DEADLINE_S,
    SERVERS,
    SLOWER,
    Action,
    Step,
    fault_plan,
)
from capnp_rig.loadtest.clients.process import READY, WARMUP_S, ClientConfig
from capnp_rig.loadtest.engine.child_process import (
    child_environment,
    kept_alive,
    last_line,
    module_command,
)
from capnp_rig.loadtest.engine.early_end import EarlyEnd, kept_steps
from capnp_rig.loadtest.engine.progress import ShowProgress
from capnp_rig.loadtest.engine.server_process import ServerFailed, announced_server
from capnp_rig.loadtest.results.writing import Origin, WrittenResult, write_result
from capnp_rig.loadtest.stats.run_summary import LIMITS

KIND = "bench-clients"
_PACKAGE = "capnp_rig.loadtest.clients"
_STARTING_S = 30.0
# Until the client has read when its window opens.
_LEAD_S = 0.1
# From the last fault on: the load may go on for long, the last calls take up to the deadline.
_ENDING_S = 10.0
# What a turn takes beside the load, until the first is done.
_OVERHEAD_S = 4.0


@dataclass(frozen=True, slots=True)
class BenchClientsConfig:
    """`rate_hz` calls for `healthy_s`, and then, with faults, for `faults_s`, in each of `rounds`.

    `contenders` are names of `CONTENDERS`. `seed` is that of the schedule, the texts and the
    resets; each round adds its number.
    """

    contenders: tuple[str, ...] = tuple(CONTENDERS)
    # 120,000 calls with faults: 120 lie beyond the p99.9.
    rounds: int = 4
    rate_hz: float = 1000.0
    healthy_s: float = 10.0
    faults_s: float = 30.0
    seed: int = 1
    results: Path = Path("results")


# What differs in a quick run.
QUICK: Mapping[str, Any] = {"rounds": 1, "healthy_s": 5.0, "faults_s": 12.0}


@dataclass(frozen=True, slots=True)
class BenchClientsResult:
    """Where a run was written, and why each contender that is not in it was left out.

    `early_end` is what ended it before its last round, None where nothing did.
    """

    written: WrittenResult
    skipped: Mapping[str, str]
    early_end: EarlyEnd | None


@dataclass(frozen=True, slots=True)
class _Cpus:
    client: int
    servers: Sequence[int]


def run(config: BenchClientsConfig, show: ShowProgress) -> BenchClientsResult:
    """Measure, write the result, and return it.

    Ctrl-C, SIGTERM and what fails leave the rounds that are over.

    Raises:
        BenchError: There is one CPU only, or no contender, or one failed in the first round.
        ServerFailed: A server did not start in the first round.
        KeyboardInterrupt, Terminated: It was stopped before the first round was over.
        OSError: The result cannot be written.
    """
    _, client_cpu = cpu_each("the servers", "the client")
    cpus = _Cpus(client_cpu, sorted(os.sched_getaffinity(0) - {client_cpu}))
    skipped = {}
    if GRPC in config.contenders and find_spec("grpc") is None:
        skipped[GRPC] = "needs grpcio: pip install 'capnp-rig[stacks]'"
    names = [name for name in config.contenders if name not in skipped]
    if not names:
        raise BenchError("there is no client left to measure")
    origin = Origin.now()
    with origin.folder(config.results) as folder:
        measured = _measured(config, names, cpus, folder, show)
        samples, early_end = kept_steps(measured, BenchError, ServerFailed, per_round=len(names))
        samples.sort(key=lambda sample: names.index(sample.contender))
        written = write_result(
            KIND,
            origin,
            folder,
            config=asdict(config)
            | {
                "cpus": asdict(cpus),
                "call_us": CALL_US,
                "deadline_s": DEADLINE_S,
                "attempts": ATTEMPTS,
            },
            figures=figures(samples),
            samples=map(asdict, samples),
            skipped=skipped,
            timeline=list(timeline(samples)),
            limits=dict(LIMITS),
            ended_early=None if early_end is None else early_end.text,
        )
    return BenchClientsResult(written, skipped, early_end)


def _measured(
    config: BenchClientsConfig,
    names: Sequence[str],
    cpus: _Cpus,
    folder: Path,
    show: ShowProgress,
) -> Iterator[ClientSample]:
    each_s = WARMUP_S + config.healthy_s + config.faults_s + _OVERHEAD_S
    for turn in rounds(config.rounds, (None,), names, show, guess_s=each_s):
        with TemporaryDirectory(prefix="capnp-rig-") as pages, ExitStack() as started:
            servers = _Servers(turn.role, cpus.servers, folder / "server.log", Path(pages), started)
            yield _measure(config, turn, servers, cpus.client, folder / "client.log")


class _Servers:
    """The three servers of one contender, which end with `started`."""

    def __init__(
        self, contender: str, cpus: Sequence[int], log: Path, pages: Path, started: ExitStack
    ) -> None:
        self._contender, self._cpus, self._log, self._started = contender, cpus, log, started
        self._files = [pages / f"page-{number}" for number in range(SERVERS)]
        self._pages = [FaultPage.create(file, CALL_US) for file in self._files]
        self._servers = [
            started.enter_context(
                announced_server(self._command("127.0.0.1:0"), log, **self._environment(number))
            )
            for number in range(SERVERS)
        ]
        self._restarted: subprocess.Popen[bytes] | None = None

    def _command(self, address: str) -> list[str]:
        if self._contender == GRPC:
            return module_command(f"{_PACKAGE}.faulty_grpc_server", address, cpus=self._cpus)
        options = ["--workers", "1", "--log-level", "error"]
        service = ["--service", f"{_PACKAGE}.faulty_service:Faulty"]
        words = ["run", address, *options, *service]
        return module_command("capnp_rig.server", *words, cpus=self._cpus)

    def _environment(self, number: int) -> dict[str, str]:
        return {ENVIRONMENT_NAME: str(self._files[number])}

    @property
    def addresses(self) -> list[str]:
        """Where they listen."""
        return [server.address for server in self._servers]

    @property
    def pids(self) -> list[int]:
        """The processes that they began with."""
        return [part.process.pid for server in self._servers for part in server.parts()]

    @property
    def executions(self) -> list[int]:
        """How often each was called so far."""
        return [page.executions for page in self._pages]

    def do(self, step: Step) -> None:
        """Let a fault happen, or end."""
        page, server = self._pages[step.server], self._servers[step.server]
        match step.action:
            case Action.SLOW_DOWN:
                page.call_us = SLOWER * CALL_US
            case Action.SPEED_UP:
                page.call_us = CALL_US
            case Action.RESET:
                page.resets += 1
            case Action.KILL:
                server.kill()
            case Action.START:
                # Not awaited: other steps are due while it starts.
                self._restarted = self._started.enter_context(
                    kept_alive(
                        self._command(server.address),
                        env=child_environment(**self._environment(step.server)),
                        stdout=subprocess.DEVNULL,
                        stderr=self._started.enter_context(self._log.open("ab")),
                    )
                )

    def check(self) -> None:
        """Check that the server that was killed is there again.

        Raises:
            ServerFailed: It is not.
        """
        if self._restarted is not None and self._restarted.poll() is not None:
            raise ServerFailed(f"the server did not start again: {last_line(self._log)}")


def _measure(
    config: BenchClientsConfig,
    turn: Turn[None, str],
    servers: _Servers,
    cpu: int,
    log: Path,
) -> ClientSample:
    """Return what a contender made of its turn.

    Raises:
        BenchError: It failed.
        ServerFailed: A server did not start again.
    """
    seed, seconds = config.seed + turn.number, config.healthy_s + config.faults_s
    asked = ClientConfig(
        *(turn.role, servers.addresses, servers.pids, config.rate_hz, seconds, seed, cpu)
    )
    with (
        log.open("wb") as stream,
        kept_alive(
            module_command(f"{_PACKAGE}.process", json.dumps(asdict(asked))),
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
        ) as process,
    ):
        client = _Client(turn.role, process, log)
        open_ns = client.open()
        executions = []
        for at_s, step in _timeline(config, seed):
            client.wait_until(open_ns + round(at_s * 1e9))
            if step is None:
                executions.append(servers.executions)
            else:
                servers.do(step)
        client.wait_until(open_ns + round(seconds * 1e9))
        report = client.report()
    executions.append(servers.executions)
    servers.check()
    return ClientSample(
        *(turn.role, turn.number, turn.order, config.healthy_s),
        executions=[
            [late - soon for soon, late in zip(*marks, strict=True)]
            for marks in pairwise(executions)
        ],
        per_second=report["per_second"],
        surroundings=report["surroundings"],
    )


def _timeline(config: BenchClientsConfig, seed: int) -> list[tuple[float, Step | None]]:
    """Return the steps with when they are due; None is to read the executions."""
    steps = fault_plan(config.healthy_s, config.faults_s, seed)
    marks: list[tuple[float, Step | None]] = [(0.0, None), (config.healthy_s, None)]
    return sorted([*marks, *((step.at_s, step) for step in steps)], key=lambda each: each[0])


class _Client:
    """The process of a contender, and what is said to it and by it."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self._name, self._process, self._log = name, process, log

    def open(self) -> int:
        """Await that it is ready, and tell it when its window opens, in ns; return that.

        Raises:
            BenchError: It failed before.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # A line is waited for by a timer that ends the process: reading then meets the end.
        timer = threading.Timer(_STARTING_S, self._process.kill)
        try:
            timer.start()
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if line.decode().strip() != READY:
            raise self._failed()
        open_ns = time.monotonic_ns() + round((WARMUP_S + _LEAD_S) * 1e9)
        self._process.stdin.write(f"{open_ns}\n".encode())
        self._process.stdin.flush()
        return open_ns

    def wait_until(self, at_ns: int) -> None:
        """Return at `at_ns`.

        Raises:
            BenchError: The process has ended before.
        """
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, (at_ns - time.monotonic_ns()) / 1e9))
            raise self._failed()

    def report(self) -> Any:
        """Return what it prints in the end.

        Raises:
            BenchError: It fails, or prints nothing in time.
        """
        try:
            output, _ = self._process.communicate(timeout=_ENDING_S)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{self._name} did not end in time") from error
        if self._process.returncode:
            raise self._failed()
        return json.loads(output)

    def _failed(self) -> BenchError:
        return BenchError(f"{self._name} failed: {last_line(self._log)}")
