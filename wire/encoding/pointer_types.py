"""What a pointer may point to: how each type is read from a view and written.

A value is read by an accessor (`accessors`). It is written by source code, which `writers` puts
together; `explain` says afterwards what was wrong with a value.

Lists of pointers have no code of their own. To Cap'n Proto an element is a struct of one pointer
and no data (encoding.html#lists); it is read and written as such a struct.
"""

import struct
from collections.abc import Iterable
from operator import methodcaller
from typing import Any

from capnp.lib.capnp import (
    _DynamicStructBuilder,
    _DynamicStructReader,
    _EnumSchema,
    _InterfaceSchema,
    _ListSchema,
    _StructSchema,
)

from capnp_rig.wire.encoding.accessors import (
    data_accessor,
    list_accessor,
    numbers_accessor,
    struct_accessor,
    text_accessor,
)
from capnp_rig.wire.encoding.any_pointers import (
    AnyPointer,
    AnyValue,
    any_pointer_accessor,
    copy_pointer,
    copy_struct,
    root_of,
)
from capnp_rig.wire.encoding.bound_types import any_type, element_type, schema_of
from capnp_rig.wire.encoding.capability_fields import CapabilityType, NoTableError
from capnp_rig.wire.encoding.conversions import (
    FORMATS,
    MAX_ELEMENTS,
    NUMBERS,
    SIZES,
    WRITE_ERRORS,
    Enumerants,
    Packers,
    as_bool,
    as_bytes,
    as_list,
    has_columns,
    packed,
    too_long,
)
from capnp_rig.wire.encoding.encoded import BYTES_WORD, ZEROS
from capnp_rig.wire.encoding.field_types import (
    Accessor,
    Codec,
    CompileStruct,
    DataType,
    Mistake,
    NativeSource,
    PointerType,
    Writer,
)
from capnp_rig.wire.encoding.lists import (
    BoolList,
    EnumList,
    PointerList,
    StructList,
    VoidList,
)
from capnp_rig.wire.encoding.pointers import BIT, BYTE, COMPOSITE, ELEMENT_CODES, POINTER
from capnp_rig.wire.encoding.view_repr import is_view
from capnp_rig.wire.encoding.writers import compile_element_writer, write_elements

# What takes data from bytes, and from any buffer.
_DATA = "buffer[first:last]", "bytes(buffer[first:last])"
# The zeros that close a text and fill its last word, by its length modulo 8.
_CLOSING = tuple(ZEROS[8 - length] for length in range(8))


def _to_dicts(views: StructList[Any]) -> list[dict[str, Any]]:
    return [view.to_dict() for view in views]


class _Text(PointerType):
    """A str."""

    which = "text"
    null_source = "''"

    def accessor(self, slot: int) -> Accessor:
        return text_accessor(slot)

    def write_source(self, word: str, place: int, names: dict[str, object]) -> list[str]:
        names.update(encode=str.encode, closing=_CLOSING)
        return [
            "x = encode(x)",
            "n = len(x)",
            # The zeros are a part of their own. To copy the text and add them takes longer: 59 ns
            # instead of 42 for 16 bytes, a third of all the time for 1 MiB.
            "tail.append(x)",
            "tail.append(closing[n & 7])",
            f"{word} = (at << 2) + (n << 35) + {BYTES_WORD + (1 << 35) - (place + 1 << 2)}",
            "at += n + 8 >> 3",
        ]

    def native_source(self, high: str, names: dict[str, object]) -> NativeSource | None:
        del names
        # `last` is where the NUL stands.
        return NativeSource(
            BYTE,
            f"({high} >> 3) - 1",
            "<= last < end and not buffer[last]",
            f"{high} + 56 >> 6",
            "buffer[first:last].decode()",
            "str(buffer[first:last], 'utf-8')",
        )

    def explain(self, value: Any, error: Exception) -> Mistake:
        if not isinstance(value, str):
            return "", f": expected a str, not {type(value).__name__}"
        # From 2**29 bytes on, the pointer is a number of over 64 bits.
        is_too_long = isinstance(error, struct.error)
        return "", f": {too_long(len(value) + 1) if is_too_long else error}"


class _Data(PointerType):
    """Bytes or any buffer of them; read as a view."""

    which = "data"
    null_source = "b''"
    to_native = staticmethod(memoryview.tobytes)

    def accessor(self, slot: int) -> Accessor:
        return data_accessor(slot)

    def write_source(self, word: str, place: int, names: dict[str, object]) -> list[str]:
        names.update(as_bytes=as_bytes, zeros=ZEROS)
        return [
            "if type(x) is not bytes:",
            "    x = as_bytes(x)",
            "n = len(x)",
            "tail.append(x)",
            "if n & 7:",
            "    tail.append(zeros[-n & 7])",
            f"{word} = (at << 2) + (n << 35) + {BYTES_WORD - (place + 1 << 2)}",
            "at += n + 7 >> 3",
        ]

    def native_source(self, high: str, names: dict[str, object]) -> NativeSource | None:
        del names
        return NativeSource(BYTE, f"({high} >> 3)", "<= last <= end", f"{high} + 56 >> 6", *_DATA)

    def explain(self, value: Any, error: Exception) -> Mistake:
        return "", f": {too_long(len(value)) if isinstance(error, struct.error) else error}"


