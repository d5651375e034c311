"""SIGTERM on every stack: what was asked is answered, the rest is closed, exit status 0 (A6)."""

import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable

import pytest
from deadline import eventually
from running_server import TELLING, Running, elapsed_s
from running_stack import (
    STACKS,
    await_read,
    connect,
    read_all,
    read_exactly,
    stack_client,
    stack_server,
)


def begin_drain(server: Running) -> None:
    """Send SIGTERM and return when nobody listens any more."""
    server.signal(signal.SIGTERM)
    eventually(server.refuses)


@pytest.mark.parametrize("name", STACKS)
def test_a6_idle_connections_are_closed_at_once(name: str) -> None:
    with stack_server(name, "--workers", "2") as server, contextlib.ExitStack() as stack:
        for _ in range(6):
            client = stack.enter_context(stack_client(server, name))
            client.ping()
        if name != "grpc":
            # One that has said nothing at all.
            stack.enter_context(connect(server))
        signalled_s = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        # Not the 30 s of the drain.
        assert elapsed_s(signalled_s) < 15
        assert server.err.lines == []


def test_a6_a_grpc_connection_that_says_nothing_holds_up_the_drain_for_five_seconds() -> None:
    with stack_server("grpc", "--workers", "1") as server, connect(server):
        time.sleep(0.1)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.err.lines == []


# More than the kernel's buffers take.
SIZE = 12_000_000
LARGE = {
    "json": (
        b'{"method":"read","params":{"content":"%b"},"id":1}' % (b"x" * SIZE),
        b'{"id":1,"result":"%b"}\n' % (b"x" * SIZE),
    ),
    "http": (
        b"POST /reverse HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (SIZE + 14)
        + b'{"content":"%b"}' % (b"x" * SIZE),
        b'{"chunk":"%b"}' % (b"x" * SIZE),
    ),
    "selectors": (
        SIZE.to_bytes(4, "little") + b"x" * SIZE,
        SIZE.to_bytes(4, "little") + b"x" * SIZE,
    ),
}


@pytest.mark.parametrize("name", sorted(LARGE))
def test_a6_a_large_reply_to_a_slow_reader_is_delivered_whole(name: str) -> None:
    request, answer = LARGE[name]
    with stack_server(name, "--workers", "1", "--log-level", "debug") as server:
        with connect(server, receive_bytes=65_536) as sock:
            sender = threading.Thread(target=sock.sendall, args=[request])
            sender.start()
            server.out.wait_for("Received content")
            begin_drain(server)
            time.sleep(0.3)
            assert read_all(sock)[-len(answer) :] == answer
            sender.join(5)
        assert server.wait() == 0
        assert server.err.lines == []


def test_a6_an_http_request_whose_body_is_on_its_way_is_answered() -> None:
    with stack_server("http", *TELLING, "--workers", "1") as server, connect(server) as sock:
        sock.sendall(b"POST /reverse HTTP/1.1\r\ncontent-length: 16\r\n\r\n{")
        server.out.wait_for("http stack started")
        await_read(sock)
        begin_drain(server)
        sock.sendall(b'"content":"ab"}')
        said = read_all(sock)
        assert said.startswith(b"HTTP/1.1 200 OK\r\n")
        assert said.endswith(b'{"chunk":"ba"}')
        assert server.wait() == 0
        assert server.err.lines == []


def test_a6_an_http2_request_whose_body_is_on_its_way_is_answered() -> None:
    pytest.importorskip("h2", reason="needs the extra stacks: h2")
    from h2_peer import H2Peer

    text = "x" * 300_000
    with stack_server("http", "--workers", "1") as server, connect(server) as sock:
        peer = H2Peer(sock)
        stream = peer.request("POST", "/reverse", end=False)
        peer.send(stream, b"{", end=False)
        await_read(sock)
        begin_drain(server)
        peer.send(stream, b'"content":"%b"}' % text.encode(), end=True)
        headers, body = peer.finish(stream)
        assert headers[":status"] == "200"
        assert json.loads(body) == {"chunk": text}
        assert server.wait() == 0
        assert server.err.lines == []


def test_a6_a_grpc_call_whose_message_is_on_its_way_is_answered() -> None:
    hpack = pytest.importorskip("hpack", reason="needs the extra stacks: h2")
    from h2_peer import read_frames

    decoder = hpack.Decoder()
    with stack_server("grpc", "--workers", "1") as server, connect(server) as sock:
        finish = start_grpc_call(sock)
        await_read(sock)
        begin_drain(server)
        finish()
        data = b""
        headers: list[tuple[str, str]] = []
        for frame in read_frames(sock):
            if frame.kind == DATA:
                data += frame.payload
            elif frame.kind == HEADERS:
                headers += decoder.decode(frame.payload)
                if frame.flags & END_STREAM:
                    break
        assert data == b"\0\0\0\0\4\x0a\2ba"
        assert ("grpc-status", "0") in headers
        sock.close()
        assert server.wait() == 0
        assert server.err.lines == []


