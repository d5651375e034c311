"""The servers' halves of the stacks beside capnp, without sockets: bytes in, bytes out."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, Protocol

import h2.config
import h2.connection
import h2.events
import h2.settings

from capnp_rig.loadtest.workload import BINARY
from capnp_rig.server.stacks.length_frames import FrameReader, frame

Reply = Callable[[bytes], bytes]


class Peer(Protocol):
    """Takes what a client sends and returns what comes back."""

    def feed(self, data: bytes) -> bytes: ...


def text_backwards(payload: bytes) -> bytes:
    return payload.decode()[::-1].encode()


def backwards(kind: str) -> Reply:
    return (lambda payload: payload[::-1]) if kind == BINARY else text_backwards


class EchoPeer:
    def __init__(self, reply: Reply, _kind: str) -> None:
        self._reply = reply

    def feed(self, data: bytes) -> bytes:
        return self._reply(data)


class FramePeer:
    def __init__(self, reply: Reply, kind: str) -> None:
        self._reply = reply
        self._flag = 0x80000000 if kind == BINARY else 0
        self._reader = FrameReader(1 << 24)

    def feed(self, data: bytes) -> bytes:
        out = b""
        while data:
            word = int.from_bytes(data[:4], "little")
            assert word & 0x80000000 == self._flag
            size = 4 + (word & 0x7FFFFFFF)
            answer = frame(self._reply(data[4:size]))
            out += (int.from_bytes(answer[:4], "little") | self._flag).to_bytes(4, "little")
            out += answer[4:]
            data = data[size:]
        return out


def read_json(text: str, kind: str) -> bytes:
    return b64decode(text, validate=True) if kind == BINARY else text.encode()


def write_json(payload: bytes, kind: str) -> str:
    return b64encode(payload).decode() if kind == BINARY else payload.decode()


class JsonPeer:
    """`spaces` makes the answers other bytes that mean the same."""

    def __init__(self, reply: Reply, kind: str, *, spaces: bool = False) -> None:
        self._reply, self._kind = reply, kind
        self._separators = (", ", ": ") if spaces else (",", ":")

    def feed(self, data: bytes) -> bytes:
        assert not data or data.endswith(b"\n")
        return b"".join(self.answer(json.loads(line)) for line in data.splitlines())

    def answer(self, call: dict[str, Any]) -> bytes:
        method, name = ("reverse_bytes", "data") if self._kind == BINARY else ("read", "content")
        assert call["method"] == method
        payload = self._reply(read_json(call["params"][name], self._kind))
        answer = {"id": call["id"], "result": write_json(payload, self._kind)}
        text = json.dumps(answer, ensure_ascii=False, separators=self._separators)
        return text.encode() + b"\n"


class HttpAnswers:
    """What both versions of HTTP answer."""

    def __init__(self, reply: Reply, kind: str) -> None:
        self._reply, self._kind = reply, kind

    def answer(self, path: str, body: bytes) -> bytes:
        is_binary = self._kind == BINARY
        assert path == ("/reverse-bytes" if is_binary else "/reverse")
        request = json.loads(body)
        payload = self._reply(read_json(request["data" if is_binary else "content"], self._kind))
        name = "data" if is_binary else "chunk"
        answer = {name: write_json(payload, self._kind)}
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


class Http1Peer(HttpAnswers):
    """`headers` are put into each head; `{n}` in them counts."""

    def __init__(self, reply: Reply, kind: str, *, headers: str = "") -> None:
        super().__init__(reply, kind)
        self._headers = headers
        self._count = 0

    def feed(self, data: bytes) -> bytes:
        out = b""
        while data:
            head, _, rest = data.partition(b"\r\n\r\n")
            request, *lines = head.decode().split("\r\n")
            headers = dict(line.lower().split(": ") for line in lines)
            assert headers["host"] == "server:1"
            size = int(headers["content-length"])
            method, path, version = request.split(" ")
            assert (method, version) == ("POST", "HTTP/1.1")
            out += self.respond(200, self.answer(path, rest[:size]))
            data = rest[size:]
        return out

    def respond(self, status: int, body: bytes) -> bytes:
        self._count += 1
        extra = self._headers.replace("{n}", str(self._count))
        head = f"HTTP/1.1 {status} Whatever\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


class H2Server:
    """A server's connection by the library h2; subclasses answer requests.

    `settings` are its own; `hold` keeps it from opening its windows.
    """

    def __init__(self, settings: dict[h2.settings.SettingCodes, int] | None = None) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        if settings:
            self.h2.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self.h2.initiate_connection()
        self.requests: dict[int, tuple[dict[str, str], bytearray]] = {}
        self.hold = False
        self.held: list[tuple[int, int]] = []
        self.events: list[h2.events.Event] = []

    def feed(self, data: bytes) -> bytes:
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, h2.events.RequestReceived):
                self.requests[event.stream_id] = dict(event.headers), bytearray()  # type: ignore[arg-type]
            elif isinstance(event, h2.events.DataReceived):
                self.requests[event.stream_id][1].extend(event.data)
                self.held.append((event.flow_controlled_length, event.stream_id))
            elif isinstance(event, h2.events.StreamEnded):
                self.respond(event.stream_id, *self.requests.pop(event.stream_id))
        if not self.hold:
            self.open_windows()
        return self.h2.data_to_send()

    def open_windows(self) -> None:
        for size, stream in self.held:
            self.h2.acknowledge_received_data(size, stream)
        self.held.clear()

    def respond(self, stream: int, headers: dict[str, str], body: bytearray) -> None:
        raise NotImplementedError

    def send_body(self, stream: int, body: bytes, *, end: bool, pad: int | None = None) -> None:
        size = self.h2.max_outbound_frame_size - 300
        for at in range(0, len(body) or 1, size):
            last = at + size >= len(body)
            self.h2.send_data(stream, body[at : at + size], end_stream=end and last, pad_length=pad)


class Http2Peer(H2Server):
    def __init__(self, reply: Reply, kind: str, **more: Any) -> None:
        super().__init__(**more)
        self._answers = HttpAnswers(reply, kind)
        self.status = "200"
        self.more_headers: list[tuple[str, str]] = []
        self.pad: int | None = None

    def respond(self, stream: int, headers: dict[str, str], body: bytearray) -> None:
        assert headers[":method"] == "POST"
        assert headers[":authority"] == "server:1"
        assert headers["content-length"] == str(len(body))
        answer = self._answers.answer(headers[":path"], bytes(body))
        length = ("content-length", str(len(answer)))
        self.h2.send_headers(stream, [(":status", self.status), length, *self.more_headers])
        self.send_body(stream, answer, end=True, pad=self.pad)


class GrpcPeer(H2Server):
    """`trailers` end each answer; `trailers_only` is an answer without any of its `messages`."""

    def __init__(self, reply: Reply, kind: str, **more: Any) -> None:
        super().__init__(**more)
        self._reply = reply
        self._path = "ReverseBytes" if kind == BINARY else "Read"
        self.trailers = [("grpc-status", "0")]
        self.trailers_only = False
        self.messages = 1

    def respond(self, stream: int, headers: dict[str, str], body: bytearray) -> None:
        from google.protobuf.wrappers_pb2 import BytesValue

        assert headers[":path"] == f"/capnp_rig.MessageStream/{self._path}"
        assert (headers["te"], headers["content-type"]) == ("trailers", "application/grpc")
        assert body[0] == 0
        assert int.from_bytes(body[1:5], "big") == len(body) - 5
        head = [(":status", "200"), ("content-type", "application/grpc")]
        if self.trailers_only:
            self.h2.send_headers(stream, [*head, *self.trailers], end_stream=True)
            return
        # One field of bytes, number 1, as in both of our messages.
        payload = BytesValue.FromString(bytes(body[5:])).value
        message = BytesValue(value=self._reply(payload)).SerializeToString()
        self.h2.send_headers(stream, head)
        framed = b"\0" + len(message).to_bytes(4, "big") + message
        self.send_body(stream, framed * self.messages, end=False)
        self.h2.send_headers(stream, self.trailers, end_stream=True)


PEERS: dict[str, Callable[..., Any]] = {
    "echo": EchoPeer,
    "json": JsonPeer,
    "http1": Http1Peer,
    "http2": Http2Peer,
    "grpc": GrpcPeer,
    "selectors": FramePeer,
}
