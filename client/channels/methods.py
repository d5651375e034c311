"""The methods that a channel calls, and what the params of a call mean for where it goes."""

from collections.abc import Collection, Mapping
from time import monotonic
from typing import Any

from capnp_rig.client.channels.pool import Pool
from capnp_rig.client.policies.policy import Call
from capnp_rig.objects.capabilities import AnyCapability, Params
from capnp_rig.objects.errors import UsageError
from capnp_rig.objects.timeouts import check_timeout
from capnp_rig.wire.errors import UnusableCapability
from capnp_rig.wire.rpc.interfaces import compile_interface


class Methods:
    """The methods of an interface, of which some are declared idempotent."""

    __slots__ = ("_idempotent", "_plain", "interface")

    def __init__(self, interface: Any, idempotent: Collection[str]) -> None:
        """Check the declaration.

        Raises:
            NotAnInterface: `interface` is no interface of a schema.
            UsageError: `idempotent` is text, or names what is no method.
        """
        self.interface = compile_interface(interface)
        if isinstance(idempotent, str):
            raise UsageError(f"idempotent is a set of names, as in {{{idempotent!r}}}")
        self._idempotent = frozenset(idempotent)
        unknown = sorted(self._idempotent - set(self.interface.methods))
        if unknown:
            raise UsageError(f"idempotent: {self.interface.name} has no method {unknown[0]!r}")
        # Whether it is idempotent, for those that any connection takes.
        self._plain = {
            name: name in self._idempotent
            for name, method in self.interface.methods.items()
            if not (method.is_streaming or method.params.has_capabilities)
        }

    def call(self, name: str, params: Params, timeout_s: float | None, pool: Pool) -> Call:
        """Return a call that begins now; the policies of the pool have seen it.

        Raises:
            AttributeError: There is no such method.
            UsageError: It is a streaming method, or `timeout_s` is not 0 to a year.
            UnusableCapability: The connection of a capability in the params is not the pool's.
            ClientError: A policy refuses the call, or the pool is closed.
        """
        if timeout_s is not None:
            timeout_s = check_timeout(timeout_s)
        is_idempotent = self._plain.get(name)
        if is_idempotent is not None:
            call = Call(name, monotonic(), timeout_s)
        else:
            is_idempotent = name in self._idempotent
            call = self._special(name, params, timeout_s, pool)
        if is_idempotent:
            call.is_idempotent = True
        pool.begin(call)
        return call

    @staticmethod
    def session(timeout_s: float | None, pool: Pool) -> Call:
        """Return what holds a place for a session, as `call`."""
        if timeout_s is not None:
            timeout_s = check_timeout(timeout_s)
        call = Call("connection", monotonic(), timeout_s)
        pool.begin(call)
        return call

    def _special(self, name: str, params: Params, timeout_s: float | None, pool: Pool) -> Call:
        method = self.interface.methods.get(name)
        if method is None:
            raise AttributeError(f"{self.interface.name} has no method {name!r}")
        if method.is_streaming:
            raise UsageError(f"{name!r} is a stream, which is one connection's: see `connection`")
        call = Call(name, monotonic(), timeout_s)
        capability = _capability_in(params)
        if capability is not None:
            call.connection = pool.connection_of(capability.owner)
            if call.connection is None:
                raise UnusableCapability(f"{capability!r}: its connection is not this channel's")
        return call


def _capability_in(value: Any) -> AnyCapability | None:
    """Return the first capability in params, at any depth."""
    if isinstance(value, AnyCapability):
        return value
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return next((each for part in value if (each := _capability_in(part)) is not None), None)
    return None
