"""Signals that mean nothing kill and stop nobody; what a service starts can be ended."""

import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from deadline import eventually
from pycapnp_peer import reversed_by
from running_server import ENGINES, TELLING, Running, alive, command, environment, running_server

from capnp_rig.server.control.signals import HANDLED, IDLE_SIGNALS

HERE = Path(__file__).resolve().parent.parent


def is_stopped(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


@pytest.mark.parametrize(("engine", "loop"), ENGINES)
def test_idle_signals_to_supervisor_and_workers_change_nothing(engine: str, loop: str) -> None:
    with running_server("--workers", "1", "--engine", engine, "--loop", loop) as server:
        (worker,) = server.workers()
        for number in (*IDLE_SIGNALS, signal.SIGTSTP):
            server.signal(number)
        for number in HANDLED:
            os.kill(worker, number)
        assert [reversed_by(server) for _ in range(3)] == [b"olleH"] * 3
        assert server.workers() == [worker]
        assert not is_stopped(server.pid)
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0
        assert server.err.lines == []


@contextmanager
def parent_server(*args: str) -> Iterator[Running]:
    with running_server(
        "--service", "deadly_services:Parent", "--workers", "1", *args, cwd=HERE
    ) as server:
        yield server


@pytest.mark.parametrize(("engine", "loop"), ENGINES)
def test_what_a_service_starts_is_ended_by_signals(engine: str, loop: str) -> None:
    with parent_server("--engine", engine, "--loop", loop) as server:
        assert reversed_by(server, "terminated program") == b"-15"
        assert reversed_by(server, "terminated pool") == b"joined"
        masks = reversed_by(server, "mask").decode()
        # Python ignores SIGPIPE and SIGXFSZ, and resets them for its children.
        assert re.findall(r"(Sig\w+):\s*([0-9a-f]+)", masks) == [
            ("SigBlk", "0" * 16),
            ("SigIgn", "0" * 16),
        ]


@pytest.mark.parametrize("what", ["program", "pool"])
@pytest.mark.parametrize("end", ["drain", "kill", "exit", "stop at once"])
def test_what_a_service_has_started_ends_with_its_worker(what: str, end: str) -> None:
    with parent_server() as server:
        (worker,) = server.workers()
        started = [int(pid) for pid in reversed_by(server, what).split()]
        assert all(alive(pid) for pid in started)
        if end == "kill":
            os.kill(worker, signal.SIGKILL)
        elif end == "exit":
            # The kernel closes the connection.
            with pytest.raises(Exception, match="isconnect"):
                reversed_by(server, "exit")
        else:
            server.signal(signal.SIGTERM if end == "drain" else signal.SIGQUIT)
            # No call is lost.
            assert server.wait(10) == 0
        eventually(lambda: not any(alive(pid) for pid in started))


# A shell with job control: a process group without one is not stopped by the kernel.
SCRIPT = """set -m
"$@"
echo "shell: $?"
read -r line
fg > /dev/null
echo "shell: $?"
"""


class Terminal:
    """A server that a shell runs in the foreground of a terminal."""

    def __init__(self, *args: str) -> None:
        self.fd, theirs = pty.openpty()
        self._shell = subprocess.Popen(
            [
                *["/usr/bin/setsid", "--ctty", "/bin/sh", "-c", SCRIPT, "sh"],
                *command("run", "127.0.0.1:0", "--workers", "1", *args),
            ],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(),
        )
        os.close(theirs)
        self.seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def wait_for(self, text: bytes) -> None:
        def found() -> bool:
            while select.select([self.fd], [], [], 0)[0]:
                try:
                    self.seen += os.read(self.fd, 65536)
                except OSError:
                    # Nobody has the terminal open any more.
                    break
            return text in self.seen

        eventually(found, within_s=20, what=f"{text!r} in {self.seen!r}")

    def pids(self) -> list[int]:
        """Return the pids of supervisor and worker."""
        return [each.pid for each in psutil.Process(self._shell.pid).children(recursive=True)]

    def close(self) -> None:
        pids = self.pids()
        self._shell.kill()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self._shell.wait(5)
        os.close(self.fd)


@contextmanager
def terminal(*args: str) -> Iterator[Terminal]:
    made = Terminal(*args)
    try:
        made.wait_for(b"Listening on")
        yield made
    finally:
        made.close()


def test_ctrl_z_stops_server_and_workers_until_they_are_continued() -> None:
    with terminal() as shell:
        pids = shell.pids()
        assert len(pids) == 2
        # What is no key of a terminal's stops no worker.
        os.kill(pids[1], signal.SIGTSTP)
        shell.type(b"\x1a")
        shell.wait_for(b"shell: 148")
        assert all(is_stopped(pid) for pid in pids)
        shell.type(b"\n")
        eventually(lambda: not any(is_stopped(pid) for pid in pids))
        shell.type(b"\x03")
        shell.wait_for(b"shell: 0")
        assert b"Traceback" not in shell.seen


def test_ctrl_c_on_a_terminal_drains() -> None:
    with terminal() as shell:
        shell.type(b"\x03")
        shell.wait_for(b"shell: 0")
        assert b"Traceback" not in shell.seen


def test_a_worker_in_the_background_of_a_terminal_still_logs() -> None:
    """With `stty tostop`, a write in the background is answered by SIGTTOU, again and again."""
    with terminal(*TELLING) as shell:
        address = re.search(rb"Listening on 127\.0\.0\.1:(\d+)", shell.seen)
        assert address is not None
        subprocess.run(["/bin/stty", "tostop"], stdin=shell.fd, check=True, timeout=10)
        server = Running.__new__(Running)
        server.host, server.port, server.path = "127.0.0.1", int(address[1]), None
        assert reversed_by(server) == b"olleH"
        shell.wait_for(b"[Worker 0] RPC system started")
        shell.wait_for(b"finished cleanly")


@pytest.mark.parametrize(
    "modules", [1, 10, *(pytest.param(each, marks=pytest.mark.nightly) for each in (0, 3, 20))]
)
def test_an_early_ctrl_c_prints_no_traceback(modules: int, tmp_path: Path) -> None:
    """It comes when so many modules of ours and others were imported after `server.__main__`."""
    (tmp_path / "sitecustomize.py").write_text(
        f"""
import os, signal, sys
class Interrupting:
    count = -1
    def find_spec(self, name, *_):
        if self.count >= 0 or name == "capnp_rig.server.cli":
            self.count += 1
            if self.count == {modules} + 1:
                os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
"""
    )
    result = subprocess.run(
        command("run", "127.0.0.1:0", "--workers", "1"),
        capture_output=True,
        env={**environment(), "PYTHONPATH": str(tmp_path)},
        timeout=20,
        check=False,
    )
    assert (result.returncode, result.stderr) == (130, b"")
