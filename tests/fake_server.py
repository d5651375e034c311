"""Servers that do one wrong thing, in a thread of the test; and an address of none."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from capnp_rig.wire.encoding.encoded import EncodedStruct
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.server_connection import ServerConnection

# What one connection does; it is closed afterwards.
Behaviour = Callable[[socket.socket], None]


@contextmanager
def fake_server(behave: Behaviour, receive_bytes: int | None = None) -> Iterator[str]:
    """Serve each connection with `behave`; yield the address.

    `receive_bytes` is what the kernel keeps of what `behave` has not read; how much it keeps by
    itself differs from machine to machine.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    if receive_bytes is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    opened: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(10)
                opened.append(connection)
                threading.Thread(target=run, args=[connection], daemon=True).start()

    def run(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            behave(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        for connection in opened:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def black_hole(host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[str, int]]:
    """Bind an address whose backlog is full, so that it drops every SYN; yield it."""
    with socket.socket() as full, ExitStack() as queued:
        full.bind((host, port))
        full.listen(0)
        for _ in range(3):
            waiting = queued.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()


def reset(connection: socket.socket) -> None:
    """Close with an RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answering(reply: Callable[[Called], EncodedStruct | None]) -> Behaviour:
    """Return a behaviour that speaks the protocol and answers calls as `reply` says.

    A call for which `reply` returns None gets no answer.
    """

    def behave(connection: socket.socket) -> None:
        server = ServerConnection()
        while data := connection.recv(65536):
            for event in server.receive_data(data):
                if isinstance(event, Called):
                    results = reply(event)
                    if results is not None:
                        server.send_results(event.question_id, results)
            connection.sendall(server.data_to_send())

    return behave


def finish(connection: socket.socket) -> None:
    """Send the end of the stream, then read on: closing with unread bytes would reset."""
    connection.shutdown(socket.SHUT_WR)
    until_closed(connection)


def until_closed(connection: socket.socket) -> None:
    """Read and ignore everything."""
    while connection.recv(65536):
        pass
