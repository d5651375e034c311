"""The high-rate engine: one pinned process on uvloop that keeps calls in flight.

A closed loop: each reply makes room for the next call, so its times are service times.
Every question id of a connection has one text of its own, encoded once; the first reply
to it is decoded and compared in full, and from then on each reply must equal that frame
byte for byte (0.25 µs, where decoding takes 5). A frame that differs is decoded again.

Run as ``python -m loadtest.engine CONFIG``, a JSON object; prints its result as one.
"""

import asyncio
import json
import os
import struct
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import uvloop

from loadtest.histogram import Recorder
from schema import message
from wire.address import parse_address
from wire.errors import WireError
from wire.frames import FrameDecoder
from wire.interfaces import compile_interface
from wire.messages import (
    ImportedCap,
    RemoteError,
    Results,
    Return,
    content_of,
    decode,
    encode_bootstrap,
    encode_call,
    encode_finish,
)

_READ = compile_interface(message.MessageStream).methods["read"]
_RECEIVE_BYTES = 262_144
_CONNECT_TIMEOUT_S = 10.0
# A reply that takes longer is a failure of its connection.
_STALL_S = 10.0
_u32_at = struct.Struct("<I").unpack_from
# The answer id stands behind table, root, discriminant and pointer, in every peer's layout.
_ANSWER_ID_AT = 32


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How much load: `connections` with `in_flight` calls each, for `seconds` after `warmup_s`."""

    address: str
    connections: int = 64
    in_flight: int = 1
    seconds: float = 2.0
    warmup_s: float = 0.3
    payload_bytes: int = 32
    cpu: int | None = None


@dataclass(frozen=True, slots=True)
class EngineResult:
    """What one run measured, the warm-up left out.

    `calls` were answered rightly in `seconds`, `answered` over the whole run; `busy` is the
    share of the `seconds` that this process spent on its CPU; `histogram` has the service times;
    `failures` counts by kind.
    """

    calls: int
    seconds: float
    busy: float
    failures: dict[str, int]
    answered: int
    histogram: dict[str, Any] = field(default_factory=dict)

    @property
    def calls_per_s(self) -> float:
        """Answered calls per second."""
        return self.calls / self.seconds


class _Load:
    """What all connections share: the clock's window, the counts, the receive buffer."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self.failures: Counter[str] = Counter()
        self.recorder = Recorder()
        self.calls = 0
        self.running = True


