"""A timer of an event loop that is late by microseconds, and costs nothing while it waits (Linux).

The loops' own timers step by a millisecond. Turns that spin until something is due, as the engine
takes them, are no way here: the client under test has threads of its own, which would wait for the
same CPU.
"""

import asyncio
import ctypes
import os
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

_IS_ABSOLUTE = 1
_NOTHING = (0, 0)


class PreciseTimer:
    """Calls `wake` on the running loop at the instant that was last set, once."""

    def __init__(self, wake: Callable[[], object]) -> None:
        """Make one that is not set; `with` closes it."""
        self._loop = asyncio.get_running_loop()
        self._libc = ctypes.CDLL(None, use_errno=True)
        # Python has no `os.timerfd_create` before 3.13.
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self._fd = self._checked(self._libc.timerfd_create(time.CLOCK_MONOTONIC, flags))
        self._wake = wake

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def __enter__(self) -> Self:
        self._loop.add_reader(self._fd, self._expire)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def set(self, at_ns: int) -> None:
        """Wake at `at_ns` of the monotonic clock, at once if that is past."""
        # No time at all would stop it.
        instant = divmod(max(at_ns, 1), 1_000_000_000)
        setting = struct.pack("=4q", *_NOTHING, *instant)
        self._checked(self._libc.timerfd_settime(self._fd, _IS_ABSOLUTE, setting, None))

    def _expire(self) -> None:
        os.read(self._fd, 8)
        self._wake()
