"""Which connections there are, and which of them a call gets: decides, and does nothing itself.

An edge tells it the time and what happened, and does what `poll` returns. Times are seconds of
`time.monotonic`, which is also the clock of event loops.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from capnp_rig.client.channels.backoff import backoff_s
from capnp_rig.client.channels.pooled import SILENCE_S, Connection, PooledEndpoint, Sizes, State
from capnp_rig.client.policies.endpoint import Endpoint
from capnp_rig.client.policies.limits import Deadline
from capnp_rig.client.policies.policy import INFINITE, Attempt, Call, Policy
from capnp_rig.objects.errors import (
    ClientError,
    ConnectError,
    DeadlineExceeded,
    Disconnected,
    RemoteError,
    UsageError,
    not_sent,
)
from capnp_rig.objects.timeouts import CALL_TIMEOUT_S
from capnp_rig.rigcli.address import Address

_AGE_JITTER = 0.1
# A connection that was idle for so long may have ended, and the event loop has not looked yet.
_STALE_S = 0.001
# How often to look whether a capability still keeps a connection that is to end.
_LOOK_S = 1.0


class Connect(NamedTuple):
    """Make a connection; then call `Pool.connected` or `Pool.connect_failed`.

    The edge sets its `is_begun`; until then each `poll` asks for it anew.
    """

    connection: Connection


class Close(NamedTuple):
    """Close a connection, which the pool has forgotten."""

    client: Any


Command = Connect | Close


class Waiter:
    """A call that waits for an attempt; `settle` is called once, with that or an error."""

    __slots__ = ("call", "settle")

    def __init__(self, call: Call, settle: Callable[[Attempt | ClientError], object]) -> None:
        self.call = call
        self.settle = settle


class EndpointStatus(NamedTuple):
    """What is known of an endpoint.

    Attributes:
        address: As it was given.
        state: Idle, connecting, ready or failing.
        connections: How many stand.
        in_flight: Attempts under way.
        latency_s: The estimate of `Balance`, None before the first answer.
        calls: Attempts that have begun.
        failures: Those that failed.
        is_ejected: Whether a policy keeps attempts away from it.
        error: Why the latest connection could not be made, or was lost; None while one stands.
    """

    address: Address
    state: State
    connections: int
    in_flight: int
    latency_s: float | None
    calls: int
    failures: int
    is_ejected: bool
    error: ClientError | None


class Pool:
    """The endpoints of a channel, their connections, and the calls that wait for one."""

    def __init__(
        self,
        policies: Sequence[Policy],
        sizes: Sizes,
        *,
        waits_for_ready: bool = False,
        attempt: Callable[..., Attempt] = Attempt,
        source: random.Random | None = None,
    ) -> None:
        """Begin without endpoints; `attempt` makes attempts.

        With `waits_for_ready` a call waits until its deadline where no endpoint answers; without,
        it fails once each of them was tried in vain.

        Raises:
            UsageError: Two of the policies choose endpoints.
        """
        self.sizes = sizes
        self.policies = list(policies)
        self.is_closed = False
        # Whether `poll` may have something to do.
        self.has_news = False
        self._waits_for_ready = waits_for_ready
        self._attempt = attempt
        self._random = source or random.Random()
        self._endpoints: dict[Address, PooledEndpoint] = {}
        # Those that can be used now.
        self._ready: list[PooledEndpoint] = []
        # Connections of endpoints that are not wanted any more, until nothing needs them.
        self._leaving: set[Connection] = set()
        self._waiters: deque[Waiter] = deque()
        # Those whose call may use one connection only: they keep nobody else waiting.
        self._bound: list[Waiter] = []
        self._used_s = float("-inf")
        # Why no endpoint is known; None before anybody has asked.
        self._why_none: str | None = None
        # The policies that have something to say to each question: most have not.
        # But for deadlines, which `begin` sets itself.
        self._beginning = [each for each in self._overriding("begin") if type(each) is not Deadline]
        self._admitting = self._overriding("admits")
        self._refusing = self._overriding("refusal")
        self._narrowing = self._overriding("narrow")
        self._retrying = self._overriding("retry_s")
        self._hedging = self._overriding("hedge_s")
        self._ending = [each.ended for each in self._overriding("ended")]
        budgets = [each.budget for each in policies if each.budget is not None]
        self._budgets = list({id(each): each for each in budgets}.values())
        choosing = self._overriding("choose")
        if len(choosing) > 1:
            names = " and ".join(type(each).__name__ for each in choosing)
            raise UsageError(f"one policy chooses endpoints, not {names}")
        self._choose: Callable[..., Any] = (choosing or [Policy()])[0].choose
        # That of a call without a deadline: it is always finite.
        deadlines = [each.timeout_s for each in policies if isinstance(each, Deadline)]
        self.timeout_s = min(deadlines, default=CALL_TIMEOUT_S)
        self.hedges = bool(self._hedging)

    def _overriding(self, name: str) -> list[Policy]:
        plain = getattr(Policy, name)
        return [each for each in self.policies if getattr(type(each), name) is not plain]

    # --- endpoints

    def set_endpoints(self, addresses: Iterable[Address], now_s: float) -> None:
        """Use these from now on. Connections to others end when their calls have ended."""
        wanted = dict.fromkeys(addresses)
        for address in [each for each in self._endpoints if each not in wanted]:
            endpoint = self._endpoints.pop(address)
            self._leaving.update(endpoint.connections)
            for policy in self.policies:
                policy.left(endpoint)
        for address in wanted:
            if address not in self._endpoints:
                endpoint = self._endpoints[address] = PooledEndpoint(address, self.sizes)
                # As the others are: one that comes later gets its share.
                endpoint.is_active |= now_s - self._used_s < self.sizes.idle_s
                for policy in self.policies:
                    policy.joined(endpoint)
        self._why_none = "there are none"
        self._look()
        self._give_up_hopeless()

    def discovery_failed(self, reason: str) -> None:
        """Take note that nobody knows the present endpoints: those that there were stay."""
        self._why_none = reason
        self._give_up_hopeless()

    def status(self, now_s: float) -> list[EndpointStatus]:
        """Return what is known of each endpoint."""
        return [
            EndpointStatus(
                address=each.address,
                state=each.state,
                connections=sum(connection.is_ready for connection in each.connections),
                in_flight=each.in_flight,
                latency_s=each.latency_s,
                calls=each.calls,
                failures=each.failures,
                is_ejected=any(policy.is_ejected(each, now_s) for policy in self._narrowing),
                error=each.error,
            )
            for each in self._endpoints.values()
        ]

    def connection_of(self, owner: Any) -> Connection | None:
        """Return the connection that stands whose capabilities have this owner."""
        everywhere = [*self._leaving]
        for endpoint in self._endpoints.values():
            everywhere += endpoint.connections
        return next((each for each in everywhere if each.is_ready and each.owner is owner), None)

    # --- calls

    def begin(self, call: Call) -> None:
        """Show a new call to the policies.

        Raises:
            ClientError: One refuses it, or the channel is closed.
        """
        if self.is_closed:
            raise self._closed()
        for policy in self._beginning:
            policy.begin(call)
        if call.deadline_s == INFINITE:
            call.deadline_s = call.started_s + self.timeout_s
        if call.deadline_s <= call.started_s:
            raise self.too_late(call)
        for budget in self._budgets:
            budget.deposit(call.started_s)

    def finish(self, call: Call, now_s: float) -> None:
        """Take note that a call has ended, in whatever way."""
        if call.is_admitted:
            call.is_admitted = False
            for policy in self._admitting:
                policy.leave(call)
            self._serve(now_s)

    def take(self, call: Call, now_s: float) -> Attempt | None:
        """Begin an attempt, if that is possible at once: `wait` otherwise."""
        if self._waiters and call.connection is None and not self._is_next(call):
            return None
        if self._admitting and not call.is_admitted and not self._admit(call):
            return None
        self._used_s = now_s
        ready = self._ready
        if len(ready) == 1 and len(ready[0].usable) == 1 and call.connection is None:
            # The path of most: it spares five calls, 0.6 µs.
            connection = ready[0].usable[0]
            if connection.in_flight >= connection.most:
                self.has_news = True
                return None
        else:
            picked = self._pick(call, now_s)
            if picked is None:
                return None
            connection = picked
        endpoint = connection.endpoint
        attempt = self._attempt(call, endpoint, connection, now_s)
        in_flight = connection.in_flight
        if not in_flight:
            connection.quiet_since_s = now_s
            if now_s - connection.idle_since_s > _STALE_S:
                attempt.is_doubtful = True
        elif endpoint.may_grow and (
            in_flight >= self.sizes.busy_at or now_s - connection.quiet_since_s >= SILENCE_S
        ):
            self.has_news = True
        endpoint.calls += 1
        call.attempts += 1
        # Without a call in between, so without an interrupt: all of it or nothing.
        connection.in_flight = in_flight + 1
        endpoint.in_flight += 1
        attempt.ended_s = None
        return attempt

    def refusal(self, call: Call) -> ClientError | None:
        """Return why a call that cannot begin at once may not wait either."""
        if self.is_closed:
            return self._closed()
        if call.connection is not None and not call.connection.is_ready:
            return self._unbound()
        if self._ready:
            for policy in self._refusing:
                error = policy.refusal(call, self.waiting)
                if error is not None:
                    return error
        return None

    def wait(
        self, call: Call, now_s: float, settle: Callable[[Attempt | ClientError], object]
    ) -> Waiter:
        """Let a call wait for an attempt: for its turn, or for an endpoint to be connected."""
        call.waiting_since_s = now_s
        self._used_s = now_s
        waiter = Waiter(call, settle)
        if call.connection is not None:
            self._bound.append(waiter)
        elif call.is_admitted:
            # Those that are not admitted wait for its end.
            before = sum(each.call.is_admitted for each in self._waiters)
            self._waiters.insert(before, waiter)
        else:
            self._waiters.append(waiter)
        for endpoint in self._endpoints.values():
            endpoint.is_active = True
        self.has_news = True
        self._give_up_hopeless()
        return waiter

    def drop(self, waiter: Waiter) -> None:
        """Let a call wait no more."""
        for waiters in (self._waiters, self._bound):
            if waiter in waiters:
                waiters.remove(waiter)
                # It may have kept others waiting.
                self.has_news = True

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._waiters) + len(self._bound)

    def check_time(self, call: Call, now_s: float) -> None:
        """Go on with a call after a pause.

        Raises:
            DeadlineExceeded: Its deadline has come.
        """
        if now_s >= call.deadline_s:
            raise self.too_late(call)

    def too_late(self, call: Call) -> DeadlineExceeded:
        """Return the error of a call whose deadline came while it waited."""
        error = DeadlineExceeded(f"no connection within the deadline: {self._why()}")
        error.did_not_run = True
        self.final(call, error)
        return error

    def succeed(self, attempt: Attempt, now_s: float) -> None:
        """Take note that an attempt was answered with results. Only its first end counts."""
        if attempt.ended_s is not None:
            return
        # As in `take`.
        attempt.ended_s = now_s
        connection = attempt.connection
        in_flight = connection.in_flight - 1
        connection.in_flight = in_flight
        attempt.endpoint.in_flight -= 1
        connection.quiet_since_s = now_s
        if not connection.has_answered:
            connection.has_answered = True
            connection.endpoint.connect_failures = 0
        self._freed(attempt, in_flight, now_s)

    def fail(self, attempt: Attempt, error: ClientError, now_s: float) -> None:
        """Take note that an attempt has failed. Only its first end counts."""
        if attempt.ended_s is not None:
            return
        attempt.ended_s = now_s
        connection = attempt.connection
        connection.in_flight -= 1
        attempt.endpoint.in_flight -= 1
        attempt.error = error
        self._failed(attempt.call, connection, error, now_s)
        self._freed(attempt, connection.in_flight, now_s)

    def give_up(self, attempt: Attempt, now_s: float) -> None:
        """Take note that nobody waits for an attempt any more. Only its first end counts."""
        if attempt.ended_s is not None:
            return
        attempt.ended_s = now_s
        connection = attempt.connection
        connection.in_flight -= 1
        attempt.endpoint.in_flight -= 1
        attempt.was_given_up = True
        self._freed(attempt, connection.in_flight, now_s)

    def _freed(self, attempt: Attempt, in_flight: int, now_s: float) -> None:
        if not in_flight:
            connection = attempt.connection
            connection.idle_since_s = now_s
            if connection.is_retiring or self._leaving:
                self.has_news = True
        for ended in self._ending:
            ended(attempt)
        if self._waiters or self._bound:
            self._serve(now_s)

    def retry_s(self, attempt: Attempt) -> float | None:
        """Return in how many seconds to make another attempt after one that failed, if at all."""
        error, call = attempt.error, attempt.call
        if type(error) is Disconnected and error.did_not_run and call.connection is None:
            # It had ended while it was idle, which only shows now. The call moves on to another.
            call.attempts -= 1
            return 0.0
        pauses = [policy.retry_s(attempt) for policy in self._retrying]
        pause_s = min((each for each in pauses if each is not None), default=None)
        assert attempt.ended_s is not None
        # A policy of somebody else's may not have looked.
        is_in_time = pause_s is not None and attempt.ended_s + pause_s < call.deadline_s
        return pause_s if is_in_time else None

    def final(self, call: Call, error: ClientError) -> ClientError:
        """Return the last error of a call as its caller gets it: it speaks for all attempts."""
        error.attempts = max(call.attempts, 1)
        error.did_not_run &= not call.may_have_run
        return error

    def retry_unsent_s(self, call: Call, error: ClientError, now_s: float) -> float | None:
        """Return in how many seconds to wait again, after a wait for an attempt was in vain."""
        call.attempts += 1
        attempt = Attempt(call, Endpoint(Address()), None, now_s)
        attempt.ended_s, attempt.error = now_s, error
        return self.retry_s(attempt)

    def hedge_s(self, call: Call) -> float | None:
        """Return after how many seconds to make a second attempt beside the first."""
        delays = [policy.hedge_s(call) for policy in self._hedging]
        return min((each for each in delays if each is not None), default=None)

    def hedge(self, first: Attempt, now_s: float) -> Attempt | None:
        """Begin the second attempt, if it is allowed and there is room for it."""
        call = first.call
        if self._waiters or not any(each.has_room for each in self._ready):
            # There may be room for the next one.
            self.has_news = True
            return None
        if not all(policy.may_hedge(call, now_s) for policy in self._hedging):
            return None
        call.tried += (first.endpoint,)
        return self.take(call, now_s)

    # --- connections

    def connected(self, connection: Connection, client: Any, owner: Any, now_s: float) -> None:
        """Take note that a connection stands: `client` calls on it, `owner` owns capabilities."""
        connection.client, connection.owner = client, owner
        connection.is_ready = True
        connection.idle_since_s = now_s
        if self.sizes.max_age_s is not None:
            spread = self._random.uniform(1 - _AGE_JITTER, 1 + _AGE_JITTER)
            connection.expires_s = now_s + self.sizes.max_age_s * spread
        endpoint = connection.endpoint
        endpoint.error = None
        for other in endpoint.connections:
            other.is_retiring |= other.expires_s <= now_s
        self._look()
        self._serve(now_s)

    def connect_failed(self, connection: Connection, error: ClientError, now_s: float) -> None:
        """Take note that a connection could not be made."""
        self._failed_to_connect(connection, error, now_s)

    def lost(self, connection: Connection, error: ClientError, now_s: float) -> None:
        """Take note that a connection has ended by itself. Its attempts end by themselves."""
        if connection.is_ready:
            connection.is_ready = False
            self._failed_to_connect(connection, error, now_s)

    def poll(self, now_s: float) -> list[Command]:
        """Return what is to be done now."""
        commands: list[Command] = []
        if self.is_closed:
            return commands
        self._serve(now_s)
        is_used = now_s - self._used_s < self.sizes.idle_s
        for endpoint in self._endpoints.values():
            endpoint.is_active &= is_used or self.sizes.is_eager
            over = [each for each in endpoint.connections if each.is_over(now_s, self.sizes)]
            commands += map(self._close, over)
            while endpoint.wants_another(now_s):
                endpoint.add()
            commands += [Connect(each) for each in endpoint.connections if not each.is_begun]
        commands += [Connect(each) for each in self._leaving if not each.is_begun]
        commands += [self._close(each) for each in [*self._leaving] if each.is_free]
        self._look()
        self.has_news = False
        return commands

    def wake_s(self, now_s: float) -> float:
        """Return when to `poll` next if nothing happens before, infinity if never."""
        times = [
            time_s for endpoint in self._endpoints.values() for time_s in endpoint.wake_times(now_s)
        ]
        if self._leaving:
            times.append(now_s + _LOOK_S)
        return min(times, default=float("inf"))

    def close(self) -> list[Close]:
        """End: calls that wait fail. Return what to close."""
        self.is_closed = True
        connections = [*self._leaving]
        for endpoint in self._endpoints.values():
            connections += endpoint.connections
        commands = [self._close(each) for each in connections if each.is_ready]
        self._look()
        waiters = [*self._waiters, *self._bound]
        self._waiters.clear()
        self._bound.clear()
        for waiter in waiters:
            waiter.settle(self._closed())
        return commands

    def reset(self, now_s: float) -> None:
        """Forget all connections and calls: they are those of the parent of this process."""
        addresses = [*self._endpoints]
        self._waiters.clear()
        self._bound.clear()
        self._leaving.clear()
        self.set_endpoints((), now_s)
        self._leaving.clear()
        for policy in self.policies:
            policy.reset()
        self._used_s = float("-inf")
        self.set_endpoints(addresses, now_s)

    # --- within

    def _is_next(self, call: Call) -> bool:
        first = self._waiters[0].call
        return call is first or (call.is_admitted and not first.is_admitted)

    def _admit(self, call: Call) -> bool:
        if not all(policy.admits(call) for policy in self._admitting):
            return False
        call.is_admitted = True
        for policy in self._admitting:
            policy.enter(call)
        return True

    def _pick(self, call: Call, now_s: float) -> Connection | None:
        """Return the connection for an attempt, None if there is no room."""
        connection: Connection | None = call.connection
        if connection is not None:
            has_room = connection.is_ready and connection.in_flight < connection.most
            return connection if has_room else None
        candidates: Any = self._ready
        if not candidates:
            return None
        for policy in self._narrowing:
            candidates = policy.narrow(candidates, now_s)
        if call.tried:
            candidates = [each for each in candidates if each not in call.tried] or candidates
        connection = self._choose(candidates, now_s).best(now_s)
        if connection is None:
            # That one is full: there are so many calls in flight that a second look costs nothing.
            self.has_news = True
            candidates = [each for each in candidates if each.has_room]
            candidates = candidates or [each for each in self._ready if each.has_room]
            if candidates:
                connection = self._choose(candidates, now_s).best(now_s)
        return connection

    def _failed(self, call: Call, connection: Connection, error: ClientError, now_s: float) -> None:
        endpoint = connection.endpoint
        endpoint.failures += 1
        call.tried += (endpoint,)
        call.may_have_run |= not error.did_not_run
        if isinstance(error, RemoteError):
            connection.quiet_since_s = now_s
        elif isinstance(error, DeadlineExceeded) and now_s - connection.quiet_since_s >= SILENCE_S:
            # Nothing was answered until a call was too late: the next one is not to wait for it.
            connection.is_retiring = True
            self._look()

    def _failed_to_connect(self, connection: Connection, error: ClientError, now_s: float) -> None:
        self._forget(connection)
        endpoint = connection.endpoint
        if connection.has_answered:
            endpoint.error = error
        else:
            pause_s = backoff_s(endpoint.connect_failures + 1, self._random)
            endpoint.failed(error, now_s, pause_s)
        self._look()
        self._give_up_hopeless()

    def _close(self, connection: Connection) -> Close:
        connection.is_ready = False
        self._forget(connection)
        return Close(connection.client)

    def _forget(self, connection: Connection) -> None:
        self._leaving.discard(connection)
        if connection in connection.endpoint.connections:
            connection.endpoint.connections.remove(connection)

    def _look(self) -> None:
        """Find out what can be used."""
        self._ready = [each for each in self._endpoints.values() if each.look()]
        self.has_news = True

    def _serve(self, now_s: float) -> None:
        """Give what is free to those who wait, in their order."""
        for waiter in [*self._bound]:
            attempt = self.take(waiter.call, now_s)
            if attempt is not None:
                self._bound.remove(waiter)
                waiter.settle(attempt)
        while self._waiters:
            attempt = self.take(self._waiters[0].call, now_s)
            if attempt is None:
                return
            self._waiters.popleft().settle(attempt)

    def _give_up_hopeless(self) -> None:
        """Fail the calls for which every endpoint was tried in vain since they began to wait."""
        for waiter in [*self._waiters]:
            error = self._hopeless(waiter.call)
            if error is not None:
                self._waiters.remove(waiter)
                waiter.settle(error)
        for waiter in [each for each in self._bound if not each.call.connection.is_ready]:
            self._bound.remove(waiter)
            waiter.settle(self._unbound())

    def _hopeless(self, call: Call) -> ClientError | None:
        endpoints = self._endpoints.values()
        if not endpoints and self._why_none is None:
            return None
        if self._ready or any(each.failed_s < call.waiting_since_s for each in endpoints):
            return None
        if self._waits_for_ready and endpoints:
            return None
        return ConnectError(f"no endpoint can be called: {self._why()}")

    def _why(self) -> str:
        if self._ready:
            return "all are busy"
        reasons = [
            f"{each.address}: {each.error or each.state}" for each in self._endpoints.values()
        ]
        return "; ".join(reasons) or self._why_none or "none is known yet"

    @staticmethod
    def _unbound() -> ClientError:
        return not_sent(Disconnected("the connection of the capability was lost"))

    @staticmethod
    def _closed() -> ClientError:
        return not_sent(Disconnected("the channel is closed"))
