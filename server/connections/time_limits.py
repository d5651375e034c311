"""When a connection has taken too long: pure decisions, for every stack.

A connection is looked at now and then (`server.connections.sweeper`), and not at each read. What it
tells of itself is its `Progress`: how many bytes have come, and where among them the message began
that is only partly here. The same beginning in two looks is the same message, so a peer that sends
a byte now and then does not pass for one that sends messages. The rules:

- The first message must be whole within `first_frame_timeout_s`, and a second more for each
  `min_rate` bytes that have come, at most four times as long in all.
- A later message must bring `min_rate` bytes a second, over each `WINDOW_S`.
- A connection on which nothing comes for `idle_timeout_s` is idle.
- A peer for whose reading we wait must take something within `STALL_LIMIT_S`.
- One that is older than `max_age_s` ends in a quiet moment. After `GRACE_S` more, nothing is read
  from it any more, and it ends when the calls in flight have.

Time that the peer waits for us does not count: calls in flight, a connection that we do not read
from. What a connection holds does not count either: one that only has capabilities is idle. A limit
of 0 does not hold.

A look comes late, never early: what is decided to be too slow was at least as slow as the limit.
"""

import random
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.connections.limits import STALL_LIMIT_S

# Apache's reqtimeout: 20 to 40 s for a head, and 500 bytes a second.
WINDOW_S = 10.0
_FIRST_FRAME_FACTOR = 4
# An old connection ends when nothing has come for so long, and after this grace in any case.
QUIET_S = 0.2
GRACE_S = 10.0
_AGE_JITTER = 0.1
_LEAST_S = 0.05


class Overdue(Enum):
    """Which limit a connection has passed."""

    FIRST_FRAME = "first-frame"
    SLOW_FRAME = "slow-frame"
    STALLED = "stalled"
    IDLE = "idle"
    AGE = "age"

    @property
    def is_fault(self) -> bool:
        """Whether the peer did wrong; otherwise the connection ends as it should."""
        return self not in (Overdue.IDLE, Overdue.AGE)

    def reason(self, limits: ConnectionLimits) -> str:
        """Return why the connection ends, in words for its peer."""
        match self:
            case Overdue.FIRST_FRAME:
                limit = f"--first-frame-timeout {limits.first_frame_timeout_s:g}"
                return f"no whole message came in time ({limit})"
            case Overdue.SLOW_FRAME:
                return f"a message came too slowly (--min-rate {limits.min_rate})"
            case Overdue.STALLED:
                return f"the peer read none of its replies for {STALL_LIMIT_S:g} s"
            case Overdue.IDLE:
                return f"nothing came for long (--idle-timeout {limits.idle_timeout_s:g})"
            case Overdue.AGE:
                return f"the connection is old (--max-age {limits.max_age_s:g})"


class Progress(NamedTuple):
    """What has come on a connection.

    `begun_at` says after how many of the `received_bytes` the latest message began, 0 as long as
    the first is not whole; it differs between any two messages. `is_within` tells that this message
    is only partly here, `is_busy` that the peer waits for us. `unread_bytes` are those of answers,
    while we read nothing more because of them; a stack that watches them by itself says 0.
    """

    received_bytes: int
    begun_at: int
    is_within: bool
    is_busy: bool
    unread_bytes: int = 0


class ConnectionClock:
    """The time limits of one connection."""

    __slots__ = (
        *("_begun_at", "_came_bytes", "_came_s", "_ends_s", "_limits", "_opened_s"),
        *("_is_within", "_received_bytes", "_since_s", "_unread_bytes"),
    )

    def __init__(
        self,
        limits: ConnectionLimits,
        now_s: float,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Begin; `uniform` returns a random number of a range."""
        self._limits = limits
        self._opened_s = now_s
        # Connections that came together are not to end together.
        age_s = limits.max_age_s * uniform(1 - _AGE_JITTER, 1 + _AGE_JITTER)
        self._ends_s = now_s + age_s if age_s else float("inf")
        # What the latest look saw that was something new, and when. For a message that is partly
        # here the window begins there.
        self._since_s = now_s
        self._received_bytes = 0
        self._begun_at = 0
        self._is_within = False
        self._unread_bytes = 0
        # How much had come, and when a look first saw so much: that may be within a window.
        self._came_s = now_s
        self._came_bytes = 0

    @property
    def first_look_s(self) -> float:
        """When to look for the first time."""
        patience_s = min(self._limits.first_frame_timeout_s or WINDOW_S, self._patience_s)
        return min(self._opened_s + patience_s, self._ends_s)

    @property
    def _patience_s(self) -> float:
        """How long nothing can be overdue that has just begun."""
        return min(self._limits.idle_timeout_s or WINDOW_S, WINDOW_S)

    def look(self, now_s: float, progress: Progress) -> Overdue | float:
        """Return which limit is passed, or when to look again."""
        limits = self._limits
        received, begun_at, is_within, is_busy, unread = progress
        if now_s >= self._ends_s + GRACE_S:
            return Overdue.AGE
        if received != self._came_bytes:
            self._came_s, self._came_bytes = now_s, received
        # A message that began after the latest look has had no time yet, even where it follows the
        # one that was the last then.
        is_same = is_within and self._is_within and begun_at == self._begun_at
        self._is_within = is_within
        before, self._unread_bytes = self._unread_bytes, unread
        if unread and unread == before:
            due_s = self._since_s + STALL_LIMIT_S
            return Overdue.STALLED if now_s >= due_s else self._again(now_s, due_s)
        is_busy |= unread > 0
        if is_busy:
            self._note(now_s, received, begun_at)
            return self._again(now_s, now_s + self._patience_s)
        if not begun_at and limits.first_frame_timeout_s:
            due_s = self._opened_s + self._first_frame_s(received)
            return Overdue.FIRST_FRAME if now_s >= due_s else self._again(now_s, due_s)
        if is_same and limits.min_rate:
            window_s = now_s - self._since_s
            if window_s >= WINDOW_S:
                if received - self._received_bytes < limits.min_rate * window_s:
                    return Overdue.SLOW_FRAME
                self._note(now_s, received, begun_at)
        elif received != self._received_bytes:
            self._note(now_s, received, begun_at)
        quiet_since_s = max(self._since_s, self._came_s)
        quiet_s = now_s - quiet_since_s
        if limits.idle_timeout_s and quiet_s >= limits.idle_timeout_s:
            return Overdue.IDLE
        if now_s >= self._ends_s and quiet_s >= QUIET_S and not is_within:
            return Overdue.AGE
        due_s = quiet_since_s + (limits.idle_timeout_s or WINDOW_S)
        # At any time from now on a message may begin that does not end.
        return self._again(now_s, min(due_s, now_s + WINDOW_S) if limits.min_rate else due_s)

    def _first_frame_s(self, received: int) -> float:
        limits = self._limits
        least_s = limits.first_frame_timeout_s
        more_s = received / limits.min_rate if limits.min_rate else 0.0
        return min(least_s + more_s, _FIRST_FRAME_FACTOR * least_s)

    def _note(self, now_s: float, received: int, begun_at: int) -> None:
        self._since_s = now_s
        self._received_bytes = received
        self._begun_at = begun_at

    def _again(self, now_s: float, due_s: float) -> float:
        """Return when to look again: at `due_s`, unless the age asks for an earlier look."""
        return min(max(due_s, now_s + _LEAST_S), max(self._ends_s, now_s + QUIET_S))
