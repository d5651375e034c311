"""Engine processes, started together and watched: what they measured, and what the server used."""

import json
import math
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import psutil

from capnp_rig.loadtest.engine.child_process import (
    Terminated,
    child_environment,
    kept_alive,
    module_command,
    number_of,
)
from capnp_rig.loadtest.engine.kernel_counters import ProcessTable
from capnp_rig.loadtest.engine.process import EngineConfig, EngineResult
from capnp_rig.loadtest.engine.server_usage import (
    WatchedProcess,
    endpoint_cpu_s,
    machine_time,
    peers,
    read_usage,
)
from capnp_rig.loadtest.live.figures import LiveFigures, LiveRepeats
from capnp_rig.loadtest.scrape.scraper import Scraper
from capnp_rig.loadtest.scrape.series import Scraped
from capnp_rig.loadtest.stats.disturbance import (
    GENERATOR,
    SERVER,
    Surroundings,
    process_windows,
)
from capnp_rig.loadtest.stats.process_use import (
    MachineTime,
    ProcessUse,
    Usage,
    cpu_s_between,
    pressure_between,
    steal_between,
    used_by_each,
)
from capnp_rig.loadtest.stats.run_summary import MeasuredRepeat
from capnp_rig.loadtest.stats.run_units import CpuSample
from capnp_rig.rigcli import raise_open_files
from capnp_rig.rigcli.address import parse_addresses
from capnp_rig.rigcli.malloc_settings import with_malloc_settings

# A process that starts takes 0.3 s; many at once, on few CPUs, far longer.
_READY_S = 60.0
_GRACE_S = 20.0
_POLL_S = 0.1
# Sampling costs about 1 ms a process; more often than 5 Hz it would disturb what it watches.
_SAMPLE_S = 0.5
# Until all connections are with the workers that will answer on them.
_HANDED_OVER_S = 0.5
# Of an engine beside its connections: pipes, the loop, the schema.
_OTHER_FILES = 32


class EngineFailed(Exception):
    """An engine process did not do its work; the message says why."""


@dataclass(frozen=True, slots=True)
class EngineRun:
    """One run of all engine processes together.

    `server_cpu_s` is what the server's processes used in the measured window, and `steal` the
    share of the machine's CPU time that was stolen in it; each None where it is not known.
    `server` has what each of the server's processes used in the window, none where that is not
    known. `usages` and `machine` are what processes, each with its role, and the machine had used
    so many seconds after the window opened; `surroundings` is what the machine did to them, from
    one edge of the window to the other. `interrupted` is whether Ctrl-C or SIGTERM came, even
    where it came too late to close the window; `signal` is its number where it came to us. `lost`
    says which engines ended without a result, and why: those in `results` are the others'.
    `endpoint_cpu_s` is what each of several endpoints used in the window, as far as it is known;
    `scrapes` is what Prometheus endpoints said meanwhile.
    """

    results: tuple[EngineResult, ...]
    server_cpu_s: float | None
    steal: float | None
    usages: tuple[tuple[float, str, Usage], ...]
    machine: tuple[tuple[float, MachineTime], ...]
    server: tuple[ProcessUse, ...] = ()
    interrupted: bool = False
    signal: int | None = None
    surroundings: Surroundings = field(default_factory=Surroundings)
    lost: tuple[str, ...] = ()
    endpoint_cpu_s: Mapping[str, float] = field(default_factory=dict)
    scrapes: tuple[Scraped, ...] = ()

    def raise_signal(self) -> None:
        """Raise the signal that ended the run early, if one has.

        Raises:
            KeyboardInterrupt, Terminated: One has.
        """
        if self.interrupted:
            raise Terminated if self.signal == signal.SIGTERM else KeyboardInterrupt

    @property
    def part(self) -> MeasuredRepeat:
        """The run as one repeat of several."""
        return MeasuredRepeat(
            reports=[result.report for result in self.results],
            seconds=max(result.seconds for result in self.results),
            busy=max(result.busy for result in self.results),
            server_cpu_s=self.server_cpu_s,
            steal=self.steal,
            surroundings=self.surroundings,
            lost=self.lost,
            server_cpu=[
                CpuSample(at_s, usage.pid, usage.cpu_s)
                for at_s, role, usage in self.usages
                if role == "server"
            ],
            endpoint_cpu_s=self.endpoint_cpu_s,
        )


# Gets the seconds done and the calls answered so far.
Tell = Callable[[float, int], None]


def tell_nobody(_seconds: float, _calls: int) -> None:
    """Do nothing."""


