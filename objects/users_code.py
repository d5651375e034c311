"""What code of the user raises where it is imported, made or read: told without our frames."""

import importlib
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The frames of Python's import machinery in a traceback.
_IMPORT_FILES = frozenset(
    {importlib.__file__, "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>"}
)
_ROOT = Path(__file__).absolute().parent.parent
_OUR_PACKAGES = ("objects", "server", "schema", "wire")


class BadServiceError(Exception):
    """A service that is none, or cannot be loaded or served; the message says why."""


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Turn what code of the user raises into a `ServiceCodeError`, SystemExit included."""
    try:
        yield
    except BadServiceError:
        raise
    except BaseException as error:
        raise ServiceCodeError(what, error) from error


class ServiceCodeError(Exception):
    """Code of the user raised: the text names error, file and line, `trace` its own frames."""

    def __init__(self, what: str, error: BaseException) -> None:
        trace = traceback.TracebackException.from_exception(error)
        _drop_our_frames(trace)
        self.trace = "".join(trace.format())
        file, line, words = "", 0, " ".join(_text_of(error).split())
        if trace.stack:
            file, line = trace.stack[-1].filename, trace.stack[-1].lineno or 0
        if isinstance(error, SyntaxError):
            file, line, words = error.filename or file, error.lineno or line, error.msg
        kind = type(error).__name__
        where = f" ({file}, line {line})" if file else ""
        super().__init__(f"{what}: {kind}: {words}{where}" if words else f"{what}: {kind}{where}")


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - of a class of the user's, one more thing that fails
        return ""


def _drop_our_frames(trace: traceback.TracebackException) -> None:
    kept = [frame for frame in trace.stack if not _is_ours(frame.filename)]
    trace.stack = traceback.StackSummary.from_list(kept)
    for inner in (trace.__cause__, trace.__context__):
        if inner is not None:
            _drop_our_frames(inner)


def _is_ours(filename: str) -> bool:
    """Tell whether a frame says nothing about the user's code: ours, or of the import."""
    if filename in _IMPORT_FILES:
        return True
    is_package = any(filename.startswith(f"{_ROOT / name}{os.sep}") for name in _OUR_PACKAGES)
    return is_package and not filename.startswith(f"{_ROOT / 'server' / 'services'}{os.sep}")
