"""The callee's half of a Level 0 connection; `connection` has the rules."""

from collections.abc import Callable, Generator, Mapping
from enum import Enum, auto

from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.pointers import Buffer, Message, StructTuple
from capnp_rig.wire.errors import LocalProtocolError, MalformedMessage, RemoteProtocolError
from capnp_rig.wire.rpc.connection import (
    Answers,
    Called,
    Cancelled,
    Ended,
    Limits,
    ServerEvent,
)
from capnp_rig.wire.rpc.layouts import Layout, call_at, id_at, two_at
from capnp_rig.wire.rpc.message_encoder import (
    RESULTS_HEAD_WORDS,
    encode_bootstrap_results,
    encode_canceled,
    encode_exception,
    encode_results,
    results_head,
)
from capnp_rig.wire.rpc.messages import (
    Abort,
    Bootstrap,
    Call,
    Disembargo,
    ExceptionType,
    Finish,
    ImportedCap,
    Incoming,
    Other,
    Release,
    RemoteError,
    Resolve,
    ResultsTo,
    Return,
    Tag,
    Target,
    Unimplemented,
    content_of,
)
from capnp_rig.wire.rpc.stream import Stream

# A method by interface id and method id: gets the params, returns the results or an error.
# It must not raise.
InlineMethods = Mapping[tuple[int, int], Callable[[StructTuple | None], EncodedTuple | RemoteError]]
NO_METHODS: InlineMethods = {}

# The one capability that a Level 0 server exports.
_BOOTSTRAP_EXPORT = 0


class _Answer(Enum):
    BOOTSTRAP = auto()
    RUNNING = auto()
    CANCELLED = auto()


_RUNNING, _BOOTSTRAPPED, _CANCELLED = _Answer.RUNNING, _Answer.BOOTSTRAP, _Answer.CANCELLED
_CALL, _FINISH = int(Tag.CALL), int(Tag.FINISH)


