"""How each kind of field is read from a view and written: the closures of `wire.structs`.

Each getter does the plain case itself, a pointer of the expected kind within its segment, and
leaves far pointers, other element sizes and errors to `wire.pointers`. What is not simple at
all goes through pycapnp (`wire.fallback`).
"""

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wire.encoding import BYTES_WORD, ZEROS, padded
from wire.errors import MalformedMessage
from wire.fallback import read_field, reader_at
from wire.pointers import (
    BYTE,
    COMPOSITE,
    ELEMENT_BITS,
    Pointer,
    follow_list,
    follow_struct,
    read_bytes,
    read_text,
)

if TYPE_CHECKING:
    from wire.structs import StructCodec, StructView

# Format character of `struct` and `memoryview.cast`, by the name of the type in schema.capnp.
_FORMATS = {
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
    "enum": "H",
}
_NUMBERS = _FORMATS.keys() - {"enum"}
_SIZES = {name: struct.calcsize(code) for name, code in _FORMATS.items()}
_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}
_ELEMENT_CODES = {1: 2, 2: 3, 4: 4, 8: 5}
_pointer_at = struct.Struct("<iI").unpack_from
# From here on a copy in front of the decoding costs more than a memoryview that spares it.
_LONG_TEXT_BYTES = 2048

# A list pointer counts its elements in 29 bits (encoding.html#lists).
_MAX_ELEMENTS = 2**29 - 1
# What a value of the wrong type or size raises while it is packed.
VALUE_ERRORS = (struct.error, TypeError, ValueError, OverflowError)


class NeedsFallback(Exception):  # noqa: N818 - a signal, not an error
    """A value is for a field that only pycapnp writes."""


# Reads a field of a view.
Getter = Callable[["StructView"], Any]
# Returns the codec of a nested struct's schema.
CompileStruct = Callable[[Any], "StructCodec"]
# Stores a value in the data section.
Store = Callable[[bytearray, Any], None]
# Returns the pointer word, what it points to, and how many words that is; the second
# argument is the offset in words.
Emit = Callable[[Any, int], tuple[int, list[Any], int]]


def _in_pointers(_data: bytearray, _value: object) -> None:
    raise AssertionError("a field in the pointer section is emitted, not stored")


class Field:
    """One field: how to read it, and how to write it, in the data or the pointer section."""

    __slots__ = ("emit", "get", "is_fallback", "name", "shift", "slot", "store", "struct")

    def __init__(
        self,
        name: str,
        get: Getter,
        *,
        store: Store = _in_pointers,
        slot: int = 0,
        emit: Emit | None = None,
        is_fallback: bool = False,
        struct: "StructCodec | None" = None,
    ) -> None:
        self.struct = struct
        self.is_fallback = is_fallback
        self.name = name
        self.get = get
        self.store = store
        self.slot = slot
        self.shift = 64 * max(slot, 0)
        self.emit = emit


def compile_field(field: Any, compile_struct: CompileStruct) -> Field:
    """Return how a field of a pycapnp schema is read and written."""
    proto = field.proto
    # 0xffff: the field is in no union.
    if proto.which() != "slot" or proto.discriminantValue != 0xFFFF:
        is_void = proto.which() == "slot" and proto.slot.type.which() == "void"
        return _void_member(proto.name) if is_void else _fallback_field(proto.name)
    slot = proto.slot
    which = slot.type.which()
    if which == "list" and slot.type.list.elementType.which() not in _NUMBERS:
        return _fallback_field(proto.name, slot.offset)
    if which in _POINTERS and slot.hadExplicitDefault:
        return _fallback_field(proto.name, slot.offset)
    if which == "struct":
        return _struct_field(proto.name, field, compile_struct(field.schema))
    builder = _BUILDERS.get(which, _number_field if which in _NUMBERS else None)
    return (
        _fallback_field(proto.name, slot.offset) if builder is None else builder(proto.name, field)
    )


def _fallback_field(name: str, slot: int = -1) -> Field:
    def get(view: "StructView") -> Any:
        return read_field(reader_of(view), name)

    def emit(_value: object, _offset: int) -> tuple[int, list[Any], int]:
        raise NeedsFallback

    return Field(name, get, slot=slot, emit=emit, is_fallback=True)


def _void_member(name: str) -> Field:
    """Return the field of a union's Void member, whose value, None, chooses it."""

    def store(_data: bytearray, _value: object) -> None:
        raise NeedsFallback

    return Field(name, _fallback_field(name).get, store=store, slot=-1, is_fallback=True)


def reader_of(view: Any) -> Any:
    """Return pycapnp's reader of the view's struct, made at the first need."""
    try:
        return view._reader
    except AttributeError:
        view._reader = reader_at(view._schema, view._at)
        return view._reader


# --- the data section: values are XORed with their defaults ----------------------------


def _void_field(name: str, _: Any) -> Field:
    return Field(name, lambda _view: None, store=lambda _data, _value: None)


