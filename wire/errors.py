"""The errors of `wire`, by whose fault they are."""


class WireError(Exception):
    """The base of every error that `wire` raises."""


class MalformedMessage(WireError):
    """A message cannot be read: a pointer leaves its segment, a text is not UTF-8, a limit is hit.

    Met while reading the arguments of a call, it fails that call only; met in the
    protocol's own structs, it becomes a `RemoteProtocolError`.
    """


class InactiveMember(MalformedMessage):
    """An inactive member of a union was read: the sender chose another.

    `member` is the name of the one that was read, `active` that of the other, None where the
    schema does not know it.
    """

    def __init__(self, struct: str, member: str, active: str | None) -> None:
        self.member, self.active = member, active
        is_active = active or "one that this schema does not know"
        super().__init__(f"{struct}.{member} is not set: the active member is {is_active}")


class RemoteProtocolError(WireError):
    """The peer broke the protocol; the connection cannot go on.

    The text is the reason for the Abort message that is queued when this is raised.
    """


class FrameTooLarge(RemoteProtocolError):
    """The peer announced a message over the limit of this side.

    `bounds` are the segments of the part that was read, as far as it goes, and `frame_bytes` is
    what the whole frame takes. Without `bounds` nothing more can be read.
    """

    def __init__(
        self, reason: str, bounds: tuple[tuple[int, int], ...] = (), frame_bytes: int = 0
    ) -> None:
        super().__init__(reason)
        self.bounds = bounds
        self.frame_bytes = frame_bytes


class NotAFrame(RemoteProtocolError):
    """The received bytes do not start a message: they announce more segments than anybody accepts.

    `start` is their beginning, 16 bytes at most; `wire.encoding.foreign_protocols` may know it.
    """

    def __init__(self, reason: str, start: bytes) -> None:
        super().__init__(reason)
        self.start = start


class LocalProtocolError(WireError):
    """The caller of `wire` asked for what the connection's state does not allow."""


class ViewExpired(WireError):
    """A view of a call's params was read after the method had returned.

    The bytes that it showed belong to the next call. Copy what you keep, with `bytes()` or
    `to_dict()`, or make the method async: then the params stay valid.
    """


class EncodeError(WireError, ValueError):
    """A value does not fit its field or the message limit; nothing was queued."""


class NotAnInterface(WireError, TypeError):
    """What was given as an interface is not one; the message says what it is."""


class Disconnected(LocalProtocolError):
    """The connection has ended, and with it all that it led to."""


class UnusableCapability(LocalProtocolError):
    """A capability was released before, or belongs to another connection."""


class TableFull(EncodeError):
    """The connection holds as many capabilities or calls as its limits allow."""
