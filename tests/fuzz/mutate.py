"""Mutated frames against both halves of a connection and the struct views, from a seeded loop.

The frames are real: pycapnp's own client and server talk once, and a relay between them
keeps what they say. What may come of a mutated frame is a right answer, a typed error or
the end of the connection; a sample of the right answers is compared with pycapnp's reading.

From the checkout's root::

    FUZZ_FRAMES=5000000 FUZZ_SEED=7 python tests/fuzz/mutate.py
"""

import asyncio
import math
import os
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import capnp

from capnp_rig.schema import load_rpc, load_schema
from capnp_rig.wire.encoding.any_pointers import AnyPointer
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT, EncodedTuple
from capnp_rig.wire.encoding.frames import FrameLimits
from capnp_rig.wire.encoding.lists import LazyList
from capnp_rig.wire.encoding.pointers import StructTuple
from capnp_rig.wire.encoding.structs import StructView, compile_struct
from capnp_rig.wire.errors import MalformedMessage
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.connection import (
    Answered,
    Answers,
    BootstrapFailed,
    Called,
    Cancelled,
    Ended,
    Failed,
    Limits,
    Unreadable,
)
from capnp_rig.wire.rpc.message_encoder import encode_bootstrap, encode_bootstrap_results
from capnp_rig.wire.rpc.messages import RemoteError
from capnp_rig.wire.rpc.server_connection import ServerConnection

TESTS = Path(__file__).resolve().parent.parent
RPC = load_rpc()
DATA = TESTS / "data"
KINDS = load_schema(DATA / "kinds.capnp")
PROBE = load_schema(DATA / "probe.capnp").Probe
METHODS = list(PROBE.schema.methods)
# The methods whose frames are mutated, with the codecs of their params and results.
SHAPES = {
    METHODS.index(name): (PROBE.schema.methods[name].param_type, field_name)
    for name, field_name in (("echo", "kinds"), ("echoRare", "rare"))
}
PARAMS = {number: compile_struct(schema) for number, (schema, _) in SHAPES.items()}
RESULTS = {
    METHODS.index(name): compile_struct(PROBE.schema.methods[name].result_type)
    for name in ("echo", "echoRare")
}
# pycapnp is asked about one answer in so many: it takes longer than all else together.
COMPARE_EVERY = 5
MAX_CPU_S = 0.1
# What one of the two refuses, and the other may read.
ONLY_PYCAPNP_REFUSES = (
    # An enumerant of a newer schema: a number for us, an error for pycapnp.
    "Member was null",
    # An empty list is one of numbers to us, whatever it says of its elements.
    "Schema mismatch: Expected a primitive list, but got a li",
)
ONLY_WE_REFUSE = (
    # C++ takes a pointer to nothing, wherever that is.
    "message has a pointer that leaves its segment",
    # C++ takes any list for one of bits, and reads its first bytes.
    "where bits are expected",
)
# Little: with the default of 8 Mi words, `to_dict` of a tiny message that
# announces as many empty structs takes seconds, which is the caller's to cap (C10).
TRAVERSAL_WORDS = 16_384
LIMITS = Limits(frame=FrameLimits(traversal_words=TRAVERSAL_WORDS))


# --- real frames -------------------------------------------------------------------------