def _bool_field(name: str, field: Any) -> Field:
    slot = field.proto.slot
    default: bool = slot.defaultValue.bool
    byte, mask = slot.offset >> 3, 1 << (slot.offset & 7)

    def get(view: "StructView") -> bool:
        found = view._at
        at = found[3] + byte
        if at >= found[4]:
            return default
        return bool(found[0].buffer[at] & mask) is not default

    def store(data: bytearray, value: object) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"expected a bool, not {type(value).__name__}")
        if value is not default:
            data[byte] |= mask

    return Field(name, get, store=store)


def _number_field(name: str, field: Any) -> Field:
    slot = field.proto.slot
    which = slot.type.which()
    default: float = getattr(slot.defaultValue, which)
    size = _SIZES[which]
    codec = struct.Struct("<" + _FORMATS[which])
    raw = struct.Struct("<" + _UNSIGNED[size])
    unpack, pack = codec.unpack_from, codec.pack
    byte = slot.offset * size
    (mask,) = raw.unpack(pack(default))

    def get(view: "StructView") -> Any:
        found = view._at
        at = found[3] + byte
        if at + size > found[4]:
            return default
        return unpack(found[0].buffer, at)[0]

    def get_xored(view: "StructView") -> Any:
        found = view._at
        at = found[3] + byte
        if at + size > found[4]:
            return default
        (bits,) = raw.unpack_from(found[0].buffer, at)
        return codec.unpack(raw.pack(bits ^ mask))[0]

    def store(data: bytearray, value: object) -> None:
        (bits,) = raw.unpack(pack(value))
        raw.pack_into(data, byte, bits ^ mask)

    return Field(name, get_xored if mask else get, store=store)


def _enum_field(name: str, field: Any) -> Field:
    numbers: dict[str, int] = dict(field.schema.enumerants)
    names = {number: enumerant for enumerant, number in numbers.items()}
    number_field = _number_field(name, field)
    read, write = number_field.get, number_field.store

    def get(view: "StructView") -> str | int:
        # A number that a newer schema added stays a number.
        number: int = read(view)
        return names.get(number, number)

    def store(data: bytearray, value: object) -> None:
        if isinstance(value, str):
            if value not in numbers:
                raise ValueError(f"{value!r} is none of {', '.join(numbers)}")
            value = numbers[value]
        write(data, value)

    return Field(name, get, store=store)


# --- the pointer section ----------------------------------------------------------------


def _pointer(view: "StructView", position: int) -> Pointer:
    message, start, end, _, _, _, _, depth = view._at
    return Pointer(message, start, end, position, depth)


def _text_getter(slot: int) -> Getter:
    offset = 8 * slot

    def get(view: "StructView") -> str:
        message, start, end, _, _, pointers, pointers_end, _ = view._at
        position = pointers + offset
        if position >= pointers_end:
            return ""
        buffer = message.buffer
        low, high = _pointer_at(buffer, position)
        first = position + 8 + (low >> 2) * 8
        last = first + (high >> 3) - 1
        if low & 3 != 1 or high & 7 != BYTE or first < start or not first <= last < end:
            return read_text(_pointer(view, position)) or ""
        message.budget_words = left = message.budget_words - (high >> 6) - 1
        if left < 0 or buffer[last]:
            return read_text(_pointer(view, position)) or ""
        if last - first > _LONG_TEXT_BYTES:
            buffer = memoryview(buffer)
        try:
            return str(buffer[first:last], "utf-8")
        except UnicodeDecodeError as error:
            raise MalformedMessage(
                f"message has a text that is not UTF-8: {error.reason}"
            ) from None

    return get


def _data_getter(slot: int) -> Getter:
    offset = 8 * slot

    def get(view: "StructView") -> memoryview:
        message, start, end, _, _, pointers, pointers_end, _ = view._at
        position = pointers + offset
        if position >= pointers_end:
            return _NOTHING
        buffer = message.buffer
        low, high = _pointer_at(buffer, position)
        first = position + 8 + (low >> 2) * 8
        last = first + (high >> 3)
        if low & 3 != 1 or high & 7 != BYTE or first < start or last > end:
            found = read_bytes(_pointer(view, position))
            if found is None:
                return _NOTHING
            first, last = found
        else:
            message.budget_words = left = message.budget_words - ((high + 63) >> 6)
            if left < 0:
                message.charge(0)
        if type(buffer) is bytes:
            return memoryview(buffer)[first:last]
        return memoryview(buffer)[first:last].toreadonly()

    return get


_NOTHING = memoryview(b"")


def _struct_getter(slot: int, codec: "StructCodec") -> Getter:
    offset = 8 * slot

    def get(view: "StructView") -> "StructView":
        message, start, end, _, _, pointers, pointers_end, depth = view._at
        position = pointers + offset
        if position >= pointers_end:
            return codec.view._empty()
        low, high = _pointer_at(message.buffer, position)
        data = position + 8 + (low >> 2) * 8
        data_end = data + (high & 0xFFFF) * 8
        last = data_end + (high >> 16) * 8
        if low & 3 or data < start or last > end or not (low or high) or depth <= 0:
            found = follow_struct(_pointer(view, position))
            return codec.view._empty() if found is None else codec.view(found)
        message.budget_words = left = message.budget_words - ((last - data) >> 3)
        if left < 0:
            message.charge(0)
        return codec.view((message, start, end, data, data_end, data_end, last, depth - 1))

    return get


