"""Fields whose type is an interface: pointers that are indexes into the table of their message.

What a view has for one is what the message's table has under the index
(`rpc.capabilities.CapabilityTable`). Writing one puts the value, whatever it is, into a list beside
the words (`StructCodec.pack_with_capabilities`); the caller sends both.
"""

import struct
from typing import Any

from capnp_rig.wire.encoding.field_types import Accessor, PointerType, View
from capnp_rig.wire.encoding.pointers import FAR, OTHER, Message, landing
from capnp_rig.wire.errors import MalformedMessage

_pointer_at = struct.Struct("<iI").unpack_from


class CapabilityParts(list[Any]):
    """The parts of a struct that is written, with a table for its capabilities."""

    def __init__(self) -> None:
        super().__init__([b""])
        self.capabilities: list[Any] = []

    def add(self, capability: Any, interface: Any = None) -> int:
        """Put a capability, of a field of that interface, into the table; return its index."""
        self.capabilities.append(capability)
        return len(self.capabilities) - 1

    def capability(self, message: Message, index: int) -> int:
        """Do so with one of a received message, for `any_pointers.copy_pointer`."""
        return self.add(capability_of(message, index, None))


class NoTableError(TypeError):
    """A capability was to be written where there is no table for it."""


def capability_of(message: Message, index: int, interface: Any) -> Any:
    """Return what a message has under an index, for a field of that interface.

    Raises:
        MalformedMessage: It has no such capability.
    """
    table: Any = getattr(message, "capabilities", ())
    if index >= len(table):
        raise MalformedMessage(f"message has no capability {index} in its table")
    return table.field(index, interface)


class CapabilityType(PointerType):
    """An interface, which pycapnp's schema is None for if it may be any."""

    which = "interface"
    omits_null = True
    has_capability = True

    def __init__(self, interface: Any) -> None:
        self.interface = interface

    def accessor(self, slot: int) -> Accessor:
        offset, interface = 8 * slot, self.interface

        def get(view: View) -> Any:
            message, _, _, _, _, pointers, pointers_end, _ = view._at
            buffer, at = message.buffer, pointers + offset
            if at >= pointers_end:
                return None
            low, high = _pointer_at(buffer, at)
            if low & 3 == FAR:
                _, _, _, low, high = landing(message, low, high)
            if low == OTHER:
                return capability_of(message, high, interface)
            if low or high:
                raise MalformedMessage(
                    "message has a pointer of another kind where a capability is expected"
                )
            return None

        return get

    def emit(self, value: Any, offset: int, tail: list[Any]) -> tuple[int, int]:
        del offset
        if value is None:
            # An element of a list.
            return 0, 0
        if not isinstance(tail, CapabilityParts):
            raise NoTableError(f"expected None for a capability, not {type(value).__name__}")
        return OTHER | tail.add(value, self.interface) << 32, 0