def run_engines(
    configs: Sequence[EngineConfig],
    server: Sequence[WatchedProcess] = (),
    tell: Tell = tell_nobody,
    scrapers: Sequence[Scraper] = (),
    live: LiveRepeats | None = None,
) -> EngineRun:
    """Run the engines side by side, and watch the processes of the `server`.

    `scrapers` read meanwhile, and `live` can be asked for the figures so far. Ctrl-C and SIGTERM
    end the measured window; the run returns with what there is by then. So it does where some of
    the engines are lost.

    Raises:
        EngineFailed: A process could not load the server, or all were lost.
    """
    _require_files(max(config.connections for config in configs))
    with ExitStack() as stack:
        engines = [_Engine(config, stack) for config in configs]
        watch = _Watch(engines, server)
        limit_s = time.monotonic() + _READY_S
        while not all(engine.is_ready for engine in engines):
            _check(engines, limit_s)
            time.sleep(_POLL_S / 10)
        # Where some are called through Unix sockets, not all calls can be told apart.
        if all(address.path is None for address in parse_addresses(configs[0].address)):
            watch.find_peers(sum(config.connections for config in configs))
        watch.begin()
        if live is not None:
            live.begin(lambda: [engine.live for engine in engines])
        for scraper in scrapers:
            scraper.start()
        for engine in engines:
            engine.go()
        signalled = _follow(configs[0], engines, watch, tell)
        results, lost = _results(engines)
    run = watch.run(configs, results)
    scrapes = tuple(scraper.stop(watch.opened_s) for scraper in scrapers)
    # An engine that had closed its window when it was asked to stop does not say so.
    interrupted = signalled is not None or any(result.interrupted for result in results)
    return replace(run, interrupted=interrupted, signal=signalled, lost=lost, scrapes=scrapes)


def _results(engines: Sequence["_Engine"]) -> tuple[tuple[EngineResult, ...], tuple[str, ...]]:
    """Return what the engines measured, and why some of them have nothing to tell."""
    results: list[EngineResult] = []
    lost: list[str] = []
    for number, engine in enumerate(engines):
        try:
            results.append(engine.result())
        except EngineFailed as error:
            if len(engines) == 1:
                raise
            lost.append(f"engine {number} of {len(engines)}: {error}")
    if not results:
        raise EngineFailed(lost[0])
    return tuple(results), tuple(lost)


def _require_files(connections: int) -> None:
    """Refuse what would end in reconnecting again and again: the engines inherit our limit."""
    needed, allowed = connections + _OTHER_FILES, raise_open_files()
    if allowed < needed:
        raise EngineFailed(
            f"{connections:,} connections of one process take {needed:,} open files, and "
            f"{allowed:,} are allowed: raise ulimit -n, or --processes"
        )


def _check(engines: Sequence["_Engine"], limit_s: float) -> None:
    for engine in engines:
        if not engine.is_running:
            engine.result()
            raise EngineFailed("an engine process ended too early")
    if time.monotonic() > limit_s:
        raise EngineFailed("an engine process was not ready in time")


def _follow(
    config: EngineConfig, engines: Sequence["_Engine"], watch: "_Watch", tell: Tell
) -> int | None:
    """Wait for the end of all engines; the first Ctrl-C or SIGTERM makes them stop.

    Returns the number of that signal, None where none came.
    """
    started_s = time.monotonic()
    limit_s = _GRACE_S + config.timeout_s
    if config.seconds is not None:
        limit_s += config.warmup_s + config.seconds
    signalled: int | None = None
    while any(engine.is_running for engine in engines):
        passed_s = time.monotonic() - started_s
        if (config.seconds is not None or signalled) and passed_s > limit_s:
            for engine in engines:
                engine.give_up()
        try:
            watch.sample()
            tell(passed_s - config.warmup_s, sum(engine.answered for engine in engines))
            time.sleep(_POLL_S)
        except (KeyboardInterrupt, Terminated) as stop:
            if signalled is not None:
                raise
            signalled = number_of(stop)
            limit_s = passed_s + _GRACE_S + config.timeout_s
            for engine in engines:
                engine.stop()
    return signalled


@dataclass(frozen=True, slots=True)
class _Edge:
    """What was read at an edge of the measured window."""

    at_s: float
    server: Sequence[Usage]
    engines: Sequence[Usage]
    machine: MachineTime | None


