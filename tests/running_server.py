"""Starts the server as a user would, watches it, and always takes it down."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from deadline import WITHIN_S, eventually

ROOT = Path(__file__).resolve().parent.parent
_LISTENING = re.compile(r"Listening on (?P<address>\S+) with \d+ workers\.\.\.")


# What a test needs that waits for the lines of a connection.
TELLING = ("--log-level", "debug")

# Engine and loop, as every behaviour of the server is tested.
ENGINES = [("wire", "uvloop"), ("wire", "asyncio"), ("pycapnp", "uvloop"), ("pycapnp", "asyncio")]


class Lines:
    """The lines of a stream, collected by a thread until it ends."""

    def __init__(self, fd: int) -> None:
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, args=[fd], daemon=True)
        self._thread.start()

    def _read(self, fd: int) -> None:
        with open(fd, errors="replace") as stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))

    def find(self, text: str) -> list[str]:
        return [line for line in tuple(self.lines) if text in line]

    def wait_for(self, text: str, *, count: int = 1, within_s: float = WITHIN_S) -> list[str]:
        eventually(
            lambda: len(self.find(text)) >= count,
            within_s=within_s,
            what=f"{count} x {text!r} in {self.lines[-20:]}",
        )
        return self.find(text)

    def join(self) -> list[str]:
        self._thread.join(5)
        return self.lines


class Running:
    """A started server."""

    def __init__(self, process: subprocess.Popen[bytes], out: Lines, err: Lines) -> None:
        self.process = process
        self.pid = process.pid
        self.out = out
        self.err = err
        self.host = "127.0.0.1"
        self.port: int | None = None
        self.path: str | None = None

    def locate(self, address: str) -> None:
        if address.startswith("unix:"):
            self.path = address.removeprefix("unix:")
            return
        host, _, port = address.rpartition(":")
        self.host, self.port = host.strip("[]"), int(port)

    def workers(self) -> list[int]:
        """Return the pids of the workers, oldest first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.pid).children()
            return [c.pid for c in sorted(children, key=lambda c: c.create_time())]
        return []

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, within_s: float = WITHIN_S) -> int:
        return self.process.wait(within_s)

    def refuses(self) -> bool:
        """Return whether nobody listens at its port any more."""
        try:
            socket.create_connection((self.host, self.port), 5).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:  # It was closed between our SYN and its accept.
            pass
        return False


def command(*args: str) -> list[str]:
    return [sys.executable, "-P", "-m", "capnp_rig.server", *args]


def environment() -> dict[str, str]:
    return dict(os.environ)


@contextmanager
def running_server(
    *args: str,
    address: str = "127.0.0.1:0",
    cwd: Path | None = None,
    fd_limit: int | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    starter: Sequence[str] = (),
) -> Iterator[Running]:
    """Start ``server run``, wait until it listens, and kill what is left of it in the end.

    It has our environment, and the variables of `env`. A `starter` is a program that becomes the
    command that follows it.
    """
    limit = [] if fd_limit is None else ["prlimit", f"--nofile={fd_limit}:{fd_limit}"]
    process = subprocess.Popen(
        [*limit, *starter, *command("run", address, *args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment() | dict(env or {}),
        cwd=cwd,
        pass_fds=pass_fds,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    server = Running(
        process, Lines(os.dup(process.stdout.fileno())), Lines(os.dup(process.stderr.fileno()))
    )
    workers: Sequence[int] = []
    try:
        line = eventually(
            lambda: server.out.find("Listening on ") or process.poll() is not None, within_s=40
        )
        assert isinstance(line, list), f"exited {process.returncode}: {server.err.join()}"
        match = _LISTENING.search(line[0])
        assert match is not None
        server.locate(match["address"])
        workers = server.workers()
        yield server
    finally:
        workers = [*workers, *server.workers()]
        process.kill()
        process.wait(5)
        process.stdout.close()
        process.stderr.close()
        eventually(lambda: not any(alive(pid) for pid in workers), what="workers gone")
        server.out.join()
        server.err.join()


def alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be reaped does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def run_to_end(*args: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command line that ends by itself."""
    return subprocess.run(
        command(*args),
        capture_output=True,
        text=True,
        timeout=40,
        env=environment(),
        cwd=cwd,
        check=False,
    )


def elapsed_s(since_s: float) -> float:
    return time.monotonic() - since_s
