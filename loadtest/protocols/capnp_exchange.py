"""One connection of a load generator, without its socket: calls leave, replies are judged.

The engine and the Locust users share it. Bytes go in with `receive`, bytes to send come out of
`output`; a clock is never read. A connection has `in_flight` slots, each a question id for good.

What is sent again and again is encoded once: only the question id changes, behind the same 32
bytes in every call. The first reply to such a request is decoded and its content checked; from
then on each reply must equal that frame byte for byte, but for the answer id, wherever the server
puts that (0.4 µs, where decoding takes 5). A reply that differs is decoded and checked anew.
Without `checks_content`, any results are right that come under the id of a call; then only what
leads to the results must be equal.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, cast

from capnp_rig.client.via import Step
from capnp_rig.loadtest.protocols.capnp_walk import Walk, error_of, releases_of
from capnp_rig.loadtest.protocols.exchange import Answered, AnyExchange, Bytes, Failed
from capnp_rig.loadtest.stats.failures import CallTexts, WrongReply, with_call
from capnp_rig.loadtest.workload import Request, Workload
from capnp_rig.loadtest.workload.checks import EqualToFirst, Watched, readable
from capnp_rig.objects.errors import ClientError, ProtocolError, abort_error, protocol_error
from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.frames import DEFAULT_LIMITS, FrameDecoder, FrameLimits
from capnp_rig.wire.encoding.pointers import Buffer, Message, StructTuple
from capnp_rig.wire.errors import WireError
from capnp_rig.wire.rpc.layouts import Layout, Layouts
from capnp_rig.wire.rpc.message_encoder import encode_call, encode_finish
from capnp_rig.wire.rpc.messages import (
    Abort,
    Descriptor,
    ImportedCap,
    Resolve,
    Results,
    Return,
    Tag,
    content_of,
    decode,
)

# Of a call of ours: the question id is behind table, root, discriminant and pointer.
ID_AT = 32
BEHIND_ID = 36
u32_at = struct.Struct("<I").unpack_from
u32 = struct.Struct("<I").pack
# More bytes than any frame has.
_NO_REPLY = 1 << 62


class Prepared:
    """A request as it leaves, around the question id, and the reply that it gets."""

    __slots__ = ("finish", "head", "reply_bytes", "reply_head", "reply_tail", "request", "tail")

    def __init__(self, request: Request, call: Sequence[Buffer]) -> None:
        # What is sent once keeps its parts: a large text is not copied before `output` joins it.
        first, *rest = call
        self.head, self.tail = bytes(first[:ID_AT]), [first[BEHIND_ID:], *rest]
        self.request = request
        self.forget()

    def forget(self) -> None:
        """Know no reply: none has so many bytes."""
        self.reply_head = self.reply_tail = b""
        self.reply_bytes = _NO_REPLY
        # Whether the server wants a Finish after this reply.
        self.finish = False

    def learn(self, reply: Bytes, id_at: int, compared: int, *, finish: bool) -> None:
        """Take the first `compared` bytes of a right reply as what all others must have."""
        self.reply_head, self.reply_tail = bytes(reply[:id_at]), bytes(reply[id_at + 4 : compared])
        self.reply_bytes = len(reply)
        self.finish = finish


# Of an answer: where its frame ends, its id, whether no Finish is needed, results or an error, and
# its layout, where that is known. What is no answer has no id.
Reply = tuple[int, int | None, bool, StructTuple | ClientError | None, Layout | None]
_RETURN = int(Tag.RETURN)


class CapnpConnection:
    """What every capnp exchange shares: the bootstrap, the bytes to send, how frames are read."""

    # How long it took to walk the chain, None without one, or before its end.
    walk_ns: int | None = None

    def __init__(
        self,
        chain: Sequence[tuple[Step, EncodedTuple]] = (),
        limits: FrameLimits = DEFAULT_LIMITS,
    ) -> None:
        # Whether what is called is known, so that calls can be sent.
        self.is_ready = False
        # What is called: what the server offers, or where `chain` leads from there; None until
        # that is known.
        self._target: ImportedCap | None = None
        self._walk = Walk(chain)
        self._out: list[Buffer] = [self._walk.begin()]
        self._limits = limits
        self._budget_words = limits.traversal_words
        self._decoder = FrameDecoder(limits)
        self._layouts = Layouts()

    @property
    def awaited(self) -> str:
        """The call of the chain whose answer is waited for, in words; empty without any."""
        return self._walk.awaited

    def output(self) -> bytes:
        """Return the bytes to send, and forget them."""
        # Garbage that is collected meanwhile may add to it.
        out, self._out = self._out, []
        return b"".join(out)

    def _cut(self, data: Bytes, at: int) -> Message | None:
        try:
            return self._decoder.cut(data, at, len(data))
        except WireError as error:
            raise protocol_error(error, is_unheard=not self.is_ready) from error

    def _take_target(self, data: Bytes, now_ns: int) -> int:
        """Go on until it is known what is called; return where the first frame not taken begins.

        Raises:
            ClientError: The server gave no interface, aborted, or broke the protocol; or the chain
                of calls leads nowhere.
        """
        at = 0
        while self._target is None:
            message = self._cut(data, at)
            if message is None:
                break
            at = message.bounds[-1][1]
            answer = self._decode(message)
            if isinstance(answer, Return):
                self._out += self._walk.take(answer, now_ns)
                self._target = self._walk.target
        self.is_ready, self.walk_ns = self._target is not None, self._walk.walk_ns
        return at

    def _decode(self, message: Message) -> Return | Resolve:
        """Read a message; what a promise has become is given back: calls go to the promise."""
        try:
            answer = decode(message)
        except WireError as error:
            raise ProtocolError(str(error)) from error
        if isinstance(answer, Abort):
            raise abort_error(answer.error, is_unheard=not self.is_ready)
        if isinstance(answer, Resolve):
            if isinstance(answer.outcome, Descriptor):
                self._out += releases_of([answer.outcome])
        elif not isinstance(answer, Return):
            raise ProtocolError(f"the server sent an unexpected {type(answer).__name__}")
        return answer

    def _reply(self, data: Bytes, at: int, size: int) -> Reply | None:
        """Return what the frame at `at` says, None if it is not whole yet.

        Raises:
            ClientError: It is neither a Return nor a Resolve; or the server aborted, or broke the
                protocol.
        """
        layout = self._layouts.find(data, at, size)
        if layout is not None:
            end, content = at + layout.frame_bytes, layout.content_in(data, at, self._budget_words)
        else:
            message = self._cut(data, at)
            if message is None:
                return None
            end = message.bounds[-1][1]
            layout, content = self._layouts.trace(message, at)
        if layout is None or layout.kind != _RETURN:
            return self._decoded(data, at)
        (answer_id,) = u32_at(data, at + layout.body)
        return end, answer_id, layout.no_finish_needed, content, layout

    def _decoded(self, data: Bytes, at: int) -> Reply:
        # Anew, for a message that was traced has been charged.
        message = self._cut(data, at)
        assert message is not None
        end, answer = message.bounds[-1][1], self._decode(message)
        if isinstance(answer, Resolve):
            return end, None, True, None, None
        if not isinstance(answer.outcome, Results):
            return end, answer.answer_id, answer.no_finish_needed, error_of(answer), None
        try:
            content = content_of(answer.outcome.content)
        except WireError as error:
            raise ProtocolError(str(error)) from error
        if answer.outcome.cap_table:
            self._take_capabilities(answer, answer.outcome.cap_table, content)
        return end, answer.answer_id, answer.no_finish_needed, content, None

    def _take_capabilities(
        self, answer: Return, table: Sequence[Descriptor], content: StructTuple | None
    ) -> None:
        """Give back what the results `content` hold, where their Finish does not."""
        del content
        if answer.no_finish_needed:
            self._out += releases_of(table)


class Exchange(CapnpConnection, AnyExchange):
    """The calls of one connection: encoded, counted, checked."""

    def __init__(
        self,
        workload: Workload,
        user: int,
        in_flight: int,
        *,
        answered: Answered,
        failed: Failed,
        checks_content: bool = True,
    ) -> None:
        super().__init__(workload.walk(user), workload.frame_limits)
        self._workload = workload
        self._requests: Iterator[Request] = workload.requests(user, in_flight)
        self._answered = answered
        self._failed = failed
        self._checks_content = checks_content
        self._free = list(range(in_flight, 0, -1))
        # By slot: the request, when it was due, when it was sent. In the order of sending.
        self._flight: dict[int, tuple[Prepared, int, int]] = {}
        self._prepared: dict[Request, Prepared] = {}
        # Where the server puts the id of an answer.
        self._id_at = ID_AT

    @property
    def free(self) -> int:
        """How many more calls may be sent now."""
        return len(self._free)

    def waiting(self) -> Iterator[tuple[int, int]]:
        """Yield when each call in flight was due and sent, the longest in flight first."""
        for _, due_ns, sent_ns in self._flight.values():
            yield due_ns, sent_ns

    def send(self, due_ns: int, now_ns: int) -> None:
        """Queue the next request on a free slot; `output` has its bytes."""
        slot = self._free.pop()
        request = next(self._requests)
        prepared = self._prepared.get(request) or self._prepare(request)
        self._flight[slot] = (prepared, due_ns, now_ns)
        self._out += (prepared.head, u32(slot), *prepared.tail)

    def receive(self, data: bytes, now_ns: int) -> int:
        """Take received bytes; return how many slots they freed.

        Raises:
            ClientError: The server gave no interface, aborted, or broke the protocol, or the chain
                of calls leads nowhere; the connection is of no further use.
        """
        # Received bytes, or those kept before with them: neither is a memoryview.
        whole = cast("Bytes", self._decoder.begin(data))
        if self._target is not None:
            return self._replies(whole, now_ns)
        at = self._take_target(whole, now_ns)
        if not self.is_ready:
            self._decoder.keep(whole, at, len(whole))
            return 0
        self._replies(whole, now_ns, at)
        return len(self._free)

    def give_up(self, error: Exception, now_ns: int) -> int:
        """Count all calls in flight as failed; return how many they were."""
        self._free += self._flight
        return super().give_up(error, now_ns)

    def _prepare(self, request: Request) -> Prepared:
        assert self._target is not None
        method = self._workload.method
        call = encode_call(0, self._target, method.interface_id, method.method_id, request.params)
        if not self._workload.is_repeating:
            return Prepared(request, call)
        prepared = self._prepared[request] = Prepared(request, [b"".join(call)])
        return prepared

    def _replies(self, data: Bytes, now_ns: int, at: int = 0) -> int:
        flight, free, answered = self._flight, self._free, self._answered
        id_at = self._id_at
        behind_id = id_at + 4
        size, count = len(data), len(free)
        while at < size:
            # No slot is 0. A reply in another layout may be shorter than where the id was before.
            slot = u32_at(data, at + id_at)[0] if at + behind_id <= size else 0
            call = flight.get(slot)
            if call is not None:
                prepared, due_ns, sent_ns = call
                end = at + prepared.reply_bytes
                if (
                    end <= size
                    and data.startswith(prepared.reply_head, at)
                    and data.startswith(prepared.reply_tail, at + behind_id)
                ):
                    del flight[slot]
                    free.append(slot)
                    if prepared.finish:
                        self._out.append(encode_finish(slot))
                    answered(due_ns, sent_ns, now_ns)
                    at = end
                    continue
            reply = self._reply(data, at, size)
            if reply is None:
                break
            self._judge(reply, data, at, now_ns)
            at = reply[0]
            id_at = self._id_at
            behind_id = id_at + 4
        self._decoder.keep(data, at, size)
        return len(free) - count

    def _judge(self, reply: Reply, data: Bytes, at: int, now_ns: int) -> None:
        """Check the reply in the frame at `at`."""
        end, slot, no_finish_needed, content, layout = reply
        if slot is None:
            return
        call = self._flight.pop(slot, None)
        if call is None:
            raise ProtocolError("the server answered a call that was not made, or twice")
        prepared, due_ns, sent_ns = call
        if not no_finish_needed:
            self._out.append(encode_finish(slot))
        self._free.append(slot)
        if isinstance(content, ClientError):
            failure: Exception | None = self._told(content, prepared.request, str(content))
        elif self._checks_content or isinstance(prepared.request.check, Watched):
            # Of another layout all of it: nobody knows where its id stands.
            frame = (data, at if layout is None else at + layout.body + 4, end)
            failure = self._check(prepared.request, content, frame)
        else:
            failure = None
        if failure is not None:
            self._failed(failure, sent_ns, now_ns)
            return
        self._answered(due_ns, sent_ns, now_ns)
        if layout is not None and self._workload.is_repeating:
            compared = end - at if self._checks_content else layout.fixed_bytes
            if layout.body != self._id_at:
                self._id_at = layout.body
                for each in self._prepared.values():
                    each.forget()
            if compared:
                prepared.learn(data[at:end], layout.body, compared, finish=not no_finish_needed)

    def _check(
        self, request: Request, content: StructTuple | None, frame: tuple[Bytes, int, int]
    ) -> Exception | None:
        """Return what is wrong with the results, or None.

        `frame` is where the reply lies, from behind its id on where that stands in its place.
        """
        check = request.check
        first = check if isinstance(check, EqualToFirst) else None
        if first and first.is_known(*frame):
            return None
        try:
            results = self._workload.method.results.open(content)
            fault = check(results)
        except WireError as error:
            return self._told(ProtocolError(f"unreadable reply: {error}"), request, "")
        if fault is not None:
            return self._told(WrongReply(fault), request, results)
        if first:
            first.keep(*frame)
        return None

    def _told(self, error: Exception, request: Request, came: Any) -> Exception:
        """Return an error that can tell of its call; `came` is a text, or results."""

        def texts() -> CallTexts:
            text = came if isinstance(came, str) else readable(came)
            return CallTexts(self._workload.text_of(request), request.check.expected(), text)

        return with_call(error, texts)