class _Numbers(PointerType):
    """A list of integers or floats, or a buffer of them; read as a view."""

    def __init__(self, which: str) -> None:
        self.element = DataType(which)
        self._size, self._code = SIZES[which], FORMATS[which]
        self._packers = Packers(self._code, "pack")
        self._unpackers = Packers(self._code, "unpack_from")
        self.to_native = memoryview.tobytes if which == "uint8" else memoryview.tolist
        self.null_source = "b''" if which == "uint8" else "[]"

    def accessor(self, slot: int) -> Accessor:
        return numbers_accessor(slot, self._size, self._code)

    def write_source(self, word: str, place: int, names: dict[str, object]) -> list[str]:
        pack, size = f"pack_{self._code}", self._size
        names.update({pack: self._packers, "zeros": ZEROS})
        constant = 1 + (ELEMENT_CODES[size] << 32) - (place + 1 << 2)
        return [
            # The usual case is written out, which saves a call.
            "if type(x) is list:",
            "    n = len(x)",
            f"    tail.append({pack}[n](*x))",
            f"    {word} = (at << 2) + (n << 35) + {constant}",
            f"    n *= {size}",
            "    if n & 7:",
            "        tail.append(zeros[-n & 7])",
            "    at += n + 7 >> 3",
            "else:",
            *(f"    {line}" for line in super().write_source(word, place, names)),
        ]

    def emit(self, value: Any, offset: int, tail: list[Any]) -> tuple[int, int]:
        data = packed(value, self._code)
        size = len(data)
        count = size // self._size
        if count > MAX_ELEMENTS:
            raise ValueError(too_long(count))
        tail.append(data)
        if size & 7:
            tail.append(ZEROS[-size & 7])
        return 1 | offset << 2 | ELEMENT_CODES[self._size] << 32 | count << 35, (size + 7) >> 3

    def native_source(self, high: str, names: dict[str, object]) -> NativeSource | None:
        element, count = ELEMENT_CODES[self._size], f"({high} >> 3)"
        values = _DATA
        if self.to_native is not memoryview.tobytes:
            unpack = f"unpack_{self._code}"
            names[unpack] = self._unpackers
            values = (f"list({unpack}[{count}](buffer, first))",) * 2
        words = "last - first + 7 >> 3"
        return NativeSource(element, f"{count} * {self._size}", "<= last <= end", words, *values)


class _Enums(PointerType):
    """A list of enumerants."""

    to_native = list

    def __init__(self, schema: Any) -> None:
        self.element = DataType("enum", schema)
        self._enumerants = Enumerants(schema.enumerants)
        self._numbers = _Numbers("enum")

    def accessor(self, slot: int) -> Accessor:
        read = self._numbers.accessor(slot)
        names = {number: enumerant for enumerant, number in self._enumerants.items()}
        return lambda view: EnumList(names, read(view), view._at[0])

    def emit(self, value: Any, offset: int, tail: list[Any]) -> tuple[int, int]:
        enumerants = self._enumerants
        return self._numbers.emit([enumerants[item] for item in as_list(value)], offset, tail)


class _Bools(PointerType):
    """A list of bools."""

    element = DataType("bool")
    to_native = list

    def accessor(self, slot: int) -> Accessor:
        return list_accessor(slot, BoolList)

    def emit(self, value: Any, offset: int, tail: list[Any]) -> tuple[int, int]:
        digits = [
            "1" if item is True or (item is not False and as_bool(item)) else "0"
            # One call for all that numpy has, not one for each.
            for item in as_list(value.tolist() if hasattr(value, "tolist") else value)
        ]
        count = len(digits)
        if count > MAX_ELEMENTS:
            raise ValueError(too_long(count))
        words = (count + 63) >> 6
        # The first bool is the lowest bit.
        tail.append(int("".join(reversed(digits)) or "0", 2).to_bytes(8 * words, "little"))
        return 1 | offset << 2 | BIT << 32 | count << 35, words


