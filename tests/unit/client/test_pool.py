"""Which connections a pool makes, closes and hands out, decided without sockets and clocks."""

from collections.abc import Iterable
from typing import Any

import pytest

from capnp_rig.client.channels.pool import Close, Connect, Pool
from capnp_rig.client.channels.pooled import Connection, Sizes, State
from capnp_rig.client.policies import (
    Attempt,
    Call,
    ConcurrencyLimit,
    Deadline,
    Hedge,
    LoadShed,
    OutlierEjection,
    Policy,
    Retry,
    RetryBudget,
    RoundRobin,
)
from capnp_rig.objects.errors import (
    ClientError,
    ConnectError,
    DeadlineExceeded,
    Disconnected,
    Overloaded,
    RemoteError,
    UsageError,
    not_sent,
)
from capnp_rig.rigcli.address import Address, parse_address
from capnp_rig.wire.rpc.messages import ExceptionType

A, B, C = (parse_address(f"{name}:5000") for name in "abc")
REFUSED = ConnectError("refused")
LOST = Disconnected("lost")


class FakeClient:
    """What a connection calls on."""

    holds_capabilities = False


class Rig:
    """A pool with a clock, and what an edge would do."""

    def __init__(self, *addresses: Address, policies: Iterable[Policy] = (), **sizes: Any) -> None:
        waits = sizes.pop("waits_for_ready", False)
        given = {"connections": 1, "calls": 4, "idle_s": 60.0} | sizes
        self.now_s = 1_000.0
        self.pool = Pool([*policies], Sizes(**given), waits_for_ready=waits)
        if addresses:
            self.pool.set_endpoints(addresses, self.now_s)

    def poll(self) -> list[Connection]:
        """Return the connections that are to be made; those that are to be closed, are."""
        commands = self.pool.poll(self.now_s)
        self.closed = [each.client for each in commands if isinstance(each, Close)]
        made = [each.connection for each in commands if isinstance(each, Connect)]
        for connection in made:
            connection.is_begun = True
        return made

    def stand(self, connection: Connection) -> FakeClient:
        client = FakeClient()
        self.pool.connected(connection, client, client, self.now_s)
        return client

    def stand_all(self) -> None:
        """Connect whatever a call would make it connect."""
        call = Call("read", self.now_s, 15.0)
        self.pool.drop(self.pool.wait(call, self.now_s, lambda _: None))
        for connection in self.poll():
            self.stand(connection)

    def call(self, **kwargs: Any) -> Call:
        call = Call("read", self.now_s, kwargs.pop("timeout_s", 15.0))
        for name, value in kwargs.items():
            setattr(call, name, value)
        self.pool.begin(call)
        return call

    def take(self, **kwargs: Any) -> Attempt | None:
        return self.pool.take(self.call(**kwargs), self.now_s)

    def taken(self, **kwargs: Any) -> Attempt:
        attempt = self.take(**kwargs)
        assert attempt is not None
        return attempt

    def wait(self, call: Call | None = None) -> list[Attempt | ClientError]:
        """Let a call wait; return the list that its outcome will be in."""
        outcomes: list[Attempt | ClientError] = []
        self.pool.wait(call or self.call(), self.now_s, outcomes.append)
        return outcomes

    def end(self, attempt: Attempt, error: ClientError | None = None) -> None:
        if error is None:
            self.pool.succeed(attempt, self.now_s)
        else:
            self.pool.fail(attempt, error, self.now_s)

    def states(self) -> dict[str, State]:
        return {str(each.address): each.state for each in self.pool.status(self.now_s)}


def ready(*addresses: Address, **kwargs: Any) -> Rig:
    rig = Rig(*addresses, **kwargs)
    rig.stand_all()
    return rig


# --- connecting


def test_nothing_is_connected_before_a_call_wants_it() -> None:
    rig = Rig(A, B)
    assert rig.poll() == []
    assert rig.states() == {"a:5000": State.IDLE, "b:5000": State.IDLE}


def test_the_first_call_connects_to_every_endpoint() -> None:
    rig = Rig(A, B)
    assert rig.take() is None
    outcomes = rig.wait()
    made = rig.poll()
    assert [each.endpoint.address for each in made] == [A, B]
    assert rig.states() == {"a:5000": State.CONNECTING, "b:5000": State.CONNECTING}
    assert rig.poll() == []
    rig.stand(made[1])
    (attempt,) = outcomes
    assert isinstance(attempt, Attempt)
    assert attempt.endpoint.address == B
    assert rig.states()["b:5000"] is State.READY


