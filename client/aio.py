"""The asyncio client: many calls at a time over one connection."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, cast

from client.blocking import CALL_TIMEOUT_S, CONNECT_TIMEOUT_S, MESSAGE_STREAM, decode_text
from client.errors import (
    ClientError,
    ConnectError,
    DeadlineExceeded,
    Disconnected,
    ProtocolError,
)
from client.session import Session
from wire.address import Address, parse_address
from wire.errors import MalformedMessage
from wire.interfaces import Interface


class AsyncClient:
    """A connection to a server, for any number of concurrent calls in one event loop.

    Works on asyncio and uvloop. After `Disconnected` or `ProtocolError` it is of no
    further use; connect anew.
    """

    def __init__(self, protocol: "_Protocol", timeout_s: float) -> None:
        """Use `connect` instead."""
        self._protocol = protocol
        self._timeout_s = timeout_s

    @classmethod
    async def connect(
        cls,
        address: str | Address,
        *,
        interface: Interface = MESSAGE_STREAM,
        timeout_s: float = CALL_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> Self:
        """Connect to ``host:port``, ``[ipv6]:port`` or ``unix:/path``.

        `timeout_s` is the default deadline of a call.

        Raises:
            AddressError: `address` is none.
            ConnectError: Nobody answers there within `connect_timeout_s`.
        """
        if isinstance(address, str):
            address = parse_address(address)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(connect_timeout_s):
                if address.path is not None:
                    _, protocol = await loop.create_unix_connection(
                        lambda: _Protocol(interface), address.path
                    )
                else:
                    assert address.host is not None
                    assert address.port is not None
                    _, protocol = await loop.create_connection(
                        lambda: _Protocol(interface), address.host, address.port
                    )
        except TimeoutError as error:
            raise ConnectError(f"cannot connect to {address}: no answer in time") from error
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConnectError(f"cannot connect to {address}: {reason}") from error
        return cls(protocol, timeout_s)

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
        """Close the connection; calls still in flight end in `Disconnected`."""
        await self._protocol.close()

    async def read(self, text: str, *, timeout_s: float | None = None) -> bytes:
        """Call ``MessageStream.read``: return the text reversed, as UTF-8.

        Raises:
            EncodeError: The text holds a lone surrogate, or is over the message limit.
            ClientError: As `call`.
        """
        results = await self.call("read", {"request": {"content": text}}, timeout_s=timeout_s)
        try:
            return bytes(results.chunk)
        except MalformedMessage as error:
            raise ProtocolError(str(error)) from error

    async def reverse(self, text: str, *, timeout_s: float | None = None) -> str:
        """Return `text` reversed.

        Raises:
            ProtocolError: The answer is not UTF-8.
            ClientError: As `call`.
        """
        return decode_text(await self.read(text, timeout_s=timeout_s))

    async def call(
        self, method: str, params: Mapping[str, Any], *, timeout_s: float | None = None
    ) -> Any:  # noqa: ANN401 - a view of the schema's results
        """Call a method by its schema name; return a view of its results.

        A task that is cancelled while it waits cancels the call.

        Raises:
            AttributeError: The interface has no such method.
            EncodeError: The params do not fit the schema or the message limit.
            DeadlineExceeded: No answer within `timeout_s`; the call is cancelled.
            RemoteError: The server answered with an exception.
            Disconnected: The connection ended first.
            ProtocolError: The server broke the protocol.
        """
        try:
            async with asyncio.timeout(self._timeout_s if timeout_s is None else timeout_s):
                return await self._protocol.call(method, params)
        except TimeoutError as error:
            raise DeadlineExceeded("no answer within the deadline") from error


class _Protocol(asyncio.Protocol):
    """The edge: an asyncio transport on one side, a `Session` on the other."""

    def __init__(self, interface: Interface) -> None:
        self._session = Session(interface)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._flush_scheduled = False

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:  # noqa: ANN401
        await self._writable.wait()
        question_id = self._session.start(method, params)
        future = self._waiting[question_id] = self._loop.create_future()
        self._schedule_flush()
        try:
            return await future
        finally:
            if self._waiting.pop(question_id, None) is not None:
                self._session.cancel(question_id)
                self._schedule_flush()

    async def close(self) -> None:
        self._session.lose(Disconnected("the client is closed"))
        if self._transport is not None:
            self._transport.close()
        await self._closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._schedule_flush()

    def data_received(self, data: bytes) -> None:
        for question_id, results, error in self._session.receive_data(data):
            future = self._waiting.pop(question_id)
            if future.cancelled():
                continue
            if error is None:
                future.set_result(results)
            else:
                future.set_exception(error)
        self._schedule_flush()
        if self._session.error is not None:
            self._end(self._session.error)

    def eof_received(self) -> None:
        self._session.receive_eof()

    def connection_lost(self, error: Exception | None) -> None:
        reason = getattr(error, "strerror", None) or error
        self._session.lose(
            Disconnected(f"the connection was lost: {reason}" if reason else "connection closed")
        )
        assert self._session.error is not None
        self._end(self._session.error)
        self._writable.set()
        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _schedule_flush(self) -> None:
        # All calls of one loop turn leave in one write.
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        data = self._session.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _end(self, error: ClientError) -> None:
        """Fail every call in flight and close."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(error)
        if self._transport is not None:
            self._flush()
            self._transport.close()
