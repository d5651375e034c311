"""The methods of an interface, compiled from its schema: ids, and how params and results read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

from capnp_rig.wire.encoding.field_types import name_of
from capnp_rig.wire.encoding.structs import StructCodec, compile_struct
from capnp_rig.wire.errors import NotAnInterface

# The id of StreamResult in stream.capnp: what a method declared as ``-> stream`` returns.
_STREAM_RESULT = 0x995F9A3377C0B16E


@dataclass(frozen=True, slots=True)
class Method:
    """One method: where a call to it goes, and the codecs of its two structs.

    Of a streaming one, declared as ``-> stream``, the results have no fields.
    """

    name: str
    interface_id: int
    method_id: int
    params: StructCodec
    results: StructCodec
    is_streaming: bool
    interface_name: str = ""


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface with its own and its inherited methods, by name and by their ids.

    `ids` are its own id and those of all interfaces that it extends, `schema` is pycapnp's.
    """

    name: str
    id: int
    methods: Mapping[str, Method]
    by_id: Mapping[tuple[int, int], Method]
    ids: frozenset[int]
    schema: Any = field(compare=False)


def compile_interface(interface: Any) -> Interface:
    """Return the methods of a pycapnp interface module, such as ``message.MessageStream``.

    Its schema will do as well, which is what a field of that type has.

    The codecs of their params and results are compiled by then, once per process. An `Interface`
    is returned as it is.

    Raises:
        NotAnInterface: `interface` is neither.
    """
    if isinstance(interface, Interface):
        return interface
    schema = getattr(interface, "schema", interface)
    # pycapnp's schema of a struct has no methods; a file's module has no schema.
    if not hasattr(schema, "superclasses"):
        raise NotAnInterface(
            f"{_what_is(interface)}: name an interface of a schema, such as "
            'load_schema("adder.capnp").Adder'
        )
    return _compile(schema)


def _what_is(value: object) -> str:
    if value is None:
        return "there is no interface"
    if isinstance(value, ModuleType):
        return f"{value.__name__} is a module, not an interface"
    node = getattr(getattr(value, "schema", None), "node", None)
    if node is not None:
        return f"{node.displayName} is a {node.which()}, not an interface"
    return f"{value!r} is of type {type(value).__name__}, not an interface"


@cache
def _compile(schema: Any) -> Interface:
    methods: dict[tuple[int, int], Method] = {}
    ids = set()
    waiting = [schema]
    # Breadth first: of two methods of one name, the one that is nearer.
    for each in waiting:
        if each.node.id not in ids:
            ids.add(each.node.id)
            methods |= {(method.interface_id, method.method_id): method for method in _own(each)}
            waiting += each.superclasses
    by_name: dict[str, Method] = {}
    for method in methods.values():
        by_name.setdefault(method.name, method)
    return Interface(name_of(schema), schema.node.id, by_name, methods, frozenset(ids), schema)


def _own(schema: Any) -> Iterator[Method]:
    # A method's id is its place in the declaration order of its own interface.
    for method_id, declared in enumerate(schema.node.interface.methods):
        method = schema.methods[declared.name]
        params, results = (
            compile_struct(each).compile() for each in (method.param_type, method.result_type)
        )
        # Now, as each call asks for it.
        _ = params.has_capabilities, results.has_capabilities
        is_streaming = declared.resultStructType == _STREAM_RESULT
        yield Method(
            declared.name,
            schema.node.id,
            method_id,
            params,
            results,
            is_streaming,
            name_of(schema),
        )
