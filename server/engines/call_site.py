"""What the calls of a connection may ask of it (`objects.call_context`), for both engines."""

import asyncio
import itertools
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from capnp_rig.objects.call_context import CallContext
from capnp_rig.objects.call_peer import CallPeer, peer_of
from capnp_rig.server.connections.lingering import has_hung_up
from capnp_rig.server.logs.log import Log
from capnp_rig.server.logs.log_lines import cut_middle

if TYPE_CHECKING:
    # It needs OpenTelemetry.
    from capnp_rig.server.engines.traces import Traces

MAX_LINE_CHARS = 2_000


class WorkerPlace:
    """Which worker a process is, until when its calls have time, and whether they are traced."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.traces: Traces | None = None
        self._drained_s: float | None = None

    def drain_within(self, limit_s: float) -> None:
        """Take note that a drain begins, in which calls have `limit_s`."""
        self._drained_s = monotonic() + limit_s

    @property
    def drain_remaining_s(self) -> float | None:
        """How long calls may still take, in s; None without a drain."""
        return None if self._drained_s is None else max(self._drained_s - monotonic(), 0.0)


class CallSite:
    """One connection, made when the first of its calls asks."""

    def __init__(
        self, place: WorkerPlace, connection: int, transport: asyncio.BaseTransport, log: Log
    ) -> None:
        self._place = place
        self._connection = connection
        # None after the end of the connection.
        self._transport: Any = transport
        self._log = log
        self._numbers = itertools.count(1)
        # Now: a transport that is closed tells no more.
        self.peer: CallPeer = peer_of(transport)

    @property
    def is_left(self) -> bool:
        """Whether the other end has left; one that has ended its half has, too."""
        # Once: a thread may ask while the connection ends.
        transport = self._transport
        return transport is None or transport.is_closing() or has_hung_up(transport)

    @property
    def drain_remaining_s(self) -> float | None:
        """As the worker's."""
        return self._place.drain_remaining_s

    def leave(self) -> None:
        """Take note of the end of the connection."""
        self._transport = None

    def next_call_id(self) -> str:
        """Return a name for a call: connections are numbered over all workers."""
        return f"{self._place.number}-{self._connection}-{next(self._numbers)}"

    def write(self, level: str, context: CallContext, text: str, fields: dict[str, object]) -> None:
        """Log a line about a call."""
        number, call, peer = self._place.number, context.call_id, self.peer.address
        traced = f", trace {context.trace_id}" if context.trace_id else ""
        own = {"worker": number, "peer": peer, "call": call}
        if context.trace_id:
            own["trace_id"] = context.trace_id
        write: Callable[..., bool] = getattr(self._log, level)
        write(
            f"[Worker {number}] call {call} of {peer}{traced}: {cut_middle(text, MAX_LINE_CHARS)}",
            **{**{name: _bounded(name, value) for name, value in fields.items()}, **own},
            kind=f"[Worker {number}] lines of calls, {level}",
        )


def _bounded(name: str, value: object) -> object:
    # Tracebacks are cut by the log.
    if name == "traceback" or value is None or isinstance(value, (bool, int, float)):
        return value
    return cut_middle(value if isinstance(value, str) else repr(value), MAX_LINE_CHARS)
