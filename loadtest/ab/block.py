"""One block: fresh servers side by side, which take turns under one generator."""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import psutil

from capnp_rig.loadtest.ab.blocks import Blocks, ServerTimes, Turn
from capnp_rig.loadtest.ab.server_command import StartedServer, started_server
from capnp_rig.loadtest.engine.child_process import last_line
from capnp_rig.loadtest.engine.engine_runs import EngineFailed
from capnp_rig.loadtest.engine.kernel_counters import (
    ProcessTable,
    cpu_seconds,
    throttling,
    waited_ns,
)
from capnp_rig.loadtest.engine.round_engine import RoundEngine, round_engine
from capnp_rig.loadtest.engine.run import RunConfig, plan_engines
from capnp_rig.loadtest.engine.server_process import ServerFailed
from capnp_rig.loadtest.engine.server_usage import local_servers
from capnp_rig.loadtest.stats.failures import WrongReply, first_examples
from capnp_rig.loadtest.stats.first_replies import compare_firsts
from capnp_rig.loadtest.stats.tally import Clocks, add
from capnp_rig.rigcli.address import Addresses, parse_addresses

Server = tuple[str, ...] | Addresses


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """The `servers` of each block by role, each the words of a command, or addresses.

    All get the same `load`. A block has `rounds` rounds, in which each server has a turn of
    `turn_s`. With `must_agree` all must answer the same params as the first of them does.
    """

    servers: Mapping[str, Server]
    load: RunConfig
    turn_s: float
    rounds: int
    must_agree: bool = False


@contextmanager
def measured_blocks(plan: BlockPlan, folder: Path) -> Iterator[Callable[[], Blocks]]:
    """Yield what measures one more block; what its servers print goes into files in `folder`.

    It raises `ServerFailed` or `EngineFailed` if a server or the generator fails.
    """
    table, own = ProcessTable(), set[int]()
    with _engines(plan.load) as engines:
        done = 0

        def measure() -> Blocks:
            nonlocal done
            rng = random.Random(plan.load.seed * 1000 + done)
            with _servers(plan, folder, done, rng) as servers:
                turns = _Block(plan, done, servers, engines)
                block = turns.measure(rng)
                own.update(turns.pids)
                table.read()
            done += 1
            others = table.busiest(own | {engine.pid for engine in engines})
            return replace(block, others=others)

        yield measure


@contextmanager
def _engines(load: RunConfig) -> Iterator[list[RoundEngine]]:
    """Start the processes of the generator, as many as the load has."""
    with ExitStack() as stack:
        planned = plan_engines(load, sorted(os.sched_getaffinity(0)))
        yield [stack.enter_context(round_engine(each.cpu, each.timeout_s)) for each in planned]


@dataclass(frozen=True, slots=True)
class _Server:
    """A server of a block; `processes` returns those that it has now, none if it is elsewhere.

    What it prints is in `log`, None for one that we have not started.
    """

    role: str
    addresses: Addresses
    processes: Callable[[], list[psutil.Process]]
    log: Path | None = None


@contextmanager
def _servers(
    plan: BlockPlan, folder: Path, number: int, rng: random.Random
) -> Iterator[list[_Server]]:
    """Start the servers of a block side by side, or look at those that run already."""
    cpus = sorted(os.sched_getaffinity(0))
    # Generators have the last CPUs; a single one is for all.
    confined = cpus[:1] if plan.load.pin and len(cpus) > 1 else None
    with ExitStack() as stack:
        started: dict[str, StartedServer] = {}
        order = rng.sample(list(plan.servers), len(plan.servers))
        for role in order:
            side = plan.servers[role]
            if not isinstance(side, Addresses):
                # The hash seed is the same for all of a block: no difference between them.
                log = folder / f"{role.replace(' ', '-')}.log"
                started[role] = stack.enter_context(
                    started_server(side, log=log, hash_seed=number, cpus=confined)
                )
        # In this order: of a server that is there twice the first is named.
        for role in [role for role in plan.servers if role in started]:
            with _named(role):
                started[role].await_ready()
        try:
            yield [_server(role, plan.servers[role], started.get(role)) for role in order]
        finally:
            # All at once: each would else be waited for before the next is asked.
            for server in started.values():
                server.ask_to_end()
            for server in started.values():
                server.await_end()


def _server(role: str, side: Server, started: StartedServer | None) -> _Server:
    if started is not None:
        return _Server(role, parse_addresses(started.address), started.processes, started.log)
    assert isinstance(side, Addresses)
    addresses = side
    return _Server(role, addresses, lambda: [part.process for part in local_servers(addresses)])


@contextmanager
def _named(role: str, log: Path | None = None) -> Iterator[None]:
    """Put the role of a server before the message of what failed, and its last words behind it."""
    try:
        yield
    except (ServerFailed, EngineFailed) as error:
        last = "" if log is None else f"; the server's last line: {last_line(log)}"
        raise type(error)(f"{role}: {error}{last}") from error


