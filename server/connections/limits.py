"""What a connection may hold, and how many of them this process may promise: pure arithmetic."""

from dataclasses import dataclass

# After a reason to close was sent: how long it may take until the peer closes too, and how much
# it may send until then (`server.connections.lingering`).
LINGER_S = 2.0
LINGER_BYTES = 67_108_864

# Listener, control sockets, log files, libraries.
_RESERVED_FDS = 64
# A worker starts with 25 of them; the supervisor has two for each worker.
_LEAST_FDS = 32

# Answers that wait for the peer to read: nothing more is decoded from here on; the peer is cut off
# when it reads none of them for so long, or when calls that run already bring them to so many, as
# Redis cuts off its subscribers.
WRITE_LIMIT_BYTES = 1_048_576
STALL_LIMIT_S = 10.0
UNREAD_LIMIT_BYTES = 33_554_432


@dataclass(frozen=True, slots=True)
class ConnectionLimit:
    """`connections` to admit, under the soft open-files limit `nofile` to set first."""

    connections: int
    nofile: int


def plan_connections(wanted: int, soft_nofile: int, hard_nofile: int) -> ConnectionLimit:
    """Return the limit for `wanted` connections: at most half of the open files allowed.

    The soft limit is raised as far as that needs and the hard limit allows, never lowered.
    """
    nofile = max(soft_nofile, min(2 * wanted + _RESERVED_FDS, hard_nofile))
    return ConnectionLimit(connections=max(1, min(wanted, nofile // 2)), nofile=nofile)


def least_nofile(workers: int) -> int:
    """Return the open-files limit below which a server does not start."""
    return _LEAST_FDS + 2 * workers
