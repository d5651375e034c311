"""What a worker asks of an engine, and of the stacks that stand in its place."""

import asyncio
import ssl
from collections.abc import Callable
from typing import NamedTuple, Protocol

from capnp_rig.rigcli.tls import tls_reason
from capnp_rig.server.config import ConnectionLimits
from capnp_rig.wire.rpc.connection import Limits
from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError

# Called once when a connection is over: None when it ended cleanly, else a short reason.
OnEnd = Callable[[str | None], None]

# Of a connection where methods are streams: 546 of C++'s smallest messages fill its window.
CALLS_WITH_STREAMS = 768
_IN_FLIGHT_NOTE = " (--max-in-flight of the server)"
SHUTTING_DOWN = RemoteError(
    "the server is shutting down: this call was not started", ExceptionType.OVERLOADED
)
PARAMS_FULL = RemoteError(
    "the params of calls in flight on this connection take too much memory",
    ExceptionType.OVERLOADED,
)


def wire_limits(limits: ConnectionLimits) -> Limits:
    """Return what a connection may hold, as the protocol counts it."""
    most, usual = limits.max_in_flight, Limits()
    # As many open answers, and calls that wait for one answer, as at the default.
    return Limits.of_message(
        limits.max_message_bytes,
        "--max-message of the server",
        max_calls_in_flight=most,
        in_flight_note=_IN_FLIGHT_NOTE,
        max_answers=max(usual.max_answers, 4 * most),
        max_pipelined=max(usual.max_pipelined, most),
    )


def connection_full(most: int) -> RemoteError:
    """Return the refusal of one call more than `most` on a connection."""
    return RemoteError(
        f"more than {most} calls in flight on this connection{_IN_FLIGHT_NOTE}",
        ExceptionType.OVERLOADED,
    )


def worker_full(most: int) -> RemoteError:
    """Return the refusal of one call more than `most` in a worker."""
    return RemoteError(
        f"more than {most} calls in flight on this worker (--max-worker-calls of the server)",
        ExceptionType.OVERLOADED,
    )


class Traffic(NamedTuple):
    """What connections received and sent, in bytes, and how many calls were too many for one."""

    bytes_in: int = 0
    bytes_out: int = 0
    overloads: int = 0

    def __add__(self, other: object) -> "Traffic":
        if not isinstance(other, Traffic):
            return NotImplemented
        return Traffic(*(a + b for a, b in zip(self, other, strict=True)))


class Engine(Protocol):
    """Serves connections on the running event loop."""

    @property
    def unfinished(self) -> int:
        """The calls in flight, and the connections whose replies have not all left."""

    def protocol(self, on_end: OnEnd, connection: int = 0) -> asyncio.BaseProtocol:
        """Return the asyncio protocol for one new connection, and the number of its stamp."""

    async def heartbeat(self) -> None:
        """Return once a call has gone all the way through the engine's own machinery."""

    async def drain(self) -> None:
        """Start no more calls, deliver the replies of those in flight, close every connection."""


def end_reason(error: Exception | None) -> str | None:
    """Return why a connection was lost, in a few words, or None when it ended as it should."""
    if error is None or (isinstance(error, TimeoutError) and error.errno is None):
        # The latter over TLS: we closed, and the peer had no close_notify for us in time.
        return None
    if isinstance(error, ssl.SSLError):
        return f"TLS: {tls_reason(error)}"
    return (isinstance(error, OSError) and error.strerror) or "broken"
