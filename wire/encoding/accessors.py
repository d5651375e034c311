"""Accessors: each reads one type of pointer field from a view.

An accessor follows pointers of the expected kind itself, far ones with the help of `landing`. It
leaves other element sizes and errors to `pointers`.

The upper 30 bits of `low` are a pointer's offset in words, counted from the pointer's end; the
lower two are 1 in a list pointer. So a list begins at `position + 8 + 8 * (low >> 2)`, which is
`position + 6 + 2 * low`. A list of bytes has element size 2.
"""

import struct
from collections.abc import Callable
from typing import Any

from capnp_rig.wire.encoding.field_types import Accessor, Codec, View
from capnp_rig.wire.encoding.pointers import (
    COMPOSITE,
    ELEMENT_BITS,
    ELEMENT_CODES,
    FAR,
    ListAt,
    Pointer,
    follow_list,
    follow_struct,
    landing,
    read_bytes,
    read_text,
)
from capnp_rig.wire.errors import MalformedMessage

_pointer_at = struct.Struct("<iI").unpack_from
# From here on a copy in front of the decoding costs more than a memoryview that spares it.
_LONG_TEXT_BYTES = 2048


def _pointer(view: View, position: int) -> Pointer:
    message, start, end, _, _, _, _, depth = view._at
    return Pointer(message, start, end, position, depth)


def text_accessor(slot: int) -> Accessor:
    """Return the accessor of a Text; one that was not sent is empty."""
    offset = 8 * slot

    def get(view: View) -> str:
        message, start, end, _, _, pointers, pointers_end, _ = view._at
        position = pointers + offset
        buffer = message.buffer
        if position >= pointers_end:
            return ""
        low, high = _pointer_at(buffer, position)
        if low & 3 == FAR:
            start, end, position, low, high = landing(message, low, high)
        first = position + 6 + 2 * low
        last = first + (high >> 3) - 1
        if low & 3 != 1 or high & 7 != 2 or first < start or not first <= last < end:
            return read_text(_pointer(view, pointers + offset)) or ""
        message.budget_words = left = message.budget_words - (high >> 6) - 1
        if left < 0 or buffer[last]:
            return read_text(_pointer(view, pointers + offset)) or ""
        try:
            if last - first > _LONG_TEXT_BYTES:
                return str(memoryview(buffer)[first:last], "utf-8")
            if type(buffer) is bytes:
                return buffer[first:last].decode()
            return str(buffer[first:last], "utf-8")
        except UnicodeDecodeError as error:
            raise MalformedMessage(
                f"message has a text that is not UTF-8: {error.reason}"
            ) from None

    return get


def data_accessor(slot: int) -> Accessor:
    """Return the accessor of a Data, as a read-only view into the message."""
    offset = 8 * slot

    def get(view: View) -> memoryview:
        message, start, end, _, _, pointers, pointers_end, _ = view._at
        position = pointers + offset
        buffer = message.buffer
        if position >= pointers_end:
            return _NOTHING
        low, high = _pointer_at(buffer, position)
        if low & 3 == FAR:
            start, end, position, low, high = landing(message, low, high)
        first = position + 6 + 2 * low
        last = first + (high >> 3)
        if low & 3 != 1 or high & 7 != 2 or first < start or last > end:
            ends = read_bytes(_pointer(view, pointers + offset))
            if ends is None:
                return _NOTHING
            first, last = ends
        else:
            message.budget_words = left = message.budget_words - ((high + 63) >> 6)
            if left < 0:
                message.charge(0)
        if type(buffer) is bytes:
            return memoryview(buffer)[first:last]
        return memoryview(buffer)[first:last].toreadonly()

    return get


_NOTHING = memoryview(b"")


def struct_accessor(slot: int, codec: Codec) -> Accessor:
    """Return the accessor of a struct; one that was not sent has all defaults."""
    offset = 8 * slot

    def get(view: View) -> View:
        message, start, end, _, _, pointers, pointers_end, depth = view._at
        position = pointers + offset
        buffer = message.buffer
        if position >= pointers_end:
            return codec.view._empty(message)
        low, high = _pointer_at(buffer, position)
        if low & 3 == FAR:
            start, end, position, low, high = landing(message, low, high)
        data = position + 8 + 2 * low
        data_end = data + (high & 0xFFFF) * 8
        last = data_end + (high >> 16) * 8
        if low & 3 or data < start or last > end or not (low or high) or depth <= 0:
            place = follow_struct(_pointer(view, pointers + offset))
            return codec.view._empty(message) if place is None else codec.view(place)
        message.budget_words = left = message.budget_words - ((last - data) >> 3)
        if left < 0:
            message.charge(0)
        return codec.view((message, start, end, data, data_end, data_end, last, depth - 1))

    return get


def list_accessor(slot: int, make: Callable[[ListAt | None], Any]) -> Accessor:
    """Return the accessor of a list; `make` gets where it is, None for one that was not sent."""
    offset = 8 * slot

    def get(view: View) -> Any:
        message, _, _, _, _, pointers, pointers_end, _ = view._at
        _ = message.buffer
        is_sent = pointers + offset < pointers_end
        place = follow_list(_pointer(view, pointers + offset)) if is_sent else None
        items = make(place)
        if place is None:
            # An empty list expires with the others.
            items.message = message
        return items

    return get


def numbers_accessor(slot: int, size: int, code: str) -> Accessor:
    """Return the accessor of a list of numbers of `size` bytes, as a read-only view of `code`."""
    offset, element, no_numbers = 8 * slot, ELEMENT_CODES[size], _cast(b"", code)

    def get(view: View) -> memoryview:
        message, start, end, _, _, pointers, pointers_end, depth = view._at
        position = pointers + offset
        buffer = message.buffer
        if position >= pointers_end:
            return no_numbers
        low, high = _pointer_at(buffer, position)
        if low & 3 == FAR:
            start, end, position, low, high = landing(message, low, high)
        first = position + 6 + 2 * low
        last = first + (high >> 3) * size
        if low & 3 != 1 or high & 7 != element or first < start or last > end or depth <= 0:
            items = follow_list(_pointer(view, pointers + offset))
            return no_numbers if items is None else _numbers_of(items, size, code)
        message.budget_words = left = message.budget_words - ((last - first + 7) >> 3)
        if left < 0:
            message.charge(0)
        if type(buffer) is bytes:
            return memoryview(buffer)[first:last].cast(code)  # type: ignore[call-overload, no-any-return]
        return _cast(memoryview(buffer)[first:last], code)

    return get


def _numbers_of(items: ListAt, size: int, code: str) -> memoryview:
    # A list may have been widened by a newer schema (encoding.html#lists): to larger
    # numbers or to structs whose first field is the number.
    available = items.data_bytes * 8 if items.element == COMPOSITE else 0
    if items.element != COMPOSITE and items.element < len(ELEMENT_BITS) - 1:
        available = ELEMENT_BITS[items.element]
    if available < size * 8 and not (items.element == COMPOSITE and not items.length):
        raise MalformedMessage("message has a list of elements of an incompatible type")
    step = items.step_bits >> 3
    last = items.first + items.length * step
    whole = _cast(memoryview(items.message.buffer)[items.first : last], code)
    return whole if step == size or not items.length else whole[:: step // size]


def _cast(data: Any, code: Any) -> memoryview:
    return memoryview(data).toreadonly().cast(code)
