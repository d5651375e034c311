"""Which failures allow another attempt, when, and how many in all (faults.md, F-5, F-6)."""

import random
from collections.abc import Callable

import pytest

from capnp_rig.client.policies import Retry, RetryBudget
from capnp_rig.objects.errors import (
    ClientError,
    ConnectError,
    DeadlineExceeded,
    Disconnected,
    Overloaded,
    ProtocolError,
    RemoteError,
    UsageError,
    UsedAfterFork,
    not_sent,
)
from tests.unit.client.policies.calls import attempt, call, endpoint

AMPLE = RetryBudget(ratio=0, per_s=1_000)


@pytest.mark.parametrize(
    ("kind", "always", "if_idempotent"),
    [
        (ConnectError, True, True),
        (Overloaded, True, True),
        (UsedAfterFork, True, True),
        (lambda text: not_sent(Disconnected(text)), True, True),
        (Disconnected, False, True),
        (RemoteError, False, False),
        (DeadlineExceeded, False, False),
        (ProtocolError, False, False),
    ],
)
def test_f6_what_may_run_again_is_tried_again(
    kind: Callable[[str], ClientError], always: bool, if_idempotent: bool
) -> None:
    retry = Retry(budget=AMPLE)
    for is_idempotent, expected in ((False, always), (True, if_idempotent)):
        failed = attempt(endpoint(), kind("why"), of=call(is_idempotent=is_idempotent))
        assert (retry.retry_s(failed) is not None) is expected


def test_pauses_are_random_up_to_a_limit_that_doubles_to_a_second() -> None:
    retry = Retry(9, budget=AMPLE, random_source=random.Random(3))
    for attempts, most_s in ((1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (5, 1.0), (8, 1.0)):
        begun = call()
        begun.attempts = attempts
        failed = attempt(endpoint(), Overloaded("busy"), of=begun)
        pauses = [retry.retry_s(failed) or 0.0 for _ in range(300)]
        assert max(pauses) <= most_s
        assert max(pauses) > 0.9 * most_s
        assert min(pauses) < 0.1 * most_s


def test_the_last_attempt_is_the_last() -> None:
    begun = call()
    begun.attempts = 3
    assert Retry(budget=AMPLE).retry_s(attempt(endpoint(), Overloaded("busy"), of=begun)) is None


def test_f2_a_pause_beyond_the_deadline_is_not_begun() -> None:
    class Longest(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return max(a, b)

    retry = Retry(budget=AMPLE, random_source=Longest())
    for timeout_s, pause_s in ((0.1005, None), (0.1015, 0.1)):
        begun = call(timeout_s=timeout_s)
        assert retry.retry_s(attempt(endpoint(), Overloaded("busy"), of=begun)) == pause_s


def test_f5_a_budget_allows_a_fifth_of_the_calls_and_ten_a_second() -> None:
    budget = RetryBudget()
    for _ in range(1_000):
        budget.deposit(5.5)
    allowed = sum(budget.withdraw(5.9) for _ in range(1_000))
    assert allowed == 1_000 // 5 + 10 * 10


def test_f5_a_budget_looks_back_ten_seconds() -> None:
    budget = RetryBudget(ratio=0.5, per_s=0)
    budget.deposit(100.0)
    budget.deposit(100.9)
    assert budget.withdraw(109.9)
    assert not budget.withdraw(109.9)
    # The two calls are gone, and the retry counts for as long again.
    assert not budget.withdraw(110.0)
    for _ in range(4):
        budget.deposit(118.0)
    assert budget.withdraw(118.5)
    assert not budget.withdraw(118.9)
    assert budget.withdraw(119.95)
    assert not budget.withdraw(140.0)


def test_f5_a_retry_without_budget_is_not_made() -> None:
    retry = Retry(budget=RetryBudget(ratio=0, per_s=0))
    assert retry.retry_s(attempt(endpoint(), Overloaded("busy"))) is None


def test_f5_by_default_all_share_the_budget_of_the_process() -> None:
    assert Retry().budget is Retry().budget


@pytest.mark.parametrize("bad", [{"ratio": -1}, {"per_s": float("nan")}, {"ratio": float("inf")}])
def test_a_budget_is_no_nonsense(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="0 or more"):
        RetryBudget(**bad)


def test_there_is_a_first_attempt() -> None:
    with pytest.raises(UsageError, match="at least 1 attempt"):
        Retry(0)
