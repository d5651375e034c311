"""Readers and writers for structs, compiled once from a schema.

A `StructCodec` turns a pointer into a view with one attribute per field, and a
mapping of field names to values into words. The simple cases are done in plain
Python: booleans, integers, floats, enums, Text, Data, nested structs and lists of all
these and of lists, with their defaults. Data and lists of numbers are read-only
memoryviews into the received frame, other lists are sequences that read from it
(`lists`). All other fields go through pycapnp on the same words (`fallback`), and
so do lists of structs that have such fields.

A view is a value to write, too, and so are its lists.

A view is valid as long as the buffer it was read from: one of a plain method's params expires
with the call, and raises `ViewExpired` afterwards (`pointers.ExpiredMessage`). An attribute that
the sender left out, or that its older schema lacks, reads as the schema's default.
"""

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, Self

from capnp_rig.wire.encoding.conversions import WRITE_ERRORS
from capnp_rig.wire.encoding.encoded import EncodedStruct, EncodedTuple
from capnp_rig.wire.encoding.fallback import build, name_of, read_which
from capnp_rig.wire.encoding.field_types import Accessor, Codec, Field, Mistake, Writer
from capnp_rig.wire.encoding.fields import compile_field, reader_of
from capnp_rig.wire.encoding.frames import FrameDecoder
from capnp_rig.wire.encoding.pointers import (
    NESTING_LIMIT,
    TRAVERSAL_LIMIT_WORDS,
    Buffer,
    Message,
    Pointer,
    StructTuple,
    follow_struct,
    nothing,
    root_pointer,
)
from capnp_rig.wire.encoding.reader_views import ReaderView
from capnp_rig.wire.encoding.readers import compile_reader
from capnp_rig.wire.encoding.view_repr import Member, view_repr
from capnp_rig.wire.encoding.writers import NeedsFallback, compile_writer
from capnp_rig.wire.errors import EncodeError, MalformedMessage, RemoteProtocolError

# The table and the root pointer of a message of one segment.
_message_at = struct.Struct("<IIiI").unpack_from
_head = struct.Struct("<IIII").pack
_ROOT_DEPTH = NESTING_LIMIT - 1
# A pointer has 30 bits, one of them the sign, for its distance in words.
_MAX_WORDS = 2**29 - 1
# Of one type, compiled at once; more than a schema that is written by hand has.
_MAX_BRANDS = 64


