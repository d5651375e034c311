"""The blocking channel: calls of many threads, over pooled connections to several endpoints."""

import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Self, Unpack

from capnp_rig.client.blocking_client import Client, PendingCall
from capnp_rig.client.channels.channel import AnyChannel, ChannelOptions
from capnp_rig.client.channels.discovery import Discover, Endpoints, read_endpoints
from capnp_rig.client.channels.pool import Connect, EndpointStatus
from capnp_rig.client.channels.pooled import Connection
from capnp_rig.client.policies.policy import Attempt, Call, Policy
from capnp_rig.objects.capabilities import Params
from capnp_rig.objects.errors import ClientError, DeadlineExceeded
from capnp_rig.objects.typed_calls import Interface_co, Named, blocking_call

# How long a thread that waits leaves to others what an interrupted thread has left undone.
_LOOK_S = 0.25

_channels: "weakref.WeakSet[Channel]" = weakref.WeakSet()


class _Lease(Attempt):
    """An attempt that is given back even if an exception comes between any two steps."""

    def __init__(self, lost: deque["_Lease"], *args: Any) -> None:
        super().__init__(*args)
        self._lost = lost
        self.call.leases = (*self.call.leases, weakref.ref(self))

    def abandon(self) -> None:
        """Leave it to whoever comes next, unless it has ended."""
        # In any thread, and in the middle of anything.
        if self.ended_s is None:
            self._lost.append(self)

    __del__ = abandon


