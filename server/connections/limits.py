"""What a connection may hold, and for how long."""

from capnp_rig.server.config import ConnectionLimits

# After a reason to close was sent: how long it may take until the peer closes too, how much it may
# send until then, and how fast it must read what was sent before, in bytes a second
# (`server.connections.lingering`).
LINGER_S = 2.0
LINGER_BYTES = 67_108_864
LINGER_RATE = 500

# Answers that wait for the peer to read: nothing more is decoded from here on; the peer is cut off
# when it reads none of them for so long, or when calls that run already bring them to so many, as
# Redis cuts off its subscribers.
WRITE_LIMIT_BYTES = 1_048_576
STALL_LIMIT_S = 10.0
UNREAD_LIMIT_BYTES = 33_554_432

# The rest of a message over the limit, whose call has failed, is dropped for so long.
SKIP_LIMIT_S = 10.0
SKIPPED_TOO_LONG = f"the rest of a message over the limit did not come within {SKIP_LIMIT_S:g} s"


def unread_limit_bytes(limits: ConnectionLimits) -> int:
    """Return how many bytes of answers may wait for the peer: two messages at least."""
    return max(UNREAD_LIMIT_BYTES, 2 * limits.max_message_bytes)
