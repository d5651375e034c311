"""Single calls of any method on one connection, without its socket: for scenarios of users' own.

`capnp_exchange.Exchange` sends the requests of a workload again and again. Here each call has
params of its own, and the caller gets a view of its results. A call whose params have the size of
those before is the same frame but for the question id and the params.

Capabilities in results are a `Reference` each, to which calls may go. It is given back when it is
released, or collected as garbage.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from capnp_rig.loadtest.protocols.capnp_exchange import (
    BEHIND_ID,
    ID_AT,
    CapnpConnection,
    u32,
)
from capnp_rig.loadtest.protocols.capnp_walk import HELD
from capnp_rig.objects.errors import ClientError, ProtocolError
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.frames import DEFAULT_LIMITS, FrameLimits
from capnp_rig.wire.encoding.pointers import StructTuple
from capnp_rig.wire.errors import EncodeError, UnusableCapability
from capnp_rig.wire.rpc.capability_encoder import encode_call_with, encode_release
from capnp_rig.wire.rpc.interfaces import Method
from capnp_rig.wire.rpc.message_encoder import (
    PROMISE_CALL_HEAD_WORDS,
    encode_call,
    encode_finish,
)
from capnp_rig.wire.rpc.messages import (
    CapKind,
    Descriptor,
    ImportedCap,
    PromisedAnswer,
    Return,
    Target,
)

_BOOTSTRAP = PromisedAnswer(0)


class _Import:
    """What the server counts as held by us; given back when the last reference lets go."""

    __slots__ = ("exchange", "target")

    def __init__(self, exchange: "CallExchange", import_id: int) -> None:
        self.exchange = exchange
        self.target = ImportedCap(import_id)
        exchange.held += 1

    def __del__(self) -> None:
        self.exchange.give_back(self.target)


class Reference:
    """A reference to an object of the server, on the connection that an exchange is."""

    __slots__ = ("_import",)

    def __init__(self, held: _Import) -> None:
        self._import: _Import | None = held

    def live(self) -> _Import:
        """Return what it is a reference to.

        Raises:
            UnusableCapability: It was released.
        """
        if self._import is None:
            raise UnusableCapability("the capability was released before")
        return self._import

    def copy(self) -> "Reference":
        """Return one more reference to the same, to be released by itself."""
        return Reference(self.live())

    def release(self) -> None:
        """Let go; the server is told with the next bytes that leave, if this was the last one."""
        self._import = None


# Returns what a view has for a capability, of which pycapnp's schema of its interface is known,
# or None.
Wrap = Callable[[Reference, Any], Any]


class _References(tuple[Reference | None, ...]):
    """The capabilities of results."""

    __slots__ = ()

    def field(self, index: int, interface: Any) -> Any:
        """Return what a view has for a field of that interface."""
        reference = self[index]
        return None if reference is None else reference.live().exchange.wrap(reference, interface)


class _LastCall:
    """The head of a method's last call: all in front of the params, around the question id.

    It goes with `method` and `key`.
    """

    __slots__ = ("head", "key", "method", "tail")

    def __init__(self) -> None:
        self.method: Method | None = None
        self.key: tuple[Target, int, int] | None = None
        self.head = self.tail = b""

    def learn(self, method: Method, target: Target, params: EncodedTuple) -> None:
        """Take the head of a call to `target` whose params have these sizes."""
        head = bytes(encode_call(0, target, method.interface_id, method.method_id, params)[0])
        self.method, self.key = method, (target, params[0], params[2])
        self.head, self.tail = head[:ID_AT], head[BEHIND_ID:]


@dataclass(eq=False, slots=True)
class PendingCall:
    """A call under way: `results` or `error` once it `is_done`; times in ns of the owner's clock.

    `waiter` is for the owner, who puts there whom to tell.
    """

    method: Method
    sent_ns: int
    received_ns: int = 0
    results: Any = None
    error: ClientError | None = None
    is_done: bool = False
    waiter: Any = None


class CallExchange(CapnpConnection):
    """The calls of one connection. The first ones go to the promise of the server's interface."""

    def __init__(
        self,
        wrap: Wrap = lambda reference, _interface: reference,
        limits: FrameLimits = DEFAULT_LIMITS,
    ) -> None:
        super().__init__(limits=limits)
        self.wrap = wrap
        # How many objects of the server somebody refers to.
        self.held = 0
        # By question id, in the order of sending.
        self._pending: dict[int, PendingCall] = {}
        # Questions that are answered, and whose capabilities outlive them.
        self._kept: set[int] = set()
        self._last: dict[str, _LastCall] = {}
        self._free_ids: list[int] = []
        # Questions that were cancelled, until their answers come.
        self._cancelled: set[int] = set()
        self._next_id = 1
        # Calls that have ended, for the owner to take.
        self.ended: list[PendingCall] = []

    @property
    def in_flight(self) -> int:
        """How many calls wait for their reply."""
        return len(self._pending)

    @property
    def oldest(self) -> PendingCall | None:
        """The call that has waited longest."""
        return next(iter(self._pending.values()), None)

    def give_back(self, held: ImportedCap) -> None:
        """Release an object, with the next bytes that leave."""
        self.held -= 1
        self._out.append(encode_release(held.import_id, 1))

    def call(
        self,
        method: Method,
        params: EncodedTuple,
        sent_ns: int,
        to: Reference | None = None,
        given: Sequence[Reference | None] = (),
    ) -> PendingCall:
        """Queue a call to the server's interface, or `to` a capability; `output` has its bytes.

        `given` are the capabilities in the params.

        Raises:
            EncodeError: The message would be over the frame limit.
            UnusableCapability: A capability was released, or belongs to another connection.
        """
        target: Target = self._own(to) if to is not None else self._target or _BOOTSTRAP
        sizes, parts, words = params
        if given:
            self._check_size(words + 2 * len(given) + 1)
            table = [self._descriptor(each) for each in given]
            ids = method.interface_id, method.method_id
            first, *parts = encode_call_with(0, target, ids, params, table)
            head, tail = bytes(first[:ID_AT]), first[BEHIND_ID:]
        else:
            last = self._last.get(method.name)
            if last is None:
                last = self._last[method.name] = _LastCall()
            if last.key != (target, sizes, words) or last.method is not method:
                self._check_size(words)
                last.learn(method, target, params)
            head, tail = last.head, last.tail
        if self._free_ids:
            question_id = self._free_ids.pop()
        else:
            question_id, self._next_id = self._next_id, self._next_id + 1
        self._out += (head, u32(question_id), tail, *parts)
        pending = self._pending[question_id] = PendingCall(method, sent_ns)
        return pending

    def _check_size(self, words: int) -> None:
        words += PROMISE_CALL_HEAD_WORDS
        if words > self._limits.max_words:
            raise EncodeError(self._limits.too_large(words))

    def _own(self, reference: Reference) -> ImportedCap:
        held = reference.live()
        if held.exchange is not self:
            raise UnusableCapability("the capability belongs to another connection")
        return held.target

    def _descriptor(self, reference: Reference | None) -> Descriptor:
        if reference is None:
            return Descriptor(CapKind.NONE)
        return Descriptor(CapKind.RECEIVER_HOSTED, self._own(reference).import_id)

    def cancel(self, pending: PendingCall, error: ClientError, now_ns: int) -> None:
        """End a call with an error: its answer, if one still comes, is dropped."""
        for question_id, known in self._pending.items():
            if known is pending:
                del self._pending[question_id]
                self._cancelled.add(question_id)
                self._out.append(encode_finish(question_id))
                self._settle(pending, None, error, now_ns)
                return

    def receive(self, data: bytes, now_ns: int) -> None:
        """Take received bytes; the calls that they ended are in `ended`.

        Raises:
            ClientError: The server gave no interface, aborted, or broke the protocol; the
                connection is of no further use.
        """
        # Received bytes, or those kept before with them: neither is a memoryview.
        whole: Any = self._decoder.begin(data)
        at, size = 0, len(whole)
        if self._target is None:
            at = self._take_target(whole, now_ns)
        while at < size and self._target is not None:
            reply = self._reply(whole, at, size)
            if reply is None:
                break
            at, question_id, no_finish_needed, content, _ = reply
            if question_id is None:
                continue
            pending = self._pending.pop(question_id, None)
            if pending is None:
                if question_id not in self._cancelled:
                    raise ProtocolError("the server answered a call that was not made, or twice")
                # Its Finish has gone already.
                self._cancelled.remove(question_id)
            elif not no_finish_needed:
                if question_id in self._kept:
                    self._kept.remove(question_id)
                    self._out.append(encode_finish(question_id, release_result_caps=False))
                else:
                    self._out.append(encode_finish(question_id))
            self._free_ids.append(question_id)
            if pending is None:
                continue
            if isinstance(content, ClientError):
                self._settle(pending, None, content, now_ns)
            else:
                self._settle(pending, pending.method.results.open(content), None, now_ns)
        self._decoder.keep(whole, at, size)

    def give_up(self, error: ClientError, now_ns: int) -> None:
        """End all calls in flight with an error."""
        for pending in self._pending.values():
            self._settle(pending, None, error, now_ns)
        self._pending.clear()

    def _take_capabilities(
        self, answer: Return, table: Sequence[Descriptor], content: StructTuple | None
    ) -> None:
        """Let the results have their capabilities, unless nobody waits for them any more."""
        if answer.answer_id not in self._pending or content is None:
            super()._take_capabilities(answer, table, content)
            return
        if not answer.no_finish_needed:
            self._kept.add(answer.answer_id)
        content[0].capabilities = _References(
            Reference(_Import(self, each.id)) if each.kind in HELD else None for each in table
        )

    def _settle(
        self, pending: PendingCall, results: Any, error: ClientError | None, now_ns: int
    ) -> None:
        pending.results, pending.error, pending.received_ns = results, error, now_ns
        pending.is_done = True
        self.ended.append(pending)
