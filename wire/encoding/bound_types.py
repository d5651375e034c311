"""What pycapnp does not tell of a type: what a parameter is bound to, and of what a list is.

It tells the schema of a struct, an enum, an interface or a list under its brand, but nothing of a
number, a text or data. Those are told by their values.
"""

import struct
from collections.abc import Callable
from typing import Any

import capnp
from capnp.lib.capnp import _ListSchema

from capnp_rig.wire.encoding.conversions import FORMATS, NUMBERS

# No two types of numbers read the same of it.
_WORD = 0x8182838485868788.to_bytes(8, "little")
# Pointers to what follows, as a list: of one struct, with its tag, and of one bit.
_STRUCTS = 1 | 7 << 32 | 2 << 35, 1 << 2 | 0x10001 << 32
_BITS = 1 | 1 << 32 | 1 << 35
_NUMBERS = {struct.unpack_from(f"<{FORMATS[which]}", _WORD)[0]: which for which in NUMBERS}


def schema_of(typed: Any, attribute: str) -> Any | None:
    """Return pycapnp's schema of a field, or of a list's elements; None for a type without."""
    try:
        return getattr(typed, attribute)
    except capnp.KjException:
        return None


def any_type(builder: Any, proto: Any) -> str:
    """Return the type of a field that has no schema, and may be any by its declaration `proto`.

    `builder` is one of pycapnp's of the struct or group. A parameter may be bound to text or data;
    one that is not bound is an ``anyPointer``. ``Capability`` is the ``capability`` of any
    interface.
    """
    declared = proto.slot.type.anyPointer
    if declared.which() == "unconstrained":
        return "capability" if declared.unconstrained.which() == "capability" else "anyPointer"
    try:
        builder.init(proto.name, 0)
    except capnp.KjException:
        return "anyPointer"
    # There is no public way.
    return "text" if isinstance(builder._get(proto.name), str) else "data"  # noqa: SLF001


def element_type(list_schema: _ListSchema, node: Any) -> str:
    """Return the type of the elements of a list, which have no schema, as schema.capnp names it.

    `node` is pycapnp's of any struct: schema.capnp, whose type it is, has an AnyPointer.
    """
    value = _value_struct(node)
    discriminant = value.schema.fields["anyPointer"].proto.discriminantValue

    def first(*words: int) -> Any:
        """Return the first element of a list of these words, and of `_WORD` and a null pointer."""
        head = struct.pack(f"<{2 + len(words)}Q", 1 << 32 | 1 << 48, discriminant, *words)
        message = value.from_segments([head + _WORD + bytes(8)])
        return message.anyPointer.as_list(list_schema)[0]

    try:
        element = first(*_STRUCTS)
    except capnp.KjException:
        return _bool_or_capability(first)
    if element is None:
        return "void"
    if isinstance(element, (str, bytes)):
        return "text" if isinstance(element, str) else "data"
    return _NUMBERS[element]


def _bool_or_capability(first: Callable[..., Any]) -> str:
    """Return the type of elements that are no structs: bits, or capabilities of any interface."""
    try:
        first(_BITS)
    except capnp.KjException:
        # Those pycapnp does not read at all.
        return "capability"
    return "bool"


# One, by the id of its schema: to make it takes 1 ms.
_value_structs: dict[int, Any] = {}


def _value_struct(node: Any) -> Any:
    """Return schema.capnp's struct Value, of which `node` has one in it."""
    type_id = node.schema.node.id
    if type_id not in _value_structs:
        schema = node.schema.fields["const"].schema.fields["value"].schema
        _value_structs[type_id] = capnp._StructModule(schema, "Value")  # noqa: SLF001 - as above
    return _value_structs[type_id]
