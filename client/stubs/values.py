"""The types of values that stubs are written with: what a view has, and what params take."""

from collections.abc import Awaitable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, SupportsFloat, SupportsIndex, TypeVar

if TYPE_CHECKING:
    # Every checker knows it, whether it is installed or not.
    from typing_extensions import Buffer
else:
    Buffer = Any

Item_co = TypeVar("Item_co", covariant=True)


class View:
    """A struct in a received message, with an attribute for each field of its schema."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as values that do not need the message."""
        raise NotImplementedError


class Listed(Protocol[Item_co]):
    """A collection, but no str, which is one of texts."""

    def __iter__(self) -> Iterator[Item_co]: ...

    def __contains__(self, item: object, /) -> bool: ...


class Columns(Protocol):
    """The columns of a list of structs by their names: a mapping, or pandas' `DataFrame`."""

    def keys(self) -> Any:
        """Return the names."""


Items = Listed[Item_co] | Iterator[Item_co]
# Numbers of numpy's are such ones, too.
Integer = SupportsIndex
Number = SupportsFloat | SupportsIndex
Bytes = Buffer | str
Integers = Buffer | Iterable[Integer]
Numbers = Buffer | Iterable[Number]

_Results = Mapping[str, Any] | View | None
# What a method of a service returns.
Returned = _Results | Awaitable[_Results]
