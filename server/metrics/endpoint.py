"""Answers ``GET /metrics``, ``/health/live`` and ``/health/ready``, and nothing else.

It runs on the supervisor's event loop, which must not wait for anybody: a request has a short head
and a short time, few connections are here at once, and each is closed after its answer. A page of
metrics is written by a thread: one of 50 methods takes 20 ms. HTTP/1.1 as in RFC 9112, as far as
such requests go.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from capnp_rig.server.metrics.exposition import Exposition
from capnp_rig.server.metrics.state import ServerState

_MOST_HEAD_BYTES = 8_192
_TIMEOUT_S = 5.0
_MOST_CONNECTIONS = 32
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}
_TEXT = "text/plain; charset=utf-8"

# Status, body and its media type.
Answer = tuple[int, bytes, str]


class MetricsEndpoint:
    """Serves what `read` and `is_ready` return, on a listening socket."""

    def __init__(
        self, sock: socket.socket, read: Callable[[], ServerState], is_ready: Callable[[], bool]
    ) -> None:
        self._sock = sock
        self._read = read
        self._is_ready = is_ready
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        # Those of them that have not asked for anything yet, the oldest first.
        self._silent: dict[asyncio.Task[None], None] = {}
        # One page after the other: several threads would only slow each other down.
        self._writing = asyncio.Lock()

    async def open(self) -> None:
        """Begin to answer."""
        self._server = await asyncio.start_server(
            self._serve, sock=self._sock, limit=_MOST_HEAD_BYTES
        )

    def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._has_room():
            # At once: each that stays takes an open file, which connections of the server need.
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._silent[task] = None
        try:
            # A peer that leaves, or is slow, gets no answer; nor does anybody once this ends.
            # asyncio would report the cancellation of a task of its own.
            with suppress(OSError, TimeoutError, EOFError, asyncio.CancelledError):
                async with asyncio.timeout(_TIMEOUT_S):
                    try:
                        head = await reader.readuntil(b"\r\n\r\n")
                    except asyncio.LimitOverrunError:
                        head = b""
                    self._silent.pop(task, None)
                    await self._exchange(head, reader, writer)
        finally:
            self._serving.discard(task)
            self._silent.pop(task, None)
            writer.transport.abort()

    def _has_room(self) -> bool:
        """Return whether one more may stay, for whom the longest silent one may have to go.

        Else whoever connects and says nothing would keep health checks out, one after the other.
        """
        if len(self._serving) < _MOST_CONNECTIONS:
            return True
        oldest = next(iter(self._silent), None)
        if oldest is None:
            return False
        del self._silent[oldest]
        self._serving.discard(oldest)
        oldest.cancel()
        return True

    async def _exchange(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        method, answer = await self._answer(head)
        status, body, media_type = answer
        writer.write(
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {media_type}\r\n"
            f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        if method != "HEAD":
            writer.write(body)
        writer.write_eof()
        await writer.drain()
        # Until the peer has it, and closes too: an abort would overtake it.
        while await reader.read(_MOST_HEAD_BYTES):
            pass

    async def _answer(self, head: bytes) -> tuple[str, Answer]:
        """Return the method of a request, and what to answer."""
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "GET", (400, b"expected an HTTP/1.1 request\n", _TEXT)
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return method, (405, b"only GET is answered\n", _TEXT)
        match target.partition("?")[0]:
            case "/metrics":
                return method, (200, *await self._page(_accept(lines[1:])))
            case "/health/live":
                return method, (200, b"live\n", _TEXT)
            case "/health/ready":
                is_ready = self._is_ready()
                return method, (200, b"ready\n", _TEXT) if is_ready else (
                    503,
                    b"not ready\n",
                    _TEXT,
                )
            case _:
                text = b"try /metrics, /health/live or /health/ready\n"
                return method, (404, text, _TEXT)

    async def _page(self, accept: str) -> tuple[bytes, str]:
        async with self._writing:
            return await asyncio.to_thread(Exposition(self._read()).page, accept)


async def open_endpoint(
    sock: socket.socket, read: Callable[[], ServerState], is_ready: Callable[[], bool]
) -> MetricsEndpoint:
    """Return an endpoint that answers on a listening socket until it is closed."""
    endpoint = MetricsEndpoint(sock, read, is_ready)
    await endpoint.open()
    return endpoint


def _accept(lines: list[str]) -> str:
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == "accept":
            return value.strip()
    return ""