def test_a_connection_that_nobody_has_begun_is_asked_for_again() -> None:
    """The edge was interrupted before it could."""
    rig = Rig(A)
    rig.wait()
    (first,) = rig.pool.poll(rig.now_s)
    assert rig.pool.poll(rig.now_s) == [first]
    rig.pool.set_endpoints([B], rig.now_s)
    assert first in rig.pool.poll(rig.now_s)
    assert len(rig.poll()) == 2
    assert rig.poll() == []


def test_eager_ones_are_all_connected_at_once() -> None:
    rig = Rig(A, B, connections=3, is_eager=True)
    assert [each.endpoint.address for each in rig.poll()] == [A, A, A, B, B, B]


def test_another_connection_is_made_where_all_are_busy() -> None:
    rig = ready(A, connections=2, calls=8)
    rig.taken()
    assert rig.poll() == []
    rig.taken()
    (second,) = rig.poll()
    rig.stand(second)
    # The least busy one gets the next calls, and there is no third.
    assert [rig.taken().connection is second for _ in range(2)] == [True, True]
    assert [rig.taken() for _ in range(12)]
    assert rig.poll() == []
    assert rig.take() is None


def test_b15_pauses_between_failures_grow_to_0_8_s_give_or_take_20_percent() -> None:
    rig = Rig(A)
    rig.wait()
    (connection,) = rig.poll()
    pauses = []
    for _ in range(8):
        rig.pool.connect_failed(connection, REFUSED, rig.now_s)
        assert rig.states() == {"a:5000": State.FAILING}
        assert rig.poll() == []
        wake_s = rig.pool.wake_s(rig.now_s)
        pauses.append(wake_s - rig.now_s)
        rig.now_s = wake_s
        (connection,) = rig.poll()
    for pause_s, middle_s in zip(
        pauses, (0.1, 0.16, 0.256, 0.4096, 0.65536, 0.8, 0.8), strict=False
    ):
        assert 0.8 * middle_s <= pause_s <= 1.2 * middle_s
    assert len({round(pause_s, 6) for pause_s in pauses[-3:]}) == 3


def test_connections_that_fail_together_are_one_failure() -> None:
    rig = Rig(A, connections=9, is_eager=True)
    for connection in rig.poll():
        rig.pool.connect_failed(connection, REFUSED, rig.now_s)
    assert rig.pool.wake_s(rig.now_s) <= rig.now_s + 0.12


def test_f5_a_server_that_accepts_and_leaves_is_a_failure_as_well() -> None:
    rig = ready(A)
    connection = rig.taken().connection
    rig.pool.lost(connection, LOST, rig.now_s)
    assert rig.states() == {"a:5000": State.FAILING}
    assert rig.poll() == []


def test_one_that_had_answered_is_connected_again_at_once() -> None:
    rig = ready(A)
    attempt = rig.taken()
    rig.end(attempt)
    rig.pool.lost(attempt.connection, LOST, rig.now_s)
    assert [each.endpoint.address for each in rig.poll()] == [A]


# --- calls that wait


def test_a_call_fails_once_every_endpoint_was_tried_in_vain() -> None:
    rig = Rig(A, B)
    outcomes = rig.wait()
    first, second = rig.poll()
    rig.pool.connect_failed(first, REFUSED, rig.now_s)
    assert outcomes == []
    rig.pool.connect_failed(second, REFUSED, rig.now_s)
    (error,) = outcomes
    assert isinstance(error, ConnectError)
    assert str(error) == "no endpoint can be called: a:5000: refused; b:5000: refused"


def test_a_failure_before_the_call_began_does_not_count() -> None:
    rig = Rig(A)
    rig.wait()
    rig.pool.connect_failed(rig.poll()[0], REFUSED, rig.now_s)
    rig.now_s += 0.05
    outcomes = rig.wait()
    assert outcomes == []
    rig.now_s += 0.1
    (again,) = rig.poll()
    rig.stand(again)
    assert isinstance(outcomes[0], Attempt)


