"""A bare readiness loop: epoll through `selectors`, non-blocking sockets, no event loop.

Wire format, in both directions: frames, each of which is the number of bytes that follow as an
unsigned 32-bit little-endian integer, and then the text in UTF-8. For "Hello", in hexadecimal::

    05 00 00 00 48 65 6c 6c 6f  ->  05 00 00 00 6f 6c 6c 65 48

Bytes that are no text have the highest bit of that integer set, both ways, and are reversed as
bytes::

    03 00 00 80 01 02 ff  ->  03 00 00 80 ff 02 01

Frames are answered in order, an empty text by an empty frame. There are no error frames: after a
frame that announces more than `limits.MAX_TEXT_BYTES`, or whose text is not UTF-8, the
frames before it are answered, and the connection is closed.

This is not an engine for the worker's loop but the loop itself, in place of
`server.worker.loop.Worker`: the control socket is one more descriptor in the selector. Every
descriptor has a callback; one turn of the loop calls those that are ready. A connection reads
once per turn, into a buffer that all share, and writes at once. Only what the kernel does not
take is kept; while there is any, the connection waits to write, and does not read above
`WRITE_LIMIT_BYTES` of it.

If a peer broke the protocol, the server ends the stream and drops what the peer still sends, as
`server.connections.lingering` explains. In a drain, what has arrived is answered. A connection is
closed when it has nothing to send and nothing came for `_DRAIN_QUIET_S`.
"""

import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable

from capnp_rig.rigcli.socket_options import set_options
from capnp_rig.server.config import ConnectionLimits
from capnp_rig.server.connections.connection_log import ConnectionLog
from capnp_rig.server.connections.limits import LINGER_BYTES, LINGER_S, WRITE_LIMIT_BYTES
from capnp_rig.server.connections.sweeper import Sweeper
from capnp_rig.server.connections.time_limits import Overdue, Progress
from capnp_rig.server.control import messages
from capnp_rig.server.control.call_stamp import Stamp
from capnp_rig.server.control.channel import Channel, ChannelClosedError
from capnp_rig.server.logs.log import open_log
from capnp_rig.server.services.binary import reverse_bytes
from capnp_rig.server.services.reverse import Note, reverse
from capnp_rig.server.stacks.call_count import note_of
from capnp_rig.server.stacks.length_frames import BinaryPayload, FrameReader, binary_frame, frame
from capnp_rig.server.stacks.limits import CUT_OFF, MAX_TEXT_BYTES

LEFT = 0
CANCELLED = 1

_READ = selectors.EVENT_READ
_WRITE = selectors.EVENT_WRITE
_RECEIVE_BYTES = 262_144
_MESSAGES_PER_TURN = 64
_DRAIN_TURN_S = 0.005
_DRAIN_QUIET_S = 0.02
# Then a peer that never stops sending is read no more.
_DRAIN_READ_LIMIT_S = 3.0
_NOT_UTF8 = "a text is not UTF-8"


