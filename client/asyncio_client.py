"""The asyncio client: many calls at a time over one connection."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast, overload

from capnp_rig.client.callbacks import LEFT_UNREAD, explain, most_unread_bytes
from capnp_rig.client.connecting import open_secured, secured
from capnp_rig.client.forks import Owner, keep_from_children
from capnp_rig.client.message_limit import MESSAGE_BYTES, limits_of
from capnp_rig.objects.async_calls import AsyncCalls
from capnp_rig.objects.caller import AsyncCapability, AsyncPipeline, expire
from capnp_rig.objects.capabilities import Params
from capnp_rig.objects.closing import Closing
from capnp_rig.objects.errors import ClientError, DeadlineExceeded, Disconnected, not_sent
from capnp_rig.objects.peer import Peer
from capnp_rig.objects.serving import Served, Serving
from capnp_rig.objects.session import PreparedCall
from capnp_rig.objects.streams import STREAM_WINDOW_BYTES
from capnp_rig.objects.timeouts import CALL_TIMEOUT_S, CONNECT_TIMEOUT_S, check_timeout
from capnp_rig.objects.typed_calls import (
    Interface_co,
    Named,
    OtherInterface,
    Typed,
    async_call,
    async_pipeline,
)
from capnp_rig.rigcli.address import Address, parse_address
from capnp_rig.rigcli.tls import tls_reason
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.connection import Called, Limits
from capnp_rig.wire.rpc.interfaces import Interface, Method, compile_interface
from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError

if TYPE_CHECKING:
    from capnp_rig.client.tls import TlsArgument

_TOO_MANY_BYTES = RemoteError(
    "the params of the calls that run are too many bytes", ExceptionType.OVERLOADED
)
_SERVING = Serving(explain, Closing(explain).close)
# How long what is still to be written may take after the end.
_CLOSE_S = 1.0
_RECEIVE_BYTES = 65_536
# After so long with the bytes of one read, the loop gets its turn. uvloop reads 32 times before
# it looks at its timers, a quarter of a megabyte each: seconds, where a server never stops
# sending small messages. What takes so long comes in reads of this size and more.
_LONG_S = 0.01
_MUCH_BYTES = 16_384


class AsyncClient(Typed[Interface_co]):
    """A connection to a server, for any number of concurrent calls in one event loop.

    Arguments and errors are those of `Client`, and `interface` is.

    Works on asyncio and uvloop. After `Disconnected` or `ProtocolError`, or whenever `is_open`
    is false, it is of no further use; connect anew. A forked child cannot use it: its calls
    raise `UsedAfterFork`, and whatever else it does leaves the parent's connection alone.
    """

    interface: ClassVar[Any] = None

    def __init__(self, protocol: "_Protocol") -> None:
        """Use `connect` instead."""
        self._protocol = protocol

    @classmethod
    async def connect(
        cls,
        address: str | Address,
        *,
        interface: Named[Interface_co] = None,
        timeout_s: float = CALL_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        stream_window_bytes: int = STREAM_WINDOW_BYTES,
        max_message_bytes: int = MESSAGE_BYTES,
        tls: "TlsArgument" = None,
    ) -> Self:
        """Connect as `Client.connect` does."""
        compiled = compile_interface(cls.interface if interface is None else interface)
        timeout_s = check_timeout(timeout_s)
        limits = limits_of(max_message_bytes)
        if isinstance(address, str):
            address = parse_address(address)

        def make(sock: socket.socket) -> _Protocol:
            return _Protocol(compiled, sock, timeout_s, stream_window_bytes, limits)

        protocol = await open_secured(address, connect_timeout_s, secured(tls), make)
        return cls(protocol)

    @property
    def is_open(self) -> bool:
        """Whether calls can be made: the connection stands, as far as is known here."""
        return self._protocol.is_open

    @property
    def edge(self) -> "_Protocol":
        """For channels: the connection itself, which is the owner of its capabilities."""
        return self._protocol

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls still in flight end in `Disconnected`.

        In a forked child this does nothing: the child's copy went at the fork.
        """
        await self._protocol.close()

    @async_call
    async def call(
        self, method: str, params: Params = None, *, timeout_s: float | None = None
    ) -> Any:
        """Call a method by its schema name, as `Client.call`; return a view of its results.

        A task that is cancelled while it waits cancels the call. Objects in the params are served
        as long as the server has them; their methods may be async.
        """
        return await self._protocol.call(None, method, params, timeout_s)

    @async_pipeline
    def pipeline(
        self, method: str, params: Params = None, *, timeout_s: float | None = None
    ) -> AsyncPipeline:
        """Call a method, as `Client.pipeline`, and use its results before they come.

        Await what is returned for the results themselves. All that is called in one turn of the
        event loop leaves in one write.
        """
        return self._protocol.pipeline(None, method, params, timeout_s)

    @overload
    def bootstrap(self, interface: None = None) -> AsyncCapability[Interface_co]: ...
    @overload
    def bootstrap(self, interface: Named[OtherInterface]) -> AsyncCapability[OtherInterface]: ...
    def bootstrap(self, interface: Any = None) -> AsyncCapability[Any]:
        """Return the server's own object as a capability, as `Client.bootstrap`."""
        return self._protocol.bootstrap(interface)


