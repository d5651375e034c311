"""Find an interface in a schema, and a method in that, by names that a user gave or left out."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from capnp_rig.schema import load_schema, message

_FILE_ID = re.compile(r"^\s*@(0x[0-9a-fA-F]+)\s*;", re.MULTILINE)

Named = TypeVar("Named")


class UnknownName(ValueError):
    """A schema has no such interface or method, or several; the message names those it has."""


def find_interface(path: str, name: str | None) -> Any:
    """Return pycapnp's module of an interface in a schema file.

    `name` is as "Foo" or "Outer.Foo"; None is the only interface that the file has. The rig's
    ``message.capnp`` stands for any file with its id.

    Raises:
        UnknownName: The file has no such interface, or `name` is None and it has several.
        SchemaError: As `load_schema`.
    """
    return choose("interface", name, dict(_interfaces(_load(path), "")), Path(path).name)


def choose(kind: str, name: str | None, known: Mapping[str, Named], where: str) -> Named:
    """Return what is `known` under a name, or the only one; `kind` and `where` are for messages.

    Raises:
        UnknownName: There is none of this name, or none at all, or no name and several.
    """
    names = ", ".join(known)
    if not known:
        raise UnknownName(f"{where} has no {kind}")
    if name is None:
        if len(known) > 1:
            raise UnknownName(f"{where} has several {kind}s, name one of them: {names}")
        return next(iter(known.values()))
    if name not in known:
        raise UnknownName(f"no {kind} {name!r} in {where}: it has {names}")
    return known[name]


def _load(path: str) -> Any:
    # A user of the tutorial has a copy of ours, and a process loads one file per id.
    try:
        file_id = _FILE_ID.search(Path(path).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        file_id = None
    is_copy = file_id is not None and int(file_id[1], 16) == message.schema.node.id
    return message if is_copy else load_schema(path)


def _interfaces(module: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the interfaces of a pycapnp module with their names, nested ones too."""
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
