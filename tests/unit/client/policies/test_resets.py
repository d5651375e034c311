"""What the loss of one connection, with all calls in flight there, means for where calls go."""

import pytest

from capnp_rig.client.policies import Attempt, Balance, Call, Endpoint, OutlierEjection
from capnp_rig.objects.errors import ClientError, DeadlineExceeded, Disconnected
from capnp_rig.rigcli.address import parse_address


def make_endpoint() -> Endpoint:
    return Endpoint(parse_address("127.0.0.1:5000"))


def ended(
    endpoint: Endpoint, started_s: float, ended_s: float, error: ClientError | None = None
) -> Attempt:
    attempt = Attempt(Call("read", started_s, None), endpoint, None, started_s)
    attempt.ended_s, attempt.error = ended_s, error
    return attempt


def ejection_of(*endpoints: Endpoint) -> OutlierEjection:
    policy = OutlierEjection(failures=3)
    for endpoint in endpoints:
        policy.joined(endpoint)
    return policy


def test_calls_that_a_connection_loses_together_are_one_failure() -> None:
    endpoint = make_endpoint()
    policy = ejection_of(endpoint, make_endpoint())
    for reset_s in (10.0, 11.0):
        for number in range(9):
            policy.ended(ended(endpoint, reset_s - 0.01 * number, reset_s, Disconnected("reset")))
        assert not policy.is_ejected(endpoint, reset_s)
    policy.ended(ended(endpoint, 11.5, 12.0, Disconnected("reset")))
    assert policy.is_ejected(endpoint, 12.0)


def test_calls_that_are_too_late_together_are_a_failure_each() -> None:
    endpoint = make_endpoint()
    policy = ejection_of(endpoint, make_endpoint())
    for _ in range(3):
        policy.ended(ended(endpoint, 9.0, 10.0, DeadlineExceeded("too late")))
    assert policy.is_ejected(endpoint, 10.0)


def test_a_server_that_loses_a_call_now_and_then_is_preferred_to_a_slow_one() -> None:
    flaky, slow, balance = make_endpoint(), make_endpoint(), Balance()
    now_s = 10.0
    for number in range(1000):
        now_s += 0.01
        error = Disconnected("reset") if number % 50 == 49 else None
        balance.ended(ended(flaky, now_s - 0.005, now_s, error))
        balance.ended(ended(slow, now_s - 0.05, now_s))
    assert 0.005 < balance.load(flaky, now_s) < 0.02
    assert balance.load(slow, now_s) == pytest.approx(0.05)


def test_a_server_that_only_fails_is_as_bad_as_its_failures_cost() -> None:
    endpoint, balance = make_endpoint(), Balance(decay_s=1.0)
    balance.ended(ended(endpoint, 9.995, 10.0))
    for number in range(500):
        now_s = 10.01 + number * 0.01
        balance.ended(ended(endpoint, now_s - 0.001, now_s, Disconnected("reset")))
    assert balance.load(endpoint, now_s) == pytest.approx(0.1, rel=0.02)
    # What took longer counts as long as it took, at once.
    balance.ended(ended(endpoint, now_s, now_s + 2, DeadlineExceeded("too late")))
    assert endpoint.latency_s == 2
    first = make_endpoint()
    balance.ended(ended(first, 9.999, 10.0, Disconnected("reset")))
    assert first.latency_s == 0.1
