"""What a scenario has for a capability in the results of its calls."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol, Self

import capnp

from capnp_rig.loadtest.protocols.capnp_calls import Reference
from capnp_rig.wire.encoding.field_types import name_of
from capnp_rig.wire.errors import EncodeError, NotAnInterface
from capnp_rig.wire.rpc.interfaces import Interface, compile_interface

# Raises for results that are wrong.
CheckResults = Callable[[Any], object]


class Caller(Protocol):
    """A user that calls capabilities, and counts the calls as its others."""

    def call_on(
        self,
        capability: "UserCapability",
        method: str,
        params: Mapping[str, Any],
        check: CheckResults | None,
        /,
    ) -> Any:
        """Call a method of a capability."""


class UserCapability:
    """An object of the server, to be called by the user who has it on its connection.

    It is given back by `close`, by the end of a ``with`` block or, if it is dropped, by the garbage
    collection; and it ends with its connection.
    """

    __slots__ = ("_caller", "_interface", "reference")

    def __init__(self, caller: Caller, reference: Reference, interface: Interface | None) -> None:
        self._caller = caller
        self._interface = interface
        self.reference = reference

    @property
    def interface(self) -> Interface:
        """What it is called as.

        Raises:
            NotAnInterface: Its schema does not tell, and nobody has.
        """
        if self._interface is None:
            raise NotAnInterface(
                "the schema does not tell what the capability is: name it by cast, as in "
                'results.any.as_capability().cast(load_schema("files.capnp").File)'
            )
        return self._interface

    def call(
        self, method: str, params: Mapping[str, Any], *, check: CheckResults | None = None
    ) -> Any:
        """Call one of its methods, as `CapnpUser.call` does one of the server's own.

        Raises:
            AttributeError: As there.
            CallFailed: As there; also where it was closed, or its connection is lost.
            NotAnInterface: Its schema does not tell what it is.
        """
        return self._caller.call_on(self, method, params, check)

    @classmethod
    def reference_of(cls, value: Any) -> Reference | None:
        """Return the reference of what is given as a param, None of None.

        Raises:
            EncodeError: It is no capability of a user.
        """
        if value is None:
            return None
        if not isinstance(value, cls):
            what = type(value).__name__
            raise EncodeError(f"expected a capability from results of a call, not {what}")
        return value.reference

    def cast(self, interface: Any) -> "UserCapability":
        """Return one more reference to the same object, to be called as another interface.

        Raises:
            NotAnInterface: `interface` is none.
            UnusableCapability: It was closed.
        """
        return UserCapability(self._caller, self.reference.copy(), compile_interface(interface))

    def close(self) -> None:
        """Give it back; once is enough."""
        self.reference.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@cache
def interface_of(schema: Any) -> Interface:
    """Return the methods of an interface of which pycapnp's schema is known."""
    return compile_interface(capnp._InterfaceModule(schema, name_of(schema)))
