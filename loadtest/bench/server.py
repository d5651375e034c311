"""The wire engine against the pycapnp engine: fresh servers in pairs, one generator.

Each turn of a round starts a server. Server and supervisor have one CPU, the generator another;
nothing else runs meanwhile.

Figures: calls/s (closed loop, so never above what the generator asks), CPU µs per answered
call of all server processes by the kernel's own clock, the ratios of both, the memory of idle
connections, and what `wire` costs in memory, without a socket.
"""

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from capnp_rig.loadtest.bench.commands import json_output
from capnp_rig.loadtest.bench.pair_figures import (
    CONTRACT,
    median_figure,
    ratio_figures,
    value_figure,
    value_labels,
    voided,
)
from capnp_rig.loadtest.bench.rounds import (
    AGAIN,
    BASELINE,
    CANDIDATE,
    ROLES,
    BenchError,
    by_role,
    cpu_each,
    rounds,
)
from capnp_rig.loadtest.engine.early_end import EarlyEnd, kept_steps
from capnp_rig.loadtest.engine.engine_runs import EngineFailed, run_engines
from capnp_rig.loadtest.engine.process import EngineConfig
from capnp_rig.loadtest.engine.progress import ShowProgress
from capnp_rig.loadtest.engine.server_process import ServerFailed, ServerProcess, running_server
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.results.writing import Origin, WrittenResult, write_result
from capnp_rig.loadtest.stats.disturbance import round_disturbances
from capnp_rig.loadtest.stats.histogram import Histogram, merge, us_of
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode
from capnp_rig.loadtest.workload import WorkloadConfig
from capnp_rig.rigcli.address import parse_address

ENGINES = {CANDIDATE: "wire", BASELINE: "pycapnp"}
_BY_ROLE = {**ENGINES, AGAIN: ENGINES[BASELINE]}
# Connections x calls in flight: many clients that wait, and few that pipeline.
LOADS = ((64, 1), (8, 16))
_IN_MEMORY_S = 30.0
_IN_MEMORY_PROCESSES = 6
_BUSY_LIMIT = 0.9


@dataclass(frozen=True, slots=True)
class BenchServerConfig:
    """How many rounds of `seconds` per load and engine; how many idle connections to weigh."""

    rounds: int = 12
    seconds: float = 1.5
    idle: int = 10_000
    payload_bytes: int = 32
    results: Path = Path("results")

    @property
    def title(self) -> str:
        """What is measured, in short."""
        return (
            f"wire against its rival pycapnp: {self.rounds} rounds of {self.seconds:g} s, "
            f"{self.payload_bytes}-byte texts, closed loop"
        )


@dataclass(frozen=True, slots=True)
class Load:
    """What the generator saw: `calls` answered in `seconds`, their service times in `histogram`.

    `busy` is the share of the time that the generator worked.
    """

    calls: int
    seconds: float
    busy: float
    histogram: dict[str, Any]

    @property
    def calls_per_s(self) -> float:
        """Answered calls per second."""
        return self.calls / self.seconds


@dataclass(frozen=True, slots=True)
class Round:
    """What one server did under one load in one round; `role` is baseline, candidate or again.

    `cpu_s` is what its processes used meanwhile, `surroundings` what the machine did to them and to
    the generator, made plain; None in older results.
    """

    number: int
    order: int
    role: str
    connections: int
    in_flight: int
    result: Load
    cpu_s: float
    surroundings: Mapping[str, Any] | None = None

    @property
    def cpu_us_per_call(self) -> float:
        """CPU µs of the server per call."""
        return self.cpu_s * 1e6 / self.result.calls


def run(config: BenchServerConfig, show: ShowProgress) -> tuple[WrittenResult, EarlyEnd | None]:
    """Measure, write the result, and return it, with why it ended early if it did.

    A benchmark that Ctrl-C, SIGTERM or a failure ends has the rounds that were over by then.

    Raises:
        BenchError: There is one CPU only, or in the first round a server, the generator or a call
            failed.
        KeyboardInterrupt, Terminated: It was stopped before the first round was over.
    """
    cpus = cpu_each("the server", "the generator")
    origin = Origin.now()
    with origin.folder(config.results) as folder:
        steps = _rounds(config, cpus, folder, show)
        per_round = len(LOADS) * len(ROLES)
        measured, early_end = kept_steps(steps, BenchError, per_round=per_round)
        weighed: list[Figure] = []
        in_memory: list[dict[str, float]] = []
        if early_end is None:
            weighing = _weigh(config, cpus[0], folder, weighed, in_memory)
            _, early_end = kept_steps(weighing, BenchError)
        written = write_result(
            "bench-server",
            origin,
            folder,
            config=asdict(config) | {"cpus": cpus},
            figures=[*figures(measured), *weighed, *in_memory_figures(in_memory)],
            samples=map(asdict, measured),
            in_memory_ns=in_memory,
            ended_early=None if early_end is None else early_end.text,
        )
    return written, early_end


def _weigh(
    config: BenchServerConfig,
    cpu: int,
    folder: Path,
    idle: list[Figure],
    in_memory: list[dict[str, float]],
) -> Iterator[None]:
    """Add what idle connections take, and what `wire` costs without a socket, step by step."""
    # The rounds are over, whatever comes now.
    yield
    for engine in ENGINES.values():
        idle.append(_idle_memory(engine, config.idle, cpu, folder))
        yield
    for number in range(_IN_MEMORY_PROCESSES):
        in_memory.append(_time_in_memory(number, cpu))
        yield


