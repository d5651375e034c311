"""Compiles the fields of a struct: how each is read from a view, and what `writers` needs.

Fields of the data section are compiled here, those of the pointer section by `pointer_types`.
"""

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from capnp.lib.capnp import _DynamicEnum, _DynamicListReader, _DynamicStructReader

from capnp_rig.wire.encoding.any_pointers import only_pointer
from capnp_rig.wire.encoding.conversions import FORMATS, NUMBERS, SIZES, Enumerants, as_bool
from capnp_rig.wire.encoding.field_types import (
    Accessor,
    Atom,
    Codec,
    CompileStruct,
    DataType,
    Field,
    PointerType,
    View,
)
from capnp_rig.wire.encoding.lists import OnePointer
from capnp_rig.wire.encoding.pointer_types import PointerTypes
from capnp_rig.wire.encoding.writers import compile_element_writer

_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}
# The number of a field that is in no union.
_NO_MEMBER = 0xFFFF


def compile_field(field: Any, owner: Codec, compile_struct: CompileStruct) -> Field:
    """Return how pycapnp's `field` of the struct with the codec `owner` is read and written."""
    proto = field.proto
    if proto.which() == "group":
        compiled = _group_field(proto.name, owner.group(field.schema, proto.name))
    elif (which := proto.slot.type.which()) in _DATA:
        data_type = DataType(which, field.schema if which == "enum" else None)
        compiled = replace(_DATA[which](proto.name, field), data_type=data_type)
    else:
        compiled = _pointer_field(field, PointerTypes(owner, compile_struct).of_field(field))
    if proto.discriminantValue == _NO_MEMBER:
        return compiled
    return replace(compiled, member=proto.discriminantValue)


def _group_field(name: str, group: Codec) -> Field:
    def get(view: View) -> View:
        _ = view._at[0].buffer
        return group.view(view._at)

    return Field(name, get, group=group)


def _pointer_field(field: Any, pointer_type: PointerType) -> Field:
    name, slot = field.proto.name, field.proto.slot
    get, null_source = pointer_type.accessor(slot.offset), pointer_type.null_source
    if slot.hadExplicitDefault:
        get, null_source = _or_default(get, slot.offset, field, pointer_type), None
    return Field(name, get, slot=slot.offset, pointer_type=pointer_type, null_source=null_source)


def _or_default(get: Accessor, index: int, field: Any, pointer_type: PointerType) -> Accessor:
    """Return an accessor that reads the default of a pointer which is null.

    It is read from a message that holds nothing else, and does not expire.
    """
    get_default: Callable[[Any], Any] = pointer_type.accessor(0)

    # At the first use: a struct may have its own type among its defaults.
    @cache
    def message_of_default() -> bytes:
        default = field.proto.slot.defaultValue
        which = default.which()
        value = getattr(default, which)
        if which in {"list", "struct"}:
            value = getattr(value, f"as_{which}")(field.schema)
        tail: list[Any] = []
        word, _ = compile_element_writer(pointer_type)(_native(value), 1, tail)
        return b"".join([word, *tail])

    def get_or_default(view: View) -> Any:
        message, _, _, _, _, pointers, pointers_end, _ = view._at
        buffer, at = message.buffer, pointers + 8 * index
        if at < pointers_end and any(buffer[at : at + 8]):
            return get(view)
        return get_default(OnePointer(only_pointer(message_of_default())))

    return get_or_default


def _native(value: Any) -> Any:
    """Return a default that pycapnp read as a value to write."""
    if isinstance(value, _DynamicListReader):
        return [_native(item) for item in value]
    if isinstance(value, _DynamicStructReader):
        return value.to_dict()
    return str(value) if isinstance(value, _DynamicEnum) else value


# --- the data section: values are XORed with their defaults ----------------------------


def _void_field(name: str, _: Any) -> Field:
    def get(view: View) -> None:
        _ = view._at[0].buffer

    return Field(name, get)


def _bool_field(name: str, field: Any) -> Field:
    slot = field.proto.slot
    default: bool = slot.defaultValue.bool
    byte, mask = slot.offset >> 3, 1 << (slot.offset & 7)

    def get(view: View) -> bool:
        place = view._at
        at, buffer = place[3] + byte, place[0].buffer
        if at >= place[4]:
            return default
        return bool(buffer[at] & mask) is not default

    expression = "({on} if (x := {value}) is True or x is not False and as_bool(x) else {off})"
    atom = Atom(
        byte,
        "B",
        expression.format(value="{value}", on=int(not default), off=int(default)),
        names={"as_bool": as_bool},
        bit=slot.offset & 7,
        read=f"({{raw}} & {mask} {'==' if default else '!='} 0)",
    )
    return Field(name, get, default, atom=atom)


def _number_field(name: str, field: Any) -> Field:
    slot = field.proto.slot
    which = slot.type.which()
    default: float = getattr(slot.defaultValue, which)
    size, code = SIZES[which], FORMATS[which]
    codec = struct.Struct("<" + code)
    raw = struct.Struct("<" + _UNSIGNED[size])
    unpack, pack = codec.unpack_from, codec.pack
    byte = slot.offset * size
    (mask,) = raw.unpack(pack(default))

    def get(view: View) -> Any:
        place = view._at
        at, buffer = place[3] + byte, place[0].buffer
        if at + size > place[4]:
            return default
        return unpack(buffer, at)[0]

    def get_xored(view: View) -> Any:
        place = view._at
        at, buffer = place[3] + byte, place[0].buffer
        if at + size > place[4]:
            return default
        (bits,) = raw.unpack_from(buffer, at)
        return codec.unpack(raw.pack(bits ^ mask))[0]

    if not mask:
        return Field(name, get, default, atom=Atom(byte, code, read="{raw}"))
    if which in {"float32", "float64"}:
        names = {f"float_{code}": pack, f"bits_{code}": raw.unpack}
        expression = f"bits_{code}(float_{code}({{value}}))[0] ^ {mask}"
        return Field(name, get_xored, default, atom=Atom(byte, _UNSIGNED[size], expression, names))
    # XOR leaves a number that is out of the range of its type out of it: `pack` refuses it.
    return Field(
        name,
        get_xored,
        default,
        atom=Atom(byte, code, f"{{value}} ^ {default}", read=f"{{raw}} ^ {default}"),
    )


def _enum_field(name: str, field: Any) -> Field:
    numbers = Enumerants(field.schema.enumerants)
    names = {number: enumerant for enumerant, number in numbers.items()}
    number_field = _number_field(name, field)
    read, atom = number_field.get, number_field.atom
    assert atom is not None
    default: int = field.proto.slot.defaultValue.enum

    def get(view: View) -> str | int:
        number: int = read(view)
        return names.get(number, number)

    table = f"numbers_{atom.byte}"
    expression = atom.expression.format(value=f"{table}[{{value}}]")
    assert atom.read is not None
    # A number that a newer schema added stays a number.
    known = f"(names_{atom.byte}[x] if (x := {atom.read}) < {len(names)} else x)"
    return Field(
        name,
        get,
        names.get(default, default),
        atom=Atom(
            atom.byte,
            atom.code,
            expression,
            {table: numbers},
            read=known,
            read_names={f"names_{atom.byte}": tuple(names[n] for n in range(len(names)))},
        ),
    )


_DATA: dict[str, Callable[[str, Any], Field]] = {
    "void": _void_field,
    "bool": _bool_field,
    "enum": _enum_field,
    **dict.fromkeys(NUMBERS, _number_field),
}
