"""Load ``.capnp`` files through pycapnp, from a source tree and from a wheel alike.

C++ aborts its process if a schema has a mistake or an id that it knows already, and if the working
directory is gone. So a schema is first parsed in a process of its own, together with all that this
process has loaded, and a working directory that is gone is left.

To C++ a file is a name in a folder of the import path: with another import path it is another file,
with the same ids. So each import path has a parser of its own.
"""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
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
_MISTAKE = re.compile(
    r"^(?:  what\(\):  )?(?P<name>[^:\n]+):(?P<line>[0-9]+): failed: (?P<what>.*)", re.MULTILINE
)
_DUPLICATE = re.compile(r"Duplicate ID @(0x[0-9a-f]+)")
_MISSING = re.compile(r"(?:Import failed|Couldn't read file for embed): (?P<target>.*)")
_IMPORT = re.compile(rb'\b(?:import|embed)\s+"([^"\n]+)"')
# Those that the compiler of Cap'n Proto searches.
_SYSTEM = ("/usr/local/include", "/usr/include")
# In front of a path, another name of it; Linux has it.
_ROOT = "/proc/self/root"
# The new file first, so that a mistake before the word is its own.
_PARSE = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
library, names = sys.argv[1:]
sys.path.append(library)
import capnp
imports, file, *loaded = json.loads(names)
parser = capnp.SchemaParser()
parser.load(file, imports=imports)
print("parsed", flush=True)
for other in loaded:
    try:
        parser.load(other, imports=imports)
    except Exception:
        pass
"""


class SchemaError(Exception):
    """A schema file is missing, or is not valid Cap'n Proto; the message says where."""


# One folder, or several in the order in which they are searched.
ImportPath = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def load_schema(path: str | Path, import_path: ImportPath = ()) -> Any:
    """Return the pycapnp module of one ``.capnp`` file, parsed once per process.

    A relative `path` without a folder names a schema of the rig (``message.capnp``);
    any other is opened as it stands.

    An import that begins with ``/`` is searched in the folders of `import_path`, ``-I`` of the
    commands, then in those that have the standard files (``/capnp/c++.capnp``): of pycapnp, and of
    the system. What is loaded with another import path is parsed anew, and has types of its own.

    If the working directory is gone, it becomes ``/``.

    Raises:
        SchemaError: The file cannot be read or parsed, a folder of the import path is none, or an
            id in the file is that of another that this process has loaded with this import path:
            a copy of it, a link to it, or another schema.
    """
    file = Path(path)
    # A `Path` has no "./".
    if str(path) in _OURS:
        file = _HERE / file
    try:
        # By its whole path: the working directory may be another one the next time.
        absolute = file.absolute()
        folders = _folders(import_path)
    except OSError as error:
        raise SchemaError(f"no schema file at {file}: there is no working directory") from error
    # Two threads must not check their files against what the other has not loaded yet.
    with _lock:
        if (absolute, folders) not in _modules:
            _modules[absolute, folders] = _load(absolute, str(file), folders)
        return _modules[absolute, folders]


# By their file and their import path.
_modules: dict[tuple[Path, tuple[str, ...]], Any] = {}
_parsers: dict[tuple[str, ...], Any] = {}
_lock = threading.Lock()


def _folders(import_path: ImportPath) -> tuple[str, ...]:
    """Return the folders of an import path by their whole paths.

    Raises:
        SchemaError: There is no such folder.
    """
    given = [import_path] if isinstance(import_path, (str, os.PathLike)) else import_path
    folders = dict.fromkeys(map(os.path.abspath, given))
    for folder in folders:
        if not Path(folder).is_dir():
            raise SchemaError(f"no folder at {folder}, which the import path (-I) names")
    return tuple(folders)


@cache
def _standard_folders() -> tuple[str, ...]:
    """Return the folders in which ``/capnp/...`` files are, those of pycapnp first."""
    # That of a compiler in another place, as Homebrew and conda have it.
    compiler = shutil.which("capnp")
    beside = () if compiler is None else (str(Path(compiler).parent.parent / "include"),)
    folders = dict.fromkeys((str(_PYCAPNP.parent), *_SYSTEM, *beside))
    return tuple(folder for folder in folders if Path(folder).is_dir())


def _load(file: Path, name: str, folders: tuple[str, ...]) -> Any:
    _check_readable(file, name)
    _leave_lost_folder()
    folders = _let_out(file, folders)
    loaded = _loaded_modules(folders)
    if file in loaded:
        # With other imports than ours it is another file to C++, with the same ids.
        return loaded[file]
    searched = (*folders, *_standard_folders())
    if not all(map(_ships_with_us, [file, *loaded])):
        _try_elsewhere(file, name, [*loaded], searched)
    if not folders:
        # With the parser of all who use pycapnp.
        return capnp.load(str(file), imports=searched)
    return _parsers.setdefault(folders, capnp.SchemaParser()).load(str(file), imports=searched)


