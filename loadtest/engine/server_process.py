"""The server, started as a command, as a user would, and the CPU time of its processes."""

import re
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from capnp_rig.loadtest.engine.child_process import (
    child_environment,
    kept_alive,
    last_line,
    module_command,
)
from capnp_rig.loadtest.engine.server_usage import WatchedProcess

_LISTENING = re.compile(r"Listening on (?P<address>\S+) with \d+ workers?")
_READY_S = 15.0


class ServerFailed(Exception):
    """The server did not start; the message says what it printed."""


class ServerProcess:
    """A running server: its `address`, and what it costs."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: str) -> None:
        self.address = address
        self._process = psutil.Process(process.pid)

    def worker_rss_bytes(self) -> int:
        """Return the memory that the workers hold now."""
        workers = self._process.children(recursive=True)
        return sum(int(worker.memory_info().rss) for worker in workers)

    def worker_cpu_s(self) -> float:
        """Return the CPU time that the workers have used so far."""
        workers = self._process.children(recursive=True)
        return sum(sum(worker.cpu_times()[:2]) for worker in workers)

    def kill(self) -> None:
        """Kill all of its processes at once, as ``kill -9`` does."""
        # The supervisor first: else it would start the workers anew.
        for process in [self._process, *self._process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def await_connections(self, count: int) -> None:
        """Return when the workers have at least `count` connections open.

        Raises:
            ServerFailed: They have not within 15 s.
        """
        deadline_s = time.monotonic() + _READY_S
        while True:
            workers = self._process.children(recursive=True)
            if sum(worker.num_fds() for worker in workers) >= count:
                return
            if time.monotonic() > deadline_s:
                raise ServerFailed(f"the server did not take {count} connections")
            time.sleep(0.05)

    def parts(self) -> list[WatchedProcess]:
        """Return its processes as they are now."""
        workers = self._process.children(recursive=True)
        named = [
            WatchedProcess(f"worker {number}", worker) for number, worker in enumerate(workers)
        ]
        return [WatchedProcess("supervisor", self._process), *named]


@contextmanager
def running_server(
    *,
    workers: int,
    log: Path,
    options: Sequence[str] = (),
    cpus: Collection[int] | None = None,
    ends_with_us: bool = False,
) -> Iterator[ServerProcess]:
    """Start a server on a free port of loopback, and end it with the block.

    What it prints goes to the file `log`; `options` are those of ``server run``; `cpus` are the
    only ones it may use, None for all of ours. With `ends_with_us` it ends even where this process
    is killed.

    Raises:
        ServerFailed: It does not announce itself within 15 s.
    """
    defaults = ["127.0.0.1:0", "--workers", str(workers), "--log-level", "warning"]
    command = module_command("capnp_rig.server", "run", *defaults, *options, cpus=cpus)
    with announced_server([*_bound(ends_with_us), *command], log) as server:
        yield server


@contextmanager
def announced_server(
    command: Sequence[str], log: Path, **environment: str
) -> Iterator[ServerProcess]:
    """Start a command that announces its address as ``server run`` does; end it with the block.

    What it prints on stderr goes to the file `log`; `environment` is added to ours.

    Raises:
        ServerFailed: It does not announce itself within 15 s.
    """
    with (
        log.open("wb") as stream,
        kept_alive(
            command,
            env=child_environment(**environment),
            stdout=subprocess.PIPE,
            stderr=stream,
        ) as process,
    ):
        assert process.stdout is not None
        address = _await_address(process, log)
        # Its further lines must not fill the pipe; at this level there are next to none.
        threading.Thread(target=_drain, args=[process.stdout], daemon=True).start()
        yield ServerProcess(process, address)


def _bound(ends_with_us: bool) -> list[str]:
    # The kernel then sends it SIGTERM when the thread that started it is gone.
    return ["setpriv", "--pdeathsig", "TERM"] if ends_with_us else []


def _await_address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    assert process.stdout is not None
    # A line is waited for by a timer that ends the process: reading then meets the end.
    timer = threading.Timer(_READY_S, process.kill)
    started_s = time.monotonic()
    try:
        # Within: a signal that raises while the thread starts would leave it behind.
        timer.start()
        for line in process.stdout:
            match = _LISTENING.search(line.decode(errors="replace"))
            if match is not None:
                return match["address"]
    finally:
        timer.cancel()
    if time.monotonic() - started_s >= _READY_S:
        raise ServerFailed(f"the server was not ready within {_READY_S:.0f} s")
    raise ServerFailed(f"the server did not start: {last_line(log)}")


def _drain(stream: IO[bytes]) -> None:
    for _ in stream:
        pass
