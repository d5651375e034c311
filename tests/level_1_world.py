"""Two connections back to back, and a model of what their references lead to.

Every capability that travels has the name of a `Truth` beside it: what it leads to, an object, or
what that waits for. Calls carry their number, and that of the reference by which they went. So an
object that is called can tell whether it is the right one, and in which order calls came.
"""

import struct
from dataclasses import dataclass, field
from typing import Any

from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.pointers import StructTuple
from capnp_rig.wire.rpc.capabilities import Capability, OpenPromise
from capnp_rig.wire.rpc.connection import (
    Answered,
    Answers,
    Called,
    Cancelled,
    Connection,
    Event,
    Failed,
    Limits,
    Released,
)
from capnp_rig.wire.rpc.inline_methods import ResultsWith
from capnp_rig.wire.rpc.messages import RemoteError

EVENT_METHOD, INLINE_METHOD = 1, 2
INTERFACE = 7
# More than an index of a result that any call has.
MAX_CAPABILITIES = 3


@dataclass(eq=False)
class Truth:
    """What a reference leads to: an object, nothing, or something else that is not known yet.

    The unknown may only become what is known, or has a lower number: so there are no circles.
    """

    number: int
    target: "Obj | None" = None
    next: "Truth | None" = None
    is_broken: bool = False
    # Calls may fail all the same: somebody gave up on the way.
    may_fail: bool = False
    # The call that it is a result of, if it is one, and then its rank.
    call: "Asked | None" = None
    rank: int = 0

    @property
    def end(self) -> "Truth":
        truth = self
        while truth.next is not None:
            truth = truth.next
        return truth

    @property
    def may_be_broken(self) -> bool:
        truth = self
        while True:
            if truth.may_fail or truth.is_broken:
                return True
            if truth.next is None:
                call = truth.call
                return call is not None and (call.is_cancelled or call.truth.may_be_broken)
            truth = truth.next


@dataclass(eq=False)
class Obj:
    """An object that a side hosts."""

    side: "Side"
    truth: Truth
    hosted: int = 0
    released: int = 0


@dataclass(eq=False)
class Reference:
    """A capability that a side holds; calls by it are counted."""

    number: int
    capability: Capability
    truth: Truth
    sent: int = 0
    was_promise: bool = False


@dataclass(eq=False)
class Asked:
    """A call that was made: its results are truths once it is answered."""

    number: int
    side: "Side"
    reference: int
    sequence: int
    truth: Truth
    question_id: int = -1
    results: list[Truth] = field(default_factory=list)
    # The unknown results, by index: what has been pipelined.
    awaited: dict[int, Truth] = field(default_factory=dict)
    # Whose results are these: of a call that was answered by this one.
    bound: int = 0
    is_answered: bool = False
    is_cancelled: bool = False
    deliveries: int = 0
    outcomes: int = 0
    failure: str | None = None


@dataclass(eq=False)
class Running:
    """A call that an object of a side has to answer."""

    question_id: int
    asked: Asked
    is_cancelled: bool = False


class Side:
    """One end, and what it holds."""

    def __init__(self, world: "World", limits: Limits | None = None) -> None:
        self.world = world
        self.main = world.new_object(self)
        self.connection = Connection(limits, self.main)
        self.references: list[Reference] = []
        self.promises: list[tuple[OpenPromise, Truth]] = []
        self.running: list[Running] = []
        self.questions: dict[int, Asked] = {}
        # What is on the way to it.
        self.incoming = b""


def encode(numbers: list[int], truths: list[Truth | None]) -> EncodedTuple:
    """Return a struct of numbers, and of capabilities with their names."""
    names = [0 if truth is None else truth.number for truth in truths]
    padded = names + [0] * (MAX_CAPABILITIES - len(names))
    data = struct.pack(f"<{len(numbers) + MAX_CAPABILITIES}Q", *numbers, *padded)
    pointers = b"".join(
        (0 if truth is None else 3 | index << 32).to_bytes(8, "little")
        for index, truth in enumerate(truths)
    )
    words = len(data + pointers) // 8
    return len(data) // 8 | len(truths) << 16, [data, pointers], words


