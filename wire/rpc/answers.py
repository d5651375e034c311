"""The answers of a connection: results and errors that leave."""

from collections.abc import Sequence
from typing import Any

from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.pointers import (
    NESTING_LIMIT,
    StructTuple,
)
from capnp_rig.wire.errors import (
    EncodeError,
    LocalProtocolError,
    MalformedMessage,
    TableFull,
)
from capnp_rig.wire.rpc.calls import (
    Asking,
    PendingCall,
    Question,
    capability_at,
    content_of_encoded,
    encoded_of_content,
    shared_content,
)
from capnp_rig.wire.rpc.capability_encoder import (
    encode_results_with,
    encode_sent_elsewhere,
)
from capnp_rig.wire.rpc.events import Limits
from capnp_rig.wire.rpc.message_encoder import (
    RESULTS_HEAD_WORDS,
    encode_canceled,
    encode_exception,
    encode_results,
)
from capnp_rig.wire.rpc.messages import (
    RemoteError,
)
from capnp_rig.wire.rpc.nodes import (
    NO_CAPABILITY,
    Broken,
    Hosted,
    Node,
    Pipeline,
    Promise,
    table_room,
)
from capnp_rig.wire.rpc.outcomes import Outcomes

_RUNNING, _BOOTSTRAPPED, _CANCELLED = Asking.RUNNING, Asking.BOOTSTRAP, Asking.CANCELLED
# How many errors are kept for calls that were pipelined on what failed.
_MAX_FAILURES = 256
# In the place of a question id.
_NEXT = -1
_NO_FIELD = RemoteError("pipelined call on a field of a capability, which has none")


# A question that takes the results of a call, and these: an error, or content and nodes.
_Given = tuple[Question, RemoteError | None, StructTuple | None, Sequence[Node | None]]


