"""Workers that die again and again, or cannot start any more: the server serves on (A3, A16)."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import capnp
import pytest
from deadline import eventually
from pycapnp_peer import reversed_by
from raw_peer import RawPeer, bootstrap, call, finish, raw_peer
from running_server import TELLING, Running, command, environment, run_to_end, running_server

HERE = Path(__file__).resolve().parent.parent
SERVICE = """
from capnp_rig.schema import message
class Mine:
    interface = message.MessageStream
    def read(self, params):
        return {"chunk": params.request.content[::-1].encode()}
"""
CONNECT_S = 20.0


def deadly_server(name: str, *args: str) -> AbstractContextManager[Running]:
    return running_server("--service", f"deadly_services:{name}", *args, cwd=HERE)


def break_file(folder: Path) -> None:
    (folder / "mine.py").write_text("1 / 0\n")


@pytest.mark.parametrize(
    ("damage", "cause", "failures"),
    [
        # One more than would end a server that never was ready.
        (break_file, "ZeroDivisionError: division by zero", 6),
        (shutil.rmtree, "no module named 'mine'", 1),
    ],
    ids=["broken", "folder removed"],
)
def test_a3_living_workers_serve_on_while_the_service_is_broken_on_disk(
    damage: Callable[[Path], None], cause: str, failures: int, tmp_path: Path
) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "mine.py").write_text(SERVICE)
    with running_server(*TELLING, "--service", "mine:Mine", "--workers", "2", cwd=folder) as server:
        victim, other = server.workers()
        damage(folder)
        os.kill(victim, signal.SIGKILL)
        told = server.err.wait_for("Worker 0 failed to start: ", count=failures, within_s=40)
        assert all(cause in line for line in told), told
        assert reversed_by(server) == b"olleH"
        assert server.err.find("Giving up") == []
        assert other in server.workers()
        folder.mkdir(exist_ok=True)
        (folder / "mine.py").write_text(SERVICE)
        started = len(server.out.find("[Worker 0] RPC system started"))

        def back() -> bool:
            assert reversed_by(server) == b"olleH"
            return len(server.out.find("[Worker 0] RPC system started")) > started

        eventually(back, within_s=20)
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0


@pytest.mark.parametrize("engine", ["wire", "pycapnp"])
def test_a3_a_server_whose_folder_is_removed_replaces_its_workers(
    engine: str, tmp_path: Path
) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    with running_server("--workers", "1", "--engine", engine, cwd=folder) as server:
        folder.rmdir()
        os.kill(server.workers()[0], signal.SIGKILL)
        assert reversed_by(server) == b"olleH"
        assert len(server.err.lines) == 1


def test_a3_a_server_can_be_started_in_a_folder_that_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", *command("run", "127.0.0.1:0")],
        stdout=subprocess.PIPE,
        env=environment(),
        cwd=folder,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"Listening on")
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait(5)
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.parametrize(
    ("service", "cause"), [("Interrupted", "KeyboardInterrupt"), ("Exiting", "SystemExit: 5")]
)
def test_a3_whatever_a_service_raises_at_its_start_is_told_once(service: str, cause: str) -> None:
    result = run_to_end(
        *["run", "127.0.0.1:0", "--workers", "1", "--service", f"deadly_services:{service}"],
        cwd=HERE,
    )
    assert result.returncode == 1
    told, *trace, given_up = result.stderr.splitlines()
    why = rf"deadly_services:{service} cannot be made: {cause} \(.*deadly_services.py, line \d+\)"
    assert re.fullmatch(f"Worker 0 failed to start: {why}", told), told
    assert (trace[0], trace[-1]) == ("Traceback (most recent call last):", cause)
    assert "deadly_services.py" in trace[1]
    assert len(trace) == 4
    assert re.fullmatch(f"Giving up after 5 failed starts: {why}", given_up), given_up


def poison(server: Running, how: str, source: str) -> str:
    """Send a request that kills its worker; return what its sender learns."""
    with raw_peer(server, timeout_s=CONNECT_S, source=source) as peer:
        peer.send(call(1, how))
        reply = peer.receive()
        return reply.text or reply.kind


def test_a16_workers_that_die_soon_after_their_start_are_braked() -> None:
    with deadly_server("Deadly", "--workers", "1") as server:
        started_s = time.monotonic()
        for number in range(5):
            # Each from another address, so that nobody is refused.
            assert poison(server, "exit", f"127.0.0.{10 + number}") == "eof"
            server.err.wait_for("exited with status 3: replacing it", count=number + 1)
        found = [re.search(r"replacing it(?: in (\S+) s)?", line) for line in server.err.lines]
        assert [match and match[1] for match in found] == [None, "0.1", "0.2", "0.4", "0.8"]
        # The lines are no empty promises.
        assert time.monotonic() - started_s > 0.1 + 0.2 + 0.4


def refusal_of(server: Running, source: str) -> tuple[str, str]:
    """Return kind and text of what a new connection is told."""
    with raw_peer_unopened(server, source) as peer:
        reply = peer.receive()
        return reply.type, reply.text


def raw_peer_unopened(server: Running, source: str) -> "AbstractContextManager[RawPeer]":
    peer = RawPeer(server, timeout_s=CONNECT_S, source=source)
    # The Bootstrap is there before the connection is refused, as it is with every client.
    peer.send(bootstrap())
    return peer


@pytest.mark.parametrize(
    ("engine", "service", "how"),
    [
        *[("wire", "Deadly", how) for how in ("exit", "abort", "killed", "crash")],
        ("wire", "DeadlyLater", "exit"),
        ("pycapnp", "Deadly", "exit"),
        ("pycapnp", "DeadlyLater", "killed"),
    ],
)
def test_a16_two_workers_die_of_a_poison_request_and_no_more(
    engine: str, service: str, how: str
) -> None:
    with (
        deadly_server(service, "--workers", "2", "--engine", engine) as server,
        raw_peer(server, timeout_s=CONNECT_S) as bystander,
    ):
        assert poison(server, how, "127.0.0.2") == "eof"
        assert poison(server, how, "127.0.0.2") == "eof"
        server.err.wait_for("Refusing 127.0.0.2 for 60 s: 2 workers died in its calls")
        for _ in range(20):
            kind, text = refusal_of(server, "127.0.0.2")
            assert kind == "failed"
            assert re.fullmatch(
                r"calls from 127\.0\.0\.2 killed 2 workers: it is refused for \d+ s", text
            )
        assert len(server.err.find("replacing it")) == 2
        # Others are served; one whose connection was on another worker has noticed nothing.
        assert reversed_by(server) == b"olleH"
        del bystander


def test_a16_a_bystander_in_a_call_is_not_blamed() -> None:
    with deadly_server("DeadlyLater", "--workers", "1") as server:
        for _ in range(2):
            with raw_peer(server, timeout_s=CONNECT_S, source="127.0.0.3") as bystander:
                bystander.send(call(1, "wait"), call(2, "wait"))
                assert poison(server, "exit", "127.0.0.2") == "eof"
                assert bystander.receive().kind == "eof"
        server.err.wait_for("Refusing 127.0.0.2 for 60 s")
        assert server.err.find("Refusing 127.0.0.3") == []
        with raw_peer(server, timeout_s=CONNECT_S, source="127.0.0.3") as bystander:
            bystander.send(call(1, "abc"))
            assert bystander.receive().chunk == b"cba"


def test_a16_a_peer_that_goes_on_over_older_connections_loses_them() -> None:
    with deadly_server("Deadly", "--workers", "3") as server:
        peers = [RawPeer(server, source="127.0.0.2", timeout_s=CONNECT_S).open() for _ in range(9)]
        try:
            for peer in peers[:3]:
                peer.send(call(1, "exit"))
                assert peer.receive().kind == "eof"
                server.err.wait_for("replacing it", count=peers.index(peer) + 1)
            for peer in peers[3:]:
                assert peer.receive().kind == "eof"
            assert len(server.err.find("replacing it")) == 3
        finally:
            for peer in peers:
                peer.socket.close()


def test_a16_on_a_unix_socket_the_user_is_refused(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 's'}"
    with running_server(
        *["--service", "deadly_services:Deadly", "--workers", "2"], address=address, cwd=HERE
    ) as server:
        for _ in range(2):
            with pytest.raises(capnp.KjException):
                reversed_by(server, "exit")
        server.err.wait_for(f"Refusing uid {os.getuid()} for 60 s")
        with pytest.raises(capnp.KjException, match="it is refused for"):
            reversed_by(server)


def test_a1_an_operator_who_kills_a_busy_worker_gets_nobody_refused() -> None:
    with deadly_server("Deadly", "--workers", "1") as server:
        for turn in range(3):
            with raw_peer(server, timeout_s=CONNECT_S) as peer:
                for _ in range(300):
                    peer.send(call(1, "abc"), finish(1))
                    assert peer.answer_to(1).chunk == b"cba"
                # It is in a call most of the time.
                peer.send(*[call(1, "abc" * 10_000), finish(1)] * 100)
                os.kill(server.workers()[0], signal.SIGKILL)
            server.err.wait_for("replacing it", count=turn + 1)
        assert reversed_by(server) == b"olleH"
        assert server.err.find("Refusing") == []


@pytest.mark.parametrize("limit", [6, 20])
def test_b10_too_few_open_files_are_told_in_one_line_at_the_start(limit: int) -> None:
    result = subprocess.run(
        [
            *["prlimit", f"--nofile={limit}:{limit}"],
            *command("run", "127.0.0.1:0", "--workers", "2"),
        ],
        capture_output=True,
        text=True,
        timeout=40,
        env=environment(),
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (
        1,
        "",
        (
            f"server: the open-files limit of {limit} is too low: raise it to 36 at least "
            "(ulimit -n), or start fewer workers\n"
        ),
    )
