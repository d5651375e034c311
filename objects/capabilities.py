"""Capabilities as users have them: references to objects, with the methods of an interface."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from capnp_rig.objects.streams import StreamWindow
from capnp_rig.wire.rpc.capabilities import Capability as Reference
from capnp_rig.wire.rpc.interfaces import Interface, compile_interface

Params = Mapping[str, Any] | None


class CapabilityOwner(Protocol):
    """The connection of a capability."""

    @property
    def stream_window_bytes(self) -> int:
        """How many bytes of streaming calls may be on their way to one object."""

    def released(self) -> None:
        """Take note that a reference was given back: the peer has to be told."""

    def forgotten(self) -> None:
        """Do so for one that was garbage collected, in any thread."""


class AnyCapability:
    """A reference to an object of the peer, or to one of ours that came back.

    `close` gives it back, and so does the end of a ``with`` block, or the garbage collector. It may
    be kept for longer than the call that brought it, and given to the peer in other calls over the
    same connection.
    """

    __slots__ = ("__weakref__", "_interface", "_window", "owner", "reference")

    def __init__(self, owner: Any, reference: Reference, interface: Any) -> None:
        """Take over a reference; `interface` is a schema's, None if it is not known."""
        self.owner = owner
        self.reference = reference
        self._interface: Any = interface
        self._window: StreamWindow | None = None

    @property
    def interface(self) -> Interface | None:
        """The interface whose methods it calls; None if that is not known: `cast` it."""
        interface: Interface | None = self._interface
        if interface is not None and type(interface) is not Interface:
            interface = self._interface = compile_interface(interface)
        return interface

    def cast(self, interface: Any) -> Self:
        """Return one more reference to the same object, to call the methods of `interface`.

        The peer does not say which interfaces an object has; a call that it does not know fails.

        Raises:
            NotAnInterface: `interface` is no interface of a schema.
            UnusableCapability: It was closed.
        """
        return type(self)(self.owner, self.reference.copy(), compile_interface(interface))

    @property
    def window(self) -> StreamWindow:
        """The window of its streaming calls."""
        if self._window is None:
            self._window = StreamWindow(self.owner.stream_window_bytes)
        return self._window

    @property
    def is_closed(self) -> bool:
        """Whether it was given back."""
        return self.reference.is_released

    def close(self) -> None:
        """Give it back; the object ends with its last reference. May be called again."""
        if not self.reference.is_released:
            self.reference.release_later()
            self.owner.released()

    def __del__(self) -> None:
        if not self.reference.is_released:
            # It releases itself, once this is over; the peer has to be told.
            self.owner.forgotten()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name = "any interface" if self.interface is None else self.interface.name
        return f"<capability of {name}{', closed' if self.is_closed else ''}>"
