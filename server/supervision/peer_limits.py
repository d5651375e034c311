"""What one peer may take of the server's connections: a pure policy.

A peer is what a quarantine refuses, too: an address without its port, or the user of a Unix socket.
"""

from capnp_rig.server.config import ConnectionLimits

# Peers whose buckets are kept. Whoever has a network of IPv6 has more addresses than could ever be
# kept, and must not fill our memory with them, nor make each connection a walk through all.
_MOST_BUCKETS = 65_536


class RateLimit:
    """So many events a second of each peer, and at once as many as in a second; one at least."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._room = max(rate, 1.0)
        # What is left of each peer's bucket, and when that was so; the latest comes last.
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, peer: str, now_s: float) -> bool:
        """Count one event; return False, and count nothing, where it is one too many."""
        buckets = self._buckets
        left, before_s = buckets.pop(peer, (self._room, now_s))
        left = min(self._room, left + (now_s - before_s) * self._rate)
        allowed = left >= 1
        buckets[peer] = left - allowed, now_s
        if len(buckets) > _MOST_BUCKETS:
            # The one that has refilled for longest.
            del buckets[next(iter(buckets))]
        return allowed


class PeerLimits:
    """The connections that a peer may have, and how fast it may make them; 0 is no limit."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._most = limits.max_connections_per_peer
        self._rate = limits.max_connect_rate_per_peer
        self._connects = RateLimit(self._rate)

    @property
    def counts(self) -> bool:
        """Whether the number of a peer's connections matters."""
        return self._most > 0

    def refusal(self, peer: str, connections: int, now_s: float) -> str | None:
        """Return why a new connection of a peer, which has so many, is refused; None if it is not.

        One that is not is counted.
        """
        if self._most and connections >= self._most:
            return f"{self._most} connections of {peer} are open (--max-connections-per-peer)"
        if self._rate and not self._connects.take(peer, now_s):
            return (
                f"more than {self._rate:g} connections a second of {peer} "
                "(--max-connect-rate-per-peer)"
            )
        return None
