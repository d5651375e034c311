"""What is expected of results, given as JSON: compares the fields that it names, and no others.

Structs, groups and elements of lists are compared by the fields given, lists only with the same
length, Text, Data and enums exactly, numbers by ``==``; a number for a Float32 is rounded to one
first. Of a union, the member given must be the active one.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from capnp_rig.loadtest.workload.templated_params import Slot, Struct
from capnp_rig.loadtest.workload.templates import Values
from capnp_rig.wire.encoding.any_pointers import AnyPointer
from capnp_rig.wire.errors import MalformedMessage
from capnp_rig.wire.json_values.reading import ParamsError

# Gets the values of a request and the view of its results; None where all is as expected, else
# what is not.
Expectation = Callable[[Values, Any], str | None]
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
    match = _struct_matcher(expected.schema, expected.fields, "", expected.place)

    def fault(values: Values, results: Any) -> str | None:
        wrong = match(results, values)
        return None if wrong is None else f"wrong reply: field {wrong}"

    return fault


def fields_left_out(expected: Struct) -> tuple[str, ...]:
    """Return the fields that nobody compares, those of structs that are there among them.

    A union is compared where one of its members is.
    """
    return tuple(dict.fromkeys(_left_out(expected.schema, expected.fields, "")))


def _left_out(schema: Any, fields: dict[str, Any], path: str) -> Iterator[str]:
    has_member = any(name in schema.union_fields for name in fields)
    for name in schema.fieldnames:
        if name not in fields:
            if not (has_member and name in schema.union_fields):
                yield f"{path}{name}"
            continue
        value = fields[name]
        if isinstance(value, dict):
            yield from _left_out(schema.fields[name].schema, value, f"{path}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                inner = schema.fields[name].schema.elementType
                yield from _left_out(inner, item, f"{path}{name}[].")


def without_values(schema: Any) -> dict[str, str]:
    """Return the fields of a struct that JSON cannot give, each with the kind of its type."""
    slots = (each.proto for each in schema.fields_list if each.proto.which() != "group")
    kinds = {proto.name: str(proto.slot.type.which()) for proto in slots}
    return {name: kind for name, kind in kinds.items() if kind in {"interface", "anyPointer"}}


def paths_without_values(schema: Any) -> list[str]:
    """Return where in a struct, in its structs and lists too, such fields are; each type once."""
    return list(_paths_without_values(schema, "", {schema.node.id}))


def _paths_without_values(schema: Any, path: str, seen: set[int]) -> Iterator[str]:
    yield from (f"{path}{name}" for name in without_values(schema))
    for field in schema.fields_list:
        inner = _struct_in(field)
        if inner is not None and inner.node.id not in seen:
            seen.add(inner.node.id)
            yield from _paths_without_values(inner, f"{path}{field.proto.name}.", seen)


def _struct_in(field: Any) -> Any:
    """Return the schema of the structs that a field holds, None without any."""
    if field.proto.which() == "group":
        return field.schema
    type_ = field.proto.slot.type
    schema: Any = None
    # Asked for a schema that a type lacks, pycapnp raises.
    if type_.which() in {"struct", "list"}:
        schema = field.schema
    while type_.which() == "list":
        type_ = type_.list.elementType
        schema = schema.elementType if type_.which() in {"struct", "list"} else None
    return schema


def _struct_matcher(schema: Any, fields: dict[str, Any], path: str, place: str) -> _Matcher:
    parts: list[tuple[str, str, bool, _Matcher]] = []
    for name, value in fields.items():
        inner = f"{path}.{name}" if path else name
        nested = schema.fields[name].schema if isinstance(value, (dict, list)) else None
        is_member = name in schema.union_fields
        parts.append((name, inner, is_member, _matcher(nested, value, inner, place)))

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


def _matcher(schema: Any, expected: Any, path: str, place: str) -> _Matcher:
    if isinstance(expected, dict):
        return _struct_matcher(schema, expected, path, place)
    if isinstance(expected, list):
        return _list_matcher(schema, expected, path, place)
    if isinstance(expected, Slot):
        render = expected.render
        return lambda value, values: None if _same(value, render(values)) else path
    if isinstance(expected, float) and math.isnan(expected):
        raise ParamsError(f"{place}: {path}: NaN equals nothing, itself included: leave it out")
    return lambda value, _values: None if _same(value, expected) else path


def _list_matcher(schema: Any, expected: list[Any], path: str, place: str) -> _Matcher:
    # As above: elements without a schema have none to ask for.
    nested = schema.elementType if expected and isinstance(expected[0], (dict, list)) else None
    parts = [
        _matcher(nested, item, f"{path}[{index}]", place) for index, item in enumerate(expected)
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
