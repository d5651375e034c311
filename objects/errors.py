"""What a call can end in besides its results.

    ClientError
    ├── Disconnected        the connection is gone; whether the call ran is unknown
    │   └── ConnectError    it never stood, so nothing ran
    ├── DeadlineExceeded    no answer in time; whether the call ran is unknown
    ├── RemoteError         the server answered with an exception
    │   ├── ResultsTooLarge     it answered, with results over the limit of this side
    │   └── Overloaded      it refused the call, or the whole connection before any call, for
    │                       lack of resources; the call did not run
    ├── ProtocolError       the server broke the protocol, or does not speak it
    └── UsedAfterFork       the connection belongs to the parent process; nothing was sent

Arguments that do not fit the schema or the message limit raise `wire.errors.EncodeError`, a timeout
out of range raises `UsageError`. Both are ValueErrors. They are raised before anything is sent and
leave the connection as it is.
"""

import copy

from capnp_rig.wire.encoding.foreign_protocols import recognise
from capnp_rig.wire.errors import FrameTooLarge, NotAFrame, RemoteProtocolError, WireError
from capnp_rig.wire.rpc.messages import ExceptionType, TooLarge
from capnp_rig.wire.rpc.messages import RemoteError as WireRemoteError


class ClientError(Exception):
    """The base of what the network or the server can do to a call.

    `did_not_run` is true where it is certain that the call did not run, and that it may be made
    again wherever it may be made once: nothing was sent, or the server refused to begin.
    `attempts` is how many a channel has made.
    """

    did_not_run = False
    attempts = 1


class Disconnected(ClientError):
    """The connection ended before the answer came: whether the call ran is unknown.

    `is_goodbye` is whether the server said that it ends in good order, as one does that is idle.
    """

    is_goodbye = False


class ConnectError(Disconnected):
    """No connection could be made, so no call was started."""

    did_not_run = True


class DeadlineExceeded(ClientError):
    """The answer did not come in time. The call is cancelled; whether it ran is unknown."""


class RemoteError(ClientError):
    """The server answered the call with an exception of this `type`."""

    def __init__(self, reason: str, type: ExceptionType = ExceptionType.FAILED) -> None:  # noqa: A002 - the schema's name
        super().__init__(reason)
        self.type = type


class Overloaded(RemoteError):
    """The server refused the call for lack of resources; it did not run.

    A server may also refuse the whole connection. Then this is what all its calls end in, and
    the client is of no further use: its `is_open` is false.
    """

    did_not_run = True


class ResultsTooLarge(RemoteError):
    """The results were over the limit of this side, and dropped: the call ran.

    The text names the limit and what raises it. Other calls of the connection are not affected.
    """


class ProtocolError(ClientError):
    """The server sent what the protocol does not allow; the connection is closed."""


class UsedAfterFork(ClientError):
    """The connection was made before a fork, in the parent, which alone may use it.

    Nothing was sent or received. Connect anew in the child.
    """

    did_not_run = True


class UsageError(ValueError):
    """An argument makes no sense. Nothing was sent; the connection is as it was."""


def given_up() -> DeadlineExceeded:
    """Return what a call ends in whose caller has stopped waiting for it."""
    return DeadlineExceeded("the call was given up")


def fresh(error: ClientError) -> ClientError:
    """Return a copy of `error` for another caller.

    Raising one object again and again would add to its traceback each time, and keep alive
    the frames of every caller.
    """
    return copy.copy(error)


def not_sent(error: ClientError) -> ClientError:
    """Return a copy of `error` for a call of which nothing was sent."""
    error = copy.copy(error)
    error.did_not_run = True
    return error


def remote_error(error: WireRemoteError) -> RemoteError:
    """Return the client's exception for one that came over the wire."""
    if isinstance(error, TooLarge):
        return ResultsTooLarge(error.reason)
    kind = Overloaded if error.type is ExceptionType.OVERLOADED else RemoteError
    return kind(error.reason, error.type)


def ending_error(
    reason: WireRemoteError | RemoteProtocolError | None, *, is_unheard: bool
) -> ClientError:
    """Return what the end of a connection means for the calls in flight, by its `Ended.error`.

    `is_unheard` is whether the server never answered our Bootstrap.
    """
    if reason is None:
        return Disconnected("the server closed the connection")
    if isinstance(reason, WireRemoteError):
        return abort_error(reason, is_unheard=is_unheard)
    return protocol_error(reason, is_unheard=is_unheard)


def abort_error(error: WireRemoteError, *, is_unheard: bool) -> ClientError:
    """Return what an Abort of the server means for the calls in flight.

    `is_unheard` is whether it never answered our Bootstrap. Such a server has given us nothing
    to call, so no call ran, and where it says that it is overloaded it may be asked again. Of
    one that did answer nobody knows what it had begun.
    """
    if is_unheard and error.type is ExceptionType.OVERLOADED:
        return Overloaded(error.reason, error.type)
    ending = Disconnected(f"the server ended the connection: {error.reason}")
    ending.is_goodbye = error.type is ExceptionType.DISCONNECTED
    return ending


def protocol_error(error: WireError, *, is_unheard: bool) -> ProtocolError:
    """Return the client's exception for what a server must not send; `is_unheard` as above."""
    if not is_unheard:
        if isinstance(error, FrameTooLarge):
            return ProtocolError(f"a message of the server is over our own limit: {error}")
        return ProtocolError(f"the server broke the protocol: {error}")
    foreign = recognise(error.start) if isinstance(error, NotAFrame) else None
    if foreign is not None:
        return ProtocolError(f"not a Cap'n Proto server: it speaks {foreign.value}")
    return ProtocolError(f"not a Cap'n Proto server, or a broken one: {error}")
