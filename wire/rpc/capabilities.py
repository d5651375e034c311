"""What owners of a connection hold of objects, here or at the peer."""

from collections.abc import Sequence
from typing import Any, Self

from capnp_rig.wire.errors import UnusableCapability
from capnp_rig.wire.rpc.messages import RemoteError
from capnp_rig.wire.rpc.nodes import (
    DROPPED,
    NOWHERE,
    Broken,
    Hosted,
    Node,
    NodeTables,
    Pipeline,
    Promise,
    settled,
)


class Capability:
    """A reference to an object, ours or the peer's, for calls and as a capability in messages.

    Whoever is given one has to `release` it, once; one that is garbage collected is released with
    the next bytes that are sent. Calls and messages only borrow it.
    """

    __slots__ = ("__weakref__", "_node")

    def __init__(self, node: Node) -> None:
        """Take over a hold on `node`."""
        self._node = node

    @property
    def hosted(self) -> Any:
        """The object that it leads to by now, if it is hosted here, else None."""
        node = settled(self._node)
        return node.target if isinstance(node, Hosted) else None

    @property
    def error(self) -> RemoteError | None:
        """Why every call to it fails; None if it leads somewhere, or will do so."""
        node = settled(self._node)
        return node.error if isinstance(node, Broken) else None

    @property
    def is_settled(self) -> bool:
        """Whether it leads to an object, or nowhere, and no longer to a promise of one."""
        node = settled(self._node)
        return not (isinstance(node, (Promise, Pipeline)) or getattr(node, "is_promise", False))

    @property
    def is_answered(self) -> bool:
        """Whether it waits for no Return any more; it may still be a promise of the peer's."""
        return not isinstance(settled(self._node), Pipeline)

    @property
    def is_direct(self) -> bool:
        """Whether it leads to an object of the peer, for good."""
        return self._node.direct is not None

    @property
    def is_shared(self) -> bool:
        """Whether something else refers to the same object."""
        return settled(self._node).holders > 1

    @property
    def is_released(self) -> bool:
        """Whether it was released."""
        return self._node is NOWHERE

    def copy(self) -> "Capability":
        """Return one more reference to the same, to be released by itself."""
        node = self.live()
        return Capability(node.tables.hold(node))

    def release(self) -> None:
        """Give it back.

        Raises:
            UnusableCapability: It was released before.
        """
        node = self.live()
        self._node = NOWHERE
        tables = node.reference()
        if tables is not None:
            tables.drop(node)

    def release_later(self) -> None:
        """Give it back with the next bytes that are sent; in any thread.

        Raises:
            UnusableCapability: It was released before.
        """
        node = self.live()
        self._node = NOWHERE
        tables = node.reference()
        if tables is not None and not tables.ended:
            tables.garbage.append(node)

    def settle(self) -> None:
        """Lead straight to what it has become."""
        node = self._node
        if node.next is not None:
            self._node = node.tables.hold(settled(node))
            node.tables.drop(node)

    def live(self) -> Node:
        """Return where it leads, for the connection.

        Raises:
            UnusableCapability: It was released.
        """
        if self._node is NOWHERE:
            raise UnusableCapability("the capability was released before")
        return self._node

    def __del__(self) -> None:
        if self._node is not NOWHERE:
            # Not at once: this may come in the middle of anything, and in any thread.
            self.release_later()


class OpenPromise(Capability):
    """A promise of ours; what it is resolved to takes the calls that have come for it.

    One that is released before fails them.
    """

    __slots__ = ()

    def settle(self) -> None:
        """Stay the promise, which may be resolved once only."""

    def __init__(self, tables: NodeTables) -> None:
        super().__init__(tables.hold(Promise(tables)))

    def resolve(self, capability: Any) -> None:
        """Become `capability`: one of this connection, which stays with its owner, or an object.

        Raises:
            UnusableCapability: It was resolved or released before; or `capability` was.
        """
        promise = self._open()
        promise.tables.resolve(promise, promise.tables.node_of(capability))

    def reject(self, error: RemoteError) -> None:
        """Become nothing: calls fail with `error`."""
        promise = self._open()
        promise.tables.resolve(promise, Broken(promise.tables, error))

    def release(self) -> None:
        """Give it back, as `Capability.release`."""
        node = self.live()
        if node.next is None and node.reference() is not None:
            self.reject(DROPPED)
        super().release()

    def _open(self) -> Promise:
        node = self.live()
        if node.next is not None:
            raise UnusableCapability("the promise was resolved before")
        assert isinstance(node, Promise)
        return node

    def __del__(self) -> None:
        node = self._node
        if isinstance(node, Promise) and node.next is None:
            tables = node.reference()
            if tables is not None:
                tables.forgotten.append(node)
        super().__del__()


class CapabilityTable(tuple[Capability | None, ...]):
    """The capabilities of a message, in the order of their indexes."""

    __slots__ = ()

    @classmethod
    def of(cls, nodes: "Sequence[Node | None]") -> Self:
        """Take over a hold on each node."""
        return cls(None if node is None else Capability(node) for node in nodes)

    def field(self, index: int, interface: Any) -> Any:
        """Return what a view has for a field of that interface, pycapnp's schema.

        An owner who wants objects of its own there puts a table of its own in the message.
        """
        return self[index]
