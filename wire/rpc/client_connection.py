"""The caller's half of a Level 0 connection; `connection` has the rules."""

from collections.abc import Generator
from enum import Enum, auto

from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.pointers import Buffer, Message
from capnp_rig.wire.errors import LocalProtocolError, MalformedMessage, RemoteProtocolError
from capnp_rig.wire.rpc.connection import (
    Answered,
    BootstrapFailed,
    ClientEvent,
    Ended,
    Failed,
    Limits,
    Unreadable,
)
from capnp_rig.wire.rpc.layouts import id_at
from capnp_rig.wire.rpc.message_encoder import (
    CALL_HEAD_WORDS,
    PROMISE_CALL_HEAD_WORDS,
    encode_bootstrap,
    encode_call,
    encode_exception,
    encode_finish,
)
from capnp_rig.wire.rpc.messages import (
    Abort,
    Bootstrap,
    Call,
    CapKind,
    Disembargo,
    ExceptionType,
    Finish,
    ImportedCap,
    Incoming,
    Other,
    Outcome,
    PromisedAnswer,
    Release,
    RemoteError,
    Resolve,
    Results,
    Return,
    Tag,
    Target,
    Unimplemented,
    content_of,
)
from capnp_rig.wire.rpc.stream import Stream


class _Question(Enum):
    BOOTSTRAP = auto()
    WAITING = auto()
    CANCELLED = auto()


# Looking a member up in its class takes 60 ns, once per answer.
_WAITING = _Question.WAITING
_RETURN = int(Tag.RETURN)


