"""The four tables of a connection, and how capabilities enter and leave them.

Whatever refers to a node holds it: a `Capability`, an entry of the export table, the params of a
call that waits, the results of an answer until its Finish, a node that has become it. An import
is released with its last holder, in one Release for all its references, when bytes are next sent.
"""

import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

from capnp_rig.wire.encoding.pointers import Buffer
from capnp_rig.wire.errors import RemoteProtocolError, TableFull, UnusableCapability
from capnp_rig.wire.rpc.calls import Asked, Asking, PendingCall, Question
from capnp_rig.wire.rpc.capabilities import Capability
from capnp_rig.wire.rpc.capability_encoder import encode_release, encode_resolve
from capnp_rig.wire.rpc.events import Event, Limits, Released
from capnp_rig.wire.rpc.inline_methods import NO_METHODS, InlineMethods
from capnp_rig.wire.rpc.messages import CapKind, Descriptor, RemoteError, Target
from capnp_rig.wire.rpc.nodes import (
    Broken,
    Exported,
    Hosted,
    Import,
    Node,
    Pipeline,
    Promise,
    settled,
)
from capnp_rig.wire.rpc.stream import Stream

_HOSTED_THERE = {CapKind.SENDER_HOSTED, CapKind.SENDER_PROMISE, CapKind.THIRD_PARTY_HOSTED}
HOSTED_HERE = {CapKind.SENDER_HOSTED, CapKind.SENDER_PROMISE}


class Delivery:
    """A call on its way to an object of ours."""

    __slots__ = ("call", "node")

    def __init__(self, node: Hosted, call: PendingCall) -> None:
        self.node = node
        self.call = call


