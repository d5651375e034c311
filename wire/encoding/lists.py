"""Lists in a received message that are not numbers: immutable sequences that read at the access.

Opening one checks that all its elements lie in their segment and pays for them from the
traversal limit, so that neither a hostile length nor a far element is met later. What an
element points to is checked when it is read.

The rules of upgrading hold (https://capnproto.org/encoding.html#lists): a list of structs may
arrive with larger or smaller structs, or as a list of what was their only field.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from capnp_rig.wire.encoding.pointers import BIT, ListAt, Message, StructTuple
from capnp_rig.wire.encoding.view_repr import view_repr
from capnp_rig.wire.errors import MalformedMessage

if TYPE_CHECKING:
    from capnp_rig.wire.encoding.columns import Array

Item = TypeVar("Item")


class LazyList(Sequence[Item], Generic[Item]):
    """A list whose elements are read where they lie, each time they are asked for.

    A slice is such a list too. Reading an element may raise `MalformedMessage`, and whatever is
    asked of a list of a plain method's params after the call raises `ViewExpired`.
    """

    __slots__ = ("_places", "message")

    # Where the elements begin. A range does all that indexes and slices need.
    _places: range
    # That in which they are, or would be.
    message: Message

    def _item(self, place: int) -> Item:
        raise NotImplementedError

    def __len__(self) -> int:
        _ = self.message.buffer
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Item | Self:
        _ = self.message.buffer
        place = self._places[index]
        if isinstance(place, int):
            return self._item(place)
        part = copy(self)
        part._places = place
        return part

    def __iter__(self) -> Iterator[Item]:
        _ = self.message.buffer
        return map(self._item, self._places)

    def __repr__(self) -> str:
        left = self.message.budget_words
        text = view_repr(self)
        # A `repr` must not use the message up.
        self.message.budget_words = left
        return text


# A null pointer is an empty list.
_EMPTY = Message(b"", ((0, 0),))
_NOWHERE = (0, 0, 0)


@cache
def _columns() -> Any:
    """Return the module `columns`.

    Raises:
        ImportError: numpy is not installed.
    """
    try:
        from capnp_rig.wire.encoding import columns
    except ModuleNotFoundError as error:
        raise ImportError(f"columns need numpy: pip install 'capnp-rig[numpy]' ({error})") from None
    return columns


class StructList(LazyList[Item]):
    """A list of struct views, whose numbers are columns, too.

    Examples:
        >>> records.column("price").sum()  # doctest: +SKIP
        >>> pandas.DataFrame(records.to_numpy())  # doctest: +SKIP
    """

    __slots__ = ("_data_bytes", "_pointer_bytes", "_segment", "_view")

    def __init__(self, view: Callable[[StructTuple], Item], items: ListAt | None) -> None:
        """Open a list whose elements `view` makes into views.

        Raises:
            MalformedMessage: It is of bits, which have never been structs; or lies too deep.
        """
        self._view = view
        self._segment, self._data_bytes, self._pointer_bytes = _NOWHERE, 0, 0
        self._places, self.message = range(0), _EMPTY
        if items is None:
            return
        if items.element == BIT:
            raise MalformedMessage("message has a list of bits where structs are expected")
        if items.depth <= 0:
            raise MalformedMessage("message is too deeply nested or contains cycles")
        # As in C++ the list is a level of its own, between the struct above and its elements.
        self.message = items.message
        self._segment = (items.start, items.end, items.depth - 1)
        self._data_bytes, self._pointer_bytes = items.data_bytes, items.pointer_count * 8
        # Structs without size get one byte each, so that each has a place of its own.
        step = items.step_bits >> 3 or 1
        self._places = range(items.first, items.first + items.length * step, step)

    def _item(self, place: int) -> Any:
        start, end, depth = self._segment
        pointers = place + self._data_bytes
        last = pointers + self._pointer_bytes
        return self._view((self.message, start, end, place, pointers, pointers, last, depth))

    def __iter__(self) -> Iterator[Any]:
        # The same as `_item`, written out: 198 ns per element instead of 238.
        view, data_bytes, pointer_bytes = self._view, self._data_bytes, self._pointer_bytes
        message, (start, end, depth) = self.message, self._segment
        _ = message.buffer
        for place in self._places:
            # Asked again for each element: the method may have returned in between.
            _ = message.buffer
            pointers = place + data_bytes
            last = pointers + pointer_bytes
            yield view((message, start, end, place, pointers, pointers, last, depth))

    def to_numpy(self) -> "Array":
        """Return the fields of fixed width as a structured numpy array, a record per struct.

        It is read-only, and shows the message itself if no field is a Bool, is in a union or has
        another default than zero, and the sender's structs have them all. An enum is its number, a
        field of a group is named ``group.field``. Of a union ``which`` is the active member, as an
        index into the members by their ordinals; a member has its default where another is active.
        Texts, data and other pointers are left out.

        Raises:
            ImportError: numpy is not installed.
            MalformedMessage: Filling in what the sender's structs lack exceeds the traversal limit.
            ViewExpired: The method whose params this is of has returned. Arrays stay valid.
        """
        columns = _columns()
        return columns.read_table(self._rows(columns), columns.layout_of(self._view))  # type: ignore[no-any-return]

    def column(self, name: str, *, categories: bool = False) -> Any:
        """Return the field `name` of all structs, as `to_numpy` names and reads it.

        That is a read-only numpy array, which shows the message itself unless the field is a Bool,
        is in a union, or has a default other than zero. With `categories` an enum, or ``which``, is
        a `pandas.Categorical`. A text, data or another pointer is a lazy list of its values.

        Raises:
            ValueError: There is no such field, or it has no categories.
            ImportError, ViewExpired: As `to_numpy`, and pandas is needed for categories.
        """
        columns = _columns()
        layout, rows = columns.layout_of(self._view), self._rows(columns)
        if categories:
            return columns.read_categories(rows, layout, name)
        return (
            PointerColumn(self, name)
            if name in layout.pointers
            else (columns.read_column(rows, layout, name))
        )

    def _rows(self, columns: Any) -> Any:
        _ = self.message.buffer
        return columns.Rows(self.message, self._places, self._data_bytes)


class PointerColumn(LazyList[Any]):
    """A pointer field of each struct of a list; reading an element may raise `MalformedMessage`."""

    __slots__ = ("_get", "_struct")

    def __init__(self, structs: StructList[Any], name: str) -> None:
        self._get, self._struct = attrgetter(name), structs._item
        self._places, self.message = structs._places, structs.message

    def _item(self, place: int) -> Any:
        return self._get(self._struct(place))


class OnePointer:
    """Stands in for the view of a struct that is one pointer."""

    __slots__ = ("_at",)

    def __init__(self, at: StructTuple) -> None:
        self._at = at


class PointerList(LazyList[Any]):
    """A list of texts, of data or of lists, which `get` reads as the field of a struct."""

    __slots__ = ("_get", "_segment")

    def __init__(self, get: Callable[[Any], Any], items: ListAt | None) -> None:
        """Open a list.

        Raises:
            MalformedMessage: Its elements hold no pointer.
        """
        self._get = get
        self._segment = _NOWHERE
        self._places, self.message = range(0), _EMPTY
        if items is None:
            return
        if items.pointer_count < 1:
            raise MalformedMessage("message has a list of elements of an incompatible type")
        self.message = items.message
        self._segment = (items.start, items.end, items.depth)
        # The first pointer, should they have become structs.
        first, step = items.first + items.data_bytes, items.step_bits >> 3
        self._places = range(first, first + items.length * step, step)

    def are_set(self) -> list[bool]:
        """Return which elements are not null, without reading them: a capability is not taken."""
        buffer = self.message.buffer
        return [any(buffer[place : place + 8]) for place in self._places]

    def _item(self, place: int) -> Any:
        start, end, depth = self._segment
        at = (self.message, start, end, place, place, place, place + 8, depth)
        return self._get(OnePointer(at))


class BoolList(LazyList[bool]):
    """A list of bools, which are bits."""

    __slots__ = ()

    def __init__(self, items: ListAt | None) -> None:
        """Open a list.

        Raises:
            MalformedMessage: It is of something else.
        """
        self._places, self.message = range(0), _EMPTY
        if items is None:
            return
        if items.element != BIT:
            raise MalformedMessage("message has a list of another kind where bits are expected")
        self.message = items.message
        self._places = range(items.first * 8, items.first * 8 + items.length)

    def _item(self, place: int) -> bool:
        return bool(self.message.buffer[place >> 3] >> (place & 7) & 1)


class EnumList(LazyList[str | int]):
    """A list of enumerants; a number that a newer schema added stays a number."""

    __slots__ = ("_names", "_numbers")

    def __init__(self, names: Mapping[int, str], numbers: memoryview, message: Message) -> None:
        self._names, self._numbers = names, numbers
        self._places, self.message = range(len(numbers)), message

    def _item(self, place: int) -> str | int:
        _ = self.message.buffer
        number: int = self._numbers[place]
        return self._names.get(number, number)


class VoidList(LazyList[None]):
    """A list of nothings: any list is one, of its length."""

    __slots__ = ()

    def __init__(self, items: ListAt | None) -> None:
        self._places, self.message = range(0), _EMPTY
        if items is not None:
            self._places, self.message = range(items.length), items.message

    def _item(self, place: int) -> None:
        del place