def _let_out(file: Path, folders: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders, those by another name which `file` is in and an import leaves by ``../``.

    C++ takes a file in a folder of the import path for one of that folder, by its name alone, and
    aborts at an import that leaves it.
    """
    around = [folder for folder in folders if _is_in(file, folder)]
    if not around or not Path(f"{_ROOT}{around[0]}").is_dir():
        return folders
    steps = [
        (each, each.parent / target)
        for each in _with_imports([file], (*folders, *_standard_folders()))
        for target in _targets(each)
        if not target.startswith("/")
    ]
    left = {
        folder
        for folder in around
        if any(_is_in(each, folder) and not _is_in(target, folder) for each, target in steps)
    }
    return tuple(f"{_ROOT}{folder}" if folder in left else folder for folder in folders)


def _is_in(file: Path, folder: str) -> bool:
    return Path(os.path.normpath(file)).is_relative_to(folder)


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


def _try_elsewhere(file: Path, name: str, loaded: Sequence[Path], searched: Sequence[str]) -> None:
    """Parse the file in a process of its own: a mistake in it aborts the one that loads it.

    It meets all that are `loaded` there. Takes 70 ms, and is spared as long as a process loads
    only what ships with the rig or with pycapnp.

    Raises:
        SchemaError: It is not valid; the message has the parser's own lines.
    """
    names = json.dumps([searched, str(file), *map(str, loaded)])
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-P", "-c", _PARSE, str(_PYCAPNP.parent), names],
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
            files = _with_imports([file, *loaded], searched)
            raise SchemaError(_explain_duplicate(files, name, duplicate[1]))
    # What came after it is a change on disk to a file that is loaded already.
    if done.stdout:
        return
    reason = "; ".join(
        f"{mistake['name']}:{int(mistake['line']) + 1}: {mistake['what']}"
        + _where_missing(mistake["what"], file, searched)
        for mistake in mistakes
    )
    last = (done.stderr.splitlines() or [f"the parser ended with status {done.returncode}"])[-1]
    raise SchemaError(f"{name} is not a valid schema: {reason or last}")


def _loaded_modules(folders: tuple[str, ...]) -> dict[Path, Any]:
    """Return the modules of a parser by their file; that of pycapnp has what others loaded, too."""
    shared = _binding._global_schema_parser  # noqa: SLF001 - no public way
    parser = _parsers.get(folders) if folders else shared
    modules = () if parser is None else parser.modules_by_id.values()
    return {Path(module.__file__): module for module in modules if hasattr(module, "__file__")}


def _explain_duplicate(files: Iterable[Path], name: str, number: str) -> str:
    """Return the message about an id that two files have; the parser does not name the files."""
    declares = re.compile(rb"@%s\b" % number.encode(), re.IGNORECASE)
    holders = _shown(path for path in files if declares.search(_content(path)))
    what = f"{name} is not a valid schema: Duplicate ID @{number}"
    if len(holders) == 1:
        return f"{what}, which is in {holders[0]}: twice, or imported both with a / and without"
    return f"{what}, which is in {' and in '.join(holders)}" if holders else what


def _where_missing(what: str, file: Path, searched: Sequence[str]) -> str:
    """Return where a file was searched that the parser did not find; empty for other mistakes."""
    missing = _MISSING.match(what)
    if missing is None:
        return ""
    target = missing["target"]
    if target.startswith("/"):
        return (
            f", which is in none of the folders searched, {', '.join(_shown(searched))}; "
            "name the one that has it with -I DIR (import_path in Python)"
        )
    importers = _with_imports([file], searched)
    beside = dict.fromkeys(each.parent for each in importers if target in _targets(each))
    return (
        f", which is not beside the file that imports it, in {', '.join(_shown(beside))}; "
        "only with a / in front it is searched in the folders of -I DIR (import_path in Python)"
    )


def _shown(paths: Iterable[object]) -> list[str]:
    return [str(path).removeprefix(_ROOT) for path in paths]


def _with_imports(files: Iterable[Path], searched: Sequence[str]) -> Iterator[Path]:
    """Yield the files, each with all that it imports, each once."""
    waiting, seen = list(files), set[Path]()
    while waiting:
        file = waiting.pop(0)
        if file in seen:
            continue
        seen.add(file)
        yield file
        waiting[:0] = (_imported(target, file, searched) for target in _targets(file))


def _imported(target: str, file: Path, searched: Sequence[str]) -> Path:
    """Return the path of a file that `file` imports as `target`."""
    folders = searched if target.startswith("/") else [file.parent]
    paths = [Path(os.path.normpath(f"{folder}/{target}")) for folder in folders]
    return next(filter(Path.exists, paths), paths[0])


def _targets(file: Path) -> list[str]:
    return [os.fsdecode(name) for name in _IMPORT.findall(_content(file))]


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def load_rpc() -> Any:
    """Return the module of ``rpc.capnp``, the protocol's own schema, shipped inside pycapnp."""
    return load_schema(_PYCAPNP / "rpc.capnp")


message = load_schema("message.capnp")
