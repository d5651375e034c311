"""What the stacks of plain byte streams share: flow control, and an end in good order.

Back pressure: once `WRITE_LIMIT_BYTES` wait for a peer that does not read, nothing more is read
from it. So one connection keeps that much and the answers to one read at most.

The time limits of `server.connections.time_limits` hold for all of them: a peer that sends nothing,
or too slowly, or reads nothing is not kept.

The end: when the worker drains, what has arrived is answered first. If a peer broke the protocol,
or still sends or has unread answers when a drain ends, the server ends the stream and drops what
the peer still sends (`server.connections.lingering`).
"""

import asyncio
from typing import cast

from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.connections.limits import WRITE_LIMIT_BYTES
from capnp_rig.server.connections.lingering import Lingering, end_in_order, has_unread
from capnp_rig.server.connections.sweeper import LoopSweeper
from capnp_rig.server.connections.time_limits import Overdue, Progress
from capnp_rig.server.engines.engine import OnEnd, end_reason
from capnp_rig.server.services.reverse import Note
from capnp_rig.server.stacks.limits import CUT_OFF

_DRAIN_POLL_S = 0.02
# Then a peer that never stops sending is read no more.
_DRAIN_READ_LIMIT_S = 3.0


class Stream(asyncio.Protocol):
    """One connection. A subclass answers in `data_received`, and counts `received_bytes` there."""

    def __init__(self, engine: "StreamEngine", on_end: OnEnd) -> None:
        self._engine = engine
        self._on_end = on_end
        self._note = engine.note
        self._transport: asyncio.Transport
        self._unwritable = False
        self._fault: str | None = None
        self._over = asyncio.Event()
        self._lingers = False
        self.received_bytes = 0

    @property
    def is_done(self) -> bool:
        """Whether nothing is left but that the peer closes."""
        return self._lingers and not self._transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_LIMIT_BYTES)
        self._engine.streams.add(self)
        self._engine.sweeper.watch(self)

    def pause_writing(self) -> None:
        """Read no more while the peer does not."""
        # Within `data_received`, never within `get_buffer`, where uvloop cannot bear it.
        self._unwritable = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._unwritable = False
        self._resume_reading()

    def give_way(self) -> None:
        """Read on in the next turn of the loop: libuv reads up to 32 times in a row."""
        if not self._unwritable:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._resume_reading)

    def _resume_reading(self) -> None:
        if not self._unwritable and not self._transport.is_closing():
            self._transport.resume_reading()

    @property
    def pending_bytes(self) -> int:
        """Bytes of a message that is only partly here; an echo has none."""
        return 0

    def eof_received(self) -> None:
        """Deliver what was written, then close."""
        if self.pending_bytes:
            self._fault = CUT_OFF

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of the end."""
        self._engine.streams.discard(self)
        self._engine.sweeper.discard(self)
        self._over.set()
        self._on_end(self._fault or end_reason(exc))

    def break_off(self, fault: str) -> None:
        """Deliver what was written, then end the connection: the peer broke the protocol."""
        self._fault = fault
        self._linger(is_patient=False)

    def _linger(self, *, is_patient: bool) -> None:
        self._lingers = True
        self._engine.sweeper.discard(self)
        Lingering(self._transport, self.connection_lost, is_patient=is_patient)

    def progress(self) -> Progress:
        """Return what has come so far."""
        received, pending = self.received_bytes, self.pending_bytes
        unread = self._transport.get_write_buffer_size() if self._unwritable else 0
        return Progress(received, received - pending, pending > 0, False, unread)

    def end_overdue(self, overdue: Overdue) -> None:
        """End in good order, for this reason."""
        if self._lingers or self._transport.is_closing():
            return
        reason = overdue.reason(self._engine.limits)
        if overdue is Overdue.STALLED:
            self._fault = reason
            self._transport.abort()
        elif overdue.is_fault:
            self._transport.write(self.last_words(reason))
            self.break_off(reason)
        else:
            self._end_in_order()

    def last_words(self, reason: str) -> bytes:
        """Return what tells the peer why the connection ends, where the protocol has words."""
        return b""

    def _end_in_order(self) -> None:
        if self.pending_bytes and not self._transport.is_closing():
            self._linger(is_patient=True)
        else:
            self._lingers = end_in_order(self._transport, self.connection_lost) is not None

    async def finish(self) -> None:
        """Answer what has arrived, deliver the answers, then close."""
        loop = asyncio.get_running_loop()
        limit_s = loop.time() + _DRAIN_READ_LIMIT_S
        seen_bytes = -1
        # Polled: it happens once in a connection's life, and four things can end the wait.
        while self._is_busy(seen_bytes) and loop.time() < limit_s:
            if self._transport.is_closing() or self._lingers:
                break
            seen_bytes = self.received_bytes
            await asyncio.sleep(_DRAIN_POLL_S)
        if not self._lingers:
            self._end_in_order()
        await self._over.wait()

    def _is_busy(self, seen_bytes: int) -> bool:
        # uvloop's timers come before its reads: where the CPU is scarce, nothing was read between
        # two polls although something is here.
        has_received = self.received_bytes != seen_bytes
        return self._unwritable or has_received or has_unread(self._transport)


class StreamEngine:
    """The engine of such a stack, whose connections are of the type `stream`."""

    def __init__(self, stream: type[Stream], note: Note, limits: ConnectionLimits) -> None:
        self._stream = stream
        self.note = note
        self.limits = limits
        self.sweeper = LoopSweeper(limits)
        self.streams: set[Stream] = set()

    @property
    def unfinished(self) -> int:
        """A connection that still exists in a drain has something left to send, or lingers."""
        return sum(not stream.is_done for stream in self.streams)

    def protocol(self, on_end: OnEnd, connection: int = 0) -> asyncio.BaseProtocol:
        """Return the asyncio protocol for one new connection."""
        return self._stream(self, on_end)

    async def heartbeat(self) -> None:
        """Return: that the loop runs this is the sign of life."""
        await asyncio.sleep(0)

    async def drain(self) -> None:
        """Answer what has arrived, deliver the answers, close every connection."""
        await asyncio.gather(*(stream.finish() for stream in tuple(self.streams)))
