"""Readers and writers for structs, compiled once from a schema.

A `StructCodec` turns a pointer into a view with one attribute per field, and a
mapping of field names to values into words. The simple cases are done in plain
Python: booleans, integers, floats, enums, Text, Data, nested structs and lists of all
these and of lists, with their defaults. Data and lists of numbers are read-only
memoryviews into the received frame, other lists are sequences that read from it
(`lists`), an AnyPointer waits to be told what it is (`any_pointers`).

To Cap'n Proto a group is a struct that lies in the sections of the one around it. So it has a codec
of its own, whose views lie at the same place. The members of a union are fields that count only
under their number, which stands in the data section.

A view is a value to write, too, and so are its lists.

A view is valid as long as the buffer it was read from: one of a plain method's params expires
with the call, and raises `ViewExpired` afterwards (`pointers.ExpiredMessage`). An attribute that
the sender left out, or that its older schema lacks, reads as the schema's default.
"""

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property, partial
from typing import Any, ClassVar, Self

import capnp

from capnp_rig.wire.encoding.capability_fields import CapabilityParts, NoTableError
from capnp_rig.wire.encoding.conversions import WRITE_ERRORS
from capnp_rig.wire.encoding.encoded import EncodedStruct, EncodedTuple
from capnp_rig.wire.encoding.field_types import (
    Accessor,
    Atom,
    Codec,
    Field,
    Mistake,
    View,
    Writer,
    name_of,
)
from capnp_rig.wire.encoding.fields import compile_field
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
from capnp_rig.wire.encoding.readers import Native, Union, compile_reader, native_accessor
from capnp_rig.wire.encoding.view_repr import Member, view_repr
from capnp_rig.wire.encoding.writers import compile_writer
from capnp_rig.wire.errors import (
    EncodeError,
    InactiveMember,
    MalformedMessage,
    RemoteProtocolError,
)

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
    # Those of which a null pointer is left out of `to_dict`.
    _omitting_null: ClassVar[AbstractSet[str]] = frozenset()
    # Names and accessors of values that are independent of the buffer: of what is in no union,
    # and of the members of the union by their number.
    _natives: ClassVar[Sequence[Native]] = ()
    _members: ClassVar[Mapping[int, Native]] = {}
    _numbers: ClassVar[Mapping[str, int]] = {}
    _codec: "ClassVar[StructCodec]"

    def __init__(self, at: StructTuple) -> None:
        self._at = at

    @staticmethod
    def _active(_view: Any) -> int:
        """Return the number of the active member; a struct with a union replaces this."""
        return -1

    @classmethod
    def _empty(cls, message: Message | None = None) -> Self:
        """Return a view in which every field has its default; it expires with `message`."""
        if message is None:
            return cls(nothing())
        return cls((message, 0, 0, 0, 0, 0, 0, NESTING_LIMIT))

    def _has(self, name: str) -> bool:
        """Tell whether the sender set the field `name`; one without a pointer of its own is.

        An inactive member of a union is not.
        """
        slot = self._fields[name]
        message, _, _, _, _, pointers, pointers_end, _ = self._at
        buffer = message.buffer
        if name in self._numbers and self._numbers[name] != self._active(self):
            return False
        if slot is None:
            return True
        at = pointers + 8 * slot
        return at < pointers_end and any(buffer[at : at + 8])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name; Data as bytes, lists of numbers as lists.

        A struct that the sender did not set is left out, as is an AnyPointer, and of a union all
        members but the active one, which comes last. A struct that is the active member without
        being set is left out, too, if it is the first; otherwise it has its defaults.

        Raises:
            MalformedMessage: A field cannot be read.
        """
        # Replaced by what `compile_reader` makes, which leaves to this what it does not read.
        fields = {
            name: read(self)
            for name, read in self._natives
            # A struct may contain its own type: one that is null ends here.
            if name not in self._omitting_null or self._has(name)
        }
        number = self._active(self)
        name, read = self._members.get(number, ("", None))
        if read is not None and self._is_present(name, number):
            fields[name] = read(self)
        return fields

    def _is_present(self, name: str, number: int) -> bool:
        """Tell whether `to_dict` has an active member, which has that number."""
        return number > 0 or name not in self._omitting_null or self._has(name)

    def present_members(self) -> Iterator[Member]:
        """Yield what `to_dict` returns, in the order of the schema, each with what reads it."""
        # Whether it has expired, before any field.
        _ = self._at[0].buffer
        active = self._active(self)
        for name in self._fields:
            number = self._numbers.get(name, 0)
            if self._numbers.get(name, active) == active and self._is_present(name, number):
                yield name, partial(getattr, self, name)

    def struct_name(self) -> str:
        """Return the name of the struct in its schema."""
        return type(self).__name__

    def struct_codec(self) -> "StructCodec":
        """Return the codec of the struct."""
        return self._codec

    def __repr__(self) -> str:
        message = self._at[0]
        left = message.budget_words
        text = view_repr(self)
        # A `repr` must not use the message up.
        message.budget_words = left
        return text


def _active_member(byte: int) -> Callable[[View], int]:
    """Return what reads the number at a byte of a struct, which is that of the active member."""

    def get(view: View) -> int:
        message, _, _, data, data_end, _, _, _ = view._at
        at, buffer = data + byte, message.buffer
        if at + 2 > data_end:
            return 0
        return buffer[at] | buffer[at + 1] << 8

    return get


def _checked(get: Accessor, number: int, name: str, active: Callable[[View], int]) -> Accessor:
    """Return the accessor of a member of a union, which must be the active one."""

    def get_active(view: Any) -> Any:
        found = active(view)
        if found == number:
            return get(view)
        active_name, _ = view._members.get(found, (None, None))
        raise InactiveMember(view.struct_name(), name, active_name)

    return get_active


def _which(view: StructView) -> str:
    """Return the name of the active member of the union.

    Raises:
        MalformedMessage: It is one that the schema does not know.
    """
    number = view._active(view)
    if number not in view._members:
        raise MalformedMessage(
            f"message has member {number} of the union of {view.struct_name()}, "
            "which this schema does not know"
        )
    name, _ = view._members[number]
    return name


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

    def __init__(self, schema: Any, group_builder: Callable[[], Any] | None = None) -> None:
        """Take the schema of a struct or, with what returns a builder of it, of a group."""
        node = schema.node
        self.name = name_of(schema)
        self.schema = schema
        self._group_builder = group_builder
        # Of a group, those of the struct that it is in.
        self._data_words: int = node.struct.dataWordCount
        self._pointer_count: int = node.struct.pointerCount
        # The upper half of a pointer to this struct.
        self.sizes = self._data_words | self._pointer_count << 16
        # Without what it points to.
        self.own_words = self._data_words + self._pointer_count
        has_union = node.struct.discriminantCount > 0
        # Where the number of the active member stands.
        self._number = (
            Atom(2 * node.struct.discriminantOffset, "H", read="{raw}") if has_union else None
        )

    def new_builder(self) -> Any:
        """Return a new builder of pycapnp's of the struct."""
        if self._group_builder is not None:
            return self._group_builder()
        return capnp._StructModule(self.schema, self.name).new_message()

    def group(self, schema: Any, name: str) -> "StructCodec":
        """Return the codec of a group of the struct, with pycapnp's schema of it."""
        return StructCodec(schema, lambda: self.new_builder().init(name))

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
                    waiting += field.codecs
        return self

    # Fields are compiled at first use, since a struct may contain itself.
    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The fields in the order of the schema."""
        fields = self.schema.fields_list
        return tuple(compile_field(field, self, compile_struct) for field in fields)

    @cached_property
    def view(self) -> type[StructView]:
        """The class of this struct's views."""
        plain = [field for field in self.fields if field.member is None]
        members = {
            field.member: (field.name, native_accessor(field))
            for field in self.fields
            if field.member is not None
        }
        sizes = self._data_words, self._pointer_count
        first = next((field for field in self.fields if field.member == 0), None)
        first_slot = first.slot if first is not None and first.omits_null else None
        union = None if self._number is None else Union(self._number, members, first_slot)
        attributes: dict[str, Any] = {field.name: property(field.get) for field in plain}
        if self._number is not None:
            active = _active_member(self._number.byte)
            attributes |= {
                field.name: property(_checked(field.get, field.member, field.name, active))
                for field in self.fields
                if field.member is not None
            }
            attributes |= {"which": _which, "_active": staticmethod(active)}
        attributes |= {
            "__slots__": (),
            "_codec": self,
            "_fields": {field.name: field.slot for field in self.fields},
            "_omitting_null": {field.name for field in self.fields if field.omits_null},
            "_natives": [(field.name, native_accessor(field)) for field in plain],
            "_members": members,
            "_numbers": {name: number for number, (name, _) in members.items()},
            "to_dict": compile_reader(self.name, plain, *sizes, union, StructView.to_dict),
        }
        return type(self.name, (StructView,), attributes)

    def read(self, pointer: Pointer | None) -> Any:
        """Return a view of the struct behind `pointer`; a null one reads as all defaults.

        Raises:
            MalformedMessage: The pointer is no valid struct pointer.
        """
        return self.open(None if pointer is None else follow_struct(pointer))

    @cached_property
    def from_bytes(self) -> Callable[[Buffer], Any]:
        """A function that returns a view of the root struct of one message in the stream format.

        The message, a buffer, is read where it lies: nothing is copied, and it must not change.

        Raises:
            MalformedMessage: It is no whole message, or its root no struct.
        """
        # A closure over what it needs, which makes the objects without a call of `__init__`: 0.6 us
        # instead of 1.0.
        new, view_class, sizes = object.__new__, self.view, self.sizes
        data_end, last = 16 + 8 * self._data_words, 16 + 8 * self.own_words
        root = 16, data_end, last, TRAVERSAL_LIMIT_WORDS - self.own_words

        def from_bytes(data: Buffer) -> Any:
            try:
                extra, words, low, high = _message_at(data)
            except struct.error:
                return self.read(root_pointer(_only_message(data)))
            end = 8 + words * 8
            # As nearly all writers lay it out.
            first, data_end, last, left = root
            if high != sizes or extra or low:
                first = 16 + (low >> 2) * 8
                data_end = first + (high & 0xFFFF) * 8
                last = data_end + (high >> 16) * 8
                left = TRAVERSAL_LIMIT_WORDS - (last - first >> 3)
                if extra or low & 3 or first < 8 or not (low or high):
                    return self.read(root_pointer(_only_message(data)))
            if not last <= end <= len(data):
                return self.read(root_pointer(_only_message(data)))
            message = new(Message)
            message.buffer, message.bounds, message.budget_words = data, ((8, end),), left
            view = new(view_class)
            view._at = (message, 8, end, first, data_end, data_end, last, _ROOT_DEPTH)
            return view

        return from_bytes

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

    def pack(self, values: Mapping[str, Any], parts: list[Any] | None = None) -> EncodedTuple:
        """Return what `write` does, as a plain tuple; `parts` is ``[b""]``, or made from that."""
        if parts is None:
            parts = [b""]
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

    def pack_with_capabilities(self, values: Mapping[str, Any]) -> tuple[EncodedTuple, list[Any]]:
        """Return what `pack` does, and the values of the fields whose types are interfaces.

        They are any objects but None, in the order in which the words refer to them.

        Raises:
            EncodeError: As `write`.
        """
        parts = CapabilityParts()
        return self.pack(values, parts), parts.capabilities

    @cached_property
    def has_capabilities(self) -> bool:
        """Whether a capability may be in the struct, or in what it points to."""
        seen: set[int] = set()
        waiting: list[Codec] = [self]
        while waiting:
            codec = waiting.pop()
            if id(codec) in seen or len(seen) > _MAX_BRANDS:
                continue
            seen.add(id(codec))
            for field in codec.fields:
                if field.pointer_type is not None and field.pointer_type.has_capability:
                    return True
                waiting += field.codecs
        return False

    @cached_property
    def writer(self) -> Writer:
        """What writes this struct, for `pack` and for the structs that it is in."""
        sizes = self._data_words, self._pointer_count
        return compile_writer(self.name, self.fields, sizes, self._complete, self._number)

    def _complete(self, values: Any) -> dict[str, Any]:
        """Return a value for each field; of no values at all there is nothing to write.

        Of a union, what there is.
        """
        if isinstance(values, StructView):
            values = values.to_dict()
        elif not isinstance(values, Mapping):
            raise TypeError(f"expected a mapping of field names, not {type(values).__name__}")
        if not values:
            return {}
        complete = {**self._defaults, **values}
        if len(complete) != len(self._defaults) and not complete.keys() <= self._names:
            raise KeyError
        return complete

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        return {field.name: field.default for field in self.fields if field.member is None}

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(field.name for field in self.fields)

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
            except NoTableError as wrong:
                # With a table it would be right, unless this is what was wrong.
                if isinstance(error, NoTableError):
                    path, reason = by_name[name].explain(value, wrong)
                    return f".{name}{path}", reason
            except WRITE_ERRORS as wrong:
                path, reason = by_name[name].explain(value, wrong)
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
