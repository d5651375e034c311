"""B7, C2, B16: peers that send nothing, too little, or nothing any more, at all stacks and loops.

How the limits are reckoned is in ``tests/unit/server/connections/test_time_limits.py``.
"""

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from deadline import WITHIN_S
from h2_peer import H2Peer
from raw_peer import RawPeer, bootstrap, call
from running_server import ENGINES, Running, running_server
from running_stack import answer_to, connect, stack_client, stack_server

from capnp_rig.client import AsyncChannel
from capnp_rig.schema import message

TESTS = Path(__file__).resolve().parent.parent
# A stack, and the loop that serves it.
STACKS = [
    *[("echo", "uvloop"), ("json", "uvloop"), ("http", "uvloop"), ("http2", "uvloop")],
    *[("grpc", "uvloop"), ("selectors", "")],
    *(
        pytest.param(name, "asyncio", marks=pytest.mark.nightly)
        for name in ("echo", "json", "http", "http2")
    ),
]
# A call of each, of which the tests send a part.
HALVES = {
    "echo": b"",
    "json": b'{"method": "re',
    "http": b"POST /reverse HTTP/1.1\r\nhost: x\r\n",
    "http2": b"PRI * HTTP/2.0\r\n",
    "grpc": b"PRI * HTTP/2.0\r\n",
    "selectors": b"\5\0\0\0He",
}
# At debug, a connection's end is logged, too.
ONE = ["--workers", "1", "--log-level", "debug"]
QUICK = [*ONE, "--first-frame-timeout", "0.5", "--idle-timeout", "1"]


@contextmanager
def connected(server: Running, *, count: int = 1) -> Iterator[list[socket.socket]]:
    with ExitStack() as opened:
        yield [opened.enter_context(connect(server)) for _ in range(count)]


def read_to_end(sock: socket.socket) -> bytes:
    """Return all that comes until the connection ends."""
    sock.settimeout(2 * WITHIN_S)
    received = b""
    try:
        while data := sock.recv(65_536):
            received += data
    except ConnectionResetError:
        pass
    return received


def dribble_to_end(sock: socket.socket, data: bytes, within_s: float = WITHIN_S) -> bytes:
    """Send a byte now and then until the connection ends; return what came."""
    end_s = time.monotonic() + within_s
    received = b""
    sock.settimeout(0.05)
    at = 0
    while time.monotonic() < end_s:
        try:
            sock.send(data[at : at + 1])
            at += 1
            if not (part := sock.recv(65_536)):
                return received
            received += part
        except TimeoutError:
            pass
        except ConnectionError:
            return received
    raise AssertionError("it is still open")


@pytest.mark.parametrize(("engine", "loop"), ENGINES)
def test_b7_c2_silent_and_half_sent_connections_are_closed_with_a_reason(
    engine: str, loop: str
) -> None:
    frame = bootstrap()
    with running_server(*QUICK, "--engine", engine, "--loop", loop) as server:
        with connected(server, count=3) as (silent, half, slow):
            half.sendall(frame[:20])
            reasons = [dribble_to_end(slow, frame[:-1]), read_to_end(half), read_to_end(silent)]
        for reason in reasons:
            assert b"no whole message came in time (--first-frame-timeout 0.5)" in reason
        server.err.wait_for("error for peer", count=1)
        with RawPeer(server) as peer:
            peer.open()
            peer.send(call(1, "serves on"))
            assert peer.receive().chunk == b"no sevres"


@pytest.mark.parametrize(("name", "loop"), STACKS)
def test_b7_no_stack_keeps_silent_half_sent_or_idle_connections(name: str, loop: str) -> None:
    options = [*QUICK, "--loop", loop] if loop else QUICK
    with stack_server(name, *options) as server, stack_client(server, name) as idle:
        assert idle.read("Hello") == answer_to(name, "Hello")
        with connected(server, count=3) as (silent, half, slow):
            half.sendall(HALVES[name])
            if name != "echo":
                answer = dribble_to_end(slow, HALVES[name])
                if name == "json":
                    assert "--first-frame-timeout" in json.loads(answer)["error"]
                if name == "http":
                    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            read_to_end(half)
            read_to_end(silent)
        with connected(server) as (used,):
            # What is said once does not keep a connection.
            first = {"echo": b"x", "json": b'"Ping"', "selectors": bytes(4)}.get(name)
            if name == "http2":
                H2Peer(used).request("GET", "/health")
            elif name == "http":
                used.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            elif first is not None:
                used.sendall(first)
            received = read_to_end(used)
            if name == "http2":
                # GOAWAY, after stream 1, without an error.
                assert received[-17:] == bytes([0, 0, 8, 7, *bytes(8), 1, *bytes(4)])
        if name != "grpc":
            server.out.wait_for("finished cleanly")


