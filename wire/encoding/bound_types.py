"""What pycapnp does not tell of a type: what a parameter is bound to, and of what a list is.

It tells the schema of a struct, an enum, an interface or a list under its brand, but nothing of a
number, a text or data. Those are told by their values.
"""

import struct
from typing import Any

import capnp
from capnp.lib.capnp import _ListSchema

from capnp_rig.wire.encoding.conversions import FORMATS, NUMBERS

# No two types of numbers read the same of it.
_WORD = 0x8182838485868788.to_bytes(8, "little")
_NUMBERS = {struct.unpack_from(f"<{FORMATS[which]}", _WORD)[0]: which for which in NUMBERS}


def schema_of(typed: Any, attribute: str) -> Any | None:
    """Return pycapnp's schema of a field, or of a list's elements; None for a type without."""
    try:
        return getattr(typed, attribute)
    except capnp.KjException:
        return None


def bound_type(builder: Any, name: str) -> str:
    """Return the type of a field without a schema whose type is a parameter: text or data.

    `builder` is one of pycapnp's of the struct or group. A parameter that is not bound is an
    ``anyPointer``.
    """
    try:
        builder.init(name, 0)
    except capnp.KjException:
        return "anyPointer"
    return "text" if isinstance(builder._get(name), str) else "data"  # noqa: SLF001 - no public way


def element_type(list_schema: _ListSchema, node: Any) -> str:
    """Return the type of the elements of a list, which have no schema, as schema.capnp names it.

    `node` is pycapnp's of any struct: schema.capnp, whose type it is, has an AnyPointer.
    """
    value = _value_struct(node)
    which = value.schema.fields["anyPointer"].proto
    # A struct with that pointer, to a list of one struct: a word and a null pointer.
    words = (
        1 << 32 | 1 << 48,
        which.discriminantValue,
        1 | 7 << 32 | 2 << 35,
        1 << 2 | 0x10001 << 32,
    )
    segment = struct.pack("<4Q", *words) + _WORD + bytes(8)
    try:
        element = value.from_segments([segment]).anyPointer.as_list(list_schema)[0]
    except capnp.KjException:
        # Bits are never structs.
        return "bool"
    if element is None:
        return "void"
    if isinstance(element, (str, bytes)):
        return "text" if isinstance(element, str) else "data"
    return _NUMBERS[element]


# One, by the id of its schema: to make it takes 1 ms.
_value_structs: dict[int, Any] = {}


def _value_struct(node: Any) -> Any:
    """Return schema.capnp's struct Value, of which `node` has one in it."""
    type_id = node.schema.node.id
    if type_id not in _value_structs:
        schema = node.schema.fields["const"].schema.fields["value"].schema
        _value_structs[type_id] = capnp._StructModule(schema, "Value")  # noqa: SLF001 - as above
    return _value_structs[type_id]
