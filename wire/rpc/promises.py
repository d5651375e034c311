"""Promises: what they become, and how calls keep their order meanwhile.

Two calls on one reference arrive in the order in which they were made (E-order). What endangers it
is a reference whose path gets shorter: a promise at the peer that turns out to be an object of
ours. Calls that were sent to it come back over the peer; later ones would be delivered at once. So
they wait, in a promise of ours, until a Disembargo has come back on the same way.
"""

from capnp_rig.wire.errors import RemoteProtocolError, TableFull
from capnp_rig.wire.rpc.calls import PendingCall
from capnp_rig.wire.rpc.capability_encoder import encode_disembargo, encode_resolve
from capnp_rig.wire.rpc.events import Limits
from capnp_rig.wire.rpc.messages import (
    CapKind,
    Descriptor,
    Disembargo,
    DisembargoContext,
    ExceptionType,
    ImportedCap,
    RemoteError,
    Resolve,
    Target,
)
from capnp_rig.wire.rpc.nodes import (
    CIRCULAR,
    DROPPED,
    Broken,
    Import,
    Node,
    Pipeline,
    Promise,
    Remote,
    settled,
    strictly,
)
from capnp_rig.wire.rpc.tables import Tables

# What the sender of such a capability has from the receiver.
COMING_BACK = {CapKind.RECEIVER_HOSTED, CapKind.RECEIVER_ANSWER}


