"""How the wire engine ends connections, and what ends them on the peer's side (C5, D4, H4)."""

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from deadline import eventually
from raw_peer import RawPeer, abort, assert_serves, call, raw_peer
from running_server import TELLING, Running, running_server

TESTS = Path(__file__).resolve().parent.parent
TOO_LARGE = struct.pack("<II", 0, 0x7FFFFFFF)


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running_server(*TELLING, "--workers", "1", "--loop", request.param) as running:
        yield running


def test_c5_a_peer_that_is_still_sending_can_read_why_it_was_cut_off(server: Running) -> None:
    workers = server.workers()
    for _ in range(20):
        with raw_peer(server, timeout_s=10) as peer:
            # The bad frame first, then 5 MB that nobody will look at.
            sent = threading.Event()

            def send(peer: RawPeer = peer, sent: threading.Event = sent) -> None:
                peer.send(call(1, "before"), TOO_LARGE, bytes(5_000_000))
                sent.set()

            sender = threading.Thread(target=send)
            sender.start()
            # As a client that first sends all, then reads.
            assert sent.wait(10), "the server reset the connection"
            sender.join(5)
            answer, reason, eof = peer.until_eof()
            assert (answer.chunk, reason.kind, eof.kind) == (b"erofeb", "abort", "eof")
            assert "too large" in reason.text
    assert_serves(server, workers)


def test_c5_a_peer_that_never_closes_is_cut_off_in_the_end(server: Running) -> None:
    with raw_peer(server, timeout_s=15) as peer:
        peer.send(TOO_LARGE)
        assert [reply.kind for reply in peer.until_eof()] == ["abort", "eof"]

        # Our half is open still, until the server has had enough.
        def is_refused() -> bool:
            try:
                peer.send(bytes(8))
            except OSError:
                return True
            return False

        eventually(is_refused, within_s=15, what="the connection cut")


# What no reader of the stack understands, and the end of what it says to that.
STACKS = {
    "http": (b"nonsense\r\n\r\n", b"Invalid HTTP request received."),
    "json": (b'{"method":"read","params":{"content":"ab"},"id":1}nonsense', b'"result":"ba"}\n'),
    "selectors": (b"\x02\0\0\0ab" + b"\xff" * 8, b"\x02\0\0\0ba"),
}


@pytest.mark.parametrize("stack", STACKS)
def test_c5_other_stacks_are_heard_too(stack: str) -> None:
    bad, last_words = STACKS[stack]
    with running_server("--stack", stack, "--workers", "1") as server:
        for _ in range(5):
            with socket.create_connection((server.host, server.port), 10) as sock:
                sock.sendall(bad + b"x" * 5_000_000)
                said = b""
                while data := sock.recv(65536):
                    said += data
                assert said.endswith(last_words)


def test_d4_a_goodbye_is_a_clean_end(server: Running) -> None:
    with raw_peer(server) as peer:
        peer.send(call(1, "last words"))
        assert peer.receive().chunk == b"sdrow tsal"
        port = peer.socket.getsockname()[1]
        peer.send(abort(2, "connection closed"))
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.receive().kind == "eof"
    (line,) = server.out.wait_for(f":{port} finished cleanly")
    assert "error" not in line
    assert not server.err.find(f":{port} ")
