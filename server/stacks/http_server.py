"""HTTP with JSON, on servers that people deploy: uvicorn for HTTP/1.1, hypercorn for HTTP/2.

Wire format, the same for both versions, on one port and without TLS:

    POST /reverse {"content": "Hello"}     200 {"chunk":"olleH"}
    POST /reverse-bytes {"data": "AQID"}   200 {"data":"AwIB"}, bytes as base64
    GET  /health                           200 {"status":"ok"}

Bodies are JSON in UTF-8 both ways; the request's content type and other members are ignored.
Mistakes are answered with ``{"error":"..."}`` and 400 (not JSON, or no string ``content``), 404,
405 or 413 (a body of more than `limits.MAX_MESSAGE_BYTES`). Bytes that are not HTTP get a 400 in
plain text, and the connection is closed. HTTP/1.1 connections stay open and may pipeline.

HTTP/2 is spoken with prior knowledge (RFC 9113, 3.3): a connection that begins with
``PRI * HTTP/2.0`` is HTTP/2, any other is HTTP/1.1. There is no upgrade between them; a request
that offers one (``curl --http2``) is answered in HTTP/1.1.

Both servers are run without their processes and listeners: uvicorn's httptools protocol takes a
connection as it stands, and hypercorn's connection handler takes a pair of streams. Neither adds
``date`` or ``server`` to its answers, neither logs requests. The time limits are ours
(`server.connections.time_limits`), theirs are off: a request that comes too late or too slowly is
answered with 408 over HTTP/1.1, and HTTP/2 ends with GOAWAY. uvicorn can do HTTP/2 as well, but
only with zttp, which its author calls experimental, and which ended our connections for flooding
after 4,096 requests (0.0.35). Until then it answered two to three times as many of them as
hypercorn.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from traceback import walk_tb
from typing import Any, cast

import httptools
import hypercorn
import uvicorn
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.events import Closed, RawData
from hypercorn.protocol.h2 import H2Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.connections.lingering import Lingering, is_settled
from capnp_rig.server.connections.sweeper import LoopSweeper
from capnp_rig.server.connections.time_limits import Overdue, Progress
from capnp_rig.server.engines.engine import Engine, OnEnd, end_reason
from capnp_rig.server.logs.log import Log
from capnp_rig.server.services.reverse import Note
from capnp_rig.server.stacks.http2_frames import PREFACE, Http2Frames
from capnp_rig.server.stacks.http_app import Receive, Send, make_app
from capnp_rig.server.stacks.library_logs import lead_to

# The libraries' own limit on idle connections, which stands behind ours.
_NEVER_S = 8_640_000
# Until an HTTP/2 connection is gone that hypercorn has been told to end.
_END_S = 2.0
# A request head, or a trailer: uvicorn leaves its size open with httptools. h11 has 64 KiB.
_MAX_HEAD_BYTES = 65_536
_HEAD_TOO_LONG = "the head of the request is too long"
_NOT_HTTP = "Invalid HTTP request received."
_BAD_REQUEST, _TIMEOUT = b"400 Bad Request", b"408 Request Timeout"
_REFUSAL = (
    b"HTTP/1.1 %b\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b"
)


@asynccontextmanager
async def open_http_stack(note: Note, log: Log, limits: ConnectionLimits) -> AsyncIterator[Engine]:
    """Serve on the running event loop."""
    lead_to(log, "uvicorn.error", "hypercorn.error", is_peers=_is_of_closed_transport)
    engine = _HttpEngine(note, log, limits)
    try:
        yield engine
    finally:
        await engine.abandon()


def _is_of_closed_transport(error: BaseException) -> bool:
    # uvloop's, between the end of a connection and `connection_lost`, by which uvicorn knows.
    if not isinstance(error, RuntimeError):
        return False
    callers = [frame.f_locals.get("self") for frame, _ in walk_tb(error.__traceback__)]
    cycles = [caller for caller in callers if isinstance(caller, RequestResponseCycle)]
    return any(cycle.transport.is_closing() for cycle in cycles)


class _HttpEngine:
    def __init__(self, note: Note, log: Log, limits: ConnectionLimits) -> None:
        self.app = app = make_app(note)
        self.log = log
        self.limits = limits
        self.sweeper = LoopSweeper(limits)
        self.connections: set[_Undecided | _Http1 | _Http2] = set()
        self._empty = asyncio.Event()
        self.http1_config = uvicorn.Config(
            cast("Any", app),
            http=HttpToolsProtocol,
            ws="none",
            lifespan="off",
            # Named, because uvicorn would guess it otherwise and wrap the application.
            interface="asgi3",
            proxy_headers=False,
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_NEVER_S,
        )
        self.http1_config.load()
        self.http1_state = ServerState()
        self.http2_config = _http2_config(limits)
        self.http2_context = WorkerContext(max_requests=None)

    @property
    def unfinished(self) -> int:
        """A connection that still exists in a drain has a request to answer."""
        return len(self.connections)

    def protocol(self, on_end: OnEnd, connection: int = 0) -> asyncio.BaseProtocol:
        return _Undecided(self, on_end)

    async def heartbeat(self) -> None:
        await asyncio.sleep(0)

    async def drain(self) -> None:
        # Bytes that are here already have been read when the loop has gone round once.
        await asyncio.sleep(0)
        await self.http2_context.terminated.set()
        for connection in tuple(self.connections):
            connection.shutdown()
        self._empty.clear()
        if self.connections:
            await self._empty.wait()

    async def abandon(self) -> None:
        """Cancel what is left in the end, if anything is."""
        left = [http2.end() for http2 in self.connections if isinstance(http2, _Http2)]
        await asyncio.gather(*left)

    def add(self, connection: "_Undecided | _Http1 | _Http2") -> None:
        self.connections.add(connection)
        self.sweeper.watch(connection)

    def remove(self, connection: "_Undecided | _Http1 | _Http2") -> None:
        self.sweeper.discard(connection)
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()


def _http2_config(limits: ConnectionLimits) -> hypercorn.Config:
    config = hypercorn.Config()
    config.include_date_header = False
    config.include_server_header = False
    config.keep_alive_timeout = _NEVER_S
    # It closes a connection after a thousand, which no other stack does.
    config.keep_alive_max_requests = sys.maxsize
    config.h2_max_concurrent_streams = limits.max_in_flight
    # A name would be that of a file.
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


class _Undecided(asyncio.Protocol):
    """A connection until its first bytes say what it speaks; then another takes its place."""

    def __init__(self, engine: _HttpEngine, on_end: OnEnd) -> None:
        self._engine = engine
        self._on_end = on_end
        self._transport: asyncio.Transport
        self._first = b""
        self._fault: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._engine.add(self)

    def data_received(self, data: bytes) -> None:
        self._first += data
        if self._first.startswith(PREFACE):
            self._become(_Http2(self._engine, self._on_end, self._transport, self._first))
        elif not PREFACE.startswith(self._first):
            http1 = _Http1(self._engine, self._on_end)
            http1.connection_made(self._transport)
            self._transport.set_protocol(http1)
            self._become(http1)
            http1.data_received(self._first)

    def _become(self, connection: "_Http1 | _Http2") -> None:
        self._engine.add(connection)
        self._engine.remove(self)

    def progress(self) -> Progress:
        """Return what has come so far."""
        return Progress(len(self._first), 0, bool(self._first), is_busy=False)

    def end_overdue(self, overdue: Overdue) -> None:
        """Close: nobody has asked for anything yet."""
        self._fault = overdue.reason(self._engine.limits) if overdue.is_fault else None
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.remove(self)
        self._on_end(self._fault or end_reason(exc))

    def shutdown(self) -> None:
        self._transport.close()


class _Http1(HttpToolsProtocol):
    """uvicorn's protocol, which also reports its end and limits what is not a body.

    It mends what uvicorn 0.54 does not: the body of a request that offers an upgrade is read, what
    is pipelined waits in the kernel once there is a queue, and what has arrived before the end of
    the stream is answered.
    """

    def __init__(self, engine: _HttpEngine, on_end: OnEnd) -> None:
        super().__init__(engine.http1_config, engine.http1_state, {})
        self._engine = engine
        self._on_end = on_end
        self._fault: str | None = None
        # The bytes that came since a head or a piece of a body was complete.
        self._head_bytes = 0
        self._has_ended = False
        # For the time limits: where the latest request began, and whether it is only partly here.
        self._received_bytes = self._begun_at = 0
        self._is_within = False
        self._is_unread = False

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        self._received_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response(_NOT_HTTP)
        if self._head_bytes > _MAX_HEAD_BYTES and self._fault is None:
            self.send_400_response(_HEAD_TOO_LONG)

    def _feed(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        while True:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as offer:
                rest = memoryview(rest)[offer.args[0] :]
                self._begin_without_upgrade()
            else:
                return

    def _begin_without_upgrade(self) -> None:
        """Begin the request again without its offer, which is ours to ignore (RFC 9110, 7.8).

        The parser took its body, and what follows, for that of another protocol.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            raise httptools.HttpParserError("no proxy")
        head = [b"%s %s HTTP/%s" % (method, self.url, version.encode())]
        head += [b"%s: %s" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        # As uvicorn has it.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"\r\n".join(head) + b"\r\n\r\n")

    def on_message_begin(self) -> None:
        self._is_within = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_within = False
        self._begun_at = self._received_bytes
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        was_last = not self.pipeline
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self.pipeline:
            # It would read on after every answer: 90 MB for 60,000 requests of 90 bytes.
            self.flow.pause_reading()
        elif was_last and self._has_ended:
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Return whether the transport stays open, for answers to what arrived whole.

        Over TLS it does not, whatever is returned.
        """
        self._has_ended = True
        if not self.transport.can_write_eof():
            return False
        if self.cycle is not None and self.cycle.more_body and self.pipeline:
            # The request that is only partly here is the last one, and will not be answered.
            self.pipeline.popleft()
            return True
        return not (self.cycle is None or self.cycle.response_complete or self.cycle.more_body)

    def send_400_response(self, msg: str) -> None:
        """Answer as uvicorn does, then end the connection so that the peer can read it."""
        self._refuse(_BAD_REQUEST, msg)

    def _refuse(self, status: bytes, text: str) -> None:
        if self.transport.is_closing():
            return
        self._fault = text
        self.transport.write(_REFUSAL % (status, len(text), text.encode("ascii")))
        self._leave()
        Lingering(self.transport, self._lost)

    def _leave(self) -> None:
        # The request that is being served has no peer any more. It is an error, since uvicorn would
        # close at once otherwise.
        self._engine.sweeper.discard(self)
        super().connection_lost(ConnectionAbortedError())

    def pause_writing(self) -> None:
        self._is_unread = True
        super().pause_writing()

    def resume_writing(self) -> None:
        self._is_unread = False
        super().resume_writing()

    def progress(self) -> Progress:
        """Return what has come so far."""
        is_busy = self.flow.read_paused or (self.cycle is not None and self._is_answering)
        unread = self.transport.get_write_buffer_size() if self._is_unread else 0
        return Progress(self._received_bytes, self._begun_at, self._is_within, is_busy, unread)

    @property
    def _is_answering(self) -> bool:
        """Whether a request that is all here waits for its answer."""
        return not (self.cycle.response_complete or self.cycle.more_body)

    def end_overdue(self, overdue: Overdue) -> None:
        """End in good order, for this reason."""
        reason = overdue.reason(self._engine.limits)
        if overdue is Overdue.STALLED:
            self._fault = reason
            self.transport.abort()
        elif overdue.is_fault:
            self._refuse(_TIMEOUT, reason)
        elif is_settled(self.transport):
            self.transport.close()
        else:
            self._leave()
            Lingering(self.transport, self._lost, is_patient=True)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost(exc)

    def _lost(self, exc: Exception | None) -> None:
        self._engine.remove(self)
        self._on_end(self._fault or end_reason(exc))


class _Http2:
    """hypercorn's connection handler on a transport that has read the preface."""

    def __init__(
        self, engine: _HttpEngine, on_end: OnEnd, transport: asyncio.Transport, first: bytes
    ) -> None:
        self._engine = engine
        self._on_end = on_end
        self._fault: str | None = None
        self._transport = transport
        # Requests whose bodies are only partly here.
        self._reading = 0
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        self._streams = _Streams(reader, self._lost, lambda: self._reading > 0)
        self._streams.connection_made(transport)
        transport.set_protocol(self._streams)
        self._streams.frames.begin(first)
        reader.feed_data(first)
        self._server = TCPServer(
            ASGIWrapper(cast("Any", self._serve_request)),
            loop,
            engine.http2_config,
            engine.http2_context,
            {},
            reader,
            asyncio.StreamWriter(transport, self._streams, reader, loop),
        )
        self._task = loop.create_task(self._serve())
        self._ending: asyncio.Task[None] | None = None

    async def _serve_request(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        async def counted() -> MutableMapping[str, Any]:
            self._reading += 1
            try:
                return await receive()
            finally:
                self._reading -= 1

        await self._engine.app(scope, counted, send)

    def progress(self) -> Progress:
        """Return what has come so far."""
        frames, is_unread = self._streams.frames, self._streams.is_unread
        unread = self._transport.get_write_buffer_size() if is_unread else 0
        is_within = self._reading > 0 or frames.is_partial
        return Progress(
            frames.received_bytes, frames.begun_at, is_within, is_busy=False, unread_bytes=unread
        )

    def end_overdue(self, overdue: Overdue) -> None:
        """End in good order, for this reason."""
        if overdue.is_fault:
            self._fault = overdue.reason(self._engine.limits)
        if overdue is Overdue.STALLED or self._ending is not None:
            self._transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._ending = loop.create_task(self._say_goodbye())
        loop.call_later(_END_S, self._transport.abort)

    async def _say_goodbye(self) -> None:
        # It is there since the preface was read.
        http2 = self._server.protocol.protocol
        if isinstance(http2, H2Protocol):
            http2.connection.close_connection()
            await self._server.protocol_send(RawData(http2.connection.data_to_send()))
        await self.end()

    def shutdown(self) -> None:
        """Do nothing: hypercorn watches its context."""

    async def end(self) -> None:
        """Give up what is being served."""
        try:
            # Its streams first: one that is cancelled unanswered would still answer, and wait for
            # ever for that to be sent (0.18). The attribute is there once it has begun.
            if hasattr(self._server, "protocol"):
                await self._server.protocol.handle(Closed())
        finally:
            # It would wait for its idle limit first.
            self._task.cancel()
        await asyncio.wait([self._task])

    async def _serve(self) -> None:
        try:
            await self._server.run()
        except asyncio.CancelledError:
            # By `end`: this task is over.
            pass
        except Exception as error:  # noqa: BLE001 - hypercorn trips over what peers can send
            if self._ending is None:
                self._fault = "protocol error"
            what = "hypercorn gave up a connection"
            self._engine.log.debug(f"{what}: {error!r}", kind=what)
        finally:
            self._engine.remove(self)
            self._on_end(self._fault)

    def _lost(self, error: Exception | None) -> None:
        self._fault = self._fault or end_reason(error)
        if self._ending is None:
            # Kept here: the loop does not keep its tasks alive.
            self._ending = asyncio.get_running_loop().create_task(self.end())


class _Streams(asyncio.StreamReaderProtocol):
    """The protocol behind a pair of streams; it reports its end, and watches what comes."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        on_lost: Callable[[Exception | None], None],
        is_reading: Callable[[], bool],
    ) -> None:
        super().__init__(reader, loop=asyncio.get_running_loop())
        self._on_lost = on_lost
        self._is_reading = is_reading
        self.frames = Http2Frames()
        self.is_unread = False

    def data_received(self, data: bytes) -> None:
        self.frames.feed(data, is_within=self._is_reading())
        super().data_received(data)

    def pause_writing(self) -> None:
        self.is_unread = True
        super().pause_writing()

    def resume_writing(self) -> None:
        self.is_unread = False
        super().resume_writing()

    def eof_received(self) -> bool:
        super().eof_received()
        # Half a connection is no use to HTTP/2, so the transport closes, too.
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_lost(exc)
