"""Follow Cap'n Proto pointers inside one message, refusing every one that leaves it.

Rules (https://capnproto.org/encoding.html#pointers): a pointer is one little-endian
64-bit word; its two lowest bits tell its kind.

    struct  offset:30 signed, counted from the word after the pointer | data:16 | pointers:16
    list    offset:30 signed | element size:3 | count:29 (words, for a composite list)
    far     two-word pad:1 | offset:29 from the start of a segment | segment:32
    other   a capability: index:32

Positions are byte offsets into `Message.buffer`, never slices: a negative or a
too large one would silently wrap or shrink in Python, so each is compared with
the bounds of its segment before anything is read.
"""

import struct
from typing import Any, NamedTuple

from capnp_rig.wire.errors import MalformedMessage, ViewExpired

Buffer = bytes | bytearray | memoryview

# C++ defaults (capnp/message.h, ReaderOptions): 64 levels, 8 Mi words.
NESTING_LIMIT = 64
TRAVERSAL_LIMIT_WORDS = 8 * 1024 * 1024

_pointer_at = struct.Struct("<iI").unpack_from

STRUCT, LIST, FAR, OTHER = 0, 1, 2, 3
# Bits of one element by element size code; a pointer is 64 bits, a composite is described apart.
ELEMENT_BITS = (0, 1, 8, 16, 32, 64, 64)
# Of numbers, by the bytes that one takes.
ELEMENT_CODES = {1: 2, 2: 3, 4: 4, 8: 5}
BIT, BYTE, POINTER, COMPOSITE = 1, 2, 6, 7


class Message:
    """One received message: its buffer, the byte range of each segment, what may still be read.

    `buffer` holds all segments; `bounds[i]` is the `(start, end)` of segment `i` in bytes.
    `budget_words` falls with every object that is opened, re-reads included, as in
    C++: it bounds the work that a small message with overlapping pointers can cause.

    Every read of a view asks for `buffer`, even one that needs no byte of it, because that is
    how it learns that it has expired.

    `capabilities` is the table into which capability pointers are indexes; only a message that has
    capabilities has it (`rpc.capabilities.CapabilityTable`).
    """

    __slots__ = ("bounds", "budget_words", "buffer", "capabilities")

    capabilities: Any

    def __init__(
        self,
        buffer: Buffer,
        bounds: tuple[tuple[int, int], ...],
        budget_words: int = TRAVERSAL_LIMIT_WORDS,
    ) -> None:
        self.buffer = buffer
        self.bounds = bounds
        self.budget_words = budget_words

    def charge(self, words: int) -> None:
        """Spend `words` of the traversal budget.

        Raises:
            MalformedMessage: It is used up.
        """
        self.budget_words -= words
        if self.budget_words < 0:
            raise MalformedMessage("message exceeds the traversal limit")


class ExpiredMessage(Message):
    """A message whose views must not be read any more: reading one raises `ViewExpired`.

    An engine makes a message one by changing its class, which costs a call 60 ns. A check in the
    views would cost 50 ns at every field.
    """

    __slots__ = ()

    @property
    def buffer(self) -> Buffer:  # type: ignore[override]
        """The bytes; they belong to another message by now."""
        raise ViewExpired(
            "this view has expired, because the method whose params it shows has returned; "
            "copy what is kept with bytes() or to_dict(), or make the method async"
        )


class Pointer(NamedTuple):
    """A pointer that has not been followed: where it stands, and how deep.

    `start` and `end` bound its segment; `depth` is the number of levels that may still follow.
    """

    message: Message
    start: int
    end: int
    position: int
    depth: int


class StructAt(NamedTuple):
    """A struct inside a message: byte ranges of its data and pointer sections."""

    message: Message
    start: int
    end: int
    data: int
    data_end: int
    pointers: int
    pointers_end: int
    depth: int

    def pointer(self, index: int) -> Pointer | None:
        """Return pointer `index`, or None where the sender's struct is too old to have it."""
        position = self.pointers + 8 * index
        if position >= self.pointers_end:
            return None
        return Pointer(self.message, self.start, self.end, position, self.depth)

    def bits(self, byte: int, size: int) -> int:
        """Return the unsigned integer of `size` bytes at `byte`, 0 where the section is shorter."""
        at = self.data + byte
        if at + size > self.data_end:
            return 0
        return int.from_bytes(self.message.buffer[at : at + size], "little")


# A `StructAt` without its names: a plain tuple is made in a fifth of the time.
StructTuple = tuple[Message, int, int, int, int, int, int, int]