def sample_values(chance: random.Random) -> dict[str, Any]:
    """Return values for a Kinds: any of its fields, some left out."""
    text = "".join(map(chr, chance.choices([0x41, 0xE9, 0x20AC, 0x1F980], k=chance.randrange(30))))
    makers: dict[str, Callable[[], Any]] = {
        "flag": lambda: chance.random() < 0.5,
        "flagOn": lambda: chance.random() < 0.5,
        "flag2": lambda: True,
        "i8": lambda: chance.randint(-128, 127),
        "i16": lambda: chance.randint(-(2**15), 2**15 - 1),
        "i32": lambda: chance.randint(-(2**31), 2**31 - 1),
        "i64": lambda: chance.choice([0, -1, 2**63 - 1, -(2**63)]),
        "u8": lambda: chance.randrange(256),
        "u16": lambda: chance.randrange(2**16),
        "u32": lambda: chance.randrange(2**32),
        "u64": lambda: chance.randrange(2**64),
        "f32": lambda: chance.choice([0.0, -0.0, 1.5, math.inf, -1e-40]),
        "f64": lambda: chance.choice([0.0, math.nan, -math.inf, 5e-324, 1e300]),
        "f64Default": chance.random,
        "colour": lambda: chance.choice(["red", "green", "blue"]),
        "text": lambda: text,
        "data": lambda: chance.randbytes(chance.randrange(50)),
        "bytes": lambda: list(chance.randbytes(chance.randrange(20))),
        "shorts": lambda: [chance.randint(-9, 9) for _ in range(chance.randrange(9))],
        "ints": lambda: [chance.randrange(2**32) for _ in range(chance.randrange(9))],
        "longs": lambda: [chance.randint(-(2**63), 2**63 - 1) for _ in range(chance.randrange(6))],
        "floats": lambda: [0.5] * chance.randrange(9),
        "doubles": lambda: [chance.random() for _ in range(chance.randrange(6))],
        "inner": lambda: {"number": chance.randrange(2**16), "name": text[:3]},
        "again": partial(sample_values, chance),
        "inners": lambda: [{"number": number, "name": text[:5]} for number in range(3)],
        "texts": lambda: [text[:7], "", text],
        "blobs": lambda: [chance.randbytes(chance.randrange(20)) for _ in range(3)],
        "flags": lambda: [chance.random() < 0.5 for _ in range(chance.randrange(80))],
        "hues": lambda: chance.choices(["red", "green", "blue"], k=chance.randrange(5)),
        "grid": lambda: [[1, -2, 3], [], [4]],
    }
    chosen = chance.sample(sorted(makers), chance.randint(0, 12))
    return {name: makers[name]() for name in chosen}


def rare_values(chance: random.Random) -> dict[str, Any]:
    return {
        "number": chance.randrange(2**16),
        "texts": ["a", "", "ccc"],
        "inners": [{"number": 1, "name": "x"}, {"number": 2}],
        "flags": [True, False, True],
        "colours": ["red", "blue"],
        "group": {"low": -1, "high": 2},
        **chance.choice([{"first": 7}, {"second": "seven"}, {}]),
        "greeting": "hello",
        "inner": {"number": 9},
        "nested": [[1, 2], [], [3]],
    }


@dataclass(frozen=True)
class Recorded:
    """Frames that pycapnp's client and server said to each other."""

    to_server: list[bytes]
    to_client: list[bytes]


def record(seed: int = 1) -> Recorded:
    """Let pycapnp's client call pycapnp's server, and listen in."""
    heard: dict[str, bytearray] = {"to_server": bytearray(), "to_client": bytearray()}
    asyncio.run(asyncio.wait_for(_talk(random.Random(seed), heard), 20))
    found = Recorded(**{name: split(bytes(data)) for name, data in heard.items()})
    assert len(found.to_server) > 40
    assert len(found.to_client) > 40
    return found


class _Echo(PROBE.Server):  # type: ignore[misc]
    async def echo(self, kinds: Any, _context: Any, **_: Any) -> None:
        _context.results.kinds = kinds

    async def echoRare(self, rare: Any, _context: Any, **_: Any) -> None:
        _context.results.rare = rare


