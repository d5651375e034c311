"""When calls are due in an open loop: an absolute schedule, known before the first call leaves."""

import math
import random
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from itertools import count

from capnp_rig.client.errors import ClientError

# Calls that wait until there is room for them: 10 MB. With a dead server, more come, without end.
MOST_WAITING = 250_000


class NotSent(ClientError):
    """A call was due, but so many others waited for room that it was given up."""


class Arrivals(StrEnum):
    """How calls are spread: like independent callers, or at equal distances."""

    POISSON = "poisson"
    FIXED = "fixed"


def due_offsets_ns(rate_hz: float, arrivals: Arrivals, *, seed: int) -> Iterator[int]:
    """Yield, without end, the ns after the start at which each call is due.

    Poisson gaps are exponential with mean 1 / `rate_hz`; the same `seed` gives the same
    schedule.

    Raises:
        ValueError: `rate_hz` is not positive and finite.
    """
    if not (rate_hz > 0 and math.isfinite(rate_hz)):
        raise ValueError(f"the rate must be positive, not {rate_hz}")
    if arrivals is Arrivals.FIXED:
        return (round(index * 1e9 / rate_hz) for index in count())
    return _poisson(rate_hz, random.Random(seed))


def _poisson(rate_hz: float, chance: random.Random) -> Iterator[int]:
    due_s = 0.0
    while True:
        due_s += chance.expovariate(rate_hz)
        yield round(due_s * 1e9)


class Pace:
    """The schedule of an open loop whose rate changes while it runs.

    `next_ns` is when the next call is due, `sys.maxsize` while the rate is 0, as it is at first.
    What is due depends on the rates and on when they were set, not on when it is asked for.
    """

    def __init__(self, arrivals: Arrivals, *, seed: int | str) -> None:
        """Prepare; the same `seed` and the same rates give the same schedule."""
        chance = random.Random(seed)
        self._gap: Callable[[], float] = partial(chance.expovariate, 1.0)
        if arrivals is Arrivals.FIXED:
            self._gap = lambda: 1.0
        # Since the anchor, when the rate was set: gaps to the next call, at one a unit of time.
        self._units = self._gap()
        self._anchor_ns = 0
        self._unit_ns = 0.0
        self.next_ns = sys.maxsize

    def set_rate(self, rate_hz: float, now_ns: int) -> None:
        """Go on with another rate, 0 included; what was due until now must have been taken."""
        assert self.next_ns > now_ns
        if self._unit_ns:
            self._units -= (now_ns - self._anchor_ns) / self._unit_ns
        self._anchor_ns = now_ns
        self._unit_ns = 1e9 / rate_hz if rate_hz else 0.0
        self._find_next()

    def pop(self) -> int:
        """Return when the next call is due, and go on to the one after it."""
        due_ns = self.next_ns
        self._units += self._gap()
        self._find_next()
        return due_ns

    def _find_next(self) -> None:
        if self._unit_ns:
            self.next_ns = self._anchor_ns + round(self._units * self._unit_ns)
        else:
            self.next_ns = sys.maxsize
