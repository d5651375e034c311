"""What a client tells of the objects that it gives to a server, when one of their methods fails."""

import logging

from capnp_rig.objects.binding import ServiceError
from capnp_rig.wire.errors import MalformedMessage

_log = logging.getLogger("capnp_rig.client")


def explain(method: str, error: BaseException) -> str:
    """Return what the server may know of an exception; the rest goes to the log."""
    if isinstance(error, ServiceError):
        return str(error)
    if isinstance(error, (MalformedMessage, UnicodeDecodeError)):
        return f"bad parameters: {error}"
    _log.error("a callback failed: %s", method, exc_info=error)
    return f"internal error in {method}"
