"""What the loss of one connection, with all calls in flight there, means for where calls go."""

from capnp_rig.client.policies import Attempt, Call, Endpoint, OutlierEjection
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
