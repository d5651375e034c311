"""The two protocols that travel on HTTP/2: JSON over HTTP, and gRPC.

``server/stacks/http_server.py`` and ``server/stacks/grpc_server.py`` have the formats. A gRPC
message is a byte, which is 0 unless it is compressed, its length in four bytes, and protobuf: here
one field of bytes or text.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum

from capnp_rig.loadtest.protocols.exchange import Bytes
from capnp_rig.loadtest.protocols.http1_stack import JsonBody
from capnp_rig.loadtest.protocols.payloads import Payload
from capnp_rig.loadtest.stats.failures import WrongReply
from capnp_rig.loadtest.workload.bodies import WRONG_REPLY
from capnp_rig.objects.errors import ProtocolError, RemoteError

_STATUS, _GRPC_STATUS, _GRPC_MESSAGE = b":status", b"grpc-status", b"grpc-message"
_OK, _GRPC_OK = b"200", b"0"
# The first field of a message, of the kind that has a length.
_FIELD = b"\x0a"
_Status = IntEnum(
    "_Status",
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS "
    "PERMISSION_DENIED RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED "
    "INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED",
    start=0,
)


class HttpDialect:
    """Posts `body` to the server called `authority`."""

    def __init__(self, body: JsonBody, authority: str) -> None:
        self._body, self._authority = body, authority
        self.request, self.reply = body.request, body.reply

    def headers(self, body_bytes: int) -> Sequence[tuple[str, str]]:
        """Return the headers of a request."""
        return (
            (":method", "POST"),
            (":path", self._body.path),
            (":scheme", "http"),
            (":authority", self._authority),
            ("content-type", "application/json"),
            ("content-length", str(body_bytes)),
        )

    def key(self, body_bytes: int) -> int:
        """Return the length, which stands in the headers."""
        return body_bytes

    def judge(
        self, headers: Mapping[bytes, bytes], payload: Payload, body: Bytes, *, is_expected: bool
    ) -> Exception | None:
        """Return what is wrong with an answer, or None."""
        status = headers.get(_STATUS, b"")
        if is_expected and status == _OK:
            return None
        if not status.isdigit():
            return ProtocolError("the reply has no status")
        return self._body.judge(int(status), payload, body)


class GrpcDialect:
    """Calls the method at `path` of the server called `authority`."""

    def __init__(self, path: str, authority: str) -> None:
        self._headers = (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "capnp-rig"),
        )

    def headers(self, body_bytes: int) -> Sequence[tuple[str, str]]:
        """Return the headers, which are the same for all requests."""
        return self._headers

    def key(self, body_bytes: int) -> int:
        """Return the same for all."""
        return 0

    def request(self, payload: Payload) -> tuple[bytes, ...]:
        """Return a message of the payload."""
        return _message(payload.request)

    def reply(self, payload: Payload) -> tuple[bytes, ...]:
        """Return a message of the right answer."""
        return _message(payload.reply)

    def judge(
        self,
        headers: Mapping[bytes, bytes],
        payload: Payload,
        body: Bytes,
        *,
        is_expected: bool,
    ) -> Exception | None:
        """Return what is wrong with an answer, or None."""
        status = headers.get(_GRPC_STATUS)
        if status != _GRPC_OK or headers.get(_STATUS) != _OK:
            return _refusal(headers)
        return None if is_expected else WrongReply(WRONG_REPLY)


def _refusal(headers: Mapping[bytes, bytes]) -> Exception:
    status, http = headers.get(_GRPC_STATUS, b""), headers.get(_STATUS, b"")
    if http != _OK:
        return RemoteError(f"HTTP status {http.decode(errors='replace')}")
    if not status.isdigit():
        return ProtocolError("the reply has no gRPC status")
    number = int(status)
    name = _Status(number).name if number < len(_Status) else str(number)
    said = headers.get(_GRPC_MESSAGE, b"no reason given").decode(errors="replace")
    return RemoteError(f"gRPC status {name}: {said}")


def _message(parts: tuple[bytes, bytes]) -> tuple[bytes, ...]:
    first, second = parts
    field = _FIELD + _varint(len(first) + len(second))
    length = len(field) + len(first) + len(second)
    return (b"\0" + length.to_bytes(4, "big") + field, first, second)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
