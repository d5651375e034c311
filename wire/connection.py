"""Both halves of a Level 0 connection, without I/O.

The rules are in rpc.capnp; those that shape the code:

- A question's id is free again once its Return has come and its Finish has gone.
  A Return with `noFinishNeeded` counts as both; an old peer sends Finish all the same.
- A client calls the promise of its Bootstrap at once, and the capability itself
  once that has returned.
- A Finish for a call that still runs cancels it. The id, and the slot among the
  calls in flight, stay taken until the handler has ended and a Return has gone.
- What Level 0 does not know is echoed as `unimplemented`; what no peer may send
  ends the connection with an Abort that says why.

Nothing here raises for what a peer sends: the last event says why a connection ended.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from wire.errors import EncodeError, LocalProtocolError, MalformedMessage, RemoteProtocolError
from wire.frames import DEFAULT_LIMITS, FrameDecoder, FrameLimits
from wire.messages import (
    CALL_HEAD_WORDS,
    PROMISE_CALL_HEAD_WORDS,
    RESULTS_HEAD_WORDS,
    Abort,
    Bootstrap,
    Call,
    Canceled,
    Disembargo,
    EncodedTuple,
    ExceptionType,
    Finish,
    ImportedCap,
    Incoming,
    Other,
    PromisedAnswer,
    Release,
    RemoteError,
    Results,
    Return,
    Target,
    Unimplemented,
    content_of,
    decode,
    encode_abort,
    encode_bootstrap,
    encode_bootstrap_results,
    encode_call,
    encode_canceled,
    encode_exception,
    encode_finish,
    encode_results,
    encode_unimplemented,
    plain_call,
    plain_return,
    results_head,
)
from wire.pointers import Buffer, Message, StructTuple


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may hold; the defaults are those of the rig's server."""

    frame: FrameLimits = field(default=DEFAULT_LIMITS)
    max_calls_in_flight: int = 256
    max_answers: int = 1024
    # A batch of inline calls is interrupted after so many, or so many words of results.
    inline_calls: int = 256
    inline_words: int = 131_072


# --- events -----------------------------------------------------------------------------


class Answered:
    """A call of ours succeeded.

    `content` is where its results are, for a `StructCodec` to read, None where they are
    null; valid as long as the data that was fed.
    """

    # Like `Called` no dataclass: a frozen one takes four times as long to make.
    __slots__ = ("content", "question_id")

    def __init__(self, question_id: int, content: StructTuple | None) -> None:
        self.question_id = question_id
        self.content = content


@dataclass(frozen=True, slots=True)
class Failed:
    """A call of ours failed on the other side."""

    question_id: int
    error: RemoteError


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The answer to a call of ours cannot be read; the connection goes on."""

    question_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class BootstrapFailed:
    """The peer has no bootstrap interface for us: every call will fail likewise."""

    error: RemoteError


class Called:
    """The peer calls a method; answer with `send_results` or `send_exception`.

    `params` is where its parameters are, for a `StructCodec` to read, None where they are
    null; valid as long as the data that was fed.
    """

    __slots__ = ("interface_id", "method_id", "params", "question_id")

    def __init__(
        self, question_id: int, interface_id: int, method_id: int, params: StructTuple | None
    ) -> None:
        self.question_id = question_id
        self.interface_id = interface_id
        self.method_id = method_id
        self.params = params


class Answers(NamedTuple):
    """Many inline calls were answered: time to send, and to let others have their turn."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The peer no longer wants this call; it must still be answered, with anything."""

    question_id: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The connection is over: `error` is None where the peer ended it between two messages.

    A `RemoteError` is the peer's Abort; a `RemoteProtocolError` our reason for one,
    already among the data to send.
    """

    error: RemoteError | RemoteProtocolError | None


ClientEvent = Answered | Failed | Unreadable | BootstrapFailed | Ended
ServerEvent = Called | Answers | Cancelled | Ended


# --- what both halves share -------------------------------------------------------------


class _Connection:
    """The stream: bytes in, bytes out, and how it ends."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._max_words = limits.frame.max_words
        self._max_bytes = 8 * self._max_words
        self._decoder = FrameDecoder(limits.frame)
        self._out: list[Buffer] = []
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the connection is over; nothing more can be sent or received."""
        return self._ended

    def data_to_send(self) -> bytes:
        """Return the bytes to send now, and forget them."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def _decode(self, message: Message) -> Incoming:
        try:
            return decode(message)
        except MalformedMessage as error:
            raise RemoteProtocolError(str(error)) from error

    def _end_of_stream(self) -> Ended:
        self._ended = True
        if self._decoder.pending_bytes:
            return Ended(RemoteProtocolError("the peer closed within a message"))
        return Ended(None)

    def _abort(self, error: RemoteProtocolError) -> Ended:
        self._ended = True
        self._out.append(encode_abort(RemoteError(str(error))))
        return Ended(error)

    def _aborted(self, message: Abort) -> Ended:
        self._ended = True
        return Ended(message.error)

    def _echo_unimplemented(self, message: Message) -> None:
        # An echo of several segments would need its far pointers moved; the spec asks for
        # an echo only so that the sender can release what it sent, and an empty one
        # tells it as much about messages that we never provoke.
        if len(message.bounds) == 1:
            self._out.append(encode_unimplemented(message))

    def _check_size(self, words: int) -> None:
        if words > self._max_words:
            raise EncodeError(self._too_large(words))

    def _too_large(self, words: int) -> str:
        return f"message is too large: {words * 8} bytes, the limit is {self._max_words * 8}"


