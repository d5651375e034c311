"""Splits a stream of length-prefixed frames: pure.

A frame is the number of bytes that follow, as an unsigned 32-bit little-endian integer, and then
those bytes. The highest bit of the number tells another kind of frame, whose bytes are no text.
"""

from struct import Struct

_LENGTH = Struct("<I")
_HEADER_BYTES = _LENGTH.size
_IS_BINARY = 0x8000_0000


class BinaryPayload(bytes):
    """The payload of a frame whose bytes are no text."""

    __slots__ = ()


def frame(payload: bytes) -> bytes:
    """Return the frame of one payload."""
    return _LENGTH.pack(len(payload)) + payload


def binary_frame(payload: bytes | bytearray) -> bytes:
    """Return the frame of one payload that is no text."""
    return _LENGTH.pack(len(payload) | _IS_BINARY) + payload


class FrameReader:
    """Takes bytes, returns payloads. After `fault` is set it is of no further use.

    `fault` is a sentence about a frame that announces more than `limit_bytes`. Payloads that came
    before it are returned all the same, and nothing is kept of it.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.fault: str | None = None
        self._limit_bytes = limit_bytes
        # The frame that is only partly here, and how many bytes there must be before a look at
        # it can bring anything.
        self._kept = bytearray()
        self._needed = _HEADER_BYTES

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is only partly here."""
        return len(self._kept)

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """Return the payloads that `data` completes."""
        if self._kept:
            self._kept += data
            if len(self._kept) < self._needed:
                return []
            data, self._kept = memoryview(self._kept), bytearray()
        payloads, at = self._split(memoryview(data))
        if at < len(data) and self.fault is None:
            self._kept += data[at:]
        return payloads

    def _split(self, data: memoryview) -> tuple[list[bytes], int]:
        """Return the payloads, and where the first frame begins that is not all here."""
        payloads: list[bytes] = []
        at, size = 0, len(data)
        self._needed = _HEADER_BYTES
        while size - at >= _HEADER_BYTES:
            (length,) = _LENGTH.unpack_from(data, at)
            kind: type[bytes] = bytes
            if length & _IS_BINARY:
                length ^= _IS_BINARY
                kind = BinaryPayload
            if length > self._limit_bytes:
                self.fault = f"a frame may have at most {self._limit_bytes} bytes"
                break
            begin = at + _HEADER_BYTES
            end = begin + length
            if end > size:
                self._needed = end - at
                break
            payloads.append(kind(data[begin:end]))
            at = end
        return payloads, at
