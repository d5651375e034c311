"""What is expected of results, given as JSON: compares the fields that it names, and no others.

Structs, groups and elements of lists are compared by the fields given, lists only with the same
length, Text, Data and enums exactly, numbers by ``==``; a number for a Float32 is rounded to one
first. Of a union, the member given must be the active one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from capnp_rig.loadtest.workload.templated_params import Slot, Struct
from capnp_rig.loadtest.workload.templates import Values
from capnp_rig.wire.encoding.any_pointers import AnyPointer
from capnp_rig.wire.encoding.field_types import Codec
from capnp_rig.wire.encoding.structs import compile_struct
from capnp_rig.wire.errors import MalformedMessage
from capnp_rig.wire.json_values.reading import NO_JSON, ParamsError

# Gets the values of a request and the view of its results; None where all is as expected, else
# what is not.
Expectation = Callable[[Values, Any], str | None]
# Fewer types than this are in a struct that somebody writes down.
_MOST_TYPES = 256
# Gets what a reply has for a field, and the values of the request; returns the path of the field
# that is wrong, or None.
_Matcher = Callable[[Any, Values], str | None]


def compile_expectation(expected: Struct) -> Expectation:
    """Return what compares the fields of `expected` with a view of the results.

    It gets the values of the request and the view, and returns None where all are equal, else
    which is wrong, as "wrong reply: field point.x". It raises `MalformedMessage` where a field
    cannot be read.

    Raises:
        ParamsError: A NaN is expected.
    """
    match = _struct_matcher(compile_struct(expected.schema), expected.fields, "", expected.place)

    def fault(values: Values, results: Any) -> str | None:
        wrong = match(results, values)
        return None if wrong is None else f"wrong reply: field {wrong}"

    return fault


def fields_left_out(expected: Struct) -> tuple[str, ...]:
    """Return the fields that nobody compares, those of structs that are there among them.

    A union is compared where one of its members is.
    """
    return tuple(dict.fromkeys(_left_out(compile_struct(expected.schema), expected.fields, "")))


def _left_out(codec: Codec, fields: dict[str, Any], path: str) -> Iterator[str]:
    has_member = any(field.member is not None for field in codec.fields if field.name in fields)
    for field in codec.fields:
        if field.name not in fields:
            if not (has_member and field.member is not None):
                yield f"{path}{field.name}"
            continue
        value = fields[field.name]
        if isinstance(value, dict):
            yield from _left_out(field.codecs[0], value, f"{path}{field.name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                yield from _left_out(field.codecs[0], item, f"{path}{field.name}[].")


def without_values(codec: Codec) -> dict[str, str]:
    """Return the fields of a struct that JSON cannot give, each with the kind of its type."""
    typed = ((field.name, field.pointer_type) for field in codec.fields)
    return {name: type_.which for name, type_ in typed if type_ and type_.which in NO_JSON}


def paths_without_values(codec: Codec) -> list[str]:
    """Return where in a struct, in its structs and lists too, such fields are; each type once.

    Of a generic type that contains itself under ever new brands, those of the first few.
    """
    return list(_paths_without_values(codec, "", {id(codec)}))


def _paths_without_values(codec: Codec, path: str, seen: set[int]) -> Iterator[str]:
    yield from (f"{path}{name}" for name in without_values(codec))
    for field in codec.fields:
        for inner in field.codecs:
            if id(inner) not in seen and len(seen) < _MOST_TYPES:
                seen.add(id(inner))
                yield from _paths_without_values(inner, f"{path}{field.name}.", seen)


def _struct_matcher(codec: Codec, fields: dict[str, Any], path: str, place: str) -> _Matcher:
    parts: list[tuple[str, str, bool, _Matcher]] = []
    by_name = {field.name: field for field in codec.fields}
    for name, value in fields.items():
        inner = f"{path}.{name}" if path else name
        field = by_name[name]
        matcher = _matcher(field.codecs, value, inner, place)
        parts.append((name, inner, field.member is not None, matcher))

    def match(value: Any, values: Values) -> str | None:
        for name, inner, is_member, match_field in parts:
            # Reading another member than the active one is an error.
            if is_member and _active(value) != name:
                return inner
            wrong = match_field(getattr(value, name), values)
            if wrong is not None:
                return wrong
        return None

    return match


def _matcher(codecs: Sequence[Codec], expected: Any, path: str, place: str) -> _Matcher:
    """Return what compares a value; `codecs` has that of the structs in it, if there are any."""
    if isinstance(expected, dict):
        return _struct_matcher(codecs[0], expected, path, place)
    if isinstance(expected, list):
        return _list_matcher(codecs, expected, path, place)
    if isinstance(expected, Slot):
        render = expected.render
        return lambda value, values: None if _same(value, render(values)) else path
    if isinstance(expected, float) and math.isnan(expected):
        raise ParamsError(f"{place}: {path}: NaN equals nothing, itself included: leave it out")
    return lambda value, _values: None if _same(value, expected) else path


def _list_matcher(codecs: Sequence[Codec], expected: list[Any], path: str, place: str) -> _Matcher:
    parts = [
        _matcher(codecs, item, f"{path}[{index}]", place) for index, item in enumerate(expected)
    ]

    def match(value: Any, values: Values) -> str | None:
        if len(value) != len(parts):
            return path
        for item, match_item in zip(value, parts, strict=True):
            wrong = match_item(item, values)
            if wrong is not None:
                return wrong
        return None

    return match


def _same(value: Any, expected: object) -> bool:
    if isinstance(expected, bytes):
        # A memoryview would be compared element by element.
        return bytes(value) == expected
    if isinstance(value, AnyPointer):
        return value.is_null
    return bool(value == expected)


def _active(value: Any) -> str | None:
    """Return the active member of a union, None where a newer schema added it."""
    try:
        return str(value.which())
    except MalformedMessage:
        return None
