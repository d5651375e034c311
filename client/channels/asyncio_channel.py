"""The asyncio channel: calls over pooled connections to several endpoints."""

import asyncio
import inspect
import os
import weakref
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Self, Unpack

from capnp_rig.client.asyncio_client import AsyncClient
from capnp_rig.client.channels.channel import AnyChannel, ChannelOptions
from capnp_rig.client.channels.discovery import Discover, Endpoints, read_endpoints
from capnp_rig.client.channels.pool import Connect, Waiter
from capnp_rig.client.channels.pooled import Connection
from capnp_rig.client.forks import Owner
from capnp_rig.client.policies.policy import Attempt, Call, Policy
from capnp_rig.objects.capabilities import Params
from capnp_rig.objects.errors import ClientError, UsageError
from capnp_rig.objects.typed_calls import Interface_co, Named, async_call

# Those that have connections.
_channels: "weakref.WeakSet[AsyncChannel]" = weakref.WeakSet()


class AsyncChannel(AnyChannel[Interface_co]):
    """Calls to a service that several servers offer, over connections that come and go.

    See `Channel` for the arguments; here each connection carries many calls at a time. Works in one
    event loop, on asyncio and uvloop; connects with the first call. A forked child cannot use it.
    """

    _size = 4
    # The server takes 256, of which those that were cancelled keep their places for a while.
    _calls = 128

    def __init__(
        self,
        endpoints: Endpoints | Discover,
        *,
        interface: Named[Interface_co] = None,
        idempotent: Collection[str] | None = None,
        policies: Sequence[Policy] | None = None,
        **options: Unpack[ChannelOptions],
    ) -> None:
        super().__init__(
            endpoints, interface=interface, idempotent=idempotent, policies=policies, **options
        )
        self._by_name = self._methods.interface.methods
        # Since the first use.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner: Owner | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._begin_use()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; calls that are in flight or wait end in `Disconnected`."""
        commands = self._pool.close()
        if self._loop is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        closing = [command.client.close() for command in commands]
        await asyncio.gather(*closing, *self._tasks, return_exceptions=True)

    @async_call
    async def call(
        self, method: str, params: Params = None, *, timeout_s: float | None = None
    ) -> Any:
        """Call a method by its schema name; return a view of its results.

        What is done where that fails is what the policies say. A capability in the results belongs
        to the connection that brought it, and a call with one in its params goes there.

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
        # The running loop, and the process, cost a system call each: 0.2 µs.
        if self._loop is None or self._loop.is_closed():
            self._begin_use()
        pool = self._pool
        call = self._methods.call(method, params, timeout_s, pool)
        now_s = call.started_s
        try:
            while True:
                attempt = pool.take(call, now_s)
                if attempt is None:
                    attempt = await self._until_taken(call)
                hedge_s = pool.hedge_s(call) if pool.hedges else None
                try:
                    if hedge_s is None:
                        # In here: a coroutine more would take 0.6 µs.
                        edge = attempt.connection.owner
                        if attempt.is_doubtful:
                            edge.look()
                        results = await edge.attempt(self._by_name[method], params, call.deadline_s)
                    else:
                        results = await self._hedged(attempt, params, hedge_s)
                except ClientError as error:
                    pool.fail(attempt, error, monotonic())
                    await self._pause(attempt, error)
                    now_s = monotonic()
                except BaseException:
                    # Cancelled, or never sent.
                    pool.give_up(attempt, monotonic())
                    raise
                else:
                    pool.succeed(attempt, monotonic())
                    return results
        finally:
            if call.is_admitted:
                pool.finish(call, monotonic())
            if pool.has_news:
                self._act()

    @asynccontextmanager
    async def connection(
        self, *, timeout_s: float | None = None
    ) -> AsyncIterator[AsyncClient[Interface_co]]:
        """Hand out one connection for a session: an `AsyncClient`, which other calls use as well.

        It stays for as long as the block lasts, and counts as one call. What is called on it
        has no retries. The default of `timeout_s`, for the wait, is that of a call.

        Raises:
            ClientError: As `call`, where no endpoint can be reached.
        """
        self._begin_use()
        pool = self._pool
        call = self._methods.session(timeout_s, pool)
        try:
            attempt = pool.take(call, monotonic()) or await self._until_taken(call)
            try:
                yield attempt.connection.client
            finally:
                pool.give_up(attempt, monotonic())
        finally:
            pool.finish(call, monotonic())
            self._act()

    # --- attempts

    async def _attempt(self, attempt: Attempt, params: Params) -> Any:
        """Make an attempt, and tell the pool how it ended."""
        pool, call = self._pool, attempt.call
        try:
            if attempt.is_doubtful:
                attempt.connection.owner.look()
            edge, method = attempt.connection.owner, self._by_name[call.method]
            results = await edge.attempt(method, params, call.deadline_s)
        except ClientError as error:
            pool.fail(attempt, error, monotonic())
            raise
        except BaseException:
            # Cancelled, or never sent.
            pool.give_up(attempt, monotonic())
            raise
        pool.succeed(attempt, monotonic())
        return results

    async def _pause(self, attempt: Attempt, error: ClientError) -> None:
        """Wait before the next attempt; raise the error if there is none."""
        pause_s = self._pool.retry_s(attempt)
        if self._pool.has_news:
            self._act()
        if pause_s is None:
            raise self._pool.final(attempt.call, error)
        await asyncio.sleep(pause_s)
        self._pool.check_time(attempt.call, monotonic())

    async def _hedged(self, first: Attempt, params: Params, after_s: float) -> Any:
        """Make an attempt, and another one beside it after a while; return the first results."""
        running = {asyncio.ensure_future(self._attempt(first, params))}
        try:
            await asyncio.wait(running, timeout=after_s)
            if not any(task.done() for task in running):
                second = self._pool.hedge(first, monotonic())
                if self._pool.has_news:
                    self._act()
                if second is not None:
                    running.add(asyncio.ensure_future(self._attempt(second, params)))
            while True:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                # What failed is of interest only if nothing else comes.
                task = min(done, key=lambda task: task.exception() is not None)
                if task.exception() is None or not running:
                    return task.result()
        finally:
            for task in running:
                task.cancel()

    async def _until_taken(self, call: Call) -> Attempt:
        """Wait for an attempt."""
        pool = self._pool
        while True:
            error = pool.refusal(call)
            if error is not None:
                raise pool.final(call, error)
            outcome = await self._wait(call)
            if isinstance(outcome, Attempt):
                return outcome
            pause_s = pool.retry_unsent_s(call, outcome, monotonic())
            if pause_s is None:
                raise pool.final(call, outcome)
            await asyncio.sleep(pause_s)

    async def _wait(self, call: Call) -> Attempt | ClientError:
        assert self._loop is not None
        pool = self._pool
        future: _Outcome = self._loop.create_future()
        waiter = pool.wait(call, monotonic(), partial(self._settle, future))
        self._act()
        timer = self._loop.call_at(call.deadline_s, self._too_late, waiter, future)
        try:
            return await future
        except asyncio.CancelledError:
            pool.drop(waiter)
            if future.done() and not future.cancelled():
                outcome = future.result()
                if isinstance(outcome, Attempt):
                    pool.give_up(outcome, monotonic())
            raise
        finally:
            timer.cancel()

    def _too_late(self, waiter: Waiter, future: "_Outcome") -> None:
        self._pool.drop(waiter)
        self._settle(future, self._pool.too_late(waiter.call))

    def _settle(self, future: "_Outcome", outcome: Attempt | ClientError) -> None:
        if not future.done():
            future.set_result(outcome)
        elif isinstance(outcome, Attempt):
            # Its task was cancelled, and has not run since.
            self._pool.give_up(outcome, monotonic())

    # --- connections

    def _begin_use(self) -> None:
        """Bind the channel to the event loop that runs.

        Raises:
            UsageError: Another one has it.
            UsedAfterFork: It was used before a fork, by the parent.
        """
        loop = asyncio.get_running_loop()
        if self._owner is not None:
            self._owner.check()
        if self._loop is None:
            self._loop = loop
            self._owner = Owner()
            _channels.add(self)
            if self._discovery.fixed:
                self._pool.set_endpoints(self._discovery.fixed, monotonic())
            self._act()
        if self._loop is not loop:
            raise UsageError("the channel belongs to another event loop: make one for each")

    def _forked(self) -> None:
        """Take note that this process is a child of the one whose connections these are."""
        self._loop = None
        self._pool.is_closed = True

    def _act(self) -> None:
        """Do what the pool wants, and look again when it is time."""
        now_s = monotonic()
        for command in self._pool.poll(now_s):
            if isinstance(command, Connect):
                command.connection.is_begun = True
                self._start(self._connect(command.connection))
            else:
                self._start(command.client.close())
        if now_s >= self._discovery.due_s and not self._pool.is_closed:
            self._discovery.asks()
            self._start(self._ask())
        self._arm(min(self._pool.wake_s(now_s), self._discovery.due_s))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _arm(self, when_s: float) -> None:
        if self._timer is not None:
            if self._timer_s <= when_s:
                return
            self._timer.cancel()
            self._timer = None
        if when_s < float("inf") and not self._pool.is_closed:
            assert self._loop is not None
            self._timer = self._loop.call_at(when_s, self._wake)
            # That of uvloop does not know it where it is now.
            self._timer_s = when_s

    def _wake(self) -> None:
        self._timer = None
        self._act()

    async def _connect(self, connection: Connection) -> None:
        pool = self._pool
        deadline_s = monotonic() + self._connect_timeout_s
        client: AsyncClient | None = None
        try:
            client = await AsyncClient.connect(
                connection.endpoint.address,
                interface=self._methods.interface,
                timeout_s=pool.timeout_s,
                connect_timeout_s=self._connect_timeout_s,
                stream_window_bytes=self._stream_window_bytes,
                max_message_bytes=self._max_message_bytes,
                tls=self._security,
            )
            await client.edge.until_heard(deadline_s)
        except ClientError as error:
            pool.connect_failed(connection, error, monotonic())
            self._discovery.hurry()
            if client is not None:
                await client.close()
        except BaseException:
            if client is not None:
                self._start(client.close())
            raise
        else:
            pool.connected(connection, client, client.edge, monotonic())
            client.edge.tell_end(partial(self._lost, connection))
        self._act()

    def _lost(self, connection: Connection, error: ClientError) -> None:
        self._pool.lost(connection, error, monotonic())
        if not self._pool.is_closed:
            self._act()

    async def _ask(self) -> None:
        """Ask for the present endpoints; those that there were stay if that fails."""
        discovery, pool = self._discovery, self._pool
        try:
            answer = discovery.ask()
            addresses = read_endpoints(await answer if inspect.isawaitable(answer) else answer)
        except Exception as error:  # noqa: BLE001 - a user's code
            pool.discovery_failed(discovery.failed(error))
        except asyncio.CancelledError:
            # It may be what the user's code waits for that was cancelled.
            discovery.asked(monotonic())
            self._arm(discovery.due_s)
            raise
        else:
            pool.set_endpoints(addresses, monotonic())
        discovery.asked(monotonic())
        self._act()


_Outcome = asyncio.Future[Attempt | ClientError]


def _forbid_all() -> None:
    for channel in [*_channels]:
        channel._forked()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_forbid_all)
