"""The questions of a connection: calls that leave, and their answers."""

from collections.abc import Sequence
from typing import Any

from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.errors import (
    Disconnected,
    LocalProtocolError,
    TableFull,
)
from capnp_rig.wire.rpc.calls import (
    Asked,
    PendingCall,
    Purpose,
    Question,
    capability_at,
    content_of_encoded,
)
from capnp_rig.wire.rpc.capabilities import Capability
from capnp_rig.wire.rpc.capability_encoder import encode_call_with, path_words
from capnp_rig.wire.rpc.events import Answered, Failed, Unreadable
from capnp_rig.wire.rpc.message_encoder import (
    CALL_HEAD_WORDS,
    PROMISE_CALL_HEAD_WORDS,
    encode_bootstrap,
    encode_call,
    encode_finish,
)
from capnp_rig.wire.rpc.messages import (
    ImportedCap,
    RemoteError,
    ResultsTo,
    Target,
)
from capnp_rig.wire.rpc.nodes import NO_CAPABILITY, Broken, Node, Pipeline, Remote, table_room
from capnp_rig.wire.rpc.promises import Promises

_WAITING, _CANCELLED = Asked.WAITING, Asked.CANCELLED
_WAS_CANCELLED = RemoteError("the call was cancelled")


class Questions(Promises):
    """Calls to the peer, and to objects of ours whose capabilities came back."""

    __slots__ = ()

    @property
    def questions_waiting(self) -> int:
        """Calls of ours that are not cancelled and have no answer yet."""
        return sum(
            state is _WAITING
            or (isinstance(state, Question) and state.is_open and state.purpose is Purpose.EVENT)
            for state in self._questions.values()
        )

    def bootstrap(self) -> Capability:
        """Ask for the peer's bootstrap interface; return it, for calls at once.

        If the peer has none, `BootstrapFailed` comes, and all calls fail.

        Raises:
            Disconnected: The connection has ended.
        """
        if self._ended:
            raise Disconnected("the connection has ended")
        question = self._ask(Purpose.BOOTSTRAP)
        self._out.append(encode_bootstrap(question.id))
        return Capability(self.hold(self._pipeline(question, ())))

    def call(
        self,
        target: Any,
        interface_id: int,
        method_id: int,
        params: EncodedTuple,
        capabilities: Sequence[Any] = (),
    ) -> int:
        """Queue a call of a capability; return its question id.

        `capabilities` are those that `params` has indexes of: each a `Capability`, which stays with
        its owner, an object to be hosted, or None.

        Raises:
            EncodeError: The message would be over the frame limit, or (`TableFull`) there are
                too many calls or exports. The connection is unhurt.
            UnusableCapability: One was released, or belongs to another connection.
            Disconnected: The connection has ended.
        """
        # Calls to a capability that the peer hosts, without others, are the frequent ones.
        node = target._node if type(target) is Capability else None  # noqa: SLF001
        if node is None or node.direct is None or capabilities or self._ended:
            return self._call(target, (interface_id, method_id), params, capabilities)
        if node.reference is not self.reference:
            return self._call(target, (interface_id, method_id), params, capabilities)
        return self._call_direct(node.direct, interface_id, method_id, params)

    def _call_direct(
        self, address: ImportedCap, interface_id: int, method_id: int, params: EncodedTuple
    ) -> int:
        """Queue a call, without capabilities, of one that the peer hosts for good."""
        free_ids = self._free_ids
        question_id = free_ids[-1] if free_ids else self._new_id()
        words = params[2] + CALL_HEAD_WORDS
        if words > self._large_words:
            self._take_large(words)
        self._out += encode_call(question_id, address, interface_id, method_id, params)
        if free_ids:
            free_ids.pop()
        else:
            self._next_id += 1
        self._questions[question_id] = _WAITING
        return question_id

    def pipeline(self, question_id: int, path: Sequence[int]) -> Capability:
        """Return the capability to which pointers lead in the answer to a call, for calls at once.

        `path` has indexes of pointer sections, from the results' root on.

        Raises:
            LocalProtocolError: The call is not waiting for its answer.
        """
        state = self._questions.get(question_id)
        if state is _WAITING:
            state = self._questions[question_id] = Question(question_id, Purpose.EVENT)
        if not isinstance(state, Question) or not (state.is_open or state.outcome):
            raise LocalProtocolError(f"question {question_id} is not waiting for an answer")
        return Capability(self.hold(self._result_of(state, tuple(path))))

    def cancel(self, question_id: int) -> None:
        """Give up a call: its answer, if one still comes, is dropped without an event.

        Calls to what was pipelined from it fail from now on.
        """
        state = self._questions.get(question_id)
        if state is _WAITING and not self._ended:
            self._questions[question_id] = _CANCELLED
            self._out.append(encode_finish(question_id))
        elif isinstance(state, Question) and not self._ended:
            if state.is_open:
                self._cancel_question(state)
            elif state.outcome is not None:
                # Its event is not handed out any more.
                state.outcome = Unreadable(question_id, "cancelled")

    # --- calls that leave

    def _new_id(self) -> int:
        if self._next_id >= self._limits.max_questions:
            raise TableFull(f"{self._limits.max_questions} calls wait for their answers")
        return self._next_id

    def _ask(self, purpose: Purpose) -> Question:
        number = self._free_ids[-1] if self._free_ids else self._new_id()
        if self._free_ids:
            self._free_ids.pop()
        else:
            self._next_id += 1
        question = self._questions[number] = Question(number, purpose)
        return question

    def _free(self, question: Question) -> None:
        del self._questions[question.id]
        self._free_ids.append(question.id)

    def _free_if_over(self, question: Question) -> None:
        """Free the id of a question, unless messages or an event may still have it."""
        is_over = question.is_returned and question.is_finished
        if is_over and not question.is_open and question.outcome is None:
            self._free(question)

    def _report(self, question: Question, outcome: Answered | Failed | Unreadable) -> None:
        """Let the next events have the outcome of a question."""
        question.is_open = False
        question.outcome = outcome
        self._ready.append(outcome)

    def _is_reported(self, outcome: Answered | Failed | Unreadable) -> bool:
        """Take note that an outcome is handed out; return whether somebody wants it."""
        question = self._questions[outcome.question_id]
        assert isinstance(question, Question)
        is_wanted = question.outcome is outcome
        question.outcome = None
        self._free_if_over(question)
        return is_wanted

    def _call(
        self,
        target: Any,
        method: tuple[int, int],
        params: EncodedTuple,
        capabilities: Sequence[Any],
    ) -> int:
        if self._ended:
            raise Disconnected("the connection has ended")
        node, *nodes = self.hold_each([target, *capabilities])
        if isinstance(target, Capability):
            # The next call takes the quick way, if there is one.
            target.settle()
        if node is None:
            self.drop_all(nodes)
            raise LocalProtocolError("a null capability takes no call")
        question = None
        try:
            question = self._ask(Purpose.EVENT)
            if isinstance(node, Remote):
                assert node.address is not None
                question.exports = self._send_call(question.id, node.address, method, params, nodes)
                node.was_called = True
                if not question.exports:
                    # A plain one from now on.
                    self._questions[question.id] = _WAITING
            else:
                # Of no message, so that nobody has to be told of its end.
                question.is_returned = question.is_finished = True
                call = PendingCall(~question.id, *method, content_of_encoded(params), nodes)
                call.size = 8 * params[2]
                self._answers[call.id] = question.call = call
                nodes = []
                node.take(call)
        except BaseException:
            if question is not None:
                self._free(question)
            raise
        finally:
            self.drop_all([node, *nodes])
        return question.id

    def _send_call(
        self,
        question_id: int,
        address: Target,
        method: tuple[int, int],
        params: EncodedTuple,
        nodes: Sequence[Node | None],
        results_to: int = ResultsTo.CALLER,
    ) -> Sequence[int]:
        """Queue a call to the peer; return the exports in it.

        Raises:
            EncodeError: It is over a limit; nothing was queued.
        """
        words = params[2] + PROMISE_CALL_HEAD_WORDS + path_words(address) + table_room(nodes)
        if words > self._large_words:
            self._take_large(words)
        table, exports = self._describe(nodes)
        self._out += encode_call_with(question_id, address, method, params, table, results_to)
        self._send_afterwards()
        return exports

    def _pipeline(self, question: Question, path: tuple[int, ...]) -> Node:
        node = question.pipelines.get(path)
        if node is None:
            node = question.pipelines[path] = Pipeline(self, question, path)
        return node

    def _result_of(self, question: Question, path: tuple[int, ...]) -> Node:
        outcome = question.outcome
        if isinstance(outcome, Answered):
            content = outcome.content
            table = getattr(content[0], "capabilities", ()) if content is not None else ()
            nodes = [None if each is None else self.node_of(each) for each in table]
            return capability_at(content, path, nodes) or Broken(self, NO_CAPABILITY)
        if outcome is not None:
            return Broken(self, outcome.error if isinstance(outcome, Failed) else NO_CAPABILITY)
        call = question.call or question.taken
        return self._pipeline(question, path) if call is None else self.result_node(call, path)

    def _cancel_question(self, question: Question) -> None:
        question.is_open = False
        if question.call is not None:
            # It is answered here.
            question.call.is_finished = True
            self.cancel_if_unwanted(question.call)
        elif question.taken is not None:
            self._leave(question)
        else:
            question.is_finished = True
            for pipeline in list(question.pipelines.values()):
                self._break(pipeline, _WAS_CANCELLED)
            self._out.append(encode_finish(question.id))

    def _leave(self, question: Question) -> None:
        """Give up the results of a call of the peer."""
        call, question.taken = question.taken, None
        assert call is not None
        call.taker = None
        self._free_if_over(question)
        if call.is_finished:
            self.cancel_if_unwanted(call)

    def _break(self, pipeline: Pipeline, error: RemoteError) -> None:
        """Let a part of an answer become nothing, also for those who need its address."""
        if pipeline.next is None:
            self.become(pipeline, Broken(self, error))
        pipeline.address = None

    # --- what the layers above do

    def finish_if_unused(self, question: Question) -> None:
        """Send the Finish of a question that is returned, if nothing needs its answer."""
        raise NotImplementedError

    def result_node(self, call: PendingCall, path: tuple[int, ...]) -> Node:
        """Return what a path in the results of a call leads to, now or later."""
        raise NotImplementedError

    def cancel_if_unwanted(self, call: PendingCall) -> None:
        """Cancel a call that was finished before its answer, unless others wait for that."""
        raise NotImplementedError
