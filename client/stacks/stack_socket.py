"""The socket of the clients of the stacks: sends and receives at once, until a deadline."""

import socket
import time

from capnp_rig.client.duplex_choice import duplex
from capnp_rig.objects.errors import Disconnected
from capnp_rig.objects.timeouts import check_timeout
from capnp_rig.rigcli.address import Address

_RECEIVE_BYTES = 262_144


class StackSocket:
    """A connected socket, which it owns, for one call after the other.

    A call goes from `start` to `finish`. What comes later of a call that did not get there,
    because it was overdue or interrupted, would be taken for the next one's answer: so that
    next one finds the connection lost.
    """

    def __init__(self, sock: socket.socket, timeout_s: float) -> None:
        """Take over a socket; a call must be over `timeout_s` after its start.

        Raises:
            UsageError: `timeout_s` is not 0 to a year.
        """
        self._timeout_s = check_timeout(timeout_s)
        self._socket = duplex(sock)
        self._deadline_s = 0.0
        self._is_unfinished = False
        self._is_closed = False

    def start(self) -> None:
        """Begin a call.

        Raises:
            Disconnected: The one before did not come to its end.
            UsedAfterFork: The connection was made in another process.
        """
        self._socket.owner.check()
        if self._is_closed:
            raise Disconnected("the client is closed")
        if self._is_unfinished:
            self.close()
            raise Disconnected("an earlier call did not come to its end")
        self._is_unfinished = True
        self._deadline_s = time.monotonic() + self._timeout_s

    def finish(self) -> None:
        """End a call: all of its answer was received."""
        self._is_unfinished = False

    def queue(self, data: bytes) -> None:
        """Send `data` during the next calls of `receive`."""
        self._socket.queue(data)

    def receive(self) -> bytes:
        """Return what came next; nothing at the end of the stream.

        Raises:
            DeadlineExceeded: Nothing came in time.
            Disconnected: The connection was lost, or closed by another thread.
        """
        while True:
            self._socket.flush()
            can_receive = self._socket.wait(self._deadline_s)
            data = self._socket.receive(_RECEIVE_BYTES) if can_receive else None
            if self._is_closed:
                raise Disconnected("the client is closed")
            if data is not None:
                return data

    def close(self) -> None:
        """Close the connection; in the child of a fork its copy of the descriptor only."""
        self._is_closed = True
        self._socket.say_goodbye()
        self._socket.shut_down()
        self._socket.close()


class SocketClient:
    """A client on such a socket: what those of all stacks but gRPC begin with."""

    def __init__(self, sock: socket.socket, _address: Address, timeout_s: float) -> None:
        self._socket = StackSocket(sock, timeout_s)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _send(self, data: bytes) -> None:
        self._socket.start()
        self._socket.queue(data)

    def _receive(self) -> bytes:
        data = self._socket.receive()
        if not data:
            raise Disconnected("the server closed the connection")
        return data
