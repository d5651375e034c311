"""The high-rate engine: one pinned process on uvloop, closed or open loop, every reply checked.

Closed loop: each reply makes room for the next call. Open loop: calls are due on an absolute
schedule, whatever the server does; each turn of the loop sends all that is due, and a call that
finds no room waits and keeps its due time. Between due times the loop spins, since its timers
step by 1 ms, and sleeps only while nothing is due for longer than that.

Three instants per call: due, sent, received. Response time is received - due, service time
received - sent, lateness sent - due; all calls of one turn share a stamp. In a closed loop a
call is due when it is sent.

Every question id of a connection has one text of its own, encoded once; the first reply
to it is decoded and compared in full, and from then on each reply must equal that frame
byte for byte (0.25 µs, where decoding takes 5). A frame that differs is decoded again.

Run as ``python -m loadtest.engine CONFIG``, a JSON object; prints the number of answered calls
twice a second, a line each, and in the end its result as a JSON object.
"""

import asyncio
import json
import os
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import uvloop

from loadtest.histogram import Recorder
from loadtest.schedule import Arrivals, due_offsets_ns
from schema import message
from wire.address import parse_address
from wire.encoding import encode_bootstrap, encode_call, encode_finish
from wire.errors import WireError
from wire.frames import FrameDecoder
from wire.interfaces import compile_interface
from wire.messages import ImportedCap, RemoteError, Results, Return, content_of, decode

_READ = compile_interface(message.MessageStream).methods["read"]
_RECEIVE_BYTES = 262_144
_CONNECT_TIMEOUT_S = 10.0
# How long calls in flight may take when the run is over.
_LINGER_S = 2.0
_SLEEP_FROM_NS = 2_000_000
_REPORT_S = 0.5
_u32_at = struct.Struct("<I").unpack_from
# The answer id stands behind table, root, discriminant and pointer, in every peer's layout.
_ANSWER_ID_AT = 32


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How much load, for `seconds` after `warmup_s`.

    Each of `connections` has at most `in_flight` calls under way. `rate_hz` is that of the
    open loop over all connections, None for a closed loop. `cpu` is where to pin, None for
    nowhere.
    """

    address: str
    connections: int = 64
    in_flight: int = 1
    seconds: float = 2.0
    warmup_s: float = 0.3
    payload_bytes: int = 32
    cpu: int | None = None
    rate_hz: float | None = None
    arrivals: str = Arrivals.POISSON
    seed: int = 1


@dataclass(frozen=True, slots=True)
class EngineResult:
    """What one run measured, the warm-up left out.

    `calls` were due within the `seconds` and answered rightly, `answered` over the whole run;
    `scheduled` were due within them (None in a closed loop), `held` of them found no room at
    first, and `unfinished` had no answer in the end. `busy` is the share of the seconds that this
    process worked: CPU time in a closed loop, turns with work in an open one. The histograms are
    as `Histogram.to_json` writes them; `failures` counts by kind.
    """

    calls: int
    seconds: float
    busy: float
    failures: dict[str, int]
    answered: int
    histogram: dict[str, Any] = field(default_factory=dict)
    response: dict[str, Any] = field(default_factory=dict)
    lateness: dict[str, Any] = field(default_factory=dict)
    scheduled: int | None = None
    held: int = 0
    unfinished: int = 0

    @property
    def calls_per_s(self) -> float:
        """Answered calls per second."""
        return self.calls / self.seconds


class _Load:
    """What all connections share: the window, the counts, the receive buffer, the schedule."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self.failures: Counter[str] = Counter()
        self.service, self.response, self.lateness = Recorder(), Recorder(), Recorder()
        self.calls = 0
        self.answered = 0
        self.open_ns = self.close_ns = sys.maxsize
        self.running = True
        self.is_open_loop = config.rate_hz is not None
        # Connections with room for a call, in the open loop.
        self.free: deque[tuple[_Connection, int]] = deque()

    def record(self, due_ns: int, sent_ns: int, received_ns: int) -> None:
        self.answered += 1
        if not self.open_ns <= due_ns < self.close_ns:
            return
        self.calls += 1
        self.service.record(received_ns - sent_ns)
        if self.is_open_loop:
            self.response.record(received_ns - due_ns)
            self.lateness.record(sent_ns - due_ns)


