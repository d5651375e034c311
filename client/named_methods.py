"""Find an interface in a schema, and a method in that, by names that a user gave or left out."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from capnp_rig.schema import load_schema, message
from capnp_rig.schema.interfaces import interfaces_of
from capnp_rig.schema.loader import ImportPath

_FILE_ID = re.compile(r"^\s*@(0x[0-9a-fA-F]+)\s*;", re.MULTILINE)

Named = TypeVar("Named")


class UnknownName(ValueError):
    """A schema has no such interface or method, or several; the message names those it has."""


def load_interfaces(path: str, import_path: ImportPath = ()) -> dict[str, Any]:
    """Return the interfaces of a schema file by name, as `interfaces_of` names them.

    Raises:
        SchemaError: As `load_schema`.
    """
    return interfaces_of(load_users_schema(path, import_path))


def load_users_schema(path: str, import_path: ImportPath = ()) -> Any:
    """Return the pycapnp module of a schema file.

    The rig's ``message.capnp`` stands for any file with its id: a user of the tutorial has a copy,
    and a process loads one file per id.

    Raises:
        SchemaError: As `load_schema`.
    """
    try:
        file_id = _FILE_ID.search(Path(path).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        file_id = None
    is_copy = file_id is not None and int(file_id[1], 16) == message.schema.node.id
    return message if is_copy else load_schema(path, import_path)


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
