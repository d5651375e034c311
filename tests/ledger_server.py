"""A server of `read` in threads of the test, which notes each run and misbehaves as it is told."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum

from fake_server import fake_server, finish, reset

from capnp_rig.schema import message
from capnp_rig.wire.encoding.encoded import EncodedStruct
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError
from capnp_rig.wire.rpc.server_connection import ServerConnection

READ = compile_interface(message.MessageStream).methods["read"]


class Does(Enum):
    """What the server does with a call."""

    ANSWER = "run it and answer"
    # As a kill -9 does it.
    DIE_IN_REPLY = "run it, send half of the answer, reset"
    DIE_BEFORE_REPLY = "run it, reset"
    CLOSE_IN_REPLY = "run it, send half of the answer, close"
    KEEP_SILENT = "run it and never answer"
    BE_LATE = "run it and answer after 50 ms"
    OVERLOADED = "refuse it"
    FAIL = "run it, and raise"
    UNIMPLEMENTED = "say that there is no such method"


class LedgerServer:
    """`runs` counts how often each text was read; `does` decides about each."""

    def __init__(self, does: Callable[[str], Does]) -> None:
        self.runs: Counter[str] = Counter()
        # Connections that stand, and their number so far.
        self.standing: set[socket.socket] = set()
        self.accepted = 0
        self.does = does
        self.address = ""
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def attempts(self) -> int:
        """How many calls came, refused ones included."""
        return self.runs.total()

    def end_all(self, *, with_reset: bool = False) -> set[socket.socket]:
        """End all connections that stand, and return them."""
        ended = set(self.standing)
        for connection in ended:
            with suppress(OSError):
                if with_reset:
                    reset(connection)
                connection.shutdown(socket.SHUT_RDWR)
        return ended

    def serve(self, connection: socket.socket) -> None:
        connection.settimeout(60)
        with self._lock:
            self.accepted += 1
        self.standing.add(connection)
        try:
            self._serve(connection)
        finally:
            self.standing.discard(connection)

    def _serve(self, connection: socket.socket) -> None:
        server = ServerConnection()
        while data := connection.recv(65536):
            for event in server.receive_data(data):
                if isinstance(event, Called):
                    connection.sendall(server.data_to_send())
                    if not self._treat(server, connection, event):
                        return
            connection.sendall(server.data_to_send())

    def _treat(self, server: ServerConnection, connection: socket.socket, call: Called) -> bool:
        """Do with a call what is to be done; return whether the connection goes on."""
        text = READ.params.open(call.params).request.content
        does = self.does(text)
        with self._lock:
            self.runs[text] += 1
        number = call.question_id
        if does is Does.OVERLOADED:
            with self._lock:
                self.runs[text] -= 1
            server.send_exception(number, RemoteError("busy", ExceptionType.OVERLOADED))
        elif does is Does.UNIMPLEMENTED:
            server.send_exception(number, RemoteError("what?", ExceptionType.UNIMPLEMENTED))
        elif does is Does.FAIL:
            server.send_exception(number, RemoteError("it raised"))
        elif does is Does.BE_LATE:
            time.sleep(0.05)
            server.send_results(number, answer(text))
        elif does is Does.ANSWER:
            server.send_results(number, answer(text))
        elif does is not Does.KEEP_SILENT:
            server.send_results(number, answer(text))
            reply = server.data_to_send()
            if does is not Does.DIE_BEFORE_REPLY:
                connection.sendall(reply[: len(reply) // 2])
            if does is Does.CLOSE_IN_REPLY:
                finish(connection)
            else:
                reset(connection)
            return False
        return True


def answer(text: str) -> EncodedStruct:
    return READ.results.write({"chunk": text[::-1].encode()})


def always(does: Does) -> Callable[[str], Does]:
    return lambda _: does


@contextmanager
def ledger_server(does: Callable[[str], Does] | Does = Does.ANSWER) -> Iterator[LedgerServer]:
    server = LedgerServer(always(does) if isinstance(does, Does) else does)
    with fake_server(server.serve) as address:
        server.address = address
        yield server
