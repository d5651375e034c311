"""Frames of HTTP/2 (RFC 9113), and header blocks (RFC 7541) by the library hpack.

hpack is exact, and takes 10 to 30 µs for a block. But what a connection says again and again it
says in indexes of the shared table alone, one byte each. A block of nothing else leaves the table
as it is, so it means the same until another block changes the table: until then it is looked up.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from struct import Struct

import hpack

from capnp_rig.objects.errors import ProtocolError

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE = 0x0, 0x1, 0x3, 0x4, 0x5
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x6, 0x7, 0x8, 0x9
ACK = END_STREAM = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 0x1, 0x2, 0x3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 0x4, 0x5
DEFAULT_WINDOW, DEFAULT_FRAME_BYTES = 65_535, 16_384
CANCEL = 0x8
_Error = IntEnum(
    "_Error",
    "NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED "
    "FRAME_SIZE_ERROR REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM "
    "INADEQUATE_SECURITY HTTP_1_1_REQUIRED",
    start=0,
)
# Where it begins, every field of a block that changes nothing has the highest bit set.
_INDEXED = 0x80
# A server whose blocks are all different shall not fill the memory.
_MOST_KNOWN = 1000

HEAD = Struct(">IBI")
_U32 = Struct(">I")
_SETTING = Struct(">HI")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame."""
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def head_before_stream(kind: int, flags: int, length: int) -> bytes:
    """Return the head of a frame up to where its stream stands."""
    return HEAD.pack(length << 8 | kind, flags, 0)[:5]


def settings_frame(settings: Mapping[int, int]) -> bytes:
    """Return a frame of settings."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in settings.items()))


def window_frame(stream: int, increment: int) -> bytes:
    """Return a frame that opens a window further."""
    return frame(WINDOW_UPDATE, 0, stream, _U32.pack(increment))


def read_settings(payload: bytes) -> dict[int, int]:
    """Return the settings of a frame.

    Raises:
        ProtocolError: Its length is wrong.
    """
    if len(payload) % _SETTING.size:
        raise ProtocolError("the server sent settings of a wrong length")
    return dict(_SETTING.iter_unpack(payload))


def read_u32(payload: bytes, at: int = 0) -> int:
    """Return a number of four bytes.

    Raises:
        ProtocolError: There are fewer.
    """
    if len(payload) < at + _U32.size:
        raise ProtocolError("the server sent a frame that is too short")
    number: int = _U32.unpack_from(payload, at)[0]
    return number


def error_name(code: int) -> str:
    """Return the name of an error code."""
    return _Error(code).name if code < len(_Error) else f"error {code}"


def content_of(flags: int, payload: bytes, *, has_priority: bool = False) -> bytes:
    """Return a payload without its padding, and without the priority in front.

    Raises:
        ProtocolError: It is shorter than these.
    """
    start, padding = 0, 0
    if flags & PADDED:
        start, padding = 1, payload[0] if payload else 0
    if has_priority and flags & HAS_PRIORITY:
        start += 5
    if len(payload) < start + padding:
        raise ProtocolError("the server sent a frame that is shorter than its padding")
    return payload[start : len(payload) - padding]


class RequestHeaders:
    """Encodes the headers of one connection's requests."""

    def __init__(self) -> None:
        self._encoder = hpack.Encoder()
        self._known: dict[int, tuple[bytes, bytes]] = {}

    def limit_table(self, size: int) -> None:
        """Keep to the size of the table that the server asks for."""
        self._encoder.header_table_size = min(size, 4096)
        self._known.clear()

    def encode(
        self, key: int, headers: Callable[[], Sequence[tuple[str, str]]]
    ) -> tuple[bytes, bytes]:
        """Return the head of a frame up to its stream, and its block.

        `headers` is asked for them where those of `key` are not known.
        """
        known = self._known.get(key)
        if known is not None:
            return known
        block = self._encoder.encode(headers())
        made = head_before_stream(HEADERS, END_HEADERS, len(block)), block
        if min(block) < _INDEXED:
            self._known.clear()
        else:
            self._known[key] = made
        return made


class ReplyHeaders:
    """Decodes the headers of one connection's replies."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()
        self._known: dict[bytes, dict[bytes, bytes]] = {}

    def decode(self, block: bytes) -> dict[bytes, bytes]:
        """Return the headers of a block, which is not to be changed.

        Raises:
            ProtocolError: It cannot be decoded.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        try:
            headers = dict(self._decoder.decode(block, raw=True))
        except hpack.HPACKError as error:
            raise ProtocolError(f"the server's headers cannot be read: {error}") from error
        if min(block, default=0) < _INDEXED or len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        else:
            self._known[block] = headers
        return headers
