"""What can go wrong on the wire, split by whose fault it is."""


class WireError(Exception):
    """The base of every error that `wire` raises."""


class MalformedMessage(WireError):  # noqa: N818 - the field says "malformed message"
    """A message cannot be read: a pointer leaves its segment, a text is not UTF-8, a limit is hit.

    Met while reading the arguments of a call, it fails that call only; met in the
    protocol's own structs, it becomes a `RemoteProtocolError`.
    """


class RemoteProtocolError(WireError):
    """The peer broke the protocol; the connection cannot go on.

    The text is the reason for the Abort message that is queued when this is raised.
    """


class LocalProtocolError(WireError):
    """The caller of `wire` asked for what the connection's state does not allow."""


class ViewExpired(WireError):  # noqa: N818 - the field says "expired view"
    """A view of a call's params was read after the method had returned.

    The bytes that it showed belong to the next call. Copy what you keep, with `bytes()` or
    `to_dict()`, or make the method async: its params are its own.
    """


class EncodeError(WireError, ValueError):
    """A value does not fit its field or the message limit; nothing was queued."""