def nothing() -> StructTuple:
    """Return a struct in a message of its own that holds no field at all: each is its default."""
    return (Message(b"", ((0, 0),)), 0, 0, 0, 0, 0, 0, NESTING_LIMIT)


def detached(content: StructTuple) -> StructTuple:
    """Return the same struct in a copy of its message, if the message only borrows its bytes.

    A memoryview counts as borrowed: it shows a receive buffer that will be filled again.
    A message that fills less than half of its buffer is copied too, so that it does not keep the
    rest of the buffer alive.
    """
    message, start, end, data, data_end, pointers, pointers_end, depth = content
    first, last = message.bounds[0][0], message.bounds[-1][1]
    if not isinstance(message.buffer, memoryview) and 2 * (last - first) >= len(message.buffer):
        return content
    bounds = tuple((begin - first, stop - first) for begin, stop in message.bounds)
    copy = Message(bytes(message.buffer[first:last]), bounds, message.budget_words)
    if hasattr(message, "capabilities"):
        copy.capabilities = message.capabilities
    return (
        copy,
        start - first,
        end - first,
        data - first,
        data_end - first,
        pointers - first,
        pointers_end - first,
        depth,
    )


class ListAt(NamedTuple):
    """A list inside a message.

    `element` is the size code found on the wire, `step_bits` the distance between
    elements; in a composite list each element has `data_bytes` and `pointer_count`.
    """

    message: Message
    start: int
    end: int
    first: int
    length: int
    element: int
    step_bits: int
    data_bytes: int
    pointer_count: int
    depth: int


def root_pointer(message: Message) -> Pointer:
    """Return the pointer with which a message starts.

    Raises:
        MalformedMessage: The first segment is empty.
    """
    start, end = message.bounds[0]
    if end - start < 8:
        raise MalformedMessage("message has no root pointer")
    return Pointer(message, start, end, start, NESTING_LIMIT)


def pointer_halves(pointer: Pointer) -> tuple[int, int]:
    """Return both halves of a pointer as it stands: of a capability `OTHER` and its index."""
    low, high = _pointer_at(pointer.message.buffer, pointer.position)
    return low, high


def follow_struct(pointer: Pointer) -> StructAt | None:
    """Return the struct that `pointer` points to, or None where it is null.

    Raises:
        MalformedMessage: It points to something else, leaves its segment, or lies too deep.
    """
    message, depth = pointer.message, pointer.depth
    followed = _follow(pointer)
    if followed is None:
        return None
    start, end, target, low, high = followed
    if low & 3 != STRUCT:
        raise MalformedMessage("message has a pointer of another kind where a struct is expected")
    data_end = target + (high & 0xFFFF) * 8
    pointers_end = data_end + (high >> 16) * 8
    _check(start, end, target, pointers_end)
    message.charge((pointers_end - target) >> 3)
    return StructAt(message, start, end, target, data_end, data_end, pointers_end, depth - 1)


def follow_list(pointer: Pointer) -> ListAt | None:
    """Return the list that `pointer` points to, or None where it is null.

    Raises:
        MalformedMessage: It points to something else, leaves its segment, lies too
            deep, or its elements do not add up to its size.
    """
    message, depth = pointer.message, pointer.depth
    followed = _follow(pointer)
    if followed is None:
        return None
    start, end, target, low, high = followed
    if low & 3 != LIST:
        raise MalformedMessage("message has a pointer of another kind where a list is expected")
    element, count = high & 7, high >> 3
    if element == COMPOSITE:
        return _composite(message, start, end, target, count, depth)
    step_bits = ELEMENT_BITS[element]
    words = (count * step_bits + 63) >> 6
    _check(start, end, target, target + words * 8)
    # An empty element costs nothing to send: count it as a word, as C++ does.
    message.charge(words if step_bits else count)
    return ListAt(
        message,
        start,
        end,
        target,
        count,
        element,
        step_bits,
        0 if element == POINTER else step_bits >> 3,
        1 if element == POINTER else 0,
        depth - 1,
    )


def _composite(
    message: Message, start: int, end: int, target: int, words: int, depth: int
) -> ListAt:
    _check(start, end, target, target + 8 + words * 8)
    tag_low, tag_high = _pointer_at(message.buffer, target)
    if tag_low & 3 != STRUCT:
        raise MalformedMessage("message has a list of structs whose tag is no struct pointer")
    # The tag's offset field holds the number of elements, unsigned.
    count = (tag_low & 0xFFFFFFFF) >> 2
    step_words = (tag_high & 0xFFFF) + (tag_high >> 16)
    if count * step_words > words:
        raise MalformedMessage("message has a list of structs whose elements overrun it")
    message.charge(words + 1 if step_words else count + 1)
    return ListAt(
        message,
        start,
        end,
        target + 8,
        count,
        COMPOSITE,
        step_words * 64,
        (tag_high & 0xFFFF) * 8,
        tag_high >> 16,
        depth - 1,
    )


