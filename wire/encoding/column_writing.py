"""Lists of structs written from columns: a structured numpy array, or a mapping of columns.

The numbers of a column are written at once into the words of all structs, without a Python object
per record. Texts, data and other pointers, where no union decides on them, have sequences for
columns; their values are written one by one, behind the structs.

An array may have any stride and either byte order, and its numbers another type where each of them
fits: they are converted as they are written. No float is written as an integer.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np

from capnp_rig.wire.encoding.columns import DISCRIMINANT, Array, Column, Layout, layout_of
from capnp_rig.wire.encoding.conversions import MAX_ELEMENTS, WRITE_ERRORS, Enumerants
from capnp_rig.wire.encoding.field_types import Codec, PointerType
from capnp_rig.wire.encoding.writers import compile_element_writer

_element_writer = cache(compile_element_writer)


def write_columns(value: Any, codec: Codec, tail: list[Any]) -> tuple[int, int]:
    """Append the structs of a list and what they point to; return their number, and all words.

    `value` is a structured array, or maps names to columns. A field without a column has its
    default in every record.

    Raises:
        TypeError, ValueError, OverflowError: A name, a length or a value does not fit.
    """
    # mypy takes a Protocol for unhashable.
    layout, pointers = layout_of(codec.view), _pointers(codec)  # type: ignore[arg-type]
    given = _by_name(value)
    for name in given:
        if name not in layout.columns and name not in pointers:
            raise _unwritable(layout, name)
    if layout.discriminants:
        _check_unions(layout, given)
    count = _count(given, value)
    if count * max(codec.own_words, 1) > MAX_ELEMENTS:
        raise ValueError(f"{count} structs are more than a list holds, {MAX_ELEMENTS} words")
    words = np.zeros((count, codec.own_words), "<u8")
    if not words.size:
        return count, 0
    tail.append(words.data.cast("B"))
    # In the order of the layout: a discriminant is written before what depends on it.
    for name, column in layout.columns.items():
        if name in given:
            _write_numbers(words, column, _fitting(column, given[name]))
    at = words.size
    for name, pointer in pointers.items():
        if name in given:
            at = _write_pointers(words, name, given[name], *pointer, at, tail)
    return count, at


@cache
def _pointers(codec: Codec) -> dict[str, tuple[int, PointerType]]:
    """Return the pointers that can be columns: their word in the struct, and what they point to."""
    pointers, data_words = layout_of(codec.view).pointers, codec.sizes & 0xFFFF
    return {
        field.name: (data_words + field.slot, field.pointer_type)
        for field in codec.fields
        if pointers.get(field.name) and field.pointer_type and field.slot is not None
    }


def _by_name(value: Any) -> dict[str, Any]:
    """Return the columns of a structured array, or of anything with `keys`."""
    if not isinstance(value, (np.ndarray, np.void)):
        return {name: value[name] for name in value.keys()}  # noqa: SIM118 - a DataFrame has both
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("a masked array has records without values: fill them in first")
    if value.ndim != 1:
        raise ValueError(f"an array of records has one dimension, not {value.ndim}")
    return {name: value[name] for name in value.dtype.names or ()}


def _unwritable(layout: Layout, name: str) -> ValueError:
    if name in layout.pointers:
        return ValueError(f"{layout.struct}.{name} cannot be written as a column: give records")
    return layout.mistake(name)


def _check_unions(layout: Layout, given: Iterable[str]) -> None:
    """Refuse members of a union without the column that says which of them is active."""
    columns = layout.columns
    for name in given:
        active = columns[name].active if name in columns else ()
        for depth, (byte, _) in enumerate(active):
            which = layout.discriminants[active[:depth], byte]
            if which not in given:
                raise ValueError(f"column {name!r} is of a union: column {which!r} is needed, too")


def _count(given: Mapping[str, Any], value: Any) -> int:
    """Return how many records there are."""
    lengths: dict[str, int] = {}
    for name, column in given.items():
        is_single = isinstance(column, (str, bytes, Mapping)) or getattr(column, "ndim", 1) == 0
        if is_single or not hasattr(column, "__len__"):
            kind = type(column).__name__
            raise TypeError(f"column {name!r}: expected a value per record, not {kind}")
        lengths[name] = len(column)
    first = next(iter(lengths), "")
    for name, length in lengths.items():
        if length != lengths[first]:
            raise ValueError(
                f"column {name!r} has {length} values, column {first!r} has {lengths[first]}"
            )
    return lengths[first] if lengths else len(value)


# --- numbers -----------------------------------------------------------------------------------


def _fitting(column: Column, values: Any) -> Array:
    """Return the values of a column as numbers that its type holds."""
    name, dtype = column.name, column.dtype
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"column {name!r} is masked: fill in what it lacks first")
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"column {name!r} has {array.ndim} dimensions, not one")
    if column.enumerants and array.dtype.kind in "UTO":
        array = _numbers_of(column, values)
    kinds = {"b": "b", "u": "bui", "i": "bui", "f": "buif"}[dtype.kind]
    if kinds == "bui" and array.dtype.kind in "fO":
        # What numpy makes of integers on both sides of 2**63, or that no type of its own holds.
        objects = np.asarray(values, "O")
        if all(isinstance(value, int) for value in objects):
            array, kinds = objects, "O"
    if array.dtype.kind not in kinds:
        raise TypeError(f"column {name!r} is of {dtype}, which {array.dtype} does not fit")
    if kinds in {"bui", "O"} and not np.can_cast(array.dtype, dtype):
        range_ = np.iinfo(dtype)
        for extreme in (int(array.min()), int(array.max())):
            if not range_.min <= extreme <= range_.max:
                raise OverflowError(f"column {name!r}: {extreme} is out of the range of {dtype}")
    return array


def _numbers_of(column: Column, names: Any) -> Array:
    numbers = Enumerants({name: number for number, name in enumerate(column.enumerants)})
    try:
        # Of a list as it stands: numpy makes strings of the numbers in it.
        names = names.tolist() if hasattr(names, "tolist") else names
        return np.array([numbers[name] for name in names])
    except ValueError as error:
        raise ValueError(f"column {column.name!r}: {error}") from None


def _write_numbers(words: Array, column: Column, values: Array) -> None:
    raw = _field(words, column.raw, column.byte)
    if column.bit is None:
        bits = np.empty(len(words), column.raw) if column.active else raw
        target = bits.view(column.dtype)
        if values.dtype.kind == "f" and values.dtype.itemsize > column.dtype.itemsize:
            _narrow(column, values, target)
        else:
            target[...] = values
        if column.mask:
            bits ^= column.mask
    else:
        # Bools share a byte.
        bits = raw | ((values != bool(column.mask)).view("u1") << column.bit)
    if bits is not raw:
        np.copyto(raw, bits, where=_is_active(words, column))


def _narrow(column: Column, values: Array, target: Array) -> None:
    """Write floats as smaller ones, which need not reach as far."""
    try:
        with np.errstate(over="raise"):
            target[...] = values
    except FloatingPointError:
        raise OverflowError(
            f"column {column.name!r}: a value is out of the range of {column.dtype}"
        ) from None


def _is_active(words: Array, column: Column) -> Any:
    """Return of each record whether no union leaves the column out."""
    chosen: Any = True
    for byte, number in column.active:
        chosen &= _field(words, DISCRIMINANT, byte) == number
    return chosen


def _field(words: Array, dtype: Any, byte: int) -> Array:
    """Return what lies at `byte` of each struct."""
    return np.ndarray(len(words), dtype, words.data, byte, words.strides[:1])


# --- pointers ----------------------------------------------------------------------------------


def _write_pointers(
    words: Array, name: str, values: Any, place: int, type_: PointerType, at: int, tail: list[Any]
) -> int:
    """Write a pointer of each struct, word number `place` of it; return the new end of `tail`."""
    write, own_words = _element_writer(type_), words.shape[1]
    pointers = bytearray()
    # numpy drops the zeros at the end of its strings of bytes.
    if getattr(getattr(values, "dtype", None), "kind", "") == "S":
        raise TypeError(f"column {name!r} has strings of numpy: give a list of bytes")
    for index, value in enumerate(values):
        # A writer counts from its pointer on.
        start = place + index * own_words
        try:
            pointer, end = (
                (bytes(8), at - start) if value is None else write(value, at - start, tail)
            )
        except WRITE_ERRORS as error:
            path, reason = type_.explain(value, error)
            raise ValueError(f"column {name!r}, record {index}{path}{reason}") from None
        pointers += pointer
        at = start + end
    words[:, place] = np.frombuffer(pointers, "<u8")
    return at
