"""Writes what a method returned into KJ's message, so that both engines take the same.

What pycapnp would take differs from what `wire` takes in many small ways: it refuses bytearrays,
arrays and views, and takes a number for a text. So only values of the very type that a field has
go to pycapnp as they are; the others are written by `wire`'s codec, which judges them, and copied.
A field that may hold capabilities is pycapnp's alone.
"""

from collections.abc import Mapping
from typing import Any, Final

import capnp

from capnp_rig.wire.encoding.conversions import FORMATS
from capnp_rig.wire.encoding.structs import StructCodec
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


class ResultWriter:
    """Writes the results of one method."""

    def __init__(self, codec: StructCodec) -> None:
        self._codec = codec
        self._schema = codec.schema
        self._exact: dict[str, type] = {}
        self._pycapnps: set[str] = set()
        for field in self._schema.fields_list:
            proto = field.proto
            if _has_capability(field, set()):
                self._pycapnps.add(proto.name)
            elif proto.which() == "slot" and proto.slot.type.which() in _EXACT:
                self._exact[proto.name] = _EXACT[proto.slot.type.which()]

    def write(self, context: Any, results: Any) -> None:
        """Write `results`, which are not None.

        Raises:
            EncodeError: They do not fit the schema, which is the service's fault.
        """
        if type(results) is dict:
            exact = self._exact
            for name, value in results.items():
                if exact.get(name) is not type(value):
                    break
            else:
                _set_all(context.results, results)
                return
        self._write_by_codec(context, native(results))

    def _write_by_codec(self, context: Any, results: Any) -> None:
        if not isinstance(results, Mapping):
            # It says what is wrong.
            self._codec.pack(results)
        ours = {
            name: value
            for name, value in results.items()
            if name not in self._pycapnps or self._can_pack(name, value)
        }
        data = self._codec.to_bytes(ours)
        module = capnp.lib.capnp._StructModule(self._schema, self._codec.name)
        builder = context.results
        with module.from_bytes(data) as reader:
            _set_all(
                builder,
                {name: getattr(reader, name) for name, value in ours.items() if value is not None},
            )
        _set_all(builder, {name: results[name] for name in results.keys() - ours.keys()})

    def _can_pack(self, name: str, value: Any) -> bool:
        """Tell whether the codec writes a value of a field that may have capabilities in it."""
        try:
            self._codec.pack({name: value})
        except EncodeError:
            return False
        return True


def _set_all(builder: Any, values: Mapping[str, Any]) -> None:
    try:
        for name, value in values.items():
            setattr(builder, name, value)
    except (capnp.KjException, AttributeError, TypeError, ValueError, OverflowError) as error:
        raise EncodeError(f"{name}: {type(error).__name__}") from error


def native(value: Any) -> Any:
    """Return `value` without readers of pycapnp's, as `wire` takes it."""
    if type(value) in _SIMPLE:
        return value
    if isinstance(value, _READERS):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {name: native(item) for name, item in value.items()}
    if isinstance(value, _LISTS):
        return [native(item) for item in value]
    if isinstance(value, capnp.lib.capnp._DynamicEnum):
        return str(value)
    return value


def _has_capability(field: Any, seen: set[int]) -> bool:
    """Tell whether a capability may be in a field; `seen` are the ids of structs above it."""
    if field.proto.which() == "group":
        return any(_has_capability(inner, seen) for inner in field.schema.fields_list)
    type_, depth = field.proto.slot.type, 0
    while type_.which() == "list":
        type_, depth = type_.list.elementType, depth + 1
    if type_.which() != "struct":
        return type_.which() in {"interface", "anyPointer"}
    schema = field.schema
    for _ in range(depth):
        schema = schema.elementType
    if schema.node.id in seen:
        return False
    seen.add(schema.node.id)
    return any(_has_capability(inner, seen) for inner in schema.fields_list)
