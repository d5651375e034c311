"""The stream of a connection: bytes in, bytes out, and how it ends."""

from typing import Any

from capnp_rig.wire.encoding.frames import FrameDecoder
from capnp_rig.wire.encoding.pointers import Buffer, Message
from capnp_rig.wire.errors import EncodeError, MalformedMessage, RemoteProtocolError
from capnp_rig.wire.rpc.events import Ended, Limits
from capnp_rig.wire.rpc.layouts import Layouts
from capnp_rig.wire.rpc.message_encoder import encode_abort, encode_unimplemented
from capnp_rig.wire.rpc.messages import Abort, ExceptionType, Incoming, RemoteError, decode

# A part of a message so large leaves as it is, in a write of several buffers: to join it with the
# others costs more. Over TCP on one machine the write itself takes so long that it makes no
# difference below 1 MiB; at 4 MiB a joined message takes 1.26 times as long.
LARGE_BYTES = 131_072
# Of a message over the limit so much is read: where it tells its call, that alone fails.
HEAD_BYTES = 4096


class Stream:
    """The stream: bytes in, bytes out, and how it ends."""

    __slots__ = (
        *(
            "_decoder",
            "_ended",
            "_large_words",
            "_layouts",
            "_limits",
            "_max_words",
            "_out",
            "garbage",
        ),
        "has_large",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._max_words = limits.frame.max_words
        self._large_words = min(self._max_words, LARGE_BYTES >> 3)
        self._decoder = FrameDecoder(limits.frame, HEAD_BYTES)
        self._layouts = Layouts()
        self._out: list[Buffer] = []
        # Whether there may be large parts in `_out`: then `buffers_to_send` spares a copy of them.
        self.has_large = False
        self._ended = False
        # What to do before bytes are sent. Any thread may append to it, so it is only ever popped.
        # A list, as many here: an empty deque takes ten times the memory.
        self.garbage: list[Any] = []

    @property
    def limits(self) -> Limits:
        """What the connection may hold."""
        return self._limits

    @property
    def ended(self) -> bool:
        """Whether the connection is over; nothing more can be sent or received."""
        return self._ended

    @property
    def is_within_message(self) -> bool:
        """Whether a message is only partly here."""
        return self._decoder.pending_bytes > 0

    @property
    def pending_bytes(self) -> int:
        """Bytes that were received and not decoded."""
        return self._decoder.pending_bytes

    @property
    def bytes_to_skip(self) -> int:
        """How much is still to come of a message that was refused for its size."""
        return self._decoder.bytes_to_skip

    def data_to_send(self) -> bytes:
        """Return the bytes to send now, and forget them."""
        if self.garbage:
            self._collect()
        data = b"".join(self._out)
        self._out.clear()
        self.has_large = False
        return data

    def buffers_to_send(self) -> list[Buffer]:
        """Return the bytes to send now, in order, and forget them; large parts are not copied.

        Those show what a caller gave to be sent, or bytes that were fed. They must not change until
        they are sent.
        """
        if self.garbage:
            self._collect()
        out, buffers, first = self._out, list[Buffer](), 0
        for index in [at for at, part in enumerate(out) if len(part) >= LARGE_BYTES]:
            buffers += [b"".join(out[first:index]), out[index]]
            first = index + 1
        buffers.append(b"".join(out[first:]))
        out.clear()
        self.has_large = False
        return [buffer for buffer in buffers if buffer]

    def _collect(self) -> None:
        """Do what is in `garbage`."""

    def _decode(self, message: Message) -> Incoming:
        try:
            return decode(message)
        except MalformedMessage as error:
            raise RemoteProtocolError(str(error)) from error

    def _eof(self) -> Ended:
        self._ended = True
        if self.is_within_message:
            return Ended(RemoteProtocolError("the peer closed within a message"))
        return Ended(None)

    def _abort(
        self, error: RemoteProtocolError, kind: ExceptionType = ExceptionType.FAILED
    ) -> Ended:
        self._ended = True
        self._out.append(encode_abort(RemoteError(str(error), kind)))
        return Ended(error)

    def _aborted(self, message: Abort) -> Ended:
        self._ended = True
        return Ended(message.error)

    def _echo_unimplemented(self, message: Message) -> None:
        # An echo of several segments would need its far pointers moved; the spec asks for
        # an echo only so that the sender can release what it sent, and an empty one
        # tells it as much about messages that we never provoke.
        if len(message.bounds) == 1:
            self._out.append(encode_unimplemented(message))

    def _take_large(self, words: int) -> None:
        """Take note that a message of more than `_large_words` is queued.

        Raises:
            EncodeError: It is over the frame limit.
        """
        if words > self._max_words:
            raise EncodeError(self._too_large(words))
        self.has_large = True

    def _too_large(self, words: int) -> str:
        return self._limits.frame.too_large(words)
