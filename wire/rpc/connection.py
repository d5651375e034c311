"""A connection of Level 1: what both of its ends know and do is the same.

The rules are in rpc.capnp; those that shape the code:

- A question's id is free again once its Return has come and its Finish has gone.
  A Return with `noFinishNeeded` counts as both; an old peer sends Finish all the same.
- A Finish for a call that still runs cancels it. The id, and the slot among the
  calls in flight, stay taken until the handler has ended and a Return has gone.
- Capabilities are counted (`tables`), promises keep the order of calls (`promises`).
- What Level 1 does not know is echoed as `unimplemented`; what no peer may send
  ends the connection with an Abort that says why.

A connection does not raise for what a peer sends: the last event says why it ended.

Who holds what: every `Capability` that an event or a method hands out belongs to whoever gets it,
to be released once, whenever that is; those in params may outlive the call. Methods that take
capabilities borrow them. An object of ours is hosted while anything refers to it on this
connection, a `Capability` here included; then comes `Released`.

A call may be made, or answered, between two reads. What that brings about on this side, such as a
call of an object of ours that waited, comes with the next `events`: feed it with nothing while
`has_events`.

The layers, each on top of the one before: `stream`, `tables`, `promises`, `questions`, `outcomes`,
`answers`, `incoming_calls`, `deliveries`, `oversized`, and here the loop. What passes no
capabilities, and is in a layout that is known, never leaves the loop.
"""

from collections.abc import Generator
from typing import Any

from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.pointers import Buffer, Message, StructTuple
from capnp_rig.wire.errors import FrameTooLarge, RemoteProtocolError
from capnp_rig.wire.rpc.calls import Asked, Asking, PendingCall
from capnp_rig.wire.rpc.capabilities import OpenPromise
from capnp_rig.wire.rpc.events import (
    Answered,
    Answers,
    BootstrapFailed,
    Called,
    Cancelled,
    ClientEvent,
    Ended,
    Event,
    Failed,
    Limits,
    Oversized,
    Released,
    ServerEvent,
    Unreadable,
)
from capnp_rig.wire.rpc.inline_methods import NO_METHODS, InlineMethods, ResultsWith
from capnp_rig.wire.rpc.layouts import Layout, call_at, id_at, two_at
from capnp_rig.wire.rpc.message_encoder import (
    RESULTS_HEAD_WORDS,
    encode_exception,
    encode_finish,
    results_head,
)
from capnp_rig.wire.rpc.messages import (
    Abort,
    Bootstrap,
    Call,
    Disembargo,
    DisembargoContext,
    ExceptionType,
    Finish,
    Incoming,
    Other,
    Release,
    RemoteError,
    Resolve,
    Return,
    Tag,
    Unimplemented,
)
from capnp_rig.wire.rpc.nodes import Hosted
from capnp_rig.wire.rpc.oversized import OversizedMessages
from capnp_rig.wire.rpc.tables import HOSTED_HERE

__all__ = [
    "Answered",
    "Answers",
    "BootstrapFailed",
    "Called",
    "Cancelled",
    "ClientEvent",
    "Connection",
    "Ended",
    "Event",
    "Failed",
    "Limits",
    "Oversized",
    "Released",
    "ServerEvent",
    "Unreadable",
]

# Looking a member up in its class takes 60 ns, several times per call.
_WAITING = Asked.WAITING
_RUNNING, _BOOTSTRAPPED = Asking.RUNNING, Asking.BOOTSTRAP
_CALL, _RETURN, _FINISH = int(Tag.CALL), int(Tag.RETURN), int(Tag.FINISH)
_RELEASE = int(Tag.RELEASE)


