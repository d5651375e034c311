"""Every stack under the same load: one server core, one generator core, interleaved rounds.

A round starts each stack's server afresh, in shuffled order, and capnp's a second time: its ratio
to the first is the A/A noise floor. While a server runs, a fresh generator per measurement asks it
for each payload in shuffled order: in a closed loop, and then in an open loop at half the rate
that it has just made. All replies are compared.

Server and supervisor have the first CPU, the generator the last; nothing else runs meanwhile. All
stacks get as many connections with one call in flight each, which every protocol can do. Large
payloads get a quarter of them: with 16, a call of 1 MiB takes up to 0.2 s, nearly the window.

A stack whose server does not start in the first round is left out, and the result says why; most
stacks need a library. A call that fails, or a server that ends or does not start in a later round,
voids the figures of that stack and payload, not the whole run. A run that is stopped early keeps
the rounds that are complete.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from capnp_rig.loadtest.bench.rounds import BenchError, Turn, cpu_each, turns
from capnp_rig.loadtest.bench.stacks_figures import CLOSED, OPEN, OPEN_SHARE, StackSample, figures
from capnp_rig.loadtest.engine.child_process import Terminated
from capnp_rig.loadtest.engine.engine_runs import EngineFailed, EngineRun, run_engines
from capnp_rig.loadtest.engine.process import EngineConfig
from capnp_rig.loadtest.engine.progress import ShowProgress, StepClock, Steps
from capnp_rig.loadtest.engine.server_process import ServerFailed, ServerProcess, running_server
from capnp_rig.loadtest.protocols import CAPNP, STACKS, missing_library, server_options
from capnp_rig.loadtest.results.record import NOT_INSTALLED, version
from capnp_rig.loadtest.results.writing import Origin, WrittenResult, write_result
from capnp_rig.loadtest.stats.tally import Clocks
from capnp_rig.loadtest.workload import BINARY, PAYLOAD_KINDS, TEXT, WorkloadConfig

_LIBRARIES = (
    "pycapnp",
    "uvloop",
    "orjson",
    "uvicorn",
    "httptools",
    "hypercorn",
    "h2",
    "hpack",
    "grpcio",
    "protobuf",
    "pybase64",
)
_LARGE_BYTES = 65_536
# What a measurement takes beside its own time, until the first is done.
_OVERHEAD_S = 0.4


@dataclass(frozen=True, slots=True)
class BenchStacksConfig:
    """How many rounds, with a window of `seconds` after `warmup_s` per measurement.

    `payloads` are the closed loop's, each a kind and a size in bytes; those of up to `open_bytes`
    get an open loop, too, at `OPEN_SHARE` of the rate that the closed one made.
    """

    # 120 measurements a round took 82 s with windows of 0.25 s: 18 min in all.
    rounds: int = 12
    seconds: float = 0.3
    warmup_s: float = 0.1
    stacks: tuple[str, ...] = STACKS
    payloads: tuple[tuple[str, int], ...] = tuple(
        (kind, size) for kind in PAYLOAD_KINDS for size in (32, 4096, 1 << 18, 1 << 20)
    )
    open_bytes: int = 1 << 20
    connections: int = 16
    in_flight: int = 1
    results: Path = Path("results")


@dataclass(frozen=True, slots=True)
class BenchStacksResult:
    """Where a run was written, and why each stack that is not in it was left out.

    `stopped` is the Ctrl-C or SIGTERM that ended it after `rounds` rounds, None where nothing did.
    """

    written: WrittenResult
    skipped: dict[str, str]
    rounds: int
    stopped: BaseException | None


@dataclass(frozen=True, slots=True)
class _Unit:
    """A role of a round: a stack, and by the options of its servers what is measured of each.

    That is a closed loop of each payload, mostly with an open one behind it.
    """

    stack: str
    servers: tuple[tuple[tuple[str, ...], list[list[StackSample]]], ...]

    @property
    def steps(self) -> int:
        """The number of its measurements."""
        return sum(len(loops) for _, payloads in self.servers for loops in payloads)


def _units(config: BenchStacksConfig) -> Iterator[_Unit]:
    for stack in config.stacks:
        for again in (False, True) if stack == CAPNP else (False,):
            servers: dict[tuple[str, ...], list[list[StackSample]]] = {}
            for kind, size in config.payloads:
                loops = _loops(config, stack, kind, size, again=again)
                servers.setdefault(tuple(server_options(stack, kind)), []).append(loops)
            yield _Unit(stack, tuple(servers.items()))


def _loops(
    config: BenchStacksConfig, stack: str, kind: str, size: int, *, again: bool
) -> list[StackSample]:
    """Return the measurements of one payload; their round is not known yet."""
    count = config.connections if size <= _LARGE_BYTES else max(1, config.connections // 4)
    closed = StackSample(stack, kind, size, CLOSED, 0, 0, again, count, config.in_flight)
    # The second turn of capnp is there for the ratios, which are of the closed loop.
    is_open = size <= config.open_bytes and not again
    return [closed, replace(closed, loop=OPEN)] if is_open else [closed]


def run(config: BenchStacksConfig, show: ShowProgress) -> BenchStacksResult:
    """Measure, write the result, and return it.

    Ctrl-C and SIGTERM, the latter as `Terminated`, end it early, with the rounds done by then.

    Raises:
        BenchError: There is one CPU only, or no server of the capnp stack.
        KeyboardInterrupt, Terminated: It was stopped before the first round was over.
        OSError: The result cannot be written.
    """
    cpus = cpu_each("the servers", "the generator")
    origin = Origin.now()
    with origin.folder(config.results) as folder:
        bench = _Bench(config, cpus, folder)
        stopped: BaseException | None = None
        try:
            bench.measure(show)
        except (KeyboardInterrupt, Terminated) as signalled:
            if not bench.rounds:
                raise
            stopped = signalled
        samples = [sample for sample in bench.samples if sample.round < bench.rounds]
        written = write_result(
            "bench-stacks",
            origin,
            folder,
            config=asdict(config) | {"cpus": cpus},
            figures=figures(samples),
            samples=map(asdict, samples),
            skipped=bench.skipped,
            rounds=bench.rounds,
            libraries=_libraries(),
        )
    return BenchStacksResult(written, bench.skipped, bench.rounds, stopped)


def _libraries() -> dict[str, str]:
    """Return the versions of what serves and drives the stacks, as far as it is installed."""
    versions = {name: version(name) for name in _LIBRARIES}
    return {name: number for name, number in versions.items() if number != NOT_INSTALLED}


class _Bench:
    """The rounds of one run."""

    def __init__(self, config: BenchStacksConfig, cpus: tuple[int, int], folder: Path) -> None:
        self._config = config
        self._server_cpu, self._generator_cpu = cpus
        self._folder = folder
        self._rng = random.Random(0)
        # By stack: why it was left out.
        self.skipped: dict[str, str] = {}
        self.samples: list[StackSample] = []
        # Those that are over.
        self.rounds = 0

    def measure(self, show: ShowProgress) -> None:
        """Measure all rounds; `samples` has what was measured, also of one that is not over.

        Raises:
            BenchError: The capnp stack cannot be served.
        """
        config = self._config
        for stack in config.stacks:
            missing = missing_library(stack)
            if missing is not None:
                self.skipped[stack] = f"needs {missing}: pip install 'capnp-rig[stacks]'"
        units = [unit for unit in _units(config) if unit.stack not in self.skipped]
        each_s = config.warmup_s + config.seconds + _OVERHEAD_S
        steps = Steps(config.rounds * sum(unit.steps for unit in units), guess_s=each_s)
        clock = StepClock(show, steps)
        for turn in turns(config.rounds, (None,), units):
            self.rounds = turn.number
            unit = turn.role
            if unit.stack in self.skipped:
                continue
            try:
                for sample in self._measure_unit(turn):
                    self.samples.append(sample)
                    clock.step(steps)
            except ServerFailed as error:
                if unit.stack == CAPNP:
                    raise BenchError(f"{unit.stack}: {error}") from error
                self.skipped[unit.stack] = str(error)
                steps.total -= config.rounds * unit.steps
        self.rounds = config.rounds

    def _measure_unit(self, turn: Turn[None, _Unit]) -> Iterator[StackSample]:
        """Serve and measure one stack.

        Raises:
            ServerFailed: Its server does not start in the first round.
        """
        servers = turn.role.servers
        for options, payloads in self._rng.sample(servers, len(servers)):
            planned = [
                [replace(sample, round=turn.number, order=turn.order) for sample in loops]
                for loops in self._rng.sample(payloads, len(payloads))
            ]
            try:
                with self._server(options) as server:
                    for loops in planned:
                        yield from self._measure_payload(loops, server)
            except ServerFailed as error:
                if not turn.number:
                    raise
                failures = {f"ServerFailed: {error}": 1}
                yield from (replace(sample, failures=failures) for sample in chain(*planned))

    def _server(self, options: Sequence[str]) -> AbstractContextManager[ServerProcess]:
        return running_server(
            workers=1,
            log=self._folder / "server.log",
            options=["--log-level", "error", *options],
            cpus={self._server_cpu},
        )

    def _measure_payload(
        self, loops: Sequence[StackSample], server: ServerProcess
    ) -> Iterator[StackSample]:
        rate_hz = None
        for planned in loops:
            made = self._measure(replace(planned, rate_hz=rate_hz), server)
            yield made
            # Of the open loop that follows.
            rate_hz = max(1.0, OPEN_SHARE * made.calls / self._config.seconds)

    def _measure(self, planned: StackSample, server: ServerProcess) -> StackSample:
        """Return a sample with what a generator saw."""
        config = self._config
        load = EngineConfig(
            address=server.address,
            connections=planned.connections,
            in_flight=planned.in_flight,
            seconds=config.seconds,
            warmup_s=config.warmup_s,
            workload=WorkloadConfig(
                payload_kind=planned.payload_kind, payload_bytes=planned.payload_bytes
            ),
            cpu=self._generator_cpu,
            rate_hz=planned.rate_hz,
            seed=1 + planned.round,
            stack=planned.stack,
        )
        try:
            measured = run_engines([load], server.parts())
        except EngineFailed as error:
            return replace(planned, failures={f"EngineFailed: {error}": 1})
        measured.raise_signal()
        return replace(planned, **_seen(measured))


def _seen(measured: EngineRun) -> dict[str, Any]:
    """Return what a sample has of a run of one engine."""
    (result,) = measured.results
    report = result.report
    total = report.total
    clocks = Clocks.of(total.times, is_open_loop=report.scheduled is not None)
    failures = dict(total.failures)
    if report.unfinished:
        failures["unfinished"] = report.unfinished
    return {
        "calls": result.calls,
        "seconds": result.seconds,
        "busy": result.busy,
        "server_cpu_s": measured.server_cpu_s,
        "steal": measured.steal,
        "surroundings": measured.surroundings.to_json(),
        "scheduled": report.scheduled,
        "failures": failures,
        "service": clocks.service.to_json(),
        "response": clocks.response.to_json(),
        "lateness": clocks.lateness.to_json(),
    }


# What differs in a run of two minutes: six rounds, two payloads, no open loop.
QUICK: Mapping[str, Any] = {
    "rounds": 6,
    "payloads": ((TEXT, 32), (BINARY, 1 << 18)),
    "open_bytes": 0,
}
