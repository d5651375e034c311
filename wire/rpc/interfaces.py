"""The methods of an interface, compiled from its schema: ids, and how params and results read."""

from dataclasses import dataclass
from typing import Any

from capnp_rig.wire.encoding.structs import StructCodec, compile_struct


@dataclass(frozen=True, slots=True)
class Method:
    """One method: where a call to it goes, and the codecs of its two structs."""

    name: str
    interface_id: int
    method_id: int
    params: StructCodec
    results: StructCodec


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface with its own and its inherited methods by name."""

    name: str
    id: int
    methods: dict[str, Method]


def compile_interface(module: Any) -> Interface:
    """Return the methods of a pycapnp interface module, such as ``message.MessageStream``.

    The structs of their params and results are compiled by then.

    A method keeps the id of the interface that declares it, as a call must name it.
    """
    schema = module.schema
    methods: dict[str, Method] = {}
    _collect(schema, methods)
    return Interface(schema.node.displayName.rpartition(":")[2], schema.node.id, methods)


def _collect(schema: Any, methods: dict[str, Method]) -> None:
    # A method's id is its place in the declaration order of its own interface.
    for method_id, declared in enumerate(schema.node.interface.methods):
        method = schema.methods[declared.name]
        if declared.name not in methods:
            methods[declared.name] = Method(
                declared.name,
                schema.node.id,
                method_id,
                compile_struct(method.param_type).compile(),
                compile_struct(method.result_type).compile(),
            )
    for superclass in schema.superclasses:
        _collect(superclass, methods)
