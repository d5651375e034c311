"""Where a ratio crosses 1: the size from which a codec is ahead, with its interval (no I/O).

A curve has a ratio at each of some sizes; above 1 the candidate is faster. Between two
sizes it is taken to be straight in log-log, as costs of the form a + b · size nearly are. The
unit is a process, as in `pair_statistics`: the curve is that of the median of log-ratios, and
processes are resampled whole, all sizes of one together.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from capnp_rig.loadtest.stats.pair_statistics import LEAST_PAIRS
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode

# With fewer than this the range is the interval; a bootstrap of so few would be narrower than it.
_BOOTSTRAP_PAIRS = 8
_RESAMPLES = 1000
_COVERED = 0.95


@dataclass(frozen=True, slots=True)
class Crossover:
    """Where the ratio crosses 1, and the range that holds it with 95 % confidence.

    `value` is None where it does not within what was measured; `reasons` then say on which
    side it stays. A bound that lies outside is that of what was measured, which `reasons` say as
    well. Both bounds are None with too few processes, and where all of them agree that it
    does not cross.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    reasons: tuple[Reason, ...] = ()


def crossing(sizes: Sequence[float], logs: Sequence[float], *, is_rising: bool = True) -> float:
    """Return the size from which on the log-ratio stays above 0, by log-log interpolation.

    0 where it is above throughout, infinity where it ends at or below 0. Of a falling curve it
    is the size up to which it was above: infinity throughout, 0 where it starts below.
    """
    if not is_rising:
        turned = [1 / size for size in reversed(sizes)]
        size = crossing(turned, list(reversed(logs)))
        return 1 / size if size else math.inf
    ahead = len(logs)
    while ahead and logs[ahead - 1] > 0:
        ahead -= 1
    if not ahead:
        return 0.0
    if ahead == len(logs):
        return math.inf
    below, above = logs[ahead - 1], logs[ahead]
    left, right = math.log(sizes[ahead - 1]), math.log(sizes[ahead])
    return math.exp(left + (right - left) * below / (below - above))


def find_crossover(
    ratios: Mapping[float, Mapping[int, float]], *, is_rising: bool = True, seed: int = 0
) -> Crossover:
    """Return where the ratio crosses 1, from one ratio per size and process.

    Processes that lack a size are left out.

    Raises:
        ValueError: There are fewer than two sizes, or no process has them all.
    """
    sizes = sorted(ratios)
    shared = sorted(set.intersection(*(set(ratios[size]) for size in sizes))) if sizes else []
    if len(sizes) < 2 or not shared:
        raise ValueError("a crossover needs two sizes and a process that has them all")
    rows = [[math.log(ratios[size][process]) for size in sizes] for process in shared]

    def of(drawn: Sequence[Sequence[float]]) -> float:
        middle = [median(column) for column in zip(*drawn, strict=True)]
        return crossing(sizes, middle, is_rising=is_rising)

    return _bounded(of(rows), _range(rows, of, seed), sizes, len(rows), is_rising=is_rising)


def _range(
    rows: Sequence[Sequence[float]], of: Callable[[Sequence[Sequence[float]]], float], seed: int
) -> tuple[float, float] | None:
    if len(rows) < LEAST_PAIRS:
        return None
    if len(rows) < _BOOTSTRAP_PAIRS:
        # As everywhere with so few: the plain range.
        each = [of([row]) for row in rows]
        return min(each), max(each)
    rng = random.Random(seed)
    drawn = sorted(of(rng.choices(rows, k=len(rows))) for _ in range(_RESAMPLES))
    cut = round((1 - _COVERED) / 2 * _RESAMPLES)
    return drawn[cut], drawn[-1 - cut]


def _bounded(
    value: float,
    interval: tuple[float, float] | None,
    sizes: Sequence[float],
    n: int,
    *,
    is_rising: bool,
) -> Crossover:
    is_ahead = (value == 0.0) is is_rising
    if interval is None:
        side = [_side(is_ahead=is_ahead)] if _finite(value) is None else []
        few = Reason(ReasonCode.FEW_PROCESSES)
        return Crossover(_finite(value), None, None, n, (*side, few))
    low, high = interval
    if _finite(value) is None and low == high:
        # Every resample agrees.
        return Crossover(None, None, None, n, (_side(is_ahead=is_ahead),))
    reasons = []
    if _finite(value) is None:
        reasons.append(_side(is_ahead=is_ahead, by_estimate=True))
    if low < sizes[0]:
        reasons.append(Reason(ReasonCode.BELOW_MEASURED))
    if high > sizes[-1]:
        reasons.append(Reason(ReasonCode.BEYOND_MEASURED))
    low, high = (min(max(bound, sizes[0]), sizes[-1]) for bound in interval)
    return Crossover(_finite(value), low, high, n, tuple(reasons))


def _side(*, is_ahead: bool, by_estimate: bool = False) -> Reason:
    if by_estimate:
        return Reason(ReasonCode.AHEAD_BY_ESTIMATE if is_ahead else ReasonCode.BEHIND_BY_ESTIMATE)
    return Reason(ReasonCode.AHEAD if is_ahead else ReasonCode.BEHIND)


def _finite(value: float) -> float | None:
    return None if value in {0.0, math.inf} else value