def test_a_call_may_wait_for_an_endpoint_to_come_back() -> None:
    rig = Rig(A, waits_for_ready=True)
    outcomes = rig.wait()
    rig.pool.connect_failed(rig.poll()[0], REFUSED, rig.now_s)
    assert outcomes == []


def test_f8_calls_wait_in_their_order_and_the_next_ones_behind_them() -> None:
    rig = ready(A, calls=1)
    attempt = rig.taken()
    assert rig.take() is None
    calls = [rig.call(), rig.call()]
    outcomes = [rig.wait(call) for call in calls]
    assert rig.pool.waiting == 2
    rig.end(attempt)
    (served,) = outcomes[0]
    assert isinstance(served, Attempt)
    assert served.call is calls[0]
    assert outcomes[1] == []
    rig.end(served)
    assert len(outcomes[1]) == 1
    assert rig.pool.waiting == 0


def test_f8_who_waits_no_more_gets_nothing() -> None:
    rig = ready(A, calls=1)
    attempt = rig.taken()
    outcomes: list[Any] = []
    waiter = rig.pool.wait(rig.call(), rig.now_s, outcomes.append)
    rig.pool.drop(waiter)
    rig.end(attempt)
    assert outcomes == []
    assert rig.take() is not None


def test_f2_the_deadline_of_a_call_that_waited_says_why() -> None:
    rig = Rig(A)
    call = rig.call()
    rig.wait(call)
    rig.pool.connect_failed(rig.poll()[0], REFUSED, rig.now_s)
    error = rig.pool.too_late(call)
    assert str(error) == "no connection within the deadline: a:5000: refused"
    assert error.did_not_run
    call.may_have_run = True
    assert not rig.pool.too_late(call).did_not_run


def test_a_call_without_time_is_not_begun() -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        ready(A).call(timeout_s=0.0)
    assert caught.value.did_not_run


@pytest.mark.parametrize(("policies", "timeout_s"), [([], 15.0), ([Deadline(2.0)], 2.0)])
def test_a_deadline_is_always_finite(policies: list[Policy], timeout_s: float) -> None:
    rig = ready(A, policies=policies)
    assert rig.call(timeout_s=None).deadline_s == rig.now_s + timeout_s


# --- attempts


def test_an_attempt_ends_once() -> None:
    rig = ready(A)
    attempt = rig.taken()
    rig.end(attempt, LOST)
    rig.end(attempt)
    (status,) = rig.pool.status(rig.now_s)
    assert (status.in_flight, status.calls, status.failures) == (0, 1, 1)
    assert attempt.error is LOST


def test_the_next_attempt_goes_elsewhere() -> None:
    rig = ready(A, B, policies=[RoundRobin()])
    call = rig.call()
    first = rig.pool.take(call, rig.now_s)
    assert first is not None
    rig.end(first, LOST)
    for _ in range(4):
        other = rig.pool.take(call, rig.now_s)
        assert other is not None
        assert other.endpoint is not first.endpoint
    assert call.attempts == 5


def test_it_goes_to_the_same_one_if_there_is_no_other() -> None:
    rig = ready(A)
    call = rig.call()
    first = rig.pool.take(call, rig.now_s)
    assert first is not None
    rig.end(first, LOST)
    assert rig.pool.take(call, rig.now_s) is not None


def test_an_endpoint_that_is_full_is_passed_over() -> None:
    rig = ready(A, B, calls=2, policies=[RoundRobin()])
    taken = [str(rig.taken().endpoint.address) for _ in range(4)]
    assert sorted(taken) == ["a:5000", "a:5000", "b:5000", "b:5000"]
    assert rig.take() is None


def test_f8_a_call_moves_on_at_once_from_a_connection_that_had_ended() -> None:
    rig = ready(A, B, policies=[Retry(budget=RetryBudget(ratio=0, per_s=0))])
    attempt = rig.taken()
    rig.end(attempt, not_sent(LOST))
    assert rig.pool.retry_s(attempt) == 0.0
    assert attempt.call.attempts == 0
    rig.end(lost := rig.taken(), LOST)
    assert rig.pool.retry_s(lost) is None


def test_f2_a_pause_that_any_policy_wants_ends_before_the_deadline() -> None:
    class Patient(Policy):
        def retry_s(self, attempt: Attempt) -> float | None:
            return 15.0

    rig = ready(A, policies=[Patient()])
    attempt = rig.taken(timeout_s=15.0)
    rig.end(attempt, LOST)
    assert rig.pool.retry_s(attempt) is None


