"""Names that a package exports and imports only when they are asked for.

So ``import capnp_rig`` costs next to nothing and the commands are quick to start. Until a command
handles Ctrl-C, nothing is imported that Ctrl-C could interrupt.
"""

import importlib
import sys

# As type checkers know it, without the 5 ms that the import of typing takes.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy_names(package: str, names: "Mapping[str, str]") -> "Callable[[str], object]":
    """Return the ``__getattr__`` of `package`, and set its ``__all__``.

    `names` are what it exports, separated by spaces, by their module. Type checkers see them as
    imports under the same name, which export it.
    """
    modules = {name: module for module, exported in names.items() for name in exported.split()}
    exports = vars(sys.modules[package])
    exports["__all__"] = sorted(modules)

    def import_name(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(importlib.import_module(modules[name]), name)
        exports[name] = value
        return value

    return import_name
