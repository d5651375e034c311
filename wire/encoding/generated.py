"""Compiles source that was put together from a schema, so that tracebacks show its lines."""

import linecache
from itertools import count
from typing import Any


def compile_function(name: str, what: str, source: str, names: dict[str, object]) -> Any:
    """Return the function `name` that `source` defines; it may use `names`.

    `what` it is stands in tracebacks in the place of a file, with a number from the second of
    that kind on.
    """
    files = (f"<{what}>" if number == 1 else f"<{what}, {number}>" for number in count(1))
    file = next(candidate for candidate in files if candidate not in linecache.cache)
    # Nothing of a schema is in it but names, as literals, and numbers.
    exec(compile(source, file, "exec"), names)  # noqa: S102
    # Without a time of change, `linecache` keeps the lines for good.
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    return names[name]