class StructView:
    """A struct in a received message, one attribute per field of its schema.

    One with a union has `which()`, which returns the name of the active member; reading another
    raises `InactiveMember`. `to_dict` returns all fields. All names here have an
    underscore, but for `which`; no field of a schema has one.
    """

    # One tuple, as `pointers` makes it: to set eight slots takes twice the time.
    __slots__ = ("_at",)
    # The pointer section's index of each pointer field, None for the others.
    _fields: ClassVar[dict[str, int | None]] = {}
    # Of each field its name, accessor, what makes its value independent of the buffer, and whether
    # it is a struct.
    _natives: ClassVar[Sequence[tuple[str, Accessor, Callable[[Any], Any] | None, bool]]] = ()
    _schema: ClassVar[Any] = None
    _has_fallback: ClassVar[bool] = False

    def __init__(self, at: StructTuple) -> None:
        self._at = at

    @staticmethod
    def _read_all(_view: Any) -> dict[str, Any] | None:
        """Return all fields at once; `compile_reader` has what replaces this."""
        return None

    @classmethod
    def _empty(cls, message: Message | None = None) -> Self:
        """Return a view in which every field has its default; it expires with `message`."""
        if message is None:
            return cls(nothing())
        return cls((message, 0, 0, 0, 0, 0, 0, NESTING_LIMIT))

    def _has(self, name: str) -> bool:
        """Tell whether the sender set the field `name`; one without a pointer of its own is."""
        slot = self._fields[name]
        message, _, _, _, _, pointers, pointers_end, _ = self._at
        buffer = message.buffer
        if slot is None:
            return True
        at = pointers + 8 * slot
        return at < pointers_end and any(buffer[at : at + 8])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name; Data as bytes, lists of numbers as lists.

        A struct that the sender did not set is left out, and of a union all members but the
        active one. Structs that only pycapnp reads (`fallback`) are as it gives them: texts
        and lists that are not set are left out, too.

        Raises:
            MalformedMessage: A field cannot be read.
        """
        _ = self._at[0].buffer
        if self._has_fallback:
            return self._by_reader().to_dict()
        fields = self._read_all(self)
        if fields is not None:
            return fields
        return {
            name: get(self) if to_native is None else to_native(get(self))
            for name, get, to_native, is_struct in self._natives
            # A struct may contain its own type: one that is null ends here.
            if not is_struct or self._has(name)
        }

    def _by_reader(self) -> ReaderView:
        """Return a view of the same struct that reads all by pycapnp, from one copy."""
        return ReaderView(reader_of(self), self._at[0])

    def present_members(self) -> Iterator[Member]:
        """Yield what `to_dict` returns, each field with what reads it."""
        # Whether it has expired, before any field.
        _ = self._at[0].buffer
        if self._has_fallback:
            yield from self._by_reader().present_members()
            return
        for name, get, _, is_struct in self._natives:
            if not is_struct or self._has(name):
                yield name, partial(get, self)

    def struct_name(self) -> str:
        """Return the name of the struct in its schema."""
        return type(self).__name__

    def struct_schema(self) -> Any:
        """Return pycapnp's schema of the struct."""
        return self._schema

    def __repr__(self) -> str:
        message = self._at[0]
        left = message.budget_words
        text = view_repr(self)
        # A `repr` must not use the message up.
        message.budget_words = left
        return text


def _only_message(data: Buffer) -> Message:
    try:
        for message in FrameDecoder().feed(data):
            return message
    except RemoteProtocolError as error:
        raise MalformedMessage(str(error)) from error
    raise MalformedMessage("message is cut short")