class ServerConnection(Stream):
    """The callee's half: exports one bootstrap capability and answers the calls to it."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits or Limits())
        self._max_in_flight = self._limits.max_calls_in_flight
        self._answers: dict[int, _Answer] = {}
        self._references = 0
        self._in_flight = 0
        # How many calls were answered on the spot, exact whenever an event is handed out.
        self.inline_calls = 0

    @property
    def calls_in_flight(self) -> int:
        """Calls that were handed out and are not answered, cancelled ones included."""
        return self._in_flight

    def send_results(self, question_id: int, results: EncodedTuple) -> None:
        """Queue the answer to a call.

        Raises:
            EncodeError: The message would be over the frame limit; send an exception instead.
            LocalProtocolError: No such call is waiting.
        """
        words = results[2] + RESULTS_HEAD_WORDS
        if words > self._large_words:
            self._take_large(words)
        answers = self._answers
        if answers.get(question_id) is _RUNNING and not self._ended:
            del answers[question_id]
            self._in_flight -= 1
            self._out += encode_results(question_id, results)
        else:
            self._settle(question_id)

    def send_exception(self, question_id: int, error: RemoteError) -> None:
        """Queue the failure of a call.

        Raises:
            LocalProtocolError: No such call is waiting.
        """
        if self._settle(question_id):
            self._out += encode_exception(question_id, error)

    def abort(self, reason: str) -> Ended:
        """End the connection for a reason of ours; the Abort is queued."""
        return self._abort(RemoteProtocolError(reason))

    def _settle(self, question_id: int) -> bool:
        """Free the call's slot; return whether its caller still waits for the outcome."""
        if self._ended:
            return False
        state = self._answers.get(question_id)
        if state is not _RUNNING and state is not _CANCELLED:
            raise LocalProtocolError(f"no call {question_id} is waiting for an answer")
        del self._answers[question_id]
        self._in_flight -= 1
        if state is _CANCELLED:
            self._out.append(encode_canceled(question_id))
            return False
        return True

    def receive_data(self, data: Buffer) -> list[ServerEvent]:
        """Take received bytes; return what they mean, `Ended` always last.

        The params of a `Called` are valid as long as `data` is.
        """
        return list(self.events(data))

    # The loop of the whole server, written out: a call per step would cost more than the step.
    def events(  # noqa: C901, PLR0912, PLR0915
        self, data: Buffer, inline: InlineMethods = NO_METHODS
    ) -> Generator[ServerEvent]:
        """Take received bytes; yield what they mean one by one, `Ended` always last.

        Calls of `inline` methods are answered on the spot, without an event each; after
        every `inline_calls` of them, or `inline_words` of results, comes an `Answers`. A
        caller that stops early closes the generator; the rest comes with the next call.
        So a server stops decoding as soon as its answers pile up.
        """
        if self._ended:
            return
        decoder, limits, answers = self._decoder, self._limits, self._answers
        find, trace = self._layouts.find, self._layouts.trace
        budget_words = limits.frame.traversal_words
        # `uncounted` is what `calls_left` was when `inline_calls` was last brought up to date.
        uncounted = calls_left = limits.inline_calls
        words_left = limits.inline_words
        out, most_words = self._out, self._large_words - RESULTS_HEAD_WORDS
        buffer = decoder.begin(data)
        at, size = 0, len(buffer)
        try:
            while at < size:
                start, event, method, params = at, None, None, None
                layout = find(buffer, at, size)
                if layout is not None:
                    at += layout.frame_bytes
                else:
                    message = decoder.cut(buffer, at, size)
                    if message is None:
                        break
                    at = message.bounds[-1][1]
                    layout, params = trace(message, start)
                    if layout is None:
                        event = self._handle(message, self._decode(message), inline)
                if layout is None:
                    pass
                elif layout.kind == _CALL:
                    question_id, method_id, interface_id = call_at(buffer, start + layout.body)
                    (target,) = id_at(buffer, start + layout.target)
                    if params is None:
                        params = layout.content_in(buffer, start, budget_words)
                    if layout.is_promise:
                        is_ours = answers.get(target) is _BOOTSTRAPPED and not layout.path
                    else:
                        is_ours = target == _BOOTSTRAP_EXPORT and self._references > 0
                    if is_ours:
                        method = inline.get((interface_id, method_id))
                    if method is None or question_id in answers:
                        method = None
                        error = None if is_ours else self._target_error(layout.target_in(target))
                        event = self._called(question_id, interface_id, method_id, params, error)
                elif layout.kind == _FINISH:
                    question_id, flags = two_at(buffer, start + layout.body)
                    if question_id in answers:
                        event = self._finish(question_id, releases=not flags & 1)
                else:
                    self._handle_rare(layout, buffer, start)
                if method is not None:
                    outcome = method(params)
                    if type(outcome) is tuple and outcome[2] <= most_words:
                        # The same as `_answer`, written out: it saves a call in every call.
                        out.append(results_head(question_id, outcome[0], outcome[2]))
                        out += outcome[1]
                        words_left -= outcome[2] + RESULTS_HEAD_WORDS
                    else:
                        words_left -= self._answer(question_id, outcome)
                    calls_left -= 1
                    if calls_left and words_left >= 0:
                        continue
                    event = Answers()
                if event is not None:
                    self.inline_calls += uncounted - calls_left
                    uncounted = calls_left
                    if type(event) is Answers:
                        uncounted = calls_left = limits.inline_calls
                        words_left = limits.inline_words
                    yield event
                if self._ended:
                    return
        except RemoteProtocolError as error:
            yield self._abort(error)
        finally:
            self.inline_calls += uncounted - calls_left
            decoder.keep(buffer, at, size)

    def _answer(self, question_id: int, outcome: EncodedTuple | RemoteError) -> int:
        """Queue the outcome of an inline method; return how many words of results it has."""
        if isinstance(outcome, RemoteError):
            self._out += encode_exception(question_id, outcome)
            return 0
        words = outcome[2] + RESULTS_HEAD_WORDS
        if words > self._max_words:
            self._out += encode_exception(question_id, RemoteError(self._too_large(words)))
            return 0
        if words > self._large_words:
            self._take_large(words)
        out = self._out
        out.append(results_head(question_id, outcome[0], outcome[2]))
        out += outcome[1]
        return words

    def _handle(
        self, message: Message, decoded: Incoming, inline: InlineMethods
    ) -> ServerEvent | None:
        match decoded:
            case Call():
                return self._handle_call(message, decoded, inline)
            case Finish(question_id):
                return self._finish(question_id, releases=decoded.release_result_caps)
            case Bootstrap(question_id):
                self._handle_bootstrap(question_id)
            case Release():
                self._release(decoded.export_id, decoded.reference_count)
            case Abort():
                return self._aborted(decoded)
            case Return():
                raise RemoteProtocolError(f"return for question {decoded.answer_id}, never asked")
            case Disembargo() if decoded.context <= 1:
                # No capability of the peer ever reaches a Level 0 server, so none can loop back.
                raise RemoteProtocolError("disembargo of a capability that is not the sender's")
            case Disembargo() | Other() | Resolve():
                self._echo_unimplemented(message)
            case Unimplemented():
                # A server sends Return and Abort only, and every peer implements those.
                raise RemoteProtocolError("the peer does not implement a message it needs")
        return None

    def _open(self, question_id: int, state: _Answer) -> None:
        if question_id in self._answers:
            raise RemoteProtocolError(f"question {question_id} is already in use")
        if len(self._answers) >= self._limits.max_answers:
            raise RemoteProtocolError(
                f"more than {self._limits.max_answers} answers wait for their Finish"
            )
        self._answers[question_id] = state

    def _handle_bootstrap(self, question_id: int) -> None:
        self._open(question_id, _Answer.BOOTSTRAP)
        self._references += 1
        self._out.append(encode_bootstrap_results(question_id, _BOOTSTRAP_EXPORT))

    def _handle_rare(self, layout: Layout, buffer: Buffer, at: int) -> None:
        number, count = two_at(buffer, at + layout.body)
        if layout.kind == Tag.RELEASE:
            self._release(number, count)
        elif layout.kind == Tag.BOOTSTRAP:
            self._handle_bootstrap(number)
        else:
            raise RemoteProtocolError(f"return for question {number}, never asked")

    def _called(
        self,
        question_id: int,
        interface_id: int,
        method_id: int,
        params: StructTuple | None,
        error: RemoteError | None,
    ) -> Called | None:
        if error is None and self._in_flight >= self._max_in_flight:
            error = self._overloaded()
        if error is not None:
            self._refuse(question_id, error)
            return None
        self._open(question_id, _RUNNING)
        self._in_flight += 1
        return Called(question_id, interface_id, method_id, params)

    def _handle_call(
        self, message: Message, call: Call, inline: InlineMethods
    ) -> ServerEvent | None:
        if call.results_to != ResultsTo.CALLER:
            self._echo_unimplemented(message)
            return None
        error = self._target_error(call.target)
        params = None
        try:
            params = content_of(call.params)
        except MalformedMessage as malformed:
            error = error or RemoteError(str(malformed))
        question_id, interface_id, method_id = call.question_id, call.interface_id, call.method_id
        method = inline.get((interface_id, method_id))
        if method is None or error is not None or question_id in self._answers:
            return self._called(question_id, interface_id, method_id, params, error)
        self._answer(question_id, method(params))
        self.inline_calls += 1
        return Answers()

    def _refuse(self, question_id: int, error: RemoteError) -> None:
        if question_id in self._answers:
            raise RemoteProtocolError(f"question {question_id} is already in use")
        self._out += encode_exception(question_id, error)

    def _overloaded(self) -> RemoteError:
        limit = self._limits.max_calls_in_flight
        return RemoteError(
            f"more than {limit} calls in flight on this connection", ExceptionType.OVERLOADED
        )

    def _target_error(self, target: Target) -> RemoteError | None:
        if isinstance(target, ImportedCap):
            if target.import_id != _BOOTSTRAP_EXPORT or not self._references:
                raise RemoteProtocolError(
                    f"message target {target.import_id} is not a current export"
                )
            return None
        if self._answers.get(target.question_id) is not _Answer.BOOTSTRAP:
            return RemoteError("pipelined call on an answer that holds no capability")
        if target.path:
            return RemoteError("pipelined call on a field of a capability, which has none")
        return None

    def _finish(self, question_id: int, *, releases: bool) -> ServerEvent | None:
        state = self._answers.get(question_id)
        if state is _BOOTSTRAPPED:
            del self._answers[question_id]
            if releases:
                self._release(_BOOTSTRAP_EXPORT, 1)
        elif state is _RUNNING:
            self._answers[question_id] = _CANCELLED
            return Cancelled(question_id)
        # A Finish for an answer that needed none is welcome from old peers.
        return None

    def _release(self, export_id: int, count: int) -> None:
        if export_id != _BOOTSTRAP_EXPORT or count > self._references:
            raise RemoteProtocolError(f"release of export {export_id}, {count} times, is too much")
        self._references -= count

    def receive_eof(self) -> list[Ended]:
        """Take the end of the stream; return `Ended` unless it came before."""
        return [] if self._ended else [self._eof()]