def read(content: StructTuple, count: int) -> tuple[list[int], list[int]]:
    """Return the numbers, and the names of the capabilities."""
    message, _, _, data, data_end, *_ = content
    found = struct.unpack(f"<{count + MAX_CAPABILITIES}Q", message.buffer[data:data_end])
    return list(found[:count]), list(found[count:])


class World:
    """Both ends, all truths, and the rules that they must keep."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.count = 0
        self.truths: dict[int, Truth] = {}
        self.calls: dict[int, Asked] = {}
        # By reference: the sequence numbers of calls that came, and where.
        self.arrived: dict[int, tuple[int, Obj]] = {}
        self.sides = [Side(self, limits), Side(self, limits)]
        for side, other in zip(self.sides, reversed(self.sides), strict=True):
            main = side.connection.bootstrap()
            self.add_reference(side, main, other.main.truth)

    def new_number(self) -> int:
        self.count += 1
        return self.count

    def new_truth(self, call: Asked | None = None) -> Truth:
        truth = Truth(self.new_number(), call=call)
        # It may wait for what is older, or older than the call that it is a result of.
        truth.rank = truth.number if call is None else call.bound
        self.truths[truth.number] = truth
        return truth

    def new_object(self, side: Side) -> Obj:
        truth = self.new_truth()
        truth.target = Obj(side, truth)
        return truth.target

    def add_reference(self, side: Side, capability: Capability, truth: Truth) -> Reference:
        reference = Reference(self.new_number(), capability, truth)
        reference.was_promise = truth.end.target is None
        side.references.append(reference)
        return reference

    def other(self, side: Side) -> Side:
        return self.sides[1 - self.sides.index(side)]

    # --- what sides do

    def call(self, side: Side, pick: int, picks: list[int], method: int) -> None:
        """Call what a reference leads to, with capabilities."""
        # Mostly one that is a promise, or was when it was called: there order is in danger.
        promised = [each for each in side.references if each.was_promise and each.sent]
        unknown = [each for each in side.references if each.truth.end.target is None]
        found = (side.references, promised[-3:], promised[-3:], unknown)[pick % 4]
        reference = pick_of(found or side.references, pick // 4)
        if reference is not None:
            self.call_by(side, reference, picks, method)

    def call_by(self, side: Side, reference: Reference, picks: list[int], method: int) -> None:
        asked = Asked(self.new_number(), side, reference.number, reference.sent, reference.truth)
        reference.sent += 1
        asked.bound = asked.number
        self.calls[asked.number] = asked
        capabilities, truths = self.choose(side, picks, asked.number)
        params = encode([asked.number, reference.number, asked.sequence], truths)
        asked.question_id = side.connection.call(
            reference.capability, INTERFACE, method, params, capabilities
        )
        assert asked.question_id not in side.questions
        side.questions[asked.question_id] = asked

    def choose(
        self, side: Side, picks: list[int], bound: int
    ) -> tuple[list[Any], list[Truth | None]]:
        """Return capabilities to send: references, new objects, or null."""
        capabilities: list[Any] = []
        truths: list[Truth | None] = []
        for number in picks[:MAX_CAPABILITIES]:
            pick, kind = divmod(number, 6)
            if kind == 0:
                target = self.new_object(side)
                target.hosted = 1
                capability: Any = target
                if pick % 2:
                    # It is hosted as long as this is held.
                    capability = side.connection.host(target, self.inline_methods(target))
                    self.add_reference(side, capability, target.truth)
                capabilities.append(capability)
                truths.append(target.truth)
                continue
            # Many go back to where they came from, or are not known yet.
            usable = [each for each in side.references if self.may_become(each.truth, bound)]
            theirs = [each for each in usable if each.number > 4 and self.is_theirs(side, each)]
            unknown = [each for each in usable if each.truth.end.target is None]
            found = {3: theirs, 4: theirs[-2:], 5: unknown[-4:]}.get(kind) or usable
            reference = pick_of(found, pick)
            if kind == 1 or reference is None:
                capabilities.append(None)
                truths.append(None)
            else:
                capabilities.append(reference.capability)
                truths.append(reference.truth)
        return capabilities, truths

    def is_theirs(self, side: Side, reference: Reference) -> bool:
        target = reference.truth.end.target
        return target is not None and target.side is not side

    def may_become(self, truth: Truth, bound: int) -> bool:
        end = truth.end
        return end.target is not None or end.is_broken or end.rank < bound

    def inline_methods(self, target: Obj) -> Any:
        def answer(content: StructTuple | None) -> Any:
            assert content is not None
            asked = self.take_delivery(target, content)
            if asked.number % 5 == 0:
                return self.fail_call(asked)
            truths: list[Truth | None] = []
            capabilities: list[Any] = []
            if asked.number % 3 == 0:
                made = self.new_object(target.side)
                made.hosted = 1
                truths, capabilities = [made.truth], [made]
            self.answer_call(asked, truths)
            results = encode([asked.number], truths)
            return ResultsWith(results, capabilities) if capabilities else results

        return {(INTERFACE, INLINE_METHOD): answer}

    def pipeline(self, side: Side, pick: int, index: int) -> None:
        """Refer to a capability in the results of a call that is not answered."""
        asked = pick_of(list(side.questions.values()), pick)
        if asked is None:
            return
        # The pointers follow the numbers.
        capability = side.connection.pipeline(asked.question_id, (index,))
        self.add_reference(side, capability, self.result(asked, index))

    def pipeline_calls(self, side: Side, pick: int, picks: list[int], times: int) -> None:
        """Call, and call what the results will have there, before they are here."""
        before = len(side.questions)
        self.call(side, pick, picks, EVENT_METHOD)
        if len(side.questions) == before:
            return
        self.pipeline(side, before, 0)
        reference = side.references[-1]
        for _ in range(times):
            self.call_by(side, reference, [], EVENT_METHOD)

    def result(self, asked: Asked, index: int) -> Truth:
        asked = self.last_of(asked)
        if index not in asked.awaited:
            unknown = asked.awaited[index] = self.new_truth(asked)
            # One of its own: the call may still be given up where that is not known yet.
            if index < len(asked.results):
                unknown.next = asked.results[index]
            else:
                unknown.is_broken = asked.is_answered
        if asked.is_cancelled:
            asked.awaited[index].may_fail = True
        return asked.awaited[index]

    def copy(self, side: Side, pick: int) -> None:
        reference = pick_of(side.references, pick)
        if reference is not None:
            self.add_reference(side, reference.capability.copy(), reference.truth)

    def release(self, side: Side, pick: int, *, by_collector: bool = False) -> None:
        reference = pick_of(side.references, pick)
        if reference is not None:
            side.references.remove(reference)
            if not by_collector:
                reference.capability.release()

    def answer(self, side: Side, pick: int, kind: str, picks: list[int]) -> None:
        """Let a method end: with results, an error, or whatever another call returns."""
        running = pick_of(side.running, pick)
        if running is None:
            return
        side.running.remove(running)
        asked = running.asked
        if kind == "fails":
            side.connection.send_exception(running.question_id, self.fail_call(asked))
            return
        target = self.target_of_tail(side, asked, picks) if kind == "tail" else None
        if target is not None and not running.is_cancelled:
            self.tail_call(side, running, target, picks[1:])
            return
        capabilities, truths = self.choose(side, picks, asked.bound)
        self.answer_call(asked, truths)
        results = encode([asked.number], truths)
        side.connection.send_results(running.question_id, results, capabilities)

    def target_of_tail(self, side: Side, asked: Asked, picks: list[int]) -> Reference | None:
        reference: Reference | None = pick_of(side.references, picks[0] if picks else 0)
        if reference is None or not self.may_become(reference.truth, asked.bound):
            return None
        return reference

    def tail_call(
        self, side: Side, running: Running, reference: Reference, picks: list[int]
    ) -> None:
        asked = running.asked
        capabilities, truths = self.choose(side, picks, asked.bound)
        made = Asked(self.new_number(), side, reference.number, reference.sent, reference.truth)
        reference.sent += 1
        made.bound = asked.bound
        # All that is unknown of the one is the same of the other.
        for truth in asked.awaited.values():
            truth.call = made
        made.awaited, made.is_cancelled = asked.awaited, asked.is_cancelled
        made.outcomes = 1
        asked.is_answered = True
        asked.failure = f"tail {made.number}"
        self.calls[made.number] = made
        params = encode([made.number, reference.number, made.sequence], truths)
        side.connection.tail_call(
            running.question_id, reference.capability, INTERFACE, EVENT_METHOD, params, capabilities
        )

    def answer_call(self, asked: Asked, truths: list[Truth | None]) -> None:
        asked.is_answered = True
        for truth in truths:
            known = truth
            if known is None:
                known = self.new_truth()
                known.is_broken = True
            asked.results.append(known)
        for index, unknown in asked.awaited.items():
            if index < len(asked.results):
                unknown.next = asked.results[index]
            else:
                unknown.is_broken = True

    def fail_call(self, asked: Asked) -> RemoteError:
        asked.is_answered = True
        asked.failure = f"no {asked.number}"
        for unknown in asked.awaited.values():
            unknown.is_broken = True
        return RemoteError(asked.failure)

    def promise(self, side: Side) -> None:
        promise, truth = side.connection.promise(), self.new_truth()
        side.promises.append((promise, truth))
        self.add_reference(side, promise.copy(), truth)

    def resolve(self, side: Side, pick: int, kind: str, picks: list[int]) -> None:
        found = pick_of(side.promises, pick)
        if found is None:
            return
        side.promises.remove(found)
        promise, truth = found
        (capability,), (known,) = self.choose(side, [*picks, 1][:1], truth.number)
        if kind == "drops" or capability is None:
            truth.is_broken = True
            if kind != "drops":
                promise.reject(RemoteError(f"broken {truth.number}"))
        else:
            truth.next = known
            promise.resolve(capability)
        promise.release()

    def cancel(self, side: Side, pick: int) -> None:
        asked = pick_of(list(side.questions.values()), pick)
        if asked is None:
            return
        del side.questions[asked.question_id]
        self.give_up(asked)
        side.connection.cancel(asked.question_id)

    def give_up(self, asked: Asked) -> None:
        asked.is_cancelled = True
        for truth in asked.awaited.values():
            truth.may_fail = True
        if asked.failure is not None and asked.failure.startswith("tail "):
            self.give_up(self.calls[int(asked.failure[5:])])

    # --- what happens

    def transfer(self, side: Side, size: int) -> None:
        """Let a side get some of the bytes that were sent to it."""
        side.incoming += self.other(side).connection.data_to_send()
        part, side.incoming = side.incoming[:size], side.incoming[size:]
        self.feed(side, part)

    def feed(self, side: Side, data: bytes) -> None:
        inline = self.inline_methods(side.main)
        for event in side.connection.events(data, inline):
            self.take(side, event)

    def take(self, side: Side, event: Event) -> None:
        match event:
            case Called(question_id=question_id, params=params, target=target):
                assert isinstance(target, Obj)
                assert target.side is side
                assert params is not None
                asked = self.take_delivery(target, params)
                side.running.append(Running(question_id, asked, asked.is_cancelled))
                self.keep_capabilities(side, params, 3)
            case Answered(question_id=question_id, content=content):
                assert content is not None
                asked = side.questions.pop(question_id)
                asked.outcomes += 1
                (number,), _ = read(content, 1)
                assert number == self.last_of(asked).number
                self.keep_capabilities(side, content, 1)
            case Failed(question_id, error):
                asked = side.questions.pop(question_id)
                asked.outcomes += 1
                last = self.last_of(asked)
                if error.reason != last.failure:
                    assert last.deliveries == 0, error
                    assert last.truth.may_be_broken or last.is_cancelled, error
            case Cancelled(question_id):
                (running,) = [each for each in side.running if each.question_id == question_id]
                running.is_cancelled = True
            case Released(target):
                target.released += 1
                assert target is not side.main
            case Answers():
                pass
            case _:
                raise AssertionError(event)

    def last_of(self, asked: Asked) -> Asked:
        while asked.failure is not None and asked.failure.startswith("tail "):
            asked = self.calls[int(asked.failure[5:])]
        return asked

    def take_delivery(self, target: Obj, params: StructTuple) -> Asked:
        """Check that a call is at the right object, once, and in order."""
        (number, reference, sequence), _ = read(params, 3)
        asked = self.calls[number]
        assert asked.deliveries == 0
        asked.deliveries = 1
        assert asked.truth.end.target is target, (number, asked.truth)
        last, where = self.arrived.get(reference, (-1, target))
        assert where is target
        assert last < sequence, f"call {sequence} by reference {reference} came after {last}"
        self.arrived[reference] = sequence, target
        return asked

    def keep_capabilities(self, side: Side, content: StructTuple, count: int) -> None:
        _, names = read(content, count)
        table = getattr(content[0], "capabilities", ())
        for capability, name in zip(table, names, strict=False):
            assert (capability is None) == (name == 0)
            if capability is not None:
                self.add_reference(side, capability, self.truths[name])

    # --- the end

    def settle(self) -> None:
        """Let everything arrive, all methods end, and all promises be broken."""
        for _ in range(10_000):
            self.deliver_all()
            if not any(side.running or side.promises for side in self.sides):
                break
            for side in self.sides:
                while side.promises:
                    self.resolve(side, 0, "becomes", [1])
                while side.running:
                    self.answer(side, 0, "returns", [])
        else:
            raise AssertionError("it does not end")

    def deliver_all(self) -> None:
        for _ in range(10_000):
            before = self.count
            moved = False
            for side in self.sides:
                data = self.other(side).connection.data_to_send()
                moved |= bool(data or side.incoming or side.connection.has_events)
                side.incoming += data
                data, side.incoming = side.incoming, b""
                self.feed(side, data)
            if not moved and before == self.count:
                return
        raise AssertionError("messages go round in circles")

    def finish(self) -> None:
        """Check that nothing is left when all is answered and released."""
        self.settle()
        for asked in self.calls.values():
            assert asked.outcomes == 1 or asked.is_cancelled, asked.number
        for side in self.sides:
            while side.references:
                self.release(side, 0)
        self.deliver_all()
        for side in self.sides:
            assert_empty(side.connection)
        for truth in self.truths.values():
            if truth.target is not None:
                assert truth.target.released <= truth.target.hosted + 1
        for side in self.sides:
            (ended,) = side.connection.receive_eof()
            assert ended.error is None, ended  # type: ignore[union-attr]


def assert_empty(connection: Connection) -> None:
    """Check that a connection to which nothing refers holds nothing."""
    assert connection._questions == {}
    assert connection._answers == {}
    assert connection._exports == {}
    assert connection._imports == {}
    assert connection._embargoes == {}
    assert [node.target for node in connection._hosted.values()] == [
        connection._bootstrap and connection._bootstrap.target
    ]
    assert connection._in_flight == connection._waiting_bytes == 0
    assert not connection.has_events
    # All ids are free again.
    assert sorted(connection._free_ids) == list(range(connection._next_id))
    assert len(set(connection._free_exports)) == len(connection._free_exports)
    assert connection._bootstrap is None or connection._bootstrap.holders == 1


def pick_of(things: list[Any], pick: int) -> Any:
    return things[pick % len(things)] if things else None
