"""Hedges and retries draw on one budget."""

from capnp_rig.client.policies import Call, Hedge, RetryBudget


def test_hedges_leave_half_of_the_budget_to_retries() -> None:
    budget = RetryBudget(ratio=0.2, per_s=0)
    hedge, call = Hedge(budget=budget), Call("read", 10.0, None)
    for _ in range(100):
        budget.deposit(10.0)
    assert [hedge.may_hedge(call, 10.0) for _ in range(11)] == [True] * 10 + [False]
    assert [budget.withdraw(10.0) for _ in range(11)] == [True] * 10 + [False]
