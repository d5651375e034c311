"""Stands between a transport and pycapnp's protocol, for the life of a connection.

pycapnp reads each message in two parts from the transport, pausing and resuming it for each, and
writes it in two. When bytes arrive before KJ starts its first read, it pauses the transport from
inside `get_buffer`. On uvloop that stops libuv from within its own allocation callback, and libuv
then calls a null pointer (https://github.com/libuv/libuv/issues/2399): SIGSEGV.

So a `Gate` is the transport's protocol, and pycapnp's transport. It takes all bytes as they come,
gives KJ what it reads from there, joins the writes of a loop turn, and tells pycapnp of the end of
the stream only while KJ reads (else its next read would use a null pointer).

A `MeteredGate` is the server's: a `CallMeter` looks at all frames, the connection is closed for
what was said on it, and a peer that does not read is waited for, then cut off.

This uses the private `AsyncIoStream._connect` of pycapnp 2.2; importing checks that it exists.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

import capnp

from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.connections.limits import (
    SKIP_LIMIT_S,
    SKIPPED_TOO_LONG,
    STALL_LIMIT_S,
    WRITE_LIMIT_BYTES,
    unread_limit_bytes,
)
from capnp_rig.server.connections.lingering import Linger, is_settled, taken_bytes
from capnp_rig.server.connections.time_limits import Overdue, Progress
from capnp_rig.server.engines.engine import Traffic
from capnp_rig.server.engines.kj_meter import CallMeter, Ending
from capnp_rig.wire.encoding.pointers import Buffer
from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError

# Called once with the transport's error, None for none.
OnLost = Callable[[Exception | None], None]

_RECEIVE_BYTES = 65_536
# What KJ has not taken yet; nothing more is read while it is more.
_BACKLOG_BYTES = 262_144
# What waits for the end of the loop turn is sent at once from here on.
_JOIN_BYTES = 65_536
# Of a connection that is too old, until its calls have ended.
_RETIRE_POLL_S = 0.05

if not hasattr(capnp.AsyncIoStream, "_connect"):
    raise ImportError(
        f"pycapnp {capnp.__version__} has no AsyncIoStream._connect: use the 2.2 series",
    )


def _ignore(_error: Exception | None) -> None:
    pass


class Gate(asyncio.BufferedProtocol):
    """The protocol of a connection of either side, and the transport that pycapnp sees.

    It needs a running KJ loop. `on_stream` gets pycapnp's stream as soon as the connection is made.
    """

    def __init__(
        self,
        on_stream: Callable[[Any], None],
        on_lost: OnLost = _ignore,
        buffer: memoryview | None = None,
    ) -> None:
        self._inner: Any = capnp.AsyncIoStream._connect(on_stream)
        self._on_lost = on_lost
        # Filled and emptied within one callback, so connections of a loop may share it.
        self._buffer = memoryview(bytearray(_RECEIVE_BYTES)) if buffer is None else buffer
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        # What KJ has not read yet: buffers, and how much of the first it has.
        self._backlog: deque[memoryview] = deque()
        self._backlog_bytes = 0
        self._is_read = False
        self._eof = False
        self._paused = False
        self._out: list[Buffer] = []
        self._out_bytes = 0
        self._written_bytes = 0
        self._flush_scheduled = False

    @property
    def is_over(self) -> bool:
        """Whether the connection was lost, or is closing."""
        return self._transport is None or self._transport.is_closing()

    @property
    def transport(self) -> asyncio.Transport | None:
        """The connection's own; None before and after it."""
        return self._transport

    @property
    def unsent_bytes(self) -> int:
        """What was written and has not left."""
        waiting = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return self._out_bytes + waiting

    # --- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Show pycapnp ourselves in place of the transport."""
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._inner.connection_made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where bytes are received."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was received."""
        self._received(self._buffer[:nbytes])

    def eof_received(self) -> bool:
        """End the connection when KJ has read what came before; keep it open until then.

        TLS keeps no half open: its transports close after this, whatever is returned.
        """
        self._eof = True
        self._feed()
        return self._transport is not None and self._transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the end on and report it."""
        self._transport = None
        self._backlog.clear()
        self._inner.connection_lost(exc)
        self._on_lost(exc)

    def pause_writing(self) -> None:
        """Pass on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._inner.resume_writing()

    # --- pycapnp's side: what it asks of a transport

    def pause_reading(self) -> None:
        """Note that KJ reads no more."""
        self._is_read = False

    def resume_reading(self) -> None:
        """Note that KJ reads, and give it what is here."""
        self._is_read = True
        if self._backlog or self._eof or self._paused:
            self._feed()

    def write(self, data: bytes) -> None:
        """Send `data` with all that is written in this turn of the loop."""
        self._send([data])

    def is_closing(self) -> bool:
        """Tell pycapnp whether writing makes sense."""
        return self.is_over

    def can_write_eof(self) -> bool:
        """As all transports of ours."""
        return True

    def write_eof(self) -> None:
        """Do nothing: KJ ends its side only before the whole connection is closed."""

    def close(self) -> None:
        """Send what was written, then close."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    # --- what passes

    def _received(self, data: Buffer) -> None:
        self._pass_on(data)

    def _pass_on(self, data: Buffer) -> None:
        """Let KJ read `data`, which is copied if it cannot take all of it at once."""
        if self._is_read and not self._backlog:
            into = self._inner.get_buffer(-1)
            size = len(data)
            if 0 < size <= len(into):
                into[:size] = data
                self._inner.buffer_updated(size)
                return
        if data:
            kept = data if type(data) is bytearray else bytes(data)
            self._backlog.append(memoryview(kept))
            self._backlog_bytes += len(kept)
        self._feed()
        self._steer()

    def _feed(self) -> None:
        """Give KJ what it reads; asking pycapnp for a buffer means that it reads."""
        while self._is_read and self._backlog:
            data = self._backlog[0]
            into = self._inner.get_buffer(-1)
            count = min(len(into), len(data))
            into[:count] = data[:count]
            if count == len(data):
                self._backlog.popleft()
            else:
                self._backlog[0] = data[count:]
            self._backlog_bytes -= count
            self._inner.buffer_updated(count)
        if not self._backlog:
            if self._eof and self._is_read and self._may_end():
                self._inner.eof_received()
                self.close()
            elif self._paused:
                self._loop.call_soon(self._steer)

    def _may_end(self) -> bool:
        """Tell whether all that was received has been passed on."""
        return True

    def _must_wait(self) -> bool:
        """Tell whether nothing more is to be read now."""
        return self._backlog_bytes > _BACKLOG_BYTES

    def _steer(self) -> None:
        if self._transport is None or self._paused == (wait := self._must_wait()):
            return
        self._paused = wait
        if wait:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _send(self, pieces: Iterable[Buffer]) -> None:
        for piece in pieces:
            self._out.append(piece)
            self._out_bytes += len(piece)
        if self._out_bytes >= _JOIN_BYTES:
            self._flush()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._out and self._transport is not None:
            data = b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            # First: the write may start a timer that counts from there.
            self._written_bytes += len(data)
            self._transport.write(data)


class MeteredGate(Gate):
    """The protocol of a server's connection."""

    def __init__(
        self,
        on_stream: Callable[[Any], None],
        on_lost: OnLost,
        buffer: memoryview,
        meter: CallMeter,
        limits: ConnectionLimits,
    ) -> None:
        super().__init__(on_stream, on_lost, buffer)
        self._meter = meter
        self._limits = limits
        self._unread_limit_bytes = unread_limit_bytes(limits)
        # While the rest of a message over the limit is dropped.
        self._skip_timer: asyncio.TimerHandle | None = None
        # Since we, or KJ, broke off the connection, or drained it.
        self._linger: Linger | None = None
        # In this turn of the loop.
        self._filled_bytes = 0
        self._received_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        # Why the connection ended badly, in a few words.
        self.fault: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what waits for the peer to read."""
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=WRITE_LIMIT_BYTES)
        super().connection_made(transport)

    def buffer_updated(self, nbytes: int) -> None:
        """Count and take what was received."""
        self._received_bytes += nbytes
        self._received(self._buffer[:nbytes])

    def eof_received(self) -> bool:
        """End the connection, at once if nobody listens any more."""
        if self._linger is not None:
            return False
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all that is under way."""
        if self._timer is not None:
            self._timer.cancel()
        if self._skip_timer is not None:
            self._skip_timer.cancel()
        if self._linger is not None:
            self._linger.over()
        self._meter.close()
        super().connection_lost(exc)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left but that the peer closes."""
        return self._linger is not None and not self.unsent_bytes

    def write(self, data: bytes) -> None:
        """Send what the meter makes of it."""
        if self._linger is not None:
            return
        pieces = self._meter.send(data)
        if pieces:
            meter = self._meter
            if meter.calls_in_flight or self._out or meter.unwritable or self._transport is None:
                self._send(pieces)
            else:
                # Nothing else to wait for: another turn of the loop would only cost.
                joined = b"".join(pieces)
                self._written_bytes += len(joined)
                self._transport.write(joined)
            if meter.held or meter.needs_care:
                self._after_frame()

    def close(self) -> None:
        """As a transport; but KJ, which is done by now, cannot cut an Abort short."""
        if self._linger is None:
            super().close()

    def finish(self) -> None:
        """Close such that the peer gets all that was written; nothing more will be."""
        if self._transport is None or self._linger is not None:
            return
        self._flush()
        is_idle = is_settled(self._transport) and not self._backlog
        if (is_idle and not self._meter.pending_bytes) or self._transport.is_closing():
            self._transport.close()
        else:
            self._start_lingering(is_patient=True)

    # --- the peer reads, or not

    def pause_writing(self) -> None:
        """Look at no more calls; KJ goes on, so that all replies are where they are counted."""
        self._meter.unwritable = True
        self._watch_for_stall()

    def resume_writing(self) -> None:
        """Go on."""
        self._meter.unwritable = False
        if self._timer is not None and self._linger is None:
            self._timer.cancel()
        self._loop.call_soon(self._continue)

    def _watch_for_stall(self) -> None:
        if self._linger is None:
            self._timer = self._loop.call_later(STALL_LIMIT_S, self._check_stall, self._sent_bytes)

    @property
    def _sent_bytes(self) -> int:
        if self._transport is None:
            return self._written_bytes
        return taken_bytes(self._transport, self._written_bytes)

    def _check_stall(self, sent_before: int) -> None:
        if self._sent_bytes > sent_before:
            self._watch_for_stall()
        else:
            self._meter.hit("stalled")
            self._cut_off(f"the peer read none of its replies for {STALL_LIMIT_S:g} s")

    def _flush(self) -> None:
        super()._flush()
        transport = self._transport
        # The transport has asked for a pause long before.
        if transport is None or self._linger is not None or not self._meter.unwritable:
            return
        if transport.get_write_buffer_size() > self._unread_limit_bytes:
            self._cut_off_unread()

    def note_filled(self, count: int) -> None:
        """Count results that KJ will send: many calls may end in one turn of the loop."""
        if not self._filled_bytes:
            self._loop.call_soon(self._forget_filled)
        self._filled_bytes += count
        if self._filled_bytes + self.unsent_bytes > self._unread_limit_bytes:
            self._cut_off_unread()

    def _forget_filled(self) -> None:
        self._filled_bytes = 0

    def _cut_off_unread(self) -> None:
        self._meter.hit("unread")
        mebibytes = self._unread_limit_bytes >> 20
        self._cut_off(f"the peer left {mebibytes} MiB of its replies unread")

    def _cut_off(self, fault: str) -> None:
        self.fault = fault
        if self._transport is not None:
            self._transport.abort()

    @property
    def traffic(self) -> Traffic:
        """What was received and sent so far."""
        return Traffic(self._received_bytes, self._written_bytes)

    # --- time limits

    def progress(self) -> Progress:
        """Return what has come so far."""
        meter = self._meter
        received, pending = self._received_bytes, meter.pending_bytes
        is_busy = (
            self._linger is not None
            or meter.held
            or meter.unwritable
            or meter.calls_in_flight > 0
            or meter.handlers > 0
            or (meter.peer is not None and meter.peer.waiting > 0)
        )
        return Progress(received, received - pending, pending > 0, is_busy)

    def end_overdue(self, overdue: Overdue) -> None:
        """End in good order, for this reason."""
        meter = self._meter
        if self.is_over or self._linger is not None or meter.ended is not None:
            return
        if overdue is Overdue.AGE and (meter.calls_in_flight or meter.handlers):
            meter.retiring = True
            self._loop.call_later(_RETIRE_POLL_S, self.end_overdue, overdue)
            return
        meter.hit(overdue.value)
        reason = overdue.reason(self._limits)
        if overdue.is_fault:
            meter.end(RemoteError(reason), reason)
        else:
            # As a goodbye: nobody lost anything.
            meter.end(RemoteError(reason, ExceptionType.DISCONNECTED), None)
        self._after_frame()

    # --- frames

    def _received(self, data: Buffer) -> None:
        if self._linger is not None:
            self._linger.drop(len(data))
            return
        meter = self._meter
        passed = meter.receive(data, self._loop.time())
        self._pass_on(passed)
        if meter.held or meter.needs_care:
            self._after_frame()
            self._steer()

    def _continue(self) -> None:
        """Look at what was left over, now that nothing holds it back."""
        if self._transport is not None and self._linger is None and not self._meter.holding:
            self._received(b"")

    def _after_frame(self) -> None:
        """Send frames of our own between KJ's, and end where something was said that ends."""
        meter = self._meter
        if meter.has_begun_to_skip:
            meter.has_begun_to_skip = False
            self._watch_skipping()
        if not meter.is_within_frame:
            frames = meter.take_frames()
            if frames:
                self._send(frames)
            if meter.ended is not None and self._linger is None:
                self._end(meter.ended)
                return
        if meter.held and not meter.holding:
            self._loop.call_soon(self._continue)

    def _watch_skipping(self) -> None:
        if self._skip_timer is not None:
            self._skip_timer.cancel()
        self._skip_timer = self._loop.call_later(SKIP_LIMIT_S, self._check_skipping)

    def _check_skipping(self) -> None:
        meter = self._meter
        if not meter.bytes_to_skip or self._linger is not None or meter.ended is not None:
            return
        if self._paused:
            # It is not read: that has limits of its own.
            self._watch_skipping()
        else:
            meter.give_up_skipping(SKIPPED_TOO_LONG)
            self._after_frame()

    def _may_end(self) -> bool:
        if self._meter.held:
            return False
        if self._meter.pending_bytes:
            self.fault = "protocol error: the peer closed within a message"
        return True

    def _must_wait(self) -> bool:
        return self._linger is None and (self._meter.held or super()._must_wait())

    def _end(self, ending: Ending) -> None:
        """Close, without a reset that would take an Abort of ours with it."""
        self.fault = self._meter.fault
        if self._transport is None or self._transport.is_closing():
            self._disconnect_soon()
        elif ending is Ending.PEER_ABORTED:
            self._disconnect_soon()
            self.close()
        else:
            self._flush()
            if self._timer is not None:
                self._timer.cancel()
            self._start_lingering()

    def _start_lingering(self, *, is_patient: bool = False) -> None:
        assert self._transport is not None
        self._disconnect_soon()
        self._backlog.clear()
        self._linger = Linger(self._transport, is_patient=is_patient)

    def _disconnect_soon(self) -> None:
        """Cancel the calls, if KJ has not done so. Later, because KJ may be the caller."""
        self._loop.call_soon(self._inner.connection_lost, None)
