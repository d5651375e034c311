"""The server under systemd: what it says to it, and the sockets that it is handed."""

import signal
import socket
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from pycapnp_peer import reversed_by
from running_server import Running, command, environment, run_to_end, running_server
from running_stack import served_by


def next_of(sock: socket.socket) -> bytes:
    """Return the next message that is no sign of life."""
    for _ in range(500):
        if (message := sock.recv(1000)) != b"WATCHDOG=1":
            return message
    raise AssertionError("nothing but signs of life")


def test_the_service_manager_hears_of_start_life_and_end(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        sock.bind(path)
        env = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}
        with running_server("--workers", "1", env=env) as server:
            ready = f"READY=1\nSTATUS=Listening on 127.0.0.1:{server.port} with 1 workers..."
            assert next_of(sock).decode() == ready
            for pid in server.workers():
                theirs = Path(f"/proc/{pid}/environ").read_text(encoding="utf-8")
                assert "NOTIFY_SOCKET" not in theirs
                assert "WATCHDOG_USEC" not in theirs
            assert sock.recv(1000) == b"WATCHDOG=1"
            server.signal(signal.SIGHUP)
            assert next_of(sock).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert next_of(sock).startswith(b"READY=1\nSTATUS=Reloaded")
            server.signal(signal.SIGTERM)
            assert next_of(sock) == b"STOPPING=1\nSTATUS=Draining"
            assert server.wait() == 0


# As systemd does it: LISTEN_PID is the process that Python becomes.
ACTIVATE = """
import os, sys
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="rig.socket")
os.dup2(int(sys.argv[1]), 3)
os.execv(sys.argv[2], sys.argv[2:])
"""


def activating(fd: int) -> list[str]:
    """Return what starts a command with a socket as its descriptor 3."""
    return [sys.executable, "-c", ACTIVATE, str(fd)]


def handed(sock: socket.socket) -> AbstractContextManager[Running]:
    fd = sock.fileno()
    options = ["--workers", "1"]
    return running_server(*options, address="fd://3", starter=activating(fd), pass_fds=[fd])


def test_a_passed_socket_outlives_a_server_and_loses_no_connection(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        with handed(sock) as server:
            assert server.path == path
            assert reversed_by(server) == b"olleH"
            for pid in server.workers():
                theirs = Path(f"/proc/{pid}/environ").read_text(encoding="utf-8")
                assert "LISTEN_" not in theirs
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
        # It waits in the backlog of the socket for the next one.
        with socket.socket(socket.AF_UNIX) as early:
            early.connect(path)
            with handed(sock):
                early.settimeout(20)
                early.sendall(b"\xff" * 64)
                assert early.recv(4096)


def test_what_systemd_passes_must_be_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        done = subprocess.run(
            [*activating(sock.fileno()), *command("run", "127.0.0.1:0")],
            pass_fds=[sock.fileno()],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "server: systemd passes fd://3, and the address is 127.0.0.1:0: use one of those, or start "
        "the server without the socket unit\n"
    )


def test_a17_a_descriptor_that_is_not_there_is_told() -> None:
    done = run_to_end("run", "fd://77")
    assert done.returncode == 1
    assert done.stderr == (
        "server: cannot listen on fd://77: it is not open: start the server with a listening "
        "socket there\n"
    )


def test_workers_that_listen_take_no_passed_socket() -> None:
    served_by("grpc")
    done = run_to_end("run", "fd://3", "--stack", "grpc")
    assert done.returncode == 2
    assert "--stack grpc cannot listen on fd://3: every worker listens by itself" in done.stderr