def test_a_connection_that_was_idle_is_to_be_looked_at_first() -> None:
    rig = ready(A)
    rig.now_s += 0.0005
    attempt = rig.taken()
    assert not attempt.is_doubtful
    rig.end(attempt)
    rig.now_s += 0.02
    assert rig.taken().is_doubtful
    assert not rig.taken().is_doubtful


def test_b15_a_connection_that_answers_nothing_gets_a_second_beside_it() -> None:
    rig = ready(A, connections=2, calls=100)
    stuck = rig.taken(timeout_s=3.0)
    rig.now_s += 0.9
    rig.taken()
    assert rig.poll() == []
    rig.now_s += 0.2
    rig.taken()
    (second,) = rig.poll()
    rig.stand(second)
    assert rig.taken().connection is second
    # Once a call on it is too late it gets no more, and ends with its last call.
    rig.now_s += 2.0
    rig.end(stuck, DeadlineExceeded("late"))
    assert all(rig.taken().connection is second for _ in range(5))


def test_b15_a_slow_answer_among_others_condemns_no_connection() -> None:
    rig = ready(A)
    slow = rig.taken(timeout_s=3.0)
    rig.now_s += 2.5
    rig.end(rig.taken(), RemoteError("failed"))
    rig.now_s += 0.5
    rig.end(slow, DeadlineExceeded("late"))
    assert rig.poll() == []
    assert rig.closed == []
    assert rig.taken().connection is slow.connection


# --- policies


def test_one_policy_chooses() -> None:
    with pytest.raises(UsageError, match="RoundRobin and RoundRobin"):
        Rig(A, policies=[RoundRobin(), RoundRobin()])


def test_without_a_choice_the_first_endpoint_is_used() -> None:
    rig = ready(A, B)
    assert {rig.taken().endpoint.address for _ in range(4)} == {A}


def test_an_ejected_endpoint_is_not_used_and_says_so() -> None:
    rig = ready(A, B, policies=[OutlierEjection(1), RoundRobin()])
    rig.end(next(each for each in (rig.taken(), rig.taken()) if each.endpoint.address == A), LOST)
    assert {rig.taken().endpoint.address for _ in range(3)} == {B}
    assert [each.is_ejected for each in rig.pool.status(rig.now_s)] == [True, False]


def test_a_limit_holds_for_all_that_a_call_does() -> None:
    rig = ready(A, policies=[limit := ConcurrencyLimit(1)])
    first = rig.taken()
    assert rig.take() is None
    outcomes = rig.wait()
    rig.end(first, LOST)
    assert outcomes == []
    rig.pool.finish(first.call, rig.now_s)
    assert isinstance(outcomes[0], Attempt)
    rig.end(outcomes[0])
    rig.pool.finish(outcomes[0].call, rig.now_s)
    assert limit.running == 0


@pytest.mark.parametrize("is_connected", [True, False])
def test_a_retry_does_not_wait_behind_those_that_wait_for_its_end(is_connected: bool) -> None:
    rig = ready(A, policies=[ConcurrencyLimit(1)], waits_for_ready=True)
    first = rig.taken()
    rig.wait()
    if is_connected:
        rig.end(first, Overloaded("full", ExceptionType.OVERLOADED))
        assert rig.pool.take(first.call, rig.now_s) is not None
        return
    rig.pool.lost(first.connection, LOST, rig.now_s)
    rig.end(first, LOST)
    outcomes = rig.wait(first.call)
    rig.now_s += 1.0
    (again,) = rig.poll()
    rig.stand(again)
    assert isinstance(outcomes[0], Attempt)


def test_load_is_shed_where_calls_wait_for_a_place() -> None:
    rig = ready(A, calls=1, policies=[LoadShed()])
    rig.taken()
    call = rig.call()
    assert rig.pool.take(call, rig.now_s) is None
    assert isinstance(rig.pool.refusal(call), Overloaded)


def test_no_load_is_shed_while_nothing_is_connected() -> None:
    rig = Rig(A, policies=[LoadShed()])
    call = rig.call()
    assert rig.pool.take(call, rig.now_s) is None
    assert rig.pool.refusal(call) is None


