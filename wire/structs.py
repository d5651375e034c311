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
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Self

from wire.encoding import EncodedStruct, EncodedTuple
from wire.errors import EncodeError, MalformedMessage, RemoteProtocolError
from wire.fallback import build, read_dict, read_which
from wire.fields import VALUE_ERRORS, Field, NeedsFallback, compile_field, reader_of
from wire.frames import FrameDecoder
from wire.pointers import (
    NESTING_LIMIT,
    TRAVERSAL_LIMIT_WORDS,
    Buffer,
    Message,
    Pointer,
    StructTuple,
    follow_struct,
    root_pointer,
)

# The table and the root pointer of a message of one segment.
_message_at = struct.Struct("<IIiI").unpack_from
_head = struct.Struct("<IIII").pack
_ROOT_DEPTH = NESTING_LIMIT - 1
# The sizes of a struct of one pointer.
_ONE_POINTER = 1 << 16


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
            result: dict[str, Any] = read_dict(reader_of(self))
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
    def fields(self) -> tuple[Field, ...]:
        """The fields in the order of the schema."""
        return tuple(compile_field(field, compile_struct) for field in self._schema.fields_list)

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
            members["which"] = lambda view: read_which(reader_of(view))
        members["_fields"] = {
            field.name: None if field.emit is None or field.slot < 0 else field.slot
            for field in self.fields
        }
        return type(self.name, (StructView,), members)

    @cached_property
    def _by_name(self) -> dict[str, Field]:
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
                except (NeedsFallback, *VALUE_ERRORS):
                    pass
                else:
                    return _ONE_POINTER, [word.to_bytes(8, "little"), *body], size + 1
        parts, words = self._write(values)
        return self.sizes, parts, words

    @cached_property
    def _only_pointer(self) -> Field | None:
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
            except NeedsFallback:
                return build(self._schema, values)
            except VALUE_ERRORS as error:
                raise EncodeError(f"{self.name}.{name}: {error}") from error
        section = pointers.to_bytes(self._pointer_bytes, "little")
        parts[0] = section if not self._no_data else bytes(data or self._no_data) + section
        return parts, self._own_words + tail_words


_codecs: dict[int, StructCodec] = {}


def compile_struct(schema: Any) -> StructCodec:
    """Return the codec of a pycapnp struct schema (``module.Name.schema``)."""
    type_id = schema.node.id
    if type_id not in _codecs:
        _codecs[type_id] = StructCodec(schema)
    return _codecs[type_id]
