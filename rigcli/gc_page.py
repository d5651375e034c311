"""What the garbage collector costs a process, in a page of memory that others can read.

A collection stops the whole process, so it belongs beside the latencies of its moment. A `GcPage`
is an anonymous file of the kernel's (memfd), which those who may inspect the process find under
``/proc/PID/fd``: nothing is left behind when the process ends, however it does. The server's
workers have one, and so has each process of the load generator, which is why `loadtest` imports
this module: both must agree on the layout.

Nothing runs unless a collection does; then it adds 1.2 µs to it.
"""

import gc
import mmap
import os
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_NAME = "capnp-rig-gc"
_LINK = f"/memfd:{_NAME} (deleted)"
# Collections, ns of all pauses, ns of the longest.
_LAYOUT = struct.Struct("<3Q")
# A page is made before any connection, so its descriptor is one of the first.
_FIRST_FDS = range(64)


@dataclass(frozen=True, slots=True)
class GcUse:
    """Collections since the page was made: how many, and their pauses, all and the longest."""

    count: int
    pause_ns: int
    longest_ns: int

    def since(self, before: "GcUse") -> "GcUse":
        """Return what came after `before`; `longest_ns` 0 unless it is longer than all before."""
        longest_ns = self.longest_ns if self.longest_ns > before.longest_ns else 0
        return GcUse(self.count - before.count, self.pause_ns - before.pause_ns, longest_ns)


class GcPage:
    """Counts the collections of this process from now on; `close` ends that.

    Raises:
        OSError: The kernel gives no such page.
    """

    def __init__(self) -> None:
        fd = os.memfd_create(_NAME, os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, _LAYOUT.size)
            # It keeps a descriptor of its own, by which the page is found.
            self._page = mmap.mmap(fd, _LAYOUT.size)
        finally:
            os.close(fd)
        self._count = self._pause_ns = self._longest_ns = 0
        self._started_ns = time.perf_counter_ns()
        gc.callbacks.append(self._note)

    @property
    def use(self) -> GcUse:
        """What there was so far."""
        return GcUse(self._count, self._pause_ns, self._longest_ns)

    def close(self) -> None:
        """Count no more, and free the page."""
        gc.callbacks.remove(self._note)
        self._page.close()

    def _note(self, phase: str, _info: Mapping[str, int]) -> None:
        if phase == "start":
            self._started_ns = time.perf_counter_ns()
            return
        pause_ns = time.perf_counter_ns() - self._started_ns
        self._count += 1
        self._pause_ns += pause_ns
        self._longest_ns = max(self._longest_ns, pause_ns)
        _LAYOUT.pack_into(self._page, 0, self._count, self._pause_ns, self._longest_ns)


def publish_gc() -> GcPage | None:
    """Return a new page of this process, None where the kernel gives none."""
    try:
        return GcPage()
    except OSError:
        return None


def read_gc(pid: int) -> GcUse | None:
    """Return what a process has published; None where it has not, or may not be looked into."""
    for fd in _FIRST_FDS:
        link = Path(f"/proc/{pid}/fd/{fd}")
        try:
            if str(link.readlink()) == _LINK:
                return GcUse(*_LAYOUT.unpack(link.read_bytes()))
        except FileNotFoundError:
            # A descriptor that is not in use; or the process is gone, which is soon found out.
            continue
        except (OSError, struct.error):
            return None
    return None
