"""The pool of a channel, against any order of events.

hypothesis connects, loses, calls, answers, cancels, changes the endpoints and lets time pass, as an
edge would; a small model knows which connections stand and which attempts are under way. What must
hold stands in the invariants: nothing is called that does not stand, no count is wrong, no call
waits while there is room for it or for ever, no edge is woken without end, no budget is exceeded.

A longer run: ``MACHINE_EXAMPLES=20000 pytest tests/fuzz/test_channel_machine.py``.
"""

import os
from dataclasses import dataclass, field
from itertools import combinations
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from capnp_rig.client.channels.pool import Close, Connect, Pool, Waiter
from capnp_rig.client.channels.pooled import Connection, Sizes, State
from capnp_rig.client.policies import (
    Attempt,
    Balance,
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
    not_sent,
)
from capnp_rig.rigcli.address import Address
from capnp_rig.wire.rpc.messages import ExceptionType

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "80"))
ADDRESSES = [Address(host="host", port=number) for number in range(1, 5)]
FAILURES: list[ClientError] = [
    Disconnected("lost"),
    not_sent(Disconnected("it had ended")),
    Overloaded("busy", ExceptionType.OVERLOADED),
    RemoteError("raised", ExceptionType.FAILED),
    DeadlineExceeded("late"),
]
addresses = st.lists(st.sampled_from(ADDRESSES), unique=True, max_size=4)
BEGIN_S = 1000.0
# Of the policies that a channel may have or not.
EXTRAS = [
    extra
    for count in range(5)
    for extra in combinations(["limit", "shed", "hedge", "eject"], count)
]
picks = st.integers(0, 1 << 20)
timeouts = st.sampled_from([None, 0.5, 5.0])


@dataclass(eq=False)
class Client:
    """What an edge has connected."""

    holds_capabilities: bool = False


class CountedBudget(RetryBudget):
    """Knows how much was taken from it."""

    __slots__ = ("granted",)

    def __init__(self) -> None:
        super().__init__(per_s=0.5)
        self.granted = 0

    def withdraw(self, now_s: float, part: float = 1.0) -> bool:
        may = super().withdraw(now_s, part)
        self.granted += may
        return may


class HedgeAtOnce(Hedge):
    """Knows from the start when to begin."""

    def hedge_s(self, call: Call) -> float | None:
        return 0.0 if call.is_idempotent else None


@dataclass(eq=False)
class Record:
    """A call as its edge sees it: it waits, has attempts, pauses, or has ended."""

    call: Call
    waiter: Waiter | None = None
    attempts: list[Attempt] = field(default_factory=list)
    paused_until_s: float | None = None
    error: ClientError | None = None
    has_ended: bool = False
    # Attempts that the server may have carried out.
    may_have_run: int = 0