# Of HTTP/2.
DATA, HEADERS, END_STREAM = 0, 1, 1


def start_grpc_call(sock: socket.socket) -> Callable[[], None]:
    """Send a call but for the last byte of its message; return what sends that."""
    from h2_peer import H2Peer

    peer = H2Peer(sock)
    headers = [("content-type", "application/grpc"), ("te", "trailers")]
    stream = peer.request("POST", "/capnp_rig.MessageStream/Read", *headers, end=False)
    peer.send(stream, b"\0\0\0\0\4\x0a\2a", end=False)
    return lambda: peer.send(stream, b"b", end=True)


@pytest.mark.parametrize("name", ["http", "grpc", "selectors", "json"])
def test_a6_past_the_limit_the_server_ends_with_an_error(name: str) -> None:
    options = ["--workers", "1", "--drain-timeout", "0.5", "--log-level", "debug"]
    with stack_server(name, *options) as server, connect(server, receive_bytes=4096) as sock:
        if name == "http":
            sock.sendall(b"POST /reverse HTTP/1.1\r\ncontent-length: 16\r\n\r\n{")
            await_read(sock)
        elif name == "grpc":
            pytest.importorskip("h2", reason="needs the extra stacks: h2")
            start_grpc_call(sock)
            await_read(sock)
        else:
            # An answer that is not read.
            sock.sendall(LARGE[name][0])
            server.out.wait_for("Received content")
        server.signal(signal.SIGTERM)
        assert server.wait() == 1
        if name != "grpc":
            cancelled = "The drain limit of 0.5 s passed: 1 calls cancelled"
            assert server.err.join()[-1] == cancelled


# Large enough for all that the buffers hold to be answered while the drain still reads.
TEXT = b"ab" * 500
CALLS = {
    "echo": (TEXT, TEXT),
    "json": (
        b'{"method":"read","params":{"content":"%b"}}' % TEXT,
        b'{"id":null,"result":"%b"}\n' % TEXT[::-1],
    ),
    "selectors": (
        len(TEXT).to_bytes(4, "little") + TEXT,
        len(TEXT).to_bytes(4, "little") + TEXT[::-1],
    ),
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a6_all_that_has_arrived_is_answered(name: str) -> None:
    request, answer = CALLS[name]
    stream = request * 1000
    with stack_server(name, "--workers", "1") as server:
        with connect(server) as sock:
            sock.settimeout(0.5)
            sent = 0
            # Until the server waits for us to read its answers, and all buffers are full.
            with contextlib.suppress(TimeoutError):
                while True:
                    sent += sock.send(stream[sent % len(stream) :])
            sock.settimeout(10)
            begin_drain(server)
            whole = sent // len(request)
            assert read_exactly(sock, whole * len(answer)) == answer * whole
        assert server.wait() == 0
        # The last request was not all sent; whoever closes first, that is no error of the drain's.
        assert all("closed within a message" in line for line in server.err.lines)


@pytest.mark.parametrize("name", ["json", "selectors"])
def test_a6_a_peer_that_never_stops_sending_does_not_hold_up_the_drain(name: str) -> None:
    request, _ = CALLS[name]
    with stack_server(name, "--workers", "1") as server, connect(server) as sock:
        stopped, received = threading.Event(), threading.Event()

        def send() -> None:
            with contextlib.suppress(OSError):
                while not stopped.is_set():
                    sock.sendall(request * 100)

        def receive() -> None:
            with contextlib.suppress(OSError):
                while sock.recv(1 << 20):
                    received.set()

        threads = [threading.Thread(target=work) for work in (send, receive)]
        for thread in threads:
            thread.start()
        try:
            # It is being served.
            eventually(received.is_set)
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
        finally:
            stopped.set()
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(5)


@pytest.mark.parametrize(
    "name",
    [name if name == "grpc" else pytest.param(name, marks=pytest.mark.nightly) for name in STACKS],
)
def test_a8_every_stack_reloads(name: str) -> None:
    with stack_server(name, "--workers", "1") as server:
        with stack_client(server, name) as client:
            client.ping()
            old = server.workers()
            server.signal(signal.SIGHUP)
            server.out.wait_for("Reloaded: 1 new workers serve")
            # The old one waits for nothing.
            eventually(lambda: len(server.workers()) == 1)
        assert not set(old) & set(server.workers())
        with stack_client(server, name) as client:
            client.ping()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.err.lines == []


@pytest.mark.parametrize(
    "name",
    [
        name if name == "selectors" else pytest.param(name, marks=pytest.mark.nightly)
        for name in STACKS
        if name != "echo"
    ],
)
def test_a14_workers_of_other_stacks_are_recycled_too(name: str) -> None:
    with stack_server(name, "--workers", "1", "--max-requests", "3") as server:
        with stack_client(server, name) as client:
            for _ in range(4):
                client.read("abc")
        server.out.wait_for("it has served 4 calls, the limit is 3")
        server.out.wait_for("was replaced")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.err.lines == []
