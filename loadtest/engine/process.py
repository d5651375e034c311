"""The high-rate engine: one pinned process on uvloop, closed or open loop, every reply checked.

Closed loop: each reply makes room for the next call. Open loop: calls are due on an absolute
schedule, whatever the server does; `engine.pacer` sends them. Three instants per call: due,
sent, received; all calls of one turn of the loop share a stamp. `protocols.exchange`, or that of
another stack (`loadtest.protocols`), encodes calls and checks replies; `stats.tally` counts.

Run as ``python -m capnp_rig.loadtest.engine.process``, with its config on stdin, a JSON object in
one line (an argument could not hold a corpus). It prints a JSON object a line:
``{"event": "ready"}`` when all connections stand, then waits for another line on stdin;
``{"event": "open"}`` and ``{"event": "close"}`` at the edges of the measured window, the number
of answered calls twice a second, and ``{"live": …}`` if asked for, and in the end its result.
SIGINT closes the window early.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, cast

import uvloop

from capnp_rig.client.channels.backoff import backoff_s
from capnp_rig.client.connecting import open_secured, secured
from capnp_rig.client.tls import Tls
from capnp_rig.loadtest.engine.pacer import Pacer
from capnp_rig.loadtest.engine.places import CONNECT, Places
from capnp_rig.loadtest.engine.schedule import Arrivals, Pace
from capnp_rig.loadtest.live.figures import LiveFigures
from capnp_rig.loadtest.protocols import (
    CAPNP,
    AnyWorkload,
    alpn_of,
    firsts_of,
    load_any_workload,
    make_exchange,
    unchecked_of,
)
from capnp_rig.loadtest.stats.endpoint_tally import EndpointTally
from capnp_rig.loadtest.stats.process_use import ports_key
from capnp_rig.loadtest.stats.tally import Report, Tally
from capnp_rig.loadtest.workload import Workload, WorkloadConfig, WorkloadError
from capnp_rig.objects.errors import ClientError, ConnectError, DeadlineExceeded, Disconnected
from capnp_rig.rigcli.address import Address, parse_addresses
from capnp_rig.rigcli.gc_page import publish_gc

_RECEIVE_BYTES = 262_144
_CONNECT_TIMEOUT_S = 10.0
_REPORT_S = 0.5
# A run of a number of calls that come to no end.
_LONGEST_S = 86_400.0
_STOPPING = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How much load: for `seconds` after `warmup_s`, or until `calls` are answered.

    Each of `connections` has at most `in_flight` calls under way. `rate_hz` is that of the
    open loop over all connections, None for a closed loop. `cpu` is where to pin, None for
    nowhere. This is process `number` of `processes`. `stack` is the protocol. An `address` with
    commas names servers that share the connections, whose places are counted from `first_place` on.
    With `tells_live` the process tells its `LiveFigures` twice a second. `tls` None is a load in
    the clear.
    """

    address: str
    connections: int = 64
    in_flight: int = 1
    seconds: float | None = 2.0
    calls: int | None = None
    warmup_s: float = 0.3
    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    checks_content: bool = True
    timeout_s: float = 15.0
    cpu: int | None = None
    rate_hz: float | None = None
    arrivals: str = Arrivals.POISSON
    seed: int = 1
    number: int = 0
    processes: int = 1
    stack: str = CAPNP
    first_place: int = 0
    tells_live: bool = False
    tls: Tls | None = None

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "EngineConfig":
        """Return what `dataclasses.asdict` made plain."""
        tls = None if plain["tls"] is None else Tls(**plain["tls"])
        return cls(**{**plain, "workload": WorkloadConfig(**plain["workload"]), "tls": tls})


