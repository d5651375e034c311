"""The outcomes of questions: answers that come."""

from collections.abc import Sequence

from capnp_rig.wire.encoding.pointers import Pointer, StructTuple
from capnp_rig.wire.errors import (
    MalformedMessage,
    RemoteProtocolError,
)
from capnp_rig.wire.rpc.calls import (
    Asked,
    PendingCall,
    Purpose,
    Question,
    capability_at,
    capability_index,
)
from capnp_rig.wire.rpc.capabilities import CapabilityTable
from capnp_rig.wire.rpc.events import Answered, BootstrapFailed, Failed, Unreadable
from capnp_rig.wire.rpc.message_encoder import (
    encode_finish,
)
from capnp_rig.wire.rpc.messages import (
    ExceptionType,
    RemoteError,
    Results,
    Return,
    SentElsewhere,
    TakenFromOther,
    content_of,
)
from capnp_rig.wire.rpc.nodes import NO_CAPABILITY, Broken, Node
from capnp_rig.wire.rpc.promises import COMING_BACK
from capnp_rig.wire.rpc.questions import Questions

_WAITING, _CANCELLED = Asked.WAITING, Asked.CANCELLED
_CANCELLED_THERE = RemoteError("the call was cancelled by the server")
_BOOTSTRAP_CANCELLED = RemoteError("the bootstrap was cancelled by the server")
_NO_BOOTSTRAP = RemoteError("the answer holds no capability")
_UNIMPLEMENTED = RemoteError("the peer does not implement this", ExceptionType.UNIMPLEMENTED)


