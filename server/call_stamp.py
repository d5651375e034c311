"""Which connection's call a worker is in, in memory that outlives it.

The supervisor makes a page per worker and reads it after the worker's death: the connection
that was being served then is the one to blame. The page has two numbers of 64 bits: the
connection (0 for none) and how often that connection has been served. An engine writes them
around the bytes that it serves, 60 ns each time, and around every step of an async method.
"""

import mmap
import os
import struct
from collections.abc import Coroutine, Generator, MutableSequence
from types import coroutine
from typing import Any

CONNECTION, READS = 0, 1
# A view of the page; a list where nobody asks.
Stamp = MutableSequence[int] | memoryview
# As the worker's view has them: native.
_LAYOUT = struct.Struct("=2Q")
_SIZE_BYTES = _LAYOUT.size


class StampPage:
    """The supervisor's end, with the descriptor for the worker."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("capnp-rig-call", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.fd, _SIZE_BYTES)
        except OSError:
            os.close(self.fd)
            raise

    def read(self) -> tuple[int, int]:
        """Return the connection that is served, 0 for none, and its reads so far."""
        data = os.pread(self.fd, _SIZE_BYTES, 0)
        connection, reads = _LAYOUT.unpack(data)
        return connection, reads

    def close(self) -> None:
        """Free the page."""
        os.close(self.fd)


def open_stamp(fd: int) -> memoryview:
    """Return the worker's view of its page; `fd` is closed."""
    try:
        return memoryview(mmap.mmap(fd, _SIZE_BYTES)).cast("Q")
    finally:
        os.close(fd)


def no_stamp() -> Stamp:
    """Return a stamp that nobody reads."""
    return [0, 0]


@coroutine
def stamped(
    work: Coroutine[Any, Any, Any], stamp: Stamp, connection: int, reads: int
) -> Generator[Any, Any, Any]:
    """Await `work`, with the stamp set while it runs and not while it waits."""
    resume: Any = work.send
    argument: Any = None
    while True:
        stamp[CONNECTION], stamp[READS] = connection, reads
        try:
            waited_for = resume(argument)
        except StopIteration as end:
            return end.value
        finally:
            stamp[CONNECTION] = 0
        try:
            argument = yield waited_for
            resume = work.send
        except BaseException as error:  # noqa: BLE001 - passed on: a cancellation, or the loop's end
            argument, resume = error, work.throw
