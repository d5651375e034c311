"""What the stacks of plain byte streams share: flow control, and an end in good order.

Back pressure: once `WRITE_LIMIT_BYTES` wait for a peer that does not read, nothing more is read
from it. So one connection keeps that much and the answers to one read at most.

The end: when the worker drains, what has arrived is answered first. If a peer broke the protocol,
or still sends or has unread answers when a drain ends, the server ends the stream and drops what
the peer still sends (`server.connections.lingering`).
"""

import asyncio
from typing import cast

from capnp_rig.server.connections.limits import WRITE_LIMIT_BYTES
from capnp_rig.server.connections.lingering import Lingering, has_unread, is_settled
from capnp_rig.server.engines.engine import OnEnd, end_reason
from capnp_rig.server.services.reverse import Note
from capnp_rig.server.stacks.limits import CUT_OFF

_DRAIN_POLL_S = 0.02
# Then a peer that never stops sending is read no more.
_DRAIN_READ_LIMIT_S = 3.0


class Stream(asyncio.Protocol):
    """One connection. A subclass answers in `data_received`, and sets `received` there."""

    def __init__(self, streams: "set[Stream]", on_end: OnEnd, note: Note) -> None:
        self._streams = streams
        self._on_end = on_end
        self._note = note
        self._transport: asyncio.Transport
        self._unwritable = False
        self._fault: str | None = None
        self._over = asyncio.Event()
        self._lingers = False
        self.received = False

    @property
    def is_done(self) -> bool:
        """Whether nothing is left but that the peer closes."""
        return self._lingers and not self._transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_LIMIT_BYTES)
        self._streams.add(self)

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

    def is_within_message(self) -> bool:
        """Return whether a message is only partly here; an echo has none."""
        return False

    def eof_received(self) -> None:
        """Deliver what was written, then close."""
        if self.is_within_message():
            self._fault = CUT_OFF

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of the end."""
        self._streams.discard(self)
        self._over.set()
        self._on_end(self._fault or end_reason(exc))

    def break_off(self, fault: str) -> None:
        """Deliver what was written, then end the connection: the peer broke the protocol."""
        self._fault = fault
        self._linger(is_patient=False)

    def _linger(self, *, is_patient: bool) -> None:
        self._lingers = True
        Lingering(self._transport, self.connection_lost, is_patient=is_patient)

    async def finish(self) -> None:
        """Answer what has arrived, deliver the answers, then close."""
        loop = asyncio.get_running_loop()
        limit_s = loop.time() + _DRAIN_READ_LIMIT_S
        self.received = True
        # Polled: it happens once in a connection's life, and four things can end the wait.
        while self._is_busy() and loop.time() < limit_s:
            if self._transport.is_closing() or self._lingers:
                break
            self.received = False
            await asyncio.sleep(_DRAIN_POLL_S)
        is_idle = is_settled(self._transport) and not self.is_within_message()
        if is_idle or self._transport.is_closing():
            self._transport.close()
        elif not self._lingers:
            self._linger(is_patient=True)
        await self._over.wait()

    def _is_busy(self) -> bool:
        # uvloop's timers come before its reads: where the CPU is scarce, nothing was read between
        # two polls although something is here.
        return self._unwritable or self.received or has_unread(self._transport)


class StreamEngine:
    """The engine of such a stack, whose connections are of the type `stream`."""

    def __init__(self, stream: type[Stream], note: Note) -> None:
        self._stream = stream
        self._note = note
        self._streams: set[Stream] = set()

    @property
    def unfinished(self) -> int:
        """A connection that still exists in a drain has something left to send, or lingers."""
        return sum(not stream.is_done for stream in self._streams)

    def protocol(self, on_end: OnEnd, connection: int = 0) -> asyncio.BaseProtocol:
        """Return the asyncio protocol for one new connection."""
        return self._stream(self._streams, on_end, self._note)

    async def heartbeat(self) -> None:
        """Return: that the loop runs this is the sign of life."""
        await asyncio.sleep(0)

    async def drain(self) -> None:
        """Answer what has arrived, deliver the answers, close every connection."""
        await asyncio.gather(*(stream.finish() for stream in tuple(self._streams)))