class _Struct(PointerType):
    """A mapping of a struct's fields; read as a view."""

    which = "struct"
    omits_null = True
    to_native = methodcaller("to_dict")

    def __init__(self, codec: Codec) -> None:
        self.codecs = (codec,)

    def accessor(self, slot: int) -> Accessor:
        return struct_accessor(slot, *self.codecs)

    def write_source(self, word: str, place: int, names: dict[str, object]) -> list[str]:
        (codec,) = self.codecs
        names[f"codec_{word}"] = codec
        pointer = f"(at << 2) + {(codec.sizes << 32) - (place + 1 << 2)}"
        return [
            "n = len(tail)",
            'tail.append(b"")',
            f"tail[n], n = codec_{word}.writer(x, {codec.own_words}, tail)",
            # A struct without size points at itself: offset -1.
            f"{word} = {pointer if codec.sizes else 0xFFFFFFFC}",
            "at += n",
        ]

    def emit(self, value: Any, offset: int, tail: list[Any]) -> tuple[int, int]:
        (codec,) = self.codecs
        place = len(tail)
        tail.append(b"")
        tail[place], words = codec.writer(value, codec.own_words, tail)
        return (offset << 2 | codec.sizes << 32) if codec.sizes else 0xFFFFFFFC, words

    def explain(self, value: Any, error: Exception) -> Mistake:
        (codec,) = self.codecs
        return codec.mistake(value, error)


class _Elements(PointerType):
    """A list whose elements are written one by one: all of them, then what they point to."""

    # The size of an element.
    _words = 1

    def _writer(self) -> Writer:
        raise NotImplementedError

    def _explain_element(self, value: Any, error: Exception) -> Mistake:
        raise NotImplementedError

    def explain(self, value: Any, error: Exception) -> Mistake:
        try:
            items = as_list(value)
        except TypeError as unlike:
            return "", f": {unlike}"
        write = self._writer()
        for index, item in enumerate(items):
            try:
                write(item, self._words, [])
            except NoTableError as wrong:
                if isinstance(error, NoTableError):
                    return f"[{index}]", f": {wrong}"
            except WRITE_ERRORS as wrong:
                path, reason = self._explain_element(item, wrong)
                return f"[{index}]{path}", reason
        return "", f": {error}"


class _Structs(_Elements):
    """A list of mappings of a struct's fields, or columns of them."""

    def __init__(self, codec: Codec) -> None:
        self.codecs = (codec,)
        self.element = _Struct(codec)
        self._codec = codec
        self._words = codec.own_words
        self.to_native = _to_dicts

    def accessor(self, slot: int) -> Accessor:
        codec = self._codec
        return list_accessor(slot, lambda items: StructList(codec.view, items))

    def emit(self, value: Any, offset: int, tail: list[Any]) -> tuple[int, int]:
        if type(value) is not list and has_columns(value):
            return self._emit_columns(value, offset, tail)
        items = as_list(value)
        count, section = len(items), len(items) * self._words
        if max(count, section) > MAX_ELEMENTS:
            raise ValueError(f"{count} structs are more than a list holds, {MAX_ELEMENTS} words")
        # The tag: like a pointer to an element, with the count for its offset.
        tail.append((self._codec.sizes << 32 | count << 2).to_bytes(8, "little"))
        words = write_elements(items, self._codec.writer, self._words, tail)
        return 1 | offset << 2 | COMPOSITE << 32 | section << 35, words + 1

    def _emit_columns(self, value: Any, offset: int, tail: list[Any]) -> tuple[int, int]:
        try:
            from capnp_rig.wire.encoding.column_writing import write_columns
        except ModuleNotFoundError as error:
            raise TypeError(
                f"columns need numpy: pip install 'capnp-rig[numpy]' ({error})"
            ) from None
        tag = len(tail)
        tail.append(b"")
        count, words = write_columns(value, self._codec, tail)
        tail[tag] = (self._codec.sizes << 32 | count << 2).to_bytes(8, "little")
        return 1 | offset << 2 | COMPOSITE << 32 | count * self._words << 35, words + 1

    def explain(self, value: Any, error: Exception) -> Mistake:
        return ("", f": {error}") if has_columns(value) else super().explain(value, error)

    def _writer(self) -> Writer:
        return self._codec.writer

    def _explain_element(self, value: Any, error: Exception) -> Mistake:
        return self._codec.mistake(value, error)


class _Pointers(_Elements):
    """A list of texts, of data or of lists."""

    def __init__(self, inner: PointerType) -> None:
        self.codecs = inner.codecs
        self.has_capability = inner.has_capability
        self.element = self._inner = inner
        self._write = compile_element_writer(inner)
        convert = inner.to_native
        self.to_native = list if convert is None else lambda items: list(map(convert, items))

    def accessor(self, slot: int) -> Accessor:
        get = self._inner.accessor(0)
        return list_accessor(slot, lambda items: PointerList(get, items))

    def emit(self, value: Any, offset: int, tail: list[Any]) -> tuple[int, int]:
        items = as_list(value)
        count = len(items)
        if count > MAX_ELEMENTS:
            raise ValueError(too_long(count))
        words = write_elements(items, self._write, 1, tail)
        return 1 | offset << 2 | POINTER << 32 | count << 35, words

    def _writer(self) -> Writer:
        return self._write

    def _explain_element(self, value: Any, error: Exception) -> Mistake:
        return self._inner.explain(value, error)