def _cast(data: Any, code: Any) -> memoryview:
    return memoryview(data).toreadonly().cast(code)


def _list_getter(slot: int, which: str) -> Getter:
    offset, size, code = 8 * slot, _SIZES[which], _FORMATS[which]

    def get(view: "StructView") -> memoryview:
        message, _, _, _, _, pointers, pointers_end, _ = view._at
        position = pointers + offset
        items = follow_list(_pointer(view, position)) if position < pointers_end else None
        if items is None:
            return _cast(b"", code)
        # A list may have been widened by a newer schema (encoding.html#lists): to larger
        # numbers or to structs whose first field is the number.
        available = items.data_bytes * 8 if items.element == COMPOSITE else 0
        if items.element != COMPOSITE and items.element < len(ELEMENT_BITS) - 1:
            available = ELEMENT_BITS[items.element]
        if available < size * 8 and not (items.element == COMPOSITE and not items.length):
            raise MalformedMessage("message has a list of elements of an incompatible type")
        step = items.step_bits >> 3
        last = items.first + items.length * step
        whole = _cast(memoryview(message.buffer)[items.first : last], code)
        return whole if step == size or not items.length else whole[:: step // size]

    return get


def _emit_text(value: Any, offset: int) -> tuple[int, list[Any], int]:
    try:
        data = str.encode(value)
    except TypeError:
        raise TypeError(f"expected a str, not {type(value).__name__}") from None
    size = len(data) + 1
    if size > _MAX_ELEMENTS:
        _check_length(size)
    words = (size + 7) >> 3
    # At least one zero byte closes it, the others fill its last word. They are a part of their own:
    # padding the text itself copies it, which is a third of the time at 1 MiB.
    parts = [data, ZEROS[8 * words - size + 1]]
    return BYTES_WORD | offset << 2 | size << 35, parts, words


def _emit_data(value: Any, offset: int) -> tuple[int, list[Any], int]:
    if type(value) is not bytes:
        if isinstance(value, str):
            raise TypeError("expected bytes, not str")
        value = memoryview(value).cast("B")
    size = len(value)
    if size > _MAX_ELEMENTS:
        _check_length(size)
    rest = -size & 7
    parts = [value, ZEROS[rest]] if rest else [value]
    return BYTES_WORD | offset << 2 | size << 35, parts, (size + 7) >> 3


def _check_length(count: int) -> None:
    if count > _MAX_ELEMENTS:
        raise ValueError(f"{count} elements are more than a list holds, {_MAX_ELEMENTS}")


def _text_field(name: str, field: Any) -> Field:
    slot = field.proto.slot.offset
    return Field(name, _text_getter(slot), slot=slot, emit=_emit_text)


def _data_field(name: str, field: Any) -> Field:
    slot = field.proto.slot.offset
    return Field(name, _data_getter(slot), slot=slot, emit=_emit_data)


def _struct_field(name: str, field: Any, codec: "StructCodec") -> Field:
    slot = field.proto.slot.offset
    return Field(
        name, _struct_getter(slot, codec), slot=slot, emit=_struct_emitter(codec), struct=codec
    )


def _list_field(name: str, field: Any) -> Field:
    slot = field.proto.slot.offset
    which = field.proto.slot.type.list.elementType.which()
    return Field(name, _list_getter(slot, which), slot=slot, emit=_list_emitter(which))


def _struct_emitter(codec: "StructCodec") -> Emit:
    def emit(value: Any, offset: int) -> tuple[int, list[Any], int]:
        parts, words = codec._write(value)
        # A struct without size points at itself: offset -1.
        word = codec.sizes << 32 | offset << 2 if codec.sizes else 0xFFFFFFFC
        return word, parts, words

    return emit


def _list_emitter(which: str) -> Emit:
    size, code = _SIZES[which], _FORMATS[which]
    element = _ELEMENT_CODES[size]

    def emit(value: Any, offset: int) -> tuple[int, list[Any], int]:
        data = _packed(value, code)
        count = len(data) // size
        _check_length(count)
        return 1 | offset << 2 | element << 32 | count << 35, padded(data), (len(data) + 7) >> 3

    return emit


def _packed(value: Any, code: str) -> bytes | memoryview:
    """Return the little-endian bytes of a list of numbers, without a copy where it is a buffer."""
    try:
        view = memoryview(value)
    except TypeError:
        return struct.pack(f"<{len(value)}{code}", *value)
    if view.format != code or view.ndim != 1 or not view.contiguous:
        return struct.pack(f"<{len(view)}{code}", *view.tolist())
    return view.cast("B")


_POINTERS = frozenset({"text", "data", "list", "struct"})
_BUILDERS: dict[str, Callable[[str, Any], Field]] = {
    "void": _void_field,
    "bool": _bool_field,
    "enum": _enum_field,
    "text": _text_field,
    "data": _data_field,
    "list": _list_field,
}
