"""What both halves of a Level 0 connection share: limits, events, the stream and its end.

The rules are in rpc.capnp; those that shape the code:

- A question's id is free again once its Return has come and its Finish has gone.
  A Return with `noFinishNeeded` counts as both; an old peer sends Finish all the same.
- A client calls the promise of its Bootstrap at once, and the capability itself
  once that has returned.
- A Finish for a call that still runs cancels it. The id, and the slot among the
  calls in flight, stay taken until the handler has ended and a Return has gone.
- What Level 0 does not know is echoed as `unimplemented`; what no peer may send
  ends the connection with an Abort that says why.

Neither half raises for what a peer sends: the last event says why a connection ended.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from capnp_rig.wire.encoding.frames import DEFAULT_LIMITS, FrameDecoder, FrameLimits
from capnp_rig.wire.encoding.pointers import Buffer, Message, StructTuple
from capnp_rig.wire.errors import EncodeError, MalformedMessage, RemoteProtocolError
from capnp_rig.wire.rpc.layouts import Layouts
from capnp_rig.wire.rpc.message_encoder import encode_abort, encode_unimplemented
from capnp_rig.wire.rpc.messages import Abort, Incoming, RemoteError, decode


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may hold; the defaults are those of the rig's server."""

    frame: FrameLimits = field(default=DEFAULT_LIMITS)
    max_calls_in_flight: int = 256
    max_answers: int = 1024
    # A batch of inline calls is interrupted after so many, or so many words of results.
    inline_calls: int = 256
    inline_words: int = 131_072


# A part of a message so large leaves as it is, in a write of several buffers: to join it with the
# others costs more. Over TCP on one machine the write itself takes so long that it makes no
# difference below 1 MiB; at 4 MiB a joined message takes 1.26 times as long.
LARGE_BYTES = 131_072


# --- events -----------------------------------------------------------------------------


class Answered:
    """A call of ours succeeded.

    `content` is where its results are, for a `StructCodec` to read, None where they are
    null; valid as long as the data that was fed.
    """

    # Like `Called` no dataclass: a frozen one takes four times as long to make.
    __slots__ = ("content", "question_id")

    def __init__(self, question_id: int, content: StructTuple | None) -> None:
        self.question_id = question_id
        self.content = content


@dataclass(frozen=True, slots=True)
class Failed:
    """A call of ours failed on the other side."""

    question_id: int
    error: RemoteError


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The answer to a call of ours cannot be read; the connection goes on."""

    question_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class BootstrapFailed:
    """The peer has no bootstrap interface for us: every call will fail likewise."""

    error: RemoteError


class Called:
    """The peer calls a method; answer with `send_results` or `send_exception`.

    `params` is where its parameters are, for a `StructCodec` to read, None where they are
    null; valid as long as the data that was fed.
    """

    __slots__ = ("interface_id", "method_id", "params", "question_id")

    def __init__(
        self, question_id: int, interface_id: int, method_id: int, params: StructTuple | None
    ) -> None:
        self.question_id = question_id
        self.interface_id = interface_id
        self.method_id = method_id
        self.params = params


class Answers(NamedTuple):
    """Many inline calls were answered: time to send, and to let others have their turn."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The peer no longer wants this call; it must still be answered, with anything."""

    question_id: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The connection is over: `error` is None where the peer ended it between two messages.

    A `RemoteError` is the peer's Abort; a `RemoteProtocolError` our reason for one,
    already among the data to send.
    """

    error: RemoteError | RemoteProtocolError | None


ClientEvent = Answered | Failed | Unreadable | BootstrapFailed | Ended
ServerEvent = Called | Answers | Cancelled | Ended


# --- what both halves share -------------------------------------------------------------


class Connection:
    """The stream: bytes in, bytes out, and how it ends."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._max_words = limits.frame.max_words
        self._large_words = min(self._max_words, LARGE_BYTES >> 3)
        self._decoder = FrameDecoder(limits.frame)
        self._layouts = Layouts()
        self._out: list[Buffer] = []
        # Whether there may be large parts in `_out`: then `buffers_to_send` spares a copy of them.
        self.has_large = False
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the connection is over; nothing more can be sent or received."""
        return self._ended

    @property
    def is_within_message(self) -> bool:
        """Whether a message is only partly here."""
        return self._decoder.pending_bytes > 0

    def data_to_send(self) -> bytes:
        """Return the bytes to send now, and forget them."""
        data = b"".join(self._out)
        self._out.clear()
        self.has_large = False
        return data

    def buffers_to_send(self) -> list[Buffer]:
        """Return the bytes to send now, in order, and forget them; large parts are not copied.

        Those show what a caller gave to be sent, or bytes that were fed. They must not change until
        they are sent.
        """
        out, buffers, first = self._out, list[Buffer](), 0
        for index in [at for at, part in enumerate(out) if len(part) >= LARGE_BYTES]:
            buffers += [b"".join(out[first:index]), out[index]]
            first = index + 1
        buffers.append(b"".join(out[first:]))
        out.clear()
        self.has_large = False
        return [buffer for buffer in buffers if buffer]

    def _decode(self, message: Message) -> Incoming:
        try:
            return decode(message)
        except MalformedMessage as error:
            raise RemoteProtocolError(str(error)) from error

    def receive_eof(self) -> list[Ended]:
        """Take the end of the stream; return `Ended` unless it came before."""
        if self._ended:
            return []
        self._ended = True
        if self.is_within_message:
            return [Ended(RemoteProtocolError("the peer closed within a message"))]
        return [Ended(None)]

    def _abort(self, error: RemoteProtocolError) -> Ended:
        self._ended = True
        self._out.append(encode_abort(RemoteError(str(error))))
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
        return f"message is too large: {words * 8} bytes, the limit is {self._max_words * 8}"