class Channel(AnyChannel[Interface_co]):
    """Calls to a service that several servers offer, over connections that come and go.

    Its calls are those of a `Client`; each has a connection to itself while it runs. Threads may
    share a channel, with gevent as well. A forked child may use it: it connects anew. Connects with
    the first call. Connections that are idle or too old are closed with the next call.

    The policies say what is done with a call that fails. By default a call has a deadline of 15 s
    for all that it does, goes to the less loaded of two endpoints, and is tried up to three times:
    if it certainly did not run, or if it is declared idempotent and its connection was lost.

    Capabilities belong to the connection that brought them, and keep it open: `connection` hands
    out one for a session. If it is lost, their calls raise `Disconnected`.
    """

    # One call each at a time: another one makes another connection, up to this.
    _size = 32
    _calls = 1

    def __init__(
        self,
        endpoints: Endpoints | Discover,
        *,
        interface: Named[Interface_co] = None,
        idempotent: Collection[str] | None = None,
        policies: Sequence[Policy] | None = None,
        **options: Unpack[ChannelOptions],
    ) -> None:
        self._lost: deque[_Lease] = deque()
        super().__init__(
            endpoints, interface=interface, idempotent=idempotent, policies=policies, **options
        )
        # A signal handler may call in the middle of a call of its own thread.
        self._lock = threading.RLock()
        self._wake_s = float("-inf")
        if self._discovery.fixed:
            self._pool.set_endpoints(self._discovery.fixed, monotonic())
        _channels.add(self)

    def _attempt_kind(self) -> Callable[..., Attempt]:
        return partial(_Lease, self._lost)

    @property
    def endpoints(self) -> list[EndpointStatus]:
        """What is known of each endpoint now."""
        with self._lock:
            self._take_back()
            return self._pool.status(monotonic())

    def __enter__(self) -> Self:
        self._act()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; calls of any thread end in `Disconnected`."""
        with self._lock:
            commands = self._pool.close()
        for command in commands:
            command.client.close()

    @blocking_call
    def call(self, method: str, params: Params = None, *, timeout_s: float | None = None) -> Any:
        """Call a method by its schema name; return a view of its results.

        A call with a capability in its params goes to the connection which that belongs to.

        Raises:
            AttributeError: The interface has no such method.
            EncodeError: The params do not fit the schema or the message limit.
            UnusableCapability: One in the params was closed, or its connection is gone.
            UsageError: The method is a streaming one, which needs `connection`; or `timeout_s` is
                not 0 to a year.
            DeadlineExceeded: No answer by the deadline, after however many attempts.
            ConnectError: No endpoint can be reached.
            ClientError: What the last attempt ended in.
        """
        with self._lock:
            call = self._methods.call(method, params, timeout_s, self._pool)
        try:
            while True:
                attempt = self._take(call)
                try:
                    return self._attempt(attempt, params)
                except ClientError as error:
                    with self._lock:
                        pause_s = self._pool.retry_s(attempt)
                    if pause_s is None:
                        self._pool.final(call, error)
                        raise
                time.sleep(pause_s)
                self._pool.check_time(call, monotonic())
        finally:
            self._finish(call)

    @contextmanager
    def connection(self, *, timeout_s: float | None = None) -> Iterator[Client[Interface_co]]:
        """Hand out one connection for a session: a `Client`, which nobody else uses meanwhile.

        What is called on it has no retries. The default of `timeout_s`, for the wait, is that of a
        call.

        Raises:
            ClientError: As `call`, where no endpoint can be reached.
        """
        with self._lock:
            call = self._methods.session(timeout_s, self._pool)
        try:
            attempt = self._take(call)
            try:
                yield attempt.connection.client
            finally:
                self._end(attempt, was_given_up=True)
        finally:
            self._finish(call)

    # --- attempts

    def _take(self, call: Call) -> Attempt:
        """Begin an attempt, after a wait if need be."""
        while True:
            with self._lock:
                self._take_back()
                attempt = self._pool.take(call, monotonic())
                error = self._pool.refusal(call) if attempt is None else None
            if error is not None:
                raise self._pool.final(call, error)
            if attempt is None:
                outcome = self._wait(call)
                if isinstance(outcome, ClientError):
                    with self._lock:
                        pause_s = self._pool.retry_unsent_s(call, outcome, monotonic())
                    if pause_s is None:
                        raise self._pool.final(call, outcome)
                    time.sleep(pause_s)
                    continue
                attempt = outcome
            self._act_if_due()
            client = attempt.connection.client
            # Of a connection that has ended meanwhile nobody tells. The look takes 2 µs of 80.
            if not client.is_readable() or client.is_alive():
                return attempt
            self._end(attempt, was_given_up=True)
            # Nothing was sent.
            call.attempts -= 1

    def _wait(self, call: Call) -> Attempt | ClientError:
        outcomes: list[Attempt | ClientError] = []
        is_settled = threading.Event()

        def settle(outcome: Attempt | ClientError) -> None:
            outcomes.append(outcome)
            is_settled.set()

        with self._lock:
            waiter = self._pool.wait(call, monotonic(), settle)
        try:
            while not outcomes:
                self._act_if_due()
                now_s = monotonic()
                if now_s >= call.deadline_s:
                    break
                next_s = min(call.deadline_s, max(self._wake_s, now_s + 0.001), now_s + _LOOK_S)
                is_settled.wait(next_s - now_s)
        finally:
            # Where this is interrupted, `outcomes` goes, and what is in there is given back.
            with self._lock:
                self._pool.drop(waiter)
        return outcomes[0] if outcomes else self._pool.too_late(call)

    def _attempt(self, attempt: Attempt, params: Params) -> Any:
        """Make an attempt, and tell the pool how it ended."""
        call, client = attempt.call, attempt.connection.client
        hedge_s = self._hedge_s(call)
        if hedge_s is not None:
            return self._hedged(attempt, params, hedge_s)
        try:
            timeout_s = max(call.deadline_s - monotonic(), 0.0)
            results = client.call(call.method, params, timeout_s=timeout_s)
        except ClientError as error:
            self._end(attempt, error)
            raise
        except BaseException as error:
            if not isinstance(error, Exception):
                # In the middle of anything.
                client.close()
            self._end(attempt, was_given_up=True)
            raise
        self._end(attempt)
        return results

    def _end(
        self, attempt: Attempt, error: ClientError | None = None, *, was_given_up: bool = False
    ) -> None:
        connection = attempt.connection
        with self._lock:
            now_s = monotonic()
            if not connection.client.is_open:
                self._pool.lost(connection, error or connection.client.ending, now_s)
            if error is not None:
                self._pool.fail(attempt, error, now_s)
            elif was_given_up:
                self._pool.give_up(attempt, now_s)
            else:
                self._pool.succeed(attempt, now_s)

    def _finish(self, call: Call) -> None:
        for reference in call.leases:
            lease = reference()
            if lease is not None:
                # An interrupt came before its end was told. Its traceback may live for long.
                lease.abandon()
        if call.is_admitted:
            with self._lock:
                self._pool.finish(call, monotonic())
        self._act_if_due()

    def _take_back(self) -> None:
        """Take back what interrupted threads have not given back."""
        while self._lost:
            attempt = self._lost.popleft()
            attempt.connection.client.close()
            self._end(attempt, was_given_up=True)

    # --- hedging

    def _hedge_s(self, call: Call) -> float | None:
        if not self._pool.hedges:
            return None
        with self._lock:
            return self._pool.hedge_s(call)

    def _hedged(self, first: Attempt, params: Params, after_s: float) -> Any:
        """Make an attempt, and another one beside it after a while; return the first results."""
        race = _Race(self._end)
        deadline_s = first.call.deadline_s
        try:
            race.start(first, params)
            ended = race.wait(min(monotonic() + after_s, deadline_s))
            if not ended and monotonic() < deadline_s:
                with self._lock:
                    second = self._pool.hedge(first, monotonic())
                if second is not None:
                    # The first one may still be answered.
                    with suppress(ClientError):
                        race.start(second, params)
                self._act_if_due()
                ended = race.wait(deadline_s)
            while ended and ended.error is not None and race.running:
                ended = race.wait(deadline_s)
            if ended is None:
                late = DeadlineExceeded("no answer within the deadline")
                race.give_up(late)
                raise late
        finally:
            race.give_up()
        if ended.error is not None:
            raise ended.error
        return ended.results

    # --- connections

    def _act_if_due(self) -> None:
        if self._pool.has_news or monotonic() >= min(self._wake_s, self._discovery.due_s):
            self._act()

    def _act(self) -> None:
        """Do what the pool wants; an interrupt leaves the rest to whoever looks next."""
        now_s = monotonic()
        with self._lock:
            self._take_back()
            commands = [] if self._pool.is_closed else self._pool.poll(now_s)
            self._wake_s = self._pool.wake_s(now_s)
        if now_s >= self._discovery.due_s:
            _in_thread(self._ask)
        for command in commands:
            if isinstance(command, Connect):
                _in_thread(partial(self._connect, command.connection))
            else:
                command.client.close()

    def _connect(self, connection: Connection) -> None:
        with self._lock:
            if connection.is_begun:
                return
            connection.is_begun = True
        deadline_s = monotonic() + self._connect_timeout_s
        client: Client | None = None
        try:
            client = Client.connect(
                connection.endpoint.address,
                interface=self._methods.interface,
                timeout_s=self._pool.timeout_s,
                connect_timeout_s=self._connect_timeout_s,
                stream_window_bytes=self._stream_window_bytes,
                max_message_bytes=self._max_message_bytes,
                tls=self._security,
            )
            client.until_heard(deadline_s)
        except ClientError as error:
            if client is not None:
                client.close()
            with self._lock:
                self._pool.connect_failed(connection, error, monotonic())
                self._discovery.hurry()
        else:
            with self._lock:
                is_late = self._pool.is_closed
                if not is_late:
                    self._pool.connected(connection, client, client, monotonic())
            if is_late:
                client.close()
        self._act_if_due()

    def _ask(self) -> None:
        """Ask for the present endpoints; those that there were stay if that fails."""
        with self._lock:
            if monotonic() < self._discovery.due_s:
                # Another thread asks.
                return
            self._discovery.asks()
        try:
            addresses = read_endpoints(self._discovery.ask())
        except Exception as error:  # noqa: BLE001 - a user's code
            reason = self._discovery.failed(error)
            with self._lock:
                self._pool.discovery_failed(reason)
        else:
            with self._lock:
                self._pool.set_endpoints(addresses, monotonic())
        finally:
            # After a gevent.Timeout, too, which is no Exception.
            self._discovery.asked(monotonic())
        self._act_if_due()

    def _forked(self) -> None:
        """Begin anew in a child: the connections are the parent's, and so are its threads."""
        self._lock = threading.RLock()
        self._lost.clear()
        self._wake_s = float("-inf")
        self._pool.reset(monotonic())
        self._discovery.reset()


