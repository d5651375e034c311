"""When calls are due in an open loop: an absolute schedule, known before the first call leaves.

It is made up call by call, as they are sent. Calls that find no room are not made up at all: where
the schedule is beyond what a server can take, `Pace.skip_until` passes over any number of them in a
few steps and says how many they were.
"""

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import repeat, starmap
from math import log1p, sqrt
from operator import neg

# So many standard deviations before an instant, a call that is due comes after it once in 10^20.
_DEVIATIONS = 10


class Arrivals(StrEnum):
    """How calls are spread: like independent callers, or at equal distances."""

    POISSON = "poisson"
    FIXED = "fixed"


class Pace:
    """The schedule of an open loop, whose rate may change while it runs.

    `next_ns` is when the next call is due, `sys.maxsize` while the rate is 0, as it is at first.
    What is due depends on the rates and on when they were set, not on when it is asked for. Poisson
    gaps are exponential with mean 1 / rate.
    """

    def __init__(self, arrivals: Arrivals, *, seed: int | str) -> None:
        """Prepare; the same `seed`, rates and skips give the same schedule."""
        chance = random.Random(seed)
        # Gaps in units of their mean, negative: the logarithms of chances. Made without a frame of
        # Python they take a quarter of the time of `expovariate`.
        self._gaps: Iterator[float] = map(log1p, map(neg, starmap(chance.random, repeat(()))))
        # The sum of n exponential gaps has the gamma distribution of shape n.
        self._leap: Callable[[int], float] = lambda count: chance.gammavariate(count, 1.0)
        if arrivals is Arrivals.FIXED:
            self._gaps, self._leap = repeat(-1.0), float
        # Since the anchor, when the rate was set: gaps to the next call, at one a unit of time.
        self._units = -next(self._gaps)
        self._anchor_ns = 0
        self._unit_ns = 0.0
        # Later changes: when, and the unit of time from then on.
        self._changes: deque[tuple[int, float]] = deque()
        self.next_ns = sys.maxsize

    def set_rate(self, rate_hz: float, now_ns: int) -> None:
        """Go on with another rate, 0 included, from `now_ns` on; not before an earlier change."""
        self._changes.append((now_ns, 1e9 / rate_hz if rate_hz else 0.0))
        self._find_next()

    def take(self, count: int, until_ns: int) -> list[int]:
        """Return when the next calls are due, `count` at most and none after `until_ns`.

        Goes on to the one behind them. Many at once cost a third of what each costs alone.
        """
        taken: list[int] = []
        gaps = self._gaps
        while self.next_ns <= until_ns and len(taken) < count:
            units, due_ns = self._units, self.next_ns
            anchor_ns, unit_ns = self._anchor_ns, self._unit_ns
            last_ns = min(until_ns, self._changes[0][0]) if self._changes else until_ns
            while due_ns <= last_ns and len(taken) < count:
                taken.append(due_ns)
                units -= next(gaps)
                due_ns = anchor_ns + round(units * unit_ns)
            self._units = units
            self._find_next()
        return taken

    def skip_until(self, end_ns: int) -> int:
        """Pass over the calls that are due before `end_ns`; return how many they are.

        Of n calls all but about 10 √n are passed over at once, so it takes a few hundred steps
        however many there are.
        """
        count = 0
        while self.next_ns < end_ns:
            stretch_ns = min(end_ns, self._changes[0][0] if self._changes else end_ns)
            units = (stretch_ns - self.next_ns) / self._unit_ns
            step = max(1, int(units - _DEVIATIONS * sqrt(max(units, 0.0))))
            self._units += self._leap(step)
            self._find_next()
            count += step
        return count

    def _find_next(self) -> None:
        while True:
            self.next_ns = sys.maxsize
            if self._unit_ns:
                self.next_ns = self._anchor_ns + round(self._units * self._unit_ns)
            if not self._changes or self.next_ns <= self._changes[0][0]:
                return
            changed_ns, unit_ns = self._changes.popleft()
            if self._unit_ns:
                self._units -= (changed_ns - self._anchor_ns) / self._unit_ns
            self._anchor_ns, self._unit_ns = changed_ns, unit_ns
