"""Columns of a list of structs: numpy arrays that show its numbers where they lie.

The structs of a list lie side by side (https://capnproto.org/encoding.html#lists), so a field of
their data sections is an array with a stride. A column is such an array, and copies nothing, if
the field's default is zero. Values are sent XORed with their default: one that is not zero costs
one pass over the column, and a Bool, which is a bit, costs as much.

A field that the sender's structs are too small for has its default in every record. So has a
member of a union in the records where another member is active; the column ``which`` has the
active member of each record. The fields of a group are named ``group.field``.

Arrays are read-only, and keep the bytes that they show: what a plain method keeps of its params
never shows another call's, though the list itself expires with the call.

This module needs numpy; `lists` and `pointer_types` import it at the first need.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from capnp_rig.wire.encoding.conversions import FORMATS
from capnp_rig.wire.encoding.pointers import Message

Array = NDArray[Any]

# A field outside any union has this for its discriminant (schema.capnp).
_NO_UNION = 0xFFFF
DISCRIMINANT = np.dtype("<u2")


@dataclass(frozen=True, slots=True)
class Column:
    """A field of the data section of a struct.

    `byte` is where its value begins; a Bool is bit number `bit` of that byte. The bits of a value
    are XORed with `mask`. `active` are the unions that the field is in, from the outermost, each as
    the byte of its discriminant and the number that makes the field's member the active one. With
    `is_which` this is a discriminant itself, and `enumerants` are the members.
    """

    name: str
    dtype: np.dtype[Any]
    byte: int
    mask: int = 0
    bit: int | None = None
    enumerants: tuple[str, ...] = ()
    active: tuple[tuple[int, int], ...] = ()
    is_which: bool = False

    @property
    def raw(self) -> np.dtype[Any]:
        """The type of its bits."""
        return np.dtype(f"<u{self.dtype.itemsize}")

    @property
    def default(self) -> Any:
        """The schema's default."""
        return np.array(self.mask, self.raw).view(self.dtype)[()]


class Layout:
    """The columns of a struct by name, and the names of its pointers, which have no column.

    `dtype` is that of `to_numpy`: the data section itself, unless Bools or unions are in it.
    """

    def __init__(self, view: Any) -> None:
        """Make that of the structs that `view`, a class of views, reads."""
        self.struct: str = view.__name__
        schema = view._codec.schema
        self.columns: dict[str, Column] = {}
        # Of each whether it may be set in every record: no union decides.
        self.pointers: dict[str, bool] = {}
        for name, column in _walk(schema, "", ()):
            if isinstance(column, Column):
                self.columns.setdefault(name, column)
            else:
                self.pointers[name] = column
        columns = self.columns.values()
        # The names of the discriminants by the unions they are in, and by their place.
        self.discriminants = {
            (column.active, column.byte): column.name for column in columns if column.is_which
        }
        is_section = all(column.bit is None and not column.active for column in columns)
        if is_section:
            self.dtype = np.dtype(
                {
                    "names": list(self.columns),
                    "formats": [column.dtype for column in columns],
                    "offsets": [column.byte for column in columns],
                    "itemsize": 8 * schema.node.struct.dataWordCount,
                }
            )
        else:
            self.dtype = np.dtype([(column.name, column.dtype) for column in columns])
        self.is_in_place = is_section and not any(column.mask for column in columns)

    def mistake(self, name: str) -> ValueError:
        """Return the error for a name that has no column."""
        if name in self.pointers:
            return ValueError(f"{self.struct}.{name} is no number: no column of numpy has it")
        names = ", ".join((*self.columns, *self.pointers))
        return ValueError(f"{self.struct} has no column {name!r}; it has {names}")


@cache
def layout_of(view: Any) -> Layout:
    """Return the layout of the structs that are read by a class of views."""
    return Layout(view)


def _walk(
    schema: Any, prefix: str, active: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, Column | bool]]:
    """Yield the columns of a struct or a group; a pointer with whether no union has it."""
    discriminant = 2 * schema.node.struct.discriminantOffset
    fields = [(field, field.proto) for field in schema.fields_list]
    members = [proto for _, proto in fields if proto.discriminantValue != _NO_UNION]
    if members:
        members.sort(key=lambda proto: proto.discriminantValue)
        names = tuple(proto.name for proto in members)
        name = f"{prefix}which"
        yield name, Column(name, DISCRIMINANT, discriminant, 0, None, names, active, is_which=True)
    for field, proto in fields:
        name, within = prefix + proto.name, active
        if proto.discriminantValue != _NO_UNION:
            within = (*active, (discriminant, proto.discriminantValue))
        if proto.which() == "group":
            yield from _walk(field.schema, f"{name}.", within)
            continue
        which = proto.slot.type.which()
        if which in FORMATS or which == "bool":
            yield name, _column(name, field, which, within)
        elif which != "void":
            yield name, not within


