"""What a connection tells its owner, and what it may hold.

An event that brings params or results may bring capabilities: they are in the `capabilities` of
its message (`pointers.Message`), which has them only then. Each belongs to whoever takes the event,
to be released once.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from capnp_rig.wire.encoding.frames import DEFAULT_LIMITS, FrameLimits
from capnp_rig.wire.encoding.pointers import StructTuple
from capnp_rig.wire.errors import RemoteProtocolError
from capnp_rig.wire.rpc.messages import RemoteError


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may hold; the defaults are those of the rig's server."""

    frame: FrameLimits = field(default=DEFAULT_LIMITS)
    max_calls_in_flight: int = 256
    # What a refusal of one more adds, such as how to set this limit.
    in_flight_note: str = ""
    max_answers: int = 1024
    # A batch of inline calls is interrupted after so many, or so many words of results.
    inline_calls: int = 256
    inline_words: int = 131_072
    # Our capabilities that the peer holds, and the peer's that we hold.
    max_exports: int = 65_536
    max_imports: int = 65_536
    max_questions: int = 65_536
    # Calls that wait for one answer, or for one promise.
    max_pipelined: int = 256
    # The params of all calls that wait, and the results that wait for their Finish.
    max_waiting_bytes: int = 16_777_216
    # The params of calls that run, for who runs them: a connection only has the limit.
    max_params_bytes: int = 8_388_608

    @classmethod
    def of_message(cls, max_message_bytes: int, raised_by: str, **more: Any) -> Self:
        """Return limits for messages of up to so many bytes, and what waits for two at least.

        `raised_by` names what sets that.

        Raises:
            ValueError: It is not 64 KiB to 512 MiB.
        """
        return cls(
            frame=FrameLimits.of_message(max_message_bytes, raised_by),
            max_waiting_bytes=max(cls().max_waiting_bytes, 2 * max_message_bytes),
            max_params_bytes=max(cls().max_params_bytes, 2 * max_message_bytes),
            **more,
        )


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
    """A method of an object of ours is called; answer with `send_results` or `send_exception`.

    `params` is where its parameters are, for a `StructCodec` to read, None where they are
    null; valid as long as the data that was fed. `target` is the object. The `question_id` of a
    call that was made on this side is negative.
    """

    __slots__ = ("interface_id", "method_id", "params", "question_id", "target")

    def __init__(
        self,
        question_id: int,
        interface_id: int,
        method_id: int,
        params: StructTuple | None,
        target: Any = None,
    ) -> None:
        self.question_id = question_id
        self.interface_id = interface_id
        self.method_id = method_id
        self.params = params
        self.target = target


class Answers(NamedTuple):
    """Many inline calls were answered: time to send, and to let others have their turn."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The caller no longer wants this call; it must still be answered, with anything."""

    question_id: int


class Oversized(NamedTuple):
    """A message over the limit was refused, and its rest is dropped while `bytes_to_skip`."""


class Released(NamedTuple):
    """Nothing on this connection refers any more to an object that was hosted.

    Comes once for each time that it was hosted, at the latest with the end of the connection; for
    the bootstrap interface not at all.
    """

    target: Any


@dataclass(frozen=True, slots=True)
class Ended:
    """The connection is over: `error` is None where the peer ended it between two messages.

    A `RemoteError` is the peer's Abort; a `RemoteProtocolError` our reason for one,
    already among the data to send.
    """

    error: RemoteError | RemoteProtocolError | None


ClientEvent = Answered | Failed | Unreadable | BootstrapFailed | Ended
ServerEvent = Called | Answers | Cancelled | Ended | Oversized
Event = ClientEvent | ServerEvent | Released
