"""`AsyncReverseClient` against a model of how each call must end (faults.md, F-1 to F-4, F-6).

Many tasks call one after the other over one connection: a fake transport, a server that
answers in any order and late, bytes that arrive in any portions, a clock that only moves when
told. Nothing settles between two steps unless a step says so: answers, cancels and ends meet in
one turn of the loop.

A longer run: ``MACHINE_EXAMPLES=5000 CLIENT_SEED=7 pytest`` and this file.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from virtual_loop import VirtualLoop, connect_fake

from capnp_rig.client import (
    DeadlineExceeded,
    Disconnected,
    EncodeError,
    Overloaded,
    ProtocolError,
    RemoteError,
    UsageError,
)
from capnp_rig.client.reverse import MESSAGE_STREAM
from capnp_rig.wire.rpc.connection import Called, Cancelled, Ended, Limits
from capnp_rig.wire.rpc.message_encoder import encode_abort
from capnp_rig.wire.rpc.messages import ExceptionType
from capnp_rig.wire.rpc.messages import RemoteError as WireRemoteError
from capnp_rig.wire.rpc.server_connection import ServerConnection

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "50"))
SEED = os.environ.get("CLIENT_SEED")
READ = MESSAGE_STREAM.methods["read"]
LARGE = {"request": {"content": "x" * 4_200_000}}
CLOSE_S = 1.0


class Raises(NamedTuple):
    """A call must raise this type, with this in its text."""

    kind: type[BaseException]
    text: str = ""


@dataclass
class Record:
    """One call: how it must end, once that is decided, and how it did."""

    nonce: str
    deadline_s: float
    kind: str
    is_waiting_to_write: bool
    expected: bytes | Raises | None = None
    outcome: Any = None
    view: Any = None


@dataclass
class User:
    """A task that makes calls, one after the other."""

    task: asyncio.Task[None] | None = None
    record: Record | None = None


@dataclass
class Server:
    """What the peer knows: its own half, what it has sent, and what has arrived of that."""

    wire: ServerConnection
    # By question id: the nonces of calls that it has not answered.
    calls: dict[int, str] = field(default_factory=dict)
    # Ids that may still come in an answer.
    unsettled: set[int] = field(default_factory=set)
    output: bytearray = field(default_factory=bytearray)
    arrived: int = 0
    # Where an answer ends in the output, and what it settles.
    answers: list[tuple[int, Callable[[], None]]] = field(default_factory=list)

    def send(self, settle: Callable[[], None]) -> None:
        self.output += self.wire.data_to_send()
        self.answers.append((len(self.output), settle))


class AsyncClientMachine(RuleBasedStateMachine):
    # Calls that are never sent, as soon as they could be.
    refused = {"large": Raises(EncodeError), "unknown": Raises(AttributeError)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.server = Server(ServerConnection(Limits(max_calls_in_flight=10_000)))
        self.client, self.transport = connect_fake(self.loop, self.take)
        self.protocol = self.client._protocol
        self.users: list[User] = []
        self.records: dict[str, Record] = {}
        # What calls end in once the connection is over.
        self.ending: Raises | None = None
        self.is_heard = False

    @initialize(count=st.integers(0, 6), is_stalled=st.booleans())
    def begin(self, count: int, is_stalled: bool) -> None:
        self.start([("call", 4.0)] * 3, count)
        if is_stalled:
            self.loop.turn()
            self.stall()

    # --- the server

    def take(self, data: bytes) -> None:
        """Take what the client wrote."""
        server = self.server
        for event in server.wire.receive_data(data):
            if isinstance(event, Called):
                nonce = READ.params.open(event.params).request.content
                assert event.question_id not in server.unsettled, "an id that may still come"
                assert not self.records[nonce].is_waiting_to_write, "sent after it was over"
                server.unsettled.add(event.question_id)
                server.calls[event.question_id] = nonce
            elif isinstance(event, Ended):
                # Our half says why it ends, where it is not the peer that does.
                assert self.ending is not None, event
            else:
                assert isinstance(event, Cancelled), event
        if server.wire._out:
            # Nothing but the answer to Bootstrap comes unasked.
            server.send(self.hear)

    def hear(self) -> None:
        self.is_heard = True

    @precondition(lambda self: self.server.calls)
    @rule(
        picks=st.lists(st.integers(0, 1000), min_size=1, max_size=6),
        how=st.sampled_from(("results", "results", "results", "failed", "overloaded")),
        delivered=st.booleans(),
    )
    def answer(self, picks: list[int], how: str, delivered: bool) -> None:
        for pick in picks:
            if self.server.calls:
                self.answer_one(pick, how)
        if delivered:
            self.deliver(1 << 20)

    def answer_one(self, pick: int, how: str) -> None:
        server = self.server
        question_id = list(server.calls)[pick % len(server.calls)]
        nonce = server.calls.pop(question_id)
        expected: bytes | Raises
        if how == "results":
            expected = f"answer to {nonce}".encode()
            server.wire.send_results(question_id, READ.results.pack({"chunk": expected}))
        else:
            kind = ExceptionType.OVERLOADED if how == "overloaded" else ExceptionType.FAILED
            server.wire.send_exception(question_id, WireRemoteError(f"no {nonce}", kind))
            expected = Raises(Overloaded if how == "overloaded" else RemoteError, f"no {nonce}")

        def settle() -> None:
            server.unsettled.discard(question_id)
            self.decide(self.records[nonce], expected)

        server.send(settle)

    # --- the network

    @precondition(lambda self: self.ending is None and self.is_behind())
    @rule(size=st.one_of(st.just(1 << 20), st.integers(1, 200)))
    def deliver(self, size: int) -> None:
        self.receive(self.take_rest()[:size])

    def is_behind(self) -> bool:
        return self.server.arrived < len(self.server.output)

    def receive(self, data: bytes, *, end: Raises | None = None, behind: bytes = b"") -> None:
        """Let bytes of the server's output arrive, with others `behind` that end all."""
        server = self.server
        server.arrived += len(data)
        while server.answers and server.answers[0][0] <= server.arrived:
            server.answers.pop(0)[1]()
        if end is not None:
            self.decide_end(end)
        self.protocol.data_received(data + behind)

    @precondition(lambda self: self.ending is None and not self.transport.is_stalled)
    @rule()
    def stall(self) -> None:
        self.transport.is_stalled = True

    @precondition(lambda self: self.ending is None and self.transport.is_stalled)
    @rule()
    def resume(self) -> None:
        waiting = [each for each in self.records.values() if each.is_waiting_to_write]
        for record in waiting:
            if record.expected is None:
                record.is_waiting_to_write = False
                if record.kind in self.refused:
                    record.expected = self.refused[record.kind]
        self.transport.resume()
        if any(record.kind in self.refused for record in waiting):
            # Before the connection can end, which would be their reason.
            self.loop.settle()

    # --- its ends

    @precondition(lambda self: self.ending is None and len(self.records) > 6)
    @rule(
        how=st.sampled_from(("abort", "refuse", "garbage", "eof", "reset", "close")),
        with_rest=st.booleans(),
    )
    def end(self, how: str, with_rest: bool) -> None:
        match how:
            case "abort" | "refuse":
                self.abort(is_overloaded=how == "refuse", with_rest=with_rest)
            case "garbage":
                self.receive(self.take_rest(), end=Raises(ProtocolError), behind=b"\xff" * 64)
            case "eof":
                self.eof()
            case "reset":
                self.reset(with_rest=with_rest)
            case "close":
                self.close()

    def take_rest(self) -> bytes:
        """Return what of the server's output has not arrived."""
        return bytes(self.server.output[self.server.arrived :])

    def abort(self, *, is_overloaded: bool, with_rest: bool) -> None:
        rest = self.take_rest() if with_rest or self.server.arrived else b""
        is_heard = self.is_heard or bool(rest)
        end = Raises(Disconnected, "ended the connection: enough")
        if is_overloaded and not is_heard:
            end = Raises(Overloaded, "enough")
        kind = ExceptionType.OVERLOADED if is_overloaded else ExceptionType.FAILED
        self.receive(rest, end=end, behind=encode_abort(WireRemoteError("enough", kind)))

    def eof(self) -> None:
        wire: Any = self.protocol._wire
        is_cut = wire._decoder.pending_bytes > 0
        self.decide_end(Raises(ProtocolError if is_cut else Disconnected))
        self.protocol.eof_received()
        self.transport.close()

    def reset(self, *, with_rest: bool) -> None:
        self.loop.settle()
        if with_rest:
            # It had arrived, but the transport did not come to reading it.
            self.transport.socket.rest = self.take_rest()
            for _, settle in self.server.answers:
                settle()
        self.decide_end(Raises(Disconnected, "lost: Broken pipe"))
        self.transport.fail(BrokenPipeError(32, "Broken pipe"))
        self.loop.turn()

    def close(self) -> None:
        self.loop.settle()
        self.decide_end(Raises(Disconnected, "the client is closed"))
        self.loop.run_until_complete(asyncio.wait_for(self.client.close(), 2 * CLOSE_S))

    # --- the callers

    @rule(
        calls=st.lists(
            st.tuples(
                st.sampled_from(("call",) * 8 + ("large", "unknown", "timeout", "at once")),
                st.sampled_from((0.25, 1.0, 4.0, 16.0)),
            ),
            min_size=1,
            max_size=5,
        ),
        count=st.integers(1, 4),
    )
    def start(self, calls: list[tuple[str, float]], count: int) -> None:
        for _ in range(count):
            user = User()
            user.task = self.loop.create_task(self.use(user, calls))
            self.users.append(user)

    async def use(self, user: User, calls: list[tuple[str, float]]) -> None:
        for kind, timeout_s in calls:
            record = user.record = self.record(kind, timeout_s)
            try:
                record.view = await self.make(record, timeout_s)
                record.outcome = bytes(record.view.chunk)
            except asyncio.CancelledError as error:
                record.outcome = error
                raise
            except Exception as error:
                record.outcome = error

    def record(self, kind: str, timeout_s: float) -> Record:
        nonce = f"call {len(self.records)}"
        is_paused = self.protocol._is_paused and self.ending is None
        record = Record(nonce, self.loop.time() + timeout_s, kind, is_paused)
        at_once = {"timeout": Raises(UsageError), "at once": Raises(DeadlineExceeded)}
        if kind in at_once:
            record.expected = at_once[kind]
        elif self.ending is not None:
            record.expected = self.ending
        elif not is_paused:
            record.expected = self.refused.get(kind)
        self.records[nonce] = record
        return record

    async def make(self, record: Record, timeout_s: float) -> Any:
        match record.kind:
            case "large":
                return await self.client.call("read", LARGE, timeout_s=timeout_s)
            case "unknown":
                return await self.client.call("write", {}, timeout_s=timeout_s)
            case "timeout":
                return await self.client.call("read", {}, timeout_s=float("nan"))
            case "at once":
                return await self.client.call("read", {}, timeout_s=0)
        params = {"request": {"content": record.nonce}}
        return await self.client.call("read", params, timeout_s=timeout_s)

    @precondition(lambda self: any(self.running()))
    @rule(pick=st.integers(0, 1000))
    def cancel(self, pick: int) -> None:
        running = self.running()
        user = running[pick % len(running)]
        assert user.task is not None
        user.task.cancel()
        # Even where its answer is here: the task has not run since.
        if user.record is not None and user.record.outcome is None:
            user.record.expected = Raises(asyncio.CancelledError)

    def running(self) -> list[User]:
        return [user for user in self.users if user.task is not None and not user.task.done()]

    # --- time

    @rule(turns=st.integers(1, 3))
    def turn(self, turns: int) -> None:
        for _ in range(turns):
            self.loop.turn()

    @rule(seconds=st.sampled_from((0.25, 0.5, 2.0, 20.0)), settles=st.booleans())
    def advance(self, seconds: float, settles: bool = True) -> None:
        self.loop.settle()
        self.loop.advance(seconds, settles=settles)
        for record in self.records.values():
            if record.deadline_s <= self.loop.time():
                self.decide(record, Raises(DeadlineExceeded))
        if settles:
            self.check()

    @rule()
    def settle(self) -> None:
        self.loop.settle()
        self.check()

    # --- the model

    def decide(self, record: Record, expected: bytes | Raises) -> None:
        """Settle how a call must end, unless that is settled."""
        if record.expected is None:
            record.expected = expected

    def decide_end(self, end: Raises) -> None:
        self.ending = end
        self.server.calls.clear()
        for record in self.records.values():
            self.decide(record, end)

    def check(self) -> None:
        """Compare all outcomes with the model; nothing is ready to run."""
        assert self.loop.faults == []
        for record in self.records.values():
            outcome, expected = record.outcome, record.expected
            if isinstance(expected, Raises):
                assert type(outcome) is expected.kind, record
                assert expected.text in str(outcome), record
            else:
                assert outcome == expected, record
        errors = [r.outcome for r in self.records.values() if isinstance(r.outcome, Exception)]
        assert len(set(map(id, errors))) == len(errors), "two callers got one exception"

    def teardown(self) -> None:
        try:
            self.settle()
            # One round more than there are users: for answers that nobody waits for.
            for _ in range(100):
                if self.ending is not None:
                    break
                is_last = not self.running()
                self.serve_all()
                if is_last:
                    break
            if self.ending is None:
                assert self.protocol._wire._questions == {}
                self.close()
            self.advance(2 * CLOSE_S)
            self.check_nothing_is_left()
        finally:
            self.loop.close()

    def serve_all(self) -> None:
        """Let everything that was called arrive, be answered, and the answers arrive."""
        if self.transport.is_stalled:
            self.resume()
        self.loop.settle()
        while self.server.calls:
            self.answer_one(0, "results")
        if self.is_behind():
            self.deliver(1 << 20)
        self.settle()

    def check_nothing_is_left(self) -> None:
        assert self.running() == []
        assert self.protocol._caller._waiting == {}
        assert self.protocol._unsent == {}
        assert self.protocol.session._methods == {}
        assert self.transport.is_lost
        assert asyncio.all_tasks(self.loop) == set()
        assert self.loop.timers() == []
        for record in self.records.values():
            # A view that was kept reads as on its first day.
            if record.view is not None:
                assert bytes(record.view.chunk) == record.expected


@pytest.mark.no_cover
# 50 examples take 5 s; this is for a machine five times as slow, or for more of them.
@pytest.mark.timeout(max(60, EXAMPLES))
def test_f3_f4_every_call_ends_as_the_model_says() -> None:
    machine = AsyncClientMachine
    if SEED is not None:
        machine = hypothesis.seed(int(SEED))(machine)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            derandomize=SEED is None,
            deadline=None,
            # Explaining a failure traces every line, of all examples.
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
