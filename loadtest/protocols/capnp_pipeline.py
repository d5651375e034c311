"""Calls that each come behind a chain of calls of their own, all in one round trip.

What leaves for a call is one write: the calls of the chain, each to the promised answer to the one
before, then the measured call to the promised answer to the last. The slot is the question id of
the measured call; those of the chain have ids of their own, which are free once they are answered.
The answers to the chain are not looked into, but for errors, and finished with the next bytes that
leave, which gives their capabilities back.
"""

from collections.abc import Iterable, Sequence
from typing import Any, cast

from capnp_rig.client.via import Step
from capnp_rig.loadtest.protocols.capnp_exchange import (
    BEHIND_ID,
    ID_AT,
    Exchange,
    Prepared,
    Reply,
    u32,
)
from capnp_rig.loadtest.protocols.capnp_walk import broken_by
from capnp_rig.loadtest.protocols.exchange import Bytes
from capnp_rig.loadtest.workload import Request
from capnp_rig.objects.errors import ClientError
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.pointers import Buffer
from capnp_rig.wire.rpc.capability_encoder import encode_call_with
from capnp_rig.wire.rpc.interfaces import Method
from capnp_rig.wire.rpc.layouts import two_at
from capnp_rig.wire.rpc.message_encoder import encode_call, encode_finish
from capnp_rig.wire.rpc.messages import RETURN_PREFIX, ImportedCap, PromisedAnswer

_LAST_ID = 0xFFFFFFFF
# Of a Return in the layout of every known peer: where the id and what follows it end, and what that
# is with results that need a Finish, whether it keeps the params' capabilities or not.
_RESULTS_AT, _NEEDS_FINISH = ID_AT + 8, (0, 1)


class _Calls:
    """Calls as they leave, around their question ids and those that they are pipelined on."""

    def __init__(self) -> None:
        # What stands in front of an id, and the number of the call in the chain whose id that is.
        self.pieces: list[tuple[bytes, int]] = []
        self.tail: list[Buffer] = [b""]

    def add(self, number: int, frame: Sequence[Buffer], promise_at: int = 0) -> None:
        """Add a call, whose frame names the question before at `promise_at`, if it does."""
        head, *params = frame
        self.pieces.append((b"".join([*self.tail, head[:ID_AT]]), number))
        at = BEHIND_ID
        if promise_at:
            self.pieces.append((bytes(head[at:promise_at]), number - 1))
            at = promise_at + 4
        self.tail = [head[at:], *params]

    def copy(self) -> "_Calls":
        """Return the same calls, to which others may be added."""
        calls = _Calls()
        calls.pieces, calls.tail = self.pieces.copy(), self.tail
        return calls


def _chained(steps: Sequence[Step], params: Iterable[EncodedTuple], target: ImportedCap) -> _Calls:
    """Return the calls of a chain that begins at `target`."""
    calls = _Calls()
    for number, (step, encoded) in enumerate(zip(steps, params, strict=True)):
        method = step.method
        if number:
            _add_pipelined(calls, number, steps[number - 1], method, encoded)
        else:
            calls.add(0, encode_call(0, target, method.interface_id, method.method_id, encoded))
    return calls


def _add_pipelined(
    calls: _Calls, number: int, before: Step, method: Method, params: EncodedTuple
) -> None:
    """Add a call to the capability in the promised answer to the call `before`."""
    frame, other = (
        encode_call_with(
            0,
            PromisedAnswer(question_id, before.path),
            (method.interface_id, method.method_id),
            params,
            (),
        )
        for question_id in (0, _LAST_ID)
    )
    differ = (at for at, (a, b) in enumerate(zip(frame[0], other[0], strict=True)) if a != b)
    calls.add(number, frame, next(differ))


class _PreparedPipeline(Prepared):
    """A request behind its chain."""

    __slots__ = ("pieces",)

    def __init__(self, request: Request, calls: _Calls) -> None:
        super().__init__(request, [b""])
        self.pieces, self.tail = calls.pieces, calls.tail


