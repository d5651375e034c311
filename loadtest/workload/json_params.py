"""JSON for a struct of a schema: params to send, and results to expect.

================  ==================================================================
in the schema     in JSON
================  ==================================================================
Bool              ``true`` or ``false``
integers          a number, exact to the last digit, checked against the type's range
Int64, UInt64     also a string of decimal digits, as capnp's and protobuf's JSON have it
floats            a number, or ``"NaN"``, ``"Infinity"``, ``"-Infinity"``
Text              a string
Data              a string of base64, or a list of byte values
enums             the name of the enumerant
structs, groups   an object; a field left out has its default
unions            the field of the member that is meant, one at most
lists             a list
Void              ``null``
================  ==================================================================

Strings may hold templates (`workload.templates`). One that is nothing but a template with a
number is a number where the schema wants one, modulo the type's range: ``{{i}}`` for an Int8 is
0 to 127 again and again. For a Data, a string with templates is the text itself, in UTF-8.

All is checked when it is read, so that a run does not fail in its middle because of a mistake
in the params. Capabilities and AnyPointers have no JSON.
"""

import base64
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from capnp_rig.loadtest.workload.templates import (
    WIDEST,
    Template,
    TemplateError,
    Values,
    parse_template,
)
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.frames import DEFAULT_LIMITS
from capnp_rig.wire.encoding.pointers import NESTING_LIMIT
from capnp_rig.wire.encoding.structs import StructCodec
from capnp_rig.wire.errors import EncodeError
from capnp_rig.wire.rpc.message_encoder import PROMISE_CALL_HEAD_WORDS

# What a call has above its params.
_MAX_DEPTH = NESTING_LIMIT - 4
MAX_WORDS = DEFAULT_LIMITS.max_words - PROMISE_CALL_HEAD_WORDS
_SHOWN_CHARS = 40

_float32 = struct.Struct("<f")


class ParamsError(ValueError):
    """Params, or what is expected of results, are unusable; the message says where and why."""


# --- objects --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """One object of the JSON, and where it stands: "params", or "params line 3"."""

    place: str
    fields: object


class _Repeated(dict[str, Any]):
    """An object that has a key twice."""

    key: str


class _BareWord:
    """NaN or Infinity without quotes, which Python's parser takes for a number."""

    def __init__(self, word: str) -> None:
        self.word = word


def read_items(text: str, what: str) -> list[Item]:
    """Return the one object of `text`, over as many lines as it likes, or one per line.

    It is one per line if the first line that is not blank is whole without the others. `what` is
    the name of the option, for messages.

    Raises:
        ParamsError: There is none, or it is no JSON.
    """
    lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise ParamsError(f"{what}: there is no JSON object")
    if len(lines) == 1 or not _is_whole(lines[0][1]):
        return [_parse(text, what, what, 1)]
    return [_parse(line, f"{what} line {number}", what, number) for number, line in lines]


def _is_whole(line: str) -> bool:
    try:
        _parse(line, "", "", 1)
    except ParamsError:
        return False
    return True


def _parse(text: str, place: str, what: str, first_line: int) -> Item:
    try:
        fields = json.loads(text, object_pairs_hook=_object, parse_constant=_BareWord)
    except json.JSONDecodeError as error:
        at = f"{what} line {first_line + error.lineno - 1}, column {error.colno}"
        raise ParamsError(f"{at}: {error.msg}") from error
    except RecursionError as error:
        raise ParamsError(f"{place}: nested too deeply") from error
    except ValueError as error:
        # Python refuses to read a number of more than 4300 digits.
        raise ParamsError(f"{place}: a number is too long") from error
    return Item(place, fields)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    repeated = _Repeated(members)
    (repeated.key, _) = Counter(key for key, _ in pairs).most_common(1)[0]
    return repeated


# --- values ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands in for a value that each request renders anew."""

    render: Callable[[Values], Any]


def read_struct(item: Item, schema: Any, name: str) -> "Struct":
    """Return the fields of `item` as a struct's codec takes them, `Slot` where a template is.

    `schema` is pycapnp's of the struct, `name` what messages call it.

    Raises:
        ParamsError: A field does not fit the schema.
    """
    reader = _Reader(item.place)
    fields = reader.struct(schema, item.fields, name)
    return Struct(item.place, schema, fields, frozenset(reader.names))


@dataclass(frozen=True, slots=True)
class Struct:
    """Fields that fit a schema; `names` are the templates in them."""

    place: str
    schema: Any
    fields: dict[str, Any]
    names: frozenset[str]


class _Misfit(ValueError):
    """A value does not fit its type; where it stands is not known yet."""


