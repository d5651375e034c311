import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from deadline import eventually
from running_server import alive, environment

from capnp_rig.loadtest.benchmarks.transports import TransportError, Transports
from capnp_rig.loadtest.codecs.codec import RPC, TRANSPORTS
from capnp_rig.wire.errors import EncodeError

EVERY_TRANSPORT = pytest.mark.parametrize("transport", TRANSPORTS)
# Opens every transport, says so, and waits.
OWNER = """
import sys, time
from capnp_rig.loadtest.benchmarks.transports import Transports
from capnp_rig.loadtest.codecs.codec import TRANSPORTS
with Transports() as transports:
    for transport in TRANSPORTS:
        with transports.using(transport) as exchange:
            exchange(b"x")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def transports() -> Iterator[Transports]:
    with Transports() as found:
        yield found


def peers(process: psutil.Process) -> list[psutil.Process]:
    """Return the echo peers and the server that `process` has started."""
    names = ("echo_peer", "echo_service")
    return [
        child
        for child in process.children()
        if any(name in word for name in names for word in child.cmdline())
    ]


@EVERY_TRANSPORT
@pytest.mark.parametrize("size", [0, 1, 100, 70_000, 1 << 21])
def test_what_was_sent_comes_back(transports: Transports, transport: str, size: int) -> None:
    frame = os.urandom(size)
    with transports.using(transport) as exchange:
        assert bytes(exchange(memoryview(frame))) == frame
        assert bytes(exchange(b"and again")) == b"and again"


@EVERY_TRANSPORT
def test_timer_and_peer_have_a_cpu_each(transports: Transports, transport: str) -> None:
    before = os.sched_getaffinity(0)
    with transports.using(transport) as exchange:
        exchange(b"")
        during = os.sched_getaffinity(0)
    assert os.sched_getaffinity(0) == before
    if len(before) > 1:
        assert len(during) == 1
        started = peers(psutil.Process())
        for peer in [*started, *(worker for each in started for worker in each.children())]:
            assert not during & {*peer.cpu_affinity()}


def test_one_cpu_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capnp_rig.loadtest.benchmarks.transports.two_cpus", lambda: None)
    before = os.sched_getaffinity(0)
    with Transports() as own, own.using(TRANSPORTS[0]) as exchange:
        assert exchange(b"x") == b"x"
        assert os.sched_getaffinity(0) == before


def test_a_frame_over_the_limit_of_rpc_hurts_none_that_follows(transports: Transports) -> None:
    with transports.using(RPC) as exchange:
        with pytest.raises(EncodeError):
            exchange(bytes(5 << 20))
        assert bytes(exchange(b"small")) == b"small"


@EVERY_TRANSPORT
def test_a_peer_that_dies_is_an_error(transport: str) -> None:
    others = {peer.pid for peer in peers(psutil.Process())}
    with Transports() as own, own.using(transport) as exchange:
        exchange(b"x")
        (peer,) = [one for one in peers(psutil.Process()) if one.pid not in others]
        # Of a server the worker has the connection.
        for process in peer.children() or [peer]:
            process.kill()
        with pytest.raises((TransportError, EOFError, OSError)):
            exchange(b"x")


def test_peers_end_with_their_owner_however_that_is() -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", OWNER], stdout=subprocess.PIPE, env=environment()
    ) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == b"ready\n"
            started = peers(psutil.Process(owner.pid))
            assert len(started) == len(TRANSPORTS)
            workers = [worker for peer in started for worker in peer.children()]
            pids = [process.pid for process in (*started, *workers)]
        finally:
            owner.send_signal(signal.SIGKILL)
        eventually(lambda: not any(alive(pid) for pid in pids), what="peers gone")


def test_a_peer_leaves_without_a_word() -> None:
    ours, theirs = socket.socketpair()
    with theirs, ours:
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "capnp_rig.loadtest.benchmarks.echo_peer",
                str(theirs.fileno()),
            ],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
    output, _ = process.communicate(timeout=10)
    assert (process.returncode, output) == (0, b"")


def test_peers_end_with_the_block() -> None:
    others = {peer.pid for peer in peers(psutil.Process())}
    with Transports() as own:
        for transport in TRANSPORTS:
            with own.using(transport) as exchange:
                exchange(b"x")
    assert {peer.pid for peer in peers(psutil.Process())} <= others
