"""Looks at all connections of a worker, each when it is due: one timer, whatever their number.

A timer for each read would cost more than the read. So a connection only counts the bytes that
come, and the sweeper has a wheel of ticks: a connection stands in the tick in which it is to be
looked at (`time_limits.ConnectionClock`), which is every ten seconds at most. 10,000 idle
connections take 0.4 % of a CPU so (`loadtest.benchmarks.idle_connections`).

`Sweeper` is pure: it is told the time. `LoopSweeper` runs it on an event loop.
"""

import asyncio
from collections import Counter
from typing import Protocol

from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.connections.time_limits import ConnectionClock, Overdue, Progress

_MAX_TICK_S, _MIN_TICK_S = 1.0, 0.05
# A limit is passed by a quarter of it at most before it is seen.
_TICKS_PER_LIMIT = 4


class Timed(Protocol):
    """A connection as it is looked at."""

    def progress(self) -> Progress:
        """Return what has come so far."""

    def end_overdue(self, overdue: Overdue) -> None:
        """End in good order, for this reason; called once."""


class Sweeper:
    """The connections of a worker, by when to look at them."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        wanted = (limits.first_frame_timeout_s, limits.idle_timeout_s, limits.max_age_s)
        least_s = min((limit_s for limit_s in wanted if limit_s), default=_MAX_TICK_S)
        # How often to sweep.
        self.tick_s = max(min(least_s / _TICKS_PER_LIMIT, _MAX_TICK_S), _MIN_TICK_S)
        self.is_needed = any((*wanted, limits.min_rate))
        # How many connections each limit has ended.
        self.ended: Counter[Overdue] = Counter()
        self._clocks: dict[Timed, tuple[ConnectionClock, int]] = {}
        self._due: dict[int, set[Timed]] = {}
        self._next_tick = 0

    def __len__(self) -> int:
        return len(self._clocks)

    def add(self, connection: Timed, now_s: float) -> None:
        """Look at a new connection from now on."""
        if not self.is_needed:
            return
        if not self._clocks:
            self._next_tick = int(now_s / self.tick_s)
        clock = ConnectionClock(self.limits, now_s)
        self._put(connection, clock, clock.first_look_s)

    def discard(self, connection: Timed) -> None:
        """Look at a connection no more; it may be unknown."""
        known = self._clocks.pop(connection, None)
        if known is not None:
            tick = known[1]
            due = self._due.get(tick, set())
            due.discard(connection)
            if not due:
                self._due.pop(tick, None)

    def sweep(self, now_s: float) -> None:
        """Look at the connections that are due, and end those that are overdue."""
        last = int(now_s / self.tick_s)
        for tick in range(self._next_tick, last + 1):
            for connection in self._due.pop(tick, ()):
                self._look(connection, now_s)
        self._next_tick = last + 1

    def _look(self, connection: Timed, now_s: float) -> None:
        known = self._clocks.get(connection)
        if known is None:
            # Ended by the end of another.
            return
        verdict = known[0].look(now_s, connection.progress())
        if isinstance(verdict, Overdue):
            del self._clocks[connection]
            self.ended[verdict] += 1
            connection.end_overdue(verdict)
        else:
            self._put(connection, known[0], verdict)

    def _put(self, connection: Timed, clock: ConnectionClock, due_s: float) -> None:
        # In the tick after, so that a look is never early.
        tick = max(int(due_s / self.tick_s) + 1, self._next_tick)
        self._clocks[connection] = clock, tick
        self._due.setdefault(tick, set()).add(connection)


class LoopSweeper(Sweeper):
    """A sweeper with a timer on the running event loop, while there are connections."""

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__(limits)
        self._loop = asyncio.get_running_loop()
        self._is_running = False

    def watch(self, connection: Timed) -> None:
        """Look at a new connection from now on."""
        self.add(connection, self._loop.time())
        if not self._is_running and len(self):
            self._is_running = True
            self._loop.call_later(self.tick_s, self._tick)

    def _tick(self) -> None:
        # First: a connection that cannot be ended must not end the sweeping.
        self._is_running = bool(len(self))
        if self._is_running:
            self._loop.call_later(self.tick_s, self._tick)
        self.sweep(self._loop.time())
