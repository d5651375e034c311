"""Load ``.capnp`` files through pycapnp, from a source tree and from a wheel alike.

C++ aborts its process if a schema has a mistake or an id that it knows already, and if the working
directory is gone. So a schema is first parsed in a process of its own, together with all that this
process has loaded, and a working directory that is gone is left.
"""

import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

# pycapnp opens folders as it is imported. One that took the number of a closed standard input would
# be read as such: Locust failed on it, and vl-convert drew no pictures.
try:
    os.fstat(0)
except OSError:
    os.open(os.devnull, os.O_RDONLY)

import capnp
from capnp.lib import capnp as _binding

# pycapnp's import hook makes every failing `import x_capnp` search the disk; we load by path.
capnp.remove_import_hook()

_HERE = Path(__file__).resolve().parent
_PYCAPNP = Path(capnp.__file__).resolve().parent
_OURS = {file.name for file in _HERE.glob("*.capnp")}
# What the parser says last: the file's name, the line counted from 0, the mistake.
_MISTAKE = re.compile(r"(?P<name>[^\s:]+):(?P<line>[0-9]+): failed: (?P<what>.*)")
_DUPLICATE = re.compile(r"Duplicate ID @(0x[0-9a-f]+)")
_IMPORT = re.compile(rb'\bimport\s+"([^"\n]+)"')
# Schemas write `import "/capnp/c++.capnp"`; those files ship inside the pycapnp package.
_IMPORTS = [str(_PYCAPNP.parent)]
# The new file first, so that a mistake before the word is its own.
_PARSE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
folder, file, *loaded = sys.argv[1:]
sys.path.append(folder)
import capnp
capnp.load(file, imports=[folder])
print("parsed", flush=True)
for other in loaded:
    try:
        capnp.load(other, imports=[folder])
    except Exception:
        pass
"""


class SchemaError(Exception):
    """A schema file is missing, or is not valid Cap'n Proto; the message says where."""


def load_schema(path: str | Path) -> Any:
    """Return the pycapnp module of one ``.capnp`` file, parsed once per process.

    A relative `path` without a folder names a schema of the rig (``message.capnp``);
    any other is opened as it stands.

    If the working directory is gone, it becomes ``/``.

    Raises:
        SchemaError: The file cannot be read or parsed, or an id in it is that of a file that
            this process has loaded: a copy of it, a link to it, or another schema.
    """
    file = Path(path)
    # A `Path` has no "./".
    if str(path) in _OURS:
        file = _HERE / file
    try:
        # By its whole path: the working directory may be another one the next time.
        absolute = file.absolute()
    except OSError as error:
        raise SchemaError(f"no schema file at {file}: there is no working directory") from error
    # Two threads must not check their files against what the other has not loaded yet.
    with _lock:
        if absolute not in _modules:
            _modules[absolute] = _load(absolute, str(file))
        return _modules[absolute]


_modules: dict[Path, Any] = {}
_lock = threading.Lock()


def _load(file: Path, name: str) -> Any:
    _check_readable(file, name)
    _leave_lost_folder()
    loaded = _loaded_modules()
    if file in loaded:
        # With other imports than ours it is another file to C++, with the same ids.
        return loaded[file]
    if not all(map(_ships_with_us, [file, *loaded])):
        _try_elsewhere(file, name, [*loaded])
    return capnp.load(str(file), imports=_IMPORTS)


def _ships_with_us(file: Path) -> bool:
    return any(file.resolve().is_relative_to(folder) for folder in (_HERE, _PYCAPNP))


def _check_readable(file: Path, name: str) -> None:
    try:
        # Before it is opened: a pipe would wait for its writer.
        if not stat.S_ISREG(file.stat().st_mode):
            raise SchemaError(f"{name} is not a schema: it is not a regular file")
        with file.open("rb"):
            pass
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SchemaError(f"no schema file at {name}") from error
    except OSError as error:
        raise SchemaError(f"{name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SchemaError(f"no schema file at {name!r}: {error}") from error
    if file.suffix != ".capnp":
        raise SchemaError(f"{name} is not a schema: its name does not end in .capnp")


def _leave_lost_folder() -> None:
    """Make ``/`` the working directory if it is gone: no relative path works then."""
    try:
        Path.cwd()
    except OSError:
        os.chdir("/")
    # C++ asks the shell's name of it first, and warns on stderr if there is no such folder.
    if not os.path.lexists(os.environ.get("PWD", "/")):
        del os.environ["PWD"]


def _try_elsewhere(file: Path, name: str, loaded: Sequence[Path]) -> None:
    """Parse the file in a process of its own: a mistake in it aborts the one that loads it.

    It meets all that are `loaded` there. Takes 70 ms, and is spared as long as a process loads
    only what ships with the rig or with pycapnp.

    Raises:
        SchemaError: It is not valid; the message has the parser's own lines.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-P", "-c", _PARSE, *_IMPORTS, str(file), *map(str, loaded)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise SchemaError(f"{name} cannot be parsed: {error.strerror}") from error
    if not done.returncode:
        return
    mistakes = list(_MISTAKE.finditer(done.stderr))
    for mistake in mistakes:
        duplicate = _DUPLICATE.match(mistake["what"])
        if duplicate:
            raise SchemaError(_explain_duplicate(file, name, duplicate[1], loaded))
    # What came after it is a change on disk to a file that is loaded already.
    if done.stdout:
        return
    reason = "; ".join(
        f"{mistake['name']}:{int(mistake['line']) + 1}: {mistake['what']}" for mistake in mistakes
    )
    last = (done.stderr.splitlines() or [f"the parser ended with status {done.returncode}"])[-1]
    raise SchemaError(f"{name} is not a valid schema: {reason or last}")


def _loaded_modules() -> dict[Path, Any]:
    """Return the modules of pycapnp's parser by their file, those that others loaded included."""
    parser = _binding._global_schema_parser  # noqa: SLF001 - no public way
    modules = () if parser is None else parser.modules_by_id.values()
    return {Path(module.__file__): module for module in modules if hasattr(module, "__file__")}


def _explain_duplicate(file: Path, name: str, number: str, loaded: Iterable[Path]) -> str:
    """Return the message about an id that two files have; the parser does not name the files."""
    declares = re.compile(rb"@%s\b" % number.encode(), re.IGNORECASE)
    holders = [path for path in _with_imports([file, *loaded]) if declares.search(_content(path))]
    what = f"{name} is not a valid schema: Duplicate ID @{number}"
    return f"{what}, which is in {' and in '.join(map(str, holders))}" if holders else what


def _with_imports(files: Iterable[Path]) -> Iterator[Path]:
    """Yield the files, each with all that it imports, each once."""
    waiting, seen = list(files), set[Path]()
    while waiting:
        file = waiting.pop(0)
        if file in seen:
            continue
        seen.add(file)
        yield file
        waiting[:0] = _imports_of(file)


def _imports_of(file: Path) -> Iterator[Path]:
    for name in _IMPORT.findall(_content(file)):
        target = os.fsdecode(name)
        folder = Path(_IMPORTS[0]) if target.startswith("/") else file.parent
        yield Path(os.path.normpath(folder / target.lstrip("/")))


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def load_rpc() -> Any:
    """Return the module of ``rpc.capnp``, the protocol's own schema, shipped inside pycapnp."""
    return load_schema(_PYCAPNP / "rpc.capnp")


message = load_schema("message.capnp")
