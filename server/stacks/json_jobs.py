"""The two jobs of the stacks that speak JSON, from decoded params to what goes into the answer."""

from typing import Any

import pybase64

from capnp_rig.server.services.binary import reverse_bytes
from capnp_rig.server.services.reverse import Note, reverse


class UnfitError(Exception):
    """The params do not fit the method; the message begins with the member that is wrong."""


def reverse_content(params: Any, note: Note) -> str:
    """Return the text `content` reversed.

    Raises:
        UnfitError: There is no such text.
    """
    content = params.get("content") if type(params) is dict else None
    if type(content) is not str:
        raise UnfitError("content must be a string")
    return reverse(content, note)


def reverse_data(params: Any, note: Note) -> str:
    """Return the base64 of the bytes of `data`, whose base64 it is, in reverse order.

    Raises:
        UnfitError: It is no base64.
    """
    text = params.get("data") if type(params) is dict else None
    try:
        # The standard library's takes fifty times as long for large ones.
        data = pybase64.b64decode(text, validate=True)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise UnfitError("data must be base64") from error
    return pybase64.b64encode_as_string(reverse_bytes(data, note))