def element_struct(items: ListAt, index: int) -> StructAt:
    """Return element `index` of a list of structs; `index` must be in range."""
    at = items.first + index * (items.step_bits >> 3)
    data_end = at + items.data_bytes
    end = data_end + items.pointer_count * 8
    return StructAt(items.message, items.start, items.end, at, data_end, data_end, end, items.depth)


def follow_any(pointer: Pointer) -> StructAt | ListAt | None:
    """Return the struct or the list that `pointer` points to, or None where it is null.

    Raises:
        MalformedMessage: It is a capability, or neither can be opened.
    """
    followed = _follow(pointer)
    if followed is None:
        return None
    kind = followed[3] & 3
    if kind == OTHER:
        raise MalformedMessage("message has a capability where a struct or a list is expected")
    return follow_struct(pointer) if kind == STRUCT else follow_list(pointer)


def read_bytes(pointer: Pointer) -> tuple[int, int] | None:
    """Return the byte range of a Data or Text (its NUL included), or None where it is null.

    Raises:
        MalformedMessage: The pointer is no list of bytes, or leaves its segment.
    """
    # C++ spends no nesting level on Text and Data.
    items = follow_list(pointer._replace(depth=max(pointer.depth, 1)))
    if items is None:
        return None
    if items.element != BYTE:
        raise MalformedMessage("message has a list of another kind where bytes are expected")
    return items.first, items.first + items.length


def read_text(pointer: Pointer) -> str | None:
    """Return a Text, or None where the pointer is null.

    Raises:
        MalformedMessage: As `read_bytes`; or the NUL is missing; or it is not UTF-8.
    """
    ends = read_bytes(pointer)
    if ends is None:
        return None
    first, last = ends
    buffer = pointer.message.buffer
    if first == last or buffer[last - 1]:
        raise MalformedMessage("message has a text without its closing NUL")
    try:
        return str(buffer[first : last - 1], "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedMessage(f"message has a text that is not UTF-8: {error.reason}") from None


def _check(start: int, end: int, first: int, last: int) -> None:
    if first < start or last > end:
        raise MalformedMessage("message has a pointer that leaves its segment")


def _follow(pointer: Pointer) -> tuple[int, int, int, int, int] | None:
    """Return the segment's start and end, the target, and both halves of what describes it.

    None where the pointer is null.
    """
    message, start, end, position, depth = pointer
    low, high = _pointer_at(message.buffer, position)
    if not low and not high:
        return None
    if depth <= 0:
        raise MalformedMessage("message is too deeply nested or contains cycles")
    if low & 3 == FAR:
        start, end, position, low, high = landing(message, low, high)
    return start, end, position + 8 + (low >> 2) * 8, low, high


def landing(message: Message, low: int, high: int) -> tuple[int, int, int, int, int]:
    """Return the pointer to which a far pointer leads, with the halves `low` and `high`.

    It is a segment's start and end, a position there, and a pointer's halves as if it stood there.
    Takes a quarter of the time of following a `Pointer`.

    Raises:
        MalformedMessage: The landing pad is not in the message, or of another kind.
    """
    # A field behind a far pointer takes half as long again as another; with calls for the segment
    # and the budget it took two thirds.
    bounds, buffer = message.bounds, message.buffer
    start, end = bounds[high] if high < len(bounds) else _segment(message, high)
    pad = start + (low & 0xFFFFFFF8)
    words = 2 if low & 4 else 1
    if pad + 8 * words > end:
        raise MalformedMessage("message has a pointer that leaves its segment")
    message.budget_words = left = message.budget_words - words
    if left < 0:
        message.charge(0)
    low, high = _pointer_at(buffer, pad)
    if words == 1:
        return start, end, pad, low, high
    if low & 3 != FAR:
        raise MalformedMessage("message has a double-far pad that holds no far pointer")
    start, end = _segment(message, high)
    target = start + (low & 0xFFFFFFF8)
    low, high = _pointer_at(buffer, pad + 8)
    # Behind the word in front of the target: the tag's offset means nothing.
    return start, end, target - 8, low & 3, high


def _segment(message: Message, number: int) -> tuple[int, int]:
    if number >= len(message.bounds):
        raise MalformedMessage("message has a far pointer to a segment that it does not have")
    return message.bounds[number]
