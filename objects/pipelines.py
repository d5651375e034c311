"""Results that are used before they come: what is in them can be called at once."""

from collections.abc import Callable
from typing import Any

from capnp_rig.objects.capabilities import AnyCapability
from capnp_rig.wire.encoding.capability_fields import CapabilityType
from capnp_rig.wire.encoding.field_types import Codec, Field, name_of

Names = tuple[str, ...]
Path = tuple[int, ...]
# Returns the capability to which a path will lead, of an interface; or that in the results, where
# fields of those names lead, if these are here.
Promised = Callable[[Names, Path, Any], AnyCapability | None]


class PipelinedFields:
    """The fields of a struct to come: structs and groups in it, and capabilities, for calls.

    Once the results are here, the capabilities are those in them, None where one is null.
    """

    __slots__ = ("_codec", "_names", "_path", "_promised")

    def __init__(
        self, promised: Promised, codec: Codec, names: Names = (), path: Path = ()
    ) -> None:
        self._promised = promised
        self._codec = codec
        self._names = names
        self._path = path

    def __getattr__(self, name: str) -> Any:
        field = _field(self._codec, name)
        names = (*self._names, name)
        path = self._path if field.slot is None else (*self._path, field.slot)
        if field.codecs:
            # A struct or a group.
            return PipelinedFields(self._promised, field.codecs[0], names, path)
        kind = field.pointer_type
        # An AnyPointer is taken for a capability, of no known interface.
        interface = kind.interface if isinstance(kind, CapabilityType) else None
        return self._promised(names, path, interface)

    def __repr__(self) -> str:
        return f"<{name_of(self._codec.schema)} to come>"


class PipelinedResults(PipelinedFields):
    """The results of a call that is on its way."""

    __slots__ = ("_wait",)

    def __init__(self, wait: Callable[..., Any], promised: Promised, codec: Codec) -> None:
        super().__init__(promised, codec)
        self._wait: Any = wait


def _field(codec: Codec, name: str) -> Field:
    """Return a field that is a capability, or in which there may be some.

    Raises:
        AttributeError: There is no such field, or nothing in it can be called.
    """
    where = name_of(codec.schema)
    field = next((field for field in codec.fields if field.name == name), None)
    if field is None:
        raise AttributeError(f"{where} has no field {name!r}")
    type_ = field.pointer_type or field.data_type
    if type_ is not None and type_.which not in {"struct", "interface", "anyPointer"}:
        raise AttributeError(
            f"{where}.{name} is of type {type_.which}: nothing in it can be called"
        )
    return field


def capability_in(results: Any, names: Names) -> Any:
    """Return what fields lead to in results that are here."""
    for name in names:
        results = getattr(results, name)
    return results
