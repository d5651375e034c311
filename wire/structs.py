"""Readers and writers for structs, compiled once from a schema.

A `StructCodec` turns a pointer into a view with one attribute per field, and a
mapping of field names to values into words. The simple cases are done here in
plain Python: booleans, integers, floats, enums, Text, Data, lists of numbers and
nested structs, with their defaults. Data and lists of numbers are read-only
memoryviews into the received frame. All other fields go through pycapnp on the same
words (`wire.fallback`).

A view is valid as long as the buffer it was read from. An attribute that the
sender left out, or that its older schema lacks, reads as the schema's default.
"""

import struct
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar, Self

from wire.errors import EncodeError, MalformedMessage, RemoteProtocolError
from wire.fallback import build, read_dict, read_field, reader_at
from wire.frames import FrameDecoder
from wire.messages import BYTES_WORD, ZEROS, EncodedStruct, EncodedTuple, padded
from wire.pointers import (
    BYTE,
    COMPOSITE,
    ELEMENT_BITS,
    NESTING_LIMIT,
    TRAVERSAL_LIMIT_WORDS,
    Buffer,
    Message,
    Pointer,
    StructTuple,
    follow_list,
    follow_struct,
    read_bytes,
    read_text,
    root_pointer,
)

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
# The table and the root pointer of a message of one segment.
_message_at = struct.Struct("<IIiI").unpack_from
_head = struct.Struct("<IIII").pack
_ROOT_DEPTH = NESTING_LIMIT - 1
# From here on a copy in front of the decoding costs more than a memoryview that spares it.
_LONG_TEXT_BYTES = 2048

# A list pointer counts its elements in 29 bits (encoding.html#lists).
_MAX_ELEMENTS = 2**29 - 1
# The sizes of a struct of one pointer.
_ONE_POINTER = 1 << 16
# What a value of the wrong type or size raises while it is packed.
_VALUE_ERRORS = (struct.error, TypeError, ValueError, OverflowError)


class _NeedsFallback(Exception):  # noqa: N818 - a signal, not an error
    """A value is for a field that only pycapnp writes."""


class StructView:
    """A struct in a received message, one attribute per field of its schema.

    Everything else starts with an underscore, which no field of a schema does.
    """

    # One tuple, as `wire.pointers` makes it: setting eight slots takes twice the time.
    __slots__ = ("_at",)
    # The pointer section's index of each pointer field, None for the others.
    _fields: ClassVar[dict[str, int | None]] = {}
    _structs: ClassVar[frozenset[str]] = frozenset()
    _schema: ClassVar[Any] = None
    _has_fallback: ClassVar[bool] = False

    def __init__(self, at: StructTuple) -> None:
        self._at = at

    @classmethod
    def _empty(cls) -> Self:
        """Return a view in which every field has its default."""
        return cls((Message(b"", ((0, 0),)), 0, 0, 0, 0, 0, 0, NESTING_LIMIT))

    def _has(self, name: str) -> bool:
        """Tell whether the sender set the field `name`; one without a pointer of its own is."""
        slot = self._fields[name]
        if slot is None:
            return True
        message, _, _, _, _, pointers, pointers_end, _ = self._at
        at = pointers + 8 * slot
        return at < pointers_end and any(message.buffer[at : at + 8])

    def _asdict(self) -> dict[str, Any]:
        """Return the fields by name; Data as bytes, lists of numbers as lists.

        A struct that the sender did not set is left out.

        Raises:
            MalformedMessage: A field cannot be read.
        """
        if self._has_fallback:
            # As pycapnp gives it: of a union, the active member alone.
            result: dict[str, Any] = read_dict(_reader_of(self))
            return result
        return {
            name: _to_native(getattr(self, name))
            for name, slot in self._fields.items()
            # A struct may contain its own type: one that is null ends here.
            if slot is None or name not in self._structs or self._has(name)
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self._fields)}>"


def _only_message(data: Buffer) -> Message:
    try:
        for message in FrameDecoder().feed(data):
            return message
    except RemoteProtocolError as error:
        raise MalformedMessage(str(error)) from error
    raise MalformedMessage("message is cut short")


def _to_native(value: Any) -> object:
    if isinstance(value, StructView):
        return value._asdict()
    if isinstance(value, memoryview):
        return value.tobytes() if value.format == "B" else value.tolist()
    return value


