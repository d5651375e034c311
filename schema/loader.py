"""Load ``.capnp`` files through pycapnp, from a source tree and from a wheel alike."""

from functools import cache
from pathlib import Path
from typing import Any

import capnp

# pycapnp's import hook makes every failing `import x_capnp` search the disk; we load by path.
capnp.remove_import_hook()

_HERE = Path(__file__).resolve().parent
# Schemas write `import "/capnp/c++.capnp"`; those files ship inside the pycapnp package.
_IMPORTS = [str(Path(capnp.__file__).resolve().parent.parent)]


class SchemaError(Exception):
    """A schema file is missing, or is not valid Cap'n Proto; the message says where."""


@cache
def load(path: str | Path) -> Any:  # noqa: ANN401 - pycapnp modules are dynamic
    """Return the pycapnp module of one ``.capnp`` file, parsed once per process.

    A relative `path` without a folder names a schema of the rig (``message.capnp``);
    any other is opened as it stands.

    Raises:
        SchemaError: The file cannot be read or parsed.
    """
    file = Path(path)
    if file.parent == Path() and (_HERE / file).is_file():
        file = _HERE / file
    # pycapnp aborts the process on some unreadable paths, so look first.
    if not file.is_file():
        raise SchemaError(f"no schema file at {file}")
    try:
        return capnp.load(str(file), imports=_IMPORTS)
    except capnp.KjException as error:
        raise SchemaError(f"{file} is not a valid schema: {error.description}") from error


def load_rpc() -> Any:  # noqa: ANN401
    """Return the module of ``rpc.capnp``, the protocol's own schema, shipped inside pycapnp."""
    return load(Path(capnp.__file__).resolve().parent / "rpc.capnp")


message = load("message.capnp")