class PipelinedExchange(Exchange):
    """The calls of one connection, each behind a chain of its own."""

    def __init__(self, workload: Any, user: int, in_flight: int, **more: Any) -> None:
        super().__init__(workload, user, in_flight, **more)
        self._chain = workload.chain
        # The chain with params that are the same each time.
        self._constant: _Calls | None = None
        self._free_ids: list[int] = []
        self._next_id = in_flight + 1
        # By question id of a call of a chain: its number there, and the slot of the call behind it.
        self._asked: dict[int, tuple[int, int]] = {}
        # By slot of a call in flight: what its chain ended in.
        self._broken: dict[int, ClientError] = {}
        self._finishes: list[bytes] = []

    def send(self, due_ns: int, now_ns: int) -> None:
        """Queue the next request and its chain on a free slot; `output` has their bytes."""
        slot = self._free.pop()
        request = next(self._requests)
        prepared = self._prepared.get(request) or self._prepare(request)
        self._flight[slot] = (prepared, due_ns, now_ns)
        ids = [u32(self._ask(number, slot)) for number in range(len(self._chain.steps))]
        ids.append(u32(slot))
        for piece, number in cast("_PreparedPipeline", prepared).pieces:
            self._out += (piece, ids[number])
        self._out += prepared.tail

    def output(self) -> bytes:
        """Return the bytes to send, and forget them; what only ends questions waits for others."""
        if self._out or not self._flight:
            # In front: their ids may be those of calls that leave now.
            self._out[:0] = self._finishes
            self._finishes.clear()
        return super().output()

    def _ask(self, number: int, slot: int) -> int:
        """Return a question id for a call of a chain."""
        if self._free_ids:
            question_id = self._free_ids.pop()
        else:
            question_id, self._next_id = self._next_id, self._next_id + 1
        self._asked[question_id] = number, slot
        return question_id

    def _prepare(self, request: Request) -> _PreparedPipeline:
        assert self._target is not None
        steps = self._chain.steps
        if request.chain:
            calls = _chained(steps, request.chain, self._target)
        else:
            if self._constant is None:
                self._constant = _chained(steps, self._chain.pack(), self._target)
            calls = self._constant.copy()
        _add_pipelined(calls, len(steps), steps[-1], self._workload.method, request.params)
        if not self._workload.is_repeating:
            return _PreparedPipeline(request, calls)
        calls.tail = [b"".join(calls.tail)]
        prepared = self._prepared[request] = _PreparedPipeline(request, calls)
        return prepared

    def _reply(self, data: Bytes, at: int, size: int) -> Reply | None:
        """Return what the frame at `at` says; of an answer to a chain, only that it has results."""
        if data.startswith(RETURN_PREFIX, at + 8) and at + _RESULTS_AT <= size:
            (segments, words), (question_id, flags) = two_at(data, at), two_at(data, at + ID_AT)
            end = at + 8 + 8 * words
            is_known = question_id in self._asked and flags in _NEEDS_FINISH
            if is_known and not segments and end <= size:
                return end, question_id, False, None, None
        return super()._reply(data, at, size)

    def _judge(self, reply: Reply, data: Bytes, at: int, now_ns: int) -> None:
        end, question_id, no_finish_needed, content, layout = reply
        asked = None if question_id is None else self._asked.pop(question_id, None)
        if question_id is None or asked is None:
            broken = None if question_id is None else self._broken.pop(question_id, None)
            if broken is not None and isinstance(content, ClientError):
                # The call has failed because of its chain.
                reply = end, question_id, no_finish_needed, broken, layout
            super()._judge(reply, data, at, now_ns)
            return
        number, slot = asked
        if not no_finish_needed:
            self._finishes.append(encode_finish(question_id))
        self._free_ids.append(question_id)
        if isinstance(content, ClientError) and slot in self._flight:
            # The first one: the calls behind it fail because of it.
            self._broken.setdefault(slot, broken_by(self._chain.steps[number], content))