async def _talk(chance: random.Random, heard: Mapping[str, bytearray]) -> None:
    async with capnp.kj_loop(), AsyncExitStack() as stack:

        async def serve(stream: Any) -> None:
            await capnp.TwoPartyServer(stream, bootstrap=_Echo()).on_disconnect()

        # Stock asyncio's streams: pycapnp listens at a port that it does not tell.
        port, relay_port = _free_port(), _free_port()
        server = await capnp.AsyncIoStream.create_server(serve, "127.0.0.1", port)
        await stack.enter_async_context(server)
        relay = await asyncio.start_server(_relay(port, heard), "127.0.0.1", relay_port)
        await stack.enter_async_context(relay)
        stream = await capnp.AsyncIoStream.create_connection("127.0.0.1", relay_port)
        client = capnp.TwoPartyClient(stream)
        probe = client.bootstrap().cast_as(PROBE)
        for _ in range(40):
            await probe.echo(kinds=sample_values(chance))
        for _ in range(6):
            await probe.echoRare(rare=rare_values(chance))
        await probe.echo(
            kinds={"data": bytes(9000), "longs": list(range(1000)), "text": "t" * 5000}
        )
        # What is not implemented, and a call that is given up.
        for _ in range(3):
            with suppress(capnp.KjException):
                await probe.depth(kinds={})
        del probe
        client.close()
        stream.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _relay(
    port: int, heard: Mapping[str, bytearray]
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, name: str) -> None:
        while data := await source.read(65536):
            heard[name] += data
            sink.write(data)
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", port)
        # Cancelled, when everything has been said.
        with suppress(asyncio.CancelledError):
            await asyncio.gather(copy(reader, forth, "to_server"), copy(back, writer, "to_client"))

    return serve


