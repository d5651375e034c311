"""The exceptions that pycapnp may send to a peer: one line of text, no traceback, no path.

pycapnp sends what `traceback.format_exception(type(e), e, e.__traceback__)` returns. So the
exception hides its traceback behind a property, and its class is named after the message, because
Python prints the class's name, then the (here empty) text.
"""

import secrets
from types import TracebackType

MAX_TEXT_CHARS = 500


class PeerError(Exception):
    """Raise it `from None`; build it with `peer_error`."""

    @property
    def __traceback__(self) -> TracebackType | None:
        return None

    @__traceback__.setter
    def __traceback__(self, _value: TracebackType | None) -> None:
        pass


def peer_error(text: str) -> PeerError:
    """Return the exception that shows the peer exactly `text`, cut if it is long.

    What UTF-8 or a C string cannot hold is written out.
    """
    safe = text[:MAX_TEXT_CHARS].encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    # Python prints no module for a class of builtins.
    kind = type("PeerError", (PeerError,), {"__qualname__": safe, "__module__": "builtins"})
    error: PeerError = kind()
    return error


def error_id() -> str:
    """Return a new number that ties a peer's message to a line of our log."""
    return secrets.token_hex(4)