class StructCodec:
    """Reads and writes one struct type.

    Built by `compile_struct`, which makes one codec per type, brand and process. `schema` is
    pycapnp's.
    """

    def __init__(self, schema: Any) -> None:
        node = schema.node
        self.name = name_of(schema)
        self.schema = schema
        self._data_words: int = node.struct.dataWordCount
        self._pointer_count: int = node.struct.pointerCount
        # The upper half of a pointer to this struct.
        self.sizes = self._data_words | self._pointer_count << 16
        # Without what it points to.
        self.own_words = self._data_words + self._pointer_count

    def compile(self) -> Self:
        """Compile this struct and all that it contains now, rather than at the first use.

        A generic struct may contain itself under ever new brands: those beyond `_MAX_BRANDS`
        are left to their first use.
        """
        seen: set[int] = set()
        brands: Counter[int] = Counter()
        waiting: list[Codec] = [self]
        while waiting:
            codec = waiting.pop()
            type_id = codec.schema.node.id
            if id(codec) not in seen and brands[type_id] < _MAX_BRANDS:
                seen.add(id(codec))
                brands[type_id] += 1
                _ = codec.view, codec.writer
                for field in codec.fields:
                    waiting += () if field.pointer_type is None else field.pointer_type.codecs
        return self

    # Fields are compiled at first use, since a struct may contain itself.
    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The fields in the order of the schema."""
        schema = self.schema
        return tuple(compile_field(field, schema, compile_struct) for field in schema.fields_list)

    @cached_property
    def view(self) -> type[StructView]:
        """The class of this struct's views."""
        members: dict[str, Any] = {field.name: property(field.get) for field in self.fields}
        # Where a field needs it: the reader of `fallback`, made once per view.
        has_fallback = any(field.is_fallback for field in self.fields)
        members["__slots__"] = ("_reader",) if has_fallback else ()
        members["_natives"] = [
            (field.name, field.get, None, False)
            if field.pointer_type is None
            else (field.name, field.get, field.pointer_type.to_native, field.pointer_type.is_struct)
            for field in self.fields
        ]
        members["_schema"] = self.schema
        members["_has_fallback"] = has_fallback
        if not has_fallback:
            members["_read_all"] = staticmethod(
                compile_reader(self.name, self.fields, self._data_words, self._pointer_count)
            )
        if self.schema.node.struct.discriminantCount:
            members["which"] = lambda view: read_which(reader_of(view))
        members["_fields"] = {field.name: field.slot for field in self.fields}
        return type(self.name, (StructView,), members)

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
        """Return a view of the struct at `content`; with None, all fields have their defaults."""
        return self.view._empty() if content is None else self.view(content)

    def write(self, values: Mapping[str, Any]) -> EncodedStruct:
        """Return the words of a struct; a field that `values` lacks gets its default.

        What pointers point to follows in the order of the schema.

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
        parts.insert(0, _head(0, words + 1, 0 if sizes else 0xFFFFFFFC, sizes))
        return b"".join(parts)

    def pack(self, values: Mapping[str, Any]) -> EncodedTuple:
        """Return what `write` does, as a plain tuple."""
        parts: list[Any] = [b""]
        try:
            parts[0], words = self.writer(values, self.own_words, parts)
        except EncodeError:
            raise
        except WRITE_ERRORS as error:
            path, reason = self.mistake(values, error)
            raise EncodeError(f"{self.name}{path}{reason}") from error
        except RecursionError as error:
            raise EncodeError(f"{self.name}: nested too deeply, or in itself") from error
        if words > _MAX_WORDS:
            raise EncodeError(f"{self.name}: {words} words are more than pointers reach")
        return self.sizes, parts, words

    @cached_property
    def writer(self) -> Writer:
        """What writes this struct, for `pack` and for the structs that it is in."""
        sizes = self._data_words, self._pointer_count
        write = compile_writer(self.name, self.fields, *sizes, self._complete)
        if not any(field.is_fallback for field in self.fields):
            return write

        def write_or_build(values: Any, at: int, tail: list[Any]) -> tuple[bytes, int]:
            parts = len(tail)
            try:
                return write(values, at, tail)
            except NeedsFallback:
                del tail[parts:]
                is_view = isinstance(values, StructView)
                body, words = build(self.schema, values.to_dict() if is_view else values)
                tail += body
                return b"", words

        return write_or_build

    def _complete(self, values: Any) -> dict[str, Any]:
        """Return a value for each field; of no values at all there is nothing to write."""
        if isinstance(values, StructView):
            values = values.to_dict()
        elif not isinstance(values, Mapping):
            raise TypeError(f"expected a mapping of field names, not {type(values).__name__}")
        if not values:
            return {}
        complete = {**self._defaults, **values}
        if len(complete) != len(self._defaults):
            raise KeyError
        return complete

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        return {field.name: field.default for field in self.fields}

    def mistake(self, values: Any, error: Exception) -> Mistake:
        """Return where in `values`, and what, is wrong: writing them raised `error`."""
        if isinstance(values, StructView):
            values = values.to_dict()
        if not isinstance(values, Mapping):
            return "", f": {error}"
        by_name = {field.name: field for field in self.fields}
        for name, value in values.items():
            if name not in by_name:
                return "", f" has no field {name!r}"
            try:
                self.writer({name: value}, self.own_words, [])
            except EncodeError:
                raise
            except WRITE_ERRORS as wrong:
                type_ = by_name[name].pointer_type
                path, reason = ("", f": {wrong}") if type_ is None else type_.explain(value, wrong)
                return f".{name}{path}", reason
        return "", f": {error}"


# Of each type id the codecs of its brands: `Box(Text)` and `Box(Data)` have one id.
_codecs: dict[int, list[StructCodec]] = {}


def compile_struct(schema: Any) -> StructCodec:
    """Return the codec of a pycapnp struct schema (``module.Name.schema``)."""
    brands = _codecs.setdefault(schema.node.id, [])
    for codec in brands:
        # C++ keeps one schema per type and brand and compares by identity; there is no hash.
        if codec.schema == schema:
            return codec
    codec = StructCodec(schema)
    brands.append(codec)
    return codec
