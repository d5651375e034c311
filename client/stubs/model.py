"""What stubs are made of: the definitions of a schema, where what generic types take is bound."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# What the parameters of a type and of those around it are bound to, by the scope's id. Scopes of
# which nothing is bound are left out.
Bindings = tuple[tuple[int, "tuple[Type, ...]"], ...]


@dataclass(frozen=True, slots=True)
class Plain:
    """A type without a definition, as schema.capnp names it.

    Besides, "capability" is one of any interface, and "unknown" a type that is not looked into.
    """

    which: str


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list."""

    element: "Type"


@dataclass(frozen=True, slots=True)
class Ref:
    """A struct, group, enum or interface, by the id of its node and what is bound."""

    node_id: int
    bindings: Bindings = ()


Type = Plain | ListOf | Ref
UNKNOWN = Plain("unknown")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a struct; `in_union` if it is a member of the struct's unnamed union."""

    name: str
    type: Type
    in_union: bool = False


@dataclass(frozen=True, slots=True)
class Enum:
    """An enum."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct, a group, or the params or results of a method."""

    fields: tuple[Field, ...]
    is_group: bool = False


@dataclass(frozen=True, slots=True)
class Method:
    """A method of an interface; of a streaming one the results are None."""

    name: str
    params: Ref
    results: Ref | None


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface: its own methods, and the interfaces that it extends."""

    methods: tuple[Method, ...]
    bases: tuple[Ref, ...] = ()


Definition = Enum | Struct | Interface


@dataclass(frozen=True, slots=True)
class Place:
    """Where a definition stands in the schemas: its file, and its names from the outermost on.

    `is_named` tells whether the schema has a type of this name: a group has none, nor have params
    and results that stand in parentheses.
    """

    file: str
    path: tuple[str, ...]
    is_named: bool = True


@dataclass(frozen=True, slots=True)
class Schema:
    """All definitions that the stubs of a `file` need; `places` are by the node's id."""

    file: str
    places: Mapping[int, Place]
    definitions: Mapping[Ref, Definition] = field(default_factory=dict)
