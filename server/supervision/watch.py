"""Watches source files, for `--reload`: a development server reloads when one of them changes.

The files are looked at twice a second, in a thread, since a folder may be large or on a slow disk.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

_POLL_S = 0.5
_SUFFIXES = (".py", ".capnp")
_NOT_SOURCES = frozenset({"__pycache__", "node_modules"})
# Marks the folder of a virtual environment.
_ENVIRONMENT = "pyvenv.cfg"
_MOST_NAMED = 3

# The time of the last change and the size of each file.
Snapshot = Mapping[str, tuple[int, int]]


def snapshot(folders: Iterable[str]) -> Snapshot:
    """Return the source files below some folders, without hidden ones and environments."""
    found: dict[str, tuple[int, int]] = {}
    for folder in folders:
        for place, below, names in os.walk(folder):
            if _ENVIRONMENT in names:
                below.clear()
                continue
            below[:] = [each for each in below if each[0] != "." and each not in _NOT_SOURCES]
            for name in names:
                if name.endswith(_SUFFIXES):
                    path = os.path.join(place, name)  # noqa: PTH118 - of thousands of files
                    try:
                        status = os.stat(path)  # noqa: PTH116 - likewise
                    except OSError:
                        # It was removed since, or is a link to nowhere.
                        continue
                    found[path] = status.st_mtime_ns, status.st_size
    return found


def changed(before: Snapshot, after: Snapshot) -> list[str]:
    """Return the files that were added, removed or written, in order."""
    return sorted(
        path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    )


def names_of(paths: Sequence[str]) -> str:
    """Return a few files in words."""
    names = [Path(path).name for path in paths[:_MOST_NAMED]]
    rest = len(paths) - len(names)
    return ", ".join(names) + (f" and {rest} more" if rest else "")


async def watch(
    folders: Sequence[str], before: Snapshot, on_change: Callable[[list[str]], None]
) -> None:
    """Tell which files have changed since `before`, once they change no more; does not return."""
    told = seen = before
    while True:
        await asyncio.sleep(_POLL_S)
        now = await asyncio.to_thread(snapshot, folders)
        # An editor, or a checkout, writes several files one after the other.
        if now == seen and now != told:
            on_change(changed(told, now))
            told = now
        seen = now
