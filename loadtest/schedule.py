"""When calls are due in an open loop: an absolute schedule, known before the first call leaves."""

import math
import random
from collections.abc import Iterator
from enum import StrEnum
from itertools import count


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
    return _poisson(rate_hz, random.Random(seed))  # noqa: S311 - repeatable, not secret


def _poisson(rate_hz: float, chance: random.Random) -> Iterator[int]:
    due_s = 0.0
    while True:
        due_s += chance.expovariate(rate_hz)
        yield round(due_s * 1e9)
