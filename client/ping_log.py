"""What `client ping` prints, without its clock: a line for each ping, and what all took."""

import math
from statistics import median

from capnp_rig.client.bootstrap_ping import Reply
from capnp_rig.objects.errors import RemoteError


class PingLog:
    """The pings so far; `late` counts those without an answer, `error` is the last one's."""

    def __init__(self) -> None:
        self.late = 0
        self.error: RemoteError | None = None
        self._elapsed_us: list[float] = []

    @property
    def sent(self) -> int:
        """How many pings there were."""
        return len(self._elapsed_us) + self.late

    def replied(self, reply: Reply) -> str:
        """Take an answer; return its line."""
        elapsed_us = reply.elapsed_ns / 1000
        self._elapsed_us.append(elapsed_us)
        line = f"reply {self.sent} in {elapsed_us:.0f} µs"
        if reply.error is None:
            return line
        self.error = reply.error
        return f"{line}, an error"

    def missed(self, timeout_s: float) -> str:
        """Take note that no answer came in time; return the line that says so."""
        self.late += 1
        return f"no reply {self.sent} within {timeout_s:g} s"

    def summary(self) -> str:
        """Return how many were answered, and how long that took; p99 is the nearest rank."""
        times = sorted(self._elapsed_us)
        text = f"{len(times)} of {self.sent} answered"
        if not times:
            return text
        p99 = times[math.ceil(0.99 * len(times)) - 1]
        return (
            f"{text}: min {times[0]:.0f}, median {median(times):.0f}, p99 {p99:.0f}, "
            f"max {times[-1]:.0f} µs"
        )
