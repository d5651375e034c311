"""Bootstrap of one run: what its figures could have been, had other of its units happened.

Two runs that were not measured as pairs are independent samples, so each is resampled by itself
and the ratio is that of the resampled values. There are two kinds of units:

- **values**, one per process, round or repeat: they are drawn one by one, the figure is their
  median. With six on each side the interval of the ratio still holds the truth in 96 of 100
  simulated cases.
- **seconds** of a run, which are autocorrelated: they are drawn as blocks that follow each other
  in the run (moving-block bootstrap). A rate is that of the drawn seconds together, a percentile
  that of their merged histograms; percentiles are never averaged.

All is seeded: the same runs give the same interval.
"""

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from operator import add, itemgetter, sub
from statistics import median
from typing import Any

from capnp_rig.loadtest.stats.histogram import HIGHEST_NS, LOWEST_NS, Histogram, bucket_range_ns
from capnp_rig.loadtest.stats.pair_statistics import Interval

# Fewer units, or blocks of them, have no interval.
LEAST_UNITS = 6
# Blocks shorter than this would leave nothing of what follows each other.
_LEAST_BLOCK = 2
LEAST_SECONDS = LEAST_UNITS * _LEAST_BLOCK
RESAMPLES = 2000
_COVERED = 0.95

# Returns those items of a sequence that one resample has drawn.
Pick = Callable[[Sequence[Any]], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Resampled:
    """A figure of a run, and its values in the resamples of it."""

    value: float
    draws: Sequence[float]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of `length` units from each of `starts`, and the `picks` of blocks that were drawn."""

    length: int
    starts: Sequence[int]
    picks: Sequence[Pick]

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the sum of one value per unit over each block."""
        before = [0, *accumulate(values)]
        return [before[start + self.length] - before[start] for start in self.starts]


def ratio_of(old: Resampled, new: Resampled, n: int) -> Interval | None:
    """Return how many times smaller the new figure is, with its 95 % interval.

    None where a value of zero leaves no ratio.
    """
    draws = list(zip(old.draws, new.draws, strict=True))
    if min(old.value, new.value) <= 0 or any(top <= 0 or bottom <= 0 for top, bottom in draws):
        return None
    ratios = sorted(top / bottom for top, bottom in draws)
    cut = round((1 - _COVERED) / 2 * len(ratios))
    return Interval(old.value / new.value, ratios[cut], ratios[-1 - cut], n)


def resample_median(values: Sequence[float], *, seed: int) -> Resampled:
    """Return the median of one value per unit, at least two."""
    # To draw values is to draw their ranks, and which rank is in the middle is the same for all
    # figures of so many units: 0.1 ms, where to sort each draw takes 1.2.
    ordered = sorted(values)
    draws = [(ordered[low] + ordered[high]) / 2 for low, high in _middles(len(values), seed)]
    return Resampled(median(values), draws)


@lru_cache(maxsize=64)
def _middles(count: int, seed: int) -> list[tuple[int, int]]:
    """Return the ranks of the two middle values of each resample of `count` values."""
    middles = []
    for pick in _picks(count, seed):
        ranks = sorted(pick(range(count)))
        middles.append((ranks[(len(ranks) - 1) // 2], ranks[len(ranks) // 2]))
    return middles


@lru_cache(maxsize=64)
def _picks(count: int, seed: int, drawn: int | None = None) -> list[Pick]:
    """Return what picks from `count` items, `drawn` of them or as many, with replacement."""
    rng = random.Random(seed)
    # A getter of one index would return the item itself.
    size = max(2, count if drawn is None else drawn)
    return [itemgetter(*rng.choices(range(count), k=size)) for _ in range(RESAMPLES)]


def block_length(stretches: Sequence[int]) -> int | None:
    """Return how many units a block has: the cube root of all, and at least six blocks.

    `stretches` are the numbers of units that follow each other without a gap. None where there
    are too few units.
    """
    count = sum(stretches)
    if count < LEAST_SECONDS:
        return None
    length = max(_LEAST_BLOCK, min(round(math.cbrt(count)), count // LEAST_UNITS))
    return min(length, *stretches)


def draw_blocks(stretches: Sequence[int], length: int, *, seed: int) -> Blocks:
    """Return blocks of `length` units, none of them across the gap between two stretches."""
    starts: list[int] = []
    first = 0
    for stretch in stretches:
        starts += range(first, first + stretch - length + 1)
        first += stretch
    return Blocks(length, starts, _picks(len(starts), seed, sum(stretches) // length))


def resample_sums(
    figure: Callable[..., float], blocks: Blocks, *values: Sequence[float]
) -> Resampled:
    """Return a figure of the sums of each of `values`, which have a number per unit."""
    by_block = [blocks.sums(each) for each in values]
    return Resampled(
        figure(*(sum(each) for each in values)),
        [figure(*(sum(pick(each)) for each in by_block)) for pick in blocks.picks],
    )


def resample_percentiles(
    times: Sequence[Histogram], whole: Histogram, percents: Sequence[float], blocks: Blocks
) -> dict[float, Resampled] | None:
    """Return percentiles of the merged histograms of the drawn units, in ns.

    `times` has a histogram per unit, `whole` is all of them merged. None where
    a resample has no value at all.
    """
    edges, rows = _rows(times, blocks)
    columns = list(zip(*rows, strict=True))
    bounds = {percent: _bounds(rows, percent) for percent in percents}
    draws: dict[float, list[float]] = {percent: [] for percent in percents}
    for pick in blocks.picks:
        total = sum(pick(columns[-1]))
        if not total:
            return None
        for percent, (low, high) in bounds.items():
            rank = _rank(percent, total)
            at = bisect_left(columns, rank, low, high, key=lambda column: sum(pick(column)))
            draws[percent].append(edges[at])
    return {
        percent: Resampled(whole.percentile_ns(percent) or 0, draws[percent])
        for percent in percents
    }


def _rank(percent: float, total: int) -> int:
    return max(1, math.ceil(percent / 100 * total))


def _bounds(rows: Sequence[Sequence[int]], percent: float) -> tuple[int, int]:
    """Return between which edges the percentile of the blocks lies.

    That of blocks drawn together cannot lie outside.
    """
    bins = [bisect_left(row, _rank(percent, row[-1])) for row in rows if row[-1]]
    return min(bins, default=0), max(bins, default=0)


def _rows(times: Sequence[Histogram], blocks: Blocks) -> tuple[list[int], list[list[int]]]:
    """Return upper edges in ns, and for each block how many values it has up to each of them.

    A percentile of the drawn blocks is then found by bisection: some 15 numbers a step, where
    merging the histograms would take thousands.
    """
    buckets = sorted({bucket for each in times for bucket in each.counts})
    edges = [LOWEST_NS, *(bucket_range_ns(bucket)[1] for bucket in buckets), HIGHEST_NS]
    before: list[list[int]] = [[0] * len(edges)]
    for each in times:
        counts = [each.below, *(each.counts.get(bucket, 0) for bucket in buckets), each.above]
        before.append(list(map(add, before[-1], accumulate(counts))))
    ends = [(start, start + blocks.length) for start in blocks.starts]
    return edges, [list(map(sub, before[end], before[start])) for start, end in ends]
