"""JSON for a struct of a schema, read into what its codec writes.

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
type parameters   as what they are bound to; one that is not bound is an AnyPointer
================  ==================================================================

Capabilities and AnyPointers have no JSON but ``null``, and none as members of a union.

Whoever gives a string a meaning of its own, such as templates, extends `StructReader`.
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

from capnp_rig.wire.encoding.field_types import Codec, DataType, Field, PointerType, name_of
from capnp_rig.wire.encoding.pointers import NESTING_LIMIT
from capnp_rig.wire.encoding.structs import compile_struct

# What a call has above its params.
_MAX_DEPTH = NESTING_LIMIT - 4
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
        return [parse_object(text, what, what)]
    return [parse_object(line, f"{what} line {number}", what, number) for number, line in lines]


def _is_whole(line: str) -> bool:
    try:
        parse_object(line, "", "")
    except ParamsError:
        return False
    return True


def parse_object(text: str, place: str, what: str, first_line: int = 1) -> Item:
    """Return the one value that `text` is, JSON that starts on a line of what the option names.

    Raises:
        ParamsError: It is no JSON.
    """
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


class Misfit(ValueError):
    """A value does not fit its type; where it stands is not known yet."""


class StructReader:
    """Walks along a JSON value and the types of a struct at once.

    `place` is where the value stands, for messages. The methods raise `ParamsError` for what does
    not fit.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        # Where it is.
        self._path: list[str] = []

    def struct(self, schema: Any, value: object, name: str) -> dict[str, Any]:
        """Return the fields of an object; `name` is what messages call the struct."""
        return self._struct(compile_struct(schema), value, name)

    def _struct(self, codec: Codec, value: object, name: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.mistake(_expected(f"an object with the fields of {name}", value))
        if isinstance(value, _Repeated):
            raise self.mistake(f"the field {value.key!r} is there twice")
        if len(self._path) > _MAX_DEPTH:
            raise self.mistake(f"nested more than {_MAX_DEPTH} levels deep")
        fields = {field.name: field for field in codec.fields}
        for key in value:
            if key not in fields:
                raise self.mistake(f"no field {key!r} in {name}: {_it_has(fields)}")
        members = [key for key in value if fields[key].member is not None]
        if len(members) > 1:
            raise self.mistake(f"{' and '.join(members)} are in one union: give one of them")
        return {key: self._at(f".{key}", self._field, fields[key], value[key]) for key in value}

    def _at(self, step: str, read: Callable[..., Any], *args: Any) -> Any:
        """Return what `read` does one step further down."""
        self._path.append(step)
        result = read(*args)
        self._path.pop()
        return result

    def _field(self, field: Field, value: object) -> Any:
        if field.group is not None:
            return self._struct(field.group, value, f"the group {field.name}")
        type_ = field.pointer_type or field.data_type
        assert type_ is not None
        if value is None and type_.which in NO_JSON and field.member is not None:
            # To the codec, it chooses no member.
            what = NO_JSON[type_.which]
            raise self.mistake(f"{what} in a union cannot be given as JSON: leave it out")
        return self.value(type_, value)

    def value(self, type_: PointerType | DataType, value: object) -> Any:
        """Return a value of a type."""
        try:
            if isinstance(type_, DataType):
                return _leaf(type_.which, type_.enum, value)
            if type_.which == "struct":
                (codec,) = type_.codecs
                return self._struct(codec, value, name_of(codec.schema))
            if type_.which == "list":
                return self._list(type_.element, value)
            if type_.which == "data" and isinstance(value, list):
                return bytes(self._each(partial(_leaf, "uint8", None), value))
            return _leaf(type_.which, None, value)
        except Misfit as error:
            raise self.mistake(str(error)) from error

    def _list(self, element: PointerType | DataType, value: object) -> list[Any]:
        if not isinstance(value, list):
            raise Misfit(_expected("a list", value))
        return self._each(partial(self.value, element), value)

    def _each(self, read: Callable[[object], Any], values: Iterable[object]) -> list[Any]:
        return [self._at(f"[{index}]", read, value) for index, value in enumerate(values)]

    def mistake(self, what: str) -> ParamsError:
        """Return what to raise for a mistake in the value that is read."""
        path = "".join(self._path).removeprefix(".")
        return ParamsError(": ".join(filter(None, (self._place, path, what))))


def _leaf(which: str, enum: Any, value: object) -> Any:
    if which in BITS:
        return _integer(which, value)
    if which in FLOATS:
        return _float(which, value)
    match which:
        case "bool":
            if not isinstance(value, bool):
                raise Misfit(_expected("true or false", value))
        case "void":
            if value is not None:
                raise Misfit(_expected("null", value))
        case "text":
            return checked_text(value)
        case "data":
            return _data(value)
        case "enum":
            return _enumerant(enum, value)
        case _:
            if value is not None:
                raise Misfit(f"{NO_JSON[which]} cannot be given as JSON: leave it out")
    return value


def _integer(which: str, value: object) -> int:
    name = TYPE_NAMES[which]
    bits = BITS[which]
    if bits == _DIGITS_BITS and isinstance(value, str):
        value = _from_digits(name, value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Misfit(_expected(f"a whole number for {name}", value))
    least = 0 if which.startswith("u") else -(2 ** (bits - 1))
    most = 2**bits - 1 + least
    if not least <= value <= most:
        raise Misfit(f"{_shown(value)} is out of range for {name} ({least} to {most})")
    return value


def _from_digits(name: str, text: str) -> int:
    """Return the number that a string writes in decimal digits."""
    if not _DIGITS.fullmatch(text):
        wrong = _shown(json.dumps(text))
        raise Misfit(f"expected a whole number for {name}, or a string of its digits, not {wrong}")
    try:
        return int(text)
    except ValueError as error:
        # Python refuses to read more than 4300 digits.
        raise Misfit("a number is too long") from error


def _float(which: str, value: object) -> float:
    name = TYPE_NAMES[which]
    if isinstance(value, str) and value in _SPECIAL_FLOATS:
        return _SPECIAL_FLOATS[value]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise Misfit(_expected(f'a number, "NaN", "Infinity" or "-Infinity" for {name}', value))
    try:
        number = FLOATS[which](value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise Misfit(f"{_shown(value)} is out of range for {name}")
    return number


def _to_float32(value: float) -> float:
    """Return the nearest number that a Float32 holds, as which a reply brings it back."""
    (number,) = _float32.unpack(_float32.pack(value))
    return float(number)


def checked_text(value: object) -> str:
    """Return a text that can be sent.

    Raises:
        Misfit: It is no string, or holds a lone surrogate.
    """
    if not isinstance(value, str):
        raise Misfit(_expected("a string", value))
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Misfit(f"the text is not valid Unicode: {error.reason}") from error
    return value


def _data(value: object) -> bytes:
    if not isinstance(value, str):
        raise Misfit(_expected("a string of base64 or a list of byte values", value))
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise Misfit("the string is no base64") from error


def _enumerant(schema: Any, value: object) -> str:
    if not isinstance(value, str):
        raise Misfit(_expected(f"one of {', '.join(schema.enumerants)}", value))
    if value not in schema.enumerants:
        raise Misfit(f"no {value!r} in {name_of(schema)}: {_it_has(schema.enumerants)}")
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


def _it_has(names: Iterable[str]) -> str:
    return f"it has {', '.join(names) or 'none'}"


BITS = {f"{sign}int{bits}": bits for sign in ("", "u") for bits in (8, 16, 32, 64)}
# A JSON number of so many bits is rounded by many readers: writers make it a string.
_DIGITS_BITS = 64
_DIGITS = re.compile("-?[0-9]+")
FLOATS: dict[str, Callable[[float], float]] = {"float32": _to_float32, "float64": float}
_SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
NO_JSON = {"interface": "a capability", "anyPointer": "an AnyPointer"}
TYPE_NAMES = {name: name.title().replace("Uint", "UInt") for name in (*BITS, *FLOATS)}
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