def test_each_call_is_added_to_a_budget_once() -> None:
    budget = RetryBudget(ratio=1, per_s=0)
    rig = ready(A, policies=[Retry(budget=budget), Retry(budget=budget)])
    rig.call()
    assert budget.withdraw(rig.now_s)
    assert not budget.withdraw(rig.now_s)


def test_a_hedge_without_room_costs_no_budget_and_makes_a_connection() -> None:
    hedge = Hedge(budget=(budget := RetryBudget(ratio=0, per_s=0.2)))
    rig = ready(A, calls=1, connections=2, policies=[hedge])
    first = rig.taken(is_idempotent=True)
    assert rig.pool.hedge(first, rig.now_s) is None
    (second,) = rig.poll()
    rig.stand(second)
    hedged = rig.pool.hedge(first, rig.now_s)
    assert hedged is not None
    assert hedged.connection is second
    rig.end(hedged)
    assert rig.pool.hedge(first, rig.now_s) is None
    # A half is left to retries.
    assert budget.withdraw(rig.now_s)
    assert not budget.withdraw(rig.now_s)


# --- the life of connections


def test_a_connection_without_calls_is_closed_and_not_made_again() -> None:
    rig = ready(A, idle_s=60.0)
    attempt = rig.taken()
    rig.now_s += 61.0
    assert rig.poll() == []
    assert rig.closed == []
    rig.end(attempt)
    rig.now_s += 59.0
    assert rig.poll() == []
    assert rig.closed == []
    assert rig.pool.wake_s(rig.now_s) == rig.now_s + 1.0
    rig.now_s += 1.0
    assert rig.poll() == []
    assert rig.closed == [attempt.connection.client]
    assert rig.states() == {"a:5000": State.IDLE}
    assert rig.pool.wake_s(rig.now_s) == float("inf")


def test_eager_ones_stay() -> None:
    rig = ready(A, idle_s=60.0, is_eager=True)
    rig.now_s += 1_000.0
    assert rig.poll() == []
    assert rig.closed == []


def test_an_old_connection_is_replaced_before_it_is_closed() -> None:
    rig = ready(A, max_age_s=100.0, idle_s=1_000.0)
    running = rig.taken()
    rig.now_s += 89.9
    assert rig.poll() == []
    rig.now_s += 20.2
    (successor,) = rig.poll()
    assert rig.taken().connection is running.connection
    rig.stand(successor)
    assert rig.taken().connection is successor
    assert rig.poll() == []
    assert rig.closed == []


def test_capabilities_keep_a_connection_open() -> None:
    rig = ready(A, idle_s=60.0)
    attempt = rig.taken()
    rig.end(attempt)
    attempt.connection.client.holds_capabilities = True
    rig.now_s += 500.0
    assert rig.poll() == []
    assert rig.closed == []
    assert rig.pool.wake_s(rig.now_s) == rig.now_s + 1.0
    attempt.connection.client.holds_capabilities = False
    rig.poll()
    assert rig.closed == [attempt.connection.client]


def test_a_call_with_a_capability_goes_to_its_connection_or_nowhere() -> None:
    rig = ready(A, B, policies=[RoundRobin()])
    pinned = rig.taken().connection
    assert {rig.taken(connection=pinned).connection for _ in range(3)} == {pinned}
    outcomes = rig.wait(rig.call(connection=pinned))
    rig.pool.lost(pinned, LOST, rig.now_s)
    call = rig.call(connection=pinned)
    assert rig.pool.take(call, rig.now_s) is None
    for error in (rig.pool.refusal(call), *outcomes):
        assert type(error) is Disconnected
        assert error.did_not_run
        assert str(error) == "the connection of the capability was lost"


def test_f8_a_call_that_waits_for_one_connection_keeps_nobody_else_waiting() -> None:
    rig = ready(A, B, calls=1)
    held = rig.taken()
    bound = rig.call(connection=held.connection)
    assert rig.pool.take(bound, rig.now_s) is None
    outcomes = rig.wait(bound)
    assert rig.pool.waiting == 1
    other = rig.taken()
    assert other.endpoint is not held.endpoint
    late = rig.wait()
    rig.end(held)
    # The place goes to the call that can use no other one.
    assert [each.call for each in outcomes if isinstance(each, Attempt)] == [bound]
    assert late == []
    rig.end(other)
    assert len(late) == 1