class Outcomes(Questions):
    """Returns of the peer, and what they bring."""

    __slots__ = ()

    def _take_return(self, message: Return) -> None:
        number = message.answer_id
        state = self._questions.get(number)
        if state is _CANCELLED:
            # Its Finish has gone, and with it whatever the results hold.
            del self._questions[number]
            self._free_ids.append(number)
            return
        if state is _WAITING:
            state = self._questions[number] = Question(number, Purpose.EVENT)
        if not isinstance(state, Question) or state.is_returned:
            raise RemoteProtocolError(f"return for question {number}, which was not asked")
        question = state
        if message.releases_params:
            self._give_back_each(question.exports)
        question.exports = ()
        if question.is_finished:
            question.is_returned = True
            self._free_if_over(question)
            return
        if not isinstance(message.outcome, TakenFromOther):
            self._settle(question, message.outcome)
        else:
            self._take_from(question, message.outcome.question_id)
        question.is_returned = True
        if message.no_finish_needed:
            question.is_finished = True
            for pipeline in list(question.pipelines.values()):
                pipeline.address = None
            self._free_if_over(question)
        else:
            self.finish_if_unused(question)

    def finish_if_unused(self, question: Question) -> None:
        """Send the Finish of a question that is returned, if nothing needs its answer."""
        if self._ended or not question.is_returned or question.is_finished:
            return
        pipelines = list(question.pipelines.values())
        is_tail = question.purpose is Purpose.TAIL
        # The results of one never come here: whoever refers to them needs the question.
        if is_tail and (pipelines or question.call is not None):
            return
        question.is_finished = True
        for pipeline in pipelines:
            pipeline.address = None
        self._out.append(encode_finish(question.id, release_result_caps=question.releases))
        self._free_if_over(question)

    def _settle(self, question: Question, outcome: object) -> None:
        """Take the outcome of a question, which is not that of another."""
        if isinstance(outcome, Results):
            nodes = self._take_table(outcome.cap_table)
            question.releases = not any(nodes)
            root: Pointer | None = outcome.content
            if question.purpose is Purpose.BOOTSTRAP:
                self._take_main(question, root, nodes)
                return
            for path, pipeline in list(question.pipelines.items()):
                index = capability_index(root, path)
                found = nodes[index] if index is not None and index < len(nodes) else None
                if found is None or index is None:
                    self.become(pipeline, Broken(self, NO_CAPABILITY))
                else:
                    comes_back = outcome.cap_table[index].kind in COMING_BACK
                    self.become(pipeline, found, comes_back=comes_back)
            self._take_results(question, root, nodes)
            return
        if isinstance(outcome, SentElsewhere):
            if question.purpose is not Purpose.TAIL:
                raise RemoteProtocolError("the results were sent elsewhere, unasked")
            return
        if isinstance(outcome, RemoteError):
            self._fail_question(question, outcome)
        elif question.purpose is Purpose.BOOTSTRAP:
            self._fail_question(question, _BOOTSTRAP_CANCELLED)
        else:
            self._fail_question(question, _CANCELLED_THERE)

    def _take_main(
        self, question: Question, root: Pointer | None, nodes: Sequence[Node | None]
    ) -> None:
        """Take the bootstrap interface and the holds on nodes."""
        # It is the only one; some do not bother to point to it.
        found = capability_at(root, (), nodes) or next(filter(None, nodes), None)
        if found is None:
            self._fail_question(question, _NO_BOOTSTRAP)
        else:
            for pipeline in list(question.pipelines.values()):
                self.become(pipeline, found)
        self.drop_all(nodes)

    def _take_results(
        self, question: Question, root: Pointer | None, nodes: Sequence[Node | None]
    ) -> None:
        """Take results and the holds on their nodes."""
        if question.purpose not in {Purpose.TAIL, Purpose.NOTHING}:
            try:
                content = content_of(root)
            except MalformedMessage as error:
                if question.purpose is Purpose.EVENT:
                    self._report(question, Unreadable(question.id, str(error)))
                else:
                    self._fail_question(question, RemoteError(str(error)))
            else:
                self._hand_over(question, content, nodes)
                return
        self.drop_all(nodes)

    def _hand_over(
        self, question: Question, content: StructTuple | None, nodes: Sequence[Node | None]
    ) -> None:
        if question.purpose is Purpose.RELAY:
            assert question.call is not None
            question.is_open = False
            self.relay(question.call, content, nodes)
            return
        self._answered(question, content, nodes)

    def _answered(
        self, question: Question, content: StructTuple | None, nodes: Sequence[Node | None]
    ) -> None:
        """Report results, whose capabilities the owner gets."""
        if content is None:
            self.drop_all(nodes)
        elif nodes:
            content[0].capabilities = CapabilityTable.of(nodes)
        self._report(question, Answered(question.id, content))

    def _fail_question(self, question: Question, error: RemoteError) -> None:
        for pipeline in list(question.pipelines.values()):
            if pipeline.next is None:
                self.become(pipeline, Broken(self, error))
        if question.purpose is Purpose.BOOTSTRAP:
            self._ready.append(BootstrapFailed(error))
        elif question.purpose is Purpose.EVENT:
            self._report(question, Failed(question.id, error))
        elif question.purpose is Purpose.RELAY:
            assert question.call is not None
            question.is_open, question.call.question = False, None
            self.fail(question.call, error)

    def _take_from(self, question: Question, number: int) -> None:
        """Let a question have the results of a call of the peer, which stay here."""
        call = self._answers.get(number)
        is_free = isinstance(call, PendingCall) and call.is_redirected and call.taker is None
        if not is_free or question.purpose in {Purpose.TAIL, Purpose.BOOTSTRAP}:
            raise RemoteProtocolError(f"the results of call {number} are not to be taken")
        assert isinstance(call, PendingCall)
        for path, pipeline in list(question.pipelines.items()):
            self.become(pipeline, self.result_node(call, path), comes_back=True)
        if not question.is_open:
            # Nobody wants more than what was pipelined.
            return
        question.taken, call.taker = call, question
        if call.is_returned:
            self.give_to_taker(call)

    def _take_unimplemented(self, number: int) -> bool:
        """Take back a question that the peer does not know; return whether it was asked."""
        state = self._questions.get(number)
        if state is _CANCELLED:
            del self._questions[number]
            self._free_ids.append(number)
            return True
        if state is _WAITING:
            state = self._questions[number] = Question(number, Purpose.EVENT)
        if not isinstance(state, Question) or state.is_returned:
            return False
        self._give_back_each(state.exports)
        if not state.is_finished:
            self._fail_question(state, _UNIMPLEMENTED)
        for pipeline in list(state.pipelines.values()):
            pipeline.address = None
        state.is_returned = state.is_finished = True
        self._free_if_over(state)
        return True

    # --- what the layers above do

    def relay(
        self, call: PendingCall, content: StructTuple | None, nodes: Sequence[Node | None]
    ) -> None:
        """Answer a call with results that came from the peer, taking over the holds on nodes."""
        raise NotImplementedError

    def give_to_taker(self, call: PendingCall) -> None:
        """Give the results of a call to the question that takes them."""
        raise NotImplementedError
