"""What a drain waits for, what it does not wait for, and what it says (A6, A7)."""

import re
import signal
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from deadline import eventually
from raw_peer import call, raw_peer
from running_server import ENGINES, TELLING, Running, elapsed_s, run_to_end, running_server

HERE = Path(__file__).resolve().parent.parent
LINGERS = (
    r"Worker 0 \(pid \d+\) has finished and does not exit, as with a thread that is no daemon: "
    r"killing it"
)


def serving(name: str, *args: str) -> AbstractContextManager[Running]:
    service = f"deadly_services:{name}"
    return running_server("--service", service, "--workers", "1", *args, cwd=HERE)


@pytest.mark.parametrize(("engine", "loop"), ENGINES)
@pytest.mark.parametrize(
    ("what", "leaves"),
    [
        ("loop", "before"),
        ("thread", "within"),
        pytest.param("loop", "within", marks=pytest.mark.nightly),
        pytest.param("thread", "before", marks=pytest.mark.nightly),
    ],
)
def test_a6_a_drain_waits_for_no_call_whose_peer_is_gone(
    engine: str, loop: str, what: str, leaves: str
) -> None:
    """Not even if the method cannot be ended; then its worker is killed, and that is told."""
    with serving("Stubborn", *TELLING, "--engine", engine, "--loop", loop) as server:
        with raw_peer(server) as peer:
            peer.send(call(1, what), call(2, "abc"))
            assert peer.answer_to(2).chunk == b"cba"
            if leaves == "within":
                server.signal(signal.SIGTERM)
                eventually(lambda: not accepts(server))
        if leaves == "before":
            server.out.wait_for("finished cleanly")
            server.signal(signal.SIGTERM)
        status = server.wait(15)
        assert (status, len(server.err.join())) == (0, 1), server.err.lines
        assert re.fullmatch(LINGERS, server.err.lines[0])


def test_a6_a_drain_notices_that_a_peer_is_gone_which_it_does_not_read() -> None:
    """Above 8 MiB of params in calls that run, nothing more is read, the end neither."""
    with serving("DeadlyLater") as server:
        with raw_peer(server) as peer:
            peer.send(*(call(number, "wait" + 3_000_000 * " ") for number in (1, 2, 3)))
            time.sleep(0.5)
        server.signal(signal.SIGTERM)
        assert server.wait(15) == 0
        assert server.err.join() == []


def test_a6_a_signal_that_comes_twice_at_once_is_one_wish() -> None:
    """As `timeout` sends it: to its child, and to the group of both."""
    with serving("DeadlyLater") as server:
        with raw_peer(server) as peer:
            peer.send(call(1, "abc"))
            assert peer.answer_to(1).chunk
            server.signal(signal.SIGTERM)
            # Not pending at the same time, or they would be one.
            time.sleep(0.01)
            server.signal(signal.SIGTERM)
        assert server.wait(15) == 0
        assert server.err.join() == []


def accepts(server: Running) -> bool:
    try:
        with raw_peer(server):
            return True
    except (OSError, AssertionError):
        return False


def test_a6_a_thread_that_does_not_end_holds_up_the_end_for_a_second() -> None:
    with serving("Threaded") as server:
        started_s = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait(15) == 0
        assert elapsed_s(started_s) > 0.9
        (line,) = server.err.join()
        assert re.fullmatch(LINGERS, line)


@pytest.mark.parametrize(("engine", "loop"), ENGINES)
def test_a6_without_time_to_drain_an_idle_server_ends_well(engine: str, loop: str) -> None:
    args = ["--drain-timeout", "0", "--engine", engine, "--loop", loop]
    with serving("Deadly", *args) as server, raw_peer(server) as idle:
        idle.send(call(1, "abc"))
        assert idle.receive().chunk == b"cba"
        server.signal(signal.SIGTERM)
        status = server.wait(10)
        assert (status, server.err.join()) == (0, [])


@pytest.mark.parametrize("engine", ["wire", "pycapnp"])
def test_a6_without_time_to_drain_calls_are_cancelled_and_told(engine: str) -> None:
    args = ["--drain-timeout", "0", "--engine", engine]
    with serving("DeadlyLater", *args) as server, raw_peer(server) as peer:
        peer.send(call(1, "wait"), call(2, "abc"))
        assert peer.answer_to(2).chunk == b"cba"
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 1
        assert server.err.join() == ["The drain limit of 0 s passed: 1 calls cancelled"]


def test_a6_a_worker_that_is_stuck_in_a_drain_is_killed_and_told() -> None:
    with running_server(
        *["--service", "sample_services:Faulty", "--workers", "1", "--drain-timeout", "0.2"],
        cwd=HERE,
    ) as server:
        with raw_peer(server) as peer:
            peer.send(call(1, "block"))
            time.sleep(0.3)
            server.signal(signal.SIGTERM)
            assert server.wait(10) == 1
        # The first line may warn of the method.
        line = server.err.join()[-1]
        assert re.fullmatch(
            r"Worker 0 \(pid \d+\) was killed by SIGKILL in the drain, with 1 connections open",
            line,
        )


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-1", "1e999"])
def test_a_time_to_drain_that_is_no_time_is_refused(text: str) -> None:
    result = run_to_end("run", "127.0.0.1:0", f"--drain-timeout={text}")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "Invalid value for '--drain-timeout'" in result.stderr