class Connection(OversizedMessages):
    """One end of a connection: it calls the peer's objects, and answers calls to ours.

    `bootstrap` is the object that the peer may ask for, None for none; any object may be hosted, it
    means nothing here.

    Examples:
        >>> connection = Connection()
        >>> main = connection.bootstrap()  # doctest: +SKIP
        >>> login = connection.call(main, 0xA11CE, 0, params)  # doctest: +SKIP
        >>> session = connection.pipeline(login, (0,))  # doctest: +SKIP
        >>> read = connection.call(session, 0xB0B, 0, params)  # doctest: +SKIP
        >>> socket.sendall(connection.data_to_send())  # doctest: +SKIP
        >>> events = connection.receive_data(socket.recv(65536))  # doctest: +SKIP
    """

    __slots__ = (
        "_loop_rules",
        "_loop_state",
    )

    def __init__(self, limits: Limits | None = None, bootstrap: Any = None) -> None:
        super().__init__(limits or Limits(), bootstrap)
        # What the loop uses, always the same objects: two attributes are quicker than many.
        self._loop_state = (
            *(self._decoder, self._answers, self._questions, self._exports, self._out),
            *(self._ready, self._failures),
        )
        self._loop_rules = (
            *(self._layouts.find, self._layouts.trace, self._bootstrap),
            *(self._limits.frame.traversal_words, self._large_words - RESULTS_HEAD_WORDS),
            *(self._limits.inline_calls, self._limits.inline_words),
        )

    def promise(self) -> OpenPromise:
        """Return a new promise of ours, to be resolved later, and released."""
        return OpenPromise(self)

    def abort(self, reason: str, kind: ExceptionType = ExceptionType.FAILED) -> Ended:
        """End the connection for a reason of ours; the Abort, of that `kind`, is queued.

        What it hosted comes as `Released` with the next events.
        """
        ended = self._abort(RemoteProtocolError(reason), kind)
        self._clear()
        return ended

    def receive_data(self, data: Buffer) -> list[Event]:
        """Take received bytes; return what they mean, `Ended` always last.

        Params and results are valid as long as `data` is.
        """
        return list(self.events(data))

    def receive_eof(self) -> list[Event]:
        """Take the end of the stream; return `Ended`, as the last event, unless it came before."""
        if self._ended:
            return list(self._drain())
        ended = self._eof()
        self._clear()
        return [*self._drain(), ended]

    # The loop of server and client, written out: a call per step would cost more than the step.
    def events(  # noqa: C901, PLR0912, PLR0915
        self, data: Buffer, inline: InlineMethods = NO_METHODS
    ) -> Generator[Event]:
        """Take received bytes; yield what they mean one by one, `Ended` always last.

        Calls of `inline` methods of the bootstrap object are answered on the spot, without an event
        each, as are those of other objects that were hosted with such methods; after every
        `inline_calls` of them, or `inline_words` of results, comes an `Answers`. A
        caller that stops early closes the generator; the rest comes with the next call.
        So a server stops decoding as soon as its answers pile up.
        """
        decoder, answers, questions, exports, out, ready, failures = self._loop_state
        find, trace, bootstrap, budget_words, most_words, calls_left, words_left = self._loop_rules
        if bootstrap is not None:
            bootstrap.inline = inline
        if ready:
            yield from self._drain()
        if self._ended:
            return
        # What `calls_left` was when `inline_calls` was last brought up to date.
        uncounted = calls_left
        buffer = decoder.begin(data)
        at, size = 0, len(buffer)
        event: Event | None
        try:
            while at < size:
                start, event, method, content = at, None, None, None
                layout = find(buffer, at, size)
                if layout is not None:
                    at += layout.frame_bytes
                    kind = layout.kind
                else:
                    try:
                        message = decoder.cut(buffer, at, size)
                    except FrameTooLarge as error:
                        self.inline_calls += uncounted - calls_left
                        uncounted = calls_left
                        at = self._refuse_oversized(error, buffer, at, size)
                        yield from self._drain()
                        if self._ended:
                            return
                        continue
                    if message is None:
                        break
                    at = message.bounds[-1][1]
                    layout, content = trace(message, start)
                    kind = -1 if layout is None else layout.kind
                if layout is None:
                    self._handle_again(buffer, start, size)
                elif kind == _CALL:
                    question_id, method_id, interface_id = call_at(buffer, start + layout.body)
                    (target,) = id_at(buffer, start + layout.target)
                    if failures:
                        self._begin_call(question_id)
                    if not layout.is_promise:
                        node = exports.get(target)
                    elif answers.get(target) is _BOOTSTRAPPED and not layout.path:
                        node = bootstrap
                    else:
                        node = None
                    if node is not None:
                        method = node.inline.get((interface_id, method_id))
                    if method is not None and question_id not in answers:
                        if content is None:
                            content = layout.content_in(buffer, start, budget_words)
                        outcome = method(content)
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
                    elif type(node) is Hosted:
                        if content is None:
                            content = layout.content_in(buffer, start, budget_words)
                        event = self._called(question_id, interface_id, method_id, content, node)
                    else:
                        # A promise of ours, a part of an answer, or a call that fails.
                        if content is None:
                            content = layout.content_in(buffer, start, budget_words)
                        call = PendingCall(question_id, interface_id, method_id, content)
                        self._take_call(call, layout.target_in(target))
                elif kind == _RETURN:
                    (question_id,) = id_at(buffer, start + layout.body)
                    if questions.get(question_id) is _WAITING:
                        del questions[question_id]
                        self._free_ids.append(question_id)
                        if not layout.no_finish_needed:
                            out.append(encode_finish(question_id))
                        if content is None:
                            content = layout.content_in(buffer, start, budget_words)
                        event = Answered(question_id, content)
                    else:
                        self._handle_again(buffer, start, size)
                elif kind == _FINISH:
                    question_id, flags = two_at(buffer, start + layout.body)
                    if question_id in answers:
                        self._finish(question_id, releases=not flags & 1)
                else:
                    self._handle_rare(layout, buffer, start)
                if event is not None:
                    if uncounted != calls_left:
                        self.inline_calls += uncounted - calls_left
                        uncounted = calls_left
                        if type(event) is Answers:
                            uncounted = calls_left = self._limits.inline_calls
                            words_left = self._limits.inline_words
                    yield event
                if ready:
                    self.inline_calls += uncounted - calls_left
                    answered, words = yield from self._drain()
                    uncounted = calls_left = calls_left - answered
                    words_left -= words
                    if calls_left <= 0 or words_left < 0:
                        uncounted = calls_left = self._limits.inline_calls
                        words_left = self._limits.inline_words
                        yield Answers()
                if self._ended:
                    return
            if ready:
                # Of an inline method, whose calls go on without a look at this.
                yield from self._drain()
        except RemoteProtocolError as error:
            ended = self._abort(error)
            self._clear()
            yield from self._drain()
            yield ended
        finally:
            self.inline_calls += uncounted - calls_left
            decoder.keep(buffer, at, size)
            if ready:
                self._detach_ready()

    def _answer(self, question_id: int, outcome: EncodedTuple | ResultsWith | RemoteError) -> int:
        """Queue the outcome of an inline method; return how many words of results it has."""
        if isinstance(outcome, RemoteError):
            self._out += encode_exception(question_id, outcome)
            self._remember(question_id, outcome)
            return 0
        if isinstance(outcome, ResultsWith):
            self._check_answers()
            call = self._answers[question_id] = PendingCall(question_id)
            self._in_flight += 1
            return self._answer_call(call, outcome)
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

    def _called(
        self,
        question_id: int,
        interface_id: int,
        method_id: int,
        params: StructTuple | None,
        node: Hosted,
    ) -> Called | None:
        answers = self._answers
        if question_id in answers or self._in_flight >= self._max_in_flight:
            self._refuse(question_id, self._overloaded())
            return None
        if len(answers) >= self._limits.max_answers:
            self._check_answers()
        answers[question_id] = _RUNNING
        self._in_flight += 1
        return Called(question_id, interface_id, method_id, params, node.target)

    # --- what the loop does not read itself

    def _handle_again(self, buffer: Buffer, start: int, size: int) -> None:
        # Anew, for one that was traced has been charged.
        message = self._decoder.cut(buffer, start, size)
        assert message is not None
        self._handle(message, self._decode(message))

    def _handle(self, message: Message, decoded: Incoming) -> None:
        """Take a message; what it brings about is in `_ready`."""
        match decoded:
            case Call():
                self._read_call(message, decoded)
            case Return():
                self._take_return(decoded)
            case Finish(question_id, releases):
                self._finish(question_id, releases=releases)
            case Release(export_id, count):
                self._give_back(export_id, count)
            case Bootstrap(question_id):
                self._take_bootstrap(question_id)
            case Resolve():
                self._take_resolve(decoded)
            case Disembargo() if decoded.context <= DisembargoContext.RECEIVER_LOOPBACK:
                self._take_disembargo(decoded)
            case Disembargo() | Other():
                self._echo_unimplemented(message)
            case Unimplemented():
                self._take_echo(decoded)
            case Abort():
                ended = self._aborted(decoded)
                self._clear()
                self._ready.append(ended)

    def _handle_rare(self, layout: Layout, buffer: Buffer, at: int) -> None:
        number, count = two_at(buffer, at + layout.body)
        if layout.kind == _RELEASE:
            self._give_back(number, count)
        else:
            self._take_bootstrap(number)

    def _take_echo(self, echo: Unimplemented) -> None:
        """Take back a message of ours that the peer does not know."""
        if echo.tag == Tag.RESOLVE:
            # As if it had released what the promise has become.
            if echo.resolution is not None and echo.resolution.kind in HOSTED_HERE:
                self._give_back(echo.resolution.id, 1)
        elif echo.question_id is None or not self._take_unimplemented(echo.question_id):
            raise RemoteProtocolError("the peer does not implement a message it needs")

    def _clear(self) -> None:
        """Forget all, at the end: what was hosted is released, and what was imported broken."""
        hosted = [node for node in self._hosted.values() if node is not self._bootstrap]
        tables: tuple[Any, ...] = (
            *(self._answers, self._questions, self._exports, self._imports, self._hosted),
            *(self._embargoes, self._failures, self._releases, self._ready, self.garbage),
            self.forgotten,
        )
        for table in tables:
            table.clear()
        self._ready += [Released(node.target) for node in hosted]
