"""Looks at data that grow: when to look, at which level, and the interval of each look (no I/O).

Who looks after every block and stops when it pleases, calls equal servers different far more often
than in 5 of 100 comparisons. So the looks are planned before the first ratio is known: at a third
of the blocks, at two thirds and at the end. The chance to err is spent over them, little at first
and most at the end, as O'Brien and Fleming do; its parts sum up to 5 %. By the inequality of
Bonferroni the intervals of all looks together then hold the truth in 95 of 100 comparisons, however
the looks depend on each other, and whatever number of blocks a look meets, as long as no ratio
decides on that number (C. Jennison, B. W. Turnbull, *Group Sequential Methods*, 1999, chapters 2,
7 and 9). Several metrics share the parts in the same way.

Blocks are independent: their servers are fresh processes. So the interval of a mean of the blocks'
log ratios is Student's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

from capnp_rig.loadtest.stats.pair_statistics import Interval

LEAST_BLOCKS = 6
# What each look may err, in order; without the earlier ones the last has their share as well.
_SPENT = (0.005, 0.01, 0.035)
LEVEL = sum(_SPENT)
_STEPS = 200


@dataclass(frozen=True, slots=True)
class Look:
    """After how many `blocks` to look, and the chance to err of that look."""

    blocks: int
    level: float


def plan_looks(blocks: int) -> tuple[Look, ...]:
    """Return the looks at so many blocks; those that would have under six blocks are left out.

    Raises:
        ValueError: There are under six blocks in all.
    """
    if blocks < LEAST_BLOCKS:
        raise ValueError(f"{blocks} blocks, at least {LEAST_BLOCKS}")
    looks: list[Look] = []
    saved = 0.0
    for number, level in enumerate(_SPENT, 1):
        at = math.ceil(blocks * number / len(_SPENT))
        saved += level
        if at >= LEAST_BLOCKS:
            looks.append(Look(at, saved))
            saved = 0.0
    return tuple(looks)


def shares(count: int) -> list[float]:
    """Return which part of a look's level each of `count` metrics may use.

    The first one, for which a comparison is made, has half of it; the others share the rest.
    """
    return [1.0] if count == 1 else [0.5, *[0.5 / (count - 1)] * (count - 1)]


def mean_ratio(logs: Sequence[float], level: float) -> Interval:
    """Return the ratio whose log is the mean of `logs`, with its interval, one value per block.

    `level` is the chance that the interval misses the truth.

    Raises:
        ValueError: There is no value.
    """
    if len(logs) < LEAST_BLOCKS:
        return Interval(math.exp(fmean(logs)), None, None, len(logs))
    n, middle = len(logs), fmean(logs)
    scatter = math.sqrt(math.fsum((log - middle) ** 2 for log in logs) / (n - 1))
    reach = student_t(level, n - 1) * scatter / math.sqrt(n)
    return Interval(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach), n)


@lru_cache(maxsize=256)
def student_t(level: float, freedom: int) -> float:
    """Return the t that a variable of Student's exceeds, on either side, with chance `level`.

    `freedom` is its degrees of freedom, at least 1. The chance is the finite sum for whole
    degrees (M. Abramowitz, I. Stegun, *Handbook of Mathematical Functions*, 26.7.3 and 26.7.4),
    inverted by bisection over the angle.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(_STEPS):
        angle = (low + high) / 2
        if 1 - _within(angle, freedom) > level:
            low = angle
        else:
            high = angle
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """Return the chance to lie within ± t, for t = tan(angle) times the root of `freedom`."""
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for power in range(odd + 2, freedom - 1, 2):
        term *= math.cos(angle) ** 2 * (power - 1) / power
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
