"""How a service is found: a class without constructor arguments, of objects with methods.

`objects.binding` says what these are. A service knows no sockets and no engine. Of an exception
that is no `ServiceError` the peer learns nothing but a number to quote.

A service that has an attribute `note` finds a function there when the log level is debug, and may
give it one line about a call.
"""

import importlib
import inspect
from types import ModuleType
from typing import Any

from capnp_rig.objects.binding import interfaces_of, needed_by, parameters_of
from capnp_rig.objects.users_code import BadServiceError, users_code
from capnp_rig.server.config import names_a_service
from capnp_rig.wire.errors import NotAnInterface


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
    try:
        if not interfaces_of(service_type):
            raise BadServiceError(f"{path} is no service: it names no interface")
    except NotAnInterface as error:
        raise BadServiceError(f"the interface of {path} is no interface: {error}") from None
    missing = needed_by(parameters_of(service_type) or [])
    if missing:
        raise BadServiceError(f"{path} cannot be made without arguments: it needs {missing}")
    with users_code(f"{path} cannot be made"):
        return service_type()


def _import(module_name: str) -> ModuleType:
    with users_code(f"cannot import {module_name}"):
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # Of the module itself, or of a package that it is said to be in.
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise BadServiceError(f"no module named {error.name!r}") from None


def _a(value: object) -> str:
    return f"a {type(value).__name__}"
