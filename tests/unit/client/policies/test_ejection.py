"""Endpoints that fail again and again are left alone (Envoy's outlier detection)."""

import pytest

from capnp_rig.client.policies import Endpoint, OutlierEjection
from capnp_rig.objects.errors import ClientError, Overloaded, RemoteError, UsageError
from tests.unit.client.policies.calls import attempt, endpoint

LATE = Overloaded("busy")


def fail(policy: OutlierEjection, where: Endpoint, *, times: int, at_s: float) -> None:
    for _ in range(times):
        policy.ended(attempt(where, LATE, began_s=at_s, ended_s=at_s))


def joined(policy: OutlierEjection, count: int) -> list[Endpoint]:
    endpoints = [endpoint(port) for port in range(1, count + 1)]
    for each in endpoints:
        policy.joined(each)
    return endpoints


def test_five_failures_in_a_row_eject_for_a_second() -> None:
    policy = OutlierEjection()
    bad, good = joined(policy, 2)
    fail(policy, bad, times=4, at_s=10.0)
    assert policy.narrow([bad, good], 10.0) == [bad, good]
    fail(policy, bad, times=1, at_s=10.0)
    assert policy.narrow([bad, good], 10.9) == [good]
    assert policy.is_ejected(bad, 10.9)
    assert policy.narrow([bad, good], 11.0) == [bad, good]


@pytest.mark.parametrize("answer", [None, RemoteError("failed")])
def test_an_answer_forgets_the_failures(answer: ClientError | None) -> None:
    policy = OutlierEjection()
    bad, good = joined(policy, 2)
    fail(policy, bad, times=4, at_s=10.0)
    policy.ended(attempt(bad, answer, began_s=10.0, ended_s=10.1))
    fail(policy, bad, times=4, at_s=11.0)
    assert policy.narrow([bad, good], 11.0) == [bad, good]


def test_the_first_attempt_after_an_ejection_decides() -> None:
    policy = OutlierEjection()
    bad, good = joined(policy, 2)
    fail(policy, bad, times=5, at_s=10.0)
    # Those that had begun before say nothing.
    policy.ended(attempt(bad, LATE, began_s=9.0, ended_s=10.5))
    policy.ended(attempt(bad, began_s=9.0, ended_s=10.6))
    assert policy.narrow([bad, good], 10.9) == [good]
    fail(policy, bad, times=1, at_s=11.5)
    assert policy.narrow([bad, good], 13.4) == [good]
    assert policy.narrow([bad, good], 13.5) == [bad, good]
    policy.ended(attempt(bad, began_s=14.0, ended_s=14.1))
    fail(policy, bad, times=4, at_s=15.0)
    assert policy.narrow([bad, good], 15.0) == [bad, good]


def test_ejections_last_thirty_seconds_at_most() -> None:
    policy = OutlierEjection()
    bad, _good = joined(policy, 2)
    now_s = 0.0
    fail(policy, bad, times=4, at_s=now_s)
    for lasts_s in (1, 2, 4, 8, 16, 30, 30):
        fail(policy, bad, times=1, at_s=now_s)
        assert policy.is_ejected(bad, now_s + lasts_s - 0.1)
        now_s += lasts_s
        assert not policy.is_ejected(bad, now_s)


def test_at_most_half_of_them_are_out() -> None:
    policy = OutlierEjection()
    endpoints = joined(policy, 3)
    for each in endpoints:
        fail(policy, each, times=9, at_s=10.0)
    assert policy.narrow(endpoints, 10.5) == endpoints[1:]


def test_a_single_endpoint_is_never_out() -> None:
    policy = OutlierEjection()
    (only,) = joined(policy, 1)
    fail(policy, only, times=20, at_s=10.0)
    assert policy.narrow([only], 10.0) == [only]


def test_what_was_given_up_says_nothing() -> None:
    policy = OutlierEjection()
    bad, good = joined(policy, 2)
    fail(policy, bad, times=4, at_s=10.0)
    policy.ended(attempt(bad, began_s=10.0, ended_s=10.0, was_given_up=True))
    fail(policy, bad, times=1, at_s=10.0)
    assert policy.narrow([bad, good], 10.0) == [good]


def test_who_leaves_is_forgotten() -> None:
    policy = OutlierEjection()
    bad, good = joined(policy, 2)
    fail(policy, bad, times=5, at_s=10.0)
    policy.left(bad)
    assert not policy.is_ejected(bad, 10.0)
    fail(policy, good, times=5, at_s=10.0)
    assert policy.narrow([good], 10.0) == [good]
    assert not policy.is_ejected(good, 10.0)


@pytest.mark.parametrize(
    "bad", [{"failures": 0}, {"base_s": 0}, {"base_s": 60}, {"most_ejected": 1.5}]
)
def test_limits_are_no_nonsense(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        OutlierEjection(**bad)  # type: ignore[arg-type]