class ReadinessWorker:
    """Serves what the supervisor hands over, until it says otherwise or is gone."""

    def __init__(
        self, channel: Channel, setup: messages.Setup, pin_error: str | None, stamp: Stamp
    ) -> None:
        self._channel = channel
        self._pin_error = pin_error
        self._outbox: deque[messages.Message] = deque()
        self._log = open_log(setup.config.log_level, setup.config.log_format)
        self._lines = ConnectionLog(self._log, setup, pin_error)
        self._note = note_of(setup, self._log, stamp)
        self._selector = selectors.DefaultSelector()
        self._buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self._connections: set[_Connection] = set()
        self._sweeper = Sweeper(setup.config.limits)
        self._sweep_s = 0.0
        # Those that broke the protocol, or still send when a drain reads no more, and when they are
        # cut off, first ones first.
        self._lingering: deque[tuple[float, _Connection]] = deque()
        self._draining = False
        self._read_limit_s = 0.0
        self._status: int | None = None

    def run(self) -> int:
        """Serve; return the exit status."""
        self._selector.register(self._channel, _READ, self._on_control)
        self._send(messages.Ready(pin_error=self._pin_error))
        while self._status is None:
            for key, events in self._selector.select(self._patience_s()):
                key.data(events)
            while self._lingering and self._lingering[0][0] <= time.monotonic():
                self._lingering.popleft()[1].close()
            if self._sweeper and time.monotonic() >= self._sweep_s:
                self._sweep_s = time.monotonic() + self._sweeper.tick_s
                self._sweeper.sweep(time.monotonic())
            if self._draining:
                self._close_finished()
        return self._status

    def _patience_s(self) -> float | None:
        if self._draining:
            return _DRAIN_TURN_S
        due_s = [self._lingering[0][0]] if self._lingering else []
        due_s += [self._sweep_s] if self._sweeper else []
        return max(min(due_s) - time.monotonic(), 0.0) if due_s else None

    def _on_control(self, events: int) -> None:
        try:
            if events & _WRITE:
                self._flush()
            for _ in range(_MESSAGES_PER_TURN):
                received = self._channel.receive()
                if received is None:
                    return
                self._obey(*received)
        except ChannelClosedError:
            # The supervisor is gone, and with it everyone who could restart us in good order.
            os._exit(CANCELLED)

    def _obey(self, order: messages.Message, fd: int | None) -> None:
        match order:
            case messages.Hand():
                self._take(order, fd)
            case messages.Ping():
                self._send(messages.Pong(order.beat))
                self._log.flush()
            case messages.Drain():
                self._draining = True
                self._read_limit_s = time.monotonic() + _DRAIN_READ_LIMIT_S
            case messages.Stop():
                self._leave(len(self._connections))
            case _:
                raise AssertionError(order)

    def _take(self, hand: messages.Hand, fd: int | None) -> None:
        if fd is None:
            self._send(messages.Refused(hand.connection))
            return
        self._send(messages.Taken(hand.connection))
        sock = socket.socket(fileno=fd)
        self._lines.received(hand.peer)
        try:
            sock.settimeout(0)
            set_options(sock)
        except OSError as error:
            # The peer was gone before it was adopted.
            sock.close()
            self._tell_end(hand, error.strerror or "broken")
            return
        self._lines.started(hand.peer)
        connection = _Connection(
            sock,
            self._selector,
            self._buffer,
            self._note,
            self._sweeper.limits,
            on_linger=lambda: self._linger(connection),
            on_end=lambda reason: self._ended(connection, hand, reason),
        )
        self._connections.add(connection)
        self._sweeper.add(connection, time.monotonic())

    def _linger(self, connection: "_Connection") -> None:
        self._sweeper.discard(connection)
        self._lingering.append((time.monotonic() + LINGER_S, connection))

    def _ended(self, connection: "_Connection", hand: messages.Hand, reason: str | None) -> None:
        self._connections.discard(connection)
        self._sweeper.discard(connection)
        self._tell_end(hand, reason)

    def _tell_end(self, hand: messages.Hand, reason: str | None) -> None:
        self._lines.ended(hand.peer, reason)
        self._send(messages.Ended(hand.connection))

    def _close_finished(self) -> None:
        """Close those that have nothing left to do; leave when all have."""
        now_s = time.monotonic()
        is_late = now_s > self._read_limit_s
        for connection in tuple(self._connections):
            if connection.has_finished(now_s, is_late=is_late):
                connection.close()
        if not self._connections and self._status is None:
            self._leave(0)

    def _leave(self, cancelled: int) -> None:
        self._send(messages.Left(cancelled))
        self._log.flush(last=True)
        self._status = CANCELLED if cancelled else LEFT

    def _send(self, message: messages.Message) -> None:
        """Send in order, and keep what the supervisor has no room for."""
        if self._outbox or not self._channel.send(message):
            self._outbox.append(message)
            self._selector.modify(self._channel, _READ | _WRITE, self._on_control)

    def _flush(self) -> None:
        while self._outbox and self._channel.send(self._outbox[0]):
            self._outbox.popleft()
        if not self._outbox:
            self._selector.modify(self._channel, _READ, self._on_control)


