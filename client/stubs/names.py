"""The names of definitions in stubs: those of the schema, and what is derived from them.

A type of the schema has its name, and stands in the class of what it stands in there; what the
schema has no name for stands beside it. The names of the schema come first: a derived one that is
taken gets an underscore, which no name of a schema has.
"""

import keyword
import re
from enum import Enum
from pathlib import PurePath

from capnp_rig.client.stubs.model import ListOf, Ref, Schema, Type

# From the stubs' module on.
Path = tuple[str, ...]


class Form(Enum):
    """What stubs have for one definition, and how that is named."""

    # An interface, an enum, or the views of a struct, as asyncio and services have them.
    PLAIN = "{}"
    # The views of one with capabilities, where calls block.
    BLOCKING = "Blocking{}"
    # The values of a struct that is written.
    DICT = "{}Dict"
    # A struct to come, with the capabilities in it.
    PIPELINED = "Pipelined{}"
    BLOCKING_PIPELINED = "BlockingPipelined{}"
    # An object that serves an interface.
    SERVICE = "{}Service"


class Names:
    """The names of all definitions of a schema."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._taken: dict[Path, set[str]] = {}
        self._files: dict[str, Path] = {schema.file: ()}
        self._types: dict[tuple[str, Path], Path] = {}
        self._forms: dict[tuple[Ref, Form], Path] = {}
        self._aliases: dict[str, str] = {}
        places = schema.places.values()
        for place in sorted(places, key=lambda place: (not place.is_named, len(place.path))):
            self._type_path(place.file, place.path)
        for ref in schema.definitions:
            for form in Form:
                self.path(ref, form)
        self._nested = {name for path, names in self._taken.items() if path for name in names}

    def path(self, ref: Ref, form: Form = Form.PLAIN) -> Path:
        """Return where the class of a definition stands."""
        if (ref, form) not in self._forms:
            place = self._schema.places[ref.node_id]
            *parent, name = self._type_path(place.file, place.path)
            if ref.bindings or form is not Form.PLAIN:
                name = self._allot(tuple(parent), form.value.format(name + self._brand(ref)))
            self._forms[ref, form] = (*parent, name)
        return self._forms[ref, form]

    def dotted(self, ref: Ref, form: Form = Form.PLAIN) -> str:
        """Return the text of a reference, which means the same in each class.

        In a class with a nested type of that name, the name of one of the module means another.
        """
        first, *rest = self.path(ref, form)
        if first in self._nested:
            if first not in self._aliases:
                self._aliases[first] = self._allot((), first)
            first = self._aliases[first]
        return ".".join((first, *rest))

    @property
    def aliases(self) -> dict[str, str]:
        """What references to types of the module need: their other names, by their names."""
        return self._aliases

    def _type_path(self, file: str, path: Path) -> Path:
        if not path:
            if file not in self._files:
                stem = re.sub(r"\W", "_", PurePath(file).stem, flags=re.ASCII)
                self._files[file] = (self._allot((), f"{stem}_capnp"),)
            return self._files[file]
        if (file, path) not in self._types:
            parent = self._type_path(file, path[:-1])
            # A group has the name of its field; params are "add$Params".
            name = path[-1].replace("$", "")
            name = self._allot(parent, name[0].upper() + name[1:])
            self._types[file, path] = (*parent, name)
        return self._types[file, path]

    def _allot(self, parent: Path, name: str) -> str:
        taken = self._taken.setdefault(parent, set())
        while name in taken or keyword.iskeyword(name) or not name.isidentifier():
            name = f"{name}_" if name[0].isalpha() else f"File{name}"
        taken.add(name)
        return name

    def _brand(self, ref: Ref) -> str:
        types = [type_ for _, types in ref.bindings for type_ in types]
        return "Of" + "And".join(map(self._short, types)) if types else ""

    def _short(self, type_: Type) -> str:
        if isinstance(type_, ListOf):
            return f"ListOf{self._short(type_.element)}"
        if isinstance(type_, Ref):
            return self._schema.places[type_.node_id].path[-1] + self._brand(type_)
        which = type_.which.replace("uint", "uInt")
        return which[0].upper() + which[1:]