class StructCodec:
    """Reads and writes one struct type.

    Built by `compile_struct`, which makes one codec per type and process.
    """

    def __init__(self, schema: Any) -> None:
        node = schema.node
        self.name: str = node.displayName.rpartition(":")[2]
        self._schema = schema
        data_words, pointer_count = node.struct.dataWordCount, node.struct.pointerCount
        # The upper half of a pointer to this struct.
        self.sizes: int = data_words | pointer_count << 16
        self._no_data = bytes(8 * data_words)
        self._last_slot = pointer_count - 1
        self._pointer_bytes = 8 * pointer_count
        self._own_words = data_words + pointer_count

    def compile(self) -> Self:
        """Compile this struct and all that it contains now, rather than at the first use."""
        seen: set[int] = set()
        waiting: list[StructCodec] = [self]
        while waiting:
            codec = waiting.pop()
            if id(codec) not in seen:
                seen.add(id(codec))
                _ = codec.view, codec._by_name, codec._only_pointer
                waiting += [field.struct for field in codec.fields if field.struct is not None]
        return self

    # Fields are compiled at first use, since a struct may contain itself.
    @cached_property
    def fields(self) -> tuple["_Field", ...]:
        """The fields in the order of the schema."""
        return tuple(_compile_field(field) for field in self._schema.fields_list)

    @cached_property
    def view(self) -> type[StructView]:
        """The class of this struct's views."""
        members: dict[str, Any] = {field.name: property(field.get) for field in self.fields}
        # Where a field needs it: the reader of `wire.fallback`, made once per view.
        has_fallback = any(field.is_fallback for field in self.fields)
        members["__slots__"] = ("_reader",) if has_fallback else ()
        members["_structs"] = frozenset(f.name for f in self.fields if f.struct is not None)
        members["_schema"] = self._schema
        members["_has_fallback"] = has_fallback
        if self._schema.node.struct.discriminantCount:
            members["which"] = lambda view: str(_reader_of(view).which())
        members["_fields"] = {
            field.name: None if field.emit is None or field.slot < 0 else field.slot
            for field in self.fields
        }
        return type(self.name, (StructView,), members)

    @cached_property
    def _by_name(self) -> dict[str, "_Field"]:
        return {field.name: field for field in self.fields}

    def read(self, pointer: Pointer | None) -> Any:
        """Return a view of the struct behind `pointer`; a null one reads as all defaults.

        Raises:
            MalformedMessage: The pointer is no valid struct pointer.
        """
        return self.open(None if pointer is None else follow_struct(pointer))

    def from_bytes(self, data: Buffer) -> Any:
        """Return a view of the root struct of one message in the stream format.

        It is read where it lies: nothing is copied, and `data` must not change.

        Raises:
            MalformedMessage: `data` is no whole message, or its root no struct.
        """
        try:
            extra, words, low, high = _message_at(data)
        except struct.error:
            return self.read(root_pointer(_only_message(data)))
        end = 8 + words * 8
        first = 16 + (low >> 2) * 8
        data_end = first + (high & 0xFFFF) * 8
        last = data_end + (high >> 16) * 8
        if (low or high) and not (extra or low & 3) and first >= 8 and last <= end <= len(data):
            message = Message(data, ((8, end),), TRAVERSAL_LIMIT_WORDS - (last - first >> 3))
            return self.view((message, 8, end, first, data_end, data_end, last, _ROOT_DEPTH))
        return self.read(root_pointer(_only_message(data)))

    def open(self, content: StructTuple | None) -> Any:
        """Return a view of a struct that was found already, all defaults where it is None."""
        return self.view._empty() if content is None else self.view(content)

    def write(self, values: Mapping[str, Any]) -> EncodedStruct:
        """Return the words of a struct; a field that `values` lacks gets its default.

        What pointers point to follows in the order of `values`.

        Raises:
            EncodeError: A name is no field, or a value does not fit.
        """
        return EncodedStruct(*self.pack(values))

    def to_bytes(self, values: Mapping[str, Any]) -> bytes:
        """Return a struct as a message of its own, in the stream format.

        Raises:
            EncodeError: As `write`.
        """
        sizes, parts, words = self.pack(values)
        # A struct without size points at itself: offset -1.
        return b"".join([_head(0, words + 1, 0 if sizes else 0xFFFFFFFC, sizes), *parts])

    def pack(self, values: Mapping[str, Any]) -> EncodedTuple:
        """Return what `write` does, as a plain tuple."""
        # One pointer and nothing else is the shape of most params and results. It takes half
        # the time of `_write`, where also all that goes wrong here is told.
        only = self._only_pointer
        if only is not None and type(values) is dict and len(values) == 1:
            value = values.get(only.name)
            if value is not None:
                try:
                    word, body, size = only.emit(value, 0)  # type: ignore[misc]
                except (_NeedsFallback, *_VALUE_ERRORS):
                    pass
                else:
                    return _ONE_POINTER, [word.to_bytes(8, "little"), *body], size + 1
        parts, words = self._write(values)
        return self.sizes, parts, words

    @cached_property
    def _only_pointer(self) -> "_Field | None":
        """The field of a struct that is a single pointer."""
        if self._no_data or self._last_slot or len(self.fields) != 1:
            return None
        return self.fields[0]

    def _write(self, values: Mapping[str, Any]) -> tuple[list[Any], int]:
        """Return the struct and all it points to, and how many words that is."""
        if type(values) is not dict and not isinstance(values, Mapping):
            raise EncodeError(
                f"{self.name}: expected a mapping of field names, not {type(values).__name__}"
            )
        fields, last_slot = self._by_name, self._last_slot
        data, pointers = None, 0
        parts: list[Any] = [b""]
        tail_words = 0
        for name, value in values.items():
            field = fields.get(name)
            if field is None:
                raise EncodeError(f"{self.name} has no field {name!r}")
            try:
                if field.emit is None:
                    if data is None:
                        data = bytearray(self._no_data)
                    field.store(data, value)
                elif value is not None:
                    word, body, size = field.emit(value, last_slot - field.slot + tail_words)
                    pointers |= word << field.shift
                    parts += body
                    tail_words += size
            except EncodeError:
                raise
            except _NeedsFallback:
                return build(self._schema, values)
            except _VALUE_ERRORS as error:
                raise EncodeError(f"{self.name}.{name}: {error}") from error
        section = pointers.to_bytes(self._pointer_bytes, "little")
        parts[0] = section if not self._no_data else bytes(data or self._no_data) + section
        return parts, self._own_words + tail_words


