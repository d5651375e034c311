"""Views of structs as JSON, which `reading` takes back.

================  ==================================================================
in the schema     in JSON
================  ==================================================================
Bool              ``true`` or ``false``
integers          a number; Int64 and UInt64 as strings of digits on request
floats            a number, or ``"NaN"``, ``"Infinity"``, ``"-Infinity"``
Text              a string
Data              a string of base64, unless the form has another
enums             the name of the enumerant; the number of one that the schema lacks
structs, groups   an object; a struct that was not sent is left out
unions            the active member; none where the schema lacks it
lists             a list
Void              ``null``
capabilities      ``"<capability Session>"``, with the name of the interface; not read back
AnyPointers       ``"<AnyPointer>"``; not read back
================  ==================================================================

A capability or an AnyPointer that is null is ``null``. Capabilities are not taken out of their
message.
"""

import base64
import json
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

from capnp_rig.wire.encoding.capability_fields import CapabilityType
from capnp_rig.wire.encoding.field_types import Codec, DataType, Field, PointerType, name_of
from capnp_rig.wire.encoding.view_repr import View

# Makes JSON of what a view has for a field.
_Convert = Callable[[Any], Any]

_INT64 = frozenset({"int64", "uint64"})
_FLOATS = frozenset({"float32", "float64"})


def base64_text(data: bytes) -> str:
    """Return bytes as base64."""
    return base64.b64encode(data).decode()


class JsonForm:
    """How structs are written as JSON; what a type needs is made at its first use."""

    def __init__(
        self, of_bytes: Callable[[bytes], Any] = base64_text, *, int64_as_text: bool = False
    ) -> None:
        self._of_bytes = of_bytes
        self._int64_as_text = int64_as_text
        # By the ids of codecs, which live as long as the process.
        self._structs: dict[int, _StructForm] = {}

    def of(self, view: View) -> dict[str, Any]:
        """Return a view as `json.dumps` takes it.

        Raises:
            MalformedMessage: It cannot be read.
        """
        return self.struct(view.struct_codec())(view)

    def struct(self, codec: Codec) -> "_StructForm":
        """Return what writes the views of a codec."""
        if id(codec) not in self._structs:
            self._structs[id(codec)] = _StructForm(self, codec)
        return self._structs[id(codec)]

    def field(self, field: Field) -> _Convert:
        """Return what writes the value of a field."""
        if field.group is not None:
            return self.struct(field.group)
        if field.pointer_type is not None:
            return self._pointer(field.pointer_type)
        assert field.data_type is not None
        return self._data(field.data_type)

    def _data(self, type_: DataType) -> _Convert:
        if type_.which in _FLOATS:
            return _finite
        return str if type_.which in _INT64 and self._int64_as_text else _same

    def _pointer(self, type_: PointerType) -> _Convert:
        match type_.which:
            case "text":
                return _same
            case "data":
                of_bytes = self._of_bytes
                return lambda data: of_bytes(bytes(data))
            case "struct":
                (codec,) = type_.codecs
                return self.struct(codec)
            case "list":
                return self._list(type_.element)
            case _:
                return lambda _value: marker_of(type_)

    def _list(self, element: PointerType | DataType) -> _Convert:
        if isinstance(element, PointerType):
            marker = marker_of(element)
            if marker is not None:
                return lambda items: [marker if is_set else None for is_set in items.are_set()]
            convert = self._pointer(element)
        else:
            convert = self._data(element)
            if convert is _same:
                # Of numbers it is a memoryview, whose own method is the quickest.
                return lambda items: items.tolist() if hasattr(items, "tolist") else list(items)
        return lambda items: list(map(convert, items))


class _StructForm:
    """Writes the views of one codec."""

    def __init__(self, form: JsonForm, codec: Codec) -> None:
        self._form, self._codec = form, codec

    @cached_property
    def _fields(self) -> list[tuple[Field, str | None, _Convert]]:
        """The fields, each with what stands for a capability or an AnyPointer."""
        return [
            (field, marker_of(field.pointer_type), self._form.field(field))
            for field in self._codec.fields
        ]

    def __call__(self, view: Any) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        active = view._active(view)
        for field, marker, convert in self._fields:
            if field.member is not None and field.member != active:
                continue
            if marker is not None:
                fields[field.name] = marker if view._has(field.name) else None
            elif view._is_present(field.name, field.member or 0):
                fields[field.name] = convert(field.get(view))
        return fields


def document(results: View, *, int64_as_text: bool = False, ascii_only: bool = False) -> str:
    """Return results as one line of JSON, with escapes for all that does not print.

    Raises:
        MalformedMessage: They cannot be read.
    """
    form = JsonForm(int64_as_text=int64_as_text)
    return escaped(json.dumps(form.of(results), ensure_ascii=ascii_only, allow_nan=False))


def escaped(text: str) -> str:
    """Return JSON with escapes for what steers a terminal, and all else that does not print."""
    if text.isprintable():
        return text
    # Outside of strings only the ends of lines do not print.
    return "".join(
        char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text
    )


def marker_of(type_: PointerType | None) -> str | None:
    """Return what stands for a value that has no JSON; None for a type whose values have."""
    if isinstance(type_, CapabilityType):
        name = "" if type_.interface is None else f" {name_of(type_.interface)}"
        return f"<capability{name}>"
    return "<AnyPointer>" if type_ is not None and type_.which == "anyPointer" else None


def _same(value: Any) -> Any:
    return value


def _finite(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
