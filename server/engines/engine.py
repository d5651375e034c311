"""What a worker asks of an engine, and of the stacks that stand in its place."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError

# Called once when a connection is over: None when it ended cleanly, else a short reason.
OnEnd = Callable[[str | None], None]

# Of a connection where methods are streams: 546 of C++'s smallest messages fill its window.
CALLS_WITH_STREAMS = 768
MAX_WORKER_CALLS = 4096
SHUTTING_DOWN = RemoteError(
    "the server is shutting down: this call was not started", ExceptionType.OVERLOADED
)
WORKER_FULL = RemoteError(
    f"more than {MAX_WORKER_CALLS} calls in flight on this worker", ExceptionType.OVERLOADED
)


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
    if error is None:
        return None
    return (isinstance(error, OSError) and error.strerror) or "broken"
