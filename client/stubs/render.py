"""Write the stubs of a schema, as the text of a ``.pyi`` file."""

from collections.abc import Iterator, Sequence
from keyword import iskeyword

from capnp_rig.client.stubs.classes import Class, attribute, literal, put_bases_first
from capnp_rig.client.stubs.inheritance import Inheritance, OwnedMethod
from capnp_rig.client.stubs.model import Definition, Enum, Interface, Ref, Schema, Struct
from capnp_rig.client.stubs.names import Form, Names, Path
from capnp_rig.client.stubs.types_of import ASYNC, BLOCKING, Edge, Types

# All under a name that begins with an underscore, as no name of a schema does.
_IMPORTS = {
    "builtins": "bool float int memoryview property str",
    "collections.abc": "Coroutine Iterable Sequence",
    "typing": "Any Final Literal Never Protocol TypeAlias TypedDict overload",
    "capnp_rig": "AsyncCapability Capability PendingCall",
    "capnp_rig.client.stubs.values": (
        "Bytes Columns Integer Integers Items Number Numbers Returned View"
    ),
    "capnp_rig.objects.typed_calls": "AwaitedResults PendingResults",
    "capnp_rig.wire.encoding.any_pointers": "AnyPointer",
    "capnp_rig.wire.encoding.lists": "StructList",
}
_HEAD = """\
# Stubs of {name}, written by `client stubs`: write them again when the schema has changed.
# A capability is None where it is null; `| Any` is for code that knows that it is not.
# ruff: noqa
# pyright: reportIncompatibleVariableOverride=false"""
_TIMEOUT = ", *, timeout_s: _float | None = None"


def render(schema: Schema, name: str) -> str:
    """Return the stubs of a schema in a file of that name."""
    return "\n".join([_HEAD.format(name=name), *_imports(), "", *_Stubs(schema).lines(), ""])


def _imports() -> Iterator[str]:
    for module, names in _IMPORTS.items():
        yield f"from {module} import {', '.join(f'{name} as _{name}' for name in names.split())}"


