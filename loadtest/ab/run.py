"""``loadtest compare`` of two servers: fresh ones in each block, by turns, under one generator."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import reduce
from pathlib import Path
from shutil import rmtree
from typing import Any

import psutil

from capnp_rig.loadtest.ab.blocks import Blocks, ServerTimes, Turn
from capnp_rig.loadtest.ab.course import Course
from capnp_rig.loadtest.ab.judging import (
    Asked,
    comparison_of,
    figures,
    is_decided,
    judge_blocks,
    measured,
)
from capnp_rig.loadtest.ab.server_command import StartedServer, started_server
from capnp_rig.loadtest.bench.rounds import AGAIN, BASELINE, CANDIDATE, ROLES
from capnp_rig.loadtest.compare import Comparison
from capnp_rig.loadtest.engine.child_process import last_line
from capnp_rig.loadtest.engine.early_end import EarlyEnd, kept_steps
from capnp_rig.loadtest.engine.engine_runs import EngineFailed
from capnp_rig.loadtest.engine.kernel_counters import (
    ProcessTable,
    cpu_seconds,
    throttling,
    waited_ns,
)
from capnp_rig.loadtest.engine.progress import Progress, ShowProgress
from capnp_rig.loadtest.engine.round_engine import RoundEngine, round_engine
from capnp_rig.loadtest.engine.run import RunConfig, plan_engines
from capnp_rig.loadtest.engine.server_process import ServerFailed
from capnp_rig.loadtest.engine.server_usage import local_server
from capnp_rig.loadtest.protocols import load_any_workload
from capnp_rig.loadtest.results.writing import Origin, WrittenResult, write_result
from capnp_rig.loadtest.stats.pair_statistics import MARGIN
from capnp_rig.loadtest.stats.run_summary import LIMITS
from capnp_rig.loadtest.stats.tally import Clocks, add
from capnp_rig.rigcli.address import Address, parse_address

KIND = "ab"
Server = tuple[str, ...] | Address


@dataclass(frozen=True, slots=True)
class AbConfig:
    """Two servers, each the words of a command or an address, and the `load` of both.

    A block has `rounds` rounds, in which each server has a turn of `turn_s`. There are `blocks` of
    them, None for as many as `max_time_s` has room for. `metrics` are those that are judged, all
    where it is empty.

    With short turns both servers meet the same disturbances: on a busy machine of two CPUs the A/A
    of a block scattered by 2 to 3 % with 40 turns of 20 ms, by 4 to 5 % with 8 of 100 ms.
    """

    baseline: Server
    candidate: Server
    load: RunConfig
    turn_s: float = 0.02
    rounds: int = 40
    blocks: int | None = None
    max_time_s: float = 180.0
    margin: float = MARGIN
    metrics: tuple[str, ...] = ()

    @property
    def servers(self) -> dict[str, Server]:
        """The servers by role."""
        return {BASELINE: self.baseline, CANDIDATE: self.candidate, AGAIN: self.baseline}

    @property
    def asked(self) -> Asked:
        """What is to be judged, and how."""
        return Asked(
            margin=self.margin,
            metrics=self.metrics,
            are_fresh=not isinstance(self.baseline, Address),
            unchecked=self.load.unchecked,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values: those of the load, and those of the comparison."""
        load = self.load.to_json()
        for name in ("address", "seconds", "calls", "repeats"):
            del load[name]
        sides = {
            role: str(side) if isinstance(side, Address) else list(side)
            for role, side in ((BASELINE, self.baseline), (CANDIDATE, self.candidate))
        }
        names = ("turn_s", "rounds", "blocks", "max_time_s", "margin", "metrics")
        return {**load, **sides, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, slots=True)
class AbResult:
    """Where a comparison was written, and what it says.

    `failures` counts calls that failed or have no answer, by role and kind. `early_end` is what
    ended it before its plan, None where nothing did.
    """

    written: WrittenResult
    comparison: Comparison
    failures: Counter[tuple[str, str]]
    early_end: EarlyEnd | None


def run(config: AbConfig, show: ShowProgress) -> AbResult:
    """Compare the servers, write the result, and return it.

    Ctrl-C, SIGTERM and what fails leave the blocks that are over.

    Raises:
        WorkloadError: What to send is unusable.
        ServerFailed, EngineFailed: One failed before a block was over.
        NoTime: There is no time for six blocks.
        KeyboardInterrupt, Terminated: It was stopped before a block was over.
    """
    label = load_any_workload(config.load.stack, config.load.workload).label
    origin = Origin.now(config.load.name)
    folder = origin.make_folder(config.load.results)
    course = Course(config.max_time_s, config.blocks)
    try:
        steps, early_end = kept_steps(
            _measured(config, folder, course, show), ServerFailed, EngineFailed
        )
    except BaseException:
        rmtree(folder, ignore_errors=True)
        raise
    blocks = steps[-1]
    rows = judge_blocks(blocks, course.level, config.asked)
    if not (course.is_at_look and is_decided(rows)):
        course.end()
        rows = judge_blocks(blocks, course.level, config.asked)
    comparison = comparison_of(rows, blocks, course, config.asked, early_end)
    written = write_result(
        KIND,
        origin,
        folder,
        config=config.to_json(),
        figures=figures(rows, f"{config.load.connections} x {config.load.in_flight}"),
        samples=blocks.samples(),
        workload=label,
        limits=dict(LIMITS),
        ended_early=None if early_end is None else early_end.text,
        comparison=comparison.to_json(),
        course=asdict(course),
        surroundings=blocks.surroundings.to_json(),
        values={each.name: each.values for each in measured(blocks)},
    )
    return AbResult(written, comparison, blocks.failures, early_end)


