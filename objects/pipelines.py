"""Results that are used before they come: what is in them can be called at once."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from capnp_rig.objects.capabilities import AnyCapability
from capnp_rig.wire.encoding.field_types import name_of

Path = tuple[int, ...]
# Returns the capability to which a path will lead, of an interface.
Promised = Callable[[Path, Any], AnyCapability]


class PipelinedField(NamedTuple):
    """A field on the way to a capability: `slot` is its pointer, None for a group."""

    slot: int | None
    is_capability: bool
    schema: Any


class PipelinedFields:
    """The fields of a struct to come: structs and groups in it, and capabilities, for calls."""

    __slots__ = ("_path", "_promised", "_schema")

    def __init__(self, promised: Promised, schema: Any, path: Path = ()) -> None:
        self._promised = promised
        self._schema = schema
        self._path = path

    def __getattr__(self, name: str) -> Any:
        field = pipelined_field(self._schema, name)
        path = self._path if field.slot is None else (*self._path, field.slot)
        if field.is_capability:
            return self._promised(path, field.schema)
        return PipelinedFields(self._promised, field.schema, path)

    def __repr__(self) -> str:
        return f"<{name_of(self._schema)} to come>"


class PipelinedResults(PipelinedFields):
    """The results of a call that is on its way."""

    __slots__ = ("_wait",)

    def __init__(
        self,
        wait: Callable[..., Any],
        promised: Promised,
        schema: Any,
    ) -> None:
        super().__init__(promised, schema)
        self._wait: Any = wait


@lru_cache(maxsize=4096)
def pipelined_field(schema: Any, name: str) -> PipelinedField:
    """Return the field of a struct's schema that leads to a capability.

    Raises:
        AttributeError: There is no such field, or nothing in it can be called.
    """
    field = schema.fields.get(name)
    if field is None:
        raise AttributeError(f"{name_of(schema)} has no field {name!r}")
    if field.proto.which() == "group":
        return PipelinedField(None, is_capability=False, schema=field.schema)
    slot = field.proto.slot
    kind = slot.type.which()
    if kind == "anyPointer":
        return PipelinedField(slot.offset, is_capability=True, schema=None)
    if kind not in {"interface", "struct"}:
        raise AttributeError(
            f"{name_of(schema)}.{name} is of type {kind}: nothing in it can be called"
        )
    return PipelinedField(slot.offset, kind == "interface", field.schema)
