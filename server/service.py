"""What a service is, and how one is found.

A service is a class without constructor arguments. It names its `interface` (of a pycapnp schema
module) and has one plain or async method per schema method. The method takes the params view,
whose attributes are the schema's fields, and returns a dict of result fields, or None::

    class Shout:
        interface = message.MessageStream

        def read(self, params):
            return {"chunk": params.request.content.upper().encode()}

It knows no sockets and no engine. It raises `ServiceError` to send a text of its own; of any other
exception the peer learns nothing but a number to quote.

A service that has an attribute `note` finds a function there when the log level is debug, and may
give it one line about a call.
"""

import importlib
import inspect
import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin, get_type_hints

from capnp_rig.server.config import names_a_service

Results = Mapping[str, Any] | None

_WHAT_TO_WRITE = "write def, or async def and return"
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# The frames of Python's import machinery in a traceback.
_IMPORT_FILES = frozenset(
    {importlib.__file__, "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>"}
)
_ROOT = Path(__file__).absolute().parent.parent
_OUR_PACKAGES = ("server", "schema", "wire")


class ServiceError(Exception):
    """Raised by a service method: its text goes to the peer as it stands."""


class BadServiceError(Exception):
    """A ``package.module:Name`` that is no service, or cannot be loaded; the message says why."""


@dataclass(frozen=True, slots=True)
class BoundMethod:
    """One method of a service, and whether its result is awaited."""

    name: str
    call: Callable[[Any], Any]
    is_async: bool


def unusable(results: object) -> BadServiceError | None:
    """Return what is wrong with results that are to be waited for, else None.

    A coroutine is closed, so that Python does not warn that it was never awaited.
    """
    if inspect.iscoroutine(results):
        results.close()
    elif not isinstance(results, (Awaitable, Iterator, AsyncIterator)):
        return None
    kind = type(results).__name__
    return BadServiceError(
        f"the method returned something to wait for, of type {kind}; {_WHAT_TO_WRITE}"
    )


def load_service(path: str) -> Any:
    """Return a new instance of the service named ``package.module:Name``.

    Raises:
        BadServiceError: There is no such class, or it has no interface.
        ServiceCodeError: Code of the user raised, while it was imported or in its constructor.
    """
    if not names_a_service(path):
        raise BadServiceError(f"bad service {path!r}: expected package.module:Name")
    module_name, _, name = path.partition(":")
    module = _import(module_name)
    service_type: Any = getattr(module, name, None)
    if service_type is None:
        raise BadServiceError(f"no {name} in {module_name}")
    if not inspect.isclass(service_type):
        raise BadServiceError(f"{path} is no class, it is {_a(service_type)}")
    interface = getattr(service_type, "interface", None)
    if interface is None:
        raise BadServiceError(f"{path} is no service: it names no interface")
    if not hasattr(getattr(interface, "schema", None), "method_names_inherited"):
        raise BadServiceError(
            f"the interface of {path} is no interface of a schema, it is {_a(interface)}"
        )
    missing = _needed(_parameters(service_type) or [])
    if missing:
        raise BadServiceError(f"{path} cannot be made without arguments: it needs {missing}")
    with _users_code(f"{path} cannot be made"):
        return service_type()


def _import(module_name: str) -> ModuleType:
    with _users_code(f"cannot import {module_name}"):
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # Of the module itself, or of a package that it is said to be in.
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise BadServiceError(f"no module named {error.name!r}") from None


@contextmanager
def _users_code(what: str) -> Iterator[None]:
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


def _a(value: object) -> str:
    return f"a {type(value).__name__}"


def _parameters(call: Callable[..., Any]) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(call).parameters.values())
    except (ValueError, TypeError):
        # Written in C, perhaps.
        return None


def _needed(parameters: Sequence[inspect.Parameter], given: int = 0) -> str:
    """Return the names of those that need an argument, after `given` positional ones, as text."""
    return ", ".join(
        parameter.name
        for place, parameter in enumerate(parameters)
        if parameter.default is inspect.Parameter.empty
        and (
            parameter.kind is inspect.Parameter.KEYWORD_ONLY
            or (parameter.kind in _POSITIONAL and place >= given)
        )
    )


def bind_methods(service: Any) -> tuple[BoundMethod, ...]:
    """Return the service's methods, one per method of its interface.

    Raises:
        BadServiceError: A method is missing, or cannot be served.
    """
    names = service.interface.schema.method_names_inherited
    return tuple(_bind(service, name) for name in sorted(names))


def _bind(service: Any, name: str) -> BoundMethod:
    kind = type(service).__name__
    with _users_code(f"{kind}.{name} cannot be read"):
        method = getattr(service, name, None)
    if not callable(method):
        raise BadServiceError(f"{kind} lacks the method {name}")
    reason = _reason_against(method)
    if reason is not None:
        code = getattr(inspect.unwrap(method), "__code__", None)
        where = "" if code is None else f" ({code.co_filename}, line {code.co_firstlineno})"
        raise BadServiceError(f"{kind}.{name}{where} cannot be served: {reason}")
    return BoundMethod(name=name, call=method, is_async=inspect.iscoroutinefunction(method))


def _reason_against(method: Callable[..., Any]) -> str | None:
    """Return why a method cannot be served, as far as it can be told without a call."""
    parameters = _parameters(method)
    if parameters is not None:
        needed = _needed(parameters, given=1)
        if needed:
            return f"it gets the params only, and needs {needed} as well"
        if not any(p.kind in (*_POSITIONAL, inspect.Parameter.VAR_POSITIONAL) for p in parameters):
            return "it takes no params"
    what = _what_it_returns(method)
    return None if what is None else f"{what}; {_WHAT_TO_WRITE}"


def _what_it_returns(method: Callable[..., Any]) -> str | None:
    """Return what a call of a method would return in the place of results, or None."""
    if inspect.isgeneratorfunction(method):
        return "it is a generator, which yields and returns nothing"
    if inspect.isasyncgenfunction(method):
        return "it is an async generator, which yields and returns nothing"
    if inspect.iscoroutinefunction(method):
        return None
    if _is_async_kind(type(method).__call__):
        return "it is an object with an async __call__"
    if _is_async_kind(inspect.unwrap(method)):
        return "it is a plain function around an async one, and would return a coroutine"
    if _says_awaitable(method):
        return "its annotation says that it returns something to wait for"
    return None


def _is_async_kind(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _says_awaitable(method: Callable[..., Any]) -> bool:
    try:
        says = get_type_hints(method).get("return")
    except Exception:  # noqa: BLE001 - annotations are any expressions of the user's
        return False
    origin = get_origin(says) or says
    return inspect.isclass(origin) and issubclass(origin, Awaitable)
