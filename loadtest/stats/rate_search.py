"""The highest rate that holds: which probe comes next, and what the probes say so far (no I/O).

The bracket is the lowest rate that fails, and the highest below it that holds. While it is

    open above   double the rate, or try the highest allowed where it was given
    open below   halve it
    too wide     try the middle, until the ends are `PRECISION` apart
    unsure       repeat every rate, in shuffled order, up to `REPEATS` probes
    unverified   verify both ends, in shuffled order

After each probe the bracket is drawn anew. So a rate that fails its verification becomes the upper
end, and the search goes on below it; a rate that failed by chance is passed over. Once a
verification has failed, repeats alone are not trusted: the lower end is verified before the middle
above it is tried.

A probe that failed on a disturbed machine proves nothing of the server, and is made again. Where
the machine stays as it is, such probes count in the end, and the answer says so.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from capnp_rig.loadtest.stats.reasons import ReasonCode
from capnp_rig.loadtest.stats.slo import Outcome

# Half of the 5 % that are promised: one step down after a failed verification stays within them.
PRECISION = 1.025
REPEATS = 3
VERIFICATIONS = 5
# Of so many verifications, one may fail: the machines are shared.
VERIFIED_FROM = 4
# Of each rate, before disturbed probes count.
MOST_DISCARDED = 3
# Three times what a search over six decades takes.
MOST_PROBES = 200


class Limit(StrEnum):
    """Who was the limit of a search.

    MACHINE: it kept the server or the generator from a CPU. SEARCH: all held up to the highest rate
    allowed. UNKNOWN: it ended before a rate failed.
    """

    SERVER = "server"
    GENERATOR = "generator"
    MACHINE = "machine"
    SEARCH = "search"
    UNKNOWN = "unknown"


_LIMITS: Mapping[Outcome, Limit] = {
    Outcome.FAILED: Limit.SERVER,
    Outcome.GENERATOR: Limit.GENERATOR,
    Outcome.DISTURBED: Limit.MACHINE,
}
# Where the limit is no property of the server, its rate is a lower bound.
LOWER_BOUNDS: Mapping[str, ReasonCode] = {
    Limit.GENERATOR: ReasonCode.GENERATOR_WAS_LIMIT,
    Limit.MACHINE: ReasonCode.MACHINE_WAS_LIMIT,
}


class Purpose(StrEnum):
    """What a probe is for."""

    SEARCH = "search"
    REPEAT = "repeat"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class Probe:
    """Asks for one run at `rate_hz`; `left` is how many more there will be, as far as is known."""

    rate_hz: float
    purpose: Purpose
    left: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a search, or of as much of it as there was.

    `rate_hz` is the highest verified rate, None where there is none; `failing_hz` the lowest that
    does not hold, None where all tried ones did; `limit` says who was the limit there. `verified`
    is how many verifications held. `outcomes` has all probes that count by rate.
    """

    rate_hz: float | None
    failing_hz: float | None
    limit: Limit
    verified: int
    outcomes: Mapping[float, list[Outcome]] = field(default_factory=dict)


