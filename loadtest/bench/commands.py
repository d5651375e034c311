"""Modules that run as commands: those of the rig that print a value or serve, and Locust."""

import json
import socket
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capnp_rig.loadtest.bench.rounds import BenchError
from capnp_rig.loadtest.engine.child_process import child_environment, kept_alive, module_command
from capnp_rig.rigcli.malloc_settings import with_malloc_settings

# Locust's own start and end, on a busy machine.
_GRACE_S = 30.0


def json_output(
    module: str,
    *arguments: str,
    within_s: float,
    cpus: Collection[int] | None = None,
    **environment: str,
) -> Any:
    """Run a module and return the JSON value that it prints; `cpus` are the only ones it may use.

    Raises:
        BenchError: It failed, and the message has the end of what it printed, or took too long.
    """
    what = " ".join((module.rpartition(".")[2], *arguments))
    with kept_alive(
        module_command(module, *arguments, cpus=cpus),
        env=child_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            output, errors = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{what} did not end in {within_s:g} s") from error
    if process.returncode:
        raise BenchError(f"{what} failed:\n{tail(errors)}")
    return json.loads(output)


@contextmanager
def serving(
    module: str, *arguments: str, log: Path, cpus: Collection[int] | None = None
) -> Iterator[tuple[str, int]]:
    """Run a module that serves on a listening socket, and end it with the block.

    It gets the socket's number as its first argument, and then `arguments`. Yields the address on
    loopback and the id of the process; what it prints on stderr is added to the file `log`.
    """
    # Whoever connects before it serves waits in the socket's backlog.
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as listener,
        log.open("ab") as stream,
        kept_alive(
            module_command(module, str(listener.fileno()), *arguments, cpus=cpus),
            env=with_malloc_settings(child_environment()),
            pass_fds=[listener.fileno()],
            stderr=stream,
        ) as process,
    ):
        yield f"127.0.0.1:{listener.getsockname()[1]}", process.pid


def tail(output: bytes) -> str:
    """Return the last lines of what a process has printed, for a message."""
    return "\n".join(output.decode(errors="replace").splitlines()[-20:])


def run_locust(
    *arguments: str, log: Path, seconds: float, cpus: Collection[int] | None = None
) -> int:
    """Run Locust, which is told to load for so many seconds, and return its exit status.

    What it prints goes into the file `log`; `cpus` are the only ones it may use, None for all.

    Raises:
        BenchError: It does not end in time.
    """
    with (
        log.open("wb") as stream,
        kept_alive(
            module_command("locust", *arguments, cpus=cpus),
            env=child_environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            return process.wait(seconds + _GRACE_S)
        except subprocess.TimeoutExpired as error:
            raise BenchError("Locust did not end in time") from error
