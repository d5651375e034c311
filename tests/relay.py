"""A network between a client and a server: a TCP relay that delays, cuts into pieces, or stops."""

import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

_PIECE_BYTES = 1400


class Relay:
    """Forwards every connection to `target`, each byte `latency_s` after it came.

    With `bytes_per_s` no faster than that. `held` stops all bytes until it is cleared; they are
    not lost, as TCP would send them again. `held_up` stops those to the target only.
    """

    def __init__(self, target: tuple[str, int], latency_s: float, bytes_per_s: float) -> None:
        self.held = threading.Event()
        self.held_up = threading.Event()
        self._target = target
        self._latency_s = latency_s
        self._bytes_per_s = bytes_per_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._over = False
        self._threads[0].start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self._over = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for sock in self._sockets:
            sock.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target, 5)
                self._sockets += [near, far]
                up = (near, far, (self.held, self.held_up))
                for way in (up, (far, near, (self.held,))):
                    thread = threading.Thread(target=self._forward, args=way)
                    self._threads.append(thread)
                    thread.start()

    def _forward(
        self, source: socket.socket, sink: socket.socket, held: Sequence[threading.Event]
    ) -> None:
        """Read at once and write when it is time, so that latency delays and does not throttle."""
        waiting: deque[tuple[float, bytes]] = deque()
        source.settimeout(0.005)
        is_open = True
        with suppress(OSError):
            while (is_open or waiting) and not self._over:
                if is_open:
                    with suppress(TimeoutError):
                        data = source.recv(_PIECE_BYTES)
                        waiting.append((time.monotonic() + self._latency_s, data))
                        is_open = bool(data)
                while waiting and waiting[0][0] <= time.monotonic():
                    if any(each.is_set() for each in held):
                        break
                    self._write(sink, waiting.popleft()[1])

    def _write(self, sink: socket.socket, data: bytes) -> None:
        if not data:
            sink.shutdown(socket.SHUT_WR)
            return
        sink.sendall(data)
        time.sleep(len(data) / self._bytes_per_s)


@contextmanager
def relay(
    host: str, port: int | None, *, latency_s: float = 0.0, bytes_per_s: float = 1e9
) -> Iterator[Relay]:
    assert port is not None
    between = Relay((host, port), latency_s, bytes_per_s)
    try:
        yield between
    finally:
        between.close()
