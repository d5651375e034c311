"""What a compiled struct is made of: its fields, the types of its pointers, and who reads them.

The modules that compile structs (`fields`, `pointer_types`, `readers`, `writers`) meet the view
and the codec of a struct only as the Protocols `View` and `Codec`, because `structs`, which has
the classes, is built from those modules.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Any, NamedTuple, Protocol, Self

from capnp_rig.wire.encoding.pointers import Message, StructTuple


def name_of(schema: Any) -> str:
    """Return the name of pycapnp's `schema` in messages, without its file's."""
    name: str = schema.node.displayName.rpartition(":")[2]
    return name


class View(Protocol):
    """A struct in a received message; `structs.StructView` is one."""

    # Where the struct lies.
    _at: StructTuple

    def __init__(self, at: StructTuple) -> None: ...

    @classmethod
    def _empty(cls, message: Message | None = None) -> Self:
        """Return a view in which every field has its default."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""


class Codec(Protocol):
    """Reads and writes one struct type; `structs.StructCodec` is one."""

    # The struct's schema, pycapnp's.
    schema: Any
    # The upper half of a pointer to the struct.
    sizes: int
    # The size of the struct, without what it points to.
    own_words: int

    def new_builder(self) -> Any:
        """Return a new builder of pycapnp's of the struct."""

    def group(self, schema: Any, name: str) -> "Codec":
        """Return the codec of a group of the struct, with pycapnp's schema of it."""

    @property
    def fields(self) -> "tuple[Field, ...]":
        """The fields in the order of the schema."""

    @property
    def view(self) -> type[View]:
        """The class of its views."""

    @property
    def writer(self) -> "Writer":
        """What writes it."""

    def mistake(self, values: Any, error: Exception) -> "Mistake":
        """Return where in `values`, and what, is wrong: writing them raised `error`."""


# Reads a field of a view.
Accessor = Callable[[View], Any]
# Gets a value, the distance to the end of the parts, and the parts; returns the bytes of the
# struct and the new distance.
Writer = Callable[[Any, int, list[Any]], tuple[bytes, int]]
# Returns the codec of a nested struct's schema.
CompileStruct = Callable[[Any], Codec]
# Where in a value a mistake is, as ".name" or "[3]", and what it is, as ": expected a str".
Mistake = tuple[str, str]


class NativeSource(NamedTuple):
    """Source code that takes a native value from `buffer`, between `first` and `last`.

    It is for a list of this `element` size. `last` is `offset` behind `first`; `condition` goes on
    after ``start <= first`` and tells whether the list lies in its segment, which ends at `end`.
    `words` is the size of the list, `value` the value if `buffer` is bytes.
    """

    element: int
    offset: str
    condition: str
    words: str
    value: str
    value_in_any_buffer: str


class DataType(NamedTuple):
    """A type without pointers, as schema.capnp names it; `enum` is pycapnp's schema of an enum."""

    which: str
    enum: Any = None


class PointerType:
    """What a pointer field may point to."""

    # The type as schema.capnp names it, and that of a list's elements.
    which = "list"
    element: "DataType | PointerType"
    # The codecs of the structs in it.
    codecs: tuple[Codec, ...] = ()
    # Whether `to_dict` leaves a null pointer out: a struct may contain its own type.
    omits_null = False
    # Whether it is, or may hold, a capability, but for the `codecs`.
    has_capability = False
    # Source code of the native value of a null pointer.
    null_source: str | None = "[]"
    # Makes what a accessor returns independent of the buffer; None where it is already.
    to_native: Callable[[Any], Any] | None = None

    def accessor(self, slot: int) -> Accessor:
        """Return what reads the field with index `slot` of the pointer section."""
        raise NotImplementedError

    def write_source(self, word: str, place: int, names: dict[str, object]) -> list[str]:
        """Return source code that appends the value `x` to `tail` and sets the pointer `word`.

        The pointer is word number `place` of a struct. The end of `tail` is `at` words from the
        start of that struct; the code counts `at` up. What the code needs is added to `names`.
        """
        emit = f"emit_{word}"
        names[emit] = self.emit
        return [f"{word}, n = {emit}(x, at - {place + 1}, tail)", "at += n"]

    def emit(self, value: Any, offset: int, tail: list[Any]) -> tuple[int, int]:
        """Append the words of `value` to `tail`; return the pointer to them and their number.

        `offset` is the distance from the end of the pointer to the end of `tail`, in words.
        """
        raise NotImplementedError

    def native_source(self, high: str, names: dict[str, object]) -> NativeSource | None:
        """Return source code that reads a native value; `high` is the pointer's upper half.

        None where only the accessor reads it. What the code needs is added to `names`.
        """
        del high, names
        return None

    def explain(self, value: Any, error: Exception) -> Mistake:
        """Return what is wrong with a value for which writing raised `error`."""
        del value
        return "", f": {error}"


@dataclass(frozen=True, slots=True)
class Atom:
    """A field's place in the data section, and the expression that packs it.

    `expression` is Python with the value as ``{value}``, written with `names`; a field of less
    than a byte is shifted to its `bit`. `read` is the reverse, with what was unpacked as
    ``{raw}``, None where only the accessor reads it.
    """

    byte: int
    code: str
    expression: str = "{value}"
    names: Mapping[str, object] = field(default_factory=dict)
    bit: int | None = None
    read: str | None = None
    read_names: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Field:
    """One field: how to read it, and how to write it, in the data or the pointer section.

    `slot` is its index in the pointer section, None where it has none. A value left out is
    written as `default`. `null_source` is source code of the value that `to_dict` has for a null
    pointer, None where only `get` knows it. `group` is the codec of a group, `member` the number
    of a member of a union; `get` does not ask whether that is the active one. `data_type` is the
    type of one that has neither a pointer nor is a group.
    """

    name: str
    get: Accessor
    default: object = None
    slot: int | None = None
    atom: Atom | None = None
    pointer_type: PointerType | None = None
    null_source: str | None = None
    group: Codec | None = None
    member: int | None = None
    data_type: DataType | None = None

    @property
    def is_void(self) -> bool:
        """Whether it has no value."""
        return self.atom is None and self.pointer_type is None and self.group is None

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """The codecs of the structs in it."""
        if self.pointer_type is not None:
            return self.pointer_type.codecs
        return () if self.group is None else (self.group,)

    @property
    def to_native(self) -> Callable[[Any], Any] | None:
        """What makes a value independent of the buffer; None where it is already."""
        if self.pointer_type is not None:
            return self.pointer_type.to_native
        return None if self.group is None else methodcaller("to_dict")

    @property
    def omits_null(self) -> bool:
        """Whether `to_dict` leaves it out where its pointer is null."""
        return self.pointer_type is not None and self.pointer_type.omits_null

    def explain(self, value: Any, error: Exception) -> Mistake:
        """Return where in a value, and what, is wrong: writing it raised `error`."""
        if self.group is not None:
            return self.group.mistake(value, error)
        if self.pointer_type is not None:
            return self.pointer_type.explain(value, error)
        return "", f": {error}"
