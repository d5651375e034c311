"""Records what a worker is doing, in memory that outlives the worker and that it never waits for.

The supervisor makes a page per worker and reads it while the worker cannot answer, and after its
death. It holds numbers of 64 bits:

- `MARK`: the connection that is being served and how often it has been, or 0 for none. Whose call
  a worker died in is to blame. An engine writes it before it serves bytes and 0 afterwards, and
  likewise around every step of an async method.
- `RESUMES`: the steps of calls that began none, but went on after a wait.
- `RUNNING`: the async calls in flight.
- `METHODS`: the highest number of a method.
- from `STEPS` on, for each method by its number, its latest step: all steps of all calls are
  counted together, and one store of 60 ns writes the count there when a step begins. So the
  highest of them is the step that runs, in the method whose it is, as long as there is a mark; and
  one that stands is a method that works on. The worker reads no clock for that: the supervisor
  looks every beat.
- from `NAMES` on, the names of the methods.
- from `COUNTS` on, what `control.counts` has: nothing without `--metrics`.

The worker's side of the methods is `server.engines.method_stamps`.
"""

import mmap
import os
import struct
from collections.abc import MutableSequence
from dataclasses import dataclass

from capnp_rig.server.control.counts import (
    METHOD_WORDS,
    WORKER_WORDS,
    WorkerCounts,
    read_counts,
)

MARK, RESUMES, RUNNING, METHODS = range(4)
STEPS = 8
# Those beyond share the number 0, which has no name.
MAX_METHODS = 1_000
NAMES = STEPS + MAX_METHODS + 1
NAME_WORDS = 8
# What a mark has room for. A connection with more reads is not young (`supervision.quarantine`).
MAX_READS = 255
_READS_BITS = 8
# A view of the page; a list of numbers where nobody reads it.
Stamp = MutableSequence[int] | memoryview
# As the worker's view has them: native.
_HEAD = struct.Struct("=4Q")
_WORD_BYTES = 8
COUNTS = NAMES + NAME_WORDS * (MAX_METHODS + 1)
_COUNT_WORDS = WORKER_WORDS + METHOD_WORDS * (MAX_METHODS + 1)
# Those that nobody writes take no memory.
_SIZE_BYTES = _WORD_BYTES * (COUNTS + _COUNT_WORDS)


def mark_of(connection: int, reads: int) -> int:
    """Return the mark of a connection, a number above 0, that is served for the `reads`th time."""
    return connection << _READS_BITS | min(reads, MAX_READS)


def unwatched() -> list[int]:
    """Return a stamp that nobody reads."""
    return [0] * (_SIZE_BYTES // _WORD_BYTES)


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker is doing: `step` is that of a call that it is in, of the method numbered so.

    `step` is 0 if it is in none. `calls` is how many have begun in its life, `running` how many
    `async` ones have not ended.
    """

    step: int = 0
    method: int = 0
    calls: int = 0
    running: int = 0

    @property
    def unfinished(self) -> int:
        """The calls that are lost if it is killed now."""
        return max(self.running, int(self.step > 0))


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
        mark = self._head()[MARK]
        return mark >> _READS_BITS, mark & MAX_READS

    def work(self) -> Work:
        """Return what the worker is doing."""
        mark, resumes, running, methods = self._head()
        size = _WORD_BYTES * (methods + 1)
        steps = memoryview(os.pread(self.fd, size, _WORD_BYTES * STEPS)).cast("Q").tolist()
        latest = max(steps)
        step = latest if mark else 0
        return Work(step, steps.index(latest), max(latest - resumes, 0), running)

    def method(self, number: int) -> str:
        """Return the name of a method."""
        start = _WORD_BYTES * (NAMES + NAME_WORDS * number)
        name = os.pread(self.fd, _WORD_BYTES * NAME_WORDS, start)
        return name.rstrip(b"\0").decode(errors="replace") or "a method"

    def counts(self) -> WorkerCounts:
        """Return what the worker has counted."""
        methods = self._head()[METHODS]
        size = _WORD_BYTES * (WORKER_WORDS + METHOD_WORDS * (methods + 1))
        words = memoryview(os.pread(self.fd, size, _WORD_BYTES * COUNTS)).cast("Q").tolist()
        names = [self.method(number) for number in range(methods + 1)]
        return read_counts(words, names)

    def close(self) -> None:
        """Free the page."""
        os.close(self.fd)

    def _head(self) -> tuple[int, ...]:
        return _HEAD.unpack(os.pread(self.fd, _HEAD.size, 0))


def open_stamp(fd: int) -> memoryview:
    """Return the worker's view of its page; `fd` is closed."""
    try:
        return memoryview(mmap.mmap(fd, _SIZE_BYTES)).cast("Q")
    finally:
        os.close(fd)
