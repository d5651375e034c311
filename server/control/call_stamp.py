"""Records in which connection's call a worker is, in memory that outlives the worker.

The supervisor makes a page per worker and reads it after the worker's death: the connection that
was being served then is to blame. The page holds one number of 64 bits, the mark: the connection
and how often it has been served, or 0 for none. An engine writes the mark before it serves bytes
and 0 afterwards, and likewise around every step of an async method. It is one number because each
store takes a hundredth of the time of a small call.
"""

import mmap
import os
import struct
from collections.abc import Coroutine, Generator, MutableSequence
from types import coroutine
from typing import Any

MARK = 0
# What a mark has room for. A connection with more reads is not young (`supervision.quarantine`).
MAX_READS = 255
_READS_BITS = 8
# A view of the page; a list of one number where nobody reads it.
Stamp = MutableSequence[int] | memoryview
# As the worker's view has them: native.
_LAYOUT = struct.Struct("=Q")
_SIZE_BYTES = _LAYOUT.size


def mark_of(connection: int, reads: int) -> int:
    """Return the mark of a connection, a number above 0, that is served for the `reads`th time."""
    return connection << _READS_BITS | min(reads, MAX_READS)


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
        """Return the connection that is served, 0 for none, and its reads, `MAX_READS` at most."""
        (mark,) = _LAYOUT.unpack(os.pread(self.fd, _SIZE_BYTES, 0))
        return mark >> _READS_BITS, mark & MAX_READS

    def close(self) -> None:
        """Free the page."""
        os.close(self.fd)


def open_stamp(fd: int) -> memoryview:
    """Return the worker's view of its page; `fd` is closed."""
    try:
        return memoryview(mmap.mmap(fd, _SIZE_BYTES)).cast("Q")
    finally:
        os.close(fd)


@coroutine
def stamped(work: Coroutine[Any, Any, Any], stamp: Stamp, mark: int) -> Generator[Any, Any, Any]:
    """Await `work`, with the stamp set while it runs and not while it waits."""
    resume: Any = work.send
    argument: Any = None
    while True:
        stamp[MARK] = mark
        try:
            waited_for = resume(argument)
        except StopIteration as end:
            return end.value
        finally:
            stamp[MARK] = 0
            # Its traceback holds this frame.
            argument = None
        try:
            argument = yield waited_for
            resume = work.send
        except BaseException as error:  # noqa: BLE001 - passed on: a cancellation, or the loop's end
            argument, resume = error, work.throw
