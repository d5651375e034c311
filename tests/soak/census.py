"""What a process holds: its own objects and what they count, every other object, files, memory.

Taken twice at rest, with calls between, a census shows what the calls left behind. Nobody has to
know which counters there are: they are found through the garbage collector.
"""

import ctypes
import functools
import gc
import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

# The packages whose objects are looked into.
_OURS = "capnp_rig."
_CONTAINERS = (dict, list, set, tuple, deque, bytearray, bytes, WeakValueDictionary)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Census:
    """One process at one moment.

    `own` has, by name, the instances of each class of ours, the sum of each number that they
    hold, and the sum of the lengths of each container; module globals likewise. `objects` has the
    instances of every type. All keys are plain text, so that a report can be sent as JSON.
    """

    pid: int
    rss_bytes: int
    files: int
    threads: int
    own: Mapping[str, int]
    objects: Mapping[str, int]

    @classmethod
    def take(cls) -> "Census":
        """Look at this process; collects garbage and gives free memory back first."""
        gc.collect()
        things = gc.get_objects()
        own = Counter(dict(_of_modules()))
        for thing in things:
            own.update(dict(_of_object(thing)))
        objects = Counter(_type_name(thing) for thing in things)
        del things
        ctypes.CDLL(None).malloc_trim(0)
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            pid=os.getpid(),
            rss_bytes=resident_pages * _PAGE_BYTES,
            # Less the one that lists them.
            files=sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1,
            threads=threading.active_count(),
            own=dict(own),
            objects=dict(objects),
        )


def _type_name(thing: object) -> str:
    kind = type(thing)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix(_OURS)


def _is_ours(module: str | None) -> bool:
    return isinstance(module, str) and module.startswith(_OURS)


def _of_object(thing: object) -> Iterator[tuple[str, int]]:
    """Yield what an object of ours adds to the census."""
    kind = type(thing)
    if not _is_ours(getattr(kind, "__module__", None)):
        return
    name = _type_name(thing)
    yield name, 1
    for attribute, value in _attributes(thing):
        yield from _of_value(f"{name}.{attribute}", value)


def _attributes(thing: object) -> Iterator[tuple[str, Any]]:
    yield from getattr(thing, "__dict__", {}).items()
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            # A private name is stored under its mangled form; an unset slot holds nothing.
            mangled = f"_{kind.__name__.lstrip('_')}{slot}" if slot.startswith("__") else slot
            if hasattr(thing, mangled):
                yield slot, getattr(thing, mangled)


def _of_modules() -> Iterator[tuple[str, int]]:
    """Yield what the globals of our modules add: tables, counters, caches."""
    for module in [module for name, module in sys.modules.items() if _is_ours(name)]:
        for name, value in vars(module).items():
            where = f"{module.__name__}:{name}".removeprefix(_OURS)
            if isinstance(value, functools._lru_cache_wrapper):
                yield f"{where}.currsize", value.cache_info().currsize
            elif not name.startswith("__"):
                yield from _of_value(where, value)


def _of_value(name: str, value: object) -> Iterator[tuple[str, int]]:
    if isinstance(value, int):
        yield name, int(value)
    elif isinstance(value, _CONTAINERS):
        yield f"len({name})", len(value)