@dataclass(frozen=True, slots=True)
class EngineResult:
    """What one process measured: its `report`, over `seconds`.

    `busy` is the share of them that this process worked: its CPU time, without the turns of an open
    loop that found nothing to do. `interrupted` is whether it was asked to stop early. `by_port`
    has the calls that were answered in them, rightly or not, by the `ports_key` of their
    connection; it is empty over a Unix socket.
    """

    report: Report
    seconds: float
    busy: float
    interrupted: bool = False
    by_port: Mapping[int, int] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """Calls of the measured window that were answered rightly."""
        return self.report.calls

    @property
    def calls_per_s(self) -> float:
        """Answered calls per second."""
        return self.calls / self.seconds

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = {name: getattr(self, name) for name in ("seconds", "busy", "interrupted")}
        return {"report": self.report.to_json(), "by_port": dict(self.by_port), **values}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "EngineResult":
        """Return what `to_json` wrote."""
        # JSON has texts for keys.
        by_port = {int(port): calls for port, calls in plain["by_port"].items()}
        report = Report.from_json(plain["report"])
        return cls(**{**plain, "report": report, "by_port": by_port})


class Endpoint:
    """A server of the load, and what counts there."""

    def __init__(self, address: Address, workload: AnyWorkload, tally: EndpointTally) -> None:
        self.address = address
        self.workload = workload
        self.tally = tally
        recorder = tally.recorder(workload.label, is_settled=True)
        self.answered, self.settle = recorder.record, recorder.settle

    def failed(self, error: Exception, sent_ns: int, now_ns: int) -> None:
        """Count a call that failed."""
        self.tally.failed(self.workload.label, sent_ns, now_ns, error)


