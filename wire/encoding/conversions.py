"""Values of fields as they are written: numbers by their formats, bytes, lists, enumerants."""

import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Format character of `struct` and `memoryview.cast`, by the name of the type in schema.capnp.
FORMATS = {
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
    "enum": "H",
}
NUMBERS = FORMATS.keys() - {"enum"}
SIZES = {name: struct.calcsize(code) for name, code in FORMATS.items()}
# A list pointer counts its elements, or the words of a list of structs, in 29 bits
# (encoding.html#lists).
MAX_ELEMENTS = 2**29 - 1
# What a name that is no field, and a value of the wrong type or size, raise while they are written.
WRITE_ERRORS = (KeyError, struct.error, TypeError, ValueError, OverflowError)


def as_bool(value: Any) -> bool:
    """Return a value that is neither True nor False, but one of numpy's, which are others.

    Raises:
        TypeError: It is no bool at all.
    """
    if getattr(value, "shape", None) == () and value.dtype.kind == "b":
        return bool(value)
    raise TypeError(f"expected a bool, not {type(value).__name__}")


class Enumerants(dict[str, int]):
    """The numbers of an enum's names; a number stands for itself."""

    def __missing__(self, value: Any) -> int:
        """Return the number that is given in place of a name."""
        if isinstance(value, str):
            raise ValueError(f"{value!r} is not one of {', '.join(self)}")  # noqa: TRY004 - a name
        number: int = value
        return number


class Packers(dict[int, Callable[..., Any]]):
    """What packs or unpacks so many numbers of a type: bound methods, kept for short lists."""

    def __init__(self, code: str, method: str) -> None:
        super().__init__()
        self._code, self._method = code, method

    def __missing__(self, count: int) -> Callable[..., Any]:
        if count > MAX_ELEMENTS:
            raise ValueError(too_long(count))
        pack: Callable[..., Any] = getattr(struct.Struct(f"<{count}{self._code}"), self._method)
        if count <= _KEPT_PACKERS:
            self[count] = pack
        return pack


# A kept one spares 150 ns of 280; longer lists take far more, and lengths are a sender's.
_KEPT_PACKERS = 64


def as_bytes(value: Any) -> bytes | memoryview:
    """Return a buffer as its bytes, or as a view of them where they cannot change.

    A buffer that can be written is copied: its owner may fill it again before the message has
    left, as a service may that has one for the results of all its calls. A str is UTF-8.

    Raises:
        TypeError: It is neither a buffer nor a str.
        UnicodeEncodeError: The str has a lone surrogate.
    """
    if isinstance(value, str):
        return value.encode()
    view = memoryview(value)
    if view.readonly:
        # A cast takes bytes that lie in order, but none of none, nor some formats. Asking for all
        # that beforehand takes as long as the cast.
        try:
            return view.cast("B")
        except (TypeError, ValueError):
            pass
    return view.tobytes()


def as_list(value: Any) -> Sequence[Any]:
    """Return an iterable as a sequence.

    Raises:
        TypeError: It is not iterable, or it is a str, bytes or a mapping.
    """
    if type(value) is list:
        return value
    if isinstance(value, (str, bytes, Mapping)):
        raise TypeError(f"expected a list, not {type(value).__name__}")
    return list(value)


def has_columns(value: Any) -> bool:
    """Tell whether a list of structs is given as a structured array or as columns by name."""
    return (
        hasattr(value, "keys") or getattr(getattr(value, "dtype", None), "names", None) is not None
    )


def too_long(count: int) -> str:
    """Return what is wrong with a list of so many elements."""
    return f"{count} elements are more than a list holds, {MAX_ELEMENTS}"


_SIZES = {code: struct.calcsize(f"<{code}") for code in FORMATS.values()}
# The kind of a buffer's numbers, by their format.
_KINDS = {
    code: kind
    for kind, codes in (("int", "bhilqn"), ("uint", "BHILQN"), ("float", "fd"))
    for code in codes
}


def packed(value: Any, code: str) -> bytes | memoryview:
    """Return the little-endian bytes of a list of numbers; a buffer that cannot change as a view.

    As in `as_bytes`, one that can be written is copied. A buffer of numbers of another type, or in
    the other byte order, is converted number by number.

    Raises:
        TypeError: It is neither a list of numbers nor a buffer of them in one dimension.
        struct.error, OverflowError: A number does not fit.
    """
    try:
        view = memoryview(value)
    except TypeError:
        numbers = as_list(value)
        return struct.pack(f"<{len(numbers)}{code}", *numbers)
    if view.ndim != 1:
        raise TypeError(f"expected numbers in one dimension, not in {view.ndim}")
    order, given = "@", view.format
    if given[0] in "@=<>!":
        order, given = given[0], given[1:]
    is_little = order == "<" or (order in "@=" and sys.byteorder == "little")
    # The same type may have another letter: numpy's int64 is "l".
    if is_little and _KINDS.get(given) == _KINDS[code] and view.itemsize == _SIZES[code]:
        return as_bytes(view)
    try:
        numbers = struct.unpack(f"{order}{len(view)}{given}", view.tobytes())
    except struct.error:
        raise TypeError(f"expected numbers, not a buffer of {view.format!r}") from None
    return struct.pack(f"<{len(view)}{code}", *numbers)
