"""Where capabilities lead: to nodes, which are the entries of the tables.

Several may lead to one. What a node is depends on where its object is:

    Hosted      an object of ours
    Import      an export of the peer, which may be a promise
    Pipeline    a pointer in the answer to a question of ours
    Promise     one of ours, of what is not known yet
    Broken      nothing; calls fail

A Pipeline and a Promise become another node one day, `next`, and so may an Import. Who makes a call
here follows that at once. A call of the peer does not where an Import has become something else:
"all further messages received addressed to P will be forwarded strictly to R" (rpc.capnp, the
Tribble 4-way race condition). For that an Import keeps its `address` as long as the peer knows that
a promise of ours, or a part of an answer, has become it, which `strict_holders` counts. The peer
never hears that of a Pipeline: the promise stays one until that is known.

`holders` counts everything that refers to a node; with the last one it is forgotten.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from capnp_rig.wire.errors import Disconnected
from capnp_rig.wire.rpc.inline_methods import NO_METHODS, InlineMethods
from capnp_rig.wire.rpc.messages import (
    CapKind,
    Descriptor,
    ExceptionType,
    ImportedCap,
    PromisedAnswer,
    RemoteError,
    Target,
)

# A promise that its owner forgot, and one that would never become anything else.
DROPPED = RemoteError("the promise was released before it was resolved")
CIRCULAR = RemoteError("the promise was resolved to itself")
NO_CAPABILITY = RemoteError("pipelined call on an answer that holds no capability")
DISCONNECTED = RemoteError("the connection has ended", ExceptionType.DISCONNECTED)


class NodeTables(Protocol):
    """What nodes and capabilities use of a connection: its tables (`tables.Tables`).

    A call is a `calls.PendingCall`, a question a `calls.Question`; both hold nodes.
    """

    reference: Any
    garbage: list[Any]
    forgotten: Any

    @property
    def ended(self) -> bool:
        """Whether the connection is over."""

    def hold(self, node: "Node") -> "Node":
        """Count one more that refers to a node."""

    def drop(self, node: "Node") -> None:
        """Count one less that refers to a node; without any it ends."""

    def drop_strict(self, node: "Node") -> None:
        """Do so for one that needed its address."""

    def node_of(self, capability: Any) -> "Node":
        """Return where a capability leads, or an object of ours."""

    def add_export(self, node: "Exported") -> int:
        """Enter a node into the export table; return its id."""

    def remove_export(self, number: int) -> None:
        """Take a node out of the export table."""

    def export_broken(self, error: RemoteError) -> int:
        """Export a promise that is broken as soon as the message is sent."""

    def release_import(self, node: "Import") -> None:
        """Give all references to an import back."""

    def unhost(self, node: "Hosted") -> None:
        """Forget an object of ours."""

    def resolve(self, promise: "Promise", node: "Node") -> None:
        """Let a promise become a node."""

    def add_delivery(self, node: "Hosted", call: Any) -> None:
        """Deliver a call to an object of ours."""

    def wait(self, promise: "Promise", call: Any) -> None:
        """Let a call wait for a promise."""

    def fail(self, call: Any, error: RemoteError) -> None:
        """Answer a call with an error."""

    def forward(self, call: Any, address: Target) -> None:
        """Send a call to the peer."""

    def finish_if_unused(self, question: Any) -> None:
        """Send the Finish of a question that is returned, if nothing needs its answer."""


class Node:
    """Where capabilities lead."""

    __slots__ = ("holders", "reference")
    # What this has become; a promise is None before.
    next: "Node | None" = None
    # How the peer is told to reach it, if it is there; and the same, if that is for good.
    address: Target | None = None
    direct: ImportedCap | None = None
    # What the fast path answers on the spot.
    inline: InlineMethods = NO_METHODS
    # Whether calls to it are delivered here.
    is_local = True

    def __init__(self, tables: NodeTables) -> None:
        # Weak, so that a connection that is dropped is freed at once, and all its layouts.
        self.reference = tables.reference
        self.holders = 0

    @property
    def tables(self) -> NodeTables:
        """The tables of the connection.

        Raises:
            Disconnected: It is gone.
        """
        tables: NodeTables | None = self.reference()
        if tables is None:
            raise Disconnected("the connection has ended")
        return tables

    def take(self, call: Any) -> None:
        """Take a call that ends here, or leaves from here; `next` is None."""
        raise NotImplementedError

    def describe(self) -> Descriptor:
        """Return how a message names it; one of ours is exported, and counted."""
        raise NotImplementedError

    def forget(self) -> None:
        """End: nothing refers to it any more."""


class Exported(Node):
    """A node that the peer can hold: an entry of the export table, while it does."""

    __slots__ = ("export_id", "references")

    def __init__(self, tables: NodeTables) -> None:
        super().__init__(tables)
        self.export_id = 0
        # As the peer counts them.
        self.references = 0

    def export(self) -> int:
        """Count a reference that the peer gets; return the export's id."""
        if not self.references:
            self.export_id = self.tables.add_export(self)
            self.holders += 1
        self.references += 1
        return self.export_id

    def unexport(self, count: int) -> None:
        """Count references that the peer gave back."""
        self.references -= count
        if count and not self.references:
            self.tables.remove_export(self.export_id)
            self.tables.drop(self)