class ChannelMachine(RuleBasedStateMachine):
    """Plays the edge, the network and the callers."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = BEGIN_S
        self.connecting: list[Connection] = []
        self.standing: dict[Connection, Client] = {}
        self.records: list[Record] = []
        # Attempts beyond the first, but for those of which nothing had been sent before.
        self.repeated = 0
        self.wanted: set[Address] = set()

    @initialize(
        source=st.randoms(use_true_random=False),
        sizes=st.builds(
            Sizes,
            st.integers(1, 3),
            st.integers(1, 3),
            st.just(30.0),
            st.sampled_from([None, 20.0]),
            is_eager=st.booleans(),
        ),
        waits_for_ready=st.booleans(),
        extra=st.sampled_from(EXTRAS),
        is_balanced=st.booleans(),
        present=addresses,
    )
    def begin(
        self,
        *,
        source: Random,
        sizes: Sizes,
        waits_for_ready: bool,
        extra: tuple[str, ...],
        is_balanced: bool,
        present: list[Address],
    ) -> None:
        self.budget = CountedBudget()
        self.limit = ConcurrencyLimit(4)
        policies: list[Policy] = [
            Deadline(10),
            Retry(budget=self.budget, random_source=source),
            Balance(random_source=source) if is_balanced else RoundRobin(),
        ]
        more: dict[str, Policy] = {
            "limit": self.limit,
            "shed": LoadShed(2),
            "hedge": HedgeAtOnce(budget=self.budget),
            "eject": OutlierEjection(2),
        }
        policies += [more[name] for name in extra]
        self.sizes = sizes
        self.pool = Pool(policies, sizes, waits_for_ready=waits_for_ready, source=source)
        self.change_endpoints(present)

    # --- callers

    @rule(
        is_idempotent=st.booleans(),
        timeout_s=timeouts,
        pinned=st.booleans(),
        is_connected=st.booleans(),
    )
    def call(
        self, *, is_idempotent: bool, timeout_s: float | None, pinned: bool, is_connected: bool
    ) -> None:
        call = Call("read", self.now_s, timeout_s)
        call.is_idempotent = is_idempotent
        if pinned and self.standing:
            # With a capability of that connection in its params.
            call.connection = next(iter(self.standing))
        self.pool.begin(call)
        assert call.deadline_s == self.now_s + (timeout_s or 10)
        record = Record(call)
        self.records.append(record)
        self.attempt(record)
        if is_connected:
            # Most of the time everything is well.
            self.poll()
            while self.connecting:
                self.connects(0)

    def attempt(self, record: Record) -> None:
        """Do as an edge: take an attempt, or wait for one."""
        attempt = self.pool.take(record.call, self.now_s)
        if attempt is None:
            error = self.pool.refusal(record.call)
            if error is not None:
                self.end(record, error)
                return
            settled: list[Attempt | ClientError] = []

            def settle(outcome: Attempt | ClientError) -> None:
                assert not settled
                settled.append(outcome)
                record.waiter = None
                self.settle(record, outcome)

            waiter = self.pool.wait(record.call, self.now_s, settle)
            if not settled:
                record.waiter = waiter
        else:
            self.settle(record, attempt)

    def settle(self, record: Record, outcome: Attempt | ClientError) -> None:
        if isinstance(outcome, Attempt):
            # What has gone is not called, nor what was not wanted any more when it was taken.
            assert outcome.connection in self.standing
            record.attempts.append(outcome)
            return
        pause_s = self.pool.retry_unsent_s(record.call, outcome, self.now_s)
        self.pause_or_end(record, outcome, pause_s)

    def pause_or_end(self, record: Record, error: ClientError, pause_s: float | None) -> None:
        if pause_s is None:
            self.end(record, error)
        else:
            assert self.now_s + pause_s < record.call.deadline_s
            self.repeated += not (type(error) is Disconnected and error.did_not_run)
            record.paused_until_s = self.now_s + pause_s

    def end(self, record: Record, error: ClientError | None = None) -> None:
        record.error, record.has_ended, record.paused_until_s = error, True, None
        for attempt in record.attempts:
            self.pool.give_up(attempt, self.now_s)
        record.attempts.clear()
        self.pool.finish(record.call, self.now_s)

    @property
    def running(self) -> list[Record]:
        return [record for record in self.records if record.attempts]

    @precondition(lambda self: self.running)
    @rule(pick=picks)
    def answer(self, pick: int) -> None:
        record = self.running[pick % len(self.running)]
        self.pool.succeed(record.attempts.pop(0), self.now_s)
        self.end(record)

    @precondition(lambda self: self.running)
    @rule(pick=picks, error=st.sampled_from(FAILURES))
    def fail(self, pick: int, error: ClientError) -> None:
        self.fail_first(self.running[pick % len(self.running)], error)

    def fail_first(self, record: Record, error: ClientError) -> None:
        attempt = record.attempts.pop(0)
        record.may_have_run += not error.did_not_run
        self.pool.fail(attempt, error, self.now_s)
        if record.attempts:
            return
        pause_s = self.pool.retry_s(attempt)
        if pause_s is not None and record.may_have_run:
            assert record.call.is_idempotent
        self.pause_or_end(record, error, pause_s)

    @precondition(lambda self: any(not each.has_ended for each in self.records))
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        alive = [each for each in self.records if not each.has_ended]
        record = alive[pick % len(alive)]
        if record.waiter is not None:
            self.pool.drop(record.waiter)
            record.waiter = None
        self.end(record)

    @property
    def hedgeable(self) -> list[Record]:
        return [
            record
            for record in self.running
            if self.pool.hedge_s(record.call) is not None and len(record.attempts) == 1
        ]

    @precondition(lambda self: self.hedgeable)
    @rule(pick=picks)
    def hedge(self, pick: int) -> None:
        record = self.hedgeable[pick % len(self.hedgeable)]
        assert record.call.is_idempotent
        second = self.pool.hedge(record.attempts[0], self.now_s)
        if second is not None:
            self.repeated += 1
            assert second.connection in self.standing
            record.attempts.append(second)

    # --- the network

    @precondition(lambda self: self.connecting)
    @rule(pick=picks)
    def connects(self, pick: int) -> None:
        connection = self.connecting.pop(pick % len(self.connecting))
        client = self.standing[connection] = Client()
        self.pool.connected(connection, client, client, self.now_s)

    @precondition(lambda self: self.connecting)
    @rule(pick=picks)
    def refuses(self, pick: int) -> None:
        connection = self.connecting.pop(pick % len(self.connecting))
        self.pool.connect_failed(connection, ConnectError("refused"), self.now_s)

    @precondition(lambda self: self.standing)
    @rule(pick=picks, is_told_first=st.booleans())
    def loses(self, pick: int, is_told_first: bool) -> None:
        """A connection ends; its calls fail before the pool is told, or after."""
        connection = list(self.standing)[pick % len(self.standing)]
        error = Disconnected("lost")
        if is_told_first:
            del self.standing[connection]
            self.pool.lost(connection, error, self.now_s)
        for record in self.running:
            for attempt in [each for each in record.attempts if each.connection is connection]:
                record.attempts.remove(attempt)
                record.attempts.insert(0, attempt)
                self.fail_first(record, error)
        if not is_told_first:
            del self.standing[connection]
            self.pool.lost(connection, error, self.now_s)

    @precondition(lambda self: self.standing)
    @rule(pick=picks)
    def a_capability_comes_or_goes(self, pick: int) -> None:
        client = list(self.standing.values())[pick % len(self.standing)]
        client.holds_capabilities = not client.holds_capabilities

    @rule(present=addresses)
    def change_endpoints(self, present: list[Address]) -> None:
        self.wanted = set(present)
        self.pool.set_endpoints(present, self.now_s)

    @rule()
    def forgets_the_endpoints(self) -> None:
        self.pool.discovery_failed("the registry is down")

    # --- time

    @rule(seconds=st.sampled_from([0.001, 0.1, 0.7, 1.5, 8.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        """The edge does what is due, when it is due."""
        until_s = self.now_s + seconds
        while True:
            due_s = min(self.due_times(), default=until_s)
            if due_s >= until_s:
                break
            self.now_s = max(self.now_s, due_s)
            self.do_what_is_due()
        self.now_s = until_s
        self.do_what_is_due()

    def due_times(self) -> list[float]:
        times = [self.pool.wake_s(self.now_s)]
        # It was polled: what is due at once would wake the edge without end.
        assert times[0] > self.now_s
        for record in self.records:
            if record.paused_until_s is not None:
                times.append(record.paused_until_s)
            elif not record.has_ended:
                times.append(record.call.deadline_s)
        return times

    def do_what_is_due(self) -> None:
        for record in [each for each in self.records if not each.has_ended]:
            if record.paused_until_s is not None:
                if record.paused_until_s <= self.now_s:
                    record.paused_until_s = None
                    self.pool.check_time(record.call, self.now_s)
                    self.attempt(record)
            elif record.call.deadline_s <= self.now_s:
                if record.waiter is not None:
                    self.pool.drop(record.waiter)
                    record.waiter = None
                    self.end(record, self.pool.too_late(record.call))
                while record.attempts:
                    self.fail_first(record, DeadlineExceeded("late"))
        self.poll()

    def poll(self) -> None:
        for command in self.pool.poll(self.now_s):
            if isinstance(command, Connect):
                assert command.connection.endpoint.address in self.wanted
                assert not command.connection.is_begun
                command.connection.is_begun = True
                self.connecting.append(command.connection)
            else:
                self.closes(command)
        assert not self.pool.has_news

    def closes(self, command: Close) -> None:
        """A connection is closed once, and not under a call or a capability."""
        [connection] = [each for each, client in self.standing.items() if client is command.client]
        if not self.pool.is_closed:
            assert not command.client.holds_capabilities
            assert all(
                attempt.connection is not connection
                for record in self.running
                for attempt in record.attempts
            )
        del self.standing[connection]

    # --- what holds

    @invariant()
    def everything_holds(self) -> None:
        if not hasattr(self, "pool") or self.pool.is_closed:
            return
        if self.pool.has_news:
            self.poll()
        self.counts_are_right()
        self.sizes_hold()
        self.nobody_waits_in_vain()
        assert self.repeated <= self.budget.granted
        # A part of the calls, and so much in each second and the ten of the window.
        assert self.budget.granted <= len(self.records) * 0.2 + 0.5 * (self.now_s - BEGIN_S + 10)
        assert all(record.may_have_run <= 1 or record.call.is_idempotent for record in self.records)

    def counts_are_right(self) -> None:
        under_way = [attempt for record in self.records for attempt in record.attempts]
        for connection in [*self.standing, *self.connecting]:
            mine = [each for each in under_way if each.connection is connection]
            assert connection.in_flight == len(mine) <= connection.most
        for status in self.pool.status(self.now_s):
            here = [each for each in under_way if each.endpoint.address == status.address]
            stand = [each for each in self.standing if each.endpoint.address == status.address]
            # An endpoint that had gone and came back is another one.
            assert status.in_flight <= len(here)
            assert status.connections <= len(stand)
            assert (status.state is State.READY) == any(
                each.is_usable for each in self.pool._endpoints[status.address].connections
            )
        running = sum(record.call.is_admitted for record in self.records)
        if self.limit in self.pool.policies:
            assert self.limit.running == running <= self.limit.most

    def sizes_hold(self) -> None:
        for endpoint in self.pool._endpoints.values():
            lasting = [
                each
                for each in endpoint.connections
                if not each.is_retiring and each.expires_s > self.now_s
            ]
            assert len(lasting) <= self.sizes.connections

    def nobody_waits_in_vain(self) -> None:
        waiting = [record for record in self.records if record.waiter is not None]
        assert self.pool.waiting == len(waiting)
        if not waiting:
            return
        # Room is given away as soon as there is any, and a call that waits for one connection keeps
        # nobody waiting for another.
        heads = [waiter.call for waiter in [*self.pool._waiters][:1] + self.pool._bound]
        for head in heads:
            assert self.pool.take(head, self.now_s) is None
        self.pool.has_news = False
        ready = [each for each in self.pool._endpoints.values() if each.usable]
        if not ready and self.pool._waiters and self.wanted:
            # Something is being done about it.
            assert self.connecting or self.pool.wake_s(self.now_s) < float("inf")
        for record in waiting:
            assert self.now_s <= record.call.deadline_s

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for command in self.pool.close():
            self.closes(command)
        assert self.standing == {}
        for record in self.records:
            assert record.waiter is None
            # Who pauses learns of it then.
            assert record.has_ended or record.attempts or record.paused_until_s is not None
            if record.paused_until_s is not None:
                self.attempt(record)
            if not record.has_ended:
                self.end(record)
        for connection in self.connecting:
            self.pool.connect_failed(connection, ConnectError("closed"), self.now_s)
        assert all(status.in_flight == 0 for status in self.pool.status(self.now_s))
        assert self.limit.running == 0
        assert self.pool.poll(self.now_s) == []
        with pytest.raises(Disconnected, match="the channel is closed") as raised:
            self.pool.begin(Call("read", self.now_s, None))
        assert raised.value.did_not_run


@pytest.mark.timeout(max(60, EXAMPLES))
def test_f5_f8_the_pool_keeps_its_word_whatever_happens() -> None:
    run_state_machine_as_test(
        ChannelMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            derandomize="MACHINE_EXAMPLES" not in os.environ,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
