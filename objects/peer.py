"""The other end of a connection in an event loop: its capabilities, and ours that it has."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from capnp_rig.objects.caller import AsyncCapability, AsyncPipeline, Caller
from capnp_rig.objects.capabilities import Params
from capnp_rig.objects.errors import DeadlineExceeded, Disconnected, not_sent
from capnp_rig.objects.serving import Serving
from capnp_rig.objects.session import MakeCapability, PreparedCall, Session
from capnp_rig.objects.streams import STREAM_WINDOW_BYTES
from capnp_rig.objects.timeouts import CALL_TIMEOUT_S, check_timeout
from capnp_rig.wire.encoding.pointers import detached
from capnp_rig.wire.rpc.connection import Answered, Connection, Event


class Peer:
    """What one end knows of the other; `changed` is called when there is something to send."""

    # How long a call waits, in seconds, and how much of a stream may be on its way.
    timeout_s = CALL_TIMEOUT_S
    stream_window_bytes = STREAM_WINDOW_BYTES

    def __init__(self, wire: Connection, serving: Serving, changed: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = changed
        self.session = Session(wire, MakeCapability(self, AsyncCapability), serving)
        self._caller = Caller(self.session, changed)

    @property
    def is_waiting(self) -> bool:
        """Whether a call of ours waits for its answer."""
        return self._caller.is_waiting

    def take(self, event: Event) -> None:
        """Take an event that is no call of ours."""
        if isinstance(event, Answered) and event.content is not None:
            # It is read when the receive buffer has been given back.
            event.content = detached(event.content)
        outcome = self.session.take(event)
        if outcome is not None:
            self._caller.take(outcome)

    def leave(self) -> None:
        """End: calls fail, and objects that only this peer has had are closed."""
        self.session.lose(Disconnected("the connection has ended"))
        self._caller.fail_all()

    # --- what capabilities need (`caller.AsyncOwner`)

    def released(self) -> None:
        """Take note that a reference was given back: the peer has to be told."""
        self._changed()

    def forgotten(self) -> None:
        """Do so for one that was garbage collected, in any thread."""
        # The loop may be over.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._changed)

    async def call(
        self, target: AsyncCapability, name: str, params: Params, timeout_s: float | None
    ) -> Any:
        """Call a capability, as `AsyncCapability.call`."""
        deadline_s = self._deadline_s(timeout_s)
        prepared = self._prepare(target, name, params)
        if prepared.method.is_streaming:
            return await self._caller.stream(prepared, target.reference, target.window, deadline_s)
        return await self._caller.call(prepared, target.reference, deadline_s)

    def pipeline(
        self, target: AsyncCapability, name: str, params: Params, timeout_s: float | None
    ) -> AsyncPipeline:
        """Call a capability, as `AsyncCapability.pipeline`."""
        deadline_s = self._deadline_s(timeout_s)
        prepared = self._prepare(target, name, params)
        return self._caller.pipeline(prepared, target.reference, deadline_s)

    def _prepare(self, target: AsyncCapability, name: str, params: Params) -> PreparedCall:
        session = self.session
        if session.has_ended and session.error is not None:
            raise not_sent(session.error)
        return session.prepare(target.interface, name, params)

    def _deadline_s(self, timeout_s: float | None) -> float:
        timeout_s = self.timeout_s if timeout_s is None else check_timeout(timeout_s)
        if timeout_s == 0:
            raise not_sent(DeadlineExceeded("the call had no time: nothing was sent"))
        return self._loop.time() + timeout_s
