"""Make the definitions of stubs from the nodes of a schema.

Each brand of a generic type becomes a definition of its own, as each has a codec of its own at run
time: the views of ``Box(Text)`` and ``Box(Data)`` differ, and checkers have no types of types.
"""

from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

from capnp_rig.client.stubs.model import (
    UNKNOWN,
    Definition,
    Enum,
    Field,
    Interface,
    ListOf,
    Method,
    Place,
    Plain,
    Ref,
    Schema,
    Struct,
    Type,
)

# The id of StreamResult in stream.capnp: what a method declared as ``-> stream`` returns.
_STREAM_RESULT = 0x995F9A3377C0B16E
# The number of a field that is in no union.
_NO_MEMBER = 0xFFFF
# Of what a parameter is bound to. A generic type may contain itself under ever deeper brands.
_MOST_NESTED = 4
_ANY = Plain("anyPointer")


def describe(nodes: Mapping[int, Any], file_id: int) -> Schema:
    """Return the definitions of a file, and of what those need of other files.

    `nodes` are those of ``schema.capnp``, by id; `file_id` is the file's own.
    """
    file = nodes[file_id].displayName
    places = {number: _place(node) for number, node in nodes.items() if number != file_id}
    definitions: dict[Ref, Definition] = {}
    waiting = [Ref(number) for number, place in places.items() if place.file == file]
    for ref in waiting:
        if ref not in definitions:
            maker = _Maker(nodes, dict(ref.bindings))
            definitions[ref] = maker.definition(nodes[ref.node_id])
            waiting += maker.met
    return Schema(file, places, definitions)


def _place(node: Any) -> Place:
    file, _, path = node.displayName.rpartition(":")
    names = tuple(path.split("."))
    is_named = names[-1][0].isupper() and "$" not in names[-1]
    return Place(file, names, is_named)


class _Maker:
    """Makes one definition, under `bindings`; `met` are the types that it refers to."""

    def __init__(self, nodes: Mapping[int, Any], bindings: Mapping[int, tuple[Type, ...]]) -> None:
        self._nodes = nodes
        self._bindings = bindings
        self.met: list[Ref] = []

    def definition(self, node: Any) -> Definition:
        """Return the definition of a node."""
        which = node.which()
        if which == "enum":
            return Enum(tuple(each.name for each in node.enum.enumerants))
        if which == "struct":
            fields = sorted(node.struct.fields, key=lambda field: int(field.codeOrder))
            return Struct(tuple(map(self._field, fields)), bool(node.struct.isGroup))
        methods = tuple(map(self._method, node.interface.methods))
        bases = (self._ref(each.id, each.brand) for each in node.interface.superclasses)
        return Interface(methods, tuple(base for base in bases if isinstance(base, Ref)))

    def _field(self, field: Any) -> Field:
        if field.which() == "group":
            # A part of the struct: what is bound there is bound in here.
            type_: Type = self._meet(Ref(field.group.typeId, tuple(self._bindings.items())))
        else:
            type_ = self._type(field.slot.type)
        return Field(field.name, type_, field.discriminantValue != _NO_MEMBER)

    def _method(self, method: Any) -> Method:
        params = self._ref(method.paramStructType, method.paramBrand)
        assert isinstance(params, Ref)
        if method.resultStructType == _STREAM_RESULT:
            return Method(method.name, params, None)
        results = self._ref(method.resultStructType, method.resultBrand)
        assert isinstance(results, Ref)
        return Method(method.name, params, results)

    def _type(self, type_: Any) -> Type:
        which = type_.which()
        if which == "list":
            return ListOf(self._type(type_.list.elementType))
        if which == "enum":
            return self._meet(Ref(type_.enum.typeId))
        if which in {"struct", "interface"}:
            declared = getattr(type_, which)
            return self._ref(declared.typeId, declared.brand)
        return self._any(type_.anyPointer) if which == "anyPointer" else Plain(which)

    def _any(self, declared: Any) -> Type:
        which = declared.which()
        if which == "parameter":
            bound = self._bindings.get(declared.parameter.scopeId)
            return _ANY if bound is None else bound[declared.parameter.parameterIndex]
        is_capability = which == "unconstrained" and declared.unconstrained.which() == "capability"
        return Plain("capability") if is_capability else _ANY

    def _ref(self, node_id: int, brand: Any) -> Ref | Plain:
        if node_id not in self._nodes:
            return UNKNOWN
        bindings = tuple(sorted(self._bound(brand), key=itemgetter(0)))
        if any(_depth(type_) > _MOST_NESTED for _, types in bindings for type_ in types):
            return UNKNOWN
        return self._meet(Ref(node_id, bindings))

    def _bound(self, brand: Any) -> Iterator[tuple[int, tuple[Type, ...]]]:
        for scope in brand.scopes:
            if scope.which() == "inherit":
                types = self._bindings.get(scope.scopeId, ())
            else:
                types = tuple(
                    self._type(each.type) if each.which() == "type" else _ANY for each in scope.bind
                )
            if any(type_ != _ANY for type_ in types):
                yield scope.scopeId, types

    def _meet(self, ref: Ref) -> Ref:
        self.met.append(ref)
        return ref


def _depth(type_: Type) -> int:
    if isinstance(type_, ListOf):
        return 1 + _depth(type_.element)
    if isinstance(type_, Ref):
        bound = (_depth(each) for _, types in type_.bindings for each in types)
        return 1 + max(bound, default=0)
    return 0
