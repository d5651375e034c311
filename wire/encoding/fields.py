"""Compiles the fields of a struct: how each is read from a view, and what `writers` needs.

Fields of the data section are compiled here, those of the pointer section by `pointer_types`.
Unions, groups and the like go through pycapnp (`fallback`).
"""

import struct
from collections.abc import Callable
from typing import Any

from capnp_rig.wire.encoding.conversions import FORMATS, NUMBERS, SIZES, Enumerants, not_bool
from capnp_rig.wire.encoding.fallback import bound_type, read_field, reader_at
from capnp_rig.wire.encoding.field_types import Atom, CompileStruct, Field, View
from capnp_rig.wire.encoding.pointer_types import pointer_type_of, simple_type
from capnp_rig.wire.encoding.reader_views import as_view

_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}


# The default of a union's Void member: None would choose that member.
_ABSENT = object()


def compile_field(field: Any, schema: Any, compile_struct: CompileStruct) -> Field:
    """Return how a field of a struct, whose pycapnp schema is `schema`, is read and written."""
    proto = field.proto
    # 0xffff: the field is in no union.
    if proto.which() != "slot" or proto.discriminantValue != 0xFFFF:
        is_void = proto.which() == "slot" and proto.slot.type.which() == "void"
        return _fallback_field(proto.name, default=_ABSENT if is_void else None)
    slot = proto.slot
    which = slot.type.which()
    if which in _DATA:
        return _DATA[which](proto.name, field)
    pointer_type = None
    if which == "anyPointer":
        pointer_type = simple_type(
            bound_type(schema, proto.name), lambda: field.schema, compile_struct
        )
    elif not slot.hadExplicitDefault:
        pointer_type = pointer_type_of(slot.type, lambda: field.schema, compile_struct)
    if pointer_type is None:
        return _fallback_field(proto.name, slot.offset)
    get = pointer_type.accessor(slot.offset)
    return Field(proto.name, get, slot=slot.offset, pointer_type=pointer_type)


def _fallback_field(name: str, slot: int | None = None, default: object = None) -> Field:
    def get(view: View) -> Any:
        return as_view(read_field(reader_of(view), name), view._at[0])

    return Field(name, get, default, slot, is_fallback=True)


def reader_of(view: Any) -> Any:
    """Return pycapnp's reader of the view's struct, made at the first need.

    Raises:
        ViewExpired: The view's message has expired, though the reader has a copy of it.
    """
    _ = view._at[0].buffer
    try:
        return view._reader
    except AttributeError:
        view._reader = reader_at(view._schema, view._at)
        return view._reader


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

    expression = "({on} if (x := {value}) is True else {off} if x is False else not_bool(x))"
    atom = Atom(
        byte,
        "B",
        expression.format(value="{value}", on=int(not default), off=int(default)),
        names={"not_bool": not_bool},
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
    known = f"names_{atom.byte}.get(x := {atom.read}, x)"
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
            read_names={f"names_{atom.byte}": names},
        ),
    )


_DATA: dict[str, Callable[[str, Any], Field]] = {
    "void": _void_field,
    "bool": _bool_field,
    "enum": _enum_field,
    **dict.fromkeys(NUMBERS, _number_field),
}
