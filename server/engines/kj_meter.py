"""What a connection of KJ's asks for, told from its frames: limits that pycapnp does not have.

pycapnp knows no calls in flight, no open answers and no early cancels; it sends every exception as
FAILED (https://github.com/capnproto/pycapnp/issues/324), adds words to its text, and sends results
that no peer will take. So `CallMeter` follows the frames of both directions. It keeps back from KJ
what is refused, stops while a limit holds, and puts frames of its own in the place of KJ's.

It only looks at Bootstrap, Call, Finish, Abort and exceptions from the peer, and Return and Abort
from KJ; all else, and all that it passes on, KJ judges by itself. It is pure: bytes and times in,
bytes out.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Final, Protocol

from capnp_rig.objects.binding import BoundMethod
from capnp_rig.server.engines.early_cancels import EarlyCancels
from capnp_rig.server.engines.engine import SHUTTING_DOWN, connection_full, worker_full
from capnp_rig.server.engines.peer_errors import unmarked
from capnp_rig.wire.encoding.frames import FrameDecoder, FrameLimits
from capnp_rig.wire.encoding.pointers import Buffer, Message
from capnp_rig.wire.errors import FrameTooLarge, MalformedMessage, RemoteProtocolError
from capnp_rig.wire.rpc.connection import Limits
from capnp_rig.wire.rpc.message_encoder import encode_abort, encode_exception
from capnp_rig.wire.rpc.messages import (
    CALL_PREFIX,
    RETURN_PREFIX,
    Abort,
    Bootstrap,
    Call,
    ExceptionType,
    Finish,
    RemoteError,
    ResultsTo,
    Return,
    Tag,
    decode,
    exception_number,
    tag_of,
)
from capnp_rig.wire.rpc.oversized import read_beginning
from capnp_rig.wire.rpc.stream import HEAD_BYTES

# What the plain calls in flight may answer together, and what one is thought to answer at first.
_REPLIES_BYTES: Final = 1_048_576
_REPLY_BYTES: Final = 16_384
# KJ's own replies are judged whatever their size.
_ANY_SIZE: Final = FrameLimits(max_words=2**28 - 1)
_MAX_REASON_CHARS: Final = 200
_LOOKED_AT: Final = frozenset({Tag.CALL, Tag.BOOTSTRAP, Tag.FINISH, Tag.ABORT})
_WITH_EXCEPTIONS: Final = frozenset({Tag.RETURN, Tag.RESOLVE})
# A Finish as all known peers send it.
_FINISH_TABLE: Final = 4 << 32
_FINISH_PREFIX: Final = struct.pack("<QQQ", 1 << 32 | 1 << 48, Tag.FINISH, 1 << 32)
_FINISH_BYTES: Final = 40
# Of one that KJ writes, behind its table: which question, and that its capabilities stay.
_finished_at = struct.Struct("<IB").unpack_from
_KEEPS_RESULTS_AT: Final = 28
_finish_at = struct.Struct("<Q24sI").unpack_from
_table_at = struct.Struct("<II").unpack_from
# From the frame's start: table, root to the body's pointer, question id, method id, interface id.
_call_at = struct.Struct("<II24sIHHQ").unpack_from
_LEAST_CALL_WORDS: Final = 9
_LEAST_CALL_BYTES: Final = 80
# Answer id, flags and which of a Return that stands right behind its Message.
_return_at = struct.Struct("<IBxH").unpack_from
_EXCEPTION: Final = 1
_NO_FINISH_NEEDED: Final = 2
# Where the flags stand in what `encode_exception` returns first: behind table, root and Message.
_FLAGS_AT: Final = 36


class WorkerCalls:
    """What all connections of a worker share: the async calls in flight, and the drain.

    `hit` is told of each call that a limit refuses, with the label of its method if that is one
    of the bootstrap object, and of each connection that it ends.
    """

    def __init__(
        self, most: int, hit: Callable[[str, str | None], None] = lambda _limit, _label: None
    ) -> None:
        self.most = most
        self.hit = hit
        self.running = 0
        self.draining = False


class Waiting(Protocol):
    """What calls the peer."""

    # How many calls wait for their answers.
    waiting: int


class Ending(Enum):
    """How a connection ends for what was said on it."""

    PEER_ABORTED = auto()
    # By KJ or by us: the Abort is among what is to be sent.
    ABORTED = auto()


# (method, None for one that the service does not name; size of its params; start)
_Running = tuple[BoundMethod | None, int, float]


class CallMeter:
    """Follows one connection.

    `methods` are those of the service, by interface and method id. `too_large` returns what a
    peer may know of a reply of so many bytes, over the limit, to a call of the named method.
    """

    def __init__(
        self,
        worker: WorkerCalls,
        methods: Mapping[tuple[int, int], BoundMethod],
        too_large: Callable[[str, int], str],
        limits: Limits | None = None,
    ) -> None:
        self._worker = worker
        self._methods = methods
        self._too_large = too_large
        limits = limits or Limits()
        self._max_words = limits.frame.max_words
        self._max_bytes = 8 * self._max_words
        self._max_in_flight = limits.max_calls_in_flight
        self._max_answers = limits.max_answers
        self._max_params_bytes = limits.max_params_bytes
        self._decoder = FrameDecoder(limits.frame, HEAD_BYTES)
        # Questions of KJ's whose answers were over the limit: it has not seen their capabilities.
        self._dropped: set[int] = set()
        # Whether the rest of a message has begun to be dropped, until the owner takes note.
        self.has_begun_to_skip = False
        # By question id: the calls that KJ has not answered; Bootstraps, and answers that wait for
        # their Finish, as True once they are answered; those of both that have been finished.
        self._calls: dict[int, _Running] = {}
        self._others: dict[int, bool] = {}
        self._finished: set[int] = set()
        self._early = EarlyCancels()
        # Calls that `_early` has not counted yet: it is asked at a cancel only.
        self._uncounted = 0
        # About the largest of the latest replies: what each call in flight will add.
        self._reply_bytes = _REPLY_BYTES
        # How many of the calls are of plain methods, which end without waiting for anything.
        self._plain = 0
        self._params_bytes = 0
        # The frame that KJ is writing, and how much of it is to come.
        self._pieces: list[bytes] = []
        self._to_come = self._frame_bytes = 0
        self._from_us: list[Buffer] = []
        # Set by the owner: nothing is looked at while the peer does not read.
        self.unwritable = False
        # Async handlers that run, set by the owner: one that is cancelled may take its time.
        self.handlers = 0
        # Set by the owner: the connection is too old, and no more calls begin.
        self.retiring = False
        # Set by the owner: has the calls of ours that wait for the peer, which is to be heard.
        self.peer: Waiting | None = None
        # Whether the peer has ever given up a call. KJ says that it has before the task ends.
        self.has_cancelled = False
        # Whether `receive` stopped for it, or for another limit.
        self.held = False
        self.ended: Ending | None = None
        # What is wrong with the end, None for a goodbye.
        self.fault: str | None = None

    @property
    def calls_in_flight(self) -> int:
        """The calls that KJ has not answered."""
        return len(self._calls)

    @property
    def holding(self) -> bool:
        """Whether nothing more is passed to KJ until it has answered, or the peer has read."""
        return (
            self.unwritable
            or self._plain >= self._max_in_flight
            or self._plain * self._reply_bytes > _REPLIES_BYTES
            or (
                (self.retiring or self._params_bytes > self._max_params_bytes)
                and not self._is_waiting
            )
        )

    @property
    def _is_waiting(self) -> bool:
        return self.peer is not None and self.peer.waiting > 0

    @property
    def needs_care(self) -> bool:
        """Whether there are frames to take, or the connection has ended."""
        return bool(self._from_us) or self.ended is not None or self.has_begun_to_skip

    @property
    def pending_bytes(self) -> int:
        """Bytes that were received and not passed on."""
        return self._decoder.pending_bytes

    @property
    def bytes_to_skip(self) -> int:
        """How much is still to come of a message that was refused for its size."""
        return self._decoder.bytes_to_skip

    def close(self) -> None:
        """Give back what the worker counts."""
        self._worker.running -= len(self._calls) - self._plain
        self._calls.clear()
        self._plain = 0

    # --- from the peer

    def receive(self, data: Buffer, now_s: float) -> Buffer:
        """Take received bytes; return those that are for KJ, valid as long as `data` is.

        What `holding` leaves over comes with the next call. `take_frames` has what is to be
        sent; when `ended` is set then, it is the last.
        """
        if self.ended is not None:
            return b""
        buffer = self._decoder.begin(data)
        at = start = 0
        size = len(buffer)
        passed: list[Buffer] = []
        self.held = False
        try:
            while at < size:
                if self.holding:
                    self.held = True
                    break
                try:
                    end, is_for_kj = self._look(buffer, at, size, now_s)
                except FrameTooLarge as error:
                    passed += (buffer[start:at], self._refuse_oversized(error, buffer))
                    at = start = self._decoder.skip(at, size, error.frame_bytes)
                    self.has_begun_to_skip = self._decoder.bytes_to_skip > 0
                    continue
                if not end:
                    break
                if not is_for_kj:
                    passed.append(buffer[start:at])
                    start = end
                at = end
                if self.ended is not None:
                    break
        except RemoteProtocolError as error:
            self._abort(str(error))
        finally:
            if at < size:
                self._decoder.keep(buffer, at, size)
        if not passed:
            return buffer if not start and at == size else buffer[start:at]
        passed.append(buffer[start:at])
        return b"".join(passed)

    def _refuse_oversized(self, error: FrameTooLarge, buffer: Buffer) -> bytes:
        """Fail the call of a message over the limit; return what KJ gets in its place.

        Raises:
            RemoteProtocolError: It is not known which call, or that is none.
        """
        message = read_beginning(error, buffer)
        if isinstance(message, Return) and isinstance(message.outcome, RemoteError):
            # KJ would not release what it does not know of.
            self._dropped.add(message.answer_id)
            keeps_params = not message.releases_params
            flags = keeps_params | (_NO_FINISH_NEEDED if message.no_finish_needed else 0)
            return b"".join(_exception(message.answer_id, flags, message.outcome))
        number = message.question_id if isinstance(message, Call) else None
        if (
            not isinstance(message, Call)
            or message.results_to != ResultsTo.CALLER
            or number in self._calls
            or number in self._others
        ):
            raise error
        self._from_us += encode_exception(message.question_id, RemoteError(str(error)))
        return b""

    def take_frames(self) -> list[Buffer]:
        """Return the frames that the peer gets from us, not from KJ, and forget them."""
        frames, self._from_us = self._from_us, []
        return frames

    def _look(self, buffer: Buffer, at: int, size: int, now_s: float) -> tuple[int, bool]:
        """Return the end of the frame at `at`, 0 while it is incomplete; and if it is for KJ."""
        # The plain cases, as all known peers send them; KJ judges what they point to.
        if size - at >= _LEAST_CALL_BYTES:
            extra, words, prefix, question_id, method_id, _, interface_id = _call_at(buffer, at)
            end = at + 8 + 8 * words
            if (
                prefix == CALL_PREFIX
                and not extra
                and _LEAST_CALL_WORDS <= words < self._max_words
                and end <= size
            ):
                served = self._methods.get((interface_id, method_id))
                if (
                    served is not None
                    and not served.is_async
                    and not self._worker.draining
                    and question_id not in self._calls
                    and question_id not in self._others
                    and len(self._calls) + len(self._others) < self._max_answers
                ):
                    # The same as `_called`, written out for what is never refused.
                    self._calls[question_id] = served, end - at, now_s
                    self._uncounted += 1
                    self._params_bytes += end - at
                    self._plain += 1
                    return end, True
                return end, self._called(question_id, (interface_id, method_id), end - at, now_s)
        if size - at >= _FINISH_BYTES:
            table, prefix, question_id = _finish_at(buffer, at)
            if table == _FINISH_TABLE and prefix == _FINISH_PREFIX:
                return at + _FINISH_BYTES, self._finish(question_id, now_s)
        message = self._decoder.cut(buffer, at, size)
        if message is None:
            return 0, False
        end = message.bounds[-1][1]
        try:
            return end, self._noted(message, end - at, now_s)
        except MalformedMessage as error:
            raise RemoteProtocolError(str(error)) from error

    def _noted(self, message: Message, size: int, now_s: float) -> bool:
        """Note one message; return whether it is for KJ."""
        tag = tag_of(message)
        if tag in _WITH_EXCEPTIONS and exception_number(message) > max(ExceptionType):
            # C++ 1.4 crashes at such a number.
            raise RemoteProtocolError("message has an exception of unknown type")
        if tag not in _LOOKED_AT:
            return True
        match decode(message):
            case Call() as call:
                method = (call.interface_id, call.method_id)
                return self._called(call.question_id, method, size, now_s)
            case Bootstrap(question_id):
                if question_id in self._calls or question_id in self._others:
                    # KJ ends the connection for it.
                    return True
                if not self._has_room():
                    return False
                self._others[question_id] = False
                return True
            case Finish(question_id):
                return self._finish(question_id, now_s)
            case Abort(error):
                self.ended = Ending.PEER_ABORTED
                # Go and Rust say goodbye so: nothing is lost where nobody waits.
                if self.calls_in_flight:
                    self.fault = f"the peer aborted: {error.reason[:_MAX_REASON_CHARS]}"
        return False

    def _called(self, question_id: int, method: tuple[int, int], size: int, now_s: float) -> bool:
        served = self._methods.get(method)
        calls, worker = self._calls, self._worker
        is_plain = served is not None and not served.is_async
        if question_id in calls or question_id in self._others:
            # As above.
            return True
        if worker.draining or not is_plain:
            refusal = self._refusal(is_plain=is_plain)
            if refusal is not None:
                limit, error = refusal
                worker.hit(limit, None if served is None else served.label)
                self._from_us += encode_exception(question_id, error)
                return False
        if not self._has_room():
            return False
        calls[question_id] = served, size, now_s
        self._uncounted += 1
        self._params_bytes += size
        if is_plain:
            self._plain += 1
        else:
            worker.running += 1
        return True

    def _refusal(self, *, is_plain: bool) -> tuple[str, RemoteError] | None:
        if self._worker.draining:
            return "draining", SHUTTING_DOWN
        if is_plain:
            return None
        limit = self._max_in_flight
        if max(len(self._calls) - self._plain, self.handlers) >= limit:
            return "in-flight", connection_full(limit)
        worker = self._worker
        if worker.running < worker.most:
            return None
        return "worker-calls", worker_full(worker.most)

    def hit(self, limit: str) -> None:
        """Tell of a limit that ends the connection."""
        self._worker.hit(limit, None)

    def _has_room(self) -> bool:
        """Tell whether one more answer may be open; if not, the connection ends."""
        limit = self._max_answers
        if len(self._calls) + len(self._others) < limit:
            return True
        self._abort(f"more than {limit} answers wait for their Finish")
        return False

    def _finish(self, question_id: int, now_s: float) -> bool:
        call = self._calls.get(question_id)
        if call is None:
            if self._others.get(question_id):
                del self._others[question_id]
            elif question_id in self._others:
                self._finished.add(question_id)
        elif question_id not in self._finished:
            self._finished.add(question_id)
            self.has_cancelled = True
            self._early.count(self._uncounted)
            self._uncounted = 0
            if self._early.cancelled(now_s - call[2]):
                self._worker.hit("early-cancels", None)
                self._abort("too many calls were cancelled right after their start")
                return False
        return True

    def give_up_skipping(self, reason: str) -> None:
        """End the connection, for the rest of a message does not come."""
        self._abort(reason)

    def _abort(self, reason: str) -> None:
        self.end(RemoteError(reason), f"protocol error: {reason}")

    def end(self, error: RemoteError, fault: str | None) -> None:
        """End the connection with an Abort; `fault` is None for a goodbye."""
        self.ended = Ending.ABORTED
        self.fault = fault
        self._from_us.append(encode_abort(error))

    # --- from KJ

    @property
    def is_within_frame(self) -> bool:
        """Whether KJ is writing a frame, so that none of ours may be sent now."""
        return bool(self._to_come)

    def send(self, piece: bytes) -> Sequence[Buffer]:
        """Take what KJ writes, a table or a segment; return what is to be sent now."""
        if self.ended is not None:
            return ()
        if not self._to_come:
            self._frame_bytes = size = _frame_bytes(piece)
            self._to_come = size - len(piece)
            self._pieces = [piece]
            return ()
        self._to_come -= len(piece)
        pieces = self._pieces
        pieces.append(piece)
        return () if self._to_come else self._judged(pieces)

    def _judged(self, pieces: list[bytes]) -> Sequence[Buffer]:
        """Return what is to be sent in the place of one frame of KJ's."""
        head = pieces[1]
        if head[:24] != RETURN_PREFIX:
            if self._dropped and head[:24] == _FINISH_PREFIX:
                return self._releasing(pieces)
            self._note_abort(pieces)
            return pieces
        size = self._frame_bytes
        self._reply_bytes = max(size, self._reply_bytes * 7 >> 3)
        answer_id, flags, which = _return_at(head, 24)
        method = self._returned(answer_id, needs_finish=not flags & _NO_FINISH_NEEDED)
        if which == _EXCEPTION:
            return _exception(answer_id, flags, _bare(_whole(pieces)))
        if size > self._max_bytes:
            text = self._too_large(method, size)
            return _exception(answer_id, flags, RemoteError(text))
        return pieces

    def _releasing(self, pieces: list[bytes]) -> list[bytes]:
        """Let a Finish of KJ's release what was in an answer that it has not got."""
        table, head, *rest = pieces
        question_id, flags = _finished_at(head, 24)
        if question_id not in self._dropped:
            return pieces
        self._dropped.remove(question_id)
        patched = bytearray(head)
        patched[_KEEPS_RESULTS_AT] = flags & ~1
        return [table, bytes(patched), *rest]

    def _returned(self, answer_id: int, *, needs_finish: bool) -> str:
        """Note an answer; return to what."""
        call = self._calls.pop(answer_id, None)
        name = "a capability"
        if call is None:
            if answer_id not in self._others:
                return name
        else:
            served, size, _ = call
            self._params_bytes -= size
            if served is not None:
                name = served.name
            if served is not None and not served.is_async:
                self._plain -= 1
            else:
                self._worker.running -= 1
        if self._finished and answer_id in self._finished:
            self._finished.discard(answer_id)
            self._others.pop(answer_id, None)
        elif needs_finish:
            self._others[answer_id] = True
        else:
            self._others.pop(answer_id, None)
        return name

    def _note_abort(self, pieces: list[bytes]) -> None:
        message = _whole(pieces)
        if tag_of(message) == Tag.ABORT:
            abort = decode(message)
            assert isinstance(abort, Abort)
            self.ended = Ending.ABORTED
            self.fault = f"protocol error: {abort.error.reason[:_MAX_REASON_CHARS]}"


def _frame_bytes(table: bytes) -> int:
    """Return the size of the frame that starts with `table`, which is complete."""
    extra, words = _table_at(table, 0)
    if not extra:
        return 8 + 8 * int(words)
    return len(table) + 8 * int(sum(struct.unpack_from(f"<{extra + 1}I", table, 4)))


def _whole(pieces: list[bytes]) -> Message:
    for message in FrameDecoder(_ANY_SIZE).feed(b"".join(pieces)):
        return message
    raise AssertionError("a whole frame holds a message")


def _bare(message: Message) -> RemoteError:
    """Return the exception of a Return, as it was meant."""
    decoded = decode(message)
    assert isinstance(decoded, Return)
    assert isinstance(decoded.outcome, RemoteError)
    return RemoteError(unmarked(decoded.outcome.reason), decoded.outcome.type)


def _exception(answer_id: int, flags: int, error: RemoteError) -> list[Buffer]:
    """Return a Return with an exception, and with the flags of KJ's: it acts on them itself."""
    head, *rest = encode_exception(answer_id, error)
    patched = bytearray(head)
    patched[_FLAGS_AT] = flags
    return [patched, *rest]
