"""How many attempts beyond the first there may be in all."""

import math
import os
import threading
import weakref
from collections import deque

from capnp_rig.objects.errors import UsageError

_WINDOW_S = 10
_budgets: "weakref.WeakSet[RetryBudget]" = weakref.WeakSet()


class RetryBudget:
    """How many attempts beyond the first are allowed: a part of the calls, and some per second.

    Over the last 10 s they are at most ``ratio * calls + per_s * 10``, as in Finagle's and Tower's
    `retry::budget`: where all calls fail, retries add a fifth to the load, and do not multiply it.
    May be shared by channels, threads and event loops.
    """

    __slots__ = (
        *("__weakref__", "_added", "_calls", "_current", "_ends_s", "_lock", "_past"),
        *("per_s", "ratio"),
    )

    def __init__(self, ratio: float = 0.2, per_s: float = 10.0) -> None:
        """Allow a retry per ``1 / ratio`` calls, and `per_s` in each second whatever is called.

        Raises:
            UsageError: One of them is negative or not finite.
        """
        for name, value in (("ratio", ratio), ("per_s", per_s)):
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"a retry budget's {name} is 0 or more, not {value}")
        self.ratio = ratio
        self.per_s = per_s
        self._lock = threading.Lock()
        _budgets.add(self)
        # Calls and retries of the second that ends then, and of the whole window before it.
        self._ends_s = float("-inf")
        self._current = [0, 0]
        self._past: deque[tuple[int, int, int]] = deque()
        self._calls = 0
        self._added = 0

    def deposit(self, now_s: float) -> None:
        """Count a call."""
        if now_s >= self._ends_s:
            with self._lock:
                self._turn(now_s)
        # Two threads at once may count one: the lock would take as long as all the rest.
        self._current[0] += 1

    def withdraw(self, now_s: float, part: float = 1.0) -> bool:
        """Count a retry if there may be another one; return whether it may.

        `part`, 0 to 1, is of what is allowed: beyond it there is none for this one.
        """
        with self._lock:
            if now_s >= self._ends_s:
                self._turn(now_s)
            calls = self._calls + self._current[0]
            added = self._added + self._current[1]
            if added + 1 > part * (calls * self.ratio + self.per_s * _WINDOW_S):
                return False
            self._current[1] += 1
            return True

    def reset(self) -> None:
        """Begin anew: this is the child of a fork."""
        self._lock = threading.Lock()

    def _turn(self, now_s: float) -> None:
        """Begin another second, and forget those that the window has left behind."""
        second = int(now_s)
        calls, added = self._current
        if calls or added:
            self._past.append((int(self._ends_s), calls, added))
            self._calls += calls
            self._added += added
        self._current = [0, 0]
        self._ends_s = second + 1.0
        while self._past and self._past[0][0] <= second - _WINDOW_S + 1:
            _, calls, added = self._past.popleft()
            self._calls -= calls
            self._added -= added


# What all channels of a process share by default: a server that is down is down for all of them.
PROCESS_BUDGET = RetryBudget()


def _renew_locks() -> None:
    """Let no lock stay with a thread of the parent, which a forked child does not have."""
    for budget in [*_budgets]:
        budget.reset()


os.register_at_fork(after_in_child=_renew_locks)
