"""Ratios of paired timings: estimate, interval, noise floor and verdict (no I/O, no clock).

The unit is a fresh process, which times baseline and candidate side by side. Per process
``d = ln(baseline / candidate)``, so above 1 the candidate is faster. The estimate is
``exp(median d)``; its interval is over processes, never over the rounds inside one, which are
correlated. The baseline against itself (A/A) gives the noise floor that every ratio is held
against.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import NormalDist, median

from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode, text_of

# Fewer pairs have no 95 % interval of their median: the range of n covers 1 - 2 ** (1 - n).
LEAST_PAIRS = 6
_COVERED = 0.95
# How far apart two are that still count as the same, where the user does not say.
MARGIN = 0.05
# How often as many more units as `more_units` asks for are enough.
_POWER = 0.8
_NORMAL = NormalDist()


class Verdict(StrEnum):
    """How far to trust a figure, and what a ratio says about the candidate.

    A run as a whole is ``valid``, ``void`` where its figures are not to be trusted, or ``failed``
    where a call failed or its reply was wrong, whatever the figures are worth. A baseline's ratio
    to itself has no verdict of its own: it is a ``floor``, which a bench of codecs calls ``A/A``.
    """

    OK = "ok"
    VALID = "valid"
    AT_LEAST = "at least"
    FLOOR = "floor"
    AA = "A/A"
    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    FAILED = "failed"
    CANNOT_TELL = "cannot tell"
    VOID = "void"

    @classmethod
    def _missing_(cls, value: object) -> "Verdict | None":
        # Results of earlier versions have this word for it.
        return cls.CANNOT_TELL if value == "inconclusive" else None


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the range that holds it with 95 % confidence, over `n` processes.

    `low` and `high` are None with too few processes for an interval.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    def reaching(self, value: float) -> "Interval":
        """Return the interval of `value`, made wide enough to hold it."""
        if self.low is None or self.high is None:
            return replace(self, value=value)
        return Interval(value, min(self.low, value), max(self.high, value), self.n)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and, where it is not plain, the reasons."""

    verdict: Verdict
    reasons: tuple[Reason, ...] = ()

    @property
    def reason(self) -> str:
        """The reasons in words, empty where there are none."""
        return text_of(self.reasons)


def interval_of_median(values: Sequence[float]) -> Interval:
    """Return the median of one value per process, with its interval.

    A range of sorted values holds the median with a known chance, whatever the distribution;
    between two such ranges it is interpolated (Hettmansperger and Sheather 1986, Statistics and
    Probability Letters 4:75). From 6 values on it holds the truth in 94 to 96 % of all cases.

    Raises:
        ValueError: There is no value.
    """
    if not values:
        raise ValueError("no values")
    count = len(values)
    if count < LEAST_PAIRS:
        return Interval(median(values), None, None, count)
    ordered = sorted(values)
    # The range from the `cut`-th value to the same from the end is the last that holds 95 %.
    cut = next(cut for cut in range(1, count) if _held(count, cut + 1) < _COVERED)
    wide, narrow = _held(count, cut), _held(count, cut + 1)
    excess = (wide - _COVERED) / (wide - narrow)
    inwards = (count - cut) * excess / (cut + (count - 2 * cut) * excess)
    low, high = (
        (1 - inwards) * each[cut - 1] + inwards * each[cut] for each in (ordered, ordered[::-1])
    )
    return Interval(median(values), low, high, count)


def _held(count: int, cut: int) -> float:
    """Return how often the range from the `cut`-th to the `cut`-th last value holds the median."""
    return 1 - sum(math.comb(count, outside) for outside in range(cut)) / (1 << (count - 1))


def paired_ratio(baseline: Sequence[float], candidate: Sequence[float]) -> Interval:
    """Return how many times faster the candidate is, from one time per process each.

    Raises:
        ValueError: The processes do not pair up, or a time is not positive.
    """
    pairs = list(zip(baseline, candidate, strict=True))
    logs = interval_of_median([math.log(old / new) for old, new in pairs])
    low = None if logs.low is None else math.exp(logs.low)
    high = None if logs.high is None else math.exp(logs.high)
    return Interval(math.exp(logs.value), low, high, logs.n)


def noise_floor(same: Interval) -> float | None:
    """Return the far end of an A/A interval as a share: 0.03 where it reaches 3 % off.

    None where it has no interval.
    """
    if same.low is None or same.high is None:
        return None
    return math.exp(max(abs(math.log(same.low)), abs(math.log(same.high)))) - 1


def judge(
    ratio: Interval, floor: float | None, *, margin: float = MARGIN, unit: str | None = "pairs"
) -> Judgement:
    """Hold a ratio against 1, the noise floor of its baseline and the margin of the user.

    `floor` is a share as `noise_floor` returns; `margin`, over 0, is a share, too: 0.05 calls
    what lies between 1/1.05 and 1.05 the same. Noise never widens it. Where nobody can tell, the
    second reason says how many more of the `unit` it would take; None where more would not help.
    """
    if ratio.low is None or ratio.high is None:
        return Judgement(Verdict.VOID, (Reason.of(ReasonCode.FEW_PAIRS, least=LEAST_PAIRS),))
    if floor is None:
        return Judgement(Verdict.VOID, (Reason(ReasonCode.NO_FLOOR),))
    is_apart = not ratio.low <= 1 <= ratio.high
    if is_apart and abs(math.log(ratio.value)) > math.log1p(floor):
        return Judgement(Verdict.FASTER if ratio.value > 1 else Verdict.SLOWER)
    if not is_apart and 1 / (1 + margin) <= ratio.low and ratio.high <= 1 + margin:
        return Judgement(Verdict.SAME)
    why = Reason.of(ReasonCode.WIDER_THAN_MARGIN, margin=margin)
    if is_apart:
        why = Reason.of(ReasonCode.WITHIN_FLOOR, floor=floor)
    if unit is None:
        return Judgement(Verdict.CANNOT_TELL, (why,))
    more = more_units(ratio, ratio.low, ratio.high, floor, margin)
    needed = Reason.of(ReasonCode.MORE_NEEDED, count=more, unit=unit, power=_POWER)
    return Judgement(Verdict.CANNOT_TELL, (why, needed))


def more_units(ratio: Interval, low: float, high: float, floor: float, margin: float) -> int:
    """Return how many more units would tell, in four of five cases, if estimate and scatter stay.

    The half-width of an interval falls with the root of n. To see a difference, the distance
    from 1 must exceed it by what a power of 80 % asks for, and exceed the floor, an interval's
    end as well; to see that there is none, the same holds for the room between estimate and
    margin. So n grows by ((1 + z80 / z97.5) half-width / distance) squared (NIST/SEMATECH
    e-Handbook of Statistical Methods, 7.2.2.2).
    """
    distance = abs(math.log(ratio.value))
    reach = max(math.log(high / ratio.value), math.log(ratio.value / low))
    reach *= 1 + _NORMAL.inv_cdf(_POWER) / _NORMAL.inv_cdf((1 + _COVERED) / 2)
    factors = [max(reach, math.log1p(floor)) / distance] if distance else []
    room = math.log1p(margin) - distance
    if room > 0 and low <= 1 <= high:
        factors.append(reach / room)
    return max(1, math.ceil(ratio.n * min(factors) ** 2) - ratio.n)