# --- the client's half ------------------------------------------------------------------


class _Question(Enum):
    BOOTSTRAP = auto()
    WAITING = auto()
    CANCELLED = auto()


# Looking a member up in its class takes 60 ns, once per answer.
_WAITING = _Question.WAITING


class ClientConnection(_Connection):
    """The caller's half: asks for the peer's bootstrap interface and calls its methods.

    >>> connection = ClientConnection()
    >>> question_id = connection.call(0x8d1fb6963814a44a, 0, params)   # doctest: +SKIP
    >>> socket.sendall(connection.data_to_send())                      # doctest: +SKIP
    >>> events = connection.receive_data(socket.recv(65536))           # doctest: +SKIP
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
        self._check_size(params[2] + self._head_words)
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
        messages = self._decoder.feed(data)
        try:
            for message in messages:
                answer = plain_return(message) if len(message.bounds) == 1 else None
                if answer is not None and self._questions.get(answer[0]) is _WAITING:
                    question_id, no_finish_needed, content = answer
                    self._close_question(question_id, no_finish_needed)
                    yield Answered(question_id, content)
                    continue
                event = self._handle(message, self._decode(message))
                if event is not None:
                    yield event
                if self._ended:
                    return
        except RemoteProtocolError as error:
            yield self._abort(error)
        finally:
            messages.close()

    def receive_eof(self) -> list[Ended]:
        """Take the end of the stream; return `Ended` unless it came before."""
        return [] if self._ended else [self._end_of_stream()]

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
            case Other():
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

    def _close_question(self, question_id: int, no_finish_needed: bool) -> None:  # noqa: FBT001
        del self._questions[question_id]
        self._free_ids.append(question_id)
        if not no_finish_needed:
            self._out.append(encode_finish(question_id))

    def _handle_bootstrap(
        self, question_id: int, outcome: Results | RemoteError | Canceled
    ) -> ClientEvent | None:
        # Keep the reference: from here on calls go to the capability itself.
        self._out.append(encode_finish(question_id, release_result_caps=False))
        self._free_ids.append(question_id)
        if isinstance(outcome, Results):
            for descriptor in outcome.cap_table:
                if descriptor.export_id is not None:
                    self._target = ImportedCap(descriptor.export_id)
                    self._head_words = CALL_HEAD_WORDS
                    return None
            outcome = RemoteError("the answer holds no capability")
        if isinstance(outcome, Canceled):
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


# --- the server's half ------------------------------------------------------------------

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


class ServerConnection(_Connection):
    """The callee's half: exports one bootstrap capability and answers the calls to it."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits or Limits())
        self._max_in_flight = self._limits.max_calls_in_flight
        self._answers: dict[int, _Answer] = {}
        self._references = 0
        self._in_flight = 0

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
        if words > self._max_words:
            self._check_size(words)
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

    # The loop of the whole server: spelled out, for a call per step would cost more than the step.
    def events(  # noqa: C901, PLR0912
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
        decoder, limits = self._decoder, self._limits
        budget_words = limits.frame.traversal_words
        calls_left, words_left = limits.inline_calls, limits.inline_words
        buffer = decoder.begin(data)
        at, size = 0, len(buffer)
        try:
            while at < size:
                call = plain_call(buffer, at, size, budget_words)
                if call is None:
                    message = decoder.cut(buffer, at, size)
                    if message is None:
                        break
                    at = message.bounds[-1][1]
                    event = self._handle(message, self._decode(message))
                    if type(event) is Called and (event.interface_id, event.method_id) in inline:
                        words_left -= self._answer_called(event, inline)
                        calls_left -= 1
                        event = None
                        if not calls_left or words_left < 0:
                            calls_left, words_left = limits.inline_calls, limits.inline_words
                            event = Answers()
                    if event is not None:
                        yield event
                    if self._ended:
                        return
                    continue
                end, question_id, interface_id, method_id, import_id, promise_id, params = call
                if end - at > self._max_bytes:
                    # Too large: `cut` says so.
                    decoder.cut(buffer, at, size)
                at = end
                method = inline.get((interface_id, method_id))
                if (
                    method is None
                    or question_id in self._answers
                    # As `_is_ours`, spelled out for the capability itself: a call less.
                    or not (
                        (import_id == _BOOTSTRAP_EXPORT and self._references)
                        or self._is_ours(import_id, promise_id)
                    )
                ):
                    event = self._handle_plain_call(*call)
                    if event is not None:
                        yield event
                    continue
                words_left -= self._answer(question_id, method(params))
                calls_left -= 1
                if not calls_left or words_left < 0:
                    calls_left, words_left = limits.inline_calls, limits.inline_words
                    yield Answers()
        except RemoteProtocolError as error:
            yield self._abort(error)
        finally:
            decoder.keep(buffer, at, size)

    def _answer_called(self, called: Called, inline: InlineMethods) -> int:
        """Answer a call of an inline method that was not in its plain case, as `_answer`."""
        self._settle(called.question_id)
        method = inline[called.interface_id, called.method_id]
        return self._answer(called.question_id, method(called.params))

    def _answer(self, question_id: int, outcome: EncodedTuple | RemoteError) -> int:
        """Queue the outcome of an inline method; return how many words of results it has."""
        if isinstance(outcome, RemoteError):
            self._out += encode_exception(question_id, outcome)
            return 0
        words = outcome[2] + RESULTS_HEAD_WORDS
        if words > self._max_words:
            self._out += encode_exception(question_id, RemoteError(self._too_large(words)))
            return 0
        out = self._out
        out.append(results_head(question_id, outcome[0], outcome[2]))
        out += outcome[1]
        return words

    def receive_eof(self) -> list[Ended]:
        """Take the end of the stream; return `Ended` unless it came before."""
        return [] if self._ended else [self._end_of_stream()]

    def _handle(self, message: Message, decoded: Incoming) -> ServerEvent | None:
        match decoded:
            case Call():
                return self._handle_call(message, decoded)
            case Finish():
                return self._handle_finish(decoded)
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
            case Disembargo() | Other():
                self._echo_unimplemented(message)
            case Unimplemented():
                # A server sends Return and Abort only, which nobody can do without.
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

    def _is_ours(self, import_id: int | None, promise_id: int) -> bool:
        if import_id is None:
            return self._answers.get(promise_id) is _BOOTSTRAPPED
        return import_id == _BOOTSTRAP_EXPORT and self._references > 0

    def _handle_plain_call(
        self,
        _end: int,
        question_id: int,
        interface_id: int,
        method_id: int,
        import_id: int | None,
        promise_id: int,
        params: StructTuple,
    ) -> Called | None:
        if not self._is_ours(import_id, promise_id) or self._in_flight >= self._max_in_flight:
            target = PromisedAnswer(promise_id) if import_id is None else ImportedCap(import_id)
            self._refuse(question_id, self._target_error(target) or self._overloaded())
            return None
        self._open(question_id, _RUNNING)
        self._in_flight += 1
        return Called(question_id, interface_id, method_id, params)

    def _handle_call(self, message: Message, call: Call) -> Called | None:
        if not call.sends_results_to_caller:
            self._echo_unimplemented(message)
            return None
        error = self._target_error(call.target)
        if error is None and self._in_flight >= self._limits.max_calls_in_flight:
            error = self._overloaded()
        try:
            params = content_of(call.params)
        except MalformedMessage as malformed:
            error = error or RemoteError(str(malformed))
        if error is not None:
            self._refuse(call.question_id, error)
            return None
        self._open(call.question_id, _RUNNING)
        self._in_flight += 1
        return Called(call.question_id, call.interface_id, call.method_id, params)

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

    def _handle_finish(self, message: Finish) -> ServerEvent | None:
        state = self._answers.get(message.question_id)
        if state is _Answer.BOOTSTRAP:
            del self._answers[message.question_id]
            if message.release_result_caps:
                self._release(_BOOTSTRAP_EXPORT, 1)
        elif state is _Answer.RUNNING:
            self._answers[message.question_id] = _Answer.CANCELLED
            return Cancelled(message.question_id)
        # A Finish for an answer that needed none is welcome from old peers.
        return None

    def _release(self, export_id: int, count: int) -> None:
        if export_id != _BOOTSTRAP_EXPORT or count > self._references:
            raise RemoteProtocolError(f"release of export {export_id}, {count} times, is too much")
        self._references -= count