class ClientConnection(Stream):
    """The caller's half: asks for the peer's bootstrap interface and calls its methods.

    Examples:
        >>> connection = ClientConnection()
        >>> question_id = connection.call(0x8D1FB6963814A44A, 0, params)  # doctest: +SKIP
        >>> socket.sendall(connection.data_to_send())  # doctest: +SKIP
        >>> events = connection.receive_data(socket.recv(65536))  # doctest: +SKIP
    """

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits or Limits())
        self._questions: dict[int, _Question] = {0: _Question.BOOTSTRAP}
        self._free_ids: list[int] = []
        self._next_id = 1
        self._target: Target = PromisedAnswer(0)
        self._head_words = PROMISE_CALL_HEAD_WORDS
        self._bootstrap_error: RemoteError | None = None
        self._out.append(encode_bootstrap(0))

    @property
    def calls_in_flight(self) -> int:
        """Calls that have been sent, not cancelled, and have no answer yet."""
        return sum(state is _Question.WAITING for state in self._questions.values())

    @property
    def is_unheard(self) -> bool:
        """Whether the peer has not answered our Bootstrap: no call can have begun."""
        return self._questions.get(0) is _Question.BOOTSTRAP

    def call(self, interface_id: int, method_id: int, params: EncodedTuple) -> int:
        """Queue a call; return its question id.

        Raises:
            EncodeError: The message would be over the frame limit. The connection is unhurt.
            LocalProtocolError: The connection has ended, or has no bootstrap interface.
        """
        if self._ended:
            raise LocalProtocolError("the connection has ended")
        if self._bootstrap_error is not None:
            raise LocalProtocolError(f"no bootstrap interface: {self._bootstrap_error.reason}")
        question_id = self._free_ids[-1] if self._free_ids else self._next_id
        words = params[2] + self._head_words
        if words > self._large_words:
            self._take_large(words)
        self._out += encode_call(question_id, self._target, interface_id, method_id, params)
        if self._free_ids:
            self._free_ids.pop()
        else:
            self._next_id += 1
        self._questions[question_id] = _Question.WAITING
        return question_id

    def cancel(self, question_id: int) -> None:
        """Give up a call: its answer, if one still comes, is dropped without an event."""
        if self._ended or self._questions.get(question_id) is not _Question.WAITING:
            return
        self._questions[question_id] = _Question.CANCELLED
        self._out.append(encode_finish(question_id))

    def receive_data(self, data: Buffer) -> list[ClientEvent]:
        """Take received bytes; return what they mean, `Ended` always last."""
        return list(self.events(data))

    def events(self, data: Buffer) -> Generator[ClientEvent]:
        """Take received bytes; yield what they mean one by one, `Ended` always last.

        A caller that stops early closes the generator; the rest comes with the next call.
        """
        if self._ended:
            return
        decoder, questions = self._decoder, self._questions
        find, trace = self._layouts.find, self._layouts.trace
        budget_words = self._limits.frame.traversal_words
        buffer = decoder.begin(data)
        at, size = 0, len(buffer)
        try:
            while at < size:
                start, content = at, None
                layout = find(buffer, at, size)
                if layout is not None:
                    at += layout.frame_bytes
                else:
                    message = decoder.cut(buffer, at, size)
                    if message is None:
                        break
                    at = message.bounds[-1][1]
                    layout, content = trace(message, start)
                if layout is not None and layout.kind == _RETURN:
                    (question_id,) = id_at(buffer, start + layout.body)
                    if questions.get(question_id) is _WAITING:
                        self._close_question(question_id, layout.no_finish_needed)
                        if content is None:
                            content = layout.content_in(buffer, start, budget_words)
                        yield Answered(question_id, content)
                        continue
                # Anew, for one that was traced has been charged.
                message = decoder.cut(buffer, start, size)
                assert message is not None
                event = self._handle(message, self._decode(message))
                if event is not None:
                    yield event
                if self._ended:
                    return
        except RemoteProtocolError as error:
            yield self._abort(error)
        finally:
            decoder.keep(buffer, at, size)

    def _handle(self, message: Message, decoded: Incoming) -> ClientEvent | None:
        match decoded:
            case Return():
                return self._handle_return(decoded)
            case Abort():
                return self._aborted(decoded)
            case Unimplemented(question_id=int(question_id)):
                return self._handle_unimplemented(question_id)
            case Bootstrap(question_id):
                error = RemoteError("a client has no bootstrap interface")
                self._out += encode_exception(question_id, error)
            case Call() | Release() | Disembargo():
                raise RemoteProtocolError("message is for a capability that was never sent")
            case Other() | Resolve():
                self._echo_unimplemented(message)
            case Finish() | Unimplemented():
                pass
        return None

    def _handle_return(self, message: Return) -> ClientEvent | None:
        question_id, outcome = message.answer_id, message.outcome
        state = self._questions.pop(question_id, None)
        if state is None:
            raise RemoteProtocolError(f"return for question {question_id}, which was not asked")
        if state is _Question.BOOTSTRAP:
            return self._handle_bootstrap(question_id, outcome)
        self._questions[question_id] = state
        # A cancelled call's Finish has gone already.
        self._close_question(question_id, message.no_finish_needed or state is _Question.CANCELLED)
        if state is _Question.CANCELLED:
            return None
        match outcome:
            case Results():
                try:
                    return Answered(question_id, content_of(outcome.content))
                except MalformedMessage as error:
                    return Unreadable(question_id, str(error))
            case RemoteError():
                return Failed(question_id, outcome)
        return Failed(question_id, RemoteError("the call was cancelled by the server"))

    def _close_question(self, question_id: int, no_finish_needed: bool) -> None:
        del self._questions[question_id]
        self._free_ids.append(question_id)
        if not no_finish_needed:
            self._out.append(encode_finish(question_id))

    def _handle_bootstrap(self, question_id: int, outcome: Outcome) -> ClientEvent | None:
        # Keep the reference: from here on calls go to the capability itself.
        self._out.append(encode_finish(question_id, release_result_caps=False))
        self._free_ids.append(question_id)
        if isinstance(outcome, Results):
            for capability in outcome.cap_table:
                if capability.kind in {CapKind.SENDER_HOSTED, CapKind.SENDER_PROMISE}:
                    self._target = ImportedCap(capability.id)
                    self._head_words = CALL_HEAD_WORDS
                    return None
            outcome = RemoteError("the answer holds no capability")
        if not isinstance(outcome, RemoteError):
            outcome = RemoteError("the bootstrap was cancelled by the server")
        self._bootstrap_error = outcome
        return BootstrapFailed(outcome)

    def _handle_unimplemented(self, question_id: int) -> ClientEvent | None:
        state = self._questions.pop(question_id, None)
        error = RemoteError("the peer does not implement this", ExceptionType.UNIMPLEMENTED)
        if state is _Question.BOOTSTRAP:
            self._bootstrap_error = error
            return BootstrapFailed(error)
        if state is None:
            return None
        self._free_ids.append(question_id)
        return Failed(question_id, error) if state is _Question.WAITING else None

    def receive_eof(self) -> list[Ended]:
        """Take the end of the stream; return `Ended` unless it came before."""
        return [] if self._ended else [self._eof()]