class _Block:
    """The turns of the servers of one block."""

    def __init__(
        self,
        plan: BlockPlan,
        number: int,
        servers: Sequence[_Server],
        engines: Sequence[RoundEngine],
    ) -> None:
        self._plan, self._number = plan, number
        self._servers, self._engines = servers, engines
        self._generator = [psutil.Process(engine.pid) for engine in engines]
        self._processes: list[list[psutil.Process]] = []

    @property
    def pids(self) -> set[int]:
        """The ids of the servers' processes."""
        return {process.pid for processes in self._processes for process in processes}

    def measure(self, rng: random.Random) -> Blocks:
        """Load the servers by turns, and leave them."""
        load, cpus = self._plan.load, sorted(os.sched_getaffinity(0))
        for server in self._servers:
            configs = plan_engines(replace(load, addresses=server.addresses), cpus)
            with _named(server.role, server.log):
                for engine, each in zip(self._engines, configs, strict=True):
                    engine.connect(each)
        # Only now: a server may listen before it has its workers.
        self._processes = [server.processes() for server in self._servers]
        places = range(len(self._servers))
        if load.warmup_s:
            for at in places:
                self._turn(at, 0, 0, load.warmup_s)
        warm = self._all_times()
        turns = [
            self._turn(at, number, order, self._plan.turn_s)
            for number in range(self._plan.rounds)
            for order, at in enumerate(rng.sample(places, len(places)))
        ]
        times = [
            replace(
                each,
                warmup_failures=dict(warm[role].failures),
                examples=first_examples([*warm[role].examples, *each.examples]),
            )
            for role, each in self._all_times().items()
        ]
        changed = {
            server.role
            for server, known in zip(self._servers, self._processes, strict=True)
            if {*server.processes()} != {*known}
        }
        # Of one that came or went nobody knows what it used.
        turns = [
            replace(turn, server_cpu_s=None) if turn.role in changed else turn for turn in turns
        ]
        for engine in self._engines:
            engine.leave()
        return Blocks(tuple(turns), tuple(times), load.rate_hz is not None)

    def _turn(self, at: int, number: int, order: int, seconds: float) -> Turn:
        server = self._servers[at]
        watched = (self._processes[at], self._generator)
        before = [_used(each) for each in watched]
        throttled = throttling(self._engines[0].pid)
        with _named(server.role):
            for engine in self._engines:
                engine.begin(at, seconds)
            measured_turns = [engine.turn(seconds) for engine in self._engines]
        after = [_used(each) for each in watched]
        used, generator = (_between(*each) for each in zip(before, after, strict=True))
        throttles = _between({0: throttled}, {0: throttling(self._engines[0].pid)})
        return Turn(
            block=self._number,
            round=number,
            order=order,
            role=server.role,
            calls=sum(each.calls for each in measured_turns),
            seconds=max(each.seconds for each in measured_turns),
            busy=max(each.busy for each in measured_turns),
            generator_wait_s=None if generator is None else generator[1],
            server_cpu_s=None if used is None else used[0],
            server_wait_s=None if used is None else used[1],
            throttles=None if throttles is None else int(throttles[0]),
            throttled_s=None if throttles is None else throttles[1],
        )

    def _all_times(self) -> dict[str, ServerTimes]:
        """Return what is new of the calls of each server, by its role."""
        at = {server.role: number for number, server in enumerate(self._servers)}
        # In this order: the first knows what is right.
        return {role: self._times(at[role]) for role in self._plan.servers}

    def _times(self, at: int) -> ServerTimes:
        reports = [engine.report(at) for engine in self._engines]
        if self._plan.must_agree:
            first = next(iter(self._plan.servers))
            wrong = WrongReply(f"wrong reply: not what {first} answered to the same params")
            reports = compare_firsts(reports, self._plan.load.firsts, wrong)
        report = reduce(add, reports)
        clocks = Clocks.of(report.total.times, is_open_loop=self._plan.load.rate_hz is not None)
        failures = Counter(report.total.failures)
        if report.unfinished:
            failures["unfinished"] += report.unfinished
        return ServerTimes(
            block=self._number,
            role=self._servers[at].role,
            response=clocks.response,
            service=clocks.service,
            lateness=clocks.lateness,
            scheduled=report.scheduled,
            failures=dict(failures),
            examples=report.examples,
        )


_Used = Mapping[int, tuple[float, float] | None]


def _used(processes: Sequence[psutil.Process]) -> _Used:
    """Return for each process the seconds that it had a CPU so far, and that it waited for one."""
    return {process.pid: _of_process(process) for process in processes}


def _of_process(process: psutil.Process) -> tuple[float, float] | None:
    try:
        files = Path(f"/proc/{process.pid}/task").glob("*/schedstat")
        wait_s = sum(waited_ns(file.read_text()) for file in files) / 1e9
        return cpu_seconds(process), wait_s
    except (OSError, ValueError, LookupError, psutil.Error):
        return None


def _between(before: _Used, after: _Used) -> tuple[float, float] | None:
    """Return how much both numbers grew; None where nothing is known of a process."""
    first = second = 0.0
    for pid, then in before.items():
        now = after[pid]
        if then is None or now is None:
            return None
        first, second = first + now[0] - then[0], second + now[1] - then[1]
    return (first, second) if before else None