def split(stream: bytes) -> list[bytes]:
    """Return the frames of a stream, by a rule of its own rather than by `FrameDecoder`."""
    frames, at = [], 0
    while at < len(stream):
        (extra,) = struct.unpack_from("<I", stream, at)
        sizes = struct.unpack_from(f"<{extra + 1}I", stream, at + 4)
        end = at + ((extra + 1) // 2 + 1) * 8 + 8 * sum(sizes)
        frames.append(stream[at:end])
        at = end
    return frames


# --- mutations ---------------------------------------------------------------------------

_INTERESTING = (0, 1, 2, 3, 4, 7, 8, 0x7F, 0x80, 0xFF)
_WORDS = (
    *(0, 2**64 - 1, 1 << 32, 0xFFFFFFFC, 1, 2, 3, 6, 0x7FFFFFFF00000001, 0xFFFFFFFF00000001),
    *(0x0000FFFF00000000, 0xFFFF000000000000, 0xFFFFFFF900000001, 0x0000000700000001),
)


def mutate(frame: bytes, chance: random.Random) -> bytes:
    """Return the frame with one to three changes."""
    data = bytearray(frame)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        chance.choice(_MUTATIONS)(data, chance)
    return bytes(data)


def _flip_bit(data: bytearray, chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set_byte(data: bytearray, chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice(_INTERESTING)


def _set_word(data: bytearray, chance: random.Random) -> None:
    if len(data) >= 8:
        struct.pack_into("<Q", data, chance.randrange(len(data) // 8) * 8, chance.choice(_WORDS))


def _swap_words(data: bytearray, chance: random.Random) -> None:
    if len(data) >= 16:
        one, other = (chance.randrange(len(data) // 8) * 8 for _ in range(2))
        data[one : one + 8], data[other : other + 8] = (
            data[other : other + 8],
            data[one : one + 8],
        )


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _table(data: bytearray, chance: random.Random) -> None:
    """Change the number of segments or the size of one, by a little or by much."""
    if len(data) >= 8:
        at = chance.choice((0, 4))
        (value,) = struct.unpack_from("<I", data, at)
        new = chance.choice((value + 1, value - 1, 2 * value, 0xFFFFFFFF, chance.getrandbits(32)))
        struct.pack_into("<I", data, at, new & 0xFFFFFFFF)


def _shorten(data: bytearray, chance: random.Random) -> None:
    """Take words off the only segment, and out of its size, so that the frame stays whole."""
    if len(data) > 16 and not any(data[:4]):
        words = chance.randrange(len(data) // 8 - 1)
        del data[8 + words * 8 :]
        struct.pack_into("<I", data, 4, words)


def _split(data: bytearray, chance: random.Random) -> None:
    """Make two segments of one: far pointers are missing then."""
    if len(data) > 16 and not any(data[:4]):
        words = len(data) // 8 - 1
        first = chance.randrange(words)
        data[:8] = struct.pack("<IIII", 1, first, words - first, 0)


def _pointer(data: bytearray, chance: random.Random) -> None:
    """Change one part of a word as if it were a pointer."""
    if len(data) >= 24:
        at = chance.randrange(1, len(data) // 8) * 8
        low, high = struct.unpack_from("<II", data, at)
        match chance.randrange(6):
            case 0:
                low ^= chance.choice((1, 2, 3))
            case 1:
                low = (low + 4 * chance.choice((-40, -9, -2, -1, 1, 2, 9, 40))) & 0xFFFFFFFF
            case 2:
                high = (high & ~7) | chance.randrange(8)
            case 3:
                high = (high + 8 * chance.choice((-2, -1, 1, 2, 1000))) & 0xFFFFFFFF
            case 4:
                high = (high + 0x10000 * chance.choice((-1, 1))) & 0xFFFFFFFF
            case 5:
                # A far pointer, to itself, in the first segments.
                low, high = chance.randrange(len(data) // 8) << 3 | chance.choice((2, 6)), 0
        struct.pack_into("<II", data, at, low, high)


_MUTATIONS = (
    *(_flip_bit, _set_byte, _set_word, _swap_words, _truncate, _table),
    *(_shorten, _split, _pointer, _pointer, _pointer),
)


# --- what comes of them ------------------------------------------------------------------


_GOOD = encode_bootstrap(0xFEEDBEEF)
_GOOD_ANSWER = encode_bootstrap_results(0xFEEDBEEF, 0)


class WrongError(AssertionError):
    """A case came out as it may not; the message has the seed and the frame."""


def native(value: Any) -> Any:
    """Return a value as plain Python; NaN as a text, since it is not equal to itself."""
    if isinstance(value, StructView):
        number = value._active(value)
        return {
            name: native(getattr(value, name)) if has_value(value, name) else None
            for name in value._fields
            if value._numbers.get(name, number) == number
        }
    if isinstance(value, (AnyPointer, capnp.lib.capnp._DynamicObjectReader)):
        return "any"
    if isinstance(value, memoryview):
        return [native(item) for item in value.tolist()]
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, (list, tuple, LazyList)):
        return [native(item) for item in value]
    if isinstance(value, dict):
        return {name: native(item) for name, item in value.items()}
    assert isinstance(value, (bool, int, float, str, type(None))), value
    return value


_STRUCTS = {"kinds", "inner", "again", "rare"}


def has_value(value: Any, name: str) -> bool:
    return name not in _STRUCTS or value._has(name)


def read_ours(content: StructTuple | None, codecs: Mapping[int, Any], method_id: int) -> Any:
    """Read every field of params or results.

    Raises:
        MalformedMessage: One cannot be read.
    """
    found = codecs[method_id].open(content)
    name = SHAPES[method_id][1]
    if not found._has(name):
        return None
    return native(getattr(found, name))


def read_theirs(content: Any, schema: Any, method_id: int) -> Any:
    """Return what pycapnp reads; it raises what it raises."""
    found = content.as_struct(schema)
    name = SHAPES[method_id][1]
    if not found._has(name):
        return None
    return reading_of(getattr(found, name))


def reading_of(reader: Any) -> Any:
    result: dict[str, Any] = {}
    inactive = set(reader.schema.union_fields)
    # The active member may be one that the schema does not know.
    with suppress(capnp.KjException):
        inactive -= {reader.which()}
    for name in reader.schema.fieldnames:
        if name in inactive:
            continue
        if not has_value(reader, name):
            result[name] = None
            continue
        result[name] = _value_of(getattr(reader, name))
    return result


def _value_of(value: Any) -> Any:
    if isinstance(
        value,
        (bool, int, float, str, bytes, type(None), capnp.lib.capnp._DynamicObjectReader),
    ):
        return native(value)
    if isinstance(value, capnp.lib.capnp._DynamicStructReader):
        return reading_of(value)
    return str(value) if hasattr(value, "raw") else [_value_of(item) for item in value]


@dataclass
class Fuzzer:
    """The loop; `outcomes` counts what came of the frames."""

    recorded: Recorded
    seed: int
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0

    def run(self, frames: int) -> None:
        """Try so many frames.

        Raises:
            WrongError: One came out as it may not.
        """
        for number in range(frames):
            self.case(number)

    def case(self, number: int) -> None:
        """Try the frame of that number: it depends on the seed and the number only."""
        chance = random.Random(self.seed << 32 | number)
        is_call = chance.random() < 0.6
        frames = self.recorded.to_server if is_call else self.recorded.to_client
        original = chance.choice(frames)
        frame = mutate(original, chance)
        started_s = time.process_time()
        try:
            outcome = (self._serve if is_call else self._receive)(frame, original, chance)
        except Exception as error:
            side = "server" if is_call else "client"
            raise WrongError(
                f"seed {self.seed}, case {number}, to the {side}: {type(error).__name__}: {error}"
                f"\n{frame.hex()}"
            ) from error
        self.outcomes[outcome] += 1
        spent_s = time.process_time() - started_s
        self.slowest_s = max(self.slowest_s, spent_s)
        # Not at once: the collector, or a slow moment, may have come in between.
        if spent_s > MAX_CPU_S and self._again_s(frame, is_call=is_call) > MAX_CPU_S:
            raise WrongError(f"seed {self.seed}, case {number}: {spent_s:.3f} s\n{frame.hex()}")

    def _again_s(self, frame: bytes, *, is_call: bool) -> float:
        started_s = time.process_time()
        (self._serve if is_call else self._receive)(frame, b"", random.Random(0))
        return time.process_time() - started_s

    def _serve(self, frame: bytes, original: bytes, chance: random.Random) -> str:
        server = ServerConnection(LIMITS)
        server.receive_data(encode_bootstrap(0))
        server.data_to_send()
        # A frame that kept its size leaves the next one where it is.
        keeps_size = (
            frame[:8] == original[:8] and len(frame) == len(original) and not any(frame[:4])
        )
        seen: list[tuple[int, StructTuple | None, Any]] = []
        outcome = _feed(server, frame + _GOOD if keeps_size else frame, seen, chance)
        sent = server.data_to_send()
        assert server.ended or sent.endswith(_GOOD_ANSWER) == keeps_size, "the next frame is lost"
        for method_id, params, found in seen:
            outcome = "refused" if isinstance(found, MalformedMessage) else "read"
            if chance.randrange(COMPARE_EVERY) == 0:
                self._compare(found, params, "call", method_id)
        if chance.randrange(COMPARE_EVERY) == 0:
            assert kinds_of(sent) <= {"return", "abort", "unimplemented"}
        for event in server.receive_eof():
            assert type(event) is Ended
        return outcome

    def _compare(self, found: Any, content: StructTuple | None, kind: str, method_id: int) -> None:
        """Hold our reading of params or results against pycapnp's."""
        if content is None:
            # Null, or refused before there was a content to look at.
            return
        message = content[0]
        segments = [bytes(message.buffer[first:last]) for first, last in message.bounds]
        method = PROBE.schema.methods[METHODS[method_id]]
        try:
            body = getattr(
                RPC.Message.from_segments(segments, traversal_limit_in_words=TRAVERSAL_WORDS), kind
            )
            payload, schema = (
                (body.params, method.param_type)
                if kind == "call"
                else (body.results, method.result_type)
            )
            theirs = read_theirs(payload.content, schema, method_id)
        except (capnp.KjException, UnicodeDecodeError, RuntimeError) as error:
            if not isinstance(found, MalformedMessage):
                self._tolerate(ONLY_PYCAPNP_REFUSES, str(error))
            self.outcomes["both refuse"] += 1
            return
        if isinstance(found, MalformedMessage):
            self._tolerate(ONLY_WE_REFUSE, str(found))
            return
        assert found == theirs, f"we read {found}, pycapnp {theirs}"
        self.outcomes["compared"] += 1

    def _tolerate(self, reasons: tuple[str, ...], text: str) -> None:
        reason = next((reason for reason in reasons if reason in text), None)
        assert reason is not None, f"only one of two refuses: {text[:300]}"
        self.outcomes[f"tolerated: {reason}"] += 1

    def _receive(self, frame: bytes, _original: bytes, chance: random.Random) -> str:
        client = ClientConnection(LIMITS)
        client.receive_data(encode_bootstrap_results(0, 0))
        # The ids that the frame may answer; 1 to 60 are what the recorded ones use.
        for _ in range(60):
            client.call(1, 2, EMPTY_STRUCT)
        client.data_to_send()
        place = chance.randrange(len(frame) + 1) if chance.random() < 0.5 else len(frame)
        outcome = "nothing"
        for part in (frame[:place], frame[place:]):
            for event in client.events(part):
                outcome = type(event).__name__
                if type(event) is Answered:
                    outcome = self._answered(event, chance)
                else:
                    assert type(event) in {Failed, Unreadable, BootstrapFailed, Ended}, event
        sent = client.data_to_send()
        if chance.randrange(COMPARE_EVERY) == 0:
            assert kinds_of(sent) <= {"return", "abort", "unimplemented", "finish"}
        return outcome

    def _answered(self, event: Answered, chance: random.Random) -> str:
        # Which method it was the answer does not tell: read it as either.
        method_id = chance.choice(list(SHAPES))
        found: Any
        try:
            found = read_ours(event.content, RESULTS, method_id)
        except MalformedMessage as error:
            found = error
        if chance.randrange(COMPARE_EVERY) == 0:
            self._compare(found, event.content, "return", method_id)
        return "refused" if isinstance(found, MalformedMessage) else "read"


def kinds_of(stream: bytes) -> set[str]:
    """Return the kinds of the messages in a stream, as pycapnp reads them."""
    found = set()
    for frame in split(stream):
        with RPC.Message.from_bytes(frame) as message:
            found.add(str(message.which()))
    return found


def _feed(
    server: ServerConnection,
    stream: bytes,
    seen: list[tuple[int, StructTuple | None, Any]],
    chance: random.Random,
) -> str:
    """Feed a server; answer its calls, and add to `seen` what was read of them."""
    inline = {(PROBE.schema.node.id, method_id): _Inline(method_id, seen) for method_id in SHAPES}
    # In half of the cases calls come as events, and the stream in two parts.
    methods = inline if chance.random() < 0.5 else {}
    place = chance.randrange(len(stream) + 1) if chance.random() < 0.5 else len(stream)
    outcome = "nothing"
    for part in (stream[:place], stream[place:]):
        for event in server.events(part, methods):
            outcome = type(event).__name__
            if type(event) is not Called:
                assert type(event) in {Answers, Cancelled, Ended}, event
                continue
            method = inline.get((event.interface_id, event.method_id))
            result = RemoteError("unknown") if method is None else method(event.params)
            if isinstance(result, RemoteError):
                server.send_exception(event.question_id, result)
            else:
                server.send_results(event.question_id, result)
    return outcome


class _Inline:
    """Reads the params of a call as a service would, and keeps what it found."""

    def __init__(self, method_id: int, seen: list[tuple[int, StructTuple | None, Any]]) -> None:
        self._method_id = method_id
        self._seen = seen

    def __call__(self, params: StructTuple | None) -> EncodedTuple | RemoteError:
        try:
            found = read_ours(params, PARAMS, self._method_id)
        except MalformedMessage as error:
            self._seen.append((self._method_id, params, error))
            return RemoteError(str(error))
        self._seen.append((self._method_id, params, found))
        return EMPTY_STRUCT


def main() -> None:
    """Run as many frames as FUZZ_FRAMES says, from FUZZ_SEED on, and print what came of them."""
    frames = int(os.environ.get("FUZZ_FRAMES", "100000"))
    seed = int(os.environ.get("FUZZ_SEED", "1"))
    fuzzer = Fuzzer(record(seed), seed)
    started_s = time.monotonic()
    fuzzer.run(frames)
    spent_s = time.monotonic() - started_s
    lines = [
        f"seed {seed}: {frames} frames in {spent_s:.1f} s, the slowest {fuzzer.slowest_s:.3f} s",
        *(f"{count:>9} {outcome}" for outcome, count in fuzzer.outcomes.most_common()),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
