"""What a pointer may point to: how each type is read from a view and written.

A value is read by an accessor (`accessors`). It is written by source code, which `writers` puts
together; `explain` says afterwards what was wrong with a value.

Lists of pointers have no code of their own. To Cap'n Proto an element is a struct of one pointer
and no data (encoding.html#lists); it is read and written as such a struct.
"""

import struct
from collections.abc import Callable
from functools import partial
from operator import methodcaller
from typing import Any

from capnp_rig.wire.encoding.accessors import (
    data_accessor,
    list_accessor,
    numbers_accessor,
    struct_accessor,
    text_accessor,
)
from capnp_rig.wire.encoding.conversions import (
    FORMATS,
    MAX_ELEMENTS,
    NUMBERS,
    SIZES,
    WRITE_ERRORS,
    Enumerants,
    Packers,
    as_bytes,
    as_list,
    not_bool,
    packed,
    too_long,
)
from capnp_rig.wire.encoding.encoded import BYTES_WORD, ZEROS
from capnp_rig.wire.encoding.field_types import (
    Accessor,
    Codec,
    CompileStruct,
    Mistake,
    NativeSource,
    PointerType,
    Writer,
)
from capnp_rig.wire.encoding.lists import BoolList, EnumList, PointerList, StructList
from capnp_rig.wire.encoding.pointers import BIT, BYTE, COMPOSITE, ELEMENT_CODES, POINTER
from capnp_rig.wire.encoding.writers import compile_element_writer, write_elements

# The zeros that close a text and fill its last word, by its length modulo 8.
_CLOSING = tuple(ZEROS[8 - length] for length in range(8))


def _to_dicts(views: StructList) -> list[dict[str, Any]]:
    return [view.to_dict() for view in views]


class _Text(PointerType):
    """A str."""

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
        has_nul = " and first < last and not buffer[last - 1]"
        return NativeSource(BYTE, f"({high} >> 3)", has_nul, "buffer[first:last - 1].decode()")

    def explain(self, value: Any, error: Exception) -> Mistake:
        if not isinstance(value, str):
            return "", f": expected a str, not {type(value).__name__}"
        # From 2**29 bytes on, the pointer is a number of over 64 bits.
        is_too_long = isinstance(error, struct.error)
        return "", f": {too_long(len(value) + 1) if is_too_long else error}"


class _Data(PointerType):
    """Bytes or any buffer of them; read as a view."""

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
        return NativeSource(BYTE, f"({high} >> 3)", "", "buffer[first:last]")

    def explain(self, value: Any, error: Exception) -> Mistake:
        return "", f": {too_long(len(value)) if isinstance(error, struct.error) else error}"


class _Numbers(PointerType):
    """A list of integers or floats, or a buffer of them; read as a view."""

    def __init__(self, which: str) -> None:
        self._size, self._code = SIZES[which], FORMATS[which]
        self._packers = Packers(self._code, "pack")
        self._unpackers = Packers(self._code, "unpack_from")
        self.to_native = memoryview.tobytes if which == "uint8" else memoryview.tolist

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
        if self.to_native is memoryview.tobytes:
            return NativeSource(element, count, "", "buffer[first:last]")
        unpack = f"unpack_{self._code}"
        names[unpack] = self._unpackers
        values = f"list({unpack}[{count}](buffer, first))"
        return NativeSource(element, f"{count} * {self._size}", "", values)


