"""A socket for the clients of the stacks: sends and receives at once, until a deadline."""

import select
import socket
import time

from client.errors import DeadlineExceeded, Disconnected

_RECEIVE_BYTES = 262_144


class StackSocket:
    """A connected socket, which it owns.

    It sends while it receives: a server that answers before it has read everything, such as an
    echo, stops reading when nobody reads its answers.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self._socket = sock
        self._unsent = memoryview(b"")
        self._deadline_s = 0.0
        self._failure: str | None = None

    def start(self, timeout_s: float) -> None:
        """Begin a call that must be over `timeout_s` from now."""
        self._deadline_s = time.monotonic() + timeout_s

    def queue(self, data: bytes) -> None:
        """Send `data` during the next calls of `receive`."""
        self._unsent = memoryview(bytes(self._unsent) + data if self._unsent else data)

    def receive(self) -> bytes:
        """Return what came next; nothing at the end of the stream.

        Raises:
            DeadlineExceeded: Nothing came in time.
            Disconnected: The connection was lost.
        """
        while True:
            waiting = select.poll()
            waiting.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            remaining_s = self._deadline_s - time.monotonic()
            ready = waiting.poll(max(remaining_s, 0) * 1000)
            if not ready:
                raise DeadlineExceeded("no answer within the deadline")
            if ready[0][1] & select.POLLOUT:
                self._send()
            if ready[0][1] & ~select.POLLOUT:
                try:
                    return self._socket.recv(_RECEIVE_BYTES)
                except OSError as error:
                    reason = self._failure or error.strerror
                    raise Disconnected(f"the connection was lost: {reason}") from error

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _send(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError as error:
            # The server may have said why before it closed: what it sent is read first.
            self._failure = error.strerror
            self._unsent = memoryview(b"")
