"""What the clients have in common where a server calls objects that they gave it."""

import logging

from capnp_rig.objects.binding import ServiceError
from capnp_rig.wire.errors import MalformedMessage
from capnp_rig.wire.rpc.events import Limits

# So many bytes of answers may wait for a server that reads none: what 256 calls with 1 MiB each
# have. A server that calls and never reads would take all memory.
MOST_UNREAD_BYTES = 268_435_456
LEFT_UNREAD = "the server calls, and reads no answers"


def most_unread_bytes(limits: Limits) -> int:
    """Return how many bytes of answers may wait: at least two of the largest."""
    return max(MOST_UNREAD_BYTES, 16 * limits.frame.max_words)


_log = logging.getLogger("capnp_rig.client")


def explain(method: str, error: BaseException) -> str:
    """Return what the server may know of an exception; the rest goes to the log."""
    if isinstance(error, ServiceError):
        return str(error)
    if isinstance(error, (MalformedMessage, UnicodeDecodeError)):
        return f"bad parameters: {error}"
    _log.error("a callback failed: %s", method, exc_info=error)
    return f"internal error in {method}"
