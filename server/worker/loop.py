"""The life of a worker on its event loop: adopt connections, answer beats, drain, leave."""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from capnp_rig.rigcli.socket_options import set_options
from capnp_rig.rigcli.tls import tls_reason
from capnp_rig.server.connections.connection_log import ConnectionLog
from capnp_rig.server.connections.tls import Secured
from capnp_rig.server.control import messages
from capnp_rig.server.control.call_stamp import Stamp
from capnp_rig.server.control.channel import Channel, ChannelClosedError
from capnp_rig.server.engines.call_counts import CallCounts, CountingEngine
from capnp_rig.server.engines.call_site import WorkerPlace
from capnp_rig.server.engines.engine import Engine, OnEnd
from capnp_rig.server.logs.log import Log, open_log

if TYPE_CHECKING:
    from capnp_rig.server.trace_provider import TraceProvider

# How often the counts are copied for the supervisor.
_PUBLISH_S = 0.25
# Handed connections wait for the next turn of the loop beyond this many.
_MESSAGES_PER_TURN = 64
# When the time for the drain is over, connections that have nothing left to do may still close.
_LAST_TURNS_S = 0.1
# How long the last spans may take to leave; the supervisor waits for 1 s where calls are cancelled.
_FLUSH_S, _CANCELLED_FLUSH_S = 2.0, 0.5
# How long a drain waits for handshakes: a round trip or two, but for no peer that stalls.
_ADOPTIONS_S = 1.0
_REFUSED = "its calls killed workers"
LEFT = 0
CANCELLED = 1


