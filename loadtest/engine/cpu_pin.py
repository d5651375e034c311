"""Which CPU a process that makes load is pinned to, and the pinning.

Servers pin their workers from the first CPU on, so generators take the last one first.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

AUTO = "auto"


class PinError(ValueError):
    """The text names no CPUs; the message says what is expected."""


def two_cpus() -> tuple[int, int] | None:
    """Return the CPUs of server and generator, None where this process may use one only."""
    cpus = sorted(os.sched_getaffinity(0))
    return (cpus[0], cpus[-1]) if len(cpus) > 1 else None


def parse_pin(text: str) -> tuple[int, ...] | None:
    """Return the CPUs that are named, None for ``auto``.

    Raises:
        PinError: `text` is neither.
    """
    if text == AUTO:
        return None
    try:
        cpus = tuple(int(part) for part in text.split(","))
    except ValueError:
        cpus = ()
    if not cpus or min(cpus) < 0:
        raise PinError(f"bad CPU {text!r}: expected {AUTO}, or numbers such as 1 or 2,3")
    return cpus


def choose_cpu(pin: str, number: int, cpus: Sequence[int]) -> int:
    """Return the CPU of process `number`; `cpus` are those that it may use, at least one."""
    named = parse_pin(pin)
    return named[number % len(named)] if named else cpus[-1 - number % len(cpus)]


def pin_process(cpu: int) -> int | None:
    """Pin all threads of this process to `cpu`; return it, or None where that cannot be.

    Threads that start later inherit it from the thread that starts them.
    """
    try:
        os.sched_setaffinity(0, {cpu})
    except (OSError, ValueError):
        return None
    # That was the calling thread: others are there already, those of ZeroMQ for example.
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), {cpu})
    return cpu if os.sched_getaffinity(0) == {cpu} else None
