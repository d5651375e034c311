"""Sends the calls of an open loop when they are due, turn by turn of an asyncio loop.

Each turn sends all that is due. A call that finds no room keeps its due time and leaves on the
first slot that a reply frees. Between due times the loop spins, since its timers step by 1 ms, and
sleeps only while nothing is due for longer than that, or while there is no room.

Calls wait nowhere but in the schedule, which is made up as they are sent: a rate that nobody can
serve costs no more than one that is. Those that were never sent are counted in the end.
"""

import asyncio
import sys
import time
from collections import deque
from itertools import repeat
from typing import Generic, Protocol, TypeVar

from capnp_rig.loadtest.engine.schedule import Pace
from capnp_rig.loadtest.protocols.exchange import AnyExchange
from capnp_rig.loadtest.stats.tally import Tally

_SLEEP_FROM_NS = 2_000_000
# Of the window: calls that fell further behind than this are not sent after its end.
_LATE_SHARE = 0.05


class Connection(Protocol):
    """What the pacer sends on."""

    exchange: AnyExchange
    takes_calls: bool

    def flush(self) -> None:
        """Send what is queued."""


class Load(Protocol):
    """What the pacer belongs to."""

    tally: Tally
    running: bool
    close_ns: int


C = TypeVar("C", bound=Connection)


class Pacer(Generic[C]):
    """Sends what is due on whichever connection has room.

    `pace` goes by `time.monotonic_ns()`. `calls` is how many to send at most, None for no limit.
    """

    def __init__(self, load: Load, pace: Pace, calls: int | None) -> None:
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._pace = pace
        self._left = sys.maxsize if calls is None else calls
        # One entry for each call that a connection has room for.
        self._free: deque[C] = deque()
        # Whether a turn will come, whether at once, and what was freed since the last one.
        self._planned = self._spinning = self._freed = False
        self._turned_ns = 0

    @property
    def is_done(self) -> bool:
        """Whether all calls that there were to be have been sent."""
        return not self._left

    @property
    def is_over(self) -> bool:
        """Whether nothing that is due within the load's window is left to be sent."""
        return not self._left or self._pace.next_ns >= self._load.close_ns

    def offer(self, connection: C, count: int, now_ns: int) -> None:
        """Take `count` more slots of a connection, which flushes them itself."""
        self._freed = self._freed or bool(count)
        # With free slots elsewhere, nothing waits that a turn would not have sent.
        if not self._free:
            count -= self._send(connection, count, now_ns, held=True)
        if count:
            self._free.extend(repeat(connection, count))
            self._plan(now_ns)

    def open(self) -> None:
        """Begin to count: the window opens. What has fallen behind in the warm-up is not sent."""
        self._pace.skip_until(self._load.tally.open_ns)
        self._load.tally.spun_ns = 0

    def close(self) -> None:
        """End the schedule: the load's window has closed.

        Calls that wait are still sent where they are few; else the run would go on, and its load
        be another than in the window.
        """
        open_ns, close_ns = self._load.tally.open_ns, self._load.close_ns
        if close_ns - self._pace.next_ns > _LATE_SHARE * (close_ns - open_ns):
            self.give_up()

    def give_up(self) -> None:
        """Count the calls of the window that still wait as never sent."""
        tally, close_ns = self._load.tally, self._load.close_ns
        self._pace.skip_until(min(tally.open_ns, close_ns))
        count = min(self._pace.skip_until(close_ns), self._left)
        tally.scheduled += count
        tally.held += count
        tally.unsent += count

    def _send(self, connection: C, count: int, now_ns: int, *, held: bool) -> int:
        """Send what is due, `count` calls at most; return how many that are."""
        load, send, open_ns = self._load, connection.exchange.send, self._load.tally.open_ns
        dues = self._pace.take(min(count, self._left), min(now_ns, load.close_ns - 1))
        for due_ns in dues:
            send(due_ns, now_ns)
        sent = len(dues)
        self._left -= sent
        counted = sent if sent and dues[0] >= open_ns else sum(due >= open_ns for due in dues)
        load.tally.scheduled += counted
        load.tally.held += counted * held
        return sent

    def _turn(self) -> None:
        self._planned = False
        now_ns = time.monotonic_ns()
        free, touched = self._free, set[C]()
        while free:
            connection = free.popleft()
            if not connection.takes_calls:
                continue
            if not self._send(connection, 1, now_ns, held=False):
                free.appendleft(connection)
                break
            touched.add(connection)
        for connection in touched:
            connection.flush()
        if self._spinning and not touched and not self._freed:
            self._load.tally.spun_ns += now_ns - self._turned_ns
        self._turned_ns, self._freed = now_ns, False
        self._plan(now_ns)

    def _plan(self, now_ns: int) -> None:
        """Choose when to take the next turn; without room there is none, until some is offered."""
        if self._planned or not self._free or not self._load.running or self.is_over:
            return
        ahead_ns = self._pace.next_ns - now_ns
        self._planned, self._spinning = True, ahead_ns <= _SLEEP_FROM_NS
        if self._spinning:
            self._loop.call_soon(self._turn)
        else:
            # Half of the time left: the timer may be a millisecond late.
            self._loop.call_later(ahead_ns / 2e9, self._turn)
