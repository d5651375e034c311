"""How many connections this process may promise: pure arithmetic on the open-files limit."""

from dataclasses import dataclass

# Listener, control sockets, log files, libraries.
_RESERVED_FDS = 64
# A worker starts with 25 of them; the supervisor has two for each worker.
_LEAST_FDS = 32


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
