"""A connection of a Locust user whose replies are taken, and whose next calls leave, in the hub.

A greenlet that waits for each reply costs two switches, an epoll registration and a timeout: 40 µs
a call in all. Here a watcher on a plain socket calls back into the hub: it reads once, hands the
bytes to the exchange, and what that wants to send leaves in one write. That makes 12 µs a call,
and 4 with eight in flight. The user's greenlet only waits for the end.

The hub serves all users and Locust's own greenlets, so a callback never blocks and its work is
bounded by what one read returns; libev serves every ready socket and timer once per turn. Where
the server does not read, the rest of a write is kept and another watcher finishes it.

What the network or the server does ends the flow with a `ClientError`. Anything else is a bug of
ours, or of a workload's: gevent would print it and go on, so it is handed to the run, which ends.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from gevent.event import Event
from gevent.monkey import get_original

from capnp_rig.client.errors import ClientError, DeadlineExceeded, Disconnected
from capnp_rig.loadtest.locust_rig.call_pacer import Pacer
from capnp_rig.loadtest.protocols import AnyWorkload, make_exchange

# Reads of 256 KiB take 17 µs more: such a buffer is mapped anew each time.
_RECEIVE_BYTES = 65_536
_READ, _WRITE = 1, 2

# Patched sockets wait; this one is only ever asked for what is there.
_socket: Any = get_original("socket", "socket")


class Counts(Protocol):
    """Where a flow counts what happens to its calls; times in ns."""

    # Gets when a call was due, sent and rightly answered.
    answered: Callable[[int, int, int], None]

    def failed(self, error: Exception, started_ns: int, now_ns: int, /) -> object:
        """Count a call that failed."""

    def received(self, size: int, /) -> None:
        """Count bytes of replies."""


class Owner(Protocol):
    """Whom a flow tells what happens to it as a whole."""

    def ready(self, now_ns: int, /) -> None:
        """Take note that the server gave its interface: calls begin."""

    def bug(self, error: Exception, /) -> None:
        """End the run."""


class Flow:
    """The calls on one connection, from `start` until `error` is set or `close` is called.

    In a closed loop each reply makes room for the next call; with a `pacer`, that decides.
    """

    def __init__(
        self,
        sock: Any,
        workload: AnyWorkload,
        *,
        user: int,
        in_flight: int,
        counts: Counts,
        owner: Owner,
        pacer: Pacer | None,
        timeout_s: float,
    ) -> None:
        """Take over a connected socket; `user` is a number that no other flow has."""
        self.error: ClientError | None = None
        self.is_ready = False
        self._started_ns = time.monotonic_ns()
        # Whether a call came to its end, and how many were lost with the connection.
        self.has_answered = False
        self.lost_calls = 0
        self._counts = counts
        self._owner = owner
        self._pacer = pacer
        self._timeout_ns = round(timeout_s * 1e9)
        self.exchange = make_exchange(
            workload, user, in_flight, answered=counts.answered, failed=self._failed
        )
        self._socket = _socket(fileno=sock.detach())
        self._socket.settimeout(0)
        # Bound once: looked up for every read and write.
        self._recv: Callable[[int], bytes] = self._socket.recv
        self._send: Callable[[bytes | memoryview], int] = self._socket.send
        loop: Any = gevent.get_hub().loop
        self._reader: Any = loop.io(self._socket.fileno(), _READ)
        self._writer: Any = loop.io(self._socket.fileno(), _WRITE)
        self._unsent = memoryview(b"")
        # How many calls may still be started; None for as many as there is room for.
        self._left: int | None = 0
        # Set while no call is in flight and none may be started, and when the flow has ended.
        self._idle = Event()

    def start(self) -> None:
        """Ask for the server's interface, or for whatever comes first on its stack."""
        self._reader.start(self._readable)
        self.flush()
        if self.error is None and self.exchange.is_ready:
            self._become_ready(time.monotonic_ns())

    def run(self, calls: int | None) -> None:
        """Make `calls` calls, or as many as there is room for until `finish`; wait for replies.

        Raises:
            ClientError: The connection is lost, or a call was overdue; all are counted.
        """
        if self.error is None:
            self._left = calls
            self._idle.clear()
            if self.is_ready:
                self._guard(self._begin)
            self._idle.wait()
        if self.error is not None:
            raise self.error

    def finish(self) -> None:
        """Start no more calls: `run` returns when those in flight have ended."""
        self._left = 0
        if self._pacer is not None:
            self._pacer.withdraw(self)
        if not self.exchange.in_flight:
            self._idle.set()

    def close(self) -> int:
        """Close the connection; return how many calls in flight are given up."""
        unfinished = self.exchange.in_flight if self.error is None else 0
        self._end(Disconnected("the connection is closed"))
        return unfinished

    def expire(self, now_ns: int) -> None:
        """End the flow if a call is overdue: a late reply must not meet a new call."""
        _, since_ns = next(self.exchange.waiting(), (0, now_ns))
        if not self.is_ready:
            since_ns = self._started_ns
        if now_ns - since_ns > self._timeout_ns:
            self._lose(DeadlineExceeded("no answer within the deadline"))

    # What a pacer asks for.

    def send(self, due_ns: int, now_ns: int) -> None:
        """Queue the next call; `flush` sends it."""
        self.exchange.send(due_ns, now_ns)

    def flush(self) -> None:
        """Send what is queued, in one write."""
        # What did not go out stays in front; until it has gone, the exchange keeps the rest.
        if self._unsent or self.error is not None:
            return
        out = self.exchange.output()
        if out:
            self._write(out)

    # In the hub.

    def _readable(self) -> None:
        try:
            data = self._recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(Disconnected(f"the connection was lost: {error.strerror}"))
            return
        now_ns = time.monotonic_ns()
        try:
            if data:
                self._take(data, now_ns)
            else:
                self._lose(Disconnected("the connection was lost: the server closed it"))
        except ClientError as error:
            self._lose(error)
        except Exception as error:  # noqa: BLE001 - told, not hidden
            self._owner.bug(error)

    def _take(self, data: bytes, now_ns: int) -> None:
        freed = self.exchange.receive(data, now_ns)
        if self.is_ready:
            self._counts.received(len(data))
            self.has_answered = self.has_answered or freed > 0
        elif self.exchange.is_ready:
            self._become_ready(now_ns)
        self._go_on(freed)
        self.flush()

    def _become_ready(self, now_ns: int) -> None:
        self.is_ready = True
        self._owner.ready(now_ns)

    def _begin(self) -> None:
        self._go_on(self.exchange.free)
        self.flush()

    def _guard(self, step: Callable[[], None]) -> None:
        """Take a step outside of `_readable`, with the same care for bugs."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - told, not hidden
            self._owner.bug(error)

    def _go_on(self, room: int) -> None:
        """Start calls on free slots."""
        left = self._left
        if left is None:
            if self._pacer is not None:
                self._pacer.offer(self, room, time.monotonic_ns())
                return
        else:
            room = min(room, left)
            self._left = left - room
            if not room and not self.exchange.in_flight:
                self._idle.set()
        now_ns = time.monotonic_ns()
        send = self.exchange.send
        for _ in range(room):
            send(now_ns, now_ns)

    def _write(self, out: bytes | memoryview) -> None:
        try:
            sent = self._send(out)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(self._last_words(error))
            return
        if sent < len(out):
            self._unsent = memoryview(out)[sent:]
            self._writer.start(self._writable)

    def _writable(self) -> None:
        unsent, self._unsent = self._unsent, memoryview(b"")
        self._writer.stop()
        self._write(unsent)
        self.flush()

    def _last_words(self, error: OSError) -> ClientError:
        """Return why the connection ended: a server that aborts says so before it closes."""
        try:
            while data := self._recv(_RECEIVE_BYTES):
                self.exchange.receive(data, time.monotonic_ns())
        except ClientError as said:
            return said
        except OSError:
            pass
        return Disconnected(f"the connection was lost: {error.strerror}")

    def _failed(self, error: Exception, sent_ns: int, now_ns: int) -> None:
        # Of the calls that end with an overdue one, not all are overdue themselves.
        if isinstance(error, DeadlineExceeded) and now_ns - sent_ns <= self._timeout_ns:
            error = Disconnected("given up with another call, which was overdue")
        self._counts.failed(error, sent_ns, now_ns)

    def _lose(self, error: ClientError) -> None:
        """End the flow; what is in flight has failed."""
        if self.error is None:
            self.lost_calls = self.exchange.give_up(error, time.monotonic_ns())
            self._end(error)

    def _end(self, error: ClientError) -> None:
        if self.error is not None:
            return
        self.error = error
        if self._pacer is not None:
            self._pacer.withdraw(self)
        for watcher in (self._reader, self._writer):
            watcher.stop()
            watcher.close()
        self._socket.close()
        self._idle.set()
