"""Calls of the peer: how they come in, wait, are sent on, and are given up."""

from collections.abc import Sequence

from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.pointers import (
    Message,
    detached,
)
from capnp_rig.wire.errors import (
    EncodeError,
    MalformedMessage,
    RemoteProtocolError,
    TableFull,
)
from capnp_rig.wire.rpc.answers import Answers
from capnp_rig.wire.rpc.calls import (
    Asking,
    PendingCall,
    Purpose,
    Question,
    encoded_of_content,
)
from capnp_rig.wire.rpc.capability_encoder import (
    encode_taken_from_other,
)
from capnp_rig.wire.rpc.events import Cancelled
from capnp_rig.wire.rpc.message_encoder import (
    encode_bootstrap_results,
    encode_exception,
    encode_finish,
)
from capnp_rig.wire.rpc.messages import (
    Call,
    CapKind,
    Descriptor,
    ExceptionType,
    ImportedCap,
    RemoteError,
    ResultsTo,
    Target,
    content_of,
)
from capnp_rig.wire.rpc.nodes import (
    NO_CAPABILITY,
    Broken,
    Hosted,
    Node,
    strictly,
)

_RUNNING, _BOOTSTRAPPED, _CANCELLED = Asking.RUNNING, Asking.BOOTSTRAP, Asking.CANCELLED
_NO_BOOTSTRAP = RemoteError("a client has no bootstrap interface")
_OF_THE_PEER = {CapKind.SENDER_HOSTED, CapKind.SENDER_PROMISE, CapKind.THIRD_PARTY_HOSTED}