class Answers(Outcomes):
    """Calls of the peer, and those of this side to objects of ours."""

    __slots__ = (
        "_bootstrap",
        "_failures",
        "_given",
        "_max_in_flight",
        "_note",
        "overloads",
    )

    def __init__(self, limits: Limits, bootstrap: Any) -> None:
        super().__init__(limits)
        self._max_in_flight = limits.max_calls_in_flight
        # How many calls were refused since too many were in flight.
        self.overloads = 0
        self._bootstrap: Hosted | None = None
        if bootstrap is not None:
            self._bootstrap = self._new_host(bootstrap)
            self.hold(self._bootstrap)
        # Why the last calls failed whose answers are forgotten: the peer may pipeline on one before
        # it hears of that.
        self._failures: dict[int, Any] = {}
        # That of the call which is handed out.
        self._note: Any = None
        self._given: list[_Given] = []

    @property
    def calls_in_flight(self) -> int:
        """Calls of the peer that are not answered, cancelled ones and those that wait included."""
        return self._in_flight

    def allow_calls(self, count: int) -> None:
        """Let so many calls be in flight instead of `Limits.max_calls_in_flight`."""
        self._max_in_flight = count

    # --- answers that leave

    def send_results(
        self, question_id: int, results: EncodedTuple, capabilities: Sequence[Any] = ()
    ) -> None:
        """Queue the answer to a call.

        `capabilities` are those that `results` has indexes of, as for `call`.

        Raises:
            EncodeError: The message would be over the frame limit, or (`TableFull`) there are
                too many exports, or bytes of answers that wait; send an exception instead.
            UnusableCapability: One was released, or belongs to another connection.
            LocalProtocolError: No such call is waiting.
        """
        words = results[2] + RESULTS_HEAD_WORDS
        if words > self._large_words:
            self._take_large(words)
        answers = self._answers
        if answers.get(question_id) is _RUNNING and not capabilities and not self._ended:
            del answers[question_id]
            self._in_flight -= 1
            self._out += encode_results(question_id, results)
        else:
            self._send_results(question_id, results, capabilities)

    def send_exception(self, question_id: int, error: RemoteError) -> None:
        """Queue the failure of a call.

        Raises:
            LocalProtocolError: No such call is waiting.
        """
        call = self._running(question_id)
        if call is not None:
            self.fail(call, error)

    def tail_call(
        self,
        question_id: int,
        target: Any,
        interface_id: int,
        method_id: int,
        params: EncodedTuple,
        capabilities: Sequence[Any] = (),
    ) -> None:
        """Answer a call with whatever another call returns, whose arguments are those of `call`.

        If the target is at the caller's side, the results stay there.

        Raises:
            UnusableCapability: A capability was released, or belongs to another connection.
            LocalProtocolError: No such call is waiting.
        """
        node, *nodes = self.hold_each([target, *capabilities])
        try:
            call = self._running(question_id)
        except LocalProtocolError:
            self.drop_all(nodes)
            raise
        else:
            if call is None or (call.is_finished and not call.is_awaited):
                self.drop_all(nodes)
                if call is not None:
                    self.fail(call, NO_CAPABILITY)
                return
            call.is_running = False
            call.interface_id, call.method_id = interface_id, method_id
            call.params, call.capabilities = content_of_encoded(params), nodes
            call.size = 8 * params[2]
            (node or Broken(self, NO_CAPABILITY)).take(call)
        finally:
            self.drop_all([node])

    def _running(self, question_id: int) -> PendingCall | None:
        """Return a call that was handed out and is not answered; None after the end."""
        if self._ended:
            return None
        state = self._answers.get(question_id)
        if state is _RUNNING or state is _CANCELLED:
            call = self._answers[question_id] = PendingCall(question_id)
            call.is_running, call.is_finished = True, state is _CANCELLED
            return call
        if isinstance(state, PendingCall) and state.is_running and not state.is_returned:
            return state
        raise LocalProtocolError(f"no call {question_id} is waiting for an answer")

    def _send_results(
        self, question_id: int, results: EncodedTuple, capabilities: Sequence[Any]
    ) -> None:
        if self._ended:
            return
        nodes = self.hold_each(capabilities)
        try:
            call = self._running(question_id)
            if call is not None:
                self._succeed(call, results, nodes)
        finally:
            self.drop_all(nodes)

    def _succeed(
        self, call: PendingCall, results: EncodedTuple, nodes: Sequence[Node | None]
    ) -> None:
        """Answer a call; the nodes stay the caller's.

        Raises:
            EncodeError: The results are over a limit; the call is as it was.
        """
        if call.id < 0:
            self._succeed_here(call, results, nodes)
            return
        if call.is_finished and not call.is_redirected:
            self._keep(call, results, nodes)
            self._out.append(encode_canceled(call.id, keeps_params=call.keeps_params))
        elif call.is_redirected:
            self._keep(call, results, nodes)
            self._out.append(encode_sent_elsewhere(call.id, keeps_params=call.keeps_params))
        else:
            self._send_return(call, results, nodes)
        self._in_flight -= 1
        call.is_running, call.is_returned = False, True
        self._resolve_promises(call)
        if call.taker is not None:
            self.give_to_taker(call)
        is_kept = call.is_redirected or any(node is not None for node in call.nodes)
        if call.is_finished or not is_kept:
            self._forget(call)

    def _send_return(
        self, call: PendingCall, results: EncodedTuple, nodes: Sequence[Node | None]
    ) -> None:
        words = results[2] + RESULTS_HEAD_WORDS + table_room(nodes)
        if words > self._large_words:
            self._take_large(words)
        if not (nodes or call.keeps_params or call.promises):
            self._out += encode_results(call.id, results)
            return
        # Before anything is counted: each of these may be an export, too.
        self._check_room(nodes, more=sum(isinstance(node, Pipeline) for node in nodes))
        nodes = [self.follow(node) if isinstance(node, Pipeline) else node for node in nodes]
        self._keep(call, results, nodes)
        table, call.exports = self._describe(nodes)
        self._out += encode_results_with(
            call.id,
            results,
            table,
            keeps_params=call.keeps_params,
            needs_finish=any(node is not None for node in nodes),
        )
        self._send_afterwards()

    def _keep(self, call: PendingCall, results: EncodedTuple, nodes: Sequence[Node | None]) -> None:
        """Keep results for calls on them, and for the question that takes them.

        Raises:
            TableFull: There are too many bytes that wait.
        """
        is_needed = call.is_redirected or call.promises or any(node is not None for node in nodes)
        if not is_needed:
            return
        size = 8 * results[2]
        if self._waiting_bytes + size > self._limits.max_waiting_bytes:
            limit = self._limits.max_waiting_bytes
            raise TableFull(f"more than {limit} bytes of results wait to be finished")
        call.content = content_of_encoded(results)
        call.nodes = list(nodes)
        for node in call.nodes:
            if node is not None:
                self.hold_strict(node)
        self._waiting_bytes += size
        call.kept_bytes = size

    def _succeed_here(
        self, call: PendingCall, results: EncodedTuple, nodes: Sequence[Node | None]
    ) -> None:
        content = call.content = content_of_encoded(results)
        call.nodes, call.is_returned, call.is_running = nodes, True, False
        self._resolve_promises(call)
        call.nodes = ()
        del self._answers[call.id]
        question = self._questions[~call.id]
        assert isinstance(question, Question)
        question.call = None
        if question.is_open:
            self._answered(question, content, [self._held(node) for node in nodes])
        self._free_if_over(question)

    def _held(self, node: Node | None) -> Node | None:
        return None if node is None else self.hold(node)

    def fail(self, call: PendingCall, error: RemoteError) -> None:
        """Answer a call with an error."""
        if self._ended:
            return
        call.is_running, call.is_returned, call.error = False, True, error
        if call.id < 0:
            question = self._questions[~call.id]
            assert isinstance(question, Question)
            question.call = None
            if question.is_open:
                self._fail_question(question, error)
            self._free_if_over(question)
        else:
            self._in_flight -= 1
            if call.is_redirected:
                self._out.append(encode_sent_elsewhere(call.id, keeps_params=call.keeps_params))
            elif call.is_finished:
                self._out.append(encode_canceled(call.id, keeps_params=call.keeps_params))
            else:
                self._out += encode_exception(call.id, error, keeps_params=call.keeps_params)
                self._remember(call.id, error)
        self._resolve_promises(call)
        if call.taker is not None:
            self.give_to_taker(call)
        if call.is_finished or not call.is_redirected:
            self._forget(call)

    def note_next(self, note: Any) -> None:
        """Keep `note`, not None, for whoever is handed the next Call message that comes.

        That is the next of the stream, when it is read: neither one that waited for a promise nor,
        if it is refused, the one after it.
        """
        # Among the failures, so that the loop, which looks for these, need not look once more.
        self._failures[_NEXT] = note

    def take_note(self) -> Any:
        """Return what was noted for the call that is handed out, once; None if nothing was."""
        note, self._note = self._note, None
        return note

    def _begin_call(self, question_id: int) -> None:
        """Take what there is for a call that came, where there is anything at all."""
        # That of the call which had this id before.
        self._failures.pop(question_id, None)
        self._note = self._failures.pop(_NEXT, None)

    def _remember(self, question_id: int, error: RemoteError) -> None:
        failures = self._failures
        if len(failures) >= _MAX_FAILURES:
            del failures[next(iter(failures))]
        failures[question_id] = error

    def _resolve_promises(self, call: PendingCall) -> None:
        """Let what calls wait for become what the results have there."""
        for path, promise in list(call.promises.items()):
            self.resolve(promise, self._result(call, path))
        self._drop_promises(call)

    def _drop_promises(self, call: PendingCall) -> None:
        promises, call.promises = call.promises, {}
        self.drop_all(list(promises.values()))

    def _result(self, call: PendingCall, path: tuple[int, ...]) -> Node:
        """Return what a path leads to in a call that is returned."""
        if call.question is not None:
            return self._pipeline(call.question, path)
        if call.error is not None:
            return Broken(self, call.error)
        if call.content is not None:
            call.content[0].budget_words = self._limits.frame.traversal_words
        return capability_at(call.content, path, call.nodes) or Broken(self, NO_CAPABILITY)

    def result_node(self, call: PendingCall, path: tuple[int, ...]) -> Node:
        """Return what a path in the results of a call leads to, now or later."""
        if call.is_returned:
            return self._result(call, path)
        promise = call.promises.get(path)
        if promise is None:
            if len(path) > NESTING_LIMIT:
                return Broken(self, NO_CAPABILITY)
            if len(call.promises) >= self._limits.max_pipelined:
                return Broken(self, self._too_many_wait())
            promise = call.promises[path] = Promise(self, call)
            self.hold(promise)
        return promise

    def answer_node(self, question_id: int, path: tuple[int, ...]) -> Node:
        """Return what a path in the answer to a question of the peer leads to."""
        state = self._answers.get(question_id)
        if state is _BOOTSTRAPPED:
            if path or self._bootstrap is None:
                return Broken(self, _NO_FIELD)
            return self._bootstrap
        if state is _RUNNING:
            state = self._answers[question_id] = PendingCall(question_id)
            state.is_running = True
        if isinstance(state, PendingCall) and not (state.is_finished and not state.is_returned):
            return self.result_node(state, path)
        return Broken(self, self._failures.get(question_id, NO_CAPABILITY))

    def give_to_taker(self, call: PendingCall) -> None:
        """Give the results of a call to the question that takes them."""
        question, call.taker = call.taker, None
        assert question is not None
        question.taken = None
        copied = None if call.content is None else shared_content(call.content)
        held = [self._held(node) for node in call.nodes]
        self._given.append((question, call.error, copied, held))
        # One after the other: these may answer a call whose results are taken, too.
        if len(self._given) > 1:
            return
        # It grows meanwhile.
        for question, error, content, nodes in self._given:
            if error is None:
                self._hand_over(question, content, nodes)
            else:
                self._fail_question(question, error)
            self._free_if_over(question)
        self._given.clear()

    def relay(
        self, call: PendingCall, content: StructTuple | None, nodes: Sequence[Node | None]
    ) -> None:
        """Answer a call with results that came from the peer, taking over the holds on nodes."""
        call.question = None
        try:
            self._succeed(call, encoded_of_content(content), nodes)
        except (EncodeError, MalformedMessage) as error:
            self.fail(call, RemoteError(str(error)))
        self.drop_all(nodes)

    def _forget(self, call: PendingCall) -> None:
        """Take a call that is over out of the table."""
        self._answers.pop(call.id, None)
        self._waiting_bytes -= call.kept_bytes
        call.kept_bytes = 0
        self.drop_all(call.capabilities)
        nodes, call.nodes, call.capabilities = call.nodes, (), ()
        if call.id >= 0:
            for node in nodes:
                if node is not None:
                    self.drop_strict(node)