def _column(name: str, field: Any, which: str, active: tuple[tuple[int, int], ...]) -> Column:
    slot = field.proto.slot
    default = getattr(slot.defaultValue, which)
    if which == "bool":
        byte, bit = divmod(slot.offset, 8)
        return Column(name, np.dtype("?"), byte, int(default), bit, active=active)
    dtype = np.dtype("<" + FORMATS[which])
    mask = int(np.array(default, dtype).view(f"<u{dtype.itemsize}"))
    names: tuple[str, ...] = ()
    if which == "enum":
        numbers = field.schema.enumerants
        names = tuple(sorted(numbers, key=numbers.__getitem__))
    return Column(name, dtype, slot.offset * dtype.itemsize, mask, None, names, active)


class Rows(NamedTuple):
    """The structs of a list: where each begins in the message, and how long its data section is."""

    message: Message
    places: range
    data_bytes: int

    def lie_beyond(self, column: Column) -> bool:
        """Tell whether the structs are too small to have the field."""
        return column.byte + column.dtype.itemsize > self.data_bytes

    def strided(self, dtype: np.dtype[Any], byte: int) -> Array:
        """Return what lies at `byte` of each struct."""
        places = self.places
        if not places or not dtype.itemsize:
            return np.empty(len(places), dtype)
        # Only `frombuffer` holds on to the buffer, so that a receive buffer is not filled again
        # while there is an array of it: `ndarray` lets go of it at once.
        whole = np.frombuffer(memoryview(self.message.buffer).toreadonly(), "u1")
        return np.ndarray(len(places), dtype, whole, places.start + byte, (places.step,))


def read_column(rows: Rows, layout: Layout, name: str) -> Array:
    """Return a column, as `lists.StructList.column` does.

    Raises:
        ValueError: There is none of this name.
    """
    column = layout.columns.get(name)
    if column is None:
        raise layout.mistake(name)
    return _read_only(_values(rows, column))


def read_categories(rows: Rows, layout: Layout, name: str) -> Any:
    """Return the column of an enum, or ``which``, as a `pandas.Categorical`.

    A number that a newer schema added is a category of its own.

    Raises:
        ValueError: There is none of this name, or it is of something else.
        ImportError: pandas is not installed.
    """
    numbers = read_column(rows, layout, name)
    names: list[str | int] = [*layout.columns[name].enumerants]
    if not names:
        raise ValueError(f"{layout.struct}.{name} is no enum: it has no categories")
    if len(numbers):
        names += range(len(names), int(numbers.max()) + 1)
    return import_module("pandas").Categorical.from_codes(numbers.astype("<i4"), names)


def read_table(rows: Rows, layout: Layout) -> Array:
    """Return all columns as one structured array, as `lists.StructList.to_numpy` does.

    Raises:
        MalformedMessage: The structs lack so many fields that their defaults, filled in, exceed the
            traversal limit.
    """
    dtype = layout.dtype
    if layout.is_in_place and rows.data_bytes >= dtype.itemsize:
        return _read_only(rows.strided(dtype, 0))
    columns = layout.columns.values()
    # A list of structs without size costs its sender nothing, an array of their defaults does.
    lacking = sum(column.dtype.itemsize for column in columns if rows.lie_beyond(column))
    rows.message.charge(lacking * len(rows.places) >> 3)
    table = np.zeros(len(rows.places), dtype)
    for column in columns:
        table[column.name] = _values(rows, column)
    return _read_only(table)


def _values(rows: Rows, column: Column) -> Array:
    """Return a field of each struct."""
    if rows.lie_beyond(column):
        return np.broadcast_to(column.default, len(rows.places))
    if column.bit is not None:
        is_set = rows.strided(column.raw, column.byte) & (1 << column.bit)
        values: Array = is_set == 0 if column.mask else is_set != 0
    elif column.mask:
        values = (rows.strided(column.raw, column.byte) ^ column.mask).view(column.dtype)
    else:
        values = rows.strided(column.dtype, column.byte)
    for byte, number in column.active:
        discriminant = _values(rows, Column("which", DISCRIMINANT, byte))
        values = np.where(discriminant == number, values, column.default)
    return values


def _read_only(values: Array) -> Array:
    values.flags.writeable = False
    return values