def _rounds(
    config: BenchServerConfig, cpus: tuple[int, int], folder: Path, show: ShowProgress
) -> Iterator[Round]:
    server_cpu, generator_cpu = cpus
    for turn in rounds(config.rounds, LOADS, ROLES, show):
        connections, in_flight = turn.unit
        load = EngineConfig(
            address="",
            connections=connections,
            in_flight=in_flight,
            seconds=config.seconds,
            workload=WorkloadConfig(payload_bytes=config.payload_bytes),
            cpu=generator_cpu,
        )
        seen = _measure(_BY_ROLE[turn.role], load, server_cpu, folder)
        yield Round(turn.number, turn.order, turn.role, connections, in_flight, *seen)


def _server(engine: str, cpu: int, folder: Path) -> AbstractContextManager[ServerProcess]:
    return running_server(
        workers=1,
        log=folder / "server.log",
        options=["--engine", engine, "--log-level", "error"],
        cpus={cpu},
    )


def _measure(
    engine: str, load: EngineConfig, server_cpu: int, folder: Path
) -> tuple[Load, float, dict[str, Any]]:
    try:
        with _server(engine, server_cpu, folder) as server:
            measured = run_engines([replace(load, address=server.address)], server.parts())
    except (EngineFailed, ServerFailed) as error:
        raise BenchError(str(error)) from error
    measured.raise_signal()
    (result,), cpu_s = measured.results, measured.server_cpu_s
    total = result.report.total
    if total.failed or not result.calls or cpu_s is None:
        raise BenchError(f"the {engine} engine failed: {total.failures or 'no calls'}")
    times = total.times.service.to_json()
    seen = Load(result.calls, result.seconds, result.busy, times)
    return seen, cpu_s, measured.surroundings.to_json()


def _time_in_memory(number: int, cpu: int) -> dict[str, float]:
    """Return the ns of each case of `loadtest.benchmarks.in_memory` in a fresh process."""
    times_ns: dict[str, float] = json_output(
        "capnp_rig.loadtest.benchmarks.in_memory",
        within_s=_IN_MEMORY_S,
        cpus={cpu},
        PYTHONHASHSEED=str(number),
    )
    return times_ns


def in_memory_figures(processes: list[dict[str, float]]) -> list[Figure]:
    """Return the median over the processes of each case, in µs; none without a process."""
    if not processes:
        return []
    times_us = {case: [times[case] / 1000 for times in processes] for case in processes[0]}
    return [
        median_figure(
            f"in memory: {case}", values, "µs", CONTRACT, {"kind": "in memory", "case": case}
        )
        for case, values in times_us.items()
    ]


def figures(measured: Sequence[Round]) -> list[Figure]:
    """Return the figures of a run, from its rounds alone."""
    listed: list[Figure] = []
    for load in LOADS:
        chosen = by_role(each for each in measured if (each.connections, each.in_flight) == load)
        some = [each for measured in chosen.values() for each in measured]
        disturbed = round_disturbances(each.surroundings for each in some)
        listed += voided(_of_load("{} x {}".format(*load), chosen), disturbed)
    return listed


def _of_load(load: str, measured: Mapping[str, list[Round]]) -> Iterator[Figure]:
    # Times, not rates: of a cost less is better.
    seconds_per_call = {role: [1 / r.result.calls_per_s for r in measured[role]] for role in ROLES}
    cpu = {role: [r.cpu_us_per_call for r in measured[role]] for role in ROLES}
    for role, engine in ENGINES.items():
        yield _rate(load, engine, measured[role])
        yield value_figure(load, engine, "server CPU per call", "µs", cpu[role])
        yield _p99(load, engine, measured[role])
    for what, costs in (("calls/s", seconds_per_call), ("server CPU per call", cpu)):
        yield from ratio_figures(load, what, ENGINES, costs)


def _rate(load: str, engine: str, measured: list[Round]) -> Figure:
    busy = max(r.result.busy for r in measured)
    limits = [Reason.of(ReasonCode.GENERATOR_BUSY, busy=busy)] if busy > _BUSY_LIMIT else []
    rates = [r.result.calls_per_s for r in measured]
    return value_figure(load, engine, "calls/s", "calls/s", rates, *limits)


def _p99(load: str, engine: str, measured: list[Round]) -> Figure:
    times = merge(Histogram.from_json(r.result.histogram) for r in measured)
    value_us, what = us_of(times.percentile_ns(99)), "service time p99"
    labels = value_labels(load, engine, what)
    name = f"{load}: {engine} {what}"
    return Figure(name, value_us, "µs", CONTRACT, times.count, labels=labels)


def _idle_memory(engine: str, count: int, server_cpu: int, folder: Path) -> Figure:
    """Return the memory of `count` connections that say nothing."""
    name = f"{engine}: memory of {count:,} idle connections"
    labels = {"kind": "idle", "subject": engine, "connections": count}
    with (
        _server(engine, server_cpu, folder) as server,
        ExitStack() as stack,
    ):
        before = server.worker_rss_bytes()
        address = parse_address(server.address)
        assert address.host is not None
        assert address.port is not None
        try:
            for _ in range(count):
                where = (address.host, address.port)
                stack.enter_context(socket.create_connection(where, timeout=10))
        except OSError as error:
            return Figure(
                name,
                None,
                "kB each",
                "idle",
                count,
                verdict=Verdict.VOID,
                reasons=(Reason.of(ReasonCode.OTHER, text=str(error)),),
                labels=labels,
            )
        server.await_connections(count)
        grown = server.worker_rss_bytes() - before
    return Figure(name, grown / count / 1000, "kB each", "idle", count, labels=labels)
