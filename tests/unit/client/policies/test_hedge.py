"""When a second attempt begins beside the first ("The Tail at Scale")."""

import pytest

from capnp_rig.client.policies import Hedge, RetryBudget
from capnp_rig.client.policies.hedge import RecentLatencies
from capnp_rig.objects.errors import Disconnected, UsageError
from tests.unit.client.policies.calls import attempt, call, endpoint


def learnt(*latencies_s: float) -> Hedge:
    policy = Hedge(budget=RetryBudget(ratio=0, per_s=0.1))
    for each in latencies_s:
        policy.ended(attempt(endpoint(), ended_s=each))
    return policy


def test_it_begins_beyond_the_95th_percentile_to_5_percent() -> None:
    policy = learnt(*[0.001 * number for number in range(1, 101)])
    after_s = policy.hedge_s(call(is_idempotent=True))
    assert after_s is not None
    # It looks once 20 are known, and again after 64.
    assert 0.95 * 0.084 <= after_s <= 0.95 * 0.084 * 1.05


def test_only_what_may_run_twice_is_hedged() -> None:
    assert learnt(*[0.001] * 100).hedge_s(call()) is None


def test_few_latencies_say_nothing() -> None:
    assert learnt(*[0.001] * 19).hedge_s(call(is_idempotent=True)) is None
    assert learnt(*[0.001] * 20).hedge_s(call(is_idempotent=True)) is not None


def test_failures_and_cancelled_attempts_have_no_latency() -> None:
    policy = Hedge()
    for _ in range(100):
        policy.ended(attempt(endpoint(), Disconnected("lost")))
        policy.ended(attempt(endpoint(), was_given_up=True))
    assert policy.hedge_s(call(is_idempotent=True)) is None


def test_old_latencies_are_forgotten() -> None:
    latencies = RecentLatencies()
    for _ in range(20):
        latencies.record(1.0, now_s=100.0)
    latencies.record(0.001, now_s=119.9)
    assert latencies.quantile(0.5) == pytest.approx(1.0, rel=0.05)
    latencies.record(0.001, now_s=130.0)
    assert latencies.quantile(0.5) is None


@pytest.mark.parametrize("latency_s", [0.0, 1e-9, 1e-6, 3e-5, 0.5, 100.0])
def test_a_quantile_is_at_most_5_percent_above(latency_s: float) -> None:
    latencies = RecentLatencies()
    for _ in range(20):
        latencies.record(latency_s, now_s=0.0)
    quantile = latencies.quantile(0.95)
    assert quantile is not None
    assert max(latency_s, 1e-6) <= quantile * 1.000001
    assert quantile <= max(latency_s, 1e-6) * 1.0500001


@pytest.mark.parametrize("part", [0, 1, -1, float("nan")])
def test_a_part_is_between_0_and_1(part: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        Hedge(part)
