"""How connections end, on both engines: with a reason that arrives, and no slot that stays."""

import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from deadline import eventually
from fault_services import PROBE
from raw_peer import RawPeer, abort, bootstrap, call_builder, encoded, finish, raw_peer
from running_server import TELLING, Running, running_server

TESTS = Path(__file__).resolve().parent.parent
MIB = 1 << 20
METHODS = list(PROBE.schema.methods)


@pytest.fixture(scope="module", params=["wire", "pycapnp"])
def probe(request: pytest.FixtureRequest) -> Iterator[Running]:
    args = ["--service", "fault_services:Probe", "--workers", "1", "--engine", request.param]
    with running_server(*TELLING, *args, cwd=TESTS) as running:
        yield running


@pytest.fixture(autouse=True)
def freed(probe: Running) -> Iterator[None]:
    """Check that no connection of a test stays, though the peer may."""
    before = probe.workers()
    yield
    assert probe.workers() == before
    eventually(lambda: connections(probe) == 0, within_s=5, what="every connection closed")


def connections(probe: Running) -> int:
    (pid,) = probe.workers()
    established = {"ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT2"}
    return sum(one.status in established for one in psutil.Process(pid).net_connections("tcp"))


def probe_call(question_id: int, method: str = "ledger") -> bytes:
    build = call_builder(
        question_id, interface_id=PROBE.schema.node.id, method_id=METHODS.index(method)
    )
    build.call.params.content.as_struct(PROBE.schema.methods[method].param_type)
    return encoded(build)


BROKEN = {
    "http": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ""),
    # Whose first 4 KiB, where its call would be, say nothing.
    "frame over the limit": (struct.pack("<II", 0, 524_289) + bytes(4_096), "too large"),
    "too many segments": (struct.pack("<II", 600, 1) + bytes(2500), "segments"),
    "reused question": (probe_call(1, "wait") * 2, ""),
    "no export": (encoded(call_builder(3, export=9)), ""),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_connection_that_we_abort_is_closed_and_told(probe: Running, kind: str) -> None:
    data, words = BROKEN[kind]
    errors = len(probe.err.find("protocol error"))
    with raw_peer(probe) as peer:
        peer.send(data)
        found = peer.until_eof()
        assert found[-1].kind == "eof"
        (said,) = [reply for reply in found if reply.kind == "abort"]
        assert words in said.text
        assert "/" not in said.text.replace("HTTP/1.1", "")
        # The peer stays: its slot must be free all the same.
        eventually(lambda: connections(probe) == 0, within_s=5, what="the connection closed")
    probe.err.wait_for("protocol error", count=errors + 1)


@pytest.mark.parametrize("kind", ["http", "reused question"])
def test_a_peer_that_only_writes_does_not_hang(probe: Running, kind: str) -> None:
    with raw_peer(probe, timeout_s=10) as peer:
        peer.send(BROKEN[kind][0])
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            write_for_s(peer, 10)


def write_for_s(peer: RawPeer, seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        peer.socket.sendall(bytes(1 << 16))


def test_an_aborts_reason_arrives_though_our_input_was_not_read(probe: Running) -> None:
    for _ in range(5):
        with raw_peer(probe, timeout_s=10) as peer:
            peer.send(struct.pack("<II", 0, 0x00FF_FFFF))

            def write(peer: RawPeer = peer) -> None:
                with suppress(OSError):
                    peer.socket.sendall(bytes(5_000_000))

            writer = threading.Thread(target=write)
            writer.start()
            # Only once all is written, as a client that sends its whole request first.
            writer.join(10)
            kinds = [reply.kind for reply in peer.until_eof()]
            assert kinds == ["abort", "eof"]


@pytest.mark.parametrize("kind", [0, 2])
def test_a_goodbye_is_no_error(probe: Running, kind: int) -> None:
    errors = len(probe.err.lines)
    finished = len(probe.out.find("finished cleanly"))
    with raw_peer(probe) as peer:
        peer.send(probe_call(1))
        assert peer.receive().kind == "results"
        peer.send(abort(kind, "connection is shutting down"))
        assert peer.until_eof()[-1].kind == "eof"
    probe.out.wait_for("finished cleanly", count=finished + 1)
    assert probe.err.lines[errors:] == []


def test_d9_what_is_refused_is_overloaded_and_plain_calls_go_on(probe: Running) -> None:
    with raw_peer(probe, timeout_s=10) as peer:
        peer.send(*(probe_call(number, "wait") for number in range(1, 260)))
        refused = [peer.receive() for _ in range(3)]
        assert {(reply.kind, reply.type) for reply in refused} == {("exception", "overloaded")}
        # As many plain calls as one likes, in one write, with all slots taken.
        peer.send(*(probe_call(number) for number in range(1000, 2000)))
        found = [peer.receive() for _ in range(1000)]
        assert [reply.id for reply in found] == list(range(1000, 2000))
        assert {reply.kind for reply in found} == {"results"}


def test_d7_an_ordinary_client_with_a_short_deadline_is_no_attack(probe: Running) -> None:
    with raw_peer(probe, timeout_s=10) as peer:
        for first in range(1, 4001, 100):
            # A third of the calls are given up.
            for number in range(first, first + 100):
                peer.send(probe_call(number))
                assert peer.answer_to(number).kind == "results"
            peer.send(
                *(probe_call(5000 + number, "wait") for number in range(50)),
                *(finish(5000 + number) for number in range(50)),
            )
            for _ in range(50):
                assert peer.receive().kind in {"canceled", "exception"}


def test_d8_an_open_answer_that_is_finished_makes_room(probe: Running) -> None:
    with RawPeer(probe, timeout_s=10) as peer:
        for number in range(3000):
            peer.send(bootstrap(number))
            assert peer.receive().kind == "capability"
            if number >= 1000:
                peer.send(finish(number - 1000))
