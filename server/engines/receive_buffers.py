"""The buffer that all connections of a worker receive into, and those that a service still holds.

What a service keeps of a call's Data shows the bytes where they were received. They must not
change, so a read may only go into a buffer that no view shows. A `bytearray` that a view shows
refuses to be resized, and there is no other way to ask it (a released memoryview leaves its slices
readable). So the buffer is resized once before each read, unless its reference count shows that
there is no view; the count takes a quarter of the time.

A buffer that a view still shows is given away, and another one takes its place. At most
`_MAX_HELD` are given away at a time. Beyond that each read is copied, so that a kept view holds its
own read and no more. A small read is always copied, which costs less than to ask.
"""

from collections import deque
from sys import getrefcount

from capnp_rig.server.logs.log import Log
from capnp_rig.wire.encoding.pointers import Buffer

# As large as Linux lets a default TCP receive buffer become useful in one read.
RECEIVE_BYTES = 262_144
# 16 MiB.
_MAX_HELD = 64
# Where a copy takes as long as what it spares.
SMALL_BYTES = 16_384


class ReceiveBuffers:
    """Hands out room for a read, then what was read."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.current = _new_buffer()
        # Its references, counted as in `room`: what the counting adds is up to the interpreter.
        self._free_count = getrefcount(self.current)
        # Nobody looks at `current`, nor at any other: all reads since it was found free were
        # small. Then `current` is the room for the next read, without a call in every read.
        self.is_free = True
        self._held: deque[bytearray] = deque()
        self._is_told = False

    @property
    def held(self) -> int:
        """How many buffers were given away and are not known to be free again."""
        return len(self._held)

    def room(self) -> bytearray:
        """Return a buffer that nobody looks at."""
        if self._held:
            self._look()
        if getrefcount(self.current) > self._free_count and not _is_free(self.current):
            self._replace()
        self.is_free = not self._held
        return self.current

    def view(self, _size_hint: int) -> memoryview:
        """Return room as a view: asyncio's TLS fills slices of it, and a bytearray's are copies."""
        return memoryview(self.current if self.is_free else self.room())

    def received(self, size: int) -> Buffer:
        """Return the first `size` bytes of the buffer handed out last; release a memoryview.

        What is kept of them never changes.
        """
        if size <= SMALL_BYTES or len(self._held) >= _MAX_HELD:
            return self.current[:size]
        self.is_free = False
        return memoryview(self.current)[:size]

    def _look(self) -> None:
        """Look at one buffer that was given away; forget it if it is free by now."""
        buffer = self._held.popleft()
        if not _is_free(buffer):
            self._held.append(buffer)

    def _replace(self) -> None:
        """Give away the buffer, which views still hold; take another one."""
        self._held.append(self.current)
        self.current = _new_buffer()
        if len(self._held) >= _MAX_HELD and not self._is_told:
            self._is_told = True
            self._log.warning(
                f"the service keeps Data of its calls: {_MAX_HELD} receive buffers are held, and "
                "each read is copied from now on"
            )


def _new_buffer() -> bytearray:
    # With room for one byte more, so that `_is_free` does not move it.
    buffer = bytearray(RECEIVE_BYTES + 1)
    buffer.pop()
    return buffer


def _is_free(buffer: bytearray) -> bool:
    """Return whether nothing exports `buffer`."""
    try:
        buffer.pop()
    except BufferError:
        return False
    buffer.append(0)
    return True
