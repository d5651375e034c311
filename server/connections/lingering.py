"""How the server breaks off a connection so that the peer can read why.

A socket that is closed with bytes unread resets the connection, and the reset overtakes what was
sent before: of 20 C++ clients that were sending 5 MB, 16 never saw the reason. So the server ends
its half first, and drops what the peer still sends until the peer ends its half. Time and size are
limited (`server.connections.limits`), because the connection takes a slot meanwhile.

A drain ends connections in the same way. Those on which nothing is under way (`is_settled`) close
at once.

TLS cannot end one half: close_notify ends both for OpenSSL, and asyncio. There the server goes on
to drop what comes after its last words, until nothing has come for `_QUIET_S` and all it wrote was
delivered, or its time is over. Then it sends close_notify and closes.

What is asked of the kernel here is asked of the encrypted stream. That is enough to know that all
is over: a transport that is not paused has taken all that it decrypted; and it has written all it
was given as soon as the kernel's queue is empty.

Before, a transport's own count of what waits is of no use over TLS. It holds what was not handed to
the transport below, which takes megabytes in one write and tells nobody of them. So there the
kernel is asked what the peer has acknowledged (`taken_bytes`).
"""

import asyncio
import fcntl
import select
import socket
import struct
import sys
import termios
from collections.abc import Callable

from capnp_rig.server.connections.limits import LINGER_BYTES, LINGER_RATE, LINGER_S, STALL_LIMIT_S

_QUIET_S = 0.1
# A C int.
_INT_BYTES = 4
# Linux's `tcpi_bytes_acked`, of 64 bits, in `struct tcp_info`.
_ACKED = struct.Struct("=120xQ")


def has_unread(transport: asyncio.Transport) -> bool:
    """Return whether the kernel holds bytes of the peer that were not read."""
    return _count(transport, termios.FIONREAD) > 0


def is_settled(transport: asyncio.Transport) -> bool:
    """Return whether a close would lose nothing.

    Then all that was written has been delivered (acknowledged over TCP, read over a Unix socket),
    and nothing that was received is unread.
    """
    return not (
        transport.get_write_buffer_size()
        # Linux's SIOCOUTQ.
        or _count(transport, termios.TIOCOUTQ)
        or has_unread(transport)
    )


def has_hung_up(transport: asyncio.Transport) -> bool:
    """Return whether the peer has ended its half of a connection, or all of it.

    A transport that is paused does not notice.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def _count(transport: asyncio.Transport, request: int) -> int:
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), request, bytes(_INT_BYTES)), sys.byteorder)
    except OSError:
        # It has gone.
        return 0


def taken_bytes(transport: asyncio.Transport, written_bytes: int) -> int:
    """Return a count that grows when the peer takes some of the `written_bytes`; compare two."""
    acked = _acked_bytes(transport)
    return written_bytes - transport.get_write_buffer_size() if acked is None else acked


def _acked_bytes(transport: asyncio.Transport) -> int | None:
    """Return what the peer's kernel has acknowledged; None but for TLS over TCP."""
    if transport.can_write_eof():
        return None
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0 or sock.family == socket.AF_UNIX:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size)
    except OSError:
        # It has gone.
        return None
    acked: int = _ACKED.unpack(info)[0]
    return acked


class Linger:
    """Ends our half of `transport`. The owner tells what it drops, and when all is over.

    With `is_patient`, a peer may leave earlier answers unread for as long as at any other time;
    otherwise for the time that the end may take, which is shorter.
    """

    def __init__(self, transport: asyncio.Transport, *, is_patient: bool = False) -> None:
        self._transport = transport
        self._patience_s = STALL_LIMIT_S if is_patient else LINGER_S
        self._stalled_s = 0.0
        self._bytes_left = LINGER_BYTES
        self._taken_bytes = taken_bytes(transport, 0)
        self._loop = asyncio.get_running_loop()
        self._is_quiet = False
        self._timer = self._loop.call_later(LINGER_S, self._check)
        self._ending: asyncio.TimerHandle | None = None
        try:
            if transport.can_write_eof():
                # After what is written already.
                transport.write_eof()
            else:
                self._end_when_quiet()
            # The peer may be one that was not read from.
            transport.resume_reading()
        except OSError:
            # It has gone.
            transport.abort()

    def drop(self, size: int) -> None:
        """Count bytes that were received and thrown away."""
        self._is_quiet = False
        self._bytes_left -= size
        if self._bytes_left < 0:
            self._transport.abort()

    def over(self) -> None:
        """Take the end of the connection."""
        self._timer.cancel()
        if self._ending is not None:
            self._ending.cancel()

    def _end_when_quiet(self) -> None:
        """Close over TLS."""
        if self._is_quiet and is_settled(self._transport):
            self._transport.close()
            return
        self._is_quiet = True
        self._ending = self._loop.call_later(_QUIET_S, self._end_when_quiet)

    def _check(self) -> None:
        # One that still takes what was answered before has not read the reason yet. But a peer that
        # takes a few bytes at a time could hold on for hours.
        waiting = self._transport.get_write_buffer_size()
        if not self._transport.can_write_eof():
            # As long as the kernel has some, the transport below TLS may have more.
            waiting += _count(self._transport, termios.TIOCOUTQ)
        taken = taken_bytes(self._transport, 0)
        has_moved = taken - self._taken_bytes >= LINGER_RATE * LINGER_S
        self._stalled_s = 0.0 if has_moved else self._stalled_s + LINGER_S
        if not waiting or self._stalled_s >= self._patience_s:
            self._transport.abort()
            return
        self._taken_bytes = taken
        self._timer = self._loop.call_later(LINGER_S, self._check)


def end_in_order(
    transport: asyncio.Transport, on_lost: Callable[[Exception | None], None]
) -> "Lingering | None":
    """Close a connection after all that was written; return what has taken its protocol's place.

    That is None where a close loses nothing: then the protocol hears of the end by itself.
    """
    if is_settled(transport) or transport.is_closing():
        transport.close()
        return None
    return Lingering(transport, on_lost, is_patient=True)


class Lingering(asyncio.Protocol):
    """Takes the place of a protocol that broke off its connection, and drops what comes."""

    def __init__(
        self,
        transport: asyncio.Transport,
        on_lost: Callable[[Exception | None], None],
        *,
        is_patient: bool = False,
    ) -> None:
        self._on_lost = on_lost
        transport.set_protocol(self)
        self._linger = Linger(transport, is_patient=is_patient)

    def data_received(self, data: bytes) -> None:
        """Drop it."""
        self._linger.drop(len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of the end."""
        self._linger.over()
        self._on_lost(exc)