class _Reader:
    """Walks along a JSON value and a schema at once; `_path` is where it is."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._path: list[str] = []
        self.names: set[str] = set()

    def struct(self, schema: Any, value: object, name: str) -> dict[str, Any]:
        """Return the fields of an object; `name` is what messages call the struct."""
        if not isinstance(value, dict):
            raise self._mistake(_expected(f"an object with the fields of {name}", value))
        if isinstance(value, _Repeated):
            raise self._mistake(f"the field {value.key!r} is there twice")
        if len(self._path) > _MAX_DEPTH:
            raise self._mistake(f"nested more than {_MAX_DEPTH} levels deep")
        fields = {field.proto.name: field for field in schema.fields_list}
        for key in value:
            if key not in fields:
                raise self._mistake(f"no field {key!r} in {name}: {_it_has(fields)}")
        members = [key for key in value if key in schema.union_fields]
        if len(members) > 1:
            raise self._mistake(f"{' and '.join(members)} are in one union: give one of them")
        return {key: self._at(f".{key}", self._field, fields[key], value[key]) for key in value}

    def _at(self, step: str, read: Callable[..., Any], *args: Any) -> Any:
        """Return what `read` does one step further down."""
        self._path.append(step)
        result = read(*args)
        self._path.pop()
        return result

    def _field(self, field: Any, value: object) -> Any:
        if field.proto.which() == "group":
            return self.struct(field.schema, value, f"the group {field.proto.name}")
        type_ = field.proto.slot.type
        return self._value(type_, field.schema if type_.which() in _HAS_SCHEMA else None, value)

    def _value(self, type_: Any, schema: Any, value: object) -> Any:
        """Return a value of a type; `schema` is that of a struct, an enum or a list."""
        which = type_.which()
        try:
            if isinstance(value, str) and which not in _NO_JSON:
                value = parse_template(value)
            if isinstance(value, Template):
                self.names |= value.names
                return _slot(which, value)
            if which == "struct":
                return self.struct(schema, value, _name_of(schema))
            if which == "list":
                return self._list(type_.list.elementType, schema, value)
            if which == "data" and isinstance(value, list):
                return bytes(self._each(partial(_leaf, "uint8", None), value))
            return _leaf(which, schema, value)
        except (TemplateError, _Misfit) as error:
            raise self._mistake(str(error)) from error

    def _list(self, element: Any, schema: Any, value: object) -> list[Any]:
        if not isinstance(value, list):
            raise _Misfit(_expected("a list", value))
        # pycapnp knows no schema of elements that need none.
        inner = schema.elementType if element.which() in _HAS_SCHEMA else None
        return self._each(partial(self._value, element, inner), value)

    def _each(self, read: Callable[[object], Any], values: Iterable[object]) -> list[Any]:
        return [self._at(f"[{index}]", read, value) for index, value in enumerate(values)]

    def _mistake(self, what: str) -> ParamsError:
        path = "".join(self._path).removeprefix(".")
        return ParamsError(": ".join(filter(None, (self._place, path, what))))


def _slot(which: str, template: Template) -> Slot:
    """Return a slot for a field whose string has templates."""
    if which in {"text", "data"}:
        # Only what stands between the templates can be wrong.
        _text(template.render(WIDEST))
        render = template.render
        return Slot(render if which == "text" else lambda values: render(values).encode())
    if which not in _BITS and which not in _FLOATS:
        raise _Misfit(f"a template cannot stand for {_NO_TEMPLATE[which]}")
    if not template.is_number:
        raise _Misfit(
            f"{_TYPE_NAMES[which]} takes a template only if the string is nothing but "
            "'{{i}}', '{{user}}' or '{{time_ns}}'"
        )
    # Signed numbers count up from 0 again, not from their least.
    number = template.number(_BITS.get(which, 64) - (not which.startswith("u")))
    if which in _BITS:
        return Slot(number)
    convert = _FLOATS[which]
    return Slot(lambda values: convert(number(values)))


def _leaf(which: str, schema: Any, value: object) -> Any:
    if which in _BITS:
        return _integer(which, value)
    if which in _FLOATS:
        return _float(which, value)
    match which:
        case "bool":
            if not isinstance(value, bool):
                raise _Misfit(_expected("true or false", value))
        case "void":
            if value is not None:
                raise _Misfit(_expected("null", value))
        case "text":
            return _text(value)
        case "data":
            return _data(value)
        case "enum":
            return _enumerant(schema, value)
        case _:
            raise _Misfit(f"{_NO_JSON[which]} cannot be given as JSON: leave it out")
    return value


def _integer(which: str, value: object) -> int:
    name = _TYPE_NAMES[which]
    bits = _BITS[which]
    if bits == _DIGITS_BITS and isinstance(value, str):
        value = _from_digits(name, value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Misfit(_expected(f"a whole number for {name}", value))
    least = 0 if which.startswith("u") else -(2 ** (bits - 1))
    most = 2**bits - 1 + least
    if not least <= value <= most:
        raise _Misfit(f"{_shown(value)} is out of range for {name} ({least} to {most})")
    return value


def _from_digits(name: str, text: str) -> int:
    """Return the number that a string writes in decimal digits."""
    if not _DIGITS.fullmatch(text):
        wrong = _shown(json.dumps(text))
        raise _Misfit(f"expected a whole number for {name}, or a string of its digits, not {wrong}")
    try:
        return int(text)
    except ValueError as error:
        # Python refuses to read more than 4300 digits.
        raise _Misfit("a number is too long") from error


def _float(which: str, value: object) -> float:
    name = _TYPE_NAMES[which]
    if isinstance(value, str) and value in _SPECIAL_FLOATS:
        return _SPECIAL_FLOATS[value]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _Misfit(_expected(f'a number, "NaN", "Infinity" or "-Infinity" for {name}', value))
    try:
        number = _FLOATS[which](value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise _Misfit(f"{_shown(value)} is out of range for {name}")
    return number


def _to_float32(value: float) -> float:
    """Return the nearest number that a Float32 holds, as which a reply brings it back."""
    (number,) = _float32.unpack(_float32.pack(value))
    return float(number)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Misfit(_expected("a string", value))
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _Misfit(f"the text is not valid Unicode: {error.reason}") from error
    return value


def _data(value: object) -> bytes:
    if not isinstance(value, str):
        raise _Misfit(_expected("a string of base64 or a list of byte values", value))
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise _Misfit("the string is no base64") from error


def _enumerant(schema: Any, value: object) -> str:
    if not isinstance(value, str):
        raise _Misfit(_expected(f"one of {', '.join(schema.enumerants)}", value))
    if value not in schema.enumerants:
        raise _Misfit(f"no {value!r} in {_name_of(schema)}: {_it_has(schema.enumerants)}")
    return value


def _expected(what: str, value: object) -> str:
    hint = ": leave it out for its default" if value is None else ""
    return f"expected {what}, not {_kind_of(value)}{hint}"


def _kind_of(value: object) -> str:
    if isinstance(value, _BareWord):
        return f'{value.word} without quotes (write "{value.word}")'
    return _KINDS[type(value)]


def _shown(value: float | str) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."


def _name_of(schema: Any) -> str:
    name: str = schema.node.displayName.rpartition(":")[2]
    return name


def _it_has(names: Iterable[str]) -> str:
    return f"it has {', '.join(names) or 'none'}"


_HAS_SCHEMA = frozenset({"struct", "list", "enum"})
_BITS = {f"{sign}int{bits}": bits for sign in ("", "u") for bits in (8, 16, 32, 64)}
# A JSON number of so many bits is rounded by many readers: writers make it a string.
_DIGITS_BITS = 64
_DIGITS = re.compile("-?[0-9]+")
_FLOATS: dict[str, Callable[[float], float]] = {"float32": _to_float32, "float64": float}
_SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_NO_JSON = {"interface": "a capability", "anyPointer": "an AnyPointer"}
_TYPE_NAMES = {name: name.title().replace("Uint", "UInt") for name in (*_BITS, *_FLOATS)}
_NO_TEMPLATE = {
    "bool": "a Bool",
    "void": "a Void",
    "enum": "an enumerant",
    "struct": "a struct",
    "list": "a list",
}
_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number with a fraction",
    str: "a string",
    list: "a list",
    dict: "an object",
    _Repeated: "an object",
}


# --- params ---------------------------------------------------------------------------------


class Params:
    """Params of calls, packed anew for each request where they have templates."""

    __slots__ = ("_fields", "_pack", "_packed", "_slots")

    def __init__(self, codec: StructCodec, params: Struct) -> None:
        """Pack them once, with the longest values that templates can have.

        Raises:
            ParamsError: They do not fit a message.
        """
        # What a request fills in: the same containers each time, since `pack` copies all
        # out of them.
        self._slots: list[tuple[Any, Any, Callable[[Values], Any]]] = []
        self._fields: dict[str, Any] = _copy(params.fields, self._slots)
        self._pack = codec.pack
        self._packed: EncodedTuple | None = None
        try:
            packed = self.pack(WIDEST)
        except EncodeError as error:
            raise ParamsError(f"{params.place}: {error}") from error
        if packed[2] > MAX_WORDS:
            raise ParamsError(f"{params.place}: {too_large(8 * packed[2])}")
        if not self._slots:
            self._packed = packed

    def pack(self, values: Values) -> EncodedTuple:
        """Return the params of the request with these values, as `StructCodec.pack` does."""
        if self._packed is not None:
            return self._packed
        for container, key, render in self._slots:
            container[key] = render(values)
        return self._pack(self._fields)


def too_large(size_bytes: int) -> str:
    """Return what to say of params that are over `MAX_WORDS`."""
    return f"{size_bytes} bytes are more than a message holds, {8 * MAX_WORDS}"


def _copy(value: Any, slots: list[tuple[Any, Any, Callable[[Values], Any]]]) -> Any:
    """Return a copy of nested dicts and lists, and add each slot in it to `slots`."""
    if not isinstance(value, (dict, list)):
        return value
    copied = value.copy()
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, Slot):
            slots.append((copied, key, item.render))
        else:
            copied[key] = _copy(item, slots)
    return copied
