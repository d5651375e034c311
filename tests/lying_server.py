"""A server that answers `MessageStream.read`, but one reply in so many has a wrong byte."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from capnp_rig.schema import message
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.server_connection import ServerConnection

_READ = compile_interface(message.MessageStream).methods["read"]


class LyingServer:
    """Serves on a port of loopback, in threads, until it is closed."""

    def __init__(self, wrong_every: int) -> None:
        self._wrong_every = wrong_every
        self._lock = threading.Lock()
        self.answers = 0
        self.lies = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._connections: list[socket.socket] = []
        self._threads[0].start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._connections:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._connections.append(sock)
                thread = threading.Thread(target=self._serve, args=[sock])
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        connection = ServerConnection()
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, Called):
                        self._answer(connection, event)
                sock.sendall(connection.data_to_send())

    def _answer(self, connection: ServerConnection, event: Called) -> None:
        content: str = _READ.params.open(event.params).request.content
        reply = bytearray(content[::-1].encode())
        with self._lock:
            self.answers += 1
            lie = self.answers % self._wrong_every == 0
            self.lies += lie
        if lie:
            reply[len(reply) // 2] ^= 1
        connection.send_results(event.question_id, _READ.results.write({"chunk": bytes(reply)}))


@contextmanager
def lying_server(*, wrong_every: int) -> Iterator[LyingServer]:
    server = LyingServer(wrong_every)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def hanging_up() -> Iterator[str]:
    """Accept every connection and close it at once; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            assert not thread.is_alive()
