"""The end of a connection that we break off, such that the peer can read why.

A socket that is closed with bytes unread resets the connection, and the reset overtakes what was
sent before: of 20 C++ clients that were sending 5 MB, 16 never saw the reason. So our half ends
first, and what the peer still sends is thrown away until it ends its own: for a bounded time and
size (`server.limits`), because the connection holds a slot as long.
"""

import asyncio
from collections.abc import Callable

from server.limits import LINGER_BYTES, LINGER_S


class Linger:
    """Ends our half of `transport`. The owner tells what it drops, and when all is over."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._bytes_left = LINGER_BYTES
        self._waiting_bytes = transport.get_write_buffer_size()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(LINGER_S, self._check)
        try:
            # After what is written already.
            transport.write_eof()
            # The peer may be one that was not read from.
            transport.resume_reading()
        except OSError:
            # It has gone.
            transport.abort()

    def drop(self, size: int) -> None:
        """Count bytes that were received and thrown away."""
        self._bytes_left -= size
        if self._bytes_left < 0:
            self._transport.abort()

    def over(self) -> None:
        """Take the end of the connection."""
        self._timer.cancel()

    def _check(self) -> None:
        # One that still takes what was answered before has not read the reason yet.
        waiting = self._transport.get_write_buffer_size()
        if not waiting or waiting >= self._waiting_bytes:
            self._transport.abort()
            return
        self._waiting_bytes = waiting
        self._timer = self._loop.call_later(LINGER_S, self._check)


class Lingering(asyncio.Protocol):
    """Takes the place of a protocol that broke off its connection, and drops what comes."""

    def __init__(
        self, transport: asyncio.Transport, on_lost: Callable[[Exception | None], None]
    ) -> None:
        self._on_lost = on_lost
        transport.set_protocol(self)
        self._linger = Linger(transport)

    def data_received(self, data: bytes) -> None:
        """Drop it."""
        self._linger.drop(len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of the end."""
        self._linger.over()
        self._on_lost(exc)
