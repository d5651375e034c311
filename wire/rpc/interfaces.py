"""The methods of an interface, compiled from its schema: ids, and how params and results read."""

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface with its own and its inherited methods by name."""

    name: str
    id: int
    methods: dict[str, Method]


def compile_interface(interface: Any) -> Interface:
    """Return the methods of a pycapnp interface module, such as ``message.MessageStream``.

    The codecs of their params and results are compiled by then, once per process. An `Interface`
    is returned as it is.

    Raises:
        NotAnInterface: `interface` is neither.
    """
    if isinstance(interface, Interface):
        return interface
    # pycapnp's schema of a struct has no methods; a file's module has no schema.
    if not hasattr(getattr(interface, "schema", None), "methods"):
        raise NotAnInterface(
            f"{_what_is(interface)}: name an interface of a schema, such as "
            'load_schema("adder.capnp").Adder'
        )
    return _compile(interface)


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
def _compile(module: Any) -> Interface:
    schema = module.schema
    methods: dict[str, Method] = {}
    _collect(schema, methods)
    return Interface(name_of(schema), schema.node.id, methods)


def _collect(schema: Any, methods: dict[str, Method]) -> None:
    # A method's id is its place in the declaration order of its own interface.
    for method_id, declared in enumerate(schema.node.interface.methods):
        # It keeps the id of the interface that declares it, as a call must name it.
        method = schema.methods[declared.name]
        if declared.name not in methods:
            methods[declared.name] = Method(
                declared.name,
                schema.node.id,
                method_id,
                compile_struct(method.param_type).compile(),
                compile_struct(method.result_type).compile(),
                declared.resultStructType == _STREAM_RESULT,
            )
    for superclass in schema.superclasses:
        _collect(superclass, methods)
