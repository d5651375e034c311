"""What peers can provoke is limited in the log, and what was left out is counted (H5)."""

import re
import signal
from pathlib import Path

import pytest
from raw_peer import RawPeer, call, finish, raw_peer
from running_server import TELLING, Lines, running_server

from capnp_rig.server.engines.peer_errors import NOT_LOGGED

HERE = Path(__file__).resolve().parent.parent
CALLS = 1_000
LEFT_OUT = re.compile(r": ([\d,]+) more left out in \d+ s$")


def left_out(err: Lines) -> int:
    matches = filter(None, (LEFT_OUT.search(line) for line in err.lines))
    return sum(int(match[1].replace(",", "")) for match in matches)


@pytest.mark.parametrize("engine", ["wire", "pycapnp"])
def test_h5_a_method_that_fails_fills_no_disk(engine: str) -> None:
    service = ["--service", "deadly_services:Failing"]
    with running_server(*service, "--workers", "1", "--engine", engine, cwd=HERE) as server:
        texts = []
        with raw_peer(server) as peer:
            for number in range(1, CALLS + 1):
                peer.send(call(number))
                texts.append(peer.answer_to(number).text)
                peer.send(finish(number))
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0
        logged = re.findall(r"internal error \[id ([\w-]+)\] in read", "\n".join(server.err.join()))
        # Whoever has a number finds it in the log, and nobody else has one.
        told = [
            match[1] for match in (re.search(r"\[id ([\w-]+)\]", text) for text in texts) if match
        ]
        assert told == logged
        assert sum(NOT_LOGGED in text for text in texts) == CALLS - len(logged)
        assert left_out(server.err) == CALLS - len(logged)
        assert 20 <= len(logged) < CALLS / 2
        assert server.err.lines.count("Traceback (most recent call last):") == len(logged)


@pytest.mark.parametrize("engine", ["wire", "pycapnp"])
def test_h5_garbage_fills_no_disk(engine: str) -> None:
    connections = 300
    with running_server(*TELLING, "--workers", "1", "--engine", engine) as server:
        for _ in range(connections):
            with RawPeer(server) as peer:
                peer.send(b"\xff" * 64)
                peer.socket.recv(4096)
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0
        told = [line for line in server.err.join() if "RPC system error for peer" in line]
        ended = server.out.find("finished cleanly")
        assert len(told) + left_out(server.err) + len(ended) == connections
        assert 20 <= len(told) < connections / 2


def test_h5_connections_fill_no_disk() -> None:
    connections = 800
    with running_server(*TELLING, "--workers", "1") as server:
        for _ in range(connections):
            with RawPeer(server) as peer:
                peer.open()
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0
        server.out.join()
        for line in ("Dispatching new", "received", "running", "started for", "finished cleanly"):
            told = [each for each in server.out.find(line) if not LEFT_OUT.search(each)]
            counts = [LEFT_OUT.search(each) for each in server.out.find(line)]
            count = sum(int(match[1].replace(",", "")) for match in counts if match)
            assert len(told) + count == connections, line
            assert 500 <= len(told) < connections, line
