"""Where the frames of an HTTP/2 connection begin and end, for the time limits: pure.

The library that speaks HTTP/2 does not tell whether it waits for the rest of a frame.
"""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# RFC 9113, 4.1: a length of 24 bits, then type, flags and stream.
_HEAD_BYTES = 9
_LENGTH_BYTES = 3


class Http2Frames:
    """Follows the bytes that a client sends."""

    def __init__(self) -> None:
        self.received_bytes = 0
        # Where the frame or the request began that is only partly here.
        self.begun_at = 0
        self._head = b""
        # Of the frame whose head has come.
        self._to_come = 0

    @property
    def is_partial(self) -> bool:
        """Whether a frame is only partly here."""
        return bool(self._head or self._to_come)

    def begin(self, first: bytes) -> None:
        """Take the first bytes, which start with the preface."""
        self.received_bytes = self.begun_at = len(PREFACE)
        self.feed(first[len(PREFACE) :], is_within=False)

    def feed(self, data: bytes, *, is_within: bool) -> None:
        """Take received bytes; `is_within` tells that a request is only partly here before them."""
        if not is_within and not self.is_partial:
            self.begun_at = self.received_bytes
        self.received_bytes += len(data)
        at, size = 0, len(data)
        while at < size:
            step = min(self._to_come, size - at)
            at += step
            self._to_come -= step
            if self._to_come:
                return
            missing = _HEAD_BYTES - len(self._head)
            self._head += data[at : at + missing]
            at += missing
            if len(self._head) == _HEAD_BYTES:
                self._to_come = int.from_bytes(self._head[:_LENGTH_BYTES])
                self._head = b""
