"""A second attempt beside the first one, where that takes long."""

import math

from capnp_rig.client.policies.budget import PROCESS_BUDGET, RetryBudget
from capnp_rig.client.policies.policy import Attempt, Call, Policy
from capnp_rig.objects.errors import UsageError

# Each bucket of a latency ends 5 % above its start; the first one at a microsecond.
_GROWTH = 1.05
_FIRST_S = 1e-6
_BUCKETS = 400
# Latencies count for one to two of these times.
_PERIOD_S = 10.0
_FEWEST = 20
_LOOK_AGAIN = 64
# A call that is slow can wait; one that is lost needs its retry.
_PART_OF_BUDGET = 0.5


class RecentLatencies:
    """A histogram of the latencies of the last 10 to 20 s, to 5 %."""

    __slots__ = ("_began_s", "_current", "_previous")

    def __init__(self) -> None:
        self._current = [0] * _BUCKETS
        self._previous = [0] * _BUCKETS
        self._began_s = -math.inf

    def record(self, latency_s: float, now_s: float) -> None:
        """Count a latency."""
        if now_s - self._began_s >= _PERIOD_S:
            is_recent = now_s - self._began_s < 2 * _PERIOD_S
            self._previous = self._current if is_recent else [0] * _BUCKETS
            self._current = [0] * _BUCKETS
            self._began_s = now_s
        place = math.ceil(math.log(max(latency_s, _FIRST_S) / _FIRST_S) / math.log(_GROWTH))
        self._current[min(place, _BUCKETS - 1)] += 1

    def quantile(self, part: float) -> float | None:
        """Return the latency in seconds that the `part` of them is below, None if there are few."""
        counts = [one + other for one, other in zip(self._current, self._previous, strict=True)]
        total = sum(counts)
        if total < _FEWEST:
            return None
        rest = part * total
        for place, count in enumerate(counts):
            rest -= count
            if rest <= 0:
                return float(_FIRST_S * _GROWTH**place)
        return None


class Hedge(Policy):
    """Begins a second attempt of a call that takes longer than 95 % of them; the first answer wins.

    The other attempt is cancelled. Only methods that are declared idempotent are hedged, not before
    20 latencies are known, and within half of the budget: the rest is left to retries. It goes to
    another endpoint if there is one. After "The Tail at Scale" (Dean and Barroso, 2013), and
    Tower's `hedge`.
    """

    __slots__ = ("_after_s", "_latencies", "_since_look", "budget", "part")

    def __init__(self, part: float = 0.95, *, budget: RetryBudget | None = None) -> None:
        """Hedge beyond the quantile `part`, above 0 and below 1.

        Raises:
            UsageError: It is not.
        """
        if not 0 < part < 1:
            raise UsageError(f"a hedge begins at a quantile between 0 and 1, not {part}")
        self.part = part
        self.budget: RetryBudget = PROCESS_BUDGET if budget is None else budget
        self._latencies = RecentLatencies()
        self._after_s: float | None = None
        self._since_look = 0

    def hedge_s(self, call: Call) -> float | None:
        """Return the quantile, None for a method that must not run twice."""
        return self._after_s if call.is_idempotent else None

    def may_hedge(self, call: Call, now_s: float) -> bool:
        """Take a second attempt from the budget."""
        return self.budget.withdraw(now_s, _PART_OF_BUDGET)

    def ended(self, attempt: Attempt) -> None:
        """Learn how long an answer takes."""
        now_s = attempt.ended_s
        assert now_s is not None
        if attempt.error is not None or attempt.was_given_up:
            return
        self._latencies.record(now_s - attempt.started_s, now_s)
        self._since_look += 1
        if self._after_s is None or self._since_look >= _LOOK_AGAIN:
            self._since_look = 0
            self._after_s = self._latencies.quantile(self.part)