class RateSearch:
    """A search from `start_hz` up to `highest_hz`; ask for the `next_probe`, `add` its outcome.

    With `tries_highest` it tries the highest rate at once, else it doubles the rate until one
    fails. Below `lowest_hz` a probe has too few calls to prove anything. The same `seed` and
    outcomes give the same probes.
    """

    def __init__(
        self,
        start_hz: float,
        highest_hz: float,
        *,
        seed: int,
        lowest_hz: float = 1.0,
        tries_highest: bool = False,
    ) -> None:
        self._highest_hz = highest_hz
        self._lowest_hz = min(_round(lowest_hz), highest_hz)
        self._start_hz = min(max(start_hz, self._lowest_hz), highest_hz)
        self._factor = math.inf if tries_highest else 2.0
        self._random = random.Random(seed)
        self._tries: dict[float, list[Outcome]] = {}
        self._verifications: dict[float, list[Outcome]] = {}
        self._discarded: Counter[float] = Counter()

    def next_probe(self) -> Probe | None:
        """Return what to probe, None at the end."""
        counted = sum(map(len, (*self._tries.values(), *self._verifications.values())))
        if counted + self._discarded.total() >= MOST_PROBES:
            return None
        low, high = self._bracket()
        if low is not None and False in map(self._verdict, self._tries):
            settling = self._settle([low], [low])
            if settling is not None:
                return settling
        new_hz = self._new_rate(low, high)
        if new_hz is not None:
            return Probe(new_hz, Purpose.SEARCH, self._left())
        # Where nothing holds, there is nothing to verify.
        ends = [] if low is None else [low] if high is None else [low, high]
        return self._settle(self._tries, ends)

    def _settle(self, repeated: Iterable[float], verified: Iterable[float]) -> Probe | None:
        repeats = [rate for rate in repeated if len(self._tries[rate]) < REPEATS]
        if repeats:
            return Probe(self._random.choice(repeats), Purpose.REPEAT, self._left())
        unverified = [rate for rate in verified if self._verdict(rate) is None]
        if unverified:
            return Probe(self._random.choice(unverified), Purpose.VERIFY, self._left())
        return None

    def add(self, probe: Probe, outcome: Outcome) -> None:
        """Note what came of a probe."""
        is_disturbed = outcome is Outcome.DISTURBED
        if is_disturbed and self._discarded[probe.rate_hz] < MOST_DISCARDED:
            self._discarded[probe.rate_hz] += 1
            return
        kept = self._verifications if probe.purpose is Purpose.VERIFY else self._tries
        kept.setdefault(probe.rate_hz, []).append(outcome)

    def answer(self) -> Answer:
        """Return what the probes say so far."""
        low, high = self._bracket()
        rate_hz = low if low is not None and self._verdict(low) else None
        kept = 0 if rate_hz is None else _held(self._verifications[rate_hz])
        outcomes = {
            rate: [*tries, *self._verifications.get(rate, ())]
            for rate, tries in sorted(self._tries.items())
        }
        if high is None:
            limit = Limit.SEARCH if low == self._highest_hz else Limit.UNKNOWN
            return Answer(rate_hz, None, limit, kept, outcomes)
        bad = Counter(each for each in outcomes[high] if each is not Outcome.HELD)
        cause, count = bad.most_common(1)[0]
        limit = _LIMITS[cause] if count * 2 > bad.total() else Limit.SERVER
        return Answer(rate_hz, high, limit, kept, outcomes)

    def _verdict(self, rate_hz: float) -> bool | None:
        """Return whether a rate was verified to hold, None while that is open."""
        verifications = self._verifications.get(rate_hz, [])
        failed = len(verifications) - _held(verifications)
        if failed > VERIFICATIONS - VERIFIED_FROM:
            return False
        return True if len(verifications) == VERIFICATIONS else None

    def _holds(self, rate_hz: float) -> bool:
        verdict = self._verdict(rate_hz)
        if verdict is not None:
            return verdict
        tries = self._tries[rate_hz]
        # After two that differ, the first counts until the third has come.
        return _held(tries) * 2 > len(tries) - (tries[0] is Outcome.HELD)

    def _bracket(self) -> tuple[float | None, float | None]:
        """Return the highest rate that holds below the lowest that fails, and the latter."""
        high = min((rate for rate in self._tries if not self._holds(rate)), default=None)
        low = max((rate for rate in self._tries if rate < (high or math.inf)), default=None)
        return low, high

    def _new_rate(self, low: float | None, high: float | None) -> float | None:
        """Return the rate to try that a bracket lacks, None where it is closed."""
        if low is None and high is None:
            return self._start_hz
        if high is None:
            assert low is not None
            rate_hz = min(_round(low * self._factor), self._highest_hz)
        elif low is None:
            rate_hz = max(_round(high / 2), self._lowest_hz)
        elif high / low > PRECISION:
            rate_hz = _round(math.sqrt(low * high))
        else:
            return None
        return None if rate_hz in self._tries else rate_hz

    def _left(self) -> int:
        """Return how many probes there will be if each comes out as the bracket says."""
        low, high = self._bracket()
        wide = 2.0 if low is None or high is None else high / low
        new = math.ceil(max(math.log2(math.log(wide) / math.log(PRECISION)), 0))
        repeats = sum(max(REPEATS - len(tries), 0) for tries in self._tries.values())
        # Two failed ones settle the upper end.
        verifying = self._left_of(low, VERIFICATIONS)
        verifying += self._left_of(high, VERIFICATIONS - VERIFIED_FROM + 1)
        return max(new * REPEATS + repeats + verifying, 1)

    def _left_of(self, rate_hz: float | None, verifications: int) -> int:
        if rate_hz is None:
            return verifications
        if self._verdict(rate_hz) is not None:
            return 0
        return max(verifications - len(self._verifications.get(rate_hz, ())), 1)


def _held(outcomes: Sequence[Outcome]) -> int:
    return sum(each is Outcome.HELD for each in outcomes)


def _round(rate_hz: float) -> float:
    """Return a rate with three digits: nobody asks for 17,782.794."""
    return float(f"{rate_hz:.3g}")