class Tables(Stream):
    """Questions, answers, imports and exports; what refers to them, and what is released."""

    __slots__ = (
        *(
            "_afterwards",
            "_answers",
            "_exports",
            "_free_exports",
            "_free_ids",
            "_hosted",
            "_imports",
        ),
        *("_in_flight", "_is_forgetting", "_next_id", "_questions", "_ready", "_releases"),
        *("_unheld", "_waiting_bytes", "forgotten"),
        *("reference", "__weakref__"),
    )

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        # What nodes know of the connection.
        self.reference = weakref.ref(self)
        self._questions: dict[int, Asked | Question] = {}
        self._free_ids: list[int] = []
        self._next_id = 0
        self._answers: dict[int, Asking | PendingCall] = {}
        self._in_flight = 0
        self._waiting_bytes = 0
        self._exports: dict[int, Exported] = {}
        self._free_exports: list[int] = []
        self._imports: dict[int, Import] = {}
        # By `id` of the object, which lives as long as it is hosted.
        self._hosted: dict[int, Hosted] = {}
        # What `events` has to report, to deliver or to cancel before it goes on.
        self._ready: deque[Event | Delivery | PendingCall] = deque()
        self._releases: dict[int, int] = {}
        # Promises of which nobody is left who could resolve them.
        self.forgotten: list[Promise] = []
        self._unheld: list[Node] = []
        self._is_forgetting = False
        # What has to follow the message that is being written.
        self._afterwards: list[Buffer] = []

    @property
    def has_events(self) -> bool:
        """Whether `events` has something to tell though no data came: feed it with nothing.

        Answers, calls on this side and releases bring that about.
        """
        return bool(self._ready)

    @property
    def has_exports(self) -> bool:
        """Whether the peer may call something of ours, the bootstrap interface aside."""
        return bool(self._exports)

    # --- holders

    def hold(self, node: Node) -> Node:
        """Count one more that refers to a node."""
        node.holders += 1
        return node

    def drop(self, node: Node) -> None:
        """Count one less that refers to a node; without any it ends."""
        node.holders -= 1
        if node.holders:
            return
        # One after the other: a peer can make long chains of nodes.
        self._unheld.append(node)
        if not self._is_forgetting:
            self._is_forgetting = True
            while self._unheld:
                self._unheld.pop().forget()
            self._is_forgetting = False

    def hold_strict(self, node: Node) -> None:
        """Hold a node for calls of the peer, which must reach it where it is now."""
        node.holders += 1
        if isinstance(node, Import):
            node.strict_holders += 1

    def drop_strict(self, node: Node) -> None:
        """Undo `hold_strict`."""
        if isinstance(node, Import):
            node.strict_holders -= 1
            node.release_if_replaced()
        self.drop(node)

    def drop_all(self, nodes: Sequence[Node | None]) -> None:
        """Drop each node."""
        for node in nodes:
            if node is not None:
                self.drop(node)

    # --- objects of ours

    def host(self, target: Any, inline: InlineMethods = NO_METHODS) -> Capability:
        """Return a capability of an object of ours; `inline` are its methods for `events`.

        An object that is a capability in a message, or the target of a `call`, need not be hosted
        before.
        """
        node = self._hosted.get(id(target)) or self._new_host(target)
        if inline is not NO_METHODS:
            node.inline = inline
        return Capability(self.hold(node))

    def _new_host(self, target: Any) -> Hosted:
        node = self._hosted[id(target)] = Hosted(self, target)
        return node

    def unhost(self, node: Hosted) -> None:
        """Forget an object of ours."""
        # After the end it has been told already, or never hosted.
        if self._hosted.pop(id(node.target), None) is not None and not self._ended:
            self._ready.append(Released(node.target))

    def hosts(self, target: Any) -> bool:
        """Whether anything on this connection refers to an object of ours."""
        return id(target) in self._hosted

    def owns(self, capability: Capability) -> bool:
        """Whether a capability is one of this connection.

        Raises:
            UnusableCapability: It was released.
        """
        return capability.live().reference is self.reference

    def node_of(self, capability: Any) -> Node:
        """Return where a capability leads: one of this connection, or an object of ours.

        Raises:
            UnusableCapability: It was released, or belongs to another connection.
        """
        if not isinstance(capability, Capability):
            return self._hosted.get(id(capability)) or self._new_host(capability)
        if not self.owns(capability):
            raise UnusableCapability("the capability belongs to another connection")
        return capability.live()

    def hold_each(self, capabilities: Sequence[Any]) -> list[Node | None]:
        """Return the nodes of capabilities, each held; None for None.

        Raises:
            UnusableCapability: As `node_of`.
        """
        nodes: list[Node | None] = []
        try:
            for capability in capabilities:
                node = None if capability is None else settled(self.node_of(capability))
                nodes.append(node)
                if node is not None:
                    self.hold(node)
        except UnusableCapability:
            self.drop_all(nodes)
            raise
        return nodes

    # --- capabilities that the peer holds

    def add_export(self, node: Exported) -> int:
        """Enter a node into the export table; return its id."""
        number = self._free_exports.pop() if self._free_exports else len(self._exports)
        self._exports[number] = node
        return number

    def remove_export(self, number: int) -> None:
        """Take a node out of the export table."""
        del self._exports[number]
        self._free_exports.append(number)

    def _give_back(self, export_id: int, count: int) -> None:
        """Take references back from the peer.

        Raises:
            RemoteProtocolError: It has not so many.
        """
        node = self._exports.get(export_id)
        if node is None or count > node.references:
            raise RemoteProtocolError(f"release of export {export_id}, {count} times, is too much")
        node.unexport(count)

    def _give_back_each(self, export_ids: Sequence[int]) -> None:
        for export_id in export_ids:
            self._give_back(export_id, 1)

    def _describe(self, nodes: Sequence[Node | None]) -> tuple[list[Descriptor], list[int]]:
        """Return the table of a message, which must be sent, and the exports in it.

        Raises:
            TableFull: So many would be too many; nothing was counted.
        """
        table = [None if node is None else self._known(node) for node in nodes]
        self._check_room(table)
        found = [Descriptor(CapKind.NONE) if node is None else node.describe() for node in table]
        return found, [each.id for each in found if each.kind in HOSTED_HERE]

    def _known(self, node: Node) -> Node:
        """Return what the peer knows that a node has become."""
        while node.next is not None and not (
            isinstance(node, Exported) and isinstance(node.next, Pipeline)
        ):
            node = node.next
        return node

    def _check_room(self, nodes: Sequence[Node | None], more: int = 0) -> None:
        new = {
            id(node)
            for node in nodes
            if isinstance(node, Broken) or (isinstance(node, Exported) and not node.references)
        }
        if len(self._exports) + len(new) + more > self._limits.max_exports:
            raise TableFull(f"the peer holds {self._limits.max_exports} capabilities of ours")

    def export_broken(self, error: RemoteError) -> int:
        """Export a promise that is broken as soon as the message is sent."""
        promise = Promise(self)
        promise.next = Broken(self, error)
        self.hold_strict(promise.next)
        number = promise.export()
        self._afterwards += encode_resolve(number, error)
        return number

    def _send_afterwards(self) -> None:
        if self._afterwards:
            self._out += self._afterwards
            self._afterwards.clear()

    # --- capabilities of the peer

    def _take_table(self, table: Sequence[Descriptor]) -> list[Node | None]:
        """Return the nodes of a table that came, each held.

        Raises:
            RemoteProtocolError: They are more than the limit.
        """
        return [self._take_descriptor(descriptor) for descriptor in table]

    def _take_descriptor(self, descriptor: Descriptor) -> Node | None:
        kind, number, path = descriptor
        node: Node | None
        if kind in _HOSTED_THERE:
            node = self._import(number, is_promise=kind == CapKind.SENDER_PROMISE)
        elif kind == CapKind.NONE:
            return None
        elif kind == CapKind.RECEIVER_HOSTED:
            node = self._exports.get(number)
        elif kind == CapKind.RECEIVER_ANSWER:
            node = self.answer_node(number, path)
        else:
            node = Broken(self, RemoteError(f"a capability of unknown kind {kind}"))
        if node is None:
            node = Broken(self, RemoteError(f"capability {number} is not a current export"))
        return self.hold(node)

    def _import(self, number: int, *, is_promise: bool) -> Import:
        node = self._imports.get(number)
        if node is None:
            if len(self._imports) >= self._limits.max_imports:
                raise RemoteProtocolError(
                    f"more than {self._limits.max_imports} capabilities were sent and not released"
                )
            node = self._imports[number] = Import(self, number, is_promise=is_promise)
        node.count += 1
        return node

    def release_import(self, node: Import) -> None:
        """Give all references to an import back, with the next bytes that are sent."""
        if self._imports.get(node.import_id) is node:
            del self._imports[node.import_id]
        self._releases[node.import_id] = self._releases.get(node.import_id, 0) + node.count
        node.count = 0
        self.garbage.append(None)

    def _collect(self) -> None:
        while self.forgotten:
            promise = self.forgotten.pop()
            if promise.next is None:
                self.break_promise(promise)
        while self.garbage:
            node = self.garbage.pop()
            if node is not None:
                self.drop(node)
        releases, self._releases = self._releases, {}
        if not self._ended:
            self._out += [encode_release(*release) for release in releases.items()]

    # --- what the layers above do

    def answer_node(self, question_id: int, path: tuple[int, ...]) -> Node:
        """Return what a path in the answer to a question of the peer leads to."""
        raise NotImplementedError

    def add_delivery(self, node: Hosted, call: PendingCall) -> None:
        """Deliver a call to an object of ours, with the next events."""
        if not self._ended:
            self._ready.append(Delivery(node, call))

    def wait(self, promise: Promise, call: PendingCall) -> None:
        """Let a call wait for a promise."""
        raise NotImplementedError

    def fail(self, call: PendingCall, error: RemoteError) -> None:
        """Answer a call with an error."""
        raise NotImplementedError

    def forward(self, call: PendingCall, address: Target) -> None:
        """Send a call to the peer."""
        raise NotImplementedError

    def resolve(self, promise: Promise, node: Node) -> None:
        """Let a promise become a node."""
        raise NotImplementedError

    def break_promise(self, promise: Promise) -> None:
        """Let a promise that was forgotten become nothing."""
        raise NotImplementedError

    def finish_if_unused(self, question: Question) -> None:
        """Send the Finish of a question that is returned, if nothing needs its answer."""
        raise NotImplementedError
