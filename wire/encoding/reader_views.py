"""Views over pycapnp's readers: what `fallback` reads looks and fails as other views do.

They read from pycapnp's copy of the message, yet expire with the message: a caller need not know
which of the two views it holds.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, overload

from capnp.lib.capnp import (
    _DynamicEnum,
    _DynamicListReader,
    _DynamicStructReader,
)

from capnp_rig.wire.encoding.fallback import (
    active_member,
    name_of,
    read_dict,
    read_element,
    read_field,
    read_which,
)
from capnp_rig.wire.encoding.pointers import Message
from capnp_rig.wire.encoding.view_repr import Member, view_repr


class ReaderView:
    """A struct, or a group, one attribute per field of its schema.

    One with a union has `which()`, which returns the name of the active member.
    """

    __slots__ = ("_message", "_reader")

    def __init__(self, reader: Any, message: Message) -> None:
        self._reader, self._message = reader, message

    def __getattr__(self, name: str) -> Any:
        # Python asks for many names that no schema has.
        if name.startswith("_"):
            raise AttributeError(name)
        _ = self._message.buffer
        schema = self._reader.schema
        if name == "which" and schema.union_fields:
            return partial(read_which, self._reader)
        if name not in schema.fieldnames:
            raise AttributeError(f"{name_of(schema)} has no field {name!r}")
        return as_view(read_field(self._reader, name), self._message)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as pycapnp does: pointers that are null are left out.

        Raises:
            MalformedMessage: A field cannot be read.
        """
        _ = self._message.buffer
        return read_dict(self._reader)

    def present_members(self) -> Iterator[Member]:
        """Yield what `to_dict` returns, each field with what reads it."""
        _ = self._message.buffer
        reader, schema = self._reader, self._reader.schema
        members = schema.union_fields
        active = active_member(reader) if members else None
        for name in schema.fieldnames:
            if name == active if name in members else reader._has(name):
                yield name, partial(getattr, self, name)

    def struct_name(self) -> str:
        """Return the name of the struct in its schema."""
        return name_of(self._reader.schema)

    def struct_schema(self) -> Any:
        """Return pycapnp's schema of the struct."""
        return self._reader.schema

    def __repr__(self) -> str:
        return view_repr(self)


class ReaderList(Sequence[Any]):
    """A list; reading an element may raise `MalformedMessage`."""

    __slots__ = ("_message", "_places", "_reader")

    def __init__(self, reader: Any, message: Message, places: range) -> None:
        self._reader, self._message, self._places = reader, message, places

    def __len__(self) -> int:
        _ = self._message.buffer
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> "ReaderList": ...
    def __getitem__(self, index: int | slice) -> Any:
        _ = self._message.buffer
        place = self._places[index]
        if isinstance(place, range):
            return ReaderList(self._reader, self._message, place)
        return as_view(read_element(self._reader, place), self._message)

    def __repr__(self) -> str:
        return view_repr(self)


def as_view(value: Any, message: Message) -> Any:
    """Return what pycapnp read as views have it: views, lists, names of enumerants."""
    if isinstance(value, _DynamicStructReader):
        return ReaderView(value, message)
    if isinstance(value, _DynamicListReader):
        return ReaderList(value, message, range(len(value)))
    return _enumerant(value) if isinstance(value, _DynamicEnum) else value


def _enumerant(value: Any) -> str | int:
    try:
        return str(value)
    except RuntimeError:
        # A newer schema added it.
        number: int = value.raw
        return number
