"""Attempts after the first: which failures allow them, and when."""

import random

from capnp_rig.client.policies.budget import PROCESS_BUDGET, RetryBudget
from capnp_rig.client.policies.policy import Attempt, Call, Policy
from capnp_rig.objects.errors import ClientError, Disconnected, UsageError

ATTEMPTS = 3
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 1.0


class Retry(Policy):
    """Tries a call again after a failure that allows it, elsewhere if there is an elsewhere.

    A call that did not run (`Overloaded`, `ConnectError`, a connection that had ended) may be tried
    again whatever it is. If its outcome is lost (`Disconnected`), only a method that is declared
    idempotent may. What the server has answered, and a deadline that is over, is the end.

    The pause before the second attempt is random between 0 and 0.1 s, twice that before each
    further one, at most 1 s: gRPC's A6 with full jitter. A pause that would end after the call's
    deadline is not begun.
    """

    __slots__ = ("_random", "attempts", "budget")

    def __init__(
        self,
        attempts: int = ATTEMPTS,
        *,
        budget: RetryBudget | None = None,
        random_source: random.Random | None = None,
    ) -> None:
        """Make at most `attempts`, the first one included, within the process's budget by default.

        Raises:
            UsageError: `attempts` is less than 1.
        """
        if attempts < 1:
            raise UsageError(f"a call takes at least 1 attempt, not {attempts}")
        self.attempts = attempts
        self.budget: RetryBudget = PROCESS_BUDGET if budget is None else budget
        self._random = random_source or random.Random()

    def retry_s(self, attempt: Attempt) -> float | None:
        """Return the pause before the next attempt."""
        call, now_s = attempt.call, attempt.ended_s
        assert now_s is not None
        if attempt.error is None or not may_run_again(call, attempt.error):
            return None
        if call.attempts >= self.attempts:
            return None
        most_s = min(_FIRST_BACKOFF_S * 2.0 ** (call.attempts - 1), _LONGEST_BACKOFF_S)
        pause_s = self._random.uniform(0, most_s)
        if now_s + pause_s >= call.deadline_s or not self.budget.withdraw(now_s):
            return None
        return pause_s


def may_run_again(call: Call, error: ClientError) -> bool:
    """Return whether a second attempt cannot run what must not run twice."""
    return error.did_not_run or (call.is_idempotent and isinstance(error, Disconnected))
