"""Writes results and params into KJ's messages, so that both engines take the same.

What pycapnp would take differs from what `wire` takes in many small ways: it refuses bytearrays,
arrays and views, and takes a number for a text. So only values of the very type that a field has
go to pycapnp as they are; the others are written by `wire`'s codec, which judges them, and copied.
What capabilities are in goes to pycapnp value by value, since only KJ has tables of them.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

import capnp

from capnp_rig.server.engines.kj_views import AnyView, ListView, View, passing_fields
from capnp_rig.wire.encoding.conversions import FORMATS
from capnp_rig.wire.encoding.field_types import Field
from capnp_rig.wire.encoding.pointers import TRAVERSAL_LIMIT_WORDS
from capnp_rig.wire.errors import EncodeError

# By the name of a type in schema.capnp.
_EXACT: Final[dict[str, type]] = {
    **{name: float if name.startswith("float") else int for name in FORMATS},
    "bool": bool,
    "enum": str,
    "text": str,
    "data": bytes,
}
_READERS: Final = (capnp.lib.capnp._DynamicStructReader, capnp.lib.capnp._DynamicStructBuilder)
_LISTS: Final = (
    list,
    tuple,
    capnp.lib.capnp._DynamicListReader,
    capnp.lib.capnp._DynamicListBuilder,
)
_SIMPLE: Final = (int, float, str, bytes, bool)
# What pycapnp raises for a value that it does not take.
_REFUSALS: Final = (capnp.KjException, AttributeError, TypeError, ValueError, OverflowError)


# Returns what pycapnp sets in the place of a capability, or of an object of ours, for a field of
# that interface.
Lower = Callable[[Any, Any], Any]


def _words_to_read(data: bytes) -> int:
    return max(TRAVERSAL_LIMIT_WORDS, len(data) >> 1)


class StructWriter:
    """Writes one struct: results of a method, params of a call, or what lies in them."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec
        self._exact: dict[str, type] = {}
        self._passing = passing_fields(self._codec)
        for field in codec.fields:
            kind = field.pointer_type or field.data_type
            if kind is not None and kind.which in _EXACT:
                self._exact[field.name] = _EXACT[kind.which]

    def write(self, builder: Any, values: Any, lower: Lower) -> None:
        """Write `values`, which are not None.

        Raises:
            EncodeError: They do not fit the schema.
            UnusableCapability: One was closed, or belongs to another connection.
        """
        if type(values) is dict:
            exact = self._exact
            for name, value in values.items():
                if exact.get(name) is not type(value):
                    break
            else:
                _set_all(builder, values)
                return
        self.write_native(builder, native(values), lower)

    def write_native(self, builder: Any, values: Any, lower: Lower) -> None:
        """Do so with what `native` returns."""
        if not isinstance(values, Mapping):
            # It says what is wrong.
            self._codec.pack(values)
        plain = self._plain(values)
        if plain:
            self._write_by_codec(builder, plain)
        self._pass_on(builder, values, lower)

    def _plain(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the codec writes: all but what capabilities may be in."""
        plain = {}
        for name, value in values.items():
            if not self._passes(name, value):
                plain[name] = value
                continue
            group: Any = self._passing[name].group
            if group is not None:
                # Chosen by it, if it is the member of a union.
                plain[name] = writer_of(group)._plain(value)
        return plain

    def _write_by_codec(self, builder: Any, values: Mapping[str, Any]) -> None:
        data = self._codec.to_bytes(values)
        module = capnp.lib.capnp._StructModule(self._codec.schema, self._codec.name)
        # Our own: however large it is, it can be read.
        with module.from_bytes(data, traversal_limit_in_words=_words_to_read(data)) as reader:
            _set_all(
                builder,
                {
                    name: getattr(reader, name)
                    for name, value in values.items()
                    if value is not None
                },
            )

    def _pass_on(self, builder: Any, values: Mapping[str, Any], lower: Lower) -> None:
        """Write what the codec does not."""
        for name, value in values.items():
            if not self._passes(name, value):
                continue
            try:
                self._pass_field(builder, self._passing[name], value, lower)
            except EncodeError:
                raise
            except _REFUSALS as error:
                raise EncodeError(f"{name}: {type(error).__name__}") from error

    @staticmethod
    def _pass_field(builder: Any, field: Field, value: Any, lower: Lower) -> None:
        name, kind = field.name, field.pointer_type
        codecs: Any = field.codecs
        if kind is None:
            writer_of(codecs[0])._pass_on(getattr(builder, name), value, lower)
        elif kind.which == "struct":
            writer_of(codecs[0]).write_native(builder.init(name), value, lower)
        elif isinstance(value, list):
            _fill(builder.init(name, len(value)), kind, value, lower)
        else:
            setattr(builder, name, lower(value, getattr(kind, "interface", None)))

    def _passes(self, name: str, value: Any) -> bool:
        """Tell whether a capability may be in a value, which the codec could not write."""
        field = self._passing.get(name)
        if field is None or value is None:
            return False
        kind = "struct" if field.pointer_type is None else field.pointer_type.which
        if kind == "anyPointer":
            return not self._can_pack(name, value)
        return kind == "interface" or isinstance(value, Mapping if kind == "struct" else list)

    def _can_pack(self, name: str, value: Any) -> bool:
        try:
            self._codec.pack({name: value})
        except EncodeError:
            return False
        return True


def _fill(items: Any, kind: Any, values: Sequence[Any], lower: Lower) -> None:
    """Fill a list of KJ's; None is a null capability, or a struct without values."""
    element = kind.element
    for index, value in enumerate(values):
        if value is None:
            continue
        if element.which == "list":
            _fill(items.init(index, len(value)), element, value, lower)
        elif kind.codecs:
            writer_of(kind.codecs[0]).write_native(items[index], value, lower)
        else:
            items[index] = lower(value, getattr(element, "interface", None))


@cache
def writer_of(codec: Any) -> StructWriter:
    """Return the writer of a struct, one per process."""
    return StructWriter(codec)


def _set_all(builder: Any, values: Mapping[str, Any]) -> None:
    try:
        for name, value in values.items():
            setattr(builder, name, value)
    except _REFUSALS as error:
        raise EncodeError(f"{name}: {type(error).__name__}") from error


def native(value: Any) -> Any:
    """Return `value` without readers of pycapnp's, as `wire` takes it."""
    if type(value) in _SIMPLE:
        return value
    if isinstance(value, (View, ListView, AnyView)):
        value = value.reader
    if isinstance(value, _READERS):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {name: native(item) for name, item in value.items()}
    if isinstance(value, _LISTS):
        return [native(item) for item in value]
    if isinstance(value, capnp.lib.capnp._DynamicEnum):
        return str(value)
    return value
