"""Cut a byte stream into messages, and put the segment table in front of one.

A frame (https://capnproto.org/encoding.html#serialization-over-a-stream) starts with
a table: the number of segments minus one, then the size of each in words, all
unsigned 32-bit little-endian, padded to a whole word. The segments follow.

Sizes are checked as soon as the table is complete, before anything is allocated
for the body, so that a header which announces much costs nothing. Of a frame over the limit its
beginning may be read (`head_bytes`), and the rest is then dropped as it comes (`skip`).
"""

import struct
from collections.abc import Generator
from dataclasses import dataclass
from typing import Self

from capnp_rig.wire.encoding.foreign_protocols import hint
from capnp_rig.wire.encoding.pointers import TRAVERSAL_LIMIT_WORDS, Buffer, Message
from capnp_rig.wire.errors import FrameTooLarge, NotAFrame

_u32_at = struct.Struct("<I").unpack_from
_table_at = struct.Struct("<II").unpack_from

# How large a message may be by default, and what may be set instead.
MESSAGE_BYTES = 4_194_304
LEAST_MESSAGE_BYTES, MOST_MESSAGE_BYTES = 65_536, 536_870_912


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """What a frame may hold: words over all segments, the table included, and segments.

    512 segments and more are refused by every implementation (capnp/serialize.c++). `raised_by`
    names what sets the limit of words, for who meets it.
    """

    max_words: int = MESSAGE_BYTES >> 3
    max_segments: int = 511
    traversal_words: int = TRAVERSAL_LIMIT_WORDS
    raised_by: str = ""

    def __post_init__(self) -> None:
        if not 1 < self.max_words < 2**28:
            raise ValueError(f"max_words must be 2 to {2**28 - 1}, not {self.max_words}")
        if not 1 <= self.max_segments <= 511:
            raise ValueError(f"max_segments must be 1 to 511, not {self.max_segments}")
        if self.traversal_words < 1:
            raise ValueError(f"traversal_words must be positive, not {self.traversal_words}")

    @classmethod
    def of_message(cls, max_message_bytes: int, raised_by: str = "") -> Self:
        """Return limits for messages of up to so many bytes; each can be read four times over.

        Raises:
            ValueError: It is not 64 KiB to 512 MiB.
        """
        if not LEAST_MESSAGE_BYTES <= max_message_bytes <= MOST_MESSAGE_BYTES:
            raise ValueError(
                f"the limit of a message must be 64 KiB to 512 MiB, not {max_message_bytes} bytes"
            )
        return cls(
            max_words=max_message_bytes >> 3,
            traversal_words=max(TRAVERSAL_LIMIT_WORDS, max_message_bytes >> 1),
            raised_by=raised_by,
        )

    def too_large(self, words: int, what: str = "message") -> str:
        """Return what is wrong with a message of so many words."""
        how = f" ({self.raised_by})" if self.raised_by else ""
        return f"{what} is too large: {words * 8} bytes, the limit is {self.max_words * 8}{how}"


DEFAULT_LIMITS = FrameLimits()
# With a table of 511 segments. What is larger is meant for nobody.
_MOST_SKIPPED_BYTES = MOST_MESSAGE_BYTES + 2056


