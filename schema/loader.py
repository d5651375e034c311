"""Load ``.capnp`` files through pycapnp, from a source tree and from a wheel alike."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import capnp

# pycapnp's import hook makes every failing `import x_capnp` search the disk; we load by path.
capnp.remove_import_hook()

_HERE = Path(__file__).resolve().parent
_PYCAPNP = Path(capnp.__file__).resolve().parent
# What the parser says last: the file's name, the line counted from 0, the mistake.
_MISTAKE = re.compile(r"(?P<name>[^\s:]+):(?P<line>[0-9]+): failed: (?P<what>.*)")
# Schemas write `import "/capnp/c++.capnp"`; those files ship inside the pycapnp package.
_IMPORTS = [str(_PYCAPNP.parent)]


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
    if not file.is_file():
        raise SchemaError(f"no schema file at {file}")
    if not any(file.resolve().is_relative_to(folder) for folder in (_HERE, _PYCAPNP)):
        _try_elsewhere(file)
    return capnp.load(str(file), imports=_IMPORTS)


def _try_elsewhere(file: Path) -> None:
    """Parse the file in a process of its own: a mistake in it aborts the one that loads it.

    Takes 70 ms, and spares the schemas that ship with the rig or with pycapnp.

    Raises:
        SchemaError: It is not valid; the message has the parser's own lines.
    """
    # The rig's own schema first, as in this process: a file with the same id aborts as well.
    script = (
        "import sys, capnp; imports = [sys.argv[1]]; "
        "[capnp.load(file, imports=imports) for file in sys.argv[2:]]"
    )
    own = str(_HERE / "message.capnp")
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-P", "-c", script, *_IMPORTS, own, str(file)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = [
            f"{found['name']}:{int(found['line']) + 1}: {found['what']}"
            for found in _MISTAKE.finditer(done.stderr)
        ]
        reason = "; ".join(said) or f"the parser ended with status {done.returncode}"
        raise SchemaError(f"{file} is not a valid schema: {reason}")


def load_rpc() -> Any:  # noqa: ANN401
    """Return the module of ``rpc.capnp``, the protocol's own schema, shipped inside pycapnp."""
    return load(_PYCAPNP / "rpc.capnp")


message = load("message.capnp")
