"""The layouts of other implementations: what their calls cost the server, their replies us.

Three parts, in every round:

- in memory, a fresh process times calls, each with the Finish that its peer sends, and replies
  (`peers.in_memory`);
- a load in the layout of each peer (`peers.load`) calls the wire engine, which is there
  twice for the A/A, the pycapnp engine as yardstick, and a server that answers each call with the
  same prepared Return (`peers.canned`). All four are started afresh and take turns of one
  load after the other, in shuffled order; those that do not have their turn wait;
- the generator calls servers that answer with prepared Returns in the layout of each peer.

Servers and what is timed in memory have the first CPU, loads and generator the last.
"""

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from capnp_rig.loadtest.bench.commands import json_output, serving
from capnp_rig.loadtest.bench.peers_figures import (
    CANNED,
    GENERATOR,
    PYCAPNP,
    WIRE,
    PeerSample,
    figures,
)
from capnp_rig.loadtest.bench.rounds import BenchError, cpu_each, turns
from capnp_rig.loadtest.engine.early_end import EarlyEnd, kept_steps
from capnp_rig.loadtest.engine.engine_runs import EngineFailed, run_engines
from capnp_rig.loadtest.engine.process import EngineConfig
from capnp_rig.loadtest.engine.progress import ShowProgress, StepClock, Steps
from capnp_rig.loadtest.engine.server_process import ServerFailed, running_server
from capnp_rig.loadtest.engine.server_usage import WatchedProcess
from capnp_rig.loadtest.peers.frames import OURS, PEERS, Peer
from capnp_rig.loadtest.peers.load import LoadConfig
from capnp_rig.loadtest.peers.tutorial_call import TEXT
from capnp_rig.loadtest.results.writing import Origin, WrittenResult, write_result
from capnp_rig.loadtest.workload import WorkloadConfig

# Connections x calls in flight: one call per read, and many.
LOADS = ((64, 1), (8, 16))
GENERATOR_LOAD = (1, 64)
_MODULES = "capnp_rig.loadtest.peers."
_IN_MEMORY_S, _LOAD_S = 60.0, 30.0
# What a measurement takes beside its own time, until the first is done.
_OVERHEAD_S = 0.4


@dataclass(frozen=True, slots=True)
class BenchPeersConfig:
    """How many rounds, with a window of `seconds` after `warmup_s` per load and server.

    `peers` are names of `peers.frames.PEERS`; our own layout is there in any case.
    """

    # 55 measurements a round, each with a process that takes 0.3 s to start.
    rounds: int = 12
    seconds: float = 0.3
    warmup_s: float = 0.1
    peers: tuple[str, ...] = tuple(peer.name for peer in PEERS)
    results: Path = Path("results")

    @property
    def layouts(self) -> list[Peer]:
        """Ours, and those of the peers."""
        return [OURS, *(peer for peer in PEERS if peer.name in self.peers)]


# What differs in a quick run.
QUICK: Mapping[str, Any] = {"rounds": 6, "seconds": 0.1, "warmup_s": 0.05}


@dataclass(frozen=True, slots=True)
class _Server:
    """What answers, and under what name; `again` for the second one of a kind."""

    subject: str
    address: str
    pids: tuple[int, ...]
    peer: str = OURS.name
    again: bool = False


_InMemory = dict[str, float]


def run(config: BenchPeersConfig, show: ShowProgress) -> tuple[WrittenResult, EarlyEnd | None]:
    """Measure, write the result, and return it, with why it ended early if it did.

    A benchmark that Ctrl-C, SIGTERM or a failure ends has the rounds that were over by then.

    Raises:
        BenchError: There is one CPU only, or in the first round a server or a call failed.
        KeyboardInterrupt, Terminated: It was stopped before the first round was over.
    """
    cpus = cpu_each("the servers", "the load")
    origin = Origin.now()
    with origin.folder(config.results) as folder:
        bench = _Bench(config, cpus, folder)
        steps, early_end = kept_steps(bench.steps(show), BenchError, per_round=bench.per_round)
        samples = [step for step in steps if isinstance(step, PeerSample)]
        in_memory_ns = [step for step in steps if not isinstance(step, PeerSample)]
        written = write_result(
            "bench-peers",
            origin,
            folder,
            config=asdict(config) | {"cpus": cpus},
            figures=figures(samples, in_memory_ns),
            samples=map(asdict, samples),
            in_memory_ns=in_memory_ns,
            ended_early=None if early_end is None else early_end.text,
        )
    return written, early_end