class IncomingCalls(Answers):
    """Calls that come, to objects of ours and to what these become."""

    __slots__ = ()

    def _read_call(self, message: Message, decoded: Call) -> None:
        """Take a call that is in no layout: with capabilities, or results to stay here."""
        self._begin_call(decoded.question_id)
        if decoded.results_to not in {ResultsTo.CALLER, ResultsTo.YOURSELF}:
            self._echo_unimplemented(message)
            return
        call = PendingCall(decoded.question_id, decoded.interface_id, decoded.method_id)
        call.is_redirected = decoded.results_to == ResultsTo.YOURSELF
        error = None
        try:
            call.params = content_of(decoded.params)
        except MalformedMessage as malformed:
            error = RemoteError(str(malformed))
        self._take_call(call, decoded.target, decoded.cap_table, error)

    def _take_call(
        self,
        call: PendingCall,
        target: Target,
        table: Sequence[Descriptor] = (),
        error: RemoteError | None = None,
    ) -> None:
        """Take a call that is not answered on the spot; `error` is why it fails in any case."""
        if call.id in self._answers:
            raise RemoteProtocolError(f"question {call.id} is already in use")
        holder = self.hold(self._target_node(target))
        node = strictly(holder)
        if error is None and isinstance(node, Broken):
            error = node.error
        is_inline = (call.interface_id, call.method_id) in node.inline
        if error is None and self._in_flight >= self._max_in_flight and not is_inline:
            error = self._overloaded()
        if error is not None:
            # Nothing is taken from the table: the Return gives all of that back.
            self._refuse(call.id, error, is_redirected=call.is_redirected)
        else:
            if not is_inline:
                self._check_answers()
            self._deliver_new(call, node, table)
        self.drop(holder)

    def _deliver_new(self, call: PendingCall, node: Node, table: Sequence[Descriptor]) -> None:
        call.note = self.take_note()
        if call.params is not None and not isinstance(node, Hosted):
            # It may wait longer than the data stays.
            call.params = detached(call.params)
            bounds = call.params[0].bounds
            call.size = bounds[-1][1] - bounds[0][0]
        if table:
            call.capabilities = self._take_table(table)
            call.keeps_params = any(each.kind in _OF_THE_PEER for each in table)
        self._answers[call.id] = call
        self._in_flight += 1
        self.deliver(call, node)

    def _target_node(self, target: Target) -> Node:
        if isinstance(target, ImportedCap):
            node = self._exports.get(target.import_id)
            if node is None:
                raise RemoteProtocolError(
                    f"message target {target.import_id} is not a current export"
                )
            return node
        return self.answer_node(target.question_id, target.path)

    def _check_answers(self) -> None:
        if len(self._answers) >= self._limits.max_answers:
            raise RemoteProtocolError(
                f"more than {self._limits.max_answers} answers wait for their Finish"
            )

    def _refuse(self, number: int, error: RemoteError, *, is_redirected: bool = False) -> None:
        self._note = None
        if number in self._answers:
            raise RemoteProtocolError(f"question {number} is already in use")
        if is_redirected:
            # The peer asks for the outcome later.
            self._check_answers()
            call = self._answers[number] = PendingCall(number)
            call.is_redirected = True
            self._in_flight += 1
            self.fail(call, error)
            return
        self._out += encode_exception(number, error)
        self._remember(number, error)

    def _overloaded(self) -> RemoteError:
        self.overloads += 1
        note = self._limits.in_flight_note
        reason = f"more than {self._max_in_flight} calls in flight on this connection{note}"
        return RemoteError(reason, ExceptionType.OVERLOADED)

    def _take_bootstrap(self, number: int) -> None:
        if number in self._answers:
            raise RemoteProtocolError(f"question {number} is already in use")
        self._check_answers()
        node = self._bootstrap
        if node is None:
            self._refuse(number, _NO_BOOTSTRAP)
            return
        if not node.references:
            try:
                self._check_room([node])
            except TableFull as error:
                self._refuse(number, RemoteError(str(error), ExceptionType.OVERLOADED))
                return
        self._answers[number] = _BOOTSTRAPPED
        self._out.append(encode_bootstrap_results(number, node.export()))

    def forward(self, call: PendingCall, address: Target) -> None:
        """Send a call to the peer."""
        if self._ended:
            return
        nodes, call.capabilities = call.capabilities, ()
        params, call.params = call.params, None
        try:
            self._forward(call, address, encoded_of_content(params), nodes)
        except (EncodeError, MalformedMessage) as error:
            self.fail(call, RemoteError(str(error), ExceptionType.FAILED))
        self.drop_all(nodes)

    def _forward(
        self,
        call: PendingCall,
        address: Target,
        params: EncodedTuple,
        nodes: Sequence[Node | None],
    ) -> None:
        method = call.interface_id, call.method_id
        if call.id < 0:
            question = self._questions[~call.id]
            assert isinstance(question, Question)
            question.exports = self._send_call(question.id, address, method, params, nodes)
            question.is_returned = question.is_finished = False
            del self._answers[call.id]
            question.call, call.question, call.is_returned = None, question, True
            self._resolve_promises(call)
            if call.is_finished:
                # It was given up while it waited, but calls on its answer were not.
                question.purpose = Purpose.NOTHING
            return
        is_tail = not (call.is_redirected or call.is_finished)
        question = self._ask(Purpose.TAIL if is_tail else Purpose.RELAY)
        to = ResultsTo.YOURSELF if is_tail else ResultsTo.CALLER
        try:
            question.exports = self._send_call(question.id, address, method, params, nodes, to)
        except EncodeError:
            self._free(question)
            raise
        question.call, call.question = call, question
        if is_tail:
            self._out.append(
                encode_taken_from_other(call.id, question.id, keeps_params=call.keeps_params)
            )
            self._in_flight -= 1
            call.is_returned = True
            self._resolve_promises(call)

    # --- their end

    def _finish(self, number: int, *, releases: bool) -> None:
        """Take the Finish of a question of the peer."""
        state = self._answers.get(number)
        if state is _BOOTSTRAPPED:
            del self._answers[number]
            if releases:
                assert self._bootstrap is not None
                self._give_back(self._bootstrap.export_id, 1)
        elif state is _RUNNING:
            self._answers[number] = _CANCELLED
            self._ready.append(Cancelled(number))
        elif isinstance(state, PendingCall):
            self._finish_call(state, releases=releases)
        else:
            # One for an answer that needed none is welcome from old peers.
            self._failures.pop(number, None)

    def _finish_call(self, call: PendingCall, *, releases: bool) -> None:
        if call.is_finished:
            return
        call.is_finished = True
        if not call.is_returned:
            self.cancel_if_unwanted(call)
            return
        if releases:
            self._give_back_each(call.exports)
        question = call.question
        self._forget(call)
        if question is not None:
            question.call = None
            if question.is_returned:
                self.finish_if_unused(question)
            elif not question.pipelines:
                # The peer is told that its call is cancelled.
                question.is_finished = True
                self._out.append(encode_finish(question.id))

    def cancel_if_unwanted(self, call: PendingCall) -> None:
        """Cancel a call that was finished before its answer, unless others wait for that."""
        # One after the other: a peer can make long chains of calls that wait.
        while not call.is_awaited and call.waits_for is not None:
            promise, call.waits_for = call.waits_for, None
            promise.waiting.remove(call)
            self._waiting_bytes -= call.size
            self.fail(call, NO_CAPABILITY)
            if promise.call is None or not promise.call.is_finished or promise.call.is_returned:
                return
            call = promise.call
        if call.is_awaited:
            return
        if call.is_running:
            self._ready.append(call)
        elif call.question is not None:
            self._recall(call, call.question)

    def _recall(self, call: PendingCall, question: Question) -> None:
        """Give up what was sent on."""
        question.call = call.question = None
        question.is_open, question.purpose = False, Purpose.NOTHING
        if question.taken is not None:
            self._leave(question)
        else:
            # Its Return comes all the same.
            question.is_finished = True
            self._out.append(encode_finish(question.id))
        self.fail(call, NO_CAPABILITY)