class _Voids(PointerType):
    """A list of nothings, which has but a length."""

    element = DataType("void")
    to_native = list

    def accessor(self, slot: int) -> Accessor:
        return list_accessor(slot, VoidList)

    def emit(self, value: Any, offset: int, tail: list[Any]) -> tuple[int, int]:
        del tail
        items = as_list(value)
        if len(items) > MAX_ELEMENTS:
            raise ValueError(too_long(len(items)))
        if any(item is not None for item in items):
            raise TypeError("expected a list of None")
        return 1 | offset << 2 | len(items) << 35, 0


class _AnyPointer(PointerType):
    """A text, data, a struct or a capability, an AnyPointer or `AnyValue`; read as an `AnyPointer`.

    What is nothing else is a capability.
    """

    which = "anyPointer"
    omits_null = True
    has_capability = True

    def __init__(self, types: "PointerTypes") -> None:
        self._types = types

    def accessor(self, slot: int) -> Accessor:
        return any_pointer_accessor(slot, lambda type_: self._types.of(type_).accessor(0))

    def emit(self, value: Any, offset: int, tail: list[Any]) -> tuple[int, int]:
        if isinstance(value, AnyPointer):
            return copy_pointer(value.pointer(), offset, tail)
        if is_view(value):
            return copy_struct(value._at, offset, tail)
        if isinstance(value, AnyValue):
            return self._type_of(value).emit(value.value, offset, tail)
        if isinstance(value, _DynamicStructReader):
            value = value.as_builder()
        if isinstance(value, _DynamicStructBuilder):
            return copy_pointer(root_of(value.to_segments()), offset, tail)
        write = _write_text if isinstance(value, str) else _write_data
        if write is _write_data and not _is_buffer(value):
            return _emit_capability(value, offset, tail)
        word, at = write(value, offset + 1, tail)
        return int.from_bytes(word, "little"), at - offset - 1

    def explain(self, value: Any, error: Exception) -> Mistake:
        if isinstance(value, AnyValue):
            return self._type_of(value).explain(value.value, error)
        return super().explain(value, error)

    def _type_of(self, value: AnyValue) -> PointerType:
        return self._types.of(getattr(value.schema, "schema", value.schema))


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def _emit_capability(value: Any, offset: int, tail: list[Any]) -> tuple[int, int]:
    if isinstance(value, (int, float, Iterable)):
        kind = type(value).__name__
        raise TypeError(f"expected a text, data, a struct, a capability or an AnyValue, not {kind}")
    return CapabilityType(None).emit(value, offset, tail)


_write_text = compile_element_writer(_Text())
_write_data = compile_element_writer(_Data())


class PointerTypes:
    """Makes the types of the pointers in a struct, whose codec is `owner`."""

    def __init__(self, owner: Codec, compile_struct: CompileStruct) -> None:
        self._owner = owner
        self._compile_struct = compile_struct

    def of_field(self, field: Any) -> PointerType:
        """Return the type of a field of pycapnp's."""
        schema = schema_of(field, "schema")
        if schema is not None:
            return self.of(schema)
        which = field.proto.slot.type.which()
        if which == "anyPointer":
            which = any_type(self._owner.new_builder(), field.proto)
        return self.of(which)

    def of(self, type_: Any) -> PointerType:
        """Return a type: pycapnp's schema of it or, where there is none, its name."""
        if isinstance(type_, _StructSchema):
            return _Struct(self._compile_struct(type_))
        if isinstance(type_, _ListSchema):
            return self._list(type_)
        if isinstance(type_, _InterfaceSchema):
            return CapabilityType(type_)
        if type_ == "anyPointer":
            return _AnyPointer(self)
        if type_ == "capability":
            return CapabilityType(None)
        return _Text() if type_ == "text" else _Data()

    def _list(self, schema: _ListSchema) -> PointerType:
        element = schema_of(schema, "elementType") or element_type(schema, self._owner.schema.node)
        if isinstance(element, _StructSchema):
            return _Structs(self._compile_struct(element))
        if isinstance(element, _EnumSchema):
            return _Enums(element)
        if isinstance(element, str):
            if element in NUMBERS:
                return _Numbers(element)
            if element in {"bool", "void"}:
                return _Bools() if element == "bool" else _Voids()
        return _Pointers(self.of(element))
