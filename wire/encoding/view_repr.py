"""The `repr` of views: their values, cut to what a log line or a debugger shows.

It never raises: what cannot be read says so in its place.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, TypeGuard

from capnp_rig.wire.encoding.pointers import StructTuple

# The name of a field, and what reads it.
Member = tuple[str, Callable[[], Any]]

_MAX_CHARS = 1000
_MAX_DEPTH = 4
_MAX_ITEMS = 8
_MAX_TEXT = 60
_MAX_BYTES = 20


class View(Protocol):
    """A view of a struct."""

    _at: StructTuple

    def present_members(self) -> Iterator[Member]:
        """Yield the fields that `to_dict` returns, each with what reads it."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""

    def struct_name(self) -> str:
        """Return the name of its type."""

    def struct_codec(self) -> Any:
        """Return the codec of its type, a `StructCodec`."""


class _Full(Exception):
    """There is no room for more."""


def view_repr(value: object) -> str:
    """Return the `repr` of a view or of a list of views, of about `_MAX_CHARS` at most."""
    writer = _ReprWriter()
    try:
        writer.read(lambda: value, _MAX_DEPTH)
    except _Full:
        return "".join(writer.parts)[:_MAX_CHARS] + "...>"
    return "".join(writer.parts)


class _ReprWriter:
    """Writes values down, until there is no room for more."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._left = _MAX_CHARS

    def _add(self, text: str) -> None:
        self.parts.append(text)
        self._left -= len(text)
        if self._left < 0:
            raise _Full

    def _value(self, value: object, depth: int) -> None:
        if isinstance(value, str):
            self._add(_cut(value, _MAX_TEXT, "characters"))
        elif isinstance(value, bytes):
            self._add(_cut(value, _MAX_BYTES, "bytes"))
        elif isinstance(value, memoryview) and value.format == "B":
            # The view itself is not read further than what is shown.
            shown = bytes(value[:_MAX_BYTES])
            self._add(f"{shown!r}{_rest(len(value), _MAX_BYTES, 'bytes')}")
        elif isinstance(value, (memoryview, Sequence)):
            self._list(value, depth)
        elif is_view(value):
            self._view(value, depth)
        elif value is None or isinstance(value, (bool, int, float)):
            self._add(repr(value))
        else:
            # pycapnp's own, whose `repr` may end the process.
            self._add(f"<{type(value).__name__}>")

    def _view(self, view: View, depth: int) -> None:
        self._add(f"<{view.struct_name()}")
        if not depth:
            self._add(" ...>")
            return
        try:
            for number, (name, read) in enumerate(view.present_members()):
                self._add(f"{',' if number else ''} {name}=")
                self.read(read, depth - 1)
        except _Full:
            raise
        except Exception as error:  # noqa: BLE001 - it may have expired, or be malformed as a whole
            self._add(f" {_reason(error)}")
        self._add(">")

    def _list(self, items: memoryview | Sequence[Any], depth: int) -> None:
        count = len(items)
        self._add("[")
        if count and not depth:
            self._add(f"... of {count}")
        else:
            for index in range(min(count, _MAX_ITEMS)):
                self._add(", " if index else "")
                self.read(partial(items.__getitem__, index), depth - 1)
            self._add(f", ... of {count}" if count > _MAX_ITEMS else "")
        self._add("]")

    def read(self, read: Callable[[], Any], depth: int) -> None:
        try:
            self._value(read(), depth)
        except _Full:
            raise
        except Exception as error:  # noqa: BLE001 - one field that cannot be read leaves the others
            self._add(f"<{_reason(error)}>")


def is_view(value: object) -> TypeGuard[View]:
    """Tell whether `value` is a view of a struct, not a reader of pycapnp's."""
    return hasattr(type(value), "present_members")


def _cut(value: str | bytes, most: int, unit: str) -> str:
    return f"{value[:most]!r}{_rest(len(value), most, unit)}"


def _rest(count: int, most: int, unit: str) -> str:
    return f"... of {count} {unit}" if count > most else ""


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[: _MAX_TEXT * 2]}"
