"""What the types of a schema are in Python: read from a view, written, and to come."""

from collections.abc import Callable
from dataclasses import dataclass

from capnp_rig.client.stubs.model import Enum, Interface, ListOf, Plain, Ref, Schema, Struct, Type
from capnp_rig.client.stubs.names import Form, Names

_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_FLOATS = {"float32", "float64"}
_ANY_POINTER = Plain("anyPointer")
_CAPABILITY = Plain("capability")
_VIEWS = {
    "void": "None",
    "bool": "_bool",
    **dict.fromkeys(_INTEGERS, "_int"),
    **dict.fromkeys(_FLOATS, "_float"),
    "text": "_str",
    "data": "_memoryview",
    "anyPointer": "_AnyPointer",
    "unknown": "_Any",
}
_VALUES = {
    "void": "None",
    "bool": "_bool",
    **dict.fromkeys(_INTEGERS, "_Integer"),
    **dict.fromkeys(_FLOATS, "_Number"),
    "text": "_str | None",
    "data": "_Bytes | None",
    "anyPointer": "_Any",
    "capability": "_Any",
    "unknown": "_Any",
}


@dataclass(frozen=True, slots=True)
class Edge:
    """How asyncio, or blocking code, has the results of a call.

    `results` is what a call returns, `pending` what a pipelined one does, with the view as ``{}``.
    """

    capability: str
    view: Form
    pipelined: Form
    results: str
    pending: str


ASYNC = Edge(
    "_AsyncCapability",
    Form.PLAIN,
    Form.PIPELINED,
    "_Coroutine[_Any, _Any, {}]",
    "_AwaitedResults[{}]",
)
BLOCKING = Edge("_Capability", Form.BLOCKING, Form.BLOCKING_PIPELINED, "{}", "_PendingResults[{}]")


class Types:
    """The types of a schema, whose definitions have these names."""

    def __init__(self, schema: Schema, names: Names) -> None:
        self._definitions = schema.definitions
        self._names = names
        self._params = {
            number for number, place in schema.places.items() if place.path[-1].endswith("$Params")
        }
        self._capable = self._structs_with(
            lambda type_, capable: _inmost(type_) in capable or self.is_capability(_inmost(type_))
        )
        # Those in which a call finds a capability before it is here.
        self.pipelined = self._structs_with(
            lambda type_, pipelined: (
                type_ in pipelined or type_ == _ANY_POINTER or self.is_capability(type_)
            )
        )

        self.pipelined_parts = {
            field.type
            for ref, struct in schema.definitions.items()
            if ref in self.pipelined and isinstance(struct, Struct)
            for field in struct.fields
            if field.type in self.pipelined
        }

    def has_two_views(self, ref: Ref) -> bool:
        """Tell whether a struct has other views where calls block, which params do not have."""
        return ref in self._capable and ref.node_id not in self._params

    def is_capability(self, type_: Type) -> bool:
        """Tell whether a type is an interface."""
        if isinstance(type_, Ref):
            return isinstance(self._definitions[type_], Interface)
        return type_ == _CAPABILITY

    def view(self, type_: Type, edge: Edge) -> str:
        """Return what a field of a view is."""
        if isinstance(type_, ListOf):
            return self._list_view(type_.element, edge)
        if self.is_capability(type_):
            # None where it is null. Any lets those who know that it is not go without a test.
            return f"{self._capability(type_, edge)} | _Any"
        if isinstance(type_, Plain):
            return _VIEWS[type_.which]
        definition = self._definitions[type_]
        if isinstance(definition, Struct):
            return self.struct_view(type_, edge)
        # The number of an enumerant that a newer schema added stays a number.
        return f"{self._names.dotted(type_)} | _int"

    def _capability(self, type_: Type, edge: Edge) -> str:
        name = self._names.dotted(type_) if isinstance(type_, Ref) else "_Any"
        return f"{edge.capability}[{name}]"

    def struct_view(self, ref: Ref, edge: Edge) -> str:
        """Return the view of a struct."""
        return self._names.dotted(ref, edge.view if self.has_two_views(ref) else Form.PLAIN)

    def _list_view(self, element: Type, edge: Edge) -> str:
        if isinstance(element, Plain) and element.which in _INTEGERS:
            return "_memoryview"
        if isinstance(element, Plain) and element.which in _FLOATS:
            return "_memoryview[_float]"
        if self._is_struct(element):
            return f"_StructList[{self.view(element, edge)}]"
        return f"_Sequence[{self.view(element, edge)}]"

    def to_come(self, type_: Type, edge: Edge) -> str | None:
        """Return what a field of a struct to come is; None of one in which nothing is called."""
        if isinstance(type_, Ref) and type_ in self.pipelined:
            return self._names.dotted(type_, edge.pipelined)
        is_one = type_ == _ANY_POINTER or self.is_capability(type_)
        return self._capability(type_, edge) if is_one else None

    def value(self, type_: Type) -> str:
        """Return what is written into a field."""
        if isinstance(type_, ListOf):
            return f"{self._list_value(type_.element)} | None"
        if isinstance(type_, Plain):
            return _VALUES[type_.which]
        definition = self._definitions[type_]
        if isinstance(definition, Struct):
            values = self.struct_value(type_)
            return values if definition.is_group else f"{values} | None"
        name = self._names.dotted(type_)
        if isinstance(definition, Enum):
            return f"{name} | _Integer"
        service = self._names.dotted(type_, Form.SERVICE)
        return f"_AsyncCapability[{name}] | _Capability[{name}] | {service} | None"

    def struct_value(self, ref: Ref) -> str:
        """Return what is written as a struct that is not null."""
        forms = [Form.DICT, Form.PLAIN, *([Form.BLOCKING] if self.has_two_views(ref) else [])]
        return " | ".join(self._names.dotted(ref, form) for form in forms)

    def _list_value(self, element: Type) -> str:
        if isinstance(element, Plain) and element.which in _INTEGERS | _FLOATS:
            return "_Integers" if element.which in _INTEGERS else "_Numbers"
        if isinstance(element, Plain) and element.which in {"text", "data"}:
            return f"_Items[{self.value(element)}]"
        if isinstance(element, Ref) and self._is_struct(element):
            return f"_Iterable[{self.struct_value(element)}] | _Columns"
        return f"_Iterable[{self.value(element)}]"

    def _is_struct(self, type_: Type) -> bool:
        return isinstance(type_, Ref) and isinstance(self._definitions[type_], Struct)

    def _structs_with(self, is_such: Callable[[Type, set[Ref]], bool]) -> set[Ref]:
        """Return the structs with a field of such a type, given those that are known to be."""
        chosen: set[Ref] = set()
        more = chosen
        while more or not chosen:
            more = {
                ref
                for ref, definition in self._definitions.items()
                if ref not in chosen
                and isinstance(definition, Struct)
                and any(is_such(field.type, chosen) for field in definition.fields)
            }
            if not more:
                break
            chosen |= more
        return chosen


def _inmost(type_: Type) -> Type:
    while isinstance(type_, ListOf):
        type_ = type_.element
    return type_