@pytest.mark.parametrize("option", ["--idle-timeout", "--max-age"])
@pytest.mark.parametrize("engine", ["wire", "pycapnp"])
def test_b7_b16_a_channel_does_not_notice_that_idle_and_old_connections_end(
    engine: str, option: str
) -> None:
    async def use(server: Running) -> None:
        address = f"{server.host}:{server.port}"
        async with AsyncChannel(address, interface=message.MessageStream) as channel:
            for count in (1, 2):
                answer = await channel.call("read", {"request": {"content": "ab"}})
                assert answer.chunk == b"ba"
                async with asyncio.timeout(WITHIN_S):
                    while len(server.out.find("finished cleanly")) < count:
                        await asyncio.sleep(0.01)
            await channel.call("read", {"request": {"content": "ab"}})

    with running_server(option, "0.3", "--engine", engine, *ONE) as server:
        asyncio.run(use(server))
        assert not server.err.find("error")


def test_b7_b16_a_peer_has_no_more_connections_than_it_may() -> None:
    with running_server(*ONE, "--max-connections-per-peer", "2") as server:
        with RawPeer(server) as first, RawPeer(server) as second, RawPeer(server) as third:
            first.open()
            second.open()
            reason = "2 connections of 127.0.0.1 are open (--max-connections-per-peer): try again"
            reply = third.receive()
            assert (reply.kind, reply.type) == ("abort", "overloaded")
            assert reply.text.startswith(reason)
            with RawPeer(server, source="127.0.0.2") as other:
                other.open()
        server.out.wait_for("finished cleanly", count=3)
        with RawPeer(server) as again:
            again.open()


def test_b7_b16_a_peer_connects_no_faster_than_it_may() -> None:
    options = ["--max-connect-rate-per-peer", "1", "--first-frame-timeout", "1"]
    with stack_server("http", *options) as server:
        with connected(server, count=3) as socks:
            answers = [read_to_end(sock) for sock in socks[1:]]
        assert any(b"503 Service Unavailable" in answer for answer in answers)
        assert any(b"(--max-connect-rate-per-peer): try again" in answer for answer in answers)


# --- of a night --------------------------------------------------------------------------


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[("capnp", ["--engine", engine, "--loop", loop]) for engine, loop in ENGINES],
        *[(name, ["--stack", name]) for name in ("json", "http", "selectors")],
    ],
)
def test_b7_c2_a_later_message_that_stops_is_closed(name: str, options: list[str]) -> None:
    first = {
        "capnp": bootstrap(),
        "json": b'"Ping"',
        "http": b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n",
        "selectors": bytes(4),
    }[name]
    long = {
        "capnp": call(1, "x" * 5_000),
        "json": b'{"method": "' + b"x" * 5_000,
        "http": HALVES["http"] + b"x-long: " + b"x" * 5_000,
        "selectors": bytes([0, 16, 0, 0]) + b"x" * 4_096,
    }[name]
    with running_server(*ONE, *options) as server, connected(server, count=3) as socks:
        waits, stops, dribbles = socks
        for sock in socks:
            sock.sendall(first)
            assert sock.recv(65_536)
        stops.sendall(long[:100])
        began_s = time.monotonic()
        answer = dribble_to_end(dribbles, long, within_s=40)
        stopped = read_to_end(stops)
        # A window of ten seconds, and no look comes early.
        assert time.monotonic() - began_s >= 9.5
        reason = b"(--min-rate 500)"
        if name != "selectors":
            assert reason in answer
            assert reason in stopped
        # The one that waits has its place.
        waits.settimeout(0.1)
        with pytest.raises(TimeoutError):
            waits.recv(1)


@pytest.mark.nightly
@pytest.mark.parametrize(("engine", "loop"), ENGINES)
def test_b16_an_old_connection_waits_for_the_calls_that_run(engine: str, loop: str) -> None:
    options = ["--engine", engine, "--loop", loop, "--max-age", "0.5"]
    slow = ["--service", "sample_services:Slow"]
    with running_server(*ONE, *options, *slow, cwd=TESTS) as server, RawPeer(server) as peer:
        peer.open()
        # Beyond the grace of ten seconds: nothing more is read, and this is still answered.
        peer.send(call(1, "13 x"))
        assert peer.receive().chunk == b"x 31"
        reply = peer.receive()
        assert (reply.kind, reply.type) == ("abort", "disconnected")
        assert "--max-age" in reply.text
        assert peer.receive().kind == "eof"


@pytest.mark.nightly
def test_b6_active_calls_do_not_suffer_from_thousands_of_idle_connections() -> None:
    module = "capnp_rig.loadtest.benchmarks.idle_connections"
    ratios = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-m", module, "--idle", "9000", "--rounds", "20", "--rest", "5"],
            capture_output=True,
            text=True,
            timeout=200,
            check=True,
        )
        beside, alone = re.findall(
            r"(?:connections|alone) .*?([0-9]+) *[^0-9]*$", done.stdout, re.MULTILINE
        )[:2]
        ratios.append(int(beside) / int(alone))
        kb = re.search(r"connections: ([0-9.]+) kB each", done.stdout)
        assert kb is not None
        assert float(kb[1]) < 16
        if ratios[-1] < 1.5:
            return
    raise AssertionError(f"p99 grows by {ratios}")