class FrameDecoder:
    """Takes received bytes in any portions, gives whole messages.

    The only thing kept between calls is the frame that is partly here. Of one over the limit the
    first `head_bytes` are awaited before `FrameTooLarge` is raised, unless it could be under no
    limit that may be set.
    """

    __slots__ = ("_carry", "_head_bytes", "_limits", "_max_words", "_need", "_traversal_words")

    def __init__(self, limits: FrameLimits = DEFAULT_LIMITS, head_bytes: int = 0) -> None:
        self._limits = limits
        self._head_bytes = head_bytes
        self._max_words = limits.max_words
        self._traversal_words = limits.traversal_words
        self._carry = bytearray()
        # How many bytes `_carry` must hold before it is worth looking at again.
        self._need = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes of the frame that is partly here."""
        return len(self._carry)

    @property
    def bytes_to_skip(self) -> int:
        """Bytes that are still to come of a frame that is dropped."""
        return 0

    def feed(self, data: Buffer) -> Generator[Message]:
        """Yield the messages that `data` completes, in order.

        The messages point into `data`, or into a copy where a frame came in parts;
        they are valid as long as `data` is. A caller that stops early closes the
        generator: what it did not take is kept, and comes with the next call.

        Raises:
            FrameTooLarge, NotAFrame: A table is over a limit. Nothing more can be read.
        """
        buffer = self.begin(data)
        at, size = 0, len(buffer)
        try:
            while at < size:
                message = self.cut(buffer, at, size)
                if message is None:
                    break
                at = message.bounds[-1][1]
                yield message
        finally:
            self.keep(buffer, at, size)

    # `feed` in three steps, for a caller that decodes some frames itself.

    def begin(self, data: Buffer) -> Buffer:
        """Return the bytes to look at: `data` behind what was kept, nothing while that is short."""
        if not self._carry:
            self._need = 0
            return data
        self._carry += data
        if len(self._carry) < self._need:
            return b""
        # The messages take over the bytes: a long frame is copied once, not twice.
        buffer, self._carry, self._need = self._carry, bytearray(), 0
        return buffer

    def cut(self, buffer: Buffer, at: int, size: int) -> Message | None:
        """Return the message that starts at `at`, or None while it is incomplete.

        Raises:
            FrameTooLarge, NotAFrame: Its table is over a limit.
        """
        if size - at >= 8:
            extra, words = _table_at(buffer, at)
            end = at + 8 + words * 8
            if not extra and words < self._max_words and end <= size:
                return Message(buffer, ((at + 8, end),), self._traversal_words)
        bounds = self._measure(buffer, at, size)
        return None if bounds is None else Message(buffer, bounds, self._traversal_words)

    def keep(self, buffer: Buffer, at: int, size: int) -> None:
        """Keep the bytes from `at` on for the next `begin`."""
        if at < size:
            self._carry += buffer[at:size]
            self._need -= at

    def skip(self, at: int, size: int, frame_bytes: int) -> int:
        """Drop the frame at `at`, which may be here in part; return where the next one starts."""
        end = at + frame_bytes
        if end <= size:
            return end
        self._need = end - size
        self.__class__ = _Skipping
        return size

    def _measure(self, data: Buffer, at: int, size: int) -> tuple[tuple[int, int], ...] | None:
        """Return the bounds of the segments of the frame at `at`, or None while it is incomplete.

        Sets `_need` to the position in `data` that must be reached first.
        """
        if size - at < 8:
            self._need = at + 8
            if size - at >= 4:
                self._segment_count(data, at)
            return None
        extra, words = _table_at(data, at)
        if not extra:
            start = at + 8
            end = start + words * 8
            if words >= self._max_words:
                self._refuse(at, size, ((start, end),))
                return None
            self._need = end
            return ((start, end),) if end <= size else None
        return self._measure_many(data, at, size)

    def _measure_many(self, data: Buffer, at: int, size: int) -> tuple[tuple[int, int], ...] | None:
        count = self._segment_count(data, at)
        table_words = count // 2 + 1
        start = self._need = at + table_words * 8
        if start > size:
            return None
        bounds = []
        for index in range(count):
            (words,) = _u32_at(data, at + 4 + 4 * index)
            bounds.append((start, start + words * 8))
            start += words * 8
        if start - at > 8 * self._max_words:
            self._refuse(at, size, tuple(bounds))
            return None
        self._need = start
        return tuple(bounds) if start <= size else None

    def _segment_count(self, data: Buffer, at: int) -> int:
        count: int = _u32_at(data, at)[0] + 1
        if count > self._limits.max_segments:
            start = bytes(data[at : at + 16])
            reason = f"message has {count} segments, the limit is {self._limits.max_segments}"
            raise NotAFrame(reason + hint(start), start)
        return count

    def _refuse(self, at: int, size: int, bounds: tuple[tuple[int, int], ...]) -> None:
        """Wait for the beginning of a frame over the limit, then raise.

        Raises:
            FrameTooLarge: It is here, or is not to be read.
        """
        frame_bytes = bounds[-1][1] - at
        reason = self._limits.too_large(frame_bytes >> 3)
        if not self._head_bytes or frame_bytes > _MOST_SKIPPED_BYTES:
            raise FrameTooLarge(reason)
        self._need = head_end = at + min(self._head_bytes, frame_bytes)
        if size >= head_end:
            here = tuple((min(start, head_end), min(end, head_end)) for start, end in bounds)
            raise FrameTooLarge(reason, here, frame_bytes)


class _Skipping(FrameDecoder):
    """A decoder while it drops a frame: `_need` bytes of that are still to come.

    A class of its own, so that no other read pays for the question.
    """

    __slots__ = ()

    @property
    def pending_bytes(self) -> int:
        """Not 0: a frame is partly here."""
        return 1

    @property
    def bytes_to_skip(self) -> int:
        """Bytes that are still to come of the frame."""
        return self._need

    def begin(self, data: Buffer) -> Buffer:
        """Return what of `data` is behind the frame."""
        to_skip = self._need
        if len(data) < to_skip:
            self._need -= len(data)
            return b""
        self._need = 0
        self.__class__ = FrameDecoder  # type: ignore[assignment]
        return data[to_skip:]