class _Watch:
    """Reads what the server and the engines use: at the window's edges, and now and then."""

    def __init__(self, engines: Sequence["_Engine"], server: Sequence[WatchedProcess]) -> None:
        self._server = server
        self._engines = [
            WatchedProcess(f"engine {number}", psutil.Process(engine.pid))
            for number, engine in enumerate(engines)
        ]
        self._lock = threading.Lock()
        self._waiting = {"open": len(engines), "close": len(engines)}
        self._opened_s: float | None = None
        self._began_s = 0.0
        self._edges: dict[str, _Edge] = {}
        self._table: ProcessTable | None = None
        self._owners: dict[int, int] = {}
        self._sampled_s = -math.inf
        self._usages: list[tuple[float, str, Usage]] = []
        self._machine: list[tuple[float, MachineTime]] = []
        for engine in engines:
            engine.on_event = self._on_event

    def _on_event(self, event: str) -> None:
        # Called by the engines' readers: the window is that of the last to open, first to close.
        with self._lock:
            if event not in self._waiting:
                return
            self._waiting[event] -= 1
            is_edge = event not in self._edges and (event == "close" or not self._waiting[event])
        if is_edge:
            now_s = time.monotonic()
            server, engines = read_usage(self._server), read_usage(self._engines)
            self._edges[event] = _Edge(now_s, server, engines, machine_time())
            if event == "open":
                self._opened_s = now_s

    def begin(self) -> None:
        """Note what all processes of the machine have used, before the load begins."""
        self._table = ProcessTable()
        self._began_s = time.monotonic()

    @property
    def opened_s(self) -> float:
        """When the measured window opened; where it never has, when the load began."""
        return self._began_s if self._opened_s is None else self._opened_s

    def find_peers(self, connections: int) -> None:
        """Find out which process of the server has which of so many TCP connections."""
        # The supervisor may still be handing them over.
        limit_s = time.monotonic() + _HANDED_OVER_S
        while self._server and len(self._owners) < connections:
            self._owners = peers(self._server)
            if time.monotonic() > limit_s:
                return

    def sample(self) -> None:
        """Take a sample, if the last one is long enough ago and the window is open."""
        now_s = time.monotonic()
        if self._opened_s is None or now_s - self._sampled_s < _SAMPLE_S or "close" in self._edges:
            return
        self._sampled_s = now_s
        at_s = now_s - self._opened_s
        if self._table is not None:
            self._table.read()
        for role, parts in ((SERVER, self._server), (GENERATOR, self._engines)):
            self._usages += [(at_s, role, usage) for usage in read_usage(parts)]
        machine = machine_time()
        if machine is not None:
            self._machine.append((at_s, machine))

    def run(self, configs: Sequence[EngineConfig], results: tuple[EngineResult, ...]) -> EngineRun:
        """Return all there is to say about the run."""
        nothing = _Edge(0.0, (), (), None)
        before = self._edges.get("open", nothing)
        after = self._edges.get("close", nothing)
        by_port = [result.by_port for result in results]
        return EngineRun(
            results,
            cpu_s_between(before.server, after.server),
            steal_between(before.machine, after.machine),
            tuple(self._usages),
            tuple(self._machine),
            tuple(used_by_each(before.server, after.server, self._owners, by_port)),
            surroundings=self._surroundings(configs, before, after, results),
            endpoint_cpu_s=endpoint_cpu_s(self._server, before.server, after.server),
        )

    def _surroundings(
        self,
        configs: Sequence[EngineConfig],
        before: _Edge,
        after: _Edge,
        results: Sequence[EngineResult],
    ) -> Surroundings:
        seconds = after.at_s - before.at_s
        others = self._table
        if others is not None:
            others.read(is_last=True)
        own = [watched.process.pid for watched in (*self._server, *self._engines)]
        in_flight = sum(config.connections * config.in_flight for config in configs)
        return Surroundings(
            (
                *process_windows(SERVER, before.server, after.server, seconds),
                *process_windows(GENERATOR, before.engines, after.engines, seconds),
            ),
            () if others is None else others.busiest(own),
            pressure_between(before.machine, after.machine, seconds),
            None if configs[0].rate_hz is not None else in_flight,
            max(each.report.paused_ns / 1e9 / max(each.seconds, 1e-9) for each in results),
        )


class _Engine:
    """An engine process, and what it has told so far."""

    def __init__(self, config: EngineConfig, stack: ExitStack) -> None:
        self.answered = 0
        self.live = LiveFigures()
        self.is_ready = False
        self.on_event: Callable[[str], None] = lambda _event: None
        self._result: dict[str, Any] | None = None
        self._damage = "the engine printed nothing"
        # Why we ended it, empty where we did not.
        self._end = ""
        self._process = stack.enter_context(
            kept_alive(
                module_command("capnp_rig.loadtest.engine.process"),
                env=with_malloc_settings(child_environment()),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._tell(json.dumps(asdict(config)))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def go(self) -> None:
        """Let it begin."""
        self._tell("go")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        # One that has ended does not listen; `result` tells why.
        with suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """Ask it to close its measured window."""
        if self.is_running:
            self._process.send_signal(signal.SIGINT)

    def give_up(self) -> None:
        """End it at once: it takes too long."""
        if self.is_running:
            self._end = "the engine did not end in time"
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                told = json.loads(line)
            except ValueError:
                self._damage = "the engine's words are cut short"
                return
            if isinstance(told, int):
                self.answered = told
            elif "live" in told:
                self.live = LiveFigures.from_json(told["live"])
            elif "event" in told:
                self.is_ready = True
                self.on_event(told["event"])
            else:
                self._result = told

    def result(self) -> EngineResult:
        """Return what it measured.

        Raises:
            EngineFailed: It ended without a result.
        """
        self._reader.join(5)
        if self._process.returncode or self._result is None:
            raise EngineFailed(self._end or self._last_words())
        return EngineResult.from_json(self._result)

    def _last_words(self) -> str:
        """Return why it ended without a result."""
        if self._process.returncode < 0:
            names = {each.value: each.name for each in signal.Signals}
            number = -self._process.returncode
            return f"the engine was ended by {names.get(number, number)}"
        assert self._process.stderr is not None
        lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else self._damage