def test_f8_a_call_that_waits_for_one_connection_is_not_shed_by_a_later_one() -> None:
    rig = ready(A, calls=1, policies=[LoadShed(1)])
    held = rig.taken()
    outcomes = rig.wait(rig.call(connection=held.connection))
    # It is refused, and would be without it.
    assert isinstance(rig.pool.refusal(rig.call()), Overloaded)
    rig.pool.discovery_failed("the registry is down")
    assert outcomes == []
    rig.pool.lost(held.connection, LOST, rig.now_s)
    (error,) = outcomes
    assert isinstance(error, Disconnected)
    assert error.did_not_run


def test_f8_who_waits_no_more_lets_others_past() -> None:
    class First(Policy):
        """Admits the calls of one method."""

        def admits(self, call: Call) -> bool:
            return call.method == "read"

    rig = ready(A, policies=[First()])
    barred = Call("other", rig.now_s, 15.0)
    waiter = rig.pool.wait(barred, rig.now_s, lambda _: None)
    outcomes = rig.wait()
    rig.poll()
    assert outcomes == []
    rig.pool.drop(waiter)
    assert rig.pool.has_news
    rig.poll()
    assert len(outcomes) == 1


def test_a_closed_pool_is_waited_for_by_nobody() -> None:
    rig = Rig(A)
    call = rig.call()
    outcomes = rig.wait(call)
    rig.poll()
    rig.pool.close()
    (error,) = outcomes
    assert isinstance(error, Disconnected)
    # It would be tried again if it were a connection's end.
    assert rig.pool.retry_unsent_s(call, error, rig.now_s) == 0
    assert rig.pool.take(call, rig.now_s) is None
    assert str(rig.pool.refusal(call)) == "the channel is closed"
    assert rig.poll() == []


def test_endpoints_come_and_go() -> None:
    rig = ready(A, B, policies=[RoundRobin()])
    old = next(each for each in (rig.taken(), rig.taken()) if each.endpoint.address == A)
    rig.pool.set_endpoints([B, C], rig.now_s)
    assert [each.endpoint.address for each in rig.poll()] == [C]
    assert rig.closed == []
    assert {rig.taken().endpoint.address for _ in range(3)} == {B}
    # Its calls run to their end.
    rig.end(old)
    rig.poll()
    assert rig.closed == [old.connection.client]


def test_a_connection_that_comes_too_late_is_closed() -> None:
    rig = Rig(A)
    rig.wait()
    (late,) = rig.poll()
    rig.pool.set_endpoints([B], rig.now_s)
    client = rig.stand(late)
    rig.poll()
    assert rig.closed == [client]


def test_without_endpoints_a_call_fails() -> None:
    rig = Rig()
    outcomes = rig.wait()
    # Nobody has asked yet.
    assert outcomes == []
    rig.pool.discovery_failed("no answer")
    assert str(outcomes[0]) == "no endpoint can be called: no answer"
    rig.pool.set_endpoints([], rig.now_s)
    (error,) = rig.wait()
    assert str(error) == "no endpoint can be called: there are none"


def test_the_end_fails_who_waits_and_closes_all() -> None:
    rig = ready(A, B, calls=1)
    first, second = rig.taken(), rig.taken()
    outcomes = rig.wait()
    commands = rig.pool.close()
    assert {each.client for each in commands} == {first.connection.client, second.connection.client}
    assert str(outcomes[0]) == "the channel is closed"
    rig.end(first, LOST)
    assert rig.pool.poll(rig.now_s) == []
    with pytest.raises(Disconnected, match="the channel is closed"):
        rig.call()


def test_the_child_of_a_fork_begins_anew() -> None:
    rig = ready(A, calls=1, policies=[limit := ConcurrencyLimit(5)])
    attempt = rig.taken()
    rig.wait()
    rig.pool.reset(rig.now_s)
    assert rig.states() == {"a:5000": State.IDLE}
    assert (rig.pool.waiting, limit.running) == (0, 0)
    # What unwinds in the child.
    rig.end(attempt, LOST)
    assert rig.pool.status(rig.now_s)[0].in_flight == 0
    rig.wait()
    assert len(rig.poll()) == 1


@pytest.mark.parametrize(
    "bad", [{"connections": 0}, {"calls": 0}, {"idle_s": 0}, {"max_age_s": -1}]
)
def test_sizes_are_no_nonsense(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Rig(A, **bad)
