"""State machines: one half against a model of its tables, and both halves joined (faults.md, D).

Both are derandomised: the same cases every time, and a failing one prints its steps.
"""

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from fuzz.mutate import split
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from raw_peer import (
    bootstrap,
    call_builder,
    decoded,
    empty,
    encoded,
    finish,
    release,
)

from capnp_rig.schema import message
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT
from capnp_rig.wire.encoding.pointers import StructTuple, detached
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.connection import (
    Answered,
    Answers,
    Called,
    Cancelled,
    Ended,
    Failed,
    Limits,
)
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.messages import RemoteError
from capnp_rig.wire.rpc.server_connection import ServerConnection

READ = compile_interface(message.MessageStream).methods["read"]
SETTINGS = settings(
    max_examples=int(os.environ.get("MACHINE_EXAMPLES", "80")),
    stateful_step_count=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
# Few, so that ids meet again and limits are reached.
IDS = st.integers(0, 5)
MAX_IN_FLIGHT, MAX_ANSWERS = 3, 5
INLINE, EVENTS = 7, 8
# One that was never sent is rare, since it ends the run.
CALLEES = [("export", 0)] * 6 + [("export", 1)] + [("promise", number) for number in range(4)]

# As in test_mutations.
pytestmark = pytest.mark.no_cover


@dataclass
class Model:
    """What rpc.capnp says of a callee with one capability, whose results hold none.

    A call is running, or waits for the answer of another.
    """

    answers: dict[int, str] = field(default_factory=dict)
    # What each call waits for, and which calls nobody wants any more.
    waits_for: dict[int, int] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    references: int = 0
    # What the callee has to send, and to report, for what it got.
    due: list[tuple[str, int]] = field(default_factory=list)
    events: list[tuple[str, int]] = field(default_factory=list)
    ended: bool = False

    @property
    def in_flight(self) -> int:
        return sum(state != "bootstrap" for state in self.answers.values())

    def end(self, *, with_abort: bool = True) -> None:
        self.ended = True
        self.events.append(("ended", 0))
        if with_abort:
            self.due.append(("abort", 0))

    def take(self, question_id: int, state: str) -> bool:
        if question_id in self.answers or len(self.answers) >= MAX_ANSWERS:
            self.end()
            return False
        self.answers[question_id] = state
        return True

    def bootstrap(self, question_id: int) -> None:
        if self.take(question_id, "bootstrap"):
            self.references += 1
            self.due.append(("capability", question_id))

    def call(self, question_id: int, callee: tuple[str, int], method_id: int) -> None:
        kind, number = callee
        is_gone = kind == "export" and (number != 0 or not self.references)
        state = self.answers.get(number) if kind == "promise" else "bootstrap"
        waits = state in {"running", "waiting"} and number not in self.finished
        # What is answered on the spot takes no slot.
        is_over = (method_id != INLINE or waits) and self.in_flight >= MAX_IN_FLIGHT
        if is_gone or question_id in self.answers:
            self.end()
        elif is_over or (state != "bootstrap" and not waits):
            self.due.append(("exception", question_id))
        elif waits:
            if self.take(question_id, "waiting"):
                self.waits_for[question_id] = number
        elif method_id != INLINE:
            if self.take(question_id, "running"):
                self.events.append(("called", question_id))
        else:
            self.due.append(("results", question_id))

    def finish(self, question_id: int, *, releases: bool) -> None:
        state = self.answers.get(question_id)
        if state == "bootstrap":
            del self.answers[question_id]
            if releases:
                self.release(0, 1)
        elif state is not None and question_id not in self.finished:
            self.finished.add(question_id)
            self.cancel(question_id)

    def cancel(self, question_id: int) -> None:
        """Cancel a call that was finished, unless others wait for its answer."""
        if question_id in self.waits_for.values():
            return
        if self.answers[question_id] == "running":
            self.events.append(("cancelled", question_id))
            return
        parent = self.waits_for.pop(question_id)
        self.settle(question_id, "canceled")
        if parent in self.finished:
            self.cancel(parent)

    def release(self, export: int, count: int) -> None:
        if export != 0 or not self.references or count > self.references:
            self.end()
        else:
            self.references -= count

    def settle(self, question_id: int, kind: str) -> None:
        """End a call, and with it those that wait for its answer."""
        ending = [(question_id, kind)]
        for number, outcome in ending:
            del self.answers[number]
            self.due.append(("canceled" if number in self.finished else outcome, number))
            self.finished.discard(number)
            waiting = [child for child, parent in self.waits_for.items() if parent == number]
            ending += [(child, "exception") for child in waiting]
            for child in waiting:
                del self.waits_for[child]


class ServerMachine(RuleBasedStateMachine):
    """Raw frames, in any portions, against `ServerConnection`; replies as pycapnp reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.may_end = False
        self.start()

    def start(self) -> None:
        limits = Limits(max_calls_in_flight=MAX_IN_FLIGHT, max_answers=MAX_ANSWERS)
        self.server = ServerConnection(limits)
        self.model = Model()
        self.waiting = b""

    def send(self, frame: bytes, change: Callable[[Model], None]) -> None:
        """Send a frame, unless it ends a connection that is to go on."""
        if self.model.ended:
            return
        after = copy.deepcopy(self.model)
        change(after)
        if self.may_end or not after.ended:
            self.waiting += frame
            self.model = after
        # Also where hypothesis leaves that rule out.
        if len(self.waiting) > 1000:
            self.is_delivered([7, 100])

    @initialize(question_id=IDS, may_end=st.sampled_from([False, False, False, True]))
    def begins(self, question_id: int, may_end: bool) -> None:
        self.may_end = may_end
        self.send(bootstrap(question_id), lambda model: model.bootstrap(question_id))

    # --- what the peer sends: the model is told at once, the server when it is delivered

    @rule(question_id=IDS)
    def sends_bootstrap(self, question_id: int) -> None:
        self.send(bootstrap(question_id), lambda model: model.bootstrap(question_id))

    @rule(
        question_id=st.integers(0, 9),
        callee=st.sampled_from(CALLEES),
        method_id=st.sampled_from([INLINE, EVENTS, EVENTS]),
        # More than a layout has: `decode` reads it.
        noops=st.sampled_from([0, 0, 1, 9]),
    )
    def sends_call(
        self,
        question_id: int,
        callee: tuple[str, int],
        method_id: int,
        noops: int,
    ) -> None:
        kind, number = callee
        where: dict[str, Any] = {kind: number}
        if kind == "promise" and noops:
            where["path"] = (None,) * noops
        build = call_builder(question_id, method_id=method_id, **where)
        content = build.call.params.content.as_struct(READ_PARAMS)
        content.request.content = f"text {question_id}"
        self.send(
            encoded(build),
            lambda model: model.call(question_id, callee, method_id),
        )

    @rule(numbers=st.lists(st.integers(10, 20), min_size=1, max_size=4, unique=True))
    def sends_calls(self, numbers: list[int]) -> None:
        for number in numbers:
            self.sends_call(number, ("export", 0), EVENTS, noops=0)

    @rule(question_id=st.integers(0, 20), releases=st.booleans())
    def sends_finish(self, question_id: int, releases: bool) -> None:
        self.send(
            finish(question_id, release=releases),
            lambda model: model.finish(question_id, releases=releases),
        )

    @rule(count=st.integers(0, 2))
    def sends_release(self, count: int) -> None:
        self.send(release(0, count), lambda model: model.release(0, count))

    @rule(kind=st.sampled_from(["join", "provide", "accept"]))
    def sends_what_level_1_does_not_know(self, kind: str) -> None:
        self.send(empty(kind), lambda model: model.due.append(("unimplemented", 0)))

    @rule(kind=st.sampled_from(["return", "resolve", "unimplemented", "abort"]))
    def sends_what_ends_it(self, kind: str) -> None:
        self.send(empty(kind), lambda model: model.end(with_abort=kind != "abort"))

    # --- what happens

    @rule(parts=st.lists(st.integers(1, 200), max_size=6))
    def is_delivered(self, parts: list[int]) -> None:
        waiting, self.waiting = self.waiting, b""
        found: list[tuple[str, int]] = []
        for size in [*parts, len(waiting)]:
            part, waiting = waiting[:size], waiting[size:]
            inline = {(READ_ID, INLINE): self.answers_inline}
            for event in self.server.events(part, inline):
                match event:
                    case Called(question_id=question_id, params=params):
                        assert text_of(params) == f"text {question_id}"
                        found.append(("called", question_id))
                    case Cancelled(question_id):
                        found.append(("cancelled", question_id))
                    case Ended():
                        found.append(("ended", 0))
                    case Answers():
                        pass
        expected, self.model.events = self.model.events, []
        assert found == expected, (found, expected)
        self.sends_what_is_due()
        if self.model.ended:
            assert self.server.ended
            assert self.server.receive_eof() == []
            self.start()

    def answers_inline(self, params: StructTuple | None) -> Any:
        assert text_of(params).startswith("text ")
        return EMPTY_STRUCT

    @rule(pick=st.integers(0), fails=st.booleans())
    def a_method_ends(self, pick: int, fails: bool) -> None:
        self.is_delivered([])
        running = [number for number, state in self.model.answers.items() if state == "running"]
        if not running:
            return
        question_id = running[pick % len(running)]
        if fails:
            self.server.send_exception(question_id, RemoteError("no"))
        else:
            self.server.send_results(question_id, EMPTY_STRUCT)
        self.model.settle(question_id, "exception" if fails else "results")

    def teardown(self) -> None:
        """Deliver what waits, and let all methods end."""
        for _ in range(MAX_IN_FLIGHT + 1):
            self.a_method_ends(0, fails=False)
        assert not self.server.calls_in_flight

    def sends_what_is_due(self) -> None:
        replies = [decoded(frame) for frame in split(self.server.data_to_send())]
        found = [
            (reply.kind, 0 if reply.kind == "unimplemented" else reply.id) for reply in replies
        ]
        expected, self.model.due = self.model.due, []
        assert found == expected, (found, expected)

    @invariant()
    def counts_its_calls(self) -> None:
        if not self.waiting and not self.model.ended:
            assert self.server.calls_in_flight == self.model.in_flight


READ_ID = READ.interface_id
READ_PARAMS = message.MessageStream.schema.methods["read"].param_type


def text_of(params: StructTuple | None) -> str:
    text: str = READ.params.open(params).request.content
    return text


class JoinedMachine(RuleBasedStateMachine):
    """`ClientConnection` and `ServerConnection`, joined by two streams cut anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.client = ClientConnection()
        self.server = ServerConnection()
        self.to_server = self.to_client = b""
        self.number = 0
        # By question: the text that was sent, of calls that have no outcome yet.
        self.asked: dict[int, str] = {}
        self.given_up: set[int] = set()
        # The calls that the server runs.
        self.running: dict[int, StructTuple | None] = {}
        self.outcomes = 0

    @rule(size=st.integers(0, 40))
    def calls(self, size: int) -> None:
        self.number += 1
        text = f"{self.number}:" + "é" * size
        params = READ.params.write({"request": {"content": text}})
        question_id = self.client.call(READ.interface_id, READ.method_id, params)
        assert question_id not in self.asked
        assert question_id not in self.given_up
        self.asked[question_id] = text

    @precondition(lambda self: self.asked)
    @rule(pick=st.integers(0))
    def gives_up(self, pick: int) -> None:
        question_id = sorted(self.asked)[pick % len(self.asked)]
        self.client.cancel(question_id)
        del self.asked[question_id]
        self.given_up.add(question_id)

    @rule(size=st.integers(1, 400))
    def the_server_gets(self, size: int) -> None:
        self.to_server += self.client.data_to_send()
        part, self.to_server = self.to_server[:size], self.to_server[size:]
        for event in self.server.receive_data(part):
            match event:
                case Called(question_id=question_id, params=params):
                    self.running[question_id] = None if params is None else detached(params)
                case Cancelled(question_id):
                    assert question_id in self.running
                case _:
                    raise AssertionError(event)

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0), fails=st.booleans())
    def a_method_ends(self, pick: int, fails: bool) -> None:
        question_id = sorted(self.running)[pick % len(self.running)]
        text = text_of(self.running.pop(question_id))
        if fails:
            self.server.send_exception(question_id, RemoteError(text))
        else:
            chunk = text[::-1].encode()
            self.server.send_results(question_id, READ.results.write({"chunk": chunk}))

    @rule(size=st.integers(1, 400))
    def the_client_gets(self, size: int) -> None:
        self.to_client += self.server.data_to_send()
        part, self.to_client = self.to_client[:size], self.to_client[size:]
        for event in self.client.receive_data(part):
            match event:
                case Answered(question_id=question_id, content=content):
                    text = self.asked.pop(question_id)
                    assert READ.results.open(content).chunk == text[::-1].encode()
                case Failed(question_id, error):
                    assert error.reason == self.asked.pop(question_id)
                case _:
                    raise AssertionError(event)
            self.outcomes += 1
        # Its id is free when the client has settled it.
        self.given_up &= set(self.client._questions)

    def teardown(self) -> None:
        """Let all arrive that is on its way: each call has one outcome, and no table an entry."""
        for _ in range(3):
            self.the_server_gets(1 << 20)
            while self.running:
                self.a_method_ends(0, fails=False)
            self.the_client_gets(1 << 20)
        assert not self.asked
        assert self.client.calls_in_flight == self.server.calls_in_flight == 0
        assert not self.client._questions
        assert not self.server._answers
        assert not self.server.receive_eof()[0].error
        assert not self.client.receive_eof()[0].error


ServerMachine.TestCase.settings = SETTINGS
JoinedMachine.TestCase.settings = SETTINGS
TestServerKeepsToItsModel = ServerMachine.TestCase
TestJoinedHalvesLoseNothing = JoinedMachine.TestCase