class _Bench:
    """The rounds of one run."""

    def __init__(self, config: BenchPeersConfig, cpus: tuple[int, int], folder: Path) -> None:
        self._config = config
        self._server_cpu, self._load_cpu = cpus
        self._folder = folder
        self._layouts = config.layouts
        self._canned = [OURS, *(peer for peer in self._layouts if peer.serves)]
        self._units = [(load, peer) for load in LOADS for peer in self._layouts]
        # In memory; under each load each server; the generator.
        self.per_round = 1 + 4 * len(self._units) + len(self._canned)

    def steps(self, show: ShowProgress) -> Iterator[PeerSample | _InMemory]:
        """Yield what all rounds measure, step by step.

        Raises:
            BenchError: A server, a load or a call failed.
        """
        each_s = self._config.warmup_s + self._config.seconds + _OVERHEAD_S
        steps = Steps(self._config.rounds * self.per_round, guess_s=each_s)
        clock = StepClock(show, steps)
        try:
            for number in range(self._config.rounds):
                for step in self._round(number):
                    yield step
                    clock.step(steps)
        except (EngineFailed, ServerFailed) as error:
            raise BenchError(str(error)) from error

    def _round(self, number: int) -> Iterator[PeerSample | _InMemory]:
        yield self._time_in_memory(number)
        rng = random.Random(number)
        with self._servers() as servers:
            units = rng.sample(self._units, len(self._units))
            for turn in turns(1, units, servers, seed=number):
                yield self._load(number, turn.order, turn.role, *turn.unit)
        with self._canned_servers() as servers:
            for order, server in enumerate(rng.sample(servers, len(servers))):
                yield self._generate(number, order, server)

    def _time_in_memory(self, number: int) -> _InMemory:
        times_ns: _InMemory = json_output(
            f"{_MODULES}in_memory",
            *(peer.name for peer in self._layouts),
            within_s=_IN_MEMORY_S,
            cpus={self._server_cpu},
            PYTHONHASHSEED=str(number),
        )
        return times_ns

    @contextmanager
    def _servers(self) -> Iterator[list[_Server]]:
        """Start the engines, ours twice, and the server that only answers."""
        with ExitStack() as stack:
            servers = []
            for number, (engine, again) in enumerate(
                ((WIRE, False), (WIRE, True), (PYCAPNP, False))
            ):
                server = stack.enter_context(
                    running_server(
                        workers=1,
                        log=self._folder / f"server-{number}.log",
                        options=["--engine", engine, "--log-level", "error"],
                        cpus={self._server_cpu},
                    )
                )
                pids = tuple(part.process.pid for part in server.parts())
                servers.append(_Server(engine, server.address, pids, again=again))
            servers.append(stack.enter_context(self._canned_server(OURS, CANNED)))
            yield servers

    @contextmanager
    def _canned_servers(self) -> Iterator[list[_Server]]:
        with ExitStack() as stack:
            yield [
                stack.enter_context(self._canned_server(peer, GENERATOR, again=not number))
                for number, peer in enumerate(self._canned)
            ]

    @contextmanager
    def _canned_server(self, peer: Peer, subject: str, *, again: bool = False) -> Iterator[_Server]:
        module, log = f"{_MODULES}canned", self._folder / "canned.log"
        arguments = (peer.name, TEXT[::-1])
        with serving(module, *arguments, log=log, cpus={self._server_cpu}) as (address, pid):
            yield _Server(subject, address, (pid,), peer.name, again)

    def _load(
        self, number: int, order: int, server: _Server, load: tuple[int, int], peer: Peer
    ) -> PeerSample:
        config = LoadConfig(
            server.address,
            peer.name,
            *load,
            warmup_s=self._config.warmup_s,
            seconds=self._config.seconds,
            server_pids=server.pids,
        )
        try:
            used = json_output(
                f"{_MODULES}load",
                json.dumps(asdict(config)),
                within_s=_LOAD_S + config.warmup_s + config.seconds,
                cpus={self._load_cpu},
            )
        except BenchError as error:
            raise BenchError(f"{server.subject}, called as by {peer.name}: {error}") from error
        return PeerSample(
            number, order, peer.name, server.subject, server.again, *load, **_answered(used)
        )

    def _generate(self, number: int, order: int, server: _Server) -> PeerSample:
        connections, in_flight = GENERATOR_LOAD
        load = EngineConfig(
            address=server.address,
            connections=connections,
            in_flight=in_flight,
            seconds=self._config.seconds,
            warmup_s=self._config.warmup_s,
            workload=_WORKLOAD,
            cpu=self._load_cpu,
        )
        watched = [WatchedProcess("canned", psutil.Process(pid)) for pid in server.pids]
        measured = run_engines([load], watched)
        measured.raise_signal()
        (result,) = measured.results
        if result.report.total.failed or measured.server_cpu_s is None:
            raise BenchError(f"replies as of {server.peer}: {result.report.total.failures}")
        used = {
            "calls": result.calls,
            "seconds": result.seconds,
            "cpu_s": result.busy * result.seconds,
            "server_cpu_s": measured.server_cpu_s,
            "surroundings": measured.surroundings.to_json(),
        }
        return PeerSample(
            number,
            order,
            server.peer,
            GENERATOR,
            server.again,
            *GENERATOR_LOAD,
            **_answered(used),
        )


_WORKLOAD = WorkloadConfig(params=json.dumps({"request": {"content": TEXT}}))


def _answered(used: dict[str, Any]) -> dict[str, Any]:
    """Return what was used, if a call was answered.

    Raises:
        BenchError: None was.
    """
    if not used["calls"]:
        raise BenchError("no call was answered in the window: give --seconds more")
    return used