def _text(connection: int, slot: int, size: int) -> str:
    """Return a text of `size` ASCII characters that no other slot of the run has."""
    nonce = f"{connection:x}-{slot:x}."
    return (nonce + "abcdefghijklmnopqrstuvwxyz" * (size // 26 + 1))[: max(size, len(nonce))]


class _Connection(asyncio.BufferedProtocol):
    """One connection; its question ids are its slots, each for good with the same text."""

    def __init__(self, load: _Load, number: int) -> None:
        self._load = load
        self._number = number
        self._decoder = FrameDecoder()
        self._carry = b""
        self._transport: asyncio.Transport
        self._expected: dict[int, bytes] = {}
        self._texts: dict[int, bytes] = {}
        self._calls: dict[int, bytes] = {}
        # Due and sent, of the calls in flight.
        self.stamps: dict[int, tuple[int, int]] = {}
        self._out: list[bytes] = []
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(encode_bootstrap(0))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._load.buffer

    def buffer_updated(self, nbytes: int) -> None:
        # As bytes: a memoryview is compared element by element.
        data = bytes(self._load.buffer[:nbytes])
        try:
            if self.ready.done():
                self._replies(data)
            else:
                self._start(data)
        except WireError as error:
            self._give_up(f"protocol error: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._load.running:
            return
        reason = exc.strerror if isinstance(exc, OSError) else "closed"
        self._load.failures[f"connection lost: {reason}"] += max(len(self.stamps), 1)
        self.stamps.clear()
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(f"the connection was lost: {reason}"))

    def close(self) -> None:
        self._transport.close()

    def send(self, slot: int, due_ns: int, now_ns: int) -> None:
        """Queue the call of a free slot; `flush` sends it."""
        self.stamps[slot] = (due_ns, now_ns)
        self._out.append(self._calls[slot])

    def flush(self) -> None:
        """Send what is queued in one write."""
        if not self._transport.is_closing():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _give_up(self, kind: str) -> None:
        self._load.failures[kind] += 1
        self._transport.close()

    def _start(self, data: bytes) -> None:
        for found in self._decoder.feed(data):
            answer = decode(found)
            if not isinstance(answer, Return) or not isinstance(answer.outcome, Results):
                raise WireError("no bootstrap interface")
            (descriptor,) = answer.outcome.cap_table
            assert descriptor.export_id is not None
            self._transport.write(encode_finish(0, release_result_caps=False))
            self._encode_calls(ImportedCap(descriptor.export_id))
            self.ready.set_result(None)

    def begin(self) -> None:
        """Start the calls of a closed loop, or offer all slots to the schedule."""
        if self._load.is_open_loop:
            self._load.free.extend((self, slot) for slot in self._calls)
            return
        now_ns = time.monotonic_ns()
        for slot in self._calls:
            self.send(slot, now_ns, now_ns)
        self.flush()

    def _encode_calls(self, target: ImportedCap) -> None:
        config = self._load.config
        for slot in range(1, config.in_flight + 1):
            text = _text(self._number, slot, config.payload_bytes)
            params = _READ.params.pack({"request": {"content": text}})
            frame = encode_call(slot, target, _READ.interface_id, _READ.method_id, params)
            self._calls[slot] = b"".join(frame)
            self._texts[slot] = text[::-1].encode()

    def _replies(self, data: bytes) -> None:
        if self._carry:
            data, self._carry = self._carry + data, b""
        now_ns = time.monotonic_ns()
        expected, stamps, record = self._expected, self.stamps, self._load.record
        done: list[int] = []
        at, size = 0, len(data)
        while at + _ANSWER_ID_AT + 4 <= size:
            slot = _u32_at(data, at + _ANSWER_ID_AT)[0]
            reply = expected.get(slot)
            if reply is not None and slot in stamps and data.startswith(reply, at):
                at += len(reply)
                record(*stamps.pop(slot), now_ns)
            else:
                taken = self._judge(data, at, now_ns)
                if not taken:
                    break
                at += taken
            done.append(slot)
        if at < size:
            self._carry = data[at:]
        self._go_on(done)

    def _go_on(self, done: list[int]) -> None:
        if not self._load.running:
            return
        if self._load.is_open_loop:
            self._load.free.extend((self, slot) for slot in done)
            return
        now_ns = time.monotonic_ns()
        for slot in done:
            self.send(slot, now_ns, now_ns)
        self.flush()

    def _judge(self, data: bytes, at: int, now_ns: int) -> int:
        """Decode the reply at `at` and compare it; return its length, 0 if it is not whole yet.

        Raises:
            WireError: It is no answer to a call of ours.
        """
        messages = list(FrameDecoder().feed(data[at : at + _frame_bytes(data, at)]))
        if not messages:
            return 0
        (found,) = messages
        answer = decode(found)
        if not isinstance(answer, Return) or answer.answer_id not in self.stamps:
            raise WireError("an unexpected message")
        slot, end = answer.answer_id, found.bounds[-1][1]
        stamps = self.stamps.pop(slot)
        kind = self._fault(answer)
        if kind is None:
            self._load.record(*stamps, now_ns)
            self._expected[slot] = data[at : at + end]
        else:
            self._load.failures[kind] += 1
        if not answer.no_finish_needed and not self._calls[slot].startswith(encode_finish(slot)):
            # A peer that wants a Finish gets it in front of the next call with this id.
            self._calls[slot] = encode_finish(slot) + self._calls[slot]
        return end

    def _fault(self, answer: Return) -> str | None:
        """Return what is wrong with an answer, by kind, or None."""
        if isinstance(answer.outcome, RemoteError):
            return f"exception: {answer.outcome.reason[:80]}"
        if not isinstance(answer.outcome, Results):
            return "cancelled"
        results = _READ.results.open(content_of(answer.outcome.content))
        return None if results.chunk == self._texts[answer.answer_id] else "wrong reply"


def _frame_bytes(data: bytes, at: int) -> int:
    """Return the length of the frame at `at` as its table announces it."""
    count = _u32_at(data, at)[0] + 1
    table: int = 4 * (1 + count) + 7 & ~7
    if at + table > len(data) or count > 511:
        return table
    words: int = sum(struct.unpack_from(f"<{count}I", data, at + 4))
    return table + 8 * words


class _Pacer:
    """Sends what is due, turn by turn."""

    def __init__(self, load: _Load, start_ns: int, stop_ns: int) -> None:
        config = load.config
        assert config.rate_hz is not None
        self._load = load
        self._stop_ns = stop_ns
        self._loop = asyncio.get_running_loop()
        offsets = due_offsets_ns(config.rate_hz, Arrivals(config.arrivals), seed=config.seed)
        self._dues: Iterator[int] = (start_ns + offset for offset in offsets)
        self._next_ns = next(self._dues)
        self._waiting: deque[int] = deque()
        self._answered = 0
        self._turns = self._working_turns = 0
        self.scheduled = self.held = 0
        self._turn()

    @property
    def busy(self) -> float:
        """The share of turns that found work."""
        return self._working_turns / max(self._turns, 1)

    @property
    def unsent(self) -> int:
        """Calls that were due and found no room to the end."""
        return len(self._waiting)

    def _turn(self) -> None:
        load = self._load
        now_ns = time.monotonic_ns()
        while self._next_ns <= now_ns and self._next_ns < self._stop_ns:
            due_ns = self._next_ns
            self._waiting.append(due_ns)
            self.scheduled += load.open_ns <= due_ns < load.close_ns
            self._next_ns = next(self._dues)
        sent = self._send(now_ns)
        if load.open_ns <= now_ns < load.close_ns:
            self._turns += 1
            self._working_turns += bool(sent) or load.answered != self._answered
        self._answered = load.answered
        if self._next_ns >= self._stop_ns and not self._waiting:
            return
        if self._next_ns - now_ns > _SLEEP_FROM_NS and not self._waiting:
            # Half of the time left: the timer may be a millisecond late.
            self._loop.call_later((self._next_ns - now_ns) / 2e9, self._turn)
        elif load.running:
            self._loop.call_soon(self._turn)

    def _send(self, now_ns: int) -> int:
        waiting, free = self._waiting, self._load.free
        sent = 0
        touched: set[_Connection] = set()
        while waiting and free:
            connection, slot = free.popleft()
            connection.send(slot, waiting.popleft(), now_ns)
            touched.add(connection)
            sent += 1
        for connection in touched:
            connection.flush()
        self.held += len(waiting) if sent else 0
        return sent


async def _run(config: EngineConfig, report: Callable[[int], None]) -> EngineResult:
    load = _Load(config)
    connections = await asyncio.wait_for(_connect(load), _CONNECT_TIMEOUT_S)
    start_ns = time.monotonic_ns()
    load.open_ns = start_ns + round(config.warmup_s * 1e9)
    load.close_ns = load.open_ns + round(config.seconds * 1e9)
    for connection in connections:
        connection.begin()
    pacer = _Pacer(load, start_ns, load.close_ns) if load.is_open_loop else None
    await asyncio.sleep((load.open_ns - time.monotonic_ns()) / 1e9)
    cpu_ns, opened_ns = time.process_time_ns(), time.monotonic_ns()
    while (left_ns := load.close_ns - time.monotonic_ns()) > 0:
        report(load.answered)
        await asyncio.sleep(min(left_ns / 1e9, _REPORT_S))
    cpu_ns, took_ns = time.process_time_ns() - cpu_ns, time.monotonic_ns() - opened_ns
    unfinished = await _settle(load, connections, pacer)
    load.running = False
    for connection in connections:
        connection.close()
    return EngineResult(
        calls=load.calls,
        seconds=config.seconds,
        busy=cpu_ns / took_ns if pacer is None else pacer.busy,
        failures=dict(load.failures),
        answered=load.answered,
        histogram=load.service.take().to_json(),
        response=load.response.take().to_json(),
        lateness=load.lateness.take().to_json(),
        scheduled=None if pacer is None else pacer.scheduled,
        held=0 if pacer is None else pacer.held,
        unfinished=unfinished,
    )


async def _settle(load: _Load, connections: list[_Connection], pacer: _Pacer | None) -> int:
    """Wait for the calls that were due in time; return how many have no answer in the end."""
    end_s = time.monotonic() + _LINGER_S

    def left() -> int:
        stamps = (due for c in connections for due, _ in c.stamps.values())
        return sum(load.open_ns <= due < load.close_ns for due in stamps)

    # Polled: once per run, and there is nobody to set an event.
    while (left() or (pacer is not None and pacer.unsent)) and time.monotonic() < end_s:  # noqa: ASYNC110
        await asyncio.sleep(0.002)
    return left() + (0 if pacer is None else pacer.unsent)


async def _connect(load: _Load) -> list[_Connection]:
    address = parse_address(load.config.address)
    loop = asyncio.get_running_loop()
    connections = [_Connection(load, number) for number in range(load.config.connections)]
    for connection in connections:
        # Bound now: the lambda is called before the next turn of the loop.
        make = lambda connection=connection: connection  # noqa: E731
        if address.path is not None:
            await loop.create_unix_connection(make, address.path)
        else:
            assert address.host is not None
            assert address.port is not None
            await loop.create_connection(make, address.host, address.port)
    await asyncio.gather(*(connection.ready for connection in connections))
    return connections


def run(config: EngineConfig, report: Callable[[int], None]) -> EngineResult:
    """Load the server and return what was measured; pins this process where `cpu` says so.

    `report` gets the number of answered calls now and then.

    Raises:
        OSError: The server cannot be reached, or the CPU is not ours.
        TimeoutError: Connecting took too long.
    """
    if config.cpu is not None:
        os.sched_setaffinity(0, {config.cpu})
    return uvloop.run(_run(config, report))


def main() -> None:
    """Run with the JSON object of the first argument; print the result as one."""

    def report(answered: int) -> None:
        sys.stdout.write(f"{answered}\n")
        sys.stdout.flush()

    try:
        result = run(EngineConfig(**json.loads(sys.argv[1])), report)
    except (OSError, TimeoutError) as error:
        sys.exit(f"cannot load the server: {error or 'no connection in time'}")
    sys.stdout.write(json.dumps(asdict(result)) + "\n")


if __name__ == "__main__":
    main()
