"""Time a server's answers to Bootstrap, which any server gives, whatever it serves."""

import socket
import time
from typing import TYPE_CHECKING, NamedTuple, Self

from capnp_rig.client.connecting import connect_socket, secured
from capnp_rig.client.duplex_choice import duplex
from capnp_rig.client.message_limit import MESSAGE_BYTES, limits_of
from capnp_rig.objects.errors import Disconnected, RemoteError, ending_error, remote_error
from capnp_rig.objects.timeouts import CONNECT_TIMEOUT_S
from capnp_rig.rigcli.address import Address
from capnp_rig.wire.rpc.connection import Connection, Ended

if TYPE_CHECKING:
    from capnp_rig.client.tls import TlsArgument

_RECEIVE_BYTES = 65536


class Reply(NamedTuple):
    """The server's answer: how long it took, and its error if it has no bootstrap interface."""

    elapsed_ns: int
    error: RemoteError | None


class BootstrapPinger:
    """A connection on which each `ping` asks for the bootstrap interface, and gives it back."""

    def __init__(self, sock: socket.socket, max_message_bytes: int = MESSAGE_BYTES) -> None:
        """Take over a connected socket."""
        self._socket = duplex(sock)
        self._connection = Connection(limits_of(max_message_bytes))
        self._is_heard = False

    @classmethod
    def connect(
        cls,
        address: Address,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        max_message_bytes: int = MESSAGE_BYTES,
        tls: "TlsArgument" = None,
    ) -> Self:
        """Connect to a server.

        Raises:
            ConnectError: Nobody answers there in time.
        """
        return cls(connect_socket(address, connect_timeout_s, secured(tls)), max_message_bytes)

    def ping(self, timeout_s: float) -> Reply:
        """Ask for the bootstrap interface and wait for the answer.

        Raises:
            DeadlineExceeded: It did not come within `timeout_s`, in seconds; the next may.
            Disconnected: The connection ended.
            ProtocolError: The server broke the protocol, or does not speak it.
        """
        started_ns = time.perf_counter_ns()
        deadline_s = time.monotonic() + timeout_s
        main = self._connection.bootstrap()
        try:
            self._flush()
            while not main.is_answered:
                if self._socket.wait(deadline_s):
                    received_ns = self._receive()
                self._flush()
            error = main.error
        finally:
            main.release()
        self._is_heard = True
        elapsed_ns = received_ns - started_ns
        return Reply(elapsed_ns, None if error is None else remote_error(error))

    def close(self) -> None:
        """Close the connection."""
        self._socket.say_goodbye()
        self._socket.close()

    def _flush(self) -> None:
        self._socket.send(self._connection.data_to_send())

    def _receive(self) -> int:
        """Take what is there; return when it had come."""
        data = self._socket.receive(_RECEIVE_BYTES)
        received_ns = time.perf_counter_ns()
        if data is None:
            return received_ns
        if not data:
            where = " within a message" if self._connection.is_within_message else ""
            raise Disconnected(f"the server closed the connection{where}")
        for event in self._connection.receive_data(data):
            if isinstance(event, Ended):
                # The server may have to be told why.
                self._flush()
                raise ending_error(event.error, is_unheard=not self._is_heard)
        return received_ns
