"""Single calls of any method on one connection, without its socket: for scenarios of users' own.

`capnp_exchange.Exchange` sends the requests of a workload again and again. Here each call has
params of its own, and the caller gets a view of its results. What stays the same from call to call
is learned per method all the same. A call whose params have the size of those before is the same
frame but for the question id and the params. A reply whose table, types and pointers are those
of the one before has its results in the same place: two comparisons find them (0.5 µs, where
following the pointers takes 2.7).
"""

from dataclasses import dataclass
from typing import Any

from capnp_rig.client.errors import ClientError, ProtocolError
from capnp_rig.loadtest.protocols.capnp_exchange import (
    BEHIND_ID,
    ID_AT,
    CapnpConnection,
    u32,
    u32_at,
)
from capnp_rig.loadtest.protocols.exchange import Bytes
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.frames import DEFAULT_LIMITS
from capnp_rig.wire.encoding.pointers import Message, StructTuple
from capnp_rig.wire.errors import EncodeError
from capnp_rig.wire.rpc.interfaces import Method
from capnp_rig.wire.rpc.message_encoder import (
    PROMISE_CALL_HEAD_WORDS,
    encode_call,
    encode_finish,
)
from capnp_rig.wire.rpc.messages import PromisedAnswer, Target, plain_return

# Where the results begin in a frame, in the layout that all known servers write.
_CONTENT_AT = 72
_BOOTSTRAP = PromisedAnswer(0)
_MAX_WORDS = DEFAULT_LIMITS.max_words
_BUDGET_WORDS = DEFAULT_LIMITS.traversal_words


class _ReplyLayout:
    """Where the results are in a method's last reply; offsets count from the frame's start."""

    __slots__ = ("data_end", "depth", "head", "no_finish_needed", "pointers_end", "size", "tail")

    def __init__(
        self, reply: Bytes, at: int, content: StructTuple, *, no_finish_needed: bool
    ) -> None:
        _, _, end, _, _, self.data_end, self.pointers_end, self.depth = content
        self.size = end - at
        self.data_end -= at
        self.pointers_end -= at
        self.head = bytes(reply[at : at + ID_AT])
        self.tail = bytes(reply[at + BEHIND_ID : at + _CONTENT_AT])
        self.no_finish_needed = no_finish_needed

    def find(self, data: Bytes, at: int) -> StructTuple | None:
        """Return where the results of the frame at `at` are, None if it is laid out otherwise."""
        end = at + self.size
        if not (
            end <= len(data)
            and data.startswith(self.head, at)
            and data.startswith(self.tail, at + BEHIND_ID)
        ):
            return None
        data_end, pointers_end = at + self.data_end, at + self.pointers_end
        message = Message(data, ((at + 8, end),), _BUDGET_WORDS - (self.pointers_end >> 3))
        return message, at + 8, end, at + _CONTENT_AT, data_end, data_end, pointers_end, self.depth


class _MethodFrames:
    """What was learned of a method: the head of its last call, and where its last reply was.

    The head is all in front of the params but for the question id; it goes with `call_key`.
    """

    __slots__ = ("call_head", "call_key", "call_tail", "reply")

    def __init__(self) -> None:
        self.call_key: tuple[Target, int, int] | None = None
        self.call_head = self.call_tail = b""
        self.reply: _ReplyLayout | None = None

    def learn_call(self, method: Method, target: Target, params: EncodedTuple) -> None:
        """Take the head of a call to `target` whose params have these sizes."""
        head = bytes(encode_call(0, target, method.interface_id, method.method_id, params)[0])
        self.call_key = target, params[0], params[2]
        self.call_head, self.call_tail = head[:ID_AT], head[BEHIND_ID:]


@dataclass(eq=False, slots=True)
class PendingCall:
    """A call under way: `results` or `error` once it `is_done`; times in ns of the owner's clock.

    `waiter` is for the owner, who puts there whom to tell.
    """

    method: Method
    frames: _MethodFrames
    sent_ns: int
    received_ns: int = 0
    results: Any = None
    error: ClientError | None = None
    is_done: bool = False
    waiter: Any = None


