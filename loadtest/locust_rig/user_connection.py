"""The connection of a Locust user. Its replies are read in gevent's hub, not in a greenlet.

A greenlet that waits for its socket costs two switches, an epoll registration and a timeout: 40 µs
a call in all. Here a watcher on a plain socket calls back into the hub. It reads once and hands the
bytes to the exchange; what that wants to send leaves in one write. Two kinds of connection share
this:

    WorkloadConnection  makes the calls of a workload, by itself: each reply starts the next call.
                        The user's greenlet only waits for the end. 12 µs a call, 4 with eight in
                        flight.
    CallConnection      makes single calls. Its replies wake the user's greenlet, straight out of
                        the hub's callback, which costs one switch each way.

The hub serves all users and Locust's own greenlets, so a callback never blocks and its work is
bounded by what one read returns; libev serves every ready socket and timer once per turn. Where
the server does not read, the rest of a write is kept and another watcher finishes it.

A connection ends with a `ClientError` when the network or the server fails. Any other exception is
a bug of ours, or of a workload's: gevent would print it and go on, so the run ends instead.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gevent
from gevent import getcurrent
from gevent.event import Event
from gevent.monkey import get_original

from capnp_rig.loadtest.locust_rig.call_pacer import CallPacer
from capnp_rig.loadtest.locust_rig.user_tls import SecuredSocket
from capnp_rig.loadtest.protocols.capnp_calls import CallExchange, PendingCall, Reference, Wrap
from capnp_rig.loadtest.protocols.exchange import AnyExchange
from capnp_rig.objects.errors import ClientError, DeadlineExceeded, Disconnected, fresh
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.frames import DEFAULT_LIMITS, FrameLimits
from capnp_rig.wire.rpc.interfaces import Method

# Reads of 256 KiB take 17 µs more: such a buffer is mapped anew each time.
_RECEIVE_BYTES = 65_536
_READ, _WRITE = 1, 2
# libev's timers step by that.
_SHORTEST_TIMER_S = 0.001

# Patched sockets wait; this one is only ever asked for what is there.
_socket: Any = get_original("socket", "socket")


class CallCounts(Protocol):
    """Where a connection counts what happens to its calls; times in ns."""

    # Gets when a call was due, sent and rightly answered.
    answered: Callable[[int, int, int], None]

    def failed(self, error: Exception, started_ns: int, now_ns: int, /) -> object:
        """Count a call that failed."""

    def received(self, size: int, /) -> None:
        """Count bytes of replies."""


class ConnectionOwner(Protocol):
    """Whom a connection tells what happens to it as a whole."""

    def ready(self, now_ns: int, walk_ns: int | None, /) -> None:
        """Take note that it is known what is called, after calls that took `walk_ns`."""

    def bug(self, error: Exception, /) -> None:
        """End the run."""


class UserConnection(ABC):
    """A connected socket, watched by the hub until `error` is set or `close` is called.

    A call has `timeout_s` seconds; one timer per connection looks after the oldest call, which
    costs nothing per call.
    """

    exchange: AnyExchange | CallExchange

    def __init__(self, sock: Any, *, bug: Callable[[Exception], None], timeout_s: float) -> None:
        """Take over a connected socket; `bug` gets an exception that no server can cause."""
        self.error: ClientError | None = None
        self._bug = bug
        self._timeout_ns = round(timeout_s * 1e9)
        self._socket: Any = (
            SecuredSocket(sock) if hasattr(sock, "do_handshake") else _socket(fileno=sock.detach())
        )
        self._socket.settimeout(0)
        # Bound once: looked up for every read and write.
        self._recv: Callable[[int], bytes] = self._socket.recv
        self._send: Callable[[bytes | memoryview], int] = self._socket.send
        self._loop: Any = gevent.get_hub().loop
        self._reader: Any = self._loop.io(self._socket.fileno(), _READ)
        self._writer: Any = self._loop.io(self._socket.fileno(), _WRITE)
        self._timer: Any = None
        self._unsent = memoryview(b"")

    def start(self) -> None:
        """Ask for the server's interface, or for whatever comes first on its stack."""
        self._reader.start(self._readable)
        self._set_timer(self._timeout_ns)
        self.flush()

    def close(self) -> int:
        """Close the connection; return how many calls in flight are given up."""
        unfinished = self.exchange.in_flight if self.error is None else 0
        self._end(Disconnected("the connection is closed"))
        return unfinished

    def flush(self) -> None:
        """Send what is queued, in one write."""
        # What did not go out stays in front; until it has gone, the exchange keeps the rest.
        if self._unsent or self.error is not None:
            return
        out = self.exchange.output()
        if out:
            self._write(out)

    @abstractmethod
    def _take(self, data: bytes, now_ns: int) -> None:
        """Take received bytes.

        Raises:
            ClientError: The server broke the protocol, or ended the connection.
        """

    @abstractmethod
    def _give_up(self, error: ClientError, now_ns: int) -> None:
        """End all calls in flight with an error."""

    @abstractmethod
    def _expire(self, now_ns: int) -> int:
        """End what is overdue; return when to look again, in ns from now."""

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
            self._bug(error)

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
        except ClientError as reason:
            return reason
        except OSError:
            pass
        return Disconnected(f"the connection was lost: {error.strerror}")

    def _set_timer(self, delay_ns: int) -> None:
        self._timer = self._loop.timer(max(delay_ns / 1e9, _SHORTEST_TIMER_S))
        self._timer.start(self._look_for_overdue)

    def _look_for_overdue(self) -> None:
        self._timer.close()
        self._timer = None
        try:
            delay_ns = self._expire(time.monotonic_ns())
        except Exception as error:  # noqa: BLE001 - told, not hidden
            self._bug(error)
            return
        if self.error is None:
            self._set_timer(delay_ns)

    def _lose(self, error: ClientError) -> None:
        """End the connection; what is in flight has failed."""
        if self.error is None:
            self._give_up(error, time.monotonic_ns())
            self._end(error)

    def _end(self, error: ClientError) -> None:
        if self.error is not None:
            return
        self.error = error
        for watcher in (self._reader, self._writer, self._timer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._socket.close()


class WorkloadConnection(UserConnection):
    """Makes the calls of a workload.

    In a closed loop each reply makes room for the next call; with a `pacer`, that decides.
    """

    def __init__(
        self,
        sock: Any,
        make: Callable[..., AnyExchange],
        *,
        counts: CallCounts,
        owner: ConnectionOwner,
        pacer: CallPacer | None,
        timeout_s: float,
    ) -> None:
        """Take over a connected socket; `make` makes its exchange of `answered` and `failed`."""
        super().__init__(sock, bug=owner.bug, timeout_s=timeout_s)
        self.is_ready = False
        # Whether a call came to its end, and how many were lost with the connection.
        self.has_answered = False
        self.lost_calls = 0
        self._started_ns = time.monotonic_ns()
        self._counts = counts
        self._owner = owner
        self._pacer = pacer
        self.exchange: AnyExchange = make(answered=counts.answered, failed=self._failed)
        # How many calls may still be started; None for as many as there is room for.
        self._left: int | None = 0
        # Set while no call is in flight and none may be started, and when the connection has ended.
        self._idle = Event()

    def start(self) -> None:
        """Ask for the server's interface, or for whatever comes first on its stack."""
        super().start()
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
                self._begin()
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

    def send(self, due_ns: int, now_ns: int) -> None:
        """Queue the next call, as the pacer asks; `flush` sends it."""
        self.exchange.send(due_ns, now_ns)

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
        self._owner.ready(now_ns, self.exchange.walk_ns)

    def _begin(self) -> None:
        try:
            self._go_on(self.exchange.free)
            self.flush()
        except Exception as error:  # noqa: BLE001 - told, not hidden
            self._bug(error)

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

    def _expire(self, now_ns: int) -> int:
        """End the connection if a call is overdue: a late reply must not meet a new call."""
        _, since_ns = next(self.exchange.waiting(), (0, now_ns))
        if not self.is_ready:
            since_ns = self._started_ns
        left_ns = since_ns + self._timeout_ns - now_ns
        if left_ns <= 0:
            awaited = self.exchange.awaited
            what = f" to {awaited}" if awaited else ""
            self._lose(DeadlineExceeded(f"no answer{what} within the deadline"))
        return left_ns

    def _failed(self, error: Exception, sent_ns: int, now_ns: int) -> None:
        # Of the calls that end with an overdue one, not all are overdue themselves.
        if isinstance(error, DeadlineExceeded) and now_ns - sent_ns < self._timeout_ns:
            error = Disconnected("given up with another call, which was overdue")
        self._counts.failed(error, sent_ns, now_ns)

    def _give_up(self, error: ClientError, now_ns: int) -> None:
        self.lost_calls = self.exchange.give_up(error, now_ns)

    def _end(self, error: ClientError) -> None:
        if self.error is None:
            super()._end(error)
            if self._pacer is not None:
                self._pacer.withdraw(self)
            self._idle.set()


class CallConnection(UserConnection):
    """Makes single calls; each greenlet that makes one waits for its reply."""

    def __init__(
        self,
        sock: Any,
        *,
        bug: Callable[[Exception], None],
        timeout_s: float,
        wrap: Wrap,
        limits: FrameLimits = DEFAULT_LIMITS,
    ) -> None:
        """Take over a connected socket; `wrap` makes what results have for a capability."""
        super().__init__(sock, bug=bug, timeout_s=timeout_s)
        self.exchange: CallExchange = CallExchange(wrap, limits)
        self._wait_in_hub: Callable[[], object] = gevent.get_hub().switch

    def close(self) -> int:
        """Close the connection; calls under way, in any greenlet, end in `Disconnected`."""
        unfinished = self.exchange.in_flight
        self._lose(Disconnected("the connection is closed"))
        return unfinished

    def call(
        self,
        method: Method,
        params: EncodedTuple,
        sent_ns: int,
        to: Reference | None = None,
        given: Sequence[Reference | None] = (),
    ) -> PendingCall:
        """Make a call, as `CallExchange.call`, and wait for its reply; return it with its results.

        Raises:
            EncodeError: The params are over the message limit.
            UnusableCapability: As there.
            DeadlineExceeded: No answer in time; the call is cancelled, the connection lives on.
            ClientError: The server answered with an error, or the connection is lost.
        """
        if self.error is not None:
            raise fresh(self.error)
        pending = self.exchange.call(method, params, sent_ns, to, given)
        self.flush()
        pending.waiter = getcurrent()
        try:
            while not pending.is_done:
                self._wait_in_hub()
        finally:
            pending.waiter = None
        if pending.error is not None:
            raise fresh(pending.error)
        return pending

    def _take(self, data: bytes, now_ns: int) -> None:
        self.exchange.receive(data, now_ns)
        # A Finish, where the server wants one.
        self.flush()
        # Last, since a greenlet may make its next call, or close the connection.
        self._wake()

    def _give_up(self, error: ClientError, now_ns: int) -> None:
        self.exchange.give_up(error, now_ns)
        self._wake_soon()

    def _expire(self, now_ns: int) -> int:
        while (oldest := self.exchange.oldest) is not None:
            left_ns = oldest.sent_ns + self._timeout_ns - now_ns
            if left_ns > 0:
                return left_ns
            late = DeadlineExceeded("no answer within the deadline")
            self.exchange.cancel(oldest, late, now_ns)
            self._wake_soon()
            self.flush()
        return self._timeout_ns

    def _wake_soon(self) -> None:
        """Wake the greenlets of calls that have ended: not at once, since this may be another's."""
        self._loop.run_callback(self._wake)

    def _wake(self) -> None:
        ended, self.exchange.ended = self.exchange.ended, []
        for pending in ended:
            if pending.waiter is not None:
                pending.waiter.switch()
