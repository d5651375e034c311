"""What a peer may know of an exception: one line of text, no traceback, no path.

`explain` makes the text for both engines. pycapnp sends only exceptions: it sends what
`traceback.format_exception(type(e), e, e.__traceback__)` returns. So the exception that
`peer_error` makes hides its traceback behind a property, and its class is named after the message:
Python prints the name of the class, then its text, which is empty.
"""

import secrets
from contextlib import suppress
from types import TracebackType

import capnp

from capnp_rig.objects.binding import ServiceError
from capnp_rig.objects.call_context import current_call
from capnp_rig.server.logs.log import Log
from capnp_rig.wire.errors import MalformedMessage

MAX_TEXT_CHARS = 500
# Start and end of text, in ASCII.
_BEGIN, _END = "\x02", "\x03"
NOT_LOGGED = "internal error [not logged: there are too many like it]"


def explain(method: str, error: BaseException, log: Log) -> str:
    """Return what the peer of a failed call may know, and log the rest.

    `SystemExit` and the like are failures of the method, too: a method must not end the worker, in
    which other peers' calls run.
    """
    if isinstance(error, ServiceError):
        # The class may be the service's, and its text may raise anything.
        with suppress(BaseException):
            return cut(str(error))
    fault = _fault(error)
    if fault is not None:
        what = f"Bad parameters in a call of {method}"
        log.debug(what, kind=what, traceback=error)
        return f"bad parameters: {fault}"
    # It ties the peer's message to a line of our log. What failed may be the end of an object,
    # which is no call.
    context = current_call()
    number = secrets.token_hex(4) if context is None else context.call_id
    trace_id = None if context is None else context.trace_id
    traced: dict[str, str] = {} if trace_id is None else {"trace_id": trace_id}
    suffix = f", trace {trace_id}" if traced else ""
    written = log.error(
        f"internal error [id {number}] in {method}{suffix}",
        kind=f"internal error in {method}",
        error_id=number,
        traceback=error,
        **traced,
    )
    # The number must be in the log, or the peer would quote it in vain.
    return NOT_LOGGED if written is False else f"internal error [id {number}]"


def _fault(error: BaseException) -> str | None:
    """Return what is wrong with the parameters, or None where it is the service that failed."""
    if isinstance(error, MalformedMessage):
        return str(error)
    if isinstance(error, UnicodeDecodeError):
        return "text is not UTF-8"
    if isinstance(error, capnp.KjException):
        # A bad pointer or too large a message; KJ's own words hold paths.
        return "they cannot be read"
    return None


def cut(text: str) -> str:
    """Return `text` as it may travel: not too long, without what a C string cannot hold."""
    return text[:MAX_TEXT_CHARS].encode(errors="backslashreplace").decode().replace("\0", "\\x00")


class PeerError(Exception):
    """Raise it `from None`; build it with `peer_error`."""

    @property
    def __traceback__(self) -> TracebackType | None:
        return None

    @__traceback__.setter
    def __traceback__(self, _value: TracebackType | None) -> None:
        pass


def peer_error(text: str) -> PeerError:
    """Return the exception that sends `text`, cut if it is long, between two marks of ours.

    pycapnp and KJ put words of their own around it. `unmarked` finds it again.
    """
    safe = f"{_BEGIN}{cut(text)}{_END}"
    # Python prints no module for a class of builtins.
    kind = type("PeerError", (PeerError,), {"__qualname__": safe, "__module__": "builtins"})
    error: PeerError = kind()
    return error


def unmarked(sent: str) -> str:
    """Return the text that `peer_error` marked in what is `sent`; one of KJ's own as it is."""
    _, mark, marked = sent.partition(_BEGIN)
    return marked.rpartition(_END)[0] if mark else sent
