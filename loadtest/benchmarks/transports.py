"""What carries a frame to another process and back: a socket pair, TCP, RPC.

The peer of a socket is a process that holds the other end, and ends when ours is closed, however
we end. The peer of RPC is ``server run`` with one worker, which ends with the process that started
it. Sockets block: the timer sleeps while the peer works, on a CPU of its own where there are two.

RPC is a call of `Echo.echo` over TCP, the frame being its Data. Our side is `wire`'s connection on
the blocking socket, the least that a client can be.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from capnp_rig.loadtest.benchmarks.echo_peer import receive_frame, send_frame
from capnp_rig.loadtest.codecs.codec import RPC, SOCKET_PAIR, Frame
from capnp_rig.loadtest.engine.child_process import child_environment, kept_alive, module_command
from capnp_rig.loadtest.engine.cpu_pin import two_cpus
from capnp_rig.loadtest.engine.server_process import running_server
from capnp_rig.rigcli.address import parse_address
from capnp_rig.rigcli.malloc_settings import with_malloc_settings
from capnp_rig.schema import load_schema
from capnp_rig.wire.encoding.pointers import StructTuple
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.connection import Answered
from capnp_rig.wire.rpc.interfaces import compile_interface

# Gives the frame to the peer, and returns what came back.
Exchange = Callable[[Frame], Frame]
_PEER = "capnp_rig.loadtest.benchmarks.echo_peer"
_SERVICE = "capnp_rig.loadtest.benchmarks.echo_service:Echo"
# As the blocking client reads.
_RECEIVE_BYTES = 65536


class TransportError(Exception):
    """The peer did not answer, or not with results; the message says what it did."""


class Transports(ExitStack):
    """The transports of one process, each with its peer from its first use on."""

    def __init__(self) -> None:
        super().__init__()
        self._exchanges: dict[str, Exchange] = {}
        # Of the peers, and of this process while a transport is in use.
        self._cpus = two_cpus()
        self._peer_cpus = None if self._cpus is None else self._cpus[:1]

    @contextmanager
    def using(self, transport: str) -> Iterator[Exchange]:
        """Yield the exchange of a transport, with this thread on another CPU than the peer's."""
        if transport not in self._exchanges:
            self._exchanges[transport] = self._open(transport)
        if self._cpus is None:
            yield self._exchanges[transport]
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self._cpus[1]})
        try:
            yield self._exchanges[transport]
        finally:
            os.sched_setaffinity(0, before)

    def _open(self, transport: str) -> Exchange:
        if transport == RPC:
            return _call(self.enter_context(self._connect_to_server()))
        ours, theirs = socket.socketpair() if transport == SOCKET_PAIR else _tcp_pair()
        with theirs:
            peer = kept_alive(
                module_command(_PEER, str(theirs.fileno()), cpus=self._peer_cpus),
                env=with_malloc_settings(child_environment()),
                pass_fds=(theirs.fileno(),),
            )
            self.enter_context(peer)
        # Closed first, so that the peer ends by itself.
        return _echo(self.enter_context(ours))

    def _connect_to_server(self) -> socket.socket:
        log = Path(self.enter_context(TemporaryDirectory())) / "server.log"
        server = self.enter_context(
            running_server(
                workers=1,
                log=log,
                options=("--service", _SERVICE, "--log-level", "error"),
                cpus=self._peer_cpus,
                ends_with_us=True,
            )
        )
        address = parse_address(server.address)
        sock = socket.create_connection((address.host, address.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    for sock in (ours, theirs):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


def _echo(sock: socket.socket) -> Exchange:
    def exchange(frame: Frame) -> bytes:
        send_frame(sock, frame)
        return receive_frame(sock)

    return exchange


def _call(sock: socket.socket) -> Exchange:
    method = compile_interface(load_schema("echo.capnp").Echo).methods["echo"]
    interface_id, method_id = method.interface_id, method.method_id
    pack, view = method.params.pack, method.results.open
    connection = ClientConnection()

    def exchange(frame: Frame) -> Frame:
        connection.call(interface_id, method_id, pack({"data": frame}))
        sock.sendall(connection.data_to_send())
        return view(_answer(sock, connection)).data

    return exchange


def _answer(sock: socket.socket, connection: ClientConnection) -> StructTuple | None:
    while True:
        data = sock.recv(_RECEIVE_BYTES)
        if not data:
            raise TransportError("the peer has ended")
        for event in connection.events(data):
            if type(event) is not Answered:
                raise TransportError(f"the call was not answered: {event}")
            return event.content
