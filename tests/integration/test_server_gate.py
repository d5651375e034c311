"""Hostile connections, on both engines and loops: no worker dies and others are served (B1, B2)."""

import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from deadline import eventually
from pycapnp_peer import reversed_by
from running_server import ENGINES, Running, running_server

TIMES = 100
Pattern = Callable[[Running], socket.socket | None]
RESET = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module", params=ENGINES, ids="-".join)
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    engine, loop = request.param
    with running_server("--workers", "2", "--engine", engine, "--loop", loop) as running:
        yield running
        assert not running.err.find("Worker 0 (pid")
        assert not running.err.find("Worker 1 (pid")


def connect(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=5)


def close_at_once(server: Running) -> None:
    connect(server).close()


def nine_bytes_and_wait(server: Running) -> socket.socket:
    sock = connect(server)
    sock.send(b"123456789")
    return sock


def half_close(server: Running) -> None:
    sock = connect(server)
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""
    sock.close()


def half_close_after_bytes(server: Running) -> None:
    sock = connect(server)
    sock.send(b"abc")
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""
    sock.close()


def garbage(server: Running) -> None:
    sock = connect(server)
    sock.send(os.urandom(200))
    sock.close()


def garbage_and_wait(server: Running) -> socket.socket:
    sock = connect(server)
    sock.send(b"\xff" * 64)
    return sock


def reset(server: Running) -> None:
    sock = connect(server)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def bytes_and_reset(server: Running) -> None:
    sock = connect(server)
    sock.send(b"GET / HTTP/1.1\r\n\r\n")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


PATTERNS = [
    close_at_once,
    nine_bytes_and_wait,
    half_close,
    half_close_after_bytes,
    garbage,
    garbage_and_wait,
    reset,
    bytes_and_reset,
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.__name__)
def test_b1_hostile_patterns_kill_no_worker(server: Running, pattern: Pattern) -> None:
    workers = server.workers()
    waiting = []
    for turn in range(TIMES):
        waiting.append(pattern(server))
        if turn % 20 == 19:
            assert reversed_by(server) == b"olleH"
    for sock in filter(None, waiting):
        sock.close()
    assert [reversed_by(server) for _ in range(4)] == [b"olleH"] * 4
    assert server.workers() == workers


def test_b2_bytes_queued_before_the_hand_over(server: Running) -> None:
    workers = server.workers()
    for _ in range(2):
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            waiting = [pattern(server) for pattern in QUEUED * (TIMES // len(QUEUED))]
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        assert [reversed_by(server) for _ in range(4)] == [b"olleH"] * 4
        for sock in filter(None, waiting):
            sock.close()
    eventually(lambda: reversed_by(server) == b"olleH")
    assert server.workers() == workers


# Those that do not wait for an answer.
QUEUED = [
    close_at_once,
    nine_bytes_and_wait,
    garbage,
    garbage_and_wait,
    reset,
    bytes_and_reset,
]
