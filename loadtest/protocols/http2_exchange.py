"""One HTTP/2 connection that makes the same call again and again, without its socket.

A call is a stream: a block of headers, a body, and an answer with headers, a body and, in gRPC,
trailers. What travels on it is told by a `Dialect`. Frames that arrive are taken apart as they
stand; the body of an answer is compared with the expected one in one piece.

Flow control, both ways. We open our windows once, far enough for all that is ever under way, as
h2load does: a server is never kept waiting by them. Of the server's windows we know what is left:
a body that fits into them and into one frame leaves at once with its headers, any other waits in
`_blocked` and leaves as far as they are opened.

A server that says GOAWAY has ended the connection: what is in flight fails with it, although some
of it might still be answered.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from capnp_rig.loadtest.protocols.exchange import (
    Answered,
    Bytes,
    Failed,
    PayloadExchange,
    has_parts,
    told,
)
from capnp_rig.loadtest.protocols.http2_frames import (
    ACK,
    CANCEL,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    PING,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ReplyHeaders,
    RequestHeaders,
    content_of,
    error_name,
    frame,
    head_before_stream,
    read_settings,
    read_u32,
    settings_frame,
    window_frame,
)
from capnp_rig.loadtest.protocols.payloads import Payload, Payloads
from capnp_rig.objects.errors import Disconnected, ProtocolError, RemoteError

# Far from the largest, 2 ** 31 - 1, which no sum may exceed.
_WINDOW = 1 << 30
# h2 takes a little less CPU for an answer of 1 MiB than with 16 KiB, the default.
_FRAME_BYTES = 1 << 16
# Longer than any error; an answer without an end is no answer.
_SPARE_BYTES = 1 << 16
_NO_LIMIT = 1 << 31


class Dialect(Protocol):
    """What calls look like in HTTP/2."""

    def headers(self, body_bytes: int) -> Sequence[tuple[str, str]]:
        """Return the headers of a request whose body has this length."""

    def key(self, body_bytes: int) -> int:
        """Return what is the same for lengths that have the same headers."""

    def request(self, payload: Payload) -> tuple[bytes, ...]:
        """Return the parts of the body of a request."""

    def reply(self, payload: Payload) -> tuple[bytes, ...]:
        """Return the parts of the body of its right answer."""

    def judge(
        self, headers: Mapping[bytes, bytes], payload: Payload, body: Bytes, *, is_expected: bool
    ) -> Exception | None:
        """Return what is wrong with an answer, or None.

        `headers` has the trailers too; `is_expected` is whether the body is that of `reply`.
        """


class _Prepared:
    """A request as it leaves, but for the stream's number, and the body that comes back."""

    __slots__ = ("body", "body_bytes", "data_head", "key", "payload", "reply", "reply_bytes")

    def __init__(self, dialect: Dialect, payload: Payload, *, is_kept: bool) -> None:
        body, reply = dialect.request(payload), dialect.reply(payload)
        self.payload = payload
        # One piece is worth its copy where it is used again.
        self.body = (b"".join(body),) if is_kept else body
        self.reply = (b"".join(reply),) if is_kept else reply
        self.body_bytes = sum(map(len, body))
        self.reply_bytes = sum(map(len, reply))
        self.key = dialect.key(self.body_bytes)
        # Used where all of it fits into one frame.
        self.data_head = head_before_stream(DATA, END_STREAM, self.body_bytes & 0xFFFFFF)


class _Stream:
    """A call in flight, and what has come of its answer."""

    __slots__ = ("body", "due_ns", "headers", "prepared", "received", "sent_ns", "unsent", "window")

    def __init__(self, prepared: _Prepared, due_ns: int, sent_ns: int, window: int) -> None:
        self.prepared = prepared
        self.due_ns = due_ns
        self.sent_ns = sent_ns
        # Of the server; kept up only while there is something unsent.
        self.window = window
        self.unsent = memoryview(b"")
        self.headers: Mapping[bytes, bytes] = {}
        self.body: list[bytes] = []
        self.received = 0


