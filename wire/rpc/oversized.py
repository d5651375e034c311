"""Messages over the limit: the call that one is about fails, and the connection goes on.

Where the first `stream.HEAD_BYTES` of such a frame hold its Call or Return, the rest is dropped as
it comes. Else the connection ends with an Abort that tells the limit: what an unknown message was
about nobody could be told.

The table of capabilities is not read. It often stands at the end of a message, and nothing in it
has to be given back one by one: the Return that answers a Call takes all of its params' back
(`releaseParamCaps`), and the Finish that follows a Return all of its results'
(`releaseResultCaps`); one that needs no Finish has none. Thus both are answered at once, before the
rest has come.

How long the rest may take is up to who has a clock: `Oversized` comes when one has begun, and
`bytes_to_skip` is 0 when it is over. The size is bounded by that of the largest limit there is.
"""

from capnp_rig.wire.encoding.pointers import Buffer, Message
from capnp_rig.wire.errors import FrameTooLarge, MalformedMessage
from capnp_rig.wire.rpc.calls import PendingCall
from capnp_rig.wire.rpc.deliveries import Deliveries
from capnp_rig.wire.rpc.events import Oversized
from capnp_rig.wire.rpc.messages import (
    Call,
    RemoteError,
    ResultsTo,
    Return,
    TooLarge,
    decode_beginning,
)


def read_beginning(error: FrameTooLarge, buffer: Buffer) -> Call | Return | None:
    """Return the Call or Return whose frame was refused, None where its beginning does not tell.

    A Call has no params and no table, and a Return has its reason as its outcome.
    """
    if not error.bounds:
        return None
    try:
        return decode_beginning(Message(buffer, error.bounds), TooLarge(str(error)))
    except MalformedMessage:
        return None


class OversizedMessages(Deliveries):
    """Fails the calls of messages that are over the limit."""

    __slots__ = ()

    def _refuse_oversized(self, error: FrameTooLarge, buffer: Buffer, at: int, size: int) -> int:
        """Fail the call of the message at `at`; return where the next one starts.

        What it brings about is in `_ready`.

        Raises:
            RemoteProtocolError: It is not known which call, or that is none.
        """
        message = read_beginning(error, buffer)
        if isinstance(message, Call):
            self._fail_oversized(message, RemoteError(str(error)), error)
        elif message is not None:
            self._take_return(message)
        else:
            raise error
        behind = self._decoder.skip(at, size, error.frame_bytes)
        if self._decoder.bytes_to_skip:
            self._ready.append(Oversized())
        return behind

    def _fail_oversized(self, message: Call, reason: RemoteError, error: FrameTooLarge) -> None:
        if message.results_to not in {ResultsTo.CALLER, ResultsTo.YOURSELF}:
            raise error
        self._begin_call(message.question_id)
        call = PendingCall(message.question_id, message.interface_id, message.method_id)
        call.is_redirected = message.results_to == ResultsTo.YOURSELF
        self._take_call(call, message.target, (), reason)
