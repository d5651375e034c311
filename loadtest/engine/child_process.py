"""Processes that the rig starts, and always ends, by their id."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from capnp_rig.loadtest.stats.failures import shown
from capnp_rig.rigcli.held_signals import HeldSignals
from capnp_rig.rigcli.source_path import importing

_TERMINATE_S = 5.0
_KILL_S = 5.0
_LAST_BYTES, _LAST_CHARS = 65_536, 1000


def child_environment(**changes: str) -> dict[str, str]:
    """Return this process's environment with `changes`, in which a bare checkout is importable."""
    return importing({**os.environ, **changes})


def module_command(module: str, *arguments: str, cpus: Collection[int] | None = None) -> list[str]:
    """Return the command that runs a module of the rig; `cpus` are the only ones it may use."""
    # Before it starts, so that all its threads are confined.
    confined = [] if cpus is None else ["taskset", "-c", ",".join(map(str, sorted(cpus)))]
    return [*confined, sys.executable, "-P", "-m", module, *arguments]


def last_line(log: Path) -> str:
    """Return the last line that a process has printed into a file, for a message."""
    with log.open("rb") as stream:
        # A server may have printed gigabytes.
        stream.seek(max(0, log.stat().st_size - _LAST_BYTES))
        lines = stream.read().decode(errors="replace").strip().splitlines()
    return shown(lines[-1], _LAST_CHARS) if lines else "it printed nothing"


@contextmanager
def kept_alive(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process, and end it with the block: asked first, killed after 5 s.

    It gets a session of its own, so that Ctrl-C reaches only us and we end it in order. What it
    leaves behind there is killed.
    Main thread only.
    """
    # A signal that unwound us within Popen would leave behind a process that nobody knows.
    held = HeldSignals()
    try:
        options.setdefault("stdin", subprocess.DEVNULL)
        process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - commands of our own
            command, start_new_session=True, **options
        )
    except BaseException:
        held.release()
        raise
    with process:
        try:
            held.release()
            yield process
        finally:
            # Nor may a second Ctrl-C stop us half-way.
            held = HeldSignals()
            end(process)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            held.release()


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process; one that has ended already is left alone."""
    if process.poll() is not None:
        return
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_TERMINATE_S)
        return
    process.kill()
    process.wait(_KILL_S)


class Terminated(BaseException):
    """SIGTERM came: unwind, so that what was started is ended."""


def number_of(stop: BaseException) -> int:
    """Return the signal that raised `stop`: that of a `Terminated`, or of a KeyboardInterrupt."""
    return signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT


@contextmanager
def unwinding_on_sigterm() -> Iterator[None]:
    """Make SIGTERM raise `Terminated` inside the block. Main thread only."""

    def unwind(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
