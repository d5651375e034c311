"""Texts on their way to a server and back, as all clients of the stacks need them."""

from typing import Any

from capnp_rig.objects.errors import ProtocolError
from capnp_rig.wire.errors import EncodeError


def utf8(text: str) -> bytes:
    """Return the bytes of a text.

    Raises:
        EncodeError: It holds a lone surrogate.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(f"the text is no valid Unicode: {error.reason}") from error


def read_text(value: Any, name: str) -> bytes:
    """Return the text in a decoded JSON answer.

    Raises:
        ProtocolError: It is not a text, or holds a lone surrogate.
    """
    if not isinstance(value, str):
        raise ProtocolError(f"the server's answer has no {name}")
    try:
        return utf8(value)
    except EncodeError as error:
        raise ProtocolError(f"the server's answer: {error}") from error
