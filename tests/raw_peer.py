"""A peer that sends any bytes and reads frames with pycapnp, never with our own decoder."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import capnp
from running_server import Running

from capnp_rig.schema import load_rpc, message

RPC = load_rpc()
STREAM_ID: int = message.MessageStream.schema.node.id
READ = message.MessageStream.schema.methods["read"]
RESET = struct.pack("ii", 1, 0)


# --- frames ------------------------------------------------------------------------------


def words(*segment: int | bytes) -> bytes:
    """Return a frame of one segment; numbers are words, negative ones too."""
    return segments([segment])


def segments(parts: list[tuple[int | bytes, ...]]) -> bytes:
    """Return a frame of several segments."""
    bodies = [b"".join(map(_word, part)) for part in parts]
    table = struct.pack(
        f"<{len(bodies) + 1}I", len(bodies) - 1, *(len(body) // 8 for body in bodies)
    )
    return table + bytes(-len(table) & 7) + b"".join(bodies)


def _word(word: int | bytes) -> bytes:
    if isinstance(word, bytes):
        return word + bytes(-len(word) & 7)
    return (word & (2**64 - 1)).to_bytes(8, "little")


def to_struct(offset: int, data_words: int, pointers: int) -> int:
    return (offset & 0x3FFFFFFF) << 2 | data_words << 32 | pointers << 48


def to_list(offset: int, element: int, count: int) -> int:
    return 1 | (offset & 0x3FFFFFFF) << 2 | element << 32 | count << 35


def to_far(segment: int, position: int, *, double: bool = False) -> int:
    return 2 | double << 2 | position << 3 | segment << 32


def to_cap(index: int) -> int:
    return 3 | index << 32


def call_head(
    question_id: int, *, interface_id: int = STREAM_ID, method_id: int = 0
) -> tuple[int, ...]:
    """Return the words of a call to export 0 up to where the pointer to its params stands.

    That pointer, the word of the capability table and what they point to follow.
    """
    return (
        *(to_struct(0, 1, 1), 2, to_struct(0, 3, 3)),
        *(question_id | method_id << 32, interface_id, 0),
        *(to_struct(2, 1, 1), to_struct(3, 0, 2), 0),
        *(0, 0),
    )


def call_words(
    question_id: int, *content: int | bytes, interface_id: int = STREAM_ID, method_id: int = 0
) -> bytes:
    """Return a call whose params are these words, the first one the pointer to them.

    The second stands at offset 1 of it: between the two is the (null) table of capabilities.
    """
    pointer, *rest = content
    head = call_head(question_id, interface_id=interface_id, method_id=method_id)
    return words(*head, pointer, 0, *rest)


def read_words(question_id: int, *content: int | bytes) -> bytes:
    """Return a call of `read` whose text is these words, the first one the pointer to it."""
    return call_words(question_id, to_struct(1, 0, 1), to_struct(0, 0, 1), *content)


def encoded(build: Any) -> bytes:
    data: bytes = build.to_bytes()
    return data


def bootstrap(question_id: int = 0) -> bytes:
    build = RPC.Message.new_message()
    build.init("bootstrap").questionId = question_id
    return encoded(build)


def call_builder(
    question_id: int,
    *,
    export: int = 0,
    promise: int | None = None,
    path: tuple[int | None, ...] = (),
    interface_id: int = STREAM_ID,
    method_id: int = 0,
) -> Any:
    build = RPC.Message.new_message()
    call = build.init("call")
    call.questionId = question_id
    call.interfaceId = interface_id
    call.methodId = method_id
    if promise is None:
        call.target.importedCap = export
    else:
        answer = call.target.init("promisedAnswer")
        answer.questionId = promise
        # As every known peer does it, none where there is no path; None is a noop.
        for operation, index in zip(
            answer.init("transform", len(path)) if path else (), path, strict=True
        ):
            if index is not None:
                operation.getPointerField = index
    return build


def call(question_id: int, text: str | bytes | None = "abc", **target: Any) -> bytes:
    """Return a call of `read`; `text` None leaves the params null."""
    build = call_builder(question_id, **target)
    if text is not None:
        params = build.call.params.content.as_struct(READ.param_type)
        params.request.content = text
    return encoded(build)


def finish(question_id: int, *, release: bool = True) -> bytes:
    build = RPC.Message.new_message()
    body = build.init("finish")
    body.questionId = question_id
    body.releaseResultCaps = release
    body.requireEarlyCancellationWorkaround = False
    return encoded(build)


def release(export: int, count: int) -> bytes:
    build = RPC.Message.new_message()
    body = build.init("release")
    body.id = export
    body.referenceCount = count
    return encoded(build)


def empty(kind: str) -> bytes:
    """Return a message of that kind in which everything is left out."""
    build = RPC.Message.new_message()
    build.init(kind)
    return encoded(build)


def abort(kind: int, reason: str = "enough") -> bytes:
    """Return an Abort with an exception of any number."""
    build = RPC.Message.new_message()
    build.init("abort").reason = reason
    data = bytearray(encoded(build))
    # Table, root, tag, pointer to the exception; its type is at byte 4.
    struct.pack_into("<H", data, 8 + 24 + 4, kind)
    return bytes(data)


# --- what comes back ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """A frame as pycapnp reads it.

    `kind` is results, capability, exception, canceled, or the name of a message; `id` the
    answer's, or the question's in an echo; `text` the reason, or the name of what is echoed.
    """

    kind: str
    id: int = 0
    type: str = ""
    text: str = ""
    frame: bytes = b""
    releases_params: bool = True

    def results(self, schema: Any = READ.result_type) -> dict[str, Any]:
        assert self.kind == "results", self
        with RPC.Message.from_bytes(self.frame) as found:
            content = getattr(found, "return").results.content
            result: dict[str, Any] = content.as_struct(schema).to_dict(verbose=True)
            return result

    @property
    def chunk(self) -> bytes:
        found: bytes = self.results()["chunk"]
        return found


def decoded(frame: bytes) -> Reply:
    with RPC.Message.from_bytes(frame) as found:
        kind = str(found.which())
        body = getattr(found, kind)
        if kind == "abort":
            return Reply(kind, 0, _type(body), body.reason, frame)
        if kind == "unimplemented":
            inner = _which(body)
            asks = inner in {"call", "bootstrap", "provide", "accept", "join"}
            return Reply(kind, getattr(body, inner).questionId if asks else 0, "", inner, frame)
        if kind != "return":
            return Reply(kind, frame=frame)
        which = str(body.which())
        releases = bool(body.releaseParamCaps)
        if which == "exception":
            error = body.exception
            return Reply(which, body.answerId, _type(error), error.reason, frame, releases)
        if which == "results" and len(body.results.capTable):
            which = "capability"
        return Reply(which, body.answerId, "", "", frame, releases)


def _which(body: Any) -> str:
    try:
        return str(body.which())
    except capnp.KjException:
        # A number that rpc.capnp does not know.
        return "unknown"


def _type(error: Any) -> str:
    # pycapnp raises this for a number that its schema lacks.
    with suppress(RuntimeError):
        return str(error.type)
    return "unknown"


class RawPeer:
    """A blocking connection; every wait has a deadline."""

    def __init__(self, server: Running, *, timeout_s: float = 20.0, source: str = "") -> None:
        self._timeout_s = timeout_s
        self._received = bytearray()
        self.socket = socket.create_connection(
            (server.host, server.port), timeout_s, (source, 0) if source else None
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def open(self) -> Self:
        """Ask for the capability, as question 0."""
        self.send(bootstrap())
        assert self.receive().kind == "capability"
        return self

    def receive(self) -> Reply:
        """Return the next frame, or a reply of kind `eof` where the peer has closed."""
        end_s = time.monotonic() + self._timeout_s
        while (size := self._frame_bytes()) is None:
            self.socket.settimeout(max(end_s - time.monotonic(), 0.001))
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionResetError:
                return Reply("eof")
            if not data:
                return Reply("eof")
            self._received += data
        frame = bytes(self._received[:size])
        del self._received[:size]
        return decoded(frame)

    def replies(self) -> Iterator[Reply]:
        """Yield what comes until the peer closes, `eof` included."""
        while True:
            reply = self.receive()
            yield reply
            if reply.kind == "eof":
                return

    def until_eof(self) -> list[Reply]:
        return list(self.replies())

    def answer_to(self, question_id: int) -> Reply:
        """Return the Return for one question, skipping others; `eof` if none comes."""
        for reply in self.replies():
            if reply.kind in {"results", "capability", "exception", "canceled"}:
                if reply.id == question_id:
                    return reply
            elif reply.kind == "eof":
                return reply
        raise AssertionError("replies end with eof")

    def reset(self) -> None:
        """Close with an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.socket.close()

    def _frame_bytes(self) -> int | None:
        """Return the size of the frame at the front, or None while it is not all here."""
        data = self._received
        if len(data) < 8:
            return None
        (extra,) = struct.unpack_from("<I", data)
        assert extra < 512, "the server sent no frame"
        table = ((extra + 1) // 2 + 1) * 8
        if len(data) < table:
            return None
        size: int = table + 8 * sum(struct.unpack_from(f"<{extra + 1}I", data, 4))
        return size if len(data) >= size else None


@contextmanager
def raw_peer(server: Running, *, timeout_s: float = 20.0, source: str = "") -> Iterator[RawPeer]:
    """Connect, from an address of one's own if need be, and ask for the capability."""
    with RawPeer(server, timeout_s=timeout_s, source=source) as peer:
        yield peer.open()


def assert_serves(server: Running, workers: list[int]) -> None:
    """Check that the same workers live, and that each new connection is served."""
    for _ in workers:
        with raw_peer(server) as peer:
            peer.send(call(1, "still here"))
            reply = peer.receive()
            # A service of another interface says that it does not know this one.
            assert reply.type == "unimplemented" or reply.chunk == b"ereh llits", reply
    assert server.workers() == workers
