"""gRPC: grpc.aio with protobuf messages.

Wire format: the service of ``schema/reverse.proto``, over HTTP/2. A client made from
that file calls ``/capnp_rig.MessageStream/Read`` with a ``MessageContent`` and gets a ``Chunk``,
whose bytes are the reversed text in UTF-8, as those of the Cap'n Proto answer are;
``/capnp_rig.MessageStream/ReverseBytes`` takes a ``Blob`` and returns one, its bytes reversed.
Statuses: INVALID_ARGUMENT for bytes that are no such message, or whose text is not UTF-8;
RESOURCE_EXHAUSTED for a message of more than `limits.MAX_MESSAGE_BYTES`; UNIMPLEMENTED for
another method. A call that ends without a message is not answered at all, for grpc.aio waits on
(1.85): it ends with the caller's deadline, or its connection.

gRPC cannot be handed a connection: its core accepts by itself. So every worker listens on the
supervisor's address with SO_REUSEPORT, and the kernel deals connections out by their hash. The
supervisor holds the port, starts, watches and drains, but sees no connection: the cap on
connections is divided among the workers, and single connections are not logged.

Its core also keeps the time limits: the HTTP/2 settings of a connection must come in time, one
without calls is idle, an old one gets a GOAWAY. It has no limit on slow frames. But a peer within a
frame cannot answer a ping, so one that stops there is found by the pings, dribbling or not. One
that answers them, and leaves a call without its message, is ended by its age only.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

# It ships no type information.
import grpc  # type: ignore[import-untyped, unused-ignore]
from google.protobuf.message import DecodeError

from capnp_rig.schema.reverse_proto import READ, REVERSE_BYTES, SERVICE, Blob, Chunk, MessageContent
from capnp_rig.server.config import ConnectionLimits, TlsOptions
from capnp_rig.server.connections.time_limits import GRACE_S
from capnp_rig.server.engines.engine import Engine, OnEnd
from capnp_rig.server.logs.log import Log
from capnp_rig.server.services.binary import reverse_bytes
from capnp_rig.server.services.reverse import Note, reverse
from capnp_rig.server.stacks.library_logs import lead_to
from capnp_rig.server.stacks.limits import MAX_MESSAGE_BYTES

# For the first frames of a connection, at most: one that says nothing holds up a drain as long.
_HANDSHAKE_S = 5.0
# A ping when nothing came for so long, and the time for its answer.
_PING_MS, _PONG_MS = 60_000, 20_000
# A C int.
_MOST_MS = 2_147_483_647
# Longer than any drain: the supervisor ends us when its limit is over.
_GRACE_S = 86_400.0


@asynccontextmanager
async def open_grpc_stack(
    note: Note,
    log: Log,
    limits: ConnectionLimits,
    tls: TlsOptions,
    *,
    listen: str,
    max_connections: int,
) -> AsyncIterator[Engine]:
    """Listen on `listen` and serve on the running event loop.

    Raises:
        RuntimeError: gRPC cannot listen there.
    """
    # An answer that could not be sent any more.
    lead_to(log, "grpc", is_peers=lambda error: isinstance(error, grpc.aio.InternalError))
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_allowed_incoming_connections", max_connections),
            ("grpc.max_concurrent_streams", limits.max_in_flight),
            *_time_limits(limits),
        ]
    )
    handlers = {
        READ: _handler(
            MessageContent,
            "MessageContent in UTF-8",
            lambda request: Chunk(chunk=reverse(request.content, note).encode()),
        ),
        REVERSE_BYTES: _handler(
            Blob, "Blob", lambda request: Blob(data=bytes(reverse_bytes(request.data, note)))
        ),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    _listen(server, listen, tls)
    await server.start()
    try:
        yield _GrpcEngine(server)
    finally:
        await server.stop(None)


def _time_limits(limits: ConnectionLimits) -> list[tuple[str, int]]:
    """Return the options of gRPC's core; it jitters the age by itself."""
    options = [
        ("grpc.server_handshake_timeout_ms", min(limits.first_frame_timeout_s, _HANDSHAKE_S)),
        ("grpc.max_connection_idle_ms", limits.idle_timeout_s),
        ("grpc.max_connection_age_ms", limits.max_age_s),
    ]
    # 0 is no limit of ours, and gRPC has its own for the handshake only: two minutes.
    in_ms = [(name, min(round(1e3 * limit_s), _MOST_MS)) for name, limit_s in options if limit_s]
    if limits.max_age_s:
        # Calls whose message never comes would keep the connection for ever.
        in_ms.append(("grpc.max_connection_age_grace_ms", round(1e3 * GRACE_S)))
    return [
        *in_ms,
        ("grpc.keepalive_time_ms", _PING_MS),
        ("grpc.keepalive_timeout_ms", _PONG_MS),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _listen(server: Any, listen: str, tls: TlsOptions) -> None:
    if tls.tls_cert is None:
        server.add_insecure_port(listen)
        return
    chain = Path(tls.tls_cert).read_bytes()
    key = chain if tls.tls_key is None else Path(tls.tls_key).read_bytes()
    ca = None if tls.tls_client_ca is None else Path(tls.tls_client_ca).read_bytes()
    credentials = grpc.ssl_server_credentials([(key, chain)], ca, ca is not None)
    server.add_secure_port(listen, credentials)


def _handler(request_type: Any, what: str, answer: Callable[[Any], Any]) -> Any:
    # The request is decoded here: where gRPC does it, a mistake of the peer's is an exception of
    # the server's.
    async def handle(data: bytes, context: Any) -> Any:
        try:
            request = request_type.FromString(data)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the message is no {what}")
        return answer(request).SerializeToString()

    return grpc.unary_unary_rpc_method_handler(handle)


class _GrpcEngine:
    def __init__(self, server: Any) -> None:
        self._server = server
        self._draining = False

    @property
    def unfinished(self) -> int:
        """At least one call while a drain lasts: gRPC tells nothing of its transports."""
        return int(self._draining)

    def protocol(self, on_end: OnEnd, connection: int = 0) -> asyncio.BaseProtocol:
        raise AssertionError("gRPC is handed no connections")

    async def heartbeat(self) -> None:
        # gRPC completes its calls on this loop.
        await asyncio.sleep(0)

    async def drain(self) -> None:
        self._draining = True
        await self._server.stop(_GRACE_S)
