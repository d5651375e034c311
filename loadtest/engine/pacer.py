"""Sends the calls of an open loop when they are due, turn by turn of an asyncio loop.

Each turn sends all that is due; a call that finds no room waits and keeps its due time. Between
due times the loop spins, since its timers step by 1 ms, and sleeps only while nothing is due
for longer than that.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from capnp_rig.loadtest.engine.schedule import MOST_WAITING, NotSent
from capnp_rig.loadtest.protocols.exchange import AnyExchange
from capnp_rig.loadtest.stats.tally import Tally

_SLEEP_FROM_NS = 2_000_000


class Connection(Protocol):
    """What the pacer sends on."""

    exchange: AnyExchange
    is_open: bool

    def flush(self) -> None:
        """Send what is queued."""


class Load(Protocol):
    """What the pacer belongs to."""

    tally: Tally
    running: bool
    close_ns: int

    def failed(self, error: Exception, sent_ns: int, now_ns: int) -> None:
        """Count a failed call."""


C = TypeVar("C", bound=Connection)


class Pacer(Generic[C]):
    """Sends what is due on whichever connection has room.

    `dues` are absolute, in ns of `time.monotonic_ns()`. `calls` is how many to send at most,
    None for no limit.
    """

    def __init__(self, load: Load, dues: Iterator[int], calls: int | None) -> None:
        self._load = load
        self._loop = asyncio.get_running_loop()
        self._dues = dues
        self._left = sys.maxsize if calls is None else calls
        self._next_ns = next(dues)
        self._waiting: deque[int] = deque()
        # One entry for each call that a connection has room for.
        self._free: deque[C] = deque()
        self._freed = False
        self._turns = self._working_turns = 0

    @property
    def busy(self) -> float:
        """The share of turns, within the measured window, that found work."""
        return self._working_turns / max(self._turns, 1)

    @property
    def unsent(self) -> int:
        """Calls that are due and wait for room."""
        return len(self._waiting)

    @property
    def is_done(self) -> bool:
        """Whether all calls that there were to be have been sent."""
        return not self._left and not self._waiting

    def offer(self, connection: C, count: int) -> None:
        """Take `count` more slots of a connection."""
        self._freed = self._freed or bool(count)
        for _ in range(count):
            self._free.append(connection)

    def start(self) -> None:
        """Send what is due from now on, until the load's window closes."""
        self._turn()

    def _turn(self) -> None:
        load = self._load
        tally, stop_ns = load.tally, load.close_ns
        open_ns = tally.open_ns
        now_ns = time.monotonic_ns()
        due = 0
        while self._next_ns <= now_ns and self._next_ns < stop_ns and self._left:
            due_ns = self._next_ns
            self._left -= 1
            tally.scheduled += due_ns >= open_ns
            if len(self._waiting) < MOST_WAITING:
                self._waiting.append(due_ns)
                due += 1
            else:
                load.failed(NotSent("no room for so many waiting calls"), due_ns, now_ns)
            self._next_ns = next(self._dues)
        sent = self._send(now_ns)
        tally.held += min(due, len(self._waiting))
        if open_ns <= now_ns < stop_ns:
            self._turns += 1
            self._working_turns += sent or self._freed
        self._freed = False
        over = self._next_ns >= stop_ns or not self._left
        if not load.running or (over and not self._waiting):
            return
        if self._next_ns - now_ns > _SLEEP_FROM_NS and not self._waiting:
            # Half of the time left: the timer may be a millisecond late.
            self._loop.call_later((self._next_ns - now_ns) / 2e9, self._turn)
        elif over:
            # Nothing more is due: what waits does so for room.
            self._loop.call_later(0.001, self._turn)
        else:
            self._loop.call_soon(self._turn)

    def _send(self, now_ns: int) -> bool:
        waiting, free = self._waiting, self._free
        touched: set[C] = set()
        while waiting and free:
            connection = free.popleft()
            if connection.is_open:
                connection.exchange.send(waiting.popleft(), now_ns)
                touched.add(connection)
        for connection in touched:
            connection.flush()
        return bool(touched)