class _Protocol(Peer, asyncio.Protocol):
    """The edge: an asyncio transport on one side, a `Session` on the other."""

    def __init__(
        self,
        interface: Interface,
        sock: socket.socket,
        timeout_s: float,
        window_bytes: int,
        limits: Limits | None = None,
    ) -> None:
        """Make one for a connected socket, which a transport is about to take over."""
        self._wire = ClientConnection(limits)
        super().__init__(self._wire, _SERVING, self._schedule_flush)
        self.timeout_s = timeout_s
        self.stream_window_bytes = window_bytes
        self._main = AsyncCapability(self, self._wire.main, interface)
        self._socket = sock
        self._owner = Owner()
        keep_from_children(sock)
        self._callbacks: AsyncCalls | None = None
        # Calls that wait until the server reads, in order.
        self._unsent: dict[asyncio.Future[None], None] = {}
        self._is_paused = False
        # Of answers, since the server reads no more.
        self._unread_bytes = 0
        self._transport: asyncio.Transport | None = None
        self._closed = asyncio.Event()
        self._last_resort: asyncio.TimerHandle | None = None
        self._flush_scheduled = False
        # What is to be sent is not to wait for the next turn of the loop.
        self._is_urgent = False
        # Set by the server's first answer, or by the end.
        self._heard: asyncio.Future[None] | None = None
        self._tell: Callable[[ClientError], None] | None = None

    @property
    def is_open(self) -> bool:
        return self.session.error is None and self._owner.is_here

    def bootstrap(self, interface: Any) -> AsyncCapability:
        return self._main.cast(self._main.interface if interface is None else interface)

    # No coroutine itself: each in the chain of one that waits takes 0.6 µs.
    def call(
        self, target: AsyncCapability | None, name: str, params: Params, timeout_s: float | None
    ) -> Coroutine[Any, Any, Any]:
        self._owner.check()
        deadline_s = self._deadline_s(timeout_s)
        if self._is_paused:
            return self._call_later(target, name, params, deadline_s)
        return self._call(target, name, params, deadline_s)

    async def _call_later(
        self, target: AsyncCapability | None, name: str, params: Params, deadline_s: float
    ) -> Any:
        while self._is_paused:
            await self._until_writable(deadline_s)
            # So that the next pause comes before the next of those that waited.
            self._is_urgent = True
        return await self._call(target, name, params, deadline_s)

    def _call(
        self, target: AsyncCapability | None, name: str, params: Params, deadline_s: float
    ) -> Coroutine[Any, Any, Any]:
        if target is None:
            target = self._main
        prepared = self._prepare(target, name, params)
        reference = None if target is self._main else target.reference
        if prepared.method.is_streaming:
            return self._caller.stream(prepared, reference, target.window, deadline_s)
        return self._caller.call(prepared, reference, deadline_s)

    def pipeline(
        self, target: AsyncCapability | None, name: str, params: Params, timeout_s: float | None
    ) -> AsyncPipeline:
        self._owner.check()
        return super().pipeline(target or self._main, name, params, timeout_s)

    # --- what channels need

    @property
    def holds_capabilities(self) -> bool:
        """Whether one side has a capability of the other."""
        return self._wire.holds_capabilities

    async def until_heard(self, deadline_s: float) -> None:
        """Wait until the server has shown its bootstrap interface.

        Raises:
            DeadlineExceeded: `deadline_s`, a time of the event loop, is over.
            ClientError: The connection has ended, or the server refuses it.
        """
        if self._wire.is_unheard and not self.session.has_ended:
            self._heard = self._loop.create_future()
            reason = "the server has not answered: it has shown no bootstrap interface"
            timer = self._loop.call_at(deadline_s, expire, self._heard, reason)
            try:
                await self._heard
            finally:
                timer.cancel()
                self._heard = None
        error = self.session.error
        if error is not None:
            raise error

    def tell_end(self, tell: Callable[[ClientError], None]) -> None:
        """Call `tell` with the reason when the connection ends, at once if it has."""
        self._tell = tell
        self._tell_end()

    def _tell_end(self) -> None:
        error = self.session.error
        if error is not None and self._tell is not None:
            tell, self._tell = self._tell, None
            tell(error)

    def look(self) -> None:
        """See whether the server has ended the connection, and the event loop has not noticed yet.

        Raises:
            Disconnected: It has. Nothing was sent.
        """
        try:
            if self._socket.recv(1, socket.MSG_PEEK):
                return
            self.session.receive_eof()
        except BlockingIOError:
            return
        except OSError as error:
            self.session.lose(Disconnected(f"the connection was lost: {error.strerror}"))
        self._end()
        assert self.session.error is not None
        raise not_sent(self.session.error)

    def attempt(
        self, method: Method, params: Params, deadline_s: float
    ) -> Coroutine[Any, Any, Any]:
        """Call a plain method of the server until `deadline_s`, a time of the loop to come.

        Raises:
            ClientError, EncodeError, UnusableCapability: As `AsyncClient.call`.
        """
        if self._is_paused or method.params.has_capabilities:
            return self._call_later(None, method.name, params, deadline_s)
        # The same without four calls in between: 0.8 µs.
        prepared = PreparedCall(method, method.params.pack({} if params is None else params), [])
        return self._caller.call(prepared, None, deadline_s)

    async def close(self) -> None:
        if self._owner.is_here:
            self.session.lose(Disconnected("the client is closed"))
            self._end()
            await self._closed.wait()

    # --- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._schedule_flush()

    def data_received(self, data: bytes) -> None:
        if len(data) < _MUCH_BYTES:
            self._take(data)
            return
        began_s = time.monotonic()
        self._take(data)
        if time.monotonic() - began_s > _LONG_S:
            self._pause_reading()

    def _pause_reading(self) -> None:
        """Read on in the next turn of the loop."""
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.pause_reading()
            self._loop.call_soon(self._resume_reading)

    def _resume_reading(self) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _take(self, data: bytes) -> None:
        outcomes = self.session.receive_data(data, self._run, self._cancel, self._send_answers)
        for outcome in outcomes:
            self._caller.take(outcome)
        if self._is_paused:
            self._send_answers()
        self._schedule_flush()
        if self._heard is not None and not self._wire.is_unheard:
            _wake(self._heard)
        if self.session.has_ended:
            self._end()

    def _run(self, called: Called) -> None:
        """Start an async method of an object of ours."""
        served: Served = called.target
        method = served.async_methods.get((called.interface_id, called.method_id))
        if method is None:
            self.session.refuse(called)
            return
        if self._callbacks is None:
            self._callbacks = AsyncCalls(
                self._wire, explain, lambda _: None, lambda _: self._schedule_flush()
            )
        if self._callbacks.is_full:
            self._wire.send_exception(called.question_id, _TOO_MANY_BYTES)
        else:
            self._callbacks.start(method, called, served.order)

    def _cancel(self, question_id: int) -> None:
        assert self._callbacks is not None
        self._callbacks.cancel(question_id)

    def eof_received(self) -> None:
        self.session.receive_eof()
        # Now: a transport closes once all is written, and who reads that any more?
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._take_rest()
        reason: object = getattr(exc, "strerror", None) or exc
        if isinstance(exc, ssl.SSLError):
            reason = tls_reason(exc)
        self.session.lose(
            Disconnected(f"the connection was lost: {reason}" if reason else "connection closed")
        )
        self._end()
        self._closed.set()
        assert self._last_resort is not None
        self._last_resort.cancel()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._unread_bytes = 0
        for future in self._unsent:
            _wake(future)

    # --- what they share

    async def _until_writable(self, deadline_s: float) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._unsent[future] = None
        reason = "the server does not read: nothing was sent within the deadline"
        timer = self._loop.call_at(deadline_s, expire, future, reason)
        try:
            await future
        except DeadlineExceeded as error:
            raise not_sent(error) from None
        finally:
            timer.cancel()
            del self._unsent[future]

    def _schedule_flush(self) -> None:
        # All calls of one loop turn leave in one write.
        if self._is_urgent:
            self._flush()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = self._is_urgent = False
        if self._wire.has_events and not self.session.has_ended:
            # Calls of objects of ours that came back, or the end of one.
            self._take(b"")
        self._write()

    def _send_answers(self) -> None:
        """Write in the midst of what comes; give up a server that calls and does not read."""
        transport = self._transport
        if transport is None:
            return
        before = transport.get_write_buffer_size()
        self._write()
        if self._is_paused and not self.session.has_ended:
            self._unread_bytes += transport.get_write_buffer_size() - before
            if self._unread_bytes > most_unread_bytes(self._wire.limits):
                self.session.lose(Disconnected(LEFT_UNREAD))
                transport.abort()

    def _write(self) -> None:
        wire, transport = self._wire, self._transport
        buffers = wire.buffers_to_send() if wire.has_large else []
        data = wire.data_to_send()
        if (
            (data or buffers)
            and transport is not None
            and not transport.is_closing()
            # The loop may go on in a forked child, to unwind its tasks.
            and self._owner.is_here
        ):
            if buffers:
                transport.writelines(buffers)
            else:
                transport.write(data)
            if wire.has_events:
                # With that the last reference to an object of ours was given back.
                self._schedule_flush()

    def _take_rest(self) -> None:
        """Take what had come before a write failed: the transport looks at it no more."""
        assert self._transport is not None
        if self._transport.get_extra_info("sslcontext") is not None:
            # It is encrypted.
            return
        with suppress(OSError):
            while self.session.error is None:
                data = self._socket.recv(_RECEIVE_BYTES)
                if not data:
                    break
                self._take(data)

    def _end(self) -> None:
        if self.session.has_ended:
            if self._heard is not None:
                _wake(self._heard)
            self._tell_end()
            self._caller.fail_all()
            if self._callbacks is not None:
                self._callbacks.cancel_all()
        if self._transport is not None and self._last_resort is None:
            self._flush()
            self._transport.close()
            # Closing waits until all is written, and a server that does not read keeps it.
            self._last_resort = self._loop.call_later(_CLOSE_S, self._transport.abort)
        # Those who wait for the server to read start now, and find that there is no session.
        self.resume_writing()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