class Http2Exchange(PayloadExchange):
    """The calls of one connection, as a dialect has them."""

    def __init__(
        self,
        payloads: Payloads,
        user: int,
        in_flight: int,
        *,
        answered: Answered,
        failed: Failed,
        dialect: Dialect,
    ) -> None:
        super().__init__(payloads, user, in_flight, answered=answered, failed=failed)
        # Set by the server's settings, which it sends first, and which calls must keep to.
        self.is_ready = False
        self._dialect = dialect
        self._encode = RequestHeaders()
        self._decode = ReplyHeaders()
        # By the number of the stream, in the order of sending.
        self._flight: dict[int, _Stream] = {}
        # The server ends a connection that has used up all numbers, after 2 ** 30 calls.
        self._next = 1
        self._most_streams = _NO_LIMIT
        self._window = self._stream_window = DEFAULT_WINDOW
        self._frame_bytes = DEFAULT_FRAME_BYTES
        self._blocked: dict[int, _Stream] = {}
        # Received since we last opened the connection's window.
        self._taken = 0
        # Headers whose end is still to come: the stream, the flags, and the block.
        self._headers: tuple[int, int, bytes] | None = None
        own = {ENABLE_PUSH: 0, INITIAL_WINDOW_SIZE: _WINDOW, MAX_FRAME_SIZE: _FRAME_BYTES}
        self._out += (PREFACE, settings_frame(own), window_frame(0, _WINDOW - DEFAULT_WINDOW))

    def prepare(self, number: int, payload: Payload) -> _Prepared:
        """Encode the body of a request; its stream has a number of its own."""
        return _Prepared(self._dialect, payload, is_kept=self.is_repeating)

    @property
    def free(self) -> int:
        """How many more calls may be sent now."""
        return max(0, min(self._slots, self._most_streams) - len(self._flight))

    def waiting(self) -> Iterator[tuple[int, int]]:
        """Yield when each call in flight was due and sent, the longest in flight first."""
        for stream in self._flight.values():
            yield stream.due_ns, stream.sent_ns

    def send(self, due_ns: int, now_ns: int) -> None:
        """Queue the next request on a free slot; `output` has its bytes."""
        prepared = next(self._requests)
        number = self._next
        self._next += 2
        stream = self._flight[number] = _Stream(prepared, due_ns, now_ns, self._stream_window)
        head, block = self._encode.encode(
            prepared.key, lambda: self._dialect.headers(prepared.body_bytes)
        )
        size, name = prepared.body_bytes, number.to_bytes(4, "big")
        self._out += (head, name, block)
        if size <= self._frame_bytes and size <= self._window and size <= self._stream_window:
            self._window -= size
            self._out += (prepared.data_head, name, *prepared.body)
            return
        stream.unsent = memoryview(b"".join(prepared.body))
        self._blocked[number] = stream
        self._send_body(number, stream)

    def receive(self, data: bytes, now_ns: int) -> int:
        """Take received bytes; return how many slots they freed, all when it has become ready.

        Raises:
            ClientError: The server broke the protocol or ended the connection; that is of no
                further use.
        """
        whole, count, was_ready = self._whole(data), len(self._flight), self.is_ready
        at, size = 0, len(whole)
        while size - at >= HEAD.size and size >= self.needed:
            word, flags, number = HEAD.unpack_from(whole, at)
            length, kind = word >> 8, word & 0xFF
            if length > _FRAME_BYTES or not (self.is_ready or kind == SETTINGS):
                raise ProtocolError("the server speaks no HTTP/2")
            start, end = at + HEAD.size, at + HEAD.size + length
            if end > size:
                self.needed = end - at
                break
            self.needed = 0
            with memoryview(whole) as view:
                payload = bytes(view[start:end])
            self._take(kind, flags, number & 0x7FFF_FFFF, payload, now_ns)
            at = end
        if at < size:
            self._keep(whole, at)
        return count - len(self._flight) if was_ready or not self.is_ready else self.free

    def give_up(self, error: Exception, now_ns: int) -> int:
        """Count all calls in flight as failed; return how many they were."""
        self._blocked.clear()
        return super().give_up(error, now_ns)

    # --- what comes ----------------------------------------------------------------------------

    def _take(self, kind: int, flags: int, number: int, payload: bytes, now_ns: int) -> None:
        if self._headers is not None and kind != CONTINUATION:
            raise ProtocolError("the server interrupted its headers")
        if kind == DATA:
            self._take_data(flags, number, payload, now_ns)
        elif kind == HEADERS:
            block = content_of(flags, payload, has_priority=True)
            self._take_block(flags, flags, number, block, now_ns)
        elif kind == CONTINUATION:
            first, first_flags, block = self._headers or (-1, 0, b"")
            if first != number:
                raise ProtocolError("the server continued headers that it had not begun")
            self._headers = None
            self._take_block(flags, first_flags, number, block + payload, now_ns)
        else:
            self._take_control(kind, flags, number, payload, now_ns)

    def _take_data(self, flags: int, number: int, payload: bytes, now_ns: int) -> None:
        self._taken += len(payload)
        if self._taken > _WINDOW // 2:
            self._out.append(window_frame(0, self._taken))
            self._taken = 0
        stream = self._flight.get(number)
        # Of a call that was reset, something may still be under way.
        if stream is None:
            return
        if flags & ~END_STREAM:
            payload = content_of(flags, payload)
        stream.body.append(payload)
        stream.received += len(payload)
        if stream.received > stream.prepared.reply_bytes + _SPARE_BYTES:
            raise ProtocolError("the reply has no end")
        if flags & END_STREAM:
            self._finish(number, stream, now_ns)

    def _take_block(
        self, flags: int, first_flags: int, number: int, block: bytes, now_ns: int
    ) -> None:
        if not flags & END_HEADERS:
            if len(block) > _SPARE_BYTES:
                raise ProtocolError("the server's headers have no end")
            self._headers = number, first_flags, block
            return
        # Of a call that is over as well: the table is that of the connection.
        headers = self._decode.decode(block)
        stream = self._flight.get(number)
        if stream is None:
            return
        stream.headers = {**stream.headers, **headers} if stream.headers else headers
        if first_flags & END_STREAM:
            self._finish(number, stream, now_ns)

    def _take_control(
        self, kind: int, flags: int, number: int, payload: bytes, now_ns: int
    ) -> None:
        if kind == SETTINGS:
            if not flags & ACK:
                self._obey(read_settings(payload))
        elif kind == WINDOW_UPDATE:
            self._open(number, read_u32(payload) & 0x7FFF_FFFF)
        elif kind == PING:
            if not flags & ACK:
                self._out.append(frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM:
            stream = self._flight.get(number)
            if stream is not None:
                reason = error_name(read_u32(payload))
                failure = RemoteError(f"the server reset the call: {reason}")
                self._end(number, stream, failure, now_ns)
        elif kind == GOAWAY:
            reason = error_name(read_u32(payload, 4))
            raise Disconnected(f"the server ended the connection: {reason}")
        elif kind == PUSH_PROMISE:
            raise ProtocolError("the server pushes, which it was told not to")
        # Any other kind is to be ignored.

    def _obey(self, settings: Mapping[int, int]) -> None:
        window = settings.get(INITIAL_WINDOW_SIZE, self._stream_window)
        for stream in self._blocked.values():
            stream.window += window - self._stream_window
        self._stream_window = window
        self._frame_bytes = settings.get(MAX_FRAME_SIZE, self._frame_bytes)
        self._most_streams = settings.get(MAX_CONCURRENT_STREAMS, self._most_streams)
        if HEADER_TABLE_SIZE in settings:
            self._encode.limit_table(settings[HEADER_TABLE_SIZE])
        self._out.append(frame(SETTINGS, ACK, 0, b""))
        self.is_ready = True
        self._send_blocked()

    def _finish(self, number: int, stream: _Stream, now_ns: int) -> None:
        """Judge an answer that is complete."""
        prepared, parts = stream.prepared, stream.body
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        is_expected = len(body) == prepared.reply_bytes and has_parts(body, 0, prepared.reply)
        failure = self._dialect.judge(
            stream.headers, prepared.payload, body, is_expected=is_expected
        )
        if failure is not None:
            failure = told(failure, prepared.body, prepared.reply, body)
        if stream.unsent:
            # It answered without the rest of the request, which is not sent any more.
            self._out.append(frame(RST_STREAM, 0, number, CANCEL.to_bytes(4, "big")))
        self._end(number, stream, failure, now_ns)

    def _end(self, number: int, stream: _Stream, failure: Exception | None, now_ns: int) -> None:
        del self._flight[number]
        self._blocked.pop(number, None)
        if failure is None:
            self._answered(stream.due_ns, stream.sent_ns, now_ns)
        else:
            self._failed(failure, stream.sent_ns, now_ns)

    # --- what waits for the server's windows -----------------------------------------------------

    def _open(self, number: int, increment: int) -> None:
        if number == 0:
            self._window += increment
        elif number in self._blocked:
            self._blocked[number].window += increment
        self._send_blocked()

    def _send_blocked(self) -> None:
        for number, stream in tuple(self._blocked.items()):
            if self._window <= 0:
                return
            self._send_body(number, stream)

    def _send_body(self, number: int, stream: _Stream) -> None:
        """Send as much of a body as the windows have room for."""
        name = number.to_bytes(4, "big")
        while stream.unsent:
            size = min(len(stream.unsent), self._frame_bytes, self._window, stream.window)
            if size <= 0:
                return
            part, stream.unsent = stream.unsent[:size], stream.unsent[size:]
            self._window -= size
            stream.window -= size
            flags = 0 if stream.unsent else END_STREAM
            self._out += (head_before_stream(DATA, flags, size), name, part)
        del self._blocked[number]
