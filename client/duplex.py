"""The socket of a blocking client: it sends while it waits, and serves one process only."""

import select
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from capnp_rig.client.forks import Owner
from capnp_rig.objects.errors import DeadlineExceeded, Disconnected
from capnp_rig.wire.encoding.pointers import Buffer

# poll(2) takes milliseconds in an int.
_LONGEST_POLL_S = 86_400.0
# Beyond this a copy into one buffer costs more than a second buffer in the write.
_SMALL_BYTES = 16_384
# The kernel takes no more in one write (UIO_MAXIOV).
_MOST_BUFFERS = 1024
# How long a server that takes no more bytes has to say why.
_LAST_WORDS_S = 0.1


def _drop(buffers: list[memoryview], size: int) -> None:
    """Take the first `size` bytes off the buffers, none of which is empty."""
    whole = 0
    while size and size >= len(buffers[whole]):
        size -= len(buffers[whole])
        whole += 1
    del buffers[:whole]
    if size:
        buffers[0] = buffers[0][size:]


def _is_gevents(sock: socket.socket) -> bool:
    # If the socket is gevent's, gevent has been imported.
    gevents: Any = sys.modules.get("gevent.socket")
    return gevents is not None and isinstance(sock, gevents.socket)


class DuplexSocket:
    """A connected socket, which it owns.

    A server that answers before it has read everything, such as an echo, stops reading when
    nobody reads its answers. So what the kernel does not take at once is sent while the caller
    waits for bytes. Only `wait` blocks; it moves no bytes, so it may be interrupted.

    After a fork the socket belongs to the parent. The child only ever closes its descriptor.
    """

    # Whether `say_goodbye` has something to say.
    is_secured = False

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self._socket = sock
        # gevent's sockets wait for bytes in 20 µs less than its poll.
        self._waits_itself = _is_gevents(sock)
        self.owner = Owner()
        self._unsent: list[memoryview] = []
        # Made once: it takes 1 µs.
        self._arriving = select.poll()
        self._arriving.register(sock, select.POLLIN)
        # Why nothing more can be sent.
        self._failure: str | None = None
        # The deadline after which there was a last look at what is ready.
        self._overdue_s: float | None = None

    @property
    def is_blocked(self) -> bool:
        """Whether nothing can be sent now: the server does not read, or the connection is lost."""
        return bool(self._unsent) or self._failure is not None

    @property
    def unsent_bytes(self) -> int:
        """How many bytes wait until the server reads."""
        return sum(map(len, self._unsent))

    def getpeername(self) -> Any:
        """Return the address of the other end."""
        return self._socket.getpeername()

    def fileno(self) -> int:
        """Return the descriptor, -1 once it is closed."""
        return self._socket.fileno()

    def is_readable(self) -> bool:
        """Return whether there are bytes, or the end of the stream."""
        return self.fileno() >= 0 and bool(self._arriving.poll(0))

    def queue(self, data: bytes) -> None:
        """Send `data` with the next `flush`."""
        unsent = self._unsent
        if unsent and len(unsent[-1]) + len(data) < _SMALL_BYTES:
            data = bytes(unsent.pop()) + data
        if data:
            unsent.append(memoryview(data))

    def send(self, data: bytes) -> None:
        """Send `data`: `queue` and `flush` in one, which are 0.5 µs more where all is taken."""
        if not self._unsent and self._failure is None:
            try:
                size = self._socket.send(data)
            except BlockingIOError:
                size = 0
            except OSError as error:
                self._failure = error.strerror or str(error)
                return
            if size < len(data):
                self._unsent.append(memoryview(data)[size:])
            return
        self.queue(data)
        self.flush()

    def send_buffers(self, buffers: Iterable[Buffer]) -> None:
        """Send what lies in `buffers`, uncopied: they must not change until they are sent."""
        self._unsent += map(memoryview, buffers)
        self.flush()

    def flush(self) -> None:
        """Send what the kernel takes at once; the rest goes with the next `flush`, after a wait.

        If the connection is lost, `receive` reports it after what the server had sent.
        """
        unsent = self._unsent
        try:
            while unsent:
                # For a single buffer `send` takes 0.5 µs less.
                sent = (
                    self._socket.send(unsent[0])
                    if len(unsent) == 1
                    else self._socket.sendmsg(unsent[:_MOST_BUFFERS])
                )
                _drop(unsent, sent)
        except BlockingIOError:
            return
        except OSError as error:
            self._failure = error.strerror or str(error)
            unsent.clear()

    def wait(self, deadline_s: float) -> bool:
        """Wait until bytes can be sent or received; return whether it is time to receive.

        What is ready when the deadline is over still counts, but once: a server that never
        stops sending would keep the caller for ever.

        Raises:
            DeadlineExceeded: `deadline_s`, a `time.monotonic`, is over.
        """
        while True:
            if self._socket.fileno() < 0:
                # Closed meanwhile: `receive` says so.
                return True
            remaining_s = max(deadline_s - time.monotonic(), 0.0)
            if not remaining_s:
                if self._overdue_s == deadline_s:
                    raise self._exceeded()
                self._overdue_s = deadline_s
            longest_s = _LONGEST_POLL_S if self._failure is None else _LAST_WORDS_S
            wait_s = min(remaining_s, longest_s)
            if not (self._waits_itself or self._unsent):
                # Most waits: one call less.
                if self._arriving.poll(wait_s * 1000):
                    return True
                ready = 0
            else:
                ready = self._poll(wait_s)
            if ready or self._failure is not None:
                return not ready or bool(ready & ~select.POLLOUT)
            if remaining_s <= longest_s:
                raise self._exceeded()

    def _exceeded(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            "the server does not read: sending took too long"
            if self._unsent
            else "no answer within the deadline"
        )

    def _poll(self, timeout_s: float) -> int:
        """Return what the socket is ready for, in poll's terms; nothing after `timeout_s`."""
        if self._waits_itself and not self._unsent:
            return select.POLLIN if self._peek(timeout_s) else 0
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN | select.POLLOUT)
        ready = waiting.poll(timeout_s * 1000)
        return ready[0][1] if ready else 0

    def _peek(self, timeout_s: float) -> bool:
        """Wait for a byte without taking it; return whether it is time to receive."""
        self._socket.settimeout(timeout_s)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except (TimeoutError, BlockingIOError):
            return False
        except OSError:
            # The same will be said of receiving.
            return True
        finally:
            self._socket.settimeout(0)
        return True

    def receive(self, size: int) -> bytes | None:
        """Return what is there: nothing at the end of the stream, None if it is too early.

        Raises:
            Disconnected: The connection was lost.
        """
        try:
            return self._socket.recv(size)
        except OSError as error:
            if isinstance(error, BlockingIOError) and self._failure is None:
                return None
            reason = self._failure or error.strerror
            raise Disconnected(f"the connection was lost: {reason}") from error

    def say_goodbye(self) -> None:
        """Tell the server that no more comes, as far as TLS needs that; in a turn of the caller."""

    def shut_down(self) -> None:
        """End the connection; every thread that waits for it wakes up."""
        if self.owner.is_here:
            # It may have ended already.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this process's descriptor; no other thread may be using it."""
        self._socket.close()