class Promises(Tables):
    """Resolve and Disembargo, in both directions."""

    __slots__ = (
        "_embargoes",
        "_next_embargo",
        "_resolving",
    )

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._resolving: list[tuple[Promise, Node]] = []
        self._embargoes: dict[int, tuple[Promise, Node]] = {}
        self._next_embargo = 0

    def deliver(self, call: PendingCall, node: Node) -> None:
        """Deliver a call to what a node has become, as far as its caller may follow."""
        node = settled(node) if call.id < 0 else strictly(node)
        node.take(call)

    # --- promises of ours

    def wait(self, promise: Promise, call: PendingCall) -> None:
        """Let a call wait for a promise; one too many fails."""
        limits = self._limits
        if len(promise.waiting) >= limits.max_pipelined:
            self.fail(call, self._too_many_wait())
        elif self._waiting_bytes + call.size > limits.max_waiting_bytes:
            reason = f"more than {limits.max_waiting_bytes} bytes wait for answers"
            self.fail(call, RemoteError(reason, ExceptionType.OVERLOADED))
        else:
            self._waiting_bytes += call.size
            call.waits_for = promise
            promise.waiting.append(call)

    def _too_many_wait(self) -> RemoteError:
        reason = f"more than {self._limits.max_pipelined} calls wait for one answer"
        return RemoteError(reason, ExceptionType.OVERLOADED)

    def resolve(self, promise: Promise, node: Node) -> None:
        """Let a promise become a node; deliver what waits, and tell the peer."""
        self.hold(promise)
        self._resolving.append((promise, self.hold(node)))
        # One after the other: a peer can make calls wait for each other in long chains.
        if len(self._resolving) > 1:
            return
        # It grows meanwhile.
        for resolved, target in self._resolving:
            self._resolve_now(resolved, settled(target))
            self.drop(target)
            self.drop(resolved)
        self._resolving.clear()

    def break_promise(self, promise: Promise) -> None:
        """Let a promise that was forgotten become nothing."""
        self.resolve(promise, Broken(self, DROPPED))

    def _resolve_now(self, promise: Promise, target: Node) -> None:
        if promise.next is not None:
            return
        if target is promise:
            target = Broken(self, CIRCULAR)
        self.hold_strict(target)
        promise.next = target
        calls, promise.waiting = promise.waiting, []
        for call in calls:
            call.waits_for = None
            self._waiting_bytes -= call.size
            self.deliver(call, target)
        self._tell(promise, target)

    def _tell(self, promise: Promise, target: Node) -> None:
        """Tell the peer what a promise that it may hold has become, as soon as that is known."""
        if isinstance(target, Pipeline):
            target.followers.append(promise)
        elif promise.references and not self._ended:
            self._send_resolve(promise.export_id, target)

    def follow(self, target: Pipeline) -> Promise:
        """Return a promise of what a part of an answer will become."""
        promise = Promise(self)
        promise.next = target
        self.hold_strict(target)
        target.followers.append(promise)
        return promise

    def _lead(self, pipeline: Pipeline) -> None:
        """Let the promises that follow a part of an answer become what it has become."""
        followers, pipeline.followers = pipeline.followers, []
        for promise in followers:
            # Otherwise it is forgotten.
            if promise.holders:
                target = settled(pipeline)
                self.hold_strict(target)
                promise.next = target
                self.drop_strict(pipeline)
                self._tell(promise, target)

    def _send_resolve(self, export_id: int, target: Node) -> None:
        outcome: Descriptor | RemoteError
        if isinstance(target, Broken):
            outcome = target.error
        else:
            try:
                (outcome,), _ = self._describe([target])
            except TableFull as error:
                outcome = RemoteError(str(error), ExceptionType.OVERLOADED)
        self._out += encode_resolve(export_id, outcome)

    # --- promises of the peer

    def become(self, remote: Remote, target: Node, *, comes_back: bool = False) -> None:
        """Let a promise of the peer, or a part of an answer, become a node.

        `comes_back` tells that the peer says it is ours: calls to it would come back.
        """
        if remote.next is not None:
            return
        first, target = target, settled(target)
        if target is remote:
            target = Broken(self, CIRCULAR)
        if comes_back and remote.was_called and not isinstance(target, Broken):
            assert remote.address is not None
            target = self._embargo(remote.address, first)
        elif isinstance(target, Remote):
            target.was_called |= remote.was_called
        remote.next = self.hold(target)
        if isinstance(remote, Import):
            remote.release_if_replaced()
        elif isinstance(remote, Pipeline):
            self._lead(remote)

    def _embargo(self, address: Target, target: Node) -> Promise:
        """Return a promise of `target` that is resolved when earlier calls have arrived."""
        if len(self._embargoes) >= self._limits.max_questions:
            raise RemoteProtocolError("the peer sends no disembargo back")
        promise, number = Promise(self), self._next_embargo
        self._next_embargo = number + 1 & 0xFFFFFFFF
        self.hold(promise)
        self._embargoes[number] = promise, self.hold(target)
        self._out.append(encode_disembargo(address, DisembargoContext.SENDER_LOOPBACK, number))
        return promise

    def _take_disembargo(self, message: Disembargo) -> None:
        if message.context == DisembargoContext.RECEIVER_LOOPBACK:
            embargo = self._embargoes.pop(message.embargo_id, None)
            if embargo is None:
                raise RemoteProtocolError(f"disembargo {message.embargo_id} was never sent")
            promise, target = embargo
            self._lift(promise, target)
            self.drop(promise)
            self.drop(target)
            return
        holder = self.hold(self._disembargo_target(message.target))
        target = strictly(holder)
        if target.is_local or target.address is None:
            raise RemoteProtocolError("disembargo of a capability that is not the sender's")
        # Whatever was sent to it has been sent on before, the calls that waited among it.
        context = DisembargoContext.RECEIVER_LOOPBACK
        self._out.append(encode_disembargo(target.address, context, message.embargo_id))
        self.drop(holder)

    def _lift(self, promise: Promise, target: Node) -> None:
        """End an embargo: let calls go on to `target`, on the way that earlier ones have taken."""
        node: Node = target
        while (following := node.next) is not None:
            if isinstance(node, Import) and node.is_detour and node.address is not None:
                # They may have gone this way, and not be back yet: one hop at a time.
                node = self._embargo(node.address, following)
                break
            node = following
        self.resolve(promise, node)

    def _disembargo_target(self, target: Target) -> Node:
        if not isinstance(target, ImportedCap):
            return self.answer_node(target.question_id, target.path)
        node = self._exports.get(target.import_id)
        if node is None:
            raise RemoteProtocolError(f"message target {target.import_id} is not a current export")
        return node

    def _take_resolve(self, message: Resolve) -> None:
        promise, outcome = self._imports.get(message.promise_id), message.outcome
        comes_back = False
        if isinstance(outcome, RemoteError):
            target: Node | None = self.hold(Broken(self, outcome))
        else:
            target = self._take_descriptor(outcome)
            comes_back = outcome.kind in COMING_BACK
        if target is None:
            raise RemoteProtocolError(f"promise {message.promise_id} was resolved to nothing")
        # It may have been released meanwhile.
        if promise is not None and promise.is_promise and promise.next is None:
            self.become(promise, target, comes_back=comes_back)
        self.drop(target)