class Hosted(Exported):
    """An object of ours."""

    __slots__ = ("inline", "target")

    def __init__(self, tables: NodeTables, target: Any) -> None:
        super().__init__(tables)
        self.target = target
        self.inline = NO_METHODS

    def take(self, call: Any) -> None:
        self.tables.add_delivery(self, call)

    def describe(self) -> Descriptor:
        return Descriptor(CapKind.SENDER_HOSTED, self.export())

    def forget(self) -> None:
        self.tables.unhost(self)


class Promise(Exported):
    """What is not known yet; calls wait for it."""

    __slots__ = ("call", "next", "waiting")

    def __init__(self, tables: NodeTables, call: Any = None) -> None:
        super().__init__(tables)
        # In whose results it is.
        self.call = call
        self.next: Node | None = None
        self.waiting: list[Any] = []

    def take(self, call: Any) -> None:
        self.tables.wait(self, call)

    def describe(self) -> Descriptor:
        return Descriptor(CapKind.SENDER_PROMISE, self.export())

    def forget(self) -> None:
        if self.next is not None:
            self.tables.drop_strict(self.next)


class Broken(Node):
    """Nothing: every call fails with `error`."""

    __slots__ = ("error",)

    def __init__(self, tables: NodeTables, error: RemoteError) -> None:
        super().__init__(tables)
        self.error = error

    def take(self, call: Any) -> None:
        self.tables.fail(call, self.error)

    def describe(self) -> Descriptor:
        # There is no descriptor of what is broken: it is a promise, which is broken right after.
        return Descriptor(CapKind.SENDER_PROMISE, self.tables.export_broken(self.error))


class Remote(Node):
    """A node at the peer."""

    __slots__ = ("address", "is_detour", "next", "was_called")
    is_local = False

    def __init__(self, tables: NodeTables, address: Target) -> None:
        super().__init__(tables)
        self.address: Target | None = address
        self.next: Node | None = None
        # Whether calls may be on their way: then what it becomes must wait for them.
        self.was_called = False
        # Whether calls of the peer went this way though there was a shorter one.
        self.is_detour = False

    def take(self, call: Any) -> None:
        assert self.address is not None
        self.was_called = True
        self.is_detour = self.next is not None
        self.tables.forward(call, self.address)

    def forget(self) -> None:
        if self.next is not None:
            self.tables.drop(self.next)


class Import(Remote):
    """An export of the peer; `count` references are to be given back."""

    __slots__ = ("count", "direct", "import_id", "is_promise", "strict_holders")

    def __init__(self, tables: NodeTables, import_id: int, *, is_promise: bool) -> None:
        address = ImportedCap(import_id)
        super().__init__(tables, address)
        self.import_id = import_id
        self.count = 0
        self.is_promise = is_promise
        self.direct = None if is_promise else address
        # Of `holders`, those that need the address even if there is a `next`.
        self.strict_holders = 0

    def describe(self) -> Descriptor:
        return Descriptor(CapKind.RECEIVER_HOSTED, self.import_id)

    def release_if_replaced(self) -> None:
        """Give it back to the peer, if it has become something else that serves everybody."""
        if self.next is not None and self.address is not None and not self.strict_holders:
            self.address = None
            self.tables.release_import(self)

    def forget(self) -> None:
        if self.address is not None:
            self.tables.release_import(self)
        super().forget()


class Pipeline(Remote):
    """What a pointer in the answer to a question leads to; `path` is a list of pointer indexes."""

    __slots__ = ("followers", "path", "question")

    def __init__(self, tables: NodeTables, question: Any, path: tuple[int, ...]) -> None:
        super().__init__(tables, PromisedAnswer(question.id, path))
        self.question = question
        self.path = path
        # Promises of ours that become what this becomes.
        self.followers: list[Promise] = []

    def describe(self) -> Descriptor:
        return Descriptor(CapKind.RECEIVER_ANSWER, self.question.id, self.path)

    def forget(self) -> None:
        self.question.pipelines.pop(self.path, None)
        self.tables.finish_if_unused(self.question)
        super().forget()


def settled(node: Node) -> Node:
    """Return what a node has become by now."""
    while node.next is not None:
        node = node.next
    return node


def strictly(node: Node) -> Node:
    """Return what a node has become for a call of the peer."""
    while node.next is not None and not (isinstance(node, Import) and node.address is not None):
        node = node.next
    return node


def table_room(nodes: "Sequence[Node | None]") -> int:
    """Return how many words the table of these takes, at most."""
    if not nodes:
        return 0
    paths = [len(node.path) for node in nodes if isinstance(node, Pipeline)]
    return 1 + 2 * len(nodes) + 3 * len(paths) + sum(paths)


class _Nowhere(Node):
    """Where a released capability leads."""

    __slots__ = ()

    def __init__(self) -> None:
        """Belong to no connection, so that no call takes it for one of its own."""


NOWHERE: Node = _Nowhere()
