"""The open loop under Locust: sends calls when they are due, whatever the server does.

One pacer per process follows its share of the schedule: the rate of the run times the share of the
run's users that live here now. So the rate grows while users are started, and the processes' rates
add up to that of the run. A call that is due goes to any free slot. If there is none it keeps its
due time, and leaves on the first slot that a reply frees. Calls wait nowhere but in the schedule,
which is made up as they are sent: a rate that nobody can serve costs no more than one that is.
Those that were never sent are counted in the end.

The pacer runs inside gevent's hub, by a timer. Where the next call is due soon it comes back in
the next turn of the loop, since libev's timers step by a millisecond. A greenlet with
``gevent.sleep(0)`` would hold up replies: gevent runs such callbacks for up to 5 ms before it looks
at a socket again (p90 of a wake-up 5,000 µs, 23 with the timer).
"""

import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import gevent

from capnp_rig.loadtest.engine.schedule import Pace
from capnp_rig.loadtest.stats.tally import Tally

# With less time left than this, timers of a millisecond are too coarse.
_SPIN_NS = 2_000_000
_MOST_SLEEP_NS = 50_000_000


class Sender(Protocol):
    """What has slots for calls."""

    def send(self, due_ns: int, now_ns: int) -> None:
        """Take a call onto a free slot."""

    def flush(self) -> None:
        """Let the calls taken leave."""


class CallPacer:
    """Hands out the calls of one process, at the `pace` of its share of the run."""

    def __init__(
        self,
        pace: Pace,
        tally: Tally,
        *,
        bug: Callable[[Exception], None],
        loop: Any = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Prepare; `set_rate` starts.

        `bug` gets an exception that only a mistake in the program can cause. `loop` makes the
        timers; None is that of gevent's hub.
        """
        self._pace = pace
        self._tally = tally
        self._bug = bug
        # Free slots, of the sender whose turn it is first.
        self._free: OrderedDict[Sender, int] = OrderedDict()
        # When the last turn was; whether it was to be followed at once, and what was freed since.
        self._turned_ns = 0
        self._spinning = self._freed = False
        self._stopped = False
        self._clock = clock
        self._loop: Any = gevent.get_hub().loop if loop is None else loop
        self._spin: Any = self._loop.timer(0)
        self._timer: Any = self._spin

    def set_rate(self, rate_hz: float) -> None:
        """Go on at another rate."""
        if self._stopped:
            return
        now_ns = self._clock()
        self._pace.set_rate(rate_hz, now_ns)
        self._plan(now_ns)

    def offer(self, sender: Sender, slots: int, now_ns: int) -> None:
        """Take `slots` free slots of `sender`, which flushes them itself."""
        if self._stopped or not slots:
            return
        # With free slots elsewhere, nothing waits that a turn would not have sent.
        if not self._free:
            slots -= self._send(sender, slots, now_ns, held=True)
        self._freed = True
        if slots:
            self._free[sender] = self._free.get(sender, 0) + slots
            if not self._spinning:
                self._plan(now_ns)

    def withdraw(self, sender: Sender) -> None:
        """Forget the free slots of `sender`."""
        self._free.pop(sender, None)

    def stop(self) -> None:
        """Send nothing more, and count the calls that were due and wait in vain.

        The schedule ends with the last turn: what Locust does before it says that a run ends
        must not make calls wait.
        """
        if self._stopped:
            return
        self._stopped = True
        self._timer.stop()
        self._free.clear()
        tally = self._tally
        count = self._pace.skip_until(self._turned_ns + 1)
        tally.scheduled += count
        tally.held += count
        tally.unsent += count

    def _turn(self) -> None:
        now_ns = self._clock()
        try:
            due = self._hand_out(now_ns)
        except Exception as error:  # noqa: BLE001 - gevent would print it and go on
            self._bug(error)
            return
        if self._spinning and not due and not self._freed:
            self._tally.spun_ns += now_ns - self._turned_ns
        self._turned_ns, self._freed = now_ns, False
        self._plan(now_ns)

    def _hand_out(self, now_ns: int) -> bool:
        """Send what is due, as far as slots are free; return whether anything was sent."""
        free, touched = self._free, dict[Sender, None]()
        while free and self._pace.next_ns <= now_ns:
            sender, slots = free.popitem(last=False)
            if slots > 1:
                free[sender] = slots - 1
            self._send(sender, 1, now_ns, held=False)
            touched[sender] = None
        for sender in touched:
            sender.flush()
        return bool(touched)

    def _send(self, sender: Sender, count: int, now_ns: int, *, held: bool) -> int:
        """Let a sender take what is due, `count` calls at most; return how many that are."""
        dues = self._pace.take(count, now_ns)
        for due_ns in dues:
            sender.send(due_ns, now_ns)
        open_ns = self._tally.open_ns
        counted = sum(due_ns >= open_ns for due_ns in dues)
        self._tally.scheduled += counted
        self._tally.held += counted * held
        return len(dues)

    def _plan(self, now_ns: int) -> None:
        """Choose when to take the next turn."""
        self._timer.stop()
        ahead_ns = self._pace.next_ns - now_ns
        # Without a free slot there is no haste: the next reply brings one, and takes what is due.
        self._spinning = ahead_ns < _SPIN_NS and bool(self._free)
        if self._stopped or self._pace.next_ns == sys.maxsize:
            return
        if self._spinning:
            self._timer = self._spin
        else:
            # Half of the time left: a timer may be a millisecond late. Its time is fixed, so it
            # is made anew, for 1 µs.
            sleep_ns = min(max(ahead_ns, _SPIN_NS) // 2, _MOST_SLEEP_NS)
            self._timer = self._loop.timer(sleep_ns / 1e9)
        self._timer.start(self._turn)
