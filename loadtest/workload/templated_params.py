"""Params of calls, and what is expected of their results, as JSON whose strings may hold templates.

`wire.json_values` has what JSON each type takes, `workload.templates` the templates. A string that
is nothing but a template with a number is a number where the schema wants one, modulo the type's
range: ``{{i}}`` for an Int8 is 0 to 127 again and again. For a Data, a string with templates is the
text itself, in UTF-8.

All is checked when it is read, so that a run does not fail in its middle because of a mistake
in the params.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from capnp_rig.loadtest.workload.templates import (
    WIDEST,
    Template,
    TemplateError,
    Values,
    parse_template,
)
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.field_types import DataType, PointerType
from capnp_rig.wire.encoding.frames import DEFAULT_LIMITS, FrameLimits
from capnp_rig.wire.encoding.structs import StructCodec
from capnp_rig.wire.errors import EncodeError
from capnp_rig.wire.json_values.reading import (
    BITS,
    FLOATS,
    NO_JSON,
    TYPE_NAMES,
    Item,
    Misfit,
    ParamsError,
    StructReader,
    checked_text,
)
from capnp_rig.wire.rpc.message_encoder import PROMISE_CALL_HEAD_WORDS


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
    reader = _TemplateReader(item.place)
    fields = reader.struct(schema, item.fields, name)
    return Struct(item.place, schema, fields, frozenset(reader.names))


@dataclass(frozen=True, slots=True)
class Struct:
    """Fields that fit a schema; `names` are the templates in them."""

    place: str
    schema: Any
    fields: dict[str, Any]
    names: frozenset[str]


class _TemplateReader(StructReader):
    """Puts a `Slot` where a string has templates; `names` are those templates."""

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.names: set[str] = set()

    def value(self, type_: PointerType | DataType, value: object) -> Any:
        """Return a value of a type, as above."""
        if not isinstance(value, str) or type_.which in NO_JSON:
            return super().value(type_, value)
        try:
            text = parse_template(value)
            if isinstance(text, Template):
                self.names |= text.names
                return _slot(type_.which, text)
        except (TemplateError, Misfit) as error:
            raise self.mistake(str(error)) from error
        return super().value(type_, text)


def _slot(which: str, template: Template) -> Slot:
    """Return a slot for a field whose string has templates."""
    if which in {"text", "data"}:
        # Only what stands between the templates can be wrong.
        checked_text(template.render(WIDEST))
        render = template.render
        return Slot(render if which == "text" else lambda values: render(values).encode())
    if which not in BITS and which not in FLOATS:
        raise Misfit(f"a template cannot stand for {_NO_TEMPLATE[which]}")
    if not template.is_number:
        raise Misfit(
            f"{TYPE_NAMES[which]} takes a template only if the string is nothing but "
            "'{{i}}', '{{user}}' or '{{time_ns}}'"
        )
    # Signed numbers count up from 0 again, not from their least.
    number = template.number(BITS.get(which, 64) - (not which.startswith("u")))
    if which in BITS:
        return Slot(number)
    convert = FLOATS[which]
    return Slot(lambda values: convert(number(values)))


_NO_TEMPLATE = {
    "bool": "a Bool",
    "void": "a Void",
    "enum": "an enumerant",
    "struct": "a struct",
    "list": "a list",
}


# --- params ---------------------------------------------------------------------------------


class Params:
    """Params of calls, packed anew for each request where they have templates."""

    __slots__ = ("_fields", "_pack", "_packed", "_slots")

    def __init__(
        self, codec: StructCodec, params: Struct, limits: FrameLimits = DEFAULT_LIMITS
    ) -> None:
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
        if packed[2] > params_words(limits):
            raise ParamsError(f"{params.place}: {too_large(8 * packed[2], limits)}")
        if not self._slots:
            self._packed = packed

    def pack(self, values: Values) -> EncodedTuple:
        """Return the params of the request with these values, as `StructCodec.pack` does."""
        if self._packed is not None:
            return self._packed
        for container, key, render in self._slots:
            container[key] = render(values)
        return self._pack(self._fields)


def params_words(limits: FrameLimits) -> int:
    """Return how many words the params of a call may have."""
    return limits.max_words - PROMISE_CALL_HEAD_WORDS


def too_large(size_bytes: int, limits: FrameLimits) -> str:
    """Return what to say of params that are over `params_words`."""
    most_bytes = 8 * params_words(limits)
    return f"{size_bytes} bytes are more than a message holds, {most_bytes} (--max-message)"


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
