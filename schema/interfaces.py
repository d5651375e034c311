"""The interfaces that a loaded schema declares, by name."""

from collections.abc import Iterator
from typing import Any


def interfaces_of(module: Any) -> dict[str, Any]:
    """Return the interfaces of a pycapnp module by name, nested ones as "Outer.Inner"."""
    return dict(_interfaces(module, ""))


def _interfaces(module: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for node in module.schema.node.nestedNodes:
        nested = getattr(module, node.name, None)
        schema = getattr(nested, "schema", None)
        # Numbers and other constants have none. One of a struct has that of its type, whose nested
        # types it lacks: asked for them, pycapnp raises an exception of KJ's, which looks through
        # the stack, and does not survive that in a greenlet of a Locust user.
        if schema is None or schema.node.id != node.id:
            continue
        name = f"{prefix}{node.name}"
        if schema.node.which() == "interface":
            yield name, nested
        yield from _interfaces(nested, f"{name}.")