class _Connection:
    """One connection: bytes, frames, and its end."""

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        buffer: memoryview,
        note: Note,
        limits: ConnectionLimits,
        *,
        on_linger: Callable[[], None],
        on_end: Callable[[str | None], None],
    ) -> None:
        self._sock = sock
        self._selector = selector
        self._buffer = buffer
        self._note = note
        self._limits = limits
        self._on_linger = on_linger
        self._on_end = on_end
        self._reader = FrameReader(MAX_TEXT_BYTES)
        # What the kernel did not take.
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._interest = _READ
        # Nothing more is answered; the connection ends when all is sent, or lingers if it has a
        # fault or is late.
        self._ending = False
        self._is_lingering = False
        # The peer still sends although the drain reads no more.
        self._is_late = False
        self._linger_bytes = LINGER_BYTES
        self._fault: str | None = None
        self._received_bytes = 0
        # For the drain.
        self._has_received = True
        self._quiet_since_s = 0.0
        selector.register(sock, _READ, self._on_ready)

    def has_finished(self, now_s: float, *, is_late: bool) -> bool:
        """Return whether there is nothing left to do in a drain; to be asked once per turn."""
        if self._unsent or self._has_received:
            self._has_received = False
            self._quiet_since_s = now_s
        if not self._unsent and now_s - self._quiet_since_s >= _DRAIN_QUIET_S:
            return True
        if is_late and not self._ending:
            self._ending = self._is_late = True
            # It ends when all is sent.
            self._on_ready(0)
        return False

    def progress(self) -> Progress:
        """Return what has come so far."""
        received, pending = self._received_bytes, self._reader.pending_bytes
        is_blocked = self._ending or self._unsent_bytes > WRITE_LIMIT_BYTES
        unread = self._unsent_bytes if is_blocked else 0
        return Progress(received, received - pending, pending > 0, False, unread)

    def end_overdue(self, overdue: Overdue) -> None:
        """End in good order, for this reason."""
        if overdue.is_fault:
            self._fault = overdue.reason(self._limits)
        if overdue is Overdue.STALLED or (self._unsent and not overdue.is_fault):
            # It does not read, and will not read an end either.
            self.close()
            return
        self._ending = True
        self._on_ready(0)

    def close(self) -> None:
        """End the connection, unless it has ended."""
        if self._sock.fileno() < 0:
            return
        self._selector.unregister(self._sock)
        self._sock.close()
        self._on_end(self._fault)

    def _on_ready(self, events: int) -> None:
        try:
            if events & _WRITE:
                self._send_rest()
            if events & _READ:
                self._receive()
            if self._ending and not self._unsent:
                self._end()
        except OSError as error:
            self._fault = self._fault or error.strerror or "broken"
            self.close()
            return
        self._choose_interest()

    def _receive(self) -> None:
        try:
            received = self._sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        self._has_received = True
        self._received_bytes += received
        if self._is_lingering:
            self._linger_bytes -= received
            if not received or self._linger_bytes < 0:
                self.close()
        elif not received:
            self._ending = True
            if self._reader.pending_bytes:
                self._fault = CUT_OFF
        elif answers := self._answer(self._buffer[:received]):
            # All answers of one read leave in one write.
            self._send(b"".join(answers))

    def _end(self) -> None:
        if self._fault is None and not self._is_late:
            self.close()
        elif not self._is_lingering:
            self._is_lingering = True
            self._sock.shutdown(socket.SHUT_WR)
            self._on_linger()

    def _answer(self, data: memoryview) -> list[bytes]:
        answers = []
        for payload in self._reader.feed(data):
            if type(payload) is BinaryPayload:
                answers.append(binary_frame(reverse_bytes(payload, self._note)))
                continue
            try:
                text = payload.decode()
            except UnicodeDecodeError:
                self._fault = _NOT_UTF8
                break
            answers.append(frame(reverse(text, self._note).encode()))
        self._fault = self._fault or self._reader.fault
        self._ending = self._fault is not None
        return answers

    def _send(self, data: bytes) -> None:
        self._unsent.append(memoryview(data))
        self._unsent_bytes += len(data)
        if len(self._unsent) == 1:
            self._send_rest()

    def _send_rest(self) -> None:
        while self._unsent:
            first = self._unsent[0]
            try:
                sent = self._sock.send(first)
            except BlockingIOError:
                return
            self._unsent_bytes -= sent
            if sent < len(first):
                self._unsent[0] = first[sent:]
                return
            self._unsent.popleft()

    def _choose_interest(self) -> None:
        wanted = _WRITE if self._unsent else 0
        if self._is_lingering or (not self._ending and self._unsent_bytes <= WRITE_LIMIT_BYTES):
            wanted |= _READ
        if wanted != self._interest and self._sock.fileno() >= 0:
            self._interest = wanted
            self._selector.modify(self._sock, wanted, self._on_ready)
