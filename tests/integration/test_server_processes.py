"""Workers and supervisor that die, stall, start badly or are told to stop (section A)."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import capnp
import psutil
import pytest
from deadline import eventually
from pycapnp_peer import connected, reversed_by, run
from running_server import (
    ENGINES,
    TELLING,
    Running,
    alive,
    command,
    elapsed_s,
    environment,
    run_to_end,
    running_server,
)

HERE = Path(__file__).resolve().parent.parent


def sample_server(name: str, *args: str) -> AbstractContextManager[Running]:
    return running_server("--service", f"sample_services:{name}", *args, cwd=HERE)


@contextmanager
def call_in_flight(server: Running, content: str | bytes) -> Iterator[list[Any]]:
    """Make one call from a thread; the outcome is the chunk or the exception."""
    outcome = []

    async def work() -> object:
        async with connected(server.port) as stream:
            try:
                outcome.append(bytes((await stream.read({"content": content})).chunk))
            except capnp.KjException as error:
                outcome.append(error)

    thread = threading.Thread(target=run, args=[work])
    called = len(server.out.find("Called with"))
    thread.start()
    try:
        server.out.wait_for("Called with", count=called + 1)
        yield outcome
    finally:
        thread.join(20)
        assert not thread.is_alive()


def await_dispatch_to(server: Running, worker: str) -> None:
    """Connect until only this worker is chosen: the beats of the other no longer count."""

    def last_four_went_there() -> bool:
        # Not waited for: the other may be the one that has it.
        socket.create_connection(("127.0.0.1", server.port), 5).close()
        return [line[-1] for line in server.out.find("Dispatching")][-4:] == [worker] * 4

    eventually(last_four_went_there)


def test_a1_a_killed_worker_is_replaced_while_the_others_serve() -> None:
    with running_server(*TELLING, "--workers", "2") as server:
        victim, other = server.workers()
        for _ in range(3):
            served = len(server.out.find("[Worker 0] RPC system started"))
            os.kill(victim, signal.SIGKILL)
            killed_s = time.monotonic()
            while len(server.out.find("[Worker 0] RPC system started")) == served:
                assert reversed_by(server) == b"olleH"
                assert elapsed_s(killed_s) < 10
            (victim,) = set(server.workers()) - {other}
        assert len(server.err.lines) == 3
        server.err.wait_for("was killed by SIGKILL: replacing it", count=3)


def test_a2_all_workers_killed_at_once() -> None:
    with running_server("--workers", "2") as server:
        for _ in range(5):
            for pid in server.workers():
                os.kill(pid, signal.SIGKILL)
            started_s = time.monotonic()
            assert reversed_by(server) == b"olleH"
            assert elapsed_s(started_s) < 10


def test_a13_connections_in_transit_to_a_dead_worker_are_served_by_another() -> None:
    with running_server(*TELLING, "--workers", "2") as server:
        victim, _ = server.workers()
        files = psutil.Process(server.pid).num_fds()
        os.kill(victim, signal.SIGSTOP)
        results = []

        def call() -> None:
            results.append(reversed_by(server))

        threads = [threading.Thread(target=call) for _ in range(10)]
        for thread in threads:
            thread.start()
        server.out.wait_for("Dispatching new connection to worker 0")
        os.kill(victim, signal.SIGKILL)
        for thread in threads:
            thread.join(10)
        assert results == [b"olleH"] * 10
        eventually(lambda: psutil.Process(server.pid).num_fds() == files)


def test_a4_a_stopped_worker_gets_no_connections_and_is_killed_at_the_limit() -> None:
    with running_server(*TELLING, "--workers", "2") as server:
        victim, _ = server.workers()
        os.kill(victim, signal.SIGSTOP)
        stopped_s = time.monotonic()
        await_dispatch_to(server, "1")
        for _ in range(4):
            assert reversed_by(server) == b"olleH"
        server.err.wait_for("does not answer: killing it")
        assert elapsed_s(stopped_s) > 4.5
        eventually(lambda: len(server.workers()) == 2 and victim not in server.workers())


def test_a5_a_handler_that_blocks_its_loop_is_killed_and_others_serve() -> None:
    timeout = ("--worker-timeout", "1.5")
    with sample_server("Faulty", *TELLING, "--workers", "2", *timeout) as server:
        (first, second) = server.workers()
        with call_in_flight(server, "block") as outcome:
            await_dispatch_to(server, "1")
            assert [reversed_by(server) for _ in range(3)] == [b"olleH"] * 3
        assert isinstance(outcome[0], capnp.KjException)
        blocked = f"Worker 0 (pid {first}) has been in Faulty.read for"
        (killing,) = server.err.wait_for("the limit of --worker-timeout: killing it")
        assert killing.startswith(f"{blocked} 1.5 s")
        server.err.wait_for(f"{blocked} 1 s: its other calls wait")
        server.err.wait_for("was killed by SIGKILL: replacing it")
        assert second in server.workers()
        assert first not in server.workers()


@pytest.mark.parametrize("engine", ["wire", pytest.param("pycapnp", marks=pytest.mark.nightly)])
def test_a5_a_method_that_blocks_its_loop_is_waited_for_in_a_drain_too(engine: str) -> None:
    """For 6 s: a worker in no method has 5 s."""
    with sample_server("Faulty", "--workers", "1", "--engine", engine) as server:
        with call_in_flight(server, "work") as outcome:
            server.signal(signal.SIGTERM)
            assert server.wait(20) == 0
        assert outcome == [b"krow"]
        (warning,) = server.err.lines
        assert "has been in Faulty.read for 1 s: its other calls wait" in warning


@pytest.mark.parametrize("engine", ["wire", "pycapnp"])
def test_a8_a_reload_lets_running_calls_end(engine: str, tmp_path: Path) -> None:
    release = tmp_path / "release"
    with sample_server("Held", "--workers", "1", "--engine", engine) as server:
        (old,) = server.workers()
        with call_in_flight(server, str(release)) as outcome:
            server.signal(signal.SIGHUP)
            server.out.wait_for("Reloaded: 1 new workers serve")
            assert reversed_by(server, "late") == b"etal"
            assert old in server.workers()
            release.touch()
        assert outcome == [str(release)[::-1].encode()]
        eventually(lambda: old not in server.workers())
        assert server.err.lines == []


def test_a8_calls_of_an_old_worker_are_cancelled_at_the_drain_limit(tmp_path: Path) -> None:
    with sample_server("Held", "--workers", "1", "--drain-timeout", "0.2") as server:
        (old,) = server.workers()
        with call_in_flight(server, str(tmp_path / "never")) as outcome:
            server.signal(signal.SIGHUP)
            told = f"Worker 0 (pid {old}), which was replaced, cancelled 1 calls at the drain limit"
            server.err.wait_for(told)
        assert isinstance(outcome[0], capnp.KjException)
        assert reversed_by(server, "late") == b"etal"
        assert server.err.lines == [told]


@pytest.mark.parametrize(("engine", "loop"), ENGINES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a6_sigterm_delivers_the_reply_in_flight(
    engine: str, loop: str, number: int, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    with sample_server("Held", "--workers", "2", "--engine", engine, "--loop", loop) as server:
        idle = socket.create_connection(("127.0.0.1", server.port), 5)
        with call_in_flight(server, str(release)) as outcome:
            server.signal(number)
            idle.settimeout(20)
            assert idle.recv(1) == b""
            idle.close()
            eventually(server.refuses)
            release.touch()
            assert server.wait() == 0
        assert outcome == [str(release)[::-1].encode()]
        assert server.err.lines == []


@pytest.mark.parametrize(("engine", "loop"), ENGINES)
def test_a6_a_large_reply_to_a_slow_reader_is_delivered_whole(engine: str, loop: str) -> None:
    size = 3_000_000
    with sample_server("Large", "--workers", "1", "--engine", engine, "--loop", loop) as server:
        with call_in_flight(server, str(size)) as outcome:
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
        assert outcome == [bytes(size)]


def test_a6_calls_that_come_during_the_drain_are_refused_not_lost(tmp_path: Path) -> None:
    release = tmp_path / "release"
    with sample_server("Held", "--workers", "1") as server:
        # Closed when the worker drains, as this one is told of nothing else.
        idle = socket.create_connection(("127.0.0.1", server.port), 5)
        idle.settimeout(20)

        async def work() -> object:
            async with connected(server.port) as stream:
                held = stream.read({"content": str(release)})
                await asyncio.to_thread(server.out.wait_for, "Called with")
                server.signal(signal.SIGTERM)
                assert await asyncio.to_thread(idle.recv, 1) == b""
                refusal = ""
                try:
                    await stream.read({"content": "late"})
                except capnp.KjException as error:
                    refusal = str(error)
                release.touch()
                return bytes((await held).chunk), refusal

        chunk, refusal = run(work)
        idle.close()
        assert chunk == str(release)[::-1].encode()
        assert "the server is shutting down: this call was not started" in refusal
        assert server.wait() == 0


def test_a6_past_the_limit_calls_are_cancelled_and_counted() -> None:
    with sample_server("Slow", "--workers", "1", "--drain-timeout", "0.3") as server:
        with call_in_flight(server, "20") as outcome:
            server.signal(signal.SIGTERM)
            assert server.wait() == 1
        assert isinstance(outcome[0], capnp.KjException)
        assert server.err.join() == ["The drain limit of 0.3 s passed: 1 calls cancelled"]


# Two of one kind may reach the server as one; those of two kinds cannot.
@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_a6_a_signal_that_is_sent_twice_is_one_order(again: int, tmp_path: Path) -> None:
    release = tmp_path / "release"
    with (
        sample_server("Held", "--workers", "2") as server,
        call_in_flight(server, str(release)) as outcome,
    ):
        server.signal(signal.SIGTERM)
        server.signal(again)
        eventually(server.refuses)
        release.touch()
        assert server.wait() == 0
    assert outcome == [str(release)[::-1].encode()]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a7_a_second_signal_stops_at_once(second: int) -> None:
    with sample_server("Slow", "--workers", "2") as server, call_in_flight(server, "20"):
        workers = server.workers()
        first_s = time.monotonic()
        server.signal(signal.SIGTERM)
        # An idle worker that leaves shows that the drain has begun; a signal that comes at once is
        # the first one, repeated.
        eventually(lambda: not all(alive(pid) for pid in workers) and elapsed_s(first_s) > 0.2)
        signalled_s = time.monotonic()
        server.signal(second)
        assert server.wait() == 1
        assert server.err.join() == ["Stopped at once: 1 call in flight was lost"]
        # Not the 20 s of the call, nor the 30 s of the drain.
        assert elapsed_s(signalled_s) < 10
        assert not any(alive(pid) for pid in workers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_workers_start_ends_them_in_good_order(number: int) -> None:
    process = subprocess.Popen(
        command("run", "127.0.0.1:0", "--workers", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    try:
        workers = eventually(lambda: psutil.Process(process.pid).children())
        process.send_signal(number)
        assert process.communicate(timeout=20) == (None, b"")
        assert process.returncode == 0
        assert not any(alive(worker.pid) for worker in workers)
    finally:
        process.kill()
        process.wait(5)


def test_signals_to_the_whole_group_reach_only_the_supervisor(tmp_path: Path) -> None:
    release = tmp_path / "release"
    with sample_server("Held", "--workers", "1") as server:
        (worker,) = server.workers()
        with call_in_flight(server, str(release)) as outcome:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                os.kill(worker, number)
            server.signal(signal.SIGINT)
            eventually(server.refuses)
            release.touch()
            assert server.wait() == 0
        assert outcome == [str(release)[::-1].encode()]


def test_a11_the_workers_go_with_their_supervisor() -> None:
    with sample_server("Slow", "--workers", "2") as server, call_in_flight(server, "20"):
        workers = server.workers()
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not any(alive(pid) for pid in workers))
        socket.create_server(("127.0.0.1", server.port)).close()


@pytest.mark.parametrize(
    ("service", "cause"),
    [
        ("no_such_module:X", "no module named 'no_such_module'"),
        ("sample_services:Nope", "no Nope in sample_services"),
        ("sample_services:Incomplete", "Incomplete lacks the method read"),
    ],
)
def test_a3_a_service_that_cannot_start_ends_the_server_with_its_cause(
    service: str, cause: str
) -> None:
    result = run_to_end("run", "127.0.0.1:0", "--workers", "1", "--service", service, cwd=HERE)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"Worker 0 failed to start: {cause}",
        f"Giving up after 5 failed starts: {cause}",
    ]


def test_a19_a_stdout_nobody_reads_stops_nothing() -> None:
    process = subprocess.Popen(
        command("run", "127.0.0.1:0", "--workers", "2"), stdout=subprocess.PIPE, env=environment()
    )
    try:
        port = int(process.stdout.readline().split()[2].rpartition(b":")[2])
        for _ in range(2000):
            socket.create_connection(("127.0.0.1", port), 5).close()

        async def work() -> object:
            async with connected(port) as stream:
                return bytes((await stream.read({"content": "Hello"})).chunk)

        assert run(work) == b"olleH"
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait(5)
        process.stdout.close()


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&- <&-", ">/dev/full 2>/dev/full"])
def test_a19_a_closed_or_full_stdout_stops_nothing(redirection: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    script = f'exec "$@" {redirection}'
    process = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", *command("run", f"127.0.0.1:{port}", "--workers", "1")],
        env=environment(),
    )
    try:

        async def call() -> bytes:
            async with connected(port) as stream:
                return bytes((await stream.read({"content": "Hello"})).chunk)

        def answers() -> bool:
            try:
                return run(call) == b"olleH"
            except ConnectionRefusedError:
                return False

        eventually(answers)
        assert answers()
        # A socket with the number of stdout would be sent the log.
        standard = {str(Path(f"/proc/{process.pid}/fd/{fd}").readlink()) for fd in (1, 2)}
        assert not any("socket" in target or "event" in target for target in standard)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait(5)


def test_b10_running_out_of_files_does_not_spin_and_recovers() -> None:
    with running_server("--workers", "1", fd_limit=64, address="127.0.0.1:0") as server:
        supervisor = psutil.Process(server.pid)
        supervisor.rlimit(psutil.RLIMIT_NOFILE, (3, 64))
        waiting = socket.create_connection(("127.0.0.1", server.port), 5)
        server.err.wait_for("Cannot accept connections: Too many open files: raise ulimit -n")
        used_s = sum(supervisor.cpu_times()[:2])
        time.sleep(1)
        assert sum(supervisor.cpu_times()[:2]) - used_s < 0.1
        supervisor.rlimit(psutil.RLIMIT_NOFILE, (64, 64))
        freed_s = time.monotonic()
        assert reversed_by(server) == b"olleH"
        assert elapsed_s(freed_s) < 10
        waiting.close()


def test_b10_a_worker_out_of_files_loses_only_the_new_connection() -> None:
    with running_server(*TELLING, "--workers", "1") as server:
        assert reversed_by(server) == b"olleH"
        (pid,) = server.workers()
        worker = psutil.Process(pid)
        server.out.wait_for("finished cleanly")
        soft, hard = worker.rlimit(psutil.RLIMIT_NOFILE)
        # Those that are open stay open.
        worker.rlimit(psutil.RLIMIT_NOFILE, (3, hard))
        with socket.create_connection(("127.0.0.1", server.port), 5) as refused:
            refused.settimeout(5)
            assert refused.recv(1) == b""
        server.err.wait_for("A worker is out of open files: a connection was closed")
        worker.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
        assert reversed_by(server) == b"olleH"
        assert server.workers() == [pid]
