"""AnyPointers: pointers whose type is told by whoever reads them.

Nothing behind one is read before that. One that is written again is copied as it stands, by the
tags of its pointers, without a schema.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from capnp_rig.wire.encoding.encoded import ZEROS
from capnp_rig.wire.encoding.pointers import (
    COMPOSITE,
    ELEMENT_BITS,
    NESTING_LIMIT,
    OTHER,
    POINTER,
    ListAt,
    Message,
    Pointer,
    StructTuple,
    element_struct,
    follow_any,
    pointer_halves,
    root_pointer,
)
from capnp_rig.wire.encoding.writers import write_elements

_NULL = Pointer(Message(bytes(8), ((0, 8),)), 0, 8, 0, NESTING_LIMIT)
# Returns what reads a pointer as a type: "text", "data", "capability", or pycapnp's schema of a
# struct or list.
AccessorOf = Callable[[Any], Callable[[Any], Any]]


class AnyPointer:
    """A pointer of any type in a received message; null where the sender did not set it."""

    __slots__ = ("_accessor_of", "_at")

    def __init__(self, at: StructTuple, accessor_of: AccessorOf) -> None:
        # That of a struct which is this pointer and nothing else.
        self._at = at
        self._accessor_of = accessor_of

    def as_text(self) -> str:
        """Return the Text that it points to, an empty one where it is null.

        Raises:
            MalformedMessage: It points to something else.
        """
        text: str = self._accessor_of("text")(self)
        return text

    def as_data(self) -> memoryview:
        """Return the Data that it points to, as `as_text` does a Text."""
        data: memoryview = self._accessor_of("data")(self)
        return data

    def as_struct(self, schema: Any) -> Any:
        """Return a view of the struct that it points to; of a null one all fields have defaults.

        `schema` is the struct of a loaded schema, or pycapnp's schema of it.

        Raises:
            MalformedMessage: It points to something else.
        """
        return self._accessor_of(getattr(schema, "schema", schema))(self)

    # The same, for a list.
    as_list = as_struct

    def as_capability(self) -> Any:
        """Return the capability that it is, None where it is null.

        Raises:
            MalformedMessage: It is something else.
        """
        return self._accessor_of("capability")(self)

    @property
    def is_null(self) -> bool:
        """Whether the sender did not set it."""
        return not any(pointer_halves(self.pointer()))

    def pointer(self) -> Pointer:
        """Return the pointer itself."""
        message, start, end, at, _, _, last, depth = self._at
        _ = message.buffer
        return Pointer(message, start, end, at, depth) if at < last else _NULL


@dataclass(frozen=True, slots=True)
class AnyValue:
    """A value to write into an AnyPointer, which does not tell its type: a struct or a list.

    `schema` is the struct of a loaded schema, or pycapnp's schema of a struct or list.
    """

    schema: Any
    value: Any


def any_pointer_accessor(slot: int, accessor_of: AccessorOf) -> Callable[[Any], AnyPointer]:
    """Return the accessor of an AnyPointer."""
    offset = 8 * slot

    def get(view: Any) -> AnyPointer:
        message, start, end, _, _, pointers, pointers_end, depth = view._at
        _ = message.buffer
        at = pointers + offset
        last = min(at + 8, pointers_end)
        return AnyPointer((message, start, end, at, at, at, last, depth), accessor_of)

    return get


def root_of(segments: Sequence[bytes]) -> Pointer:
    """Return the root pointer of a message."""
    ends = list(accumulate(map(len, segments)))
    return root_pointer(Message(b"".join(segments), tuple(zip([0, *ends], ends, strict=False))))


def only_pointer(data: bytes) -> StructTuple:
    """Return a struct that is but the pointer with which `data`, a segment, begins."""
    end = len(data)
    return (Message(data, ((0, end),)), 0, end, 0, 0, 0, 8, NESTING_LIMIT)


# --- copies ------------------------------------------------------------------------------


def copy_pointer(pointer: Pointer, offset: int, tail: list[Any]) -> tuple[int, int]:
    """Append what `pointer` points to; return the new pointer and the number of words.

    `offset` is the distance from the end of the new pointer to the end of `tail`, in words. A
    capability is copied if `tail` has a `capability` method, which returns its new index.

    Raises:
        MalformedMessage: It cannot be read, or it is a capability.
    """
    low, high = pointer_halves(pointer)
    if low == OTHER and hasattr(tail, "capability"):
        return OTHER | tail.capability(pointer.message, high) << 32, 0
    content = follow_any(pointer)
    if content is None:
        return 0, 0
    if isinstance(content, ListAt):
        return _copy_list(content, offset, tail)
    return copy_struct(content, offset, tail)


def copy_struct(content: StructTuple, offset: int, tail: list[Any]) -> tuple[int, int]:
    """Do what `copy_pointer` does for a pointer to the struct at `content`."""
    data_words, pointer_count = _sizes(content)
    words = write_elements([content], _write_copy, data_words + pointer_count, tail)
    # A struct without size points at itself: offset -1.
    low = offset << 2 if words else 0xFFFFFFFC
    return low | data_words << 32 | pointer_count << 48, words


def _copy_list(items: ListAt, offset: int, tail: list[Any]) -> tuple[int, int]:
    low = 1 | offset << 2 | items.element << 32
    if items.element < POINTER:
        size = items.length * ELEMENT_BITS[items.element] + 7 >> 3
        data = bytes(items.message.buffer[items.first : items.first + size])
        tail += (data, ZEROS[-size & 7])
        return low | items.length << 35, size + 7 >> 3
    step, length = items.step_bits >> 6, items.length
    if items.element == COMPOSITE:
        sizes = items.data_bytes >> 3 | items.pointer_count << 16
        tail.append(struct.pack("<II", length << 2, sizes))
    if not step:
        return low, 1
    elements = [element_struct(items, index) for index in range(length)]
    words = write_elements(elements, _write_copy, step, tail)
    if items.element == POINTER:
        return low | length << 35, words
    return low | step * length << 35, words + 1


def _write_copy(content: StructTuple, at: int, tail: list[Any]) -> tuple[bytes, int]:
    """Write a struct as `writers` do."""
    message, start, end, data, data_end, pointers, _, depth = content
    data_words, pointer_count = _sizes(content)
    head = bytes(message.buffer[data:data_end]).ljust(8 * data_words, b"\0")
    copied = []
    for slot in range(pointer_count):
        pointer = Pointer(message, start, end, pointers + 8 * slot, depth)
        word, words = copy_pointer(pointer, at - (data_words + slot + 1), tail)
        copied.append(word)
        at += words
    return head + struct.pack(f"<{pointer_count}Q", *copied), at


def _sizes(content: StructTuple) -> tuple[int, int]:
    _, _, _, data, data_end, pointers, pointers_end, _ = content
    # A number that became a struct takes a part of a word.
    return data_end - data + 7 >> 3, pointers_end - pointers >> 3
