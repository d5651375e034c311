"""How large the messages of a client may be."""

from functools import lru_cache

from capnp_rig.objects.errors import UsageError
from capnp_rig.wire.encoding.frames import MESSAGE_BYTES
from capnp_rig.wire.rpc.events import Limits

__all__ = ["MESSAGE_BYTES", "limits_of"]


@lru_cache(16)
def limits_of(max_message_bytes: int) -> Limits:
    """Return the limits of connections whose messages may have so many bytes.

    Raises:
        UsageError: It is not 64 KiB to 512 MiB.
    """
    if not isinstance(max_message_bytes, int):
        raise UsageError(f"max_message_bytes must be a number of bytes, not {max_message_bytes!r}")
    try:
        return Limits.of_message(
            max_message_bytes, "--max-message or max_message_bytes of the client"
        )
    except ValueError as error:
        raise UsageError(f"max_message_bytes: {error}") from error
