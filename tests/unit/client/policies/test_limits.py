"""Deadlines, and how many calls run or wait."""

import pytest

from capnp_rig.client.policies import Call, ConcurrencyLimit, Deadline, LoadShed
from capnp_rig.objects.errors import Overloaded, UsageError


def test_a_deadline_is_for_calls_that_have_none() -> None:
    policy = Deadline(2.0)
    plain, own = Call("read", 100.0), Call("read", 100.0, 5.0)
    policy.begin(plain)
    policy.begin(own)
    assert (plain.deadline_s, own.deadline_s) == (102.0, 105.0)


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "1"])
def test_a_deadline_is_finite(bad: float) -> None:
    with pytest.raises(UsageError, match="a timeout is"):
        Deadline(bad)


def test_a_limit_has_so_many_places() -> None:
    limit = ConcurrencyLimit(2)
    calls = [Call("read", 0.0) for _ in range(3)]
    for each in calls[:2]:
        assert limit.admits(each)
        limit.enter(each)
    assert not limit.admits(calls[2])
    limit.leave(calls[0])
    assert limit.admits(calls[2])
    assert limit.running == 1


def test_a_call_that_is_gone_has_no_place() -> None:
    limit = ConcurrencyLimit(1)
    limit.enter(Call("read", 0.0))
    assert limit.running == 0


def test_load_is_shed_where_too_many_wait() -> None:
    shed = LoadShed(2)
    assert shed.refusal(Call("read", 0.0), waiting=1) is None
    error = shed.refusal(Call("read", 0.0), waiting=2)
    assert isinstance(error, Overloaded)
    assert error.did_not_run
    assert "2 calls wait" in str(error)


@pytest.mark.parametrize("make", [lambda: ConcurrencyLimit(0), lambda: LoadShed(-1)])
def test_limits_are_no_nonsense(make: "type[ConcurrencyLimit]") -> None:
    with pytest.raises(UsageError):
        make()
