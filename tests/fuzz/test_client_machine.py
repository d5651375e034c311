"""A state machine over the blocking `ReverseClient` and its threads (faults.md, F-3, F-4, F-7).

Threads call, submit and wait over one connection. The server is a `ServerConnection` that reads,
answers in any order, fails and goes away as the machine says; interrupts come in waits and right
after bytes were moved. A model knows what each call may end in: no foreign answer, no lost call,
no raw error, and empty tables at the end. All threads run in a `World`, so that each case is the
same every time.
"""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from virtual_threads import Lock, Socket, Worker, World, virtual

from capnp_rig.client import (
    DeadlineExceeded,
    Disconnected,
    PendingCall,
    ProtocolError,
    RemoteError,
    ReverseClient,
)
from capnp_rig.schema import message
from capnp_rig.wire.rpc.connection import Called, Cancelled
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.message_encoder import encode_abort
from capnp_rig.wire.rpc.messages import RemoteError as WireRemoteError
from capnp_rig.wire.rpc.server_connection import ServerConnection

READ = compile_interface(message.MessageStream).methods["read"]
SETTINGS = settings(
    max_examples=60,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
WORKERS = 3
# Some are more than the buffers of the socket hold.
SIZES = st.sampled_from([0, 0, 0, 0, 20_000])
TIMEOUTS_S = st.sampled_from([0.0, 1.0, 5.0, 5.0, 50.0])
BUFFER_BYTES = 4096
ALL = 1 << 20

# As in test_mutations.
pytestmark = pytest.mark.no_cover


@dataclass(eq=False)
class Operation:
    """What one thread does; `outcome` is what it returned or raised."""

    kind: str
    text: str
    end_s: float
    is_late: bool
    outcome: object = None
    is_done: bool = False
    is_interrupted: bool = False


class ClientMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.stack = ExitStack()
        self.stack.enter_context(virtual(self.world))
        ours, self.peer = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self.peer.setblocking(False)
        self.socket = Socket(ours)
        self.client = ReverseClient(cast("socket.socket", self.socket))
        self.lock = Lock(self.world)
        self.client._lock = self.lock  # type: ignore[assignment]
        self.workers = [Worker(self.world) for _ in range(WORKERS)]
        self.operations: dict[Worker, Operation] = {}
        # Submitted calls that no wait has returned yet.
        self.submitted: dict[PendingCall, str] = {}
        self.number = 0

        self.server = ServerConnection()
        self.running: dict[int, str] = {}
        self.answers: dict[str, bool] = {}
        self.to_client = bytearray()

        # Why a call may end without an answer, and whether each one must.
        self.reasons: set[type[Exception]] = set()
        self.has_ended = False

    # --- what the threads do ---------------------------------------------------------------

    def start(self, pick: int, kind: str, size: int, timeout_s: float) -> None:
        idle = [worker for worker in self.workers if worker not in self.operations]
        if not idle:
            return
        worker = idle[pick % len(idle)]
        self.number += 1
        text = f"{self.number}:" + "x" * size
        if kind == "submit":
            timeout_s = self.client._timeout_s
        operation = Operation(kind, text, self.world.now_s + timeout_s, self.has_ended)
        params = {"request": {"content": text}}

        def call() -> object:
            return bytes(self.client.call("read", params, timeout_s=timeout_s).chunk).decode()

        uses: dict[str, Callable[[], object]] = {
            "call": call,
            "submit": lambda: self.client.submit("read", params),
            "wait": lambda: self.client.wait(timeout_s=timeout_s),
        }

        def work() -> None:
            try:
                operation.outcome = uses[kind]()
            except BaseException as error:
                operation.outcome = error.with_traceback(None)
            operation.is_done = True

        self.operations[worker] = operation
        worker.start(work)
        self.check()

    @rule(pick=st.integers(0), size=SIZES, timeout_s=TIMEOUTS_S)
    def calls(self, pick: int, size: int, timeout_s: float) -> None:
        self.start(pick, "call", size, timeout_s)

    @rule(pick=st.integers(0), size=SIZES)
    def submits(self, pick: int, size: int) -> None:
        self.start(pick, "submit", size, 0)

    @rule(pick=st.integers(0), timeout_s=TIMEOUTS_S)
    def waits(self, pick: int, timeout_s: float) -> None:
        self.start(pick, "wait", 0, timeout_s)

    @precondition(lambda self: self.operations)
    @rule(pick=st.integers(0))
    def is_interrupted_while_it_waits(self, pick: int) -> None:
        worker, operation = list(self.operations.items())[pick % len(self.operations)]
        if self.world.interrupt(worker.ident):
            operation.is_interrupted = True
        self.check()

    @precondition(lambda self: self.operations and self.number % 4 == 0)
    @rule()
    def is_interrupted_when_it_next_moves_bytes(self) -> None:
        self.socket.interrupts_next = True

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)
        self.check()

    @precondition(lambda self: self.number > 5)
    @rule()
    def is_closed(self) -> None:
        self.reasons.add(Disconnected)
        self.has_ended = True
        self.client.close()
        self.client.close()
        self.check()

    # --- what the server does --------------------------------------------------------------

    @rule(size=st.sampled_from([10, 100, 5000, ALL, ALL, ALL]))
    def the_server_reads(self, size: int) -> None:
        try:
            data = self.peer.recv(size)
        except OSError:
            return
        for event in self.server.events(data):
            match event:
                case Called(question_id=question_id, params=params):
                    text: str = READ.params.open(params).request.content
                    assert text not in self.answers
                    self.running[question_id] = text
                case Cancelled(question_id):
                    assert question_id in self.running
                case _:
                    raise AssertionError(event)
        self.to_client += self.server.data_to_send()
        self.check()

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0), fails=st.sampled_from([False, False, True]))
    def the_server_answers(self, pick: int, fails: bool) -> None:
        question_id = sorted(self.running)[pick % len(self.running)]
        text = self.running.pop(question_id)
        self.answers[text] = not fails
        if fails:
            self.server.send_exception(question_id, WireRemoteError(text))
        else:
            results = READ.results.write({"chunk": text[::-1].encode()})
            self.server.send_results(question_id, results)
        self.to_client += self.server.data_to_send()

    @precondition(lambda self: self.to_client)
    @rule(size=st.sampled_from([1, 50, 3000, ALL, ALL, ALL]))
    def the_server_sends(self, size: int) -> None:
        try:
            del self.to_client[: self.peer.send(self.to_client[:size])]
        except OSError:
            # Nobody reads, or nobody is there.
            return
        self.check()

    @precondition(lambda self: self.number > 5)
    @rule(how=st.sampled_from(["closes", "aborts", "sends garbage"]))
    def the_server_ends(self, how: str) -> None:
        self.reasons.add(ProtocolError if how == "sends garbage" else Disconnected)
        # Its last frame may be cut.
        self.reasons |= {ProtocolError} if self.to_client or how == "closes" else set()
        if how == "closes":
            self.has_ended = True
            self.peer.close()
        elif how == "aborts":
            self.to_client += encode_abort(WireRemoteError("enough"))
        else:
            self.to_client += b"\xff" * 64
        self.check()

    # --- what the model says ----------------------------------------------------------------

    def check(self) -> None:
        self.world.settle()
        if self.socket.was_interrupted:
            # Bytes were moved, and nobody knows how far that came.
            self.has_ended = True
            self.reasons.add(Disconnected)
        done = [worker for worker, operation in self.operations.items() if operation.is_done]
        ended = [self.operations.pop(worker) for worker in done]
        # A wait may return what was submitted meanwhile.
        for operation in sorted(ended, key=lambda operation: operation.kind != "submit"):
            self.judge(operation, {other.kind for other in ended})
        for worker, operation in self.operations.items():
            self.must_still_wait(worker, operation)

    def judge(self, operation: Operation, ended: set[str]) -> None:
        outcome = operation.outcome
        if isinstance(outcome, BaseException):
            self.judge_error(operation, outcome)
            return
        # Each call after the end says so; only a wait has what was there before.
        assert not operation.is_late or operation.kind == "wait"
        match outcome:
            case str():
                assert self.answers[operation.text]
                assert outcome == operation.text[::-1]
            case PendingCall():
                self.submitted[outcome] = operation.text
            case list():
                assert outcome or not self.submitted or ended != {"wait"}
                for pending in outcome:
                    self.judge_submitted(pending, self.submitted.pop(pending))

    def judge_submitted(self, pending: PendingCall, text: str) -> None:
        assert pending.done
        if pending.error is None:
            assert self.answers[text]
            assert bytes(pending.results.chunk).decode() == text[::-1]
        else:
            self.judge_error(Operation("call", text, self.world.now_s + 1, False), pending.error)

    def judge_error(self, operation: Operation, error: BaseException) -> None:
        match error:
            case DeadlineExceeded():
                assert self.world.now_s >= operation.end_s
            case RemoteError():
                assert not self.answers[operation.text]
                assert str(error) == operation.text
            case KeyboardInterrupt():
                assert operation.is_interrupted or self.socket.was_interrupted
            case _:
                assert type(error) in self.reasons, repr(error)

    def must_still_wait(self, worker: Worker, operation: Operation) -> None:
        """Check that an operation that has not ended is right not to have."""
        assert self.world.now_s < operation.end_s
        assert not self.has_ended
        has_turn = self.lock.owner == worker.ident
        if self.to_client or not has_turn or self.socket.interrupts_next:
            return
        if operation.kind == "call":
            assert operation.text not in self.answers
        if operation.kind == "wait":
            assert not self.submitted.keys() - self.unanswered()

    def unanswered(self) -> set[PendingCall]:
        return {call for call, text in self.submitted.items() if text not in self.answers}

    # --- the end -----------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            self.all_calls_end()
            self.client.close()
            self.has_ended = True
            self.reasons.add(Disconnected)
            self.check()
            assert not self.operations
            assert self.lock.owner is None
            assert self.client._pending == {}
            assert self.client._session._methods == {}
            assert self.socket.fileno() == -1
        finally:
            # After a failure there may be threads left that wait.
            self.client.close()
            self.world.pass_time(1e9)
            self.world.settle()
            for worker in self.workers:
                worker.stop()
            self.stack.close()
            self.peer.close()

    def all_calls_end(self) -> None:
        """Let the server answer everything: then every call that had time has its answer."""
        self.socket.interrupts_next = False
        for _ in range(200):
            if self.reasons:
                return
            if not (self.operations or self.running or self.to_client or self.submitted):
                break
            self.the_server_reads(ALL)
            while self.running:
                self.the_server_answers(0, fails=False)
            self.the_server_sends(ALL)
            if self.submitted and not self.operations:
                self.waits(0, 50.0)
        assert not self.submitted
        assert not self.operations
        assert not self.client._pending
        wire: Any = self.client._wire
        # Of a connection that nothing was sent over, the bootstrap is left.
        assert not wire.calls_in_flight
        assert not self.server.calls_in_flight


ClientMachine.TestCase.settings = SETTINGS
TestThreadsOfAClientGetTheirOwn = ClientMachine.TestCase