class _Race:
    """Attempts of one call, each on a client of its own; `end` is told how each ended."""

    def __init__(self, end: Callable[..., None]) -> None:
        self._end = end
        self.running: dict[PendingCall, Attempt] = {}

    def start(self, attempt: Attempt, params: Params) -> None:
        """Send an attempt.

        Raises:
            ClientError, EncodeError, UnusableCapability: As `Client.submit_by`.
        """
        try:
            client, call = attempt.connection.client, attempt.call
            pending = client.submit_by(call.deadline_s, call.method, params)
        except ClientError as error:
            self._end(attempt, error)
            raise
        except BaseException:
            self._end(attempt, was_given_up=True)
            raise
        self.running[pending] = attempt

    def wait(self, until_s: float) -> PendingCall | None:
        """Return the next that has ended, None at `until_s`."""
        while True:
            for pending, attempt in self.running.items():
                if pending.done:
                    del self.running[pending]
                    self._end(attempt, pending.error)
                    return pending
            remaining_s = until_s - monotonic()
            if remaining_s <= 0:
                return None
            arriving = select.poll()
            for attempt in self.running.values():
                arriving.register(attempt.connection.client.fileno(), select.POLLIN)
            arriving.poll(remaining_s * 1000)
            for attempt in self.running.values():
                attempt.connection.client.is_alive()

    def give_up(self, late: DeadlineExceeded | None = None) -> None:
        """Cancel what runs, because it is `late` or another one has won."""
        while self.running:
            pending, attempt = self.running.popitem()
            attempt.connection.client.cancel(pending)
            self._end(attempt, late, was_given_up=late is None)


def _in_thread(work: Any) -> None:
    """Run `work` in a thread, which does not keep the process from its end."""
    try:
        threading.Thread(target=work, name="capnp-rig channel", daemon=True).start()
    except RuntimeError:
        # There can be no more threads, or the interpreter is about to end.
        work()


def _renew_all() -> None:
    for channel in [*_channels]:
        channel._forked()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_renew_all)