class _Stubs:
    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._names = Names(schema)
        self._types = Types(schema, self._names)
        self._inheritance = Inheritance(schema.definitions)
        self._module = Class()
        # The classes of interfaces and services, and what they extend.
        self._bases: dict[Path, list[Path]] = {}

    def lines(self) -> Iterator[str]:
        for ref, definition in self._schema.definitions.items():
            self._add(ref, definition)
        put_bases_first(self._module, self._bases)
        yield from self._module.text()
        for name, alias in self._names.aliases.items():
            yield f"{alias}: _TypeAlias = {name}"

    def _add(self, ref: Ref, definition: Definition) -> None:
        if isinstance(definition, Enum):
            *parent, name = self._names.path(ref)
            self._module.at(parent).head.append(f"{name}: _TypeAlias = {literal(definition.names)}")
        elif isinstance(definition, Struct):
            self._add_struct(ref, definition)
        else:
            self._add_interface(ref, definition)
            self._add_service(ref, definition)

    # --- structs -----------------------------------------------------------------------------

    def _add_struct(self, ref: Ref, struct: Struct) -> None:
        self._add_view(ref, struct, ASYNC)
        if self._types.has_two_views(ref):
            self._add_view(ref, struct, BLOCKING)
        if ref in self._types.pipelined_parts:
            for edge in (ASYNC, BLOCKING):
                self._module.at(self._names.path(ref, edge.pipelined)).lines = self._to_come(
                    struct, edge
                )
        self._add_values(ref, struct)

    def _add_values(self, ref: Ref, struct: Struct) -> None:
        """Add the class of the mappings that are written as a struct."""
        *parent, name = self._names.path(ref, Form.DICT)
        container, bases = self._module.at(parent), "_TypedDict"
        values = {field.name: self._types.value(field.type) for field in struct.fields}
        keywords = [f'"{field}": {values.pop(field)}' for field in [*values] if iskeyword(field)]
        if keywords:
            # A class cannot declare these.
            bases = f"_{name}Keywords"
            fields = f"{{{', '.join(keywords)}}}"
            container.head.append(f'{bases} = _TypedDict("{bases}", {fields}, total=False)')
        lines = [f"{field}: {value}" for field, value in values.items()]
        container.inner[name] = Class(f"{bases}, total=False", lines=lines)

    def _add_view(self, ref: Ref, struct: Struct, edge: Edge) -> None:
        view = self._module.at(self._names.path(ref, edge.view))
        view.bases = "_View"
        members = [field.name for field in struct.fields if field.in_union]
        if members:
            view.lines.append(f"def which(self) -> {literal(members)}: ...")
        for field in struct.fields:
            # Of a struct with a union this is the method.
            if field.name != "which" or not members:
                view.lines.append(attribute(field.name, self._types.view(field.type, edge)))

    def _to_come(self, struct: Struct, edge: Edge) -> list[str]:
        """Return the lines of what can be called in a struct before it is here."""
        types = {field.name: self._types.to_come(field.type, edge) for field in struct.fields}
        return [attribute(name, type_) for name, type_ in types.items() if type_ is not None]

    # --- interfaces --------------------------------------------------------------------------

    def _add_interface(self, ref: Ref, interface: Interface) -> None:
        stub = self._module.at(self._names.path(ref))
        stub.bases = ", ".join(self._extended(ref, Form.PLAIN))
        for method in interface.methods:
            if method.results in self._types.pipelined:
                self._add_pending(stub, method.name, method.results)
        methods = self._inheritance.methods(ref)
        for name, edge in (("async_call", ASYNC), ("call", BLOCKING)):
            results = [self._called(method, edge) for method in methods]
            self._add_callable(stub, name, methods, results, _TIMEOUT)
        for name, edge in (("async_pipeline", ASYNC), ("pipeline", BLOCKING)):
            results = [self._pending(method, edge) for method in methods]
            self._add_callable(stub, name, methods, results, _TIMEOUT)
        results = [f"_PendingCall[{self._view(method, BLOCKING)}]" for method in methods]
        self._add_callable(stub, "submit", methods, results, "")

    def _extended(self, ref: Ref, form: Form) -> list[str]:
        bases = self._inheritance.bases(ref)
        self._bases[self._names.path(ref, form)] = [self._names.path(base, form) for base in bases]
        return [self._names.dotted(base, form) for base in bases]

    def _add_callable(
        self,
        stub: Class,
        name: str,
        methods: Sequence[OwnedMethod],
        results: Sequence[str],
        options: str,
    ) -> None:
        """Add the type of one of the methods that call, which has an overload for each method."""
        signatures = [
            f"method: {literal([each.method.name])}, "
            f"params: {self._types.struct_value(each.method.params)} | None = None{options}"
            for each in methods
        ]
        lines = [
            f"def __call__(self, {signature}) -> {result}: ..."
            for signature, result in zip(signatures, results, strict=True)
        ]
        if len(lines) > 1:
            lines = [line for each in lines for line in ("@_overload", each)]
        kind = "_" + "".join(part.capitalize() for part in name.split("_"))
        stub.inner[kind] = Class(
            "_Protocol", lines=lines or ["def __call__(self, method: _Never) -> _Any: ..."]
        )
        stub.lines.append(f"def _{name}(self) -> {kind}: ...")

    def _called(self, each: OwnedMethod, edge: Edge) -> str:
        # A call of a streaming method returns before its results are here.
        return edge.results.format(
            "None" if each.method.results is None else self._view(each, edge)
        )

    def _view(self, each: OwnedMethod, edge: Edge) -> str:
        results = each.method.results
        return "_View" if results is None else self._types.struct_view(results, edge)

    def _pending(self, each: OwnedMethod, edge: Edge) -> str:
        if each.method.results in self._types.pipelined:
            return f"{self._names.dotted(each.owner)}.{_pending_name(each.method.name, edge)}"
        return edge.pending.format(self._view(each, edge))

    def _add_pending(self, stub: Class, method: str, results: Ref) -> None:
        """Add the classes of the results to come of a method."""
        struct = self._schema.definitions[results]
        assert isinstance(struct, Struct)
        for edge in (ASYNC, BLOCKING):
            bases = edge.pending.format(self._types.struct_view(results, edge))
            lines = self._to_come(struct, edge)
            stub.inner[_pending_name(method, edge)] = Class(bases, lines=lines)

    def _add_service(self, ref: Ref, interface: Interface) -> None:
        service = self._module.at(self._names.path(ref, Form.SERVICE))
        service.bases = ", ".join([*self._extended(ref, Form.SERVICE), "_Protocol"])
        service.lines += ["@_property", "def interface(self) -> _Any: ..."]
        for method in interface.methods:
            params = self._types.struct_view(method.params, ASYNC)
            if not iskeyword(method.name) and method.name != "interface":
                service.lines.append(
                    f"def {method.name}(self, params: {params}, /) -> _Returned: ..."
                )


def _pending_name(method: str, edge: Edge) -> str:
    return f"_{edge.pipelined.value.format('')}{method[0].upper()}{method[1:]}"