class CallExchange(CapnpConnection):
    """The calls of one connection. The first ones go to the promise of the server's interface."""

    def __init__(self) -> None:
        super().__init__()
        # By question id, in the order of sending.
        self._pending: dict[int, PendingCall] = {}
        self._frames: dict[str, _MethodFrames] = {}
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

    def call(self, method: Method, params: EncodedTuple, sent_ns: int) -> PendingCall:
        """Queue a call; `output` has its bytes.

        Raises:
            EncodeError: The message would be over the frame limit.
        """
        target, (sizes, parts, words) = self._target or _BOOTSTRAP, params
        frames = self._frames.get(method.name)
        if frames is None:
            frames = self._frames[method.name] = _MethodFrames()
        if frames.call_key != (target, sizes, words):
            _check_size(words)
            frames.learn_call(method, target, params)
        if self._free_ids:
            question_id = self._free_ids.pop()
        else:
            question_id, self._next_id = self._next_id, self._next_id + 1
        self._out += (frames.call_head, u32(question_id), frames.call_tail, *parts)
        pending = self._pending[question_id] = PendingCall(method, frames, sent_ns)
        return pending

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
        at, size, pending_calls = 0, len(whole), self._pending
        if self._target is None:
            at = self._take_interface(whole)
        while at < size and self._target is not None:
            pending = content = None
            if size - at >= _CONTENT_AT:
                question_id = u32_at(whole, at + ID_AT)[0]
                pending = pending_calls.get(question_id)
                if pending is not None and pending.frames.reply is not None:
                    layout = pending.frames.reply
                    content = layout.find(whole, at)
            if pending is None or content is None:
                length = self._decode_reply(whole, at, now_ns)
                if not length:
                    break
                at += length
                continue
            # As `_decode_reply`, spelled out: three calls less in every reply.
            del pending_calls[question_id]
            self._free_ids.append(question_id)
            if not layout.no_finish_needed:
                self._out.append(encode_finish(question_id))
            pending.results, pending.received_ns = pending.method.results.open(content), now_ns
            pending.is_done = True
            self.ended.append(pending)
            at += layout.size
        self._decoder.keep(whole, at, size)

    def give_up(self, error: ClientError, now_ns: int) -> None:
        """End all calls in flight with an error."""
        for pending in self._pending.values():
            self._settle(pending, None, error, now_ns)
        self._pending.clear()

    def _settle(
        self, pending: PendingCall, results: Any, error: ClientError | None, now_ns: int
    ) -> None:
        pending.results, pending.error, pending.received_ns = results, error, now_ns
        pending.is_done = True
        self.ended.append(pending)

    def _decode_reply(self, data: Bytes, at: int, now_ns: int) -> int:
        """Decode the reply at `at`; return its length, 0 if it is not whole yet."""
        message = self._cut(data, at)
        if message is None:
            return 0
        end = message.bounds[-1][1]
        plain = plain_return(message) if len(message.bounds) == 1 else None
        question_id, no_finish_needed, content = plain or self._open(message)
        if question_id in self._cancelled:
            # Its Finish has gone already.
            self._cancelled.remove(question_id)
            self._free_ids.append(question_id)
            return end - at
        pending = self._pending.get(question_id)
        if pending is None:
            raise ProtocolError("the server answered a call that was not made, or twice")
        self._close(question_id, no_finish_needed)
        if isinstance(content, ClientError):
            self._settle(pending, None, content, now_ns)
            return end - at
        self._settle(pending, pending.method.results.open(content), None, now_ns)
        if plain is not None and plain[2][3] - at == _CONTENT_AT:
            pending.frames.reply = _ReplyLayout(
                data, at, plain[2], no_finish_needed=no_finish_needed
            )
        return end - at

    def _close(self, question_id: int, no_finish_needed: bool) -> None:
        del self._pending[question_id]
        self._free_ids.append(question_id)
        if not no_finish_needed:
            self._out.append(encode_finish(question_id))


def _check_size(words: int) -> None:
    words += PROMISE_CALL_HEAD_WORDS
    if words > _MAX_WORDS:
        raise EncodeError(f"message is too large: {words * 8} bytes, the limit is {_MAX_WORDS * 8}")