class Load:
    """What all connections share."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        addresses = parse_addresses(config.address)
        self.workload = self._load_workload(addresses[0])
        self.security = secured(config.tls, alpn_of(config.stack))
        self.buffer = memoryview(bytearray(_RECEIVE_BYTES))
        is_open_loop = config.rate_hz is not None
        in_flight = 0 if is_open_loop else config.connections * config.in_flight
        self.tally = Tally(is_open_loop=is_open_loop, in_flight=in_flight)
        self.tally.check(
            unchecked_of(self.workload, checks_content=config.checks_content),
            firsts_of(self.workload),
        )
        self.endpoints = [
            Endpoint(
                address,
                self.workload
                if isinstance(self.workload, Workload)
                else self._load_workload(address),
                EndpointTally(self.tally, str(address) if len(addresses) > 1 else ""),
            )
            for address in addresses
        ]
        self.live: LiveFigures | None = None
        if config.tells_live:
            self.live = LiveFigures()
            self.tally.tell_window = partial(self.live.add, is_open_loop=is_open_loop)
        self.pacer: Pacer[_Connection] | None = None
        # How many calls may still be sent, of a closed loop.
        self.left = sys.maxsize if config.calls is None else config.calls
        self.running = True
        self.close_ns = sys.maxsize
        self.stopped = asyncio.Event()
        self.interrupted = False
        self.connections: dict[int, _Connection] = {}
        # Those that start no more calls, until the ones in flight have ended.
        self.retiring: set[_Connection] = set()
        # Calls that were answered, by the ports of connections that are over.
        self.ended: Counter[int] = Counter()
        self._rng = Random(config.seed)
        # How often connections could not be made anew, of those that have not answered since.
        self.failures: Counter[int] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self.places: Places[_Connection, Endpoint] | None = None
        # Connections without an answer so far, where the servers are several.
        self.fresh: set[_Connection] = set()
        if len(addresses) > 1:
            self.places = Places(self, config.first_place, self._rng)
            self.fresh = self.places.fresh

    def _load_workload(self, address: Address) -> AnyWorkload:
        config = self.config
        return load_any_workload(
            config.stack,
            config.workload,
            authority=str(address),
            first=config.number,
            step=config.processes,
        )

    @property
    def standing(self) -> list["_Connection"]:
        """The connections on which calls may be in flight."""
        return [*self.connections.values(), *self.retiring]

    def stop(self) -> None:
        """Close the measured window now."""
        self.interrupted = True
        self.close_ns = min(self.close_ns, time.monotonic_ns())
        self.stopped.set()

    async def connect(self, number: int) -> None:
        """Make a connection for the first time, and wait until it can be called.

        Raises:
            ClientError: It cannot be made.
        """
        if self.places is not None:
            await self.places.connect(number)
        else:
            self.connections[number] = await self.open(number, self.endpoints[0], again=False)

    async def open(self, number: int, endpoint: Endpoint, *, again: bool) -> "_Connection":
        """Return a connection that can be called.

        Raises:
            ClientError: It cannot be made.
        """
        connection = _Connection(self, number, endpoint)
        started_ns = time.monotonic_ns()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await open_secured(
                    endpoint.address, _CONNECT_TIMEOUT_S, self.security, lambda _: connection
                )
                await connection.ready
        except TimeoutError as error:
            connection.close()
            awaited = connection.exchange.awaited
            what = f"answer to {awaited}" if awaited else "connection"
            raise ConnectError(f"no {what} within {_CONNECT_TIMEOUT_S:g} s") from error
        # It may have been lost since it was ready.
        if connection.error is not None:
            raise connection.error
        walk_ns = connection.exchange.walk_ns
        endpoint.tally.connected(started_ns, time.monotonic_ns(), again=again, walk_ns=walk_ns)
        return connection

    def by_port(self) -> Counter[int]:
        """Return how many calls were answered so far, by the ports of their connection."""
        answered = self.ended.copy()
        for connection in self.standing:
            connection.add_to(answered)
        return answered

    def lost(self, number: int, connection: "_Connection", error: ClientError) -> None:
        """Make a connection anew: after a wait that grows with each failure, or elsewhere."""
        self.connections.pop(number).add_to(self.ended)
        if self.places is not None:
            self.places.lost(number, connection, error)
            return
        task = asyncio.get_running_loop().create_task(self._reconnect(number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reconnect(self, number: int) -> None:
        endpoint = self.endpoints[0]
        while self.running:
            self.failures[number] += 1
            await asyncio.sleep(backoff_s(self.failures[number], self._rng))
            started_ns = time.monotonic_ns()
            try:
                connection = await self.open(number, endpoint, again=True)
            except ClientError as error:
                endpoint.tally.failed(CONNECT, started_ns, time.monotonic_ns(), error)
                continue
            self.connections[number] = connection
            if self.running:
                connection.begin()
            return

    def stop_when_done(self) -> None:
        """Close the window where all calls there were to be have ended."""
        if self.in_flight == 0:
            self.stopped.set()

    @property
    def in_flight(self) -> int:
        """Calls that wait for their reply."""
        return sum(each.exchange.in_flight for each in self.standing)


class _Connection(asyncio.BufferedProtocol):
    """The edge of one exchange: its socket."""

    def __init__(self, load: Load, number: int, endpoint: Endpoint) -> None:
        self._load = load
        self._number = number
        self.endpoint = endpoint
        # Over all processes, no other connection has this number.
        user = load.config.number + number * load.config.processes
        self.exchange = make_exchange(
            endpoint.workload,
            user,
            load.config.in_flight,
            answered=endpoint.answered,
            failed=endpoint.failed,
            checks_content=load.config.checks_content,
        )
        self._settle = endpoint.settle
        # What follows on answers.
        self._next: Callable[[int], None] = self._go_on
        self._transport: asyncio.Transport | None = None
        self._ports: int | None = None
        self._ended = 0
        self.is_open = self.takes_calls = True
        # What ended it.
        self.error: ClientError | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        names = [self._transport.get_extra_info(name) for name in ("sockname", "peername")]
        if all(isinstance(name, tuple) for name in names):
            self._ports = ports_key(names[0][1], names[1][1])
        self.flush()
        # Where nothing is to be asked of the server first.
        if self.exchange.is_ready:
            self.ready.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._load.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self.is_open:
            return
        # As bytes: a memoryview is compared element by element.
        data = bytes(self._load.buffer[:nbytes])
        try:
            freed = self.exchange.receive(data, time.monotonic_ns())
        except ClientError as error:
            self.fail(error)
            return
        if self.ready.done():
            self._ended += freed
            if self._load.fresh and freed:
                self._first_answer()
            self._next(freed)
        elif self.exchange.is_ready:
            self.ready.set_result(None)
        self.flush()
        # While the server works again: a tenth more calls/s with 64 in flight on one connection.
        self._settle()

    def _first_answer(self) -> None:
        places = self._load.places
        if places is not None and self in places.fresh:
            places.answered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        reason = exc.strerror if isinstance(exc, OSError) else "the server closed it"
        self.fail(Disconnected(f"the connection was lost: {reason}"))

    def fail(self, error: ClientError) -> None:
        """End the connection; what was in flight has failed."""
        if not self.is_open:
            return
        self.error = error
        self.close()
        if not self.ready.done():
            self.ready.set_exception(error)
        elif self._load.running and self._counts:
            now_ns = time.monotonic_ns()
            # A goodbye without calls in flight costs none: an idle connection is made anew.
            is_goodbye = isinstance(error, Disconnected) and error.is_goodbye
            if not self.exchange.give_up(error, now_ns) and not is_goodbye:
                self.endpoint.failed(error, now_ns, now_ns)
            if self in self._load.retiring:
                self._leave()
            else:
                self._load.lost(self._number, self, error)
            if not self._load.left:
                self._load.stop_when_done()

    @property
    def _counts(self) -> bool:
        load = self._load
        return load.connections.get(self._number) is self or self in load.retiring

    def retire(self) -> None:
        """Start no more calls, and close as soon as those in flight have ended."""
        self._load.retiring.add(self)
        self.takes_calls = False
        self._next = self._run_out
        self._run_out(0)

    def _run_out(self, _freed: int) -> None:
        if not self.exchange.in_flight:
            self._leave()

    def _leave(self) -> None:
        load = self._load
        load.retiring.discard(self)
        self.add_to(load.ended)
        self.close()
        # Its last call may have been that of all.
        if not load.left or (load.pacer is not None and load.pacer.is_done):
            load.stop_when_done()

    def close(self) -> None:
        """Close the socket."""
        self.is_open = self.takes_calls = False
        if self._transport is not None:
            self._transport.close()

    def flush(self) -> None:
        """Send what is queued in one write."""
        out = self.exchange.output()
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(out)

    def add_to(self, by_port: Counter[int]) -> None:
        """Add the calls that were answered here."""
        if self._ports is not None:
            by_port[self._ports] += self._ended

    def begin(self) -> None:
        """Start the calls of a closed loop, or offer all slots to the schedule."""
        self._go_on(self.exchange.free)
        self.flush()

    def _go_on(self, freed: int) -> None:
        load = self._load
        if load.failures:
            load.failures.pop(self._number, None)
        now_ns = time.monotonic_ns()
        if load.pacer is not None:
            load.pacer.offer(self, freed, now_ns)
            if load.pacer.is_done:
                load.stop_when_done()
            return
        if not load.running or not freed:
            return
        if now_ns >= load.close_ns:
            return
        count = min(freed, load.left)
        load.left -= count
        exchange = self.exchange
        for _ in range(count):
            exchange.send(now_ns, now_ns)
        if not count:
            load.stop_when_done()


def _overdue(load: Load) -> None:
    """End connections with a call past its deadline: a late reply must not meet a new call."""
    oldest_ns = time.monotonic_ns() - round(load.config.timeout_s * 1e9)
    for connection in load.standing:
        _, sent_ns = next(connection.exchange.waiting(), (0, oldest_ns))
        if sent_ns < oldest_ns:
            connection.fail(DeadlineExceeded("no answer within the deadline"))


async def _run(config: EngineConfig, say: Callable[[object], None]) -> EngineResult:
    load = Load(config)
    loop = asyncio.get_running_loop()
    for number in _STOPPING:
        loop.add_signal_handler(number, load.stop)
    await asyncio.gather(*map(load.connect, range(config.connections)))
    say({"event": "ready"})
    # Blocking on purpose: there is nothing to do until all processes are ready.
    if not sys.stdin.readline():
        raise ConnectError("nobody waits for the result")
    start_ns = time.monotonic_ns()
    open_ns = start_ns + round(config.warmup_s * 1e9)
    load.tally.open(open_ns)
    seconds = _LONGEST_S if config.seconds is None else config.seconds
    load.close_ns = open_ns + round(seconds * 1e9)
    if config.rate_hz is not None:
        pace = Pace(Arrivals(config.arrivals), seed=config.seed)
        pace.set_rate(config.rate_hz, start_ns)
        load.pacer = Pacer(load, pace, config.calls)
    for connection in load.connections.values():
        connection.begin()
    await _until(load, open_ns)
    if load.pacer is not None:
        load.pacer.open()
    say({"event": "open"})
    cpu_ns, opened_ns = time.process_time_ns(), time.monotonic_ns()
    ended = load.by_port()
    await _watch(load, say)
    cpu_ns, took_ns = time.process_time_ns() - cpu_ns, time.monotonic_ns() - opened_ns
    say({"event": "close"})
    ended = load.by_port() - ended
    closed_ns = min(time.monotonic_ns(), load.close_ns)
    load.close_ns = closed_ns
    # What was spun away is no work.
    work_ns, load.tally.spun_ns = max(cpu_ns - load.tally.spun_ns, 0), 0
    if load.pacer is not None:
        load.pacer.close()
    await settle(load)
    load.running = False
    for connection in load.standing:
        connection.close()
    # The loop's handlers end with it. A signal that came later would end us before the result is
    # printed, and has nothing to stop.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    report = load.tally.take(cpu_ns=work_ns, final=True)
    _tell_live(load, say)
    return EngineResult(
        report=report,
        # Stopped in its warm-up, it measured nothing.
        seconds=max(closed_ns - open_ns, 0) / 1e9,
        busy=work_ns / took_ns,
        interrupted=load.interrupted,
        by_port=ended,
    )


async def _until(load: Load, instant_ns: int) -> None:
    left_s = (instant_ns - time.monotonic_ns()) / 1e9
    if left_s > 0 and not load.stopped.is_set():
        try:
            await asyncio.wait_for(load.stopped.wait(), left_s)
        except TimeoutError:
            return


async def _watch(load: Load, say: Callable[[object], None]) -> None:
    """Report now and then until the window closes, or all calls are done."""
    while (now_ns := time.monotonic_ns()) < load.close_ns and not load.stopped.is_set():
        say(load.tally.answered)
        _tell_live(load, say)
        _overdue(load)
        await _until(load, min(load.close_ns, now_ns + round(_REPORT_S * 1e9)))


def _tell_live(load: Load, say: Callable[[object], None]) -> None:
    if load.live is not None:
        load.live.in_flight, load.live.connections = load.in_flight, len(load.standing)
        say({"live": load.live.to_json()})


async def settle(load: Load) -> None:
    """Wait for the calls that were due in time, and count those without an answer in the end."""
    end_s = time.monotonic() + load.config.timeout_s
    # Polled: once per run, and there is nobody to set an event.
    while time.monotonic() < end_s:
        if not load.in_flight and (load.pacer is None or load.pacer.is_over):
            break
        await asyncio.sleep(0.002)
    for connection in load.standing:
        connection.endpoint.tally.unfinished(connection.exchange.in_flight)
    if load.pacer is not None:
        load.pacer.give_up()


def run(config: EngineConfig, say: Callable[[object], None]) -> EngineResult:
    """Load the server and return what was measured; pins this process where `cpu` says so.

    `say` gets what goes on, see the module.

    Raises:
        ClientError: The server cannot be reached.
        WorkloadError: What to send is unusable.
        OSError: The CPU is not ours.
    """
    if config.cpu is not None:
        os.sched_setaffinity(0, {config.cpu})
    publish_gc()
    return uvloop.run(_run(config, say))


def line_writer() -> Callable[[object], None]:
    """Return a function that prints a value as a line of JSON, all of it.

    With PYTHONUNBUFFERED, `sys.stdout` loses the rest of a write that the kernel cuts short, as it
    does when a process, or its whole machine, is stopped while a pipe is full. A buffer writes on.
    """
    out = open(sys.stdout.fileno(), "wb", closefd=False)  # noqa: SIM115 - as long as we run

    def write(what: object) -> None:
        out.write(json.dumps(what).encode() + b"\n")
        out.flush()

    return write


def main() -> None:
    """Run with the JSON object of the first line of stdin; print the result as one."""
    say = line_writer()
    try:
        result = run(EngineConfig.from_json(json.loads(sys.stdin.readline())), say)
    except (ClientError, OSError, WorkloadError) as error:
        sys.exit(f"cannot load the server: {error}")
    say(result.to_json())


if __name__ == "__main__":
    main()