Getter = Callable[[StructView], Any]
# Stores a value in the data section.
Store = Callable[[bytearray, Any], None]
# Returns the pointer word, what it points to, and how many words that is; the second
# argument is the offset in words.
Emit = Callable[[Any, int], tuple[int, list[Any], int]]


def _in_pointers(_data: bytearray, _value: object) -> None:
    raise AssertionError("a field in the pointer section is emitted, not stored")


class _Field:
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


_codecs: dict[int, StructCodec] = {}


def compile_struct(schema: Any) -> StructCodec:
    """Return the codec of a pycapnp struct schema (``module.Name.schema``)."""
    type_id = schema.node.id
    if type_id not in _codecs:
        _codecs[type_id] = StructCodec(schema)
    return _codecs[type_id]


def _compile_field(field: Any) -> _Field:
    proto = field.proto
    # 0xffff: the field is in no union.
    if proto.which() != "slot" or proto.discriminantValue != 0xFFFF:
        return _fallback_field(proto.name)
    slot = proto.slot
    which = slot.type.which()
    if which == "list" and slot.type.list.elementType.which() not in _NUMBERS:
        return _fallback_field(proto.name, slot.offset)
    builder = _BUILDERS.get(which, _number_field if which in _NUMBERS else None)
    if builder is None or (which in _POINTERS and slot.hadExplicitDefault):
        return _fallback_field(proto.name, slot.offset)
    return builder(proto.name, field)


def _fallback_field(name: str, slot: int = -1) -> _Field:
    def get(view: StructView) -> Any:
        return read_field(_reader_of(view), name)

    def emit(_value: object, _offset: int) -> tuple[int, list[Any], int]:
        raise _NeedsFallback

    return _Field(name, get, slot=slot, emit=emit, is_fallback=True)


def _reader_of(view: Any) -> Any:
    """Return pycapnp's reader of the view's struct, made at the first need."""
    try:
        return view._reader
    except AttributeError:
        view._reader = reader_at(view._schema, view._at)
        return view._reader


# --- the data section: values are XORed with their defaults ----------------------------