def _text(connection: int, slot: int, size: int) -> str:
    """Return a text of `size` ASCII characters that no other slot of the run has."""
    nonce = f"{connection:x}-{slot:x}."
    return (nonce + "abcdefghijklmnopqrstuvwxyz" * (size // 26 + 1))[: max(size, len(nonce))]


class _Connection(asyncio.BufferedProtocol):
    """Keeps `in_flight` calls under way, each question id for good with the same text."""

    def __init__(self, load: _Load, number: int) -> None:
        self._load = load
        self._number = number
        self._decoder = FrameDecoder()
        self._carry = b""
        self._transport: asyncio.Transport
        self._expected: dict[int, bytes] = {}
        self._texts: dict[int, bytes] = {}
        self._calls: dict[int, bytes] = {}
        self._sent_ns: dict[int, int] = {}
        self._bootstrapped = False

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
            if self._bootstrapped:
                self._replies(data)
            else:
                self._start(data)
        except WireError as error:
            self._give_up(f"protocol error: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._load.running:
            self._load.failures[f"connection lost: {exc or 'closed'}"] += 1 + len(self._sent_ns)

    def _give_up(self, kind: str) -> None:
        self._load.failures[kind] += 1
        self._transport.close()

    def _start(self, data: bytes) -> None:
        for found in self._decoder.feed(data):
            answer = decode(found)
            if not isinstance(answer, Return) or not isinstance(answer.outcome, Results):
                self._give_up("no bootstrap interface")
                return
            (descriptor,) = answer.outcome.cap_table
            assert descriptor.export_id is not None
            self._transport.write(encode_finish(0, release_result_caps=False))
            self._encode_calls(ImportedCap(descriptor.export_id))
            self._bootstrapped = True
            now_ns = time.monotonic_ns()
            self._sent_ns = dict.fromkeys(self._calls, now_ns)
            self._transport.write(b"".join(self._calls.values()))

    def _encode_calls(self, target: ImportedCap) -> None:
        config = self._load.config
        for slot in range(1, config.in_flight + 1):
            text = _text(self._number, slot, config.payload_bytes)
            params = _READ.params.write({"request": {"content": text}})
            frame = encode_call(slot, target, _READ.interface_id, _READ.method_id, params)
            self._calls[slot] = b"".join(frame)
            self._texts[slot] = text[::-1].encode()

    def _replies(self, data: bytes) -> None:
        if self._carry:
            data, self._carry = self._carry + data, b""
        now_ns = time.monotonic_ns()
        expected, calls, sent_ns = self._expected, self._calls, self._sent_ns
        record = self._load.recorder.record
        out: list[bytes] = []
        done: list[int] = []
        at, size = 0, len(data)
        while at + _ANSWER_ID_AT + 4 <= size:
            slot = _u32_at(data, at + _ANSWER_ID_AT)[0]
            reply = expected.get(slot)
            if reply is not None and data.startswith(reply, at):
                at += len(reply)
            else:
                taken = self._judge(data, at)
                if not taken:
                    break
                at += taken
            record(now_ns - sent_ns.pop(slot))
            out.append(calls[slot])
            done.append(slot)
        if at < size:
            self._carry = data[at:]
        self._load.calls += len(done)
        if self._load.running:
            sent = time.monotonic_ns()
            for slot in done:
                sent_ns[slot] = sent
            self._transport.write(b"".join(out))

    def _judge(self, data: bytes, at: int) -> int:
        """Decode the reply at `at` and compare it; return its length, 0 if it is not whole yet.

        Raises:
            WireError: It is no answer to a call of ours, or the wrong one.
        """
        messages = list(FrameDecoder().feed(data[at : at + _frame_bytes(data, at)]))
        if not messages:
            return 0
        (found,) = messages
        answer = decode(found)
        if not isinstance(answer, Return) or answer.answer_id not in self._sent_ns:
            raise WireError("an unexpected message")
        slot = answer.answer_id
        end = found.bounds[-1][1]
        if isinstance(answer.outcome, RemoteError):
            self._load.failures[f"exception: {answer.outcome.reason[:80]}"] += 1
            self._load.calls -= 1
        elif isinstance(answer.outcome, Results):
            results = _READ.results.open(content_of(answer.outcome.content))
            if results.chunk != self._texts[slot]:
                self._load.failures["wrong reply"] += 1
                self._load.calls -= 1
            else:
                self._expected[slot] = data[at : at + end]
        if not answer.no_finish_needed and not self._calls[slot].startswith(encode_finish(slot)):
            # A peer that wants a Finish gets it in front of the next call with this id.
            self._calls[slot] = encode_finish(slot) + self._calls[slot]
        return end


def _frame_bytes(data: bytes, at: int) -> int:
    """Return the length of the frame at `at` as its table announces it."""
    count = _u32_at(data, at)[0] + 1
    table: int = 4 * (1 + count) + 7 & ~7
    if at + table > len(data) or count > 511:
        return table
    words: int = sum(struct.unpack_from(f"<{count}I", data, at + 4))
    return table + 8 * words


async def _run(config: EngineConfig) -> EngineResult:
    load = _Load(config)
    connections = await asyncio.wait_for(_connect(load), _CONNECT_TIMEOUT_S)
    await asyncio.sleep(config.warmup_s)
    load.recorder.take()
    calls, started_ns, cpu_ns = load.calls, time.monotonic_ns(), time.process_time_ns()
    await asyncio.sleep(config.seconds)
    took_ns, cpu_ns = time.monotonic_ns() - started_ns, time.process_time_ns() - cpu_ns
    result = EngineResult(
        calls=load.calls - calls,
        seconds=took_ns / 1e9,
        busy=cpu_ns / took_ns,
        failures=dict(load.failures),
        answered=load.calls,
        histogram=load.recorder.take().to_json(),
    )
    load.running = False
    for connection in connections:
        connection.close()
    return result


async def _connect(load: _Load) -> list[asyncio.BaseTransport]:
    address = parse_address(load.config.address)
    loop = asyncio.get_running_loop()
    transports: list[asyncio.BaseTransport] = []
    for number in range(load.config.connections):

        def make(number: int = number) -> _Connection:
            return _Connection(load, number)

        if address.path is not None:
            transport, _ = await loop.create_unix_connection(make, address.path)
        else:
            assert address.host is not None
            assert address.port is not None
            transport, _ = await loop.create_connection(make, address.host, address.port)
        transports.append(transport)
    return transports


def run(config: EngineConfig) -> EngineResult:
    """Load the server and return what was measured; pins this process where `cpu` says so.

    Raises:
        OSError: The server cannot be reached, or the CPU is not ours.
        TimeoutError: Connecting took too long.
    """
    if config.cpu is not None:
        os.sched_setaffinity(0, {config.cpu})
    return uvloop.run(_run(config))


def main() -> None:
    """Run with the JSON object of the first argument; print the result as one."""
    result = run(EngineConfig(**json.loads(sys.argv[1])))
    sys.stdout.write(json.dumps(asdict(result)) + "\n")


if __name__ == "__main__":
    main()