@contextmanager
def _engines(load: RunConfig) -> Iterator[list[RoundEngine]]:
    """Start the processes of the generator, as many as the load has."""
    with ExitStack() as stack:
        planned = plan_engines(load, sorted(os.sched_getaffinity(0)))
        yield [stack.enter_context(round_engine(each.cpu, each.timeout_s)) for each in planned]


def _measured(
    config: AbConfig, folder: Path, course: Course, show: ShowProgress
) -> Iterator[Blocks]:
    """Yield all blocks so far, with each that is over, until they tell or there is no room."""
    started_s = time.monotonic()
    blocks = Blocks(is_open_loop=config.load.rate_hz is not None)
    table, own = ProcessTable(), set[int]()
    with _engines(config.load) as engines:
        while course.has_room(time.monotonic() - started_s):
            from_s = time.monotonic()
            _tell(course, show, from_s - started_s)
            rng = random.Random(config.load.seed * 1000 + course.done)
            with _servers(config, folder, course.done, rng) as servers:
                turns = _Block(config, course.done, servers, engines)
                block = turns.measure(rng)
                own |= turns.pids
                table.read()
            others = table.busiest(own | {engine.pid for engine in engines})
            blocks = blocks.plus(replace(block, others=others))
            until_s = time.monotonic()
            course.add(until_s - from_s, until_s - started_s)
            yield blocks
            if blocks.failures or (
                course.is_due() and is_decided(judge_blocks(blocks, course.level, config.asked))
            ):
                break
    _tell(course, show, time.monotonic() - started_s)


def _tell(course: Course, show: ShowProgress, passed_s: float) -> None:
    planned = f" of at most {course.planned}" if course.planned else ""
    note = f"{course.done}{planned} blocks done"
    show(Progress(course.done, course.planned or 1, course.left_s(passed_s), note))


@dataclass(frozen=True, slots=True)
class _Server:
    """A server of a block; `processes` returns those that it has now, none if it is elsewhere.

    What it prints is in `log`, None for one that we have not started.
    """

    role: str
    address: Address
    processes: Callable[[], list[psutil.Process]]
    log: Path | None = None


@contextmanager
def _servers(
    config: AbConfig, folder: Path, number: int, rng: random.Random
) -> Iterator[list[_Server]]:
    """Start the servers of a block side by side, or look at those that run already."""
    cpus = sorted(os.sched_getaffinity(0))
    # Generators have the last CPUs; a single one is for all.
    confined = cpus[:1] if config.load.pin and len(cpus) > 1 else None
    with ExitStack() as stack:
        started: dict[str, StartedServer] = {}
        order = rng.sample(ROLES, len(ROLES))
        for role in order:
            side = config.servers[role]
            if not isinstance(side, Address):
                # The hash seed is the same for all of a block: no difference between them.
                started[role] = stack.enter_context(
                    started_server(
                        side, log=folder / f"{role}.log", hash_seed=number, cpus=confined
                    )
                )
        for role, server in started.items():
            with _named(role):
                server.await_ready()
        try:
            yield [_server(role, config.servers[role], started.get(role)) for role in order]
        finally:
            # All at once: each would else be waited for before the next is asked.
            for server in started.values():
                server.ask_to_end()
            for server in started.values():
                server.await_end()


def _server(role: str, side: Server, started: StartedServer | None) -> _Server:
    if started is not None:
        return _Server(role, parse_address(started.address), started.processes, started.log)
    assert isinstance(side, Address)
    address = side
    return _Server(role, address, lambda: [part.process for part in local_server(address)])


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
        config: AbConfig,
        number: int,
        servers: Sequence[_Server],
        engines: Sequence[RoundEngine],
    ) -> None:
        self._config, self._number = config, number
        self._servers, self._engines = servers, engines
        self._generator = [psutil.Process(engine.pid) for engine in engines]
        self._processes: list[list[psutil.Process]] = []

    @property
    def pids(self) -> set[int]:
        """The ids of the servers' processes."""
        return {process.pid for processes in self._processes for process in processes}

    def measure(self, rng: random.Random) -> Blocks:
        """Load the servers by turns, and leave them."""
        load, cpus = self._config.load, sorted(os.sched_getaffinity(0))
        for server in self._servers:
            configs = plan_engines(replace(load, address=server.address), cpus)
            with _named(server.role, server.log):
                for engine, each in zip(self._engines, configs, strict=True):
                    engine.connect(each)
        # Only now: a server may listen before it has its workers.
        self._processes = [server.processes() for server in self._servers]
        places = range(len(self._servers))
        if load.warmup_s:
            for at in places:
                self._turn(at, 0, 0, load.warmup_s)
        warm = [self._times(at) for at in places]
        turns = [
            self._turn(at, number, order, self._config.turn_s)
            for number in range(self._config.rounds)
            for order, at in enumerate(rng.sample(places, len(places)))
        ]
        times = [replace(self._times(at), warmup_failures=dict(warm[at].failures)) for at in places]
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

    def _times(self, at: int) -> ServerTimes:
        """Return what is new of a server's calls."""
        report = reduce(add, (engine.report(at) for engine in self._engines))
        clocks = Clocks.of(report.total.times, is_open_loop=self._config.load.rate_hz is not None)
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