def _void_field(name: str, _: Any) -> _Field:
    return _Field(name, lambda _view: None, store=lambda _data, _value: None)


def _bool_field(name: str, field: Any) -> _Field:
    slot = field.proto.slot
    default: bool = slot.defaultValue.bool
    byte, mask = slot.offset >> 3, 1 << (slot.offset & 7)

    def get(view: StructView) -> bool:
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

    return _Field(name, get, store=store)


def _number_field(name: str, field: Any) -> _Field:
    slot = field.proto.slot
    which = slot.type.which()
    default: float = getattr(slot.defaultValue, which)
    size = _SIZES[which]
    codec = struct.Struct("<" + _FORMATS[which])
    raw = struct.Struct("<" + _UNSIGNED[size])
    unpack, pack = codec.unpack_from, codec.pack
    byte = slot.offset * size
    (mask,) = raw.unpack(pack(default))

    def get(view: StructView) -> Any:
        found = view._at
        at = found[3] + byte
        if at + size > found[4]:
            return default
        return unpack(found[0].buffer, at)[0]

    def get_xored(view: StructView) -> Any:
        found = view._at
        at = found[3] + byte
        if at + size > found[4]:
            return default
        (bits,) = raw.unpack_from(found[0].buffer, at)
        return codec.unpack(raw.pack(bits ^ mask))[0]

    def store(data: bytearray, value: object) -> None:
        (bits,) = raw.unpack(pack(value))
        raw.pack_into(data, byte, bits ^ mask)

    return _Field(name, get_xored if mask else get, store=store)


def _enum_field(name: str, field: Any) -> _Field:
    numbers: dict[str, int] = dict(field.schema.enumerants)
    names = {number: enumerant for enumerant, number in numbers.items()}
    number_field = _number_field(name, field)
    read, write = number_field.get, number_field.store

    def get(view: StructView) -> str | int:
        # A number that a newer schema added stays a number.
        number: int = read(view)
        return names.get(number, number)

    def store(data: bytearray, value: object) -> None:
        if isinstance(value, str):
            if value not in numbers:
                raise ValueError(f"{value!r} is none of {', '.join(numbers)}")
            value = numbers[value]
        write(data, value)

    return _Field(name, get, store=store)


# --- the pointer section ----------------------------------------------------------------
#
# Each getter does the plain case itself, a pointer of the expected kind within its
# segment, and leaves far pointers, other element sizes and errors to `wire.pointers`.


def _pointer(view: StructView, position: int) -> Pointer:
    message, start, end, _, _, _, _, depth = view._at
    return Pointer(message, start, end, position, depth)


def _text_getter(slot: int) -> Getter:
    offset = 8 * slot

    def get(view: StructView) -> str:
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

    def get(view: StructView) -> memoryview:
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


def _struct_getter(slot: int, codec: StructCodec) -> Getter:
    offset = 8 * slot

    def get(view: StructView) -> StructView:
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

    def get(view: StructView) -> memoryview:
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
    # At least one zero byte closes it, the others fill its last word.
    return BYTES_WORD | offset << 2 | size << 35, [data.ljust(8 * words, b"\0")], words


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


def _text_field(name: str, field: Any) -> _Field:
    slot = field.proto.slot.offset
    return _Field(name, _text_getter(slot), slot=slot, emit=_emit_text)


def _data_field(name: str, field: Any) -> _Field:
    slot = field.proto.slot.offset
    return _Field(name, _data_getter(slot), slot=slot, emit=_emit_data)


def _struct_field(name: str, field: Any) -> _Field:
    slot = field.proto.slot.offset
    codec = compile_struct(field.schema)
    return _Field(
        name, _struct_getter(slot, codec), slot=slot, emit=_struct_emitter(codec), struct=codec
    )


def _list_field(name: str, field: Any) -> _Field:
    slot = field.proto.slot.offset
    which = field.proto.slot.type.list.elementType.which()
    return _Field(name, _list_getter(slot, which), slot=slot, emit=_list_emitter(which))


def _struct_emitter(codec: StructCodec) -> Emit:
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
_BUILDERS: dict[str, Callable[[str, Any], _Field]] = {
    "void": _void_field,
    "bool": _bool_field,
    "enum": _enum_field,
    "text": _text_field,
    "data": _data_field,
    "struct": _struct_field,
    "list": _list_field,
}
