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
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any] | None
Method = Callable[[Any], Results | Awaitable[Results]]


class ServiceError(Exception):
    """Raised by a service method: its text goes to the peer as it stands."""


class BadServiceError(Exception):
    """A ``package.module:Name`` that is no service, or cannot be loaded; the message says why."""


@dataclass(frozen=True, slots=True)
class BoundMethod:
    """One method of a service, and whether its result is awaited."""

    name: str
    call: Method
    is_async: bool


def load_service(path: str) -> Any:  # noqa: ANN401 - services are anyone's classes
    """Return a new instance of the service named ``package.module:Name``.

    Raises:
        BadServiceError: There is no such class, or it has no interface.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise BadServiceError(f"bad service {path!r}: expected package.module:Name")
    module = importlib.import_module(module_name)
    service_type = getattr(module, name, None)
    if service_type is None:
        raise BadServiceError(f"no {name} in {module_name}")
    if not hasattr(service_type, "interface"):
        raise BadServiceError(f"{path} is no service: it names no interface")
    return service_type()


def bind_methods(service: Any) -> tuple[BoundMethod, ...]:  # noqa: ANN401 - as above
    """Return the service's methods, one per method of its interface.

    Raises:
        BadServiceError: A method is missing.
    """
    names = service.interface.schema.method_names_inherited
    return tuple(_bind(service, name) for name in sorted(names))


def _bind(service: Any, name: str) -> BoundMethod:  # noqa: ANN401 - as above
    method = getattr(service, name, None)
    if not callable(method):
        raise BadServiceError(f"{type(service).__name__} lacks the method {name}")
    return BoundMethod(name=name, call=method, is_async=inspect.iscoroutinefunction(method))
