"""Gather the nodes of a schema from pycapnp, which has no way to ask for one by its id."""

from collections.abc import Iterator
from typing import Any

from capnp_rig.wire.encoding.bound_types import schema_of

# Of one generic type: it may contain itself under ever new brands.
_MAX_BRANDS = 64


def nodes_of(module: Any) -> dict[int, Any]:
    """Return the nodes of a pycapnp module and all types in it, by id: those of the file first.

    They are structs, groups, enums and interfaces, as ``schema.capnp`` has a `Node`, and the file's
    own. What only a parameter that no field uses is bound to is not among them.
    """
    nodes = {module.schema.node.id: module.schema.node}
    waiting = list(_declared(module))
    seen: dict[int, list[Any]] = {}
    for schema in waiting:
        # Brands are different schemas of one node, which are equal but have no hash.
        brands = seen.setdefault(schema.node.id, [])
        if schema not in brands and len(brands) < _MAX_BRANDS:
            brands.append(schema)
            nodes[schema.node.id] = schema.node
            waiting += _in(schema)
    return nodes


def _declared(module: Any) -> Iterator[Any]:
    """Yield the schemas of the types that a module declares, nested ones as well."""
    for node in module.schema.node.nestedNodes:
        nested = getattr(module, node.name, None)
        schema = getattr(nested, "schema", None)
        # As in `schema.interfaces`: a constant of a struct has the schema of its type.
        if schema is not None and schema.node.id == node.id:
            yield schema
            yield from _declared(nested)


def _in(schema: Any) -> Iterator[Any]:
    """Yield the schemas of the types that a struct's fields or an interface's methods have."""
    which = schema.node.which()
    if which == "struct":
        for field in schema.fields_list:
            inner = schema_of(field, "schema")
            while inner is not None and not hasattr(inner, "node"):
                inner = schema_of(inner, "elementType")
            if inner is not None:
                yield inner
    elif which == "interface":
        yield from schema.superclasses
        for declared in schema.node.interface.methods:
            method = schema.methods[declared.name]
            yield method.param_type
            yield method.result_type
