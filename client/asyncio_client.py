"""The asyncio client: many calls at a time over one connection."""

import asyncio
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, ClassVar, Self, cast

from capnp_rig.client.connecting import adopt, open_socket
from capnp_rig.client.errors import DeadlineExceeded, Disconnected
from capnp_rig.client.forks import Owner, keep_from_children
from capnp_rig.client.session import Session
from capnp_rig.client.timeouts import CALL_TIMEOUT_S, CONNECT_TIMEOUT_S, check_timeout
from capnp_rig.rigcli.address import Address, parse_address
from capnp_rig.wire.rpc.interfaces import Interface, compile_interface

# How long what is still to be written may take after the end.
_CLOSE_S = 1.0
_RECEIVE_BYTES = 65_536
# After so long with the bytes of one read, the loop gets its turn. uvloop reads 32 times before
# it looks at its timers, a quarter of a megabyte each: seconds, where a server never stops
# sending small messages. What takes so long comes in reads of this size and more.
_LONG_S = 0.01
_MUCH_BYTES = 16_384


class AsyncClient:
    """A connection to a server, for any number of concurrent calls in one event loop.

    Arguments and errors are those of `Client`, and `interface` is.

    Works on asyncio and uvloop. After `Disconnected` or `ProtocolError`, or whenever `is_open`
    is false, it is of no further use; connect anew. A forked child cannot use it: its calls
    raise `UsedAfterFork`, and whatever else it does leaves the parent's connection alone.
    """

    interface: ClassVar[Any] = None

    def __init__(self, protocol: "_Protocol", timeout_s: float) -> None:
        """Use `connect` instead."""
        self._protocol = protocol
        self._timeout_s = timeout_s

    @classmethod
    async def connect(
        cls,
        address: str | Address,
        *,
        interface: Any = None,
        timeout_s: float = CALL_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> Self:
        """Connect as `Client.connect` does."""
        compiled = compile_interface(cls.interface if interface is None else interface)
        timeout_s = check_timeout(timeout_s)
        if isinstance(address, str):
            address = parse_address(address)
        sock = await open_socket(address, connect_timeout_s)
        protocol = _Protocol(compiled, sock)
        await adopt(sock, protocol)
        return cls(protocol, timeout_s)

    @property
    def is_open(self) -> bool:
        """Whether calls can be made: the connection stands, as far as is known here."""
        return self._protocol.is_open

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

    async def call(
        self, method: str, params: Mapping[str, Any], *, timeout_s: float | None = None
    ) -> Any:
        """Call a method by its schema name, as `Client.call`; return a view of its results.

        A task that is cancelled while it waits cancels the call.
        """
        timeout_s = self._timeout_s if timeout_s is None else check_timeout(timeout_s)
        return await self._protocol.call(method, params, timeout_s)


class _Protocol(asyncio.Protocol):
    """The edge: an asyncio transport on one side, a `Session` on the other."""

    def __init__(self, interface: Interface, sock: socket.socket) -> None:
        """Make one for a connected socket, which a transport is about to take over."""
        self._session = Session(interface)
        self._socket = sock
        self._owner = Owner()
        keep_from_children(sock)
        # By question id, which is another call's as soon as the answer is here.
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        # Calls that wait until the server reads, in order.
        self._unsent: dict[asyncio.Future[None], None] = {}
        self._is_paused = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._closed = asyncio.Event()
        self._last_resort: asyncio.TimerHandle | None = None
        self._flush_scheduled = False

    @property
    def is_open(self) -> bool:
        return self._session.error is None and self._owner.is_here

    async def call(self, method: str, params: Mapping[str, Any], timeout_s: float) -> Any:
        self._owner.check()
        deadline_s = self._loop.time() + timeout_s
        if timeout_s == 0:
            raise DeadlineExceeded("the call had no time: nothing was sent")
        had_to_wait = self._is_paused
        while self._is_paused:
            await self._until_writable(deadline_s)
        question_id = self._session.start(method, params)
        future = self._waiting[question_id] = self._loop.create_future()
        if had_to_wait:
            # So that the next pause comes before the next of those that waited.
            self._flush()
        else:
            self._schedule_flush()
        timer = self._loop.call_at(deadline_s, _expire, future, "no answer within the deadline")
        try:
            return await future
        finally:
            timer.cancel()
            # Under this id there may be another task's call by now.
            if self._waiting.get(question_id) is future:
                del self._waiting[question_id]
                self._session.cancel(question_id)
                self._schedule_flush()
            # It holds the error, whose traceback holds this frame.
            del future

    async def close(self) -> None:
        if self._owner.is_here:
            self._session.lose(Disconnected("the client is closed"))
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
        for question_id, results, error in self._session.receive_data(data):
            future = self._waiting.pop(question_id)
            # Its task has given up, or is about to find that its time is over.
            if future.done():
                continue
            if error is None:
                future.set_result(results)
            else:
                future.set_exception(error)
        self._schedule_flush()
        if self._session.error is not None:
            self._end()

    def eof_received(self) -> None:
        self._session.receive_eof()
        # Now: a transport closes once all is written, and who reads that any more?
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._take_rest()
        reason = getattr(exc, "strerror", None) or exc
        self._session.lose(
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
        for future in self._unsent:
            if not future.done():
                future.set_result(None)

    # --- what they share

    async def _until_writable(self, deadline_s: float) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._unsent[future] = None
        reason = "the server does not read: nothing was sent within the deadline"
        timer = self._loop.call_at(deadline_s, _expire, future, reason)
        try:
            await future
        finally:
            timer.cancel()
            del self._unsent[future]

    def _schedule_flush(self) -> None:
        # All calls of one loop turn leave in one write.
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        session, transport = self._session, self._transport
        buffers = session.buffers_to_send() if session.has_large else []
        data = session.data_to_send()
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

    def _take_rest(self) -> None:
        """Take what had come before a write failed: the transport looks at it no more."""
        with suppress(OSError):
            while self._session.error is None:
                data = self._socket.recv(_RECEIVE_BYTES)
                if not data:
                    break
                self._take(data)

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            error = self._session.error
            if error is not None and not future.done():
                future.set_exception(error)
        if self._transport is not None and self._last_resort is None:
            self._flush()
            self._transport.close()
            # Closing waits until all is written, and a server that does not read keeps it.
            self._last_resort = self._loop.call_later(_CLOSE_S, self._transport.abort)
        # Those who wait for the server to read start now, and find that there is no session.
        self.resume_writing()


def _expire(future: asyncio.Future[Any], reason: str) -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded(reason))
