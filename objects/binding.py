"""Objects with methods of a schema: what a service is, and how its methods are found.

An object names its `interface` (of a pycapnp schema module; a tuple of several, if it has several)
and has one plain or async method per schema method. The method takes the params view, whose
attributes are the schema's fields, and returns a mapping of result fields, or None::

    class Shout:
        interface = message.MessageStream

        def read(self, params):
            return {"chunk": params.request.content.upper().encode()}

It raises `ServiceError` to send a text of its own; of any other exception the peer learns nothing
but that there was one.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import FunctionType
from typing import Any, get_origin, get_type_hints

from capnp_rig.objects.users_code import BadServiceError, users_code
from capnp_rig.wire.rpc.interfaces import Interface, Method, compile_interface

Results = Mapping[str, Any] | None

_WHAT_TO_WRITE = "write def, or async def and return"
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class ServiceError(Exception):
    """Raised by a service method: its text goes to the peer as it stands."""


@dataclass(frozen=True, slots=True)
class BoundMethod:
    """One method of an object, and whether its result is awaited."""

    method: Method
    call: Callable[[Any], Any]
    is_async: bool

    @property
    def name(self) -> str:
        """As in the schema."""
        return self.method.name

    @property
    def label(self) -> str:
        """As in the service's code: ``Class.method``."""
        return getattr(self.call, "__qualname__", None) or self.name


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


def interfaces_of(target: Any) -> tuple[Interface, ...]:
    """Return the interfaces of an object, none if it has no attribute `interface`.

    Raises:
        NotAnInterface: What it names is none.
    """
    named = getattr(target, "interface", None)
    if named is None:
        return ()
    return tuple(map(compile_interface, named if isinstance(named, tuple) else (named,)))


def bind_methods(target: Any) -> tuple[BoundMethod, ...]:
    """Return the object's methods, one per method of its interfaces.

    Raises:
        BadServiceError: A method is missing, or cannot be served.
        NotAnInterface: It names no interface.
    """
    methods = {key: each for one in interfaces_of(target) for key, each in one.by_id.items()}
    return tuple(_bind(target, method) for method in methods.values())


def _bind(target: Any, method: Method) -> BoundMethod:
    kind, name = type(target).__name__, method.name
    with users_code(f"{kind}.{name} cannot be read"):
        call = getattr(target, name, None)
    if not callable(call):
        raise BadServiceError(f"{kind} lacks the method {name}")
    # A class's own functions are looked at once: objects of it may be made in every call.
    function = getattr(call, "__func__", None)
    is_plain = isinstance(function, FunctionType) and call.__self__ is target
    is_async, reason = _judged(function) if is_plain else _judge(call)
    if reason is not None:
        code = getattr(inspect.unwrap(call), "__code__", None)
        where = "" if code is None else f" ({code.co_filename}, line {code.co_firstlineno})"
        raise BadServiceError(f"{kind}.{name}{where} cannot be served: {reason}")
    return BoundMethod(method, call, is_async)


def _judge(call: Callable[..., Any], given: int = 1) -> tuple[bool, str | None]:
    """Return whether a method is async, and why it cannot be served, if it cannot."""
    return inspect.iscoroutinefunction(call), _reason_against(call, given)


@lru_cache(maxsize=4096)
def _judged(function: Callable[..., Any]) -> tuple[bool, str | None]:
    return _judge(function, given=2)


def _reason_against(method: Callable[..., Any], given: int) -> str | None:
    """Return why a method cannot be served, as far as it can be told without a call.

    It gets `given` arguments, the last of which is the params.
    """
    parameters = parameters_of(method)
    if parameters is not None:
        needed = needed_by(parameters, given)
        if needed:
            return f"it gets the params only, and needs {needed} as well"
        places = [each for each in parameters if each.kind in _POSITIONAL]
        takes_all = any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters)
        if len(places) < given and not takes_all:
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


def parameters_of(call: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """Return the parameters of what can be called; None if it does not tell."""
    try:
        return list(inspect.signature(call).parameters.values())
    except (ValueError, TypeError):
        # Written in C, perhaps.
        return None


def needed_by(parameters: Sequence[inspect.Parameter], given: int = 0) -> str:
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