class Worker:
    """Serves what the supervisor hands over, until it says otherwise or is gone."""

    def __init__(
        self,
        channel: Channel,
        setup: messages.Setup,
        service: Any,
        pin_error: str | None,
        stamp: Stamp,
        securing: Mapping[str, Any],
    ) -> None:
        self._channel = channel
        self._setup = setup
        self._service = service
        self._pin_error = pin_error
        self._stamp = stamp
        # What TLS adds to an adoption; nothing without.
        self._securing = securing
        self._name = f"[Worker {setup.worker}]"
        self._place = WorkerPlace(setup.worker)
        self._provider: TraceProvider | None = None
        self._outbox: deque[messages.Message] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._adopting: set[asyncio.Task[None]] = set()
        self._transports: dict[int, asyncio.BaseTransport] = {}
        self._dropped: set[int] = set()
        self._log: Log
        self._lines: ConnectionLog
        self._engine: Engine

    async def run(self) -> int:
        """Serve; return the exit status."""
        loop = asyncio.get_running_loop()
        self._leaving: asyncio.Future[int] = loop.create_future()
        loop.set_exception_handler(self._report)
        self._log = open_log(self._setup.config.log_level, self._setup.config.log_format)
        self._lines = ConnectionLog(self._log, self._setup, self._pin_error)
        if self._setup.config.traces:
            # It needs OpenTelemetry, and a process that forks no more.
            from capnp_rig.server.trace_provider import TraceProvider

            self._provider = TraceProvider()
            self._place.traces = self._provider.traces
        async with self._open() as self._engine:
            await self._engine.heartbeat()
            self._send(messages.Ready(pin_error=self._pin_error))
            if self._setup.listen is not None:
                self._lines.running()
                self._lines.listening(self._setup.listen)
            loop.add_reader(self._channel.fileno(), self._on_control)
            self._publish_counts(loop.time())
            status = await self._leaving
            # Nobody can answer a beat while the engine is closed.
            loop.remove_reader(self._channel.fileno())
            await self._abandon_tasks()
            return status

    def _open(self) -> AbstractAsyncContextManager[Engine]:
        if self._setup.config.stack == "capnp":
            if self._setup.config.log_level == "debug" and hasattr(self._service, "note"):
                self._service.note = self._log.debug
            # Only the one used is imported.
            if self._setup.config.engine == "wire":
                from capnp_rig.server.engines.wire_engine import open_wire_engine as open_engine
            else:
                from capnp_rig.server.engines.pycapnp_engine import (
                    open_pycapnp_engine as open_engine,
                )
            limits, counts_calls = self._setup.config.limits, self._setup.config.metrics is not None
            return open_engine(
                self._service,
                self._log,
                self._stamp,
                limits,
                self._place,
                counts_calls=counts_calls,
            )
        from capnp_rig.server.stacks.registry import open_stack

        return open_stack(self._setup, self._log, self._stamp)

    def _publish_counts(self, due_s: float, *, is_last: bool = False) -> None:
        """Copy the counts to where the supervisor reads them, now and again and again."""
        counts, engine = self._counts, self._engine
        if counts is None or not isinstance(engine, CountingEngine):
            return
        loop = asyncio.get_running_loop()
        if not is_last:
            counts.lagged(loop.time() - due_s)
            due_s = loop.time() + _PUBLISH_S
            loop.call_at(due_s, self._publish_counts, due_s)
        counts.publish(self._stamp, engine.traffic())

    @property
    def _counts(self) -> CallCounts | None:
        engine = self._engine
        return engine.counts if isinstance(engine, CountingEngine) else None

    def _on_control(self) -> None:
        try:
            for _ in range(_MESSAGES_PER_TURN):
                received = self._channel.receive()
                if received is None:
                    return
                self._obey(*received)
        except ChannelClosedError:
            # The supervisor is gone, and with it everyone who could restart us in good order.
            os._exit(CANCELLED)

    def _obey(self, order: messages.Message, fd: int | None) -> None:
        match order:
            case messages.Hand():
                self._take(order, fd)
            case messages.Drop():
                self._drop(order.connection)
            case messages.Ping():
                self._spawn(self._beat(order.beat))
            case messages.Drain():
                self._place.drain_within(self._setup.config.drain_timeout_s)
                self._spawn(self._drain())
            case messages.Stop():
                # A drain that has nothing to wait for ends before.
                asyncio.get_running_loop().call_later(_LAST_TURNS_S, self._stop)
            case _:
                raise AssertionError(order)

    def _take(self, hand: messages.Hand, fd: int | None) -> None:
        if fd is None:
            self._send(messages.Refused(hand.connection))
            return
        self._send(messages.Taken(hand.connection))
        adopting = self._spawn(self._adopt(hand, socket.socket(fileno=fd)))
        self._adopting.add(adopting)
        adopting.add_done_callback(self._adopting.discard)

    async def _adopt(self, hand: messages.Hand, sock: socket.socket) -> None:
        self._lines.received(hand.peer)

        is_over = False

        def on_end(reason: str | None) -> None:
            nonlocal is_over
            is_over = True
            if hand.connection in self._dropped:
                self._dropped.discard(hand.connection)
                reason = _REFUSED
            self._transports.pop(hand.connection, None)
            self._lines.ended(hand.peer, reason)
            self._send(messages.Ended(hand.connection))

        try:
            set_options(sock)
            self._lines.started(hand.peer)
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._protocol(on_end, hand.connection), sock, **self._securing
            )
            if not is_over:
                self._transports[hand.connection] = transport
        except OSError as error:
            # The peer was gone before it was adopted, or its handshake failed.
            sock.close()
            if self._securing and self._counts is not None:
                self._counts.refused("tls-handshake")
            if not is_over:
                on_end(self._adoption_reason(error))
        except asyncio.CancelledError:
            if not is_over:
                on_end("the server ended before the TLS handshake did")
            raise

    def _protocol(self, on_end: OnEnd, connection: int) -> asyncio.BaseProtocol:
        if self._securing:
            return Secured(lambda: self._engine.protocol(on_end, connection))
        return self._engine.protocol(on_end, connection)

    def _adoption_reason(self, error: OSError) -> str:
        if self._securing:
            return f"TLS handshake: {tls_reason(error)}"
        return error.strerror or "broken"

    def _drop(self, connection: int) -> None:
        transport: Any = self._transports.get(connection)
        if transport is not None:
            self._dropped.add(connection)
            transport.abort()

    async def _beat(self, beat: int) -> None:
        await self._engine.heartbeat()
        self._send(messages.Pong(beat))
        self._log.flush()

    async def _drain(self) -> None:
        # Adoptions under way must be known to the engine before it looks.
        if self._adopting:
            _, stalled = await asyncio.wait(self._adopting, timeout=_ADOPTIONS_S)
            for adopting in stalled:
                adopting.cancel()
        await self._engine.drain()
        self._leave(0)

    def _stop(self) -> None:
        self._leave(self._engine.unfinished)

    def _leave(self, cancelled: int) -> None:
        if self._leaving.done():
            return
        self._publish_counts(0.0, is_last=True)
        if self._provider is not None:
            self._provider.flush(_CANCELLED_FLUSH_S if cancelled else _FLUSH_S)
        self._send(messages.Left(cancelled))
        self._log.flush(last=True)
        if cancelled:
            # Handlers that will not end must not hold up the exit.
            os._exit(CANCELLED)
        self._leaving.set_result(LEFT)

    async def _abandon_tasks(self) -> None:
        """Cancel what the engine would fail when it closes, such as a heartbeat under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _send(self, message: messages.Message) -> None:
        """Send in order, and keep what the supervisor has no room for."""
        if self._outbox or not self._try_send(message):
            self._outbox.append(message)
            asyncio.get_running_loop().add_writer(self._channel.fileno(), self._flush)

    def _flush(self) -> None:
        while self._outbox and self._try_send(self._outbox[0]):
            self._outbox.popleft()
        if not self._outbox:
            asyncio.get_running_loop().remove_writer(self._channel.fileno())

    def _try_send(self, message: messages.Message) -> bool:
        try:
            return self._channel.send(message)
        except ChannelClosedError:
            os._exit(CANCELLED)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _report(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what asyncio would otherwise print, blocking, on stderr."""
        error = context.get("exception")
        self._log.error(
            f"{self._name} {context.get('message', 'unexpected error')}: {error!r}",
            kind=f"{self._name} unexpected errors",
            worker=self._setup.worker,
        )