class _Enums(PointerType):
    """A list of enumerants."""

    to_native = list

    def __init__(self, schema: Any) -> None:
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

    to_native = list

    def accessor(self, slot: int) -> Accessor:
        return list_accessor(slot, BoolList)

    def emit(self, value: Any, offset: int, tail: list[Any]) -> tuple[int, int]:
        digits = [
            "1" if item is True else "0" if item is False else str(not_bool(item))
            for item in as_list(value)
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

    is_struct = True
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
            except WRITE_ERRORS as wrong:
                path, reason = self._explain_element(item, wrong)
                return f"[{index}]{path}", reason
        return "", f": {error}"


class _Structs(_Elements):
    """A list of mappings of a struct's fields."""

    def __init__(self, codec: Codec) -> None:
        self.codecs = (codec,)
        self._codec = codec
        self._words = codec.own_words
        self.to_native = _to_dicts

    def accessor(self, slot: int) -> Accessor:
        codec = self._codec
        return list_accessor(slot, lambda items: StructList(codec.view, items))

    def emit(self, value: Any, offset: int, tail: list[Any]) -> tuple[int, int]:
        items = as_list(value)
        count, section = len(items), len(items) * self._words
        if max(count, section) > MAX_ELEMENTS:
            raise ValueError(f"{count} structs are more than a list holds, {MAX_ELEMENTS} words")
        # The tag: like a pointer to an element, with the count for its offset.
        tail.append((self._codec.sizes << 32 | count << 2).to_bytes(8, "little"))
        words = write_elements(items, self._codec.writer, self._words, tail)
        return 1 | offset << 2 | COMPOSITE << 32 | section << 35, words + 1

    def _writer(self) -> Writer:
        return self._codec.writer

    def _explain_element(self, value: Any, error: Exception) -> Mistake:
        return self._codec.mistake(value, error)


class _Pointers(_Elements):
    """A list of texts, of data or of lists."""

    def __init__(self, inner: PointerType) -> None:
        self.codecs = inner.codecs
        self._inner = inner
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


def pointer_type_of(
    type_: Any, schema: Callable[[], Any], compile_struct: CompileStruct
) -> PointerType | None:
    """Return the type of a pointer, None where only pycapnp reads and writes it.

    `type_` is pycapnp's. `schema` returns the schema of a struct or a list; texts and data have
    none.
    """
    if type_.which() == "list":
        return _list_type(type_.list.elementType, schema, compile_struct)
    return simple_type(type_.which(), schema, compile_struct)


def simple_type(
    which: str, schema: Callable[[], Any], compile_struct: CompileStruct
) -> PointerType | None:
    """Return the type of a struct, a text or data; None for any other."""
    if which == "struct":
        return _Struct(compile_struct(schema()))
    return {"text": _Text, "data": _Data}[which]() if which in {"text", "data"} else None


def _list_type(
    element: Any, schema: Callable[[], Any], compile_struct: CompileStruct
) -> PointerType | None:
    which = element.which()
    if which in NUMBERS:
        return _Numbers(which)
    if which == "bool":
        return _Bools()
    if which == "enum":
        return _Enums(schema().elementType)
    if which == "struct":
        struct_schema = schema().elementType
        # Otherwise pycapnp reads the whole list, from one copy of the message. Here each element
        # would copy the message once more.
        return _Structs(compile_struct(struct_schema)) if is_plain(struct_schema, set()) else None
    inner = pointer_type_of(element, lambda: schema().elementType, compile_struct)
    return None if inner is None else _Pointers(inner)


_PLAIN = {"void", "bool", "enum", "text", "data", *NUMBERS}


def is_plain(schema: Any, seen: set[int]) -> bool:
    """Return whether views read a struct, and all that may be in it, without pycapnp.

    `seen` are the ids of the structs around it. Their brands do not matter: a field whose type is
    a parameter is not plain under any brand.
    """
    if schema.node.id in seen:
        return True
    seen.add(schema.node.id)
    return all(
        field.proto.which() == "slot"
        and field.proto.discriminantValue == 0xFFFF
        and _is_plain_type(field.proto.slot.type, partial(getattr, field, "schema"), seen)
        and not (field.proto.slot.hadExplicitDefault and _is_pointer(field.proto.slot.type))
        for field in schema.fields_list
    )


def _is_pointer(type_: Any) -> bool:
    return type_.which() in {"text", "data", "struct", "list"}


def _is_plain_type(type_: Any, schema: Callable[[], Any], seen: set[int]) -> bool:
    which = type_.which()
    if which == "struct":
        return is_plain(schema(), seen)
    if which == "list":
        return type_.list.elementType.which() != "void" and _is_plain_type(
            type_.list.elementType, lambda: schema().elementType, seen
        )
    return which in _PLAIN
