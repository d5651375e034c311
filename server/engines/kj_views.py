"""Structs and lists of KJ's that capabilities may be in, read as those of `wire` are.

A field is pycapnp's value, but that a capability is what users have of one, and None where it is
null.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import capnp

from capnp_rig.schema import load_schema, message
from capnp_rig.wire.encoding.field_types import Codec, Field
from capnp_rig.wire.encoding.structs import compile_struct

CLIENT: Final = capnp.lib.capnp._DynamicCapabilityClient
_STRUCTS: Final = (capnp.lib.capnp._DynamicStructReader, capnp.lib.capnp._Response)
# Returns what users have of a client of pycapnp's, of an interface that is None if unknown.
Lift = Callable[[Any, Any], Any]


class View:
    """A struct in a message; `reader` is pycapnp's, which has all that this has not."""

    __slots__ = ("_codec", "_lift", "reader")

    def __init__(self, reader: Any, codec: Codec, lift: Lift) -> None:
        self.reader = reader
        self._codec: Any = codec
        self._lift = lift

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.reader, name)
        field = passing_fields(self._codec).get(name)
        if field is None:
            return value
        if type(value) is CLIENT and not self.reader._has(name):
            return None
        codecs = field.codecs
        return _lifted(value, field.pointer_type, codecs[0] if codecs else None, self._lift)

    def __repr__(self) -> str:
        return repr(self.reader)


class ListView(Sequence[Any]):
    """A list in a message."""

    __slots__ = ("_kind", "_lift", "reader")

    def __init__(self, reader: Any, kind: Any, lift: Lift) -> None:
        self.reader = reader
        self._kind = kind
        self._lift = lift

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        value = self.reader[index]
        if type(value) is CLIENT and _is_null(value):
            return None
        codecs = self._kind.codecs
        return _lifted(value, self._kind.element, codecs[0] if codecs else None, self._lift)


class AnyView:
    """An AnyPointer in a message."""

    __slots__ = ("_lift", "reader")

    def __init__(self, reader: Any, lift: Lift) -> None:
        self.reader = reader
        self._lift = lift

    def as_struct(self, schema: Any) -> View:
        """Return the struct that it points to."""
        codec = compile_struct(getattr(schema, "schema", schema))
        return View(self.reader.as_struct(schema), codec, self._lift)

    def as_capability(self) -> Any:
        """Return the capability that it is, None where it is null."""
        client = self.reader.as_interface(message.MessageStream)
        return None if _is_null(client) else self._lift(client, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reader, name)


def _lifted(value: Any, kind: Any, codec: Codec | None, lift: Lift) -> Any:
    if type(value) is CLIENT:
        return lift(value, kind.interface)
    if isinstance(value, _STRUCTS):
        assert codec is not None
        return View(value, codec, lift)
    if type(value) is capnp.lib.capnp._DynamicListReader:
        return ListView(value, kind, lift)
    return AnyView(value, lift) if type(value) is capnp.lib.capnp._DynamicObjectReader else value


@cache
def passing_fields(codec: Codec) -> dict[str, Field]:
    """Return the fields of a struct that capabilities may be in, by name."""
    return {field.name: field for field in codec.fields if _may_pass(field)}


def _may_pass(field: Field) -> bool:
    kind = field.pointer_type
    codecs: Any = field.codecs
    is_capability = kind is not None and kind.has_capability
    return is_capability or any(codec.has_capabilities for codec in codecs)


def _is_null(client: Any) -> bool:
    """Tell whether a client is that of a null pointer: KJ writes such a pointer for it."""
    # Loaded where it is needed: an AnyPointer, in a list as well, does not tell.
    holder = load_schema(Path(capnp.__file__).with_name("rpc.capnp")).Payload.new_message()
    holder.content = client
    return not holder._has("content")
