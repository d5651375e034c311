"""The generators' connections to the stacks beside capnp, joined with their servers' halves."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import h2.errors
import h2.events
import h2.settings
import pytest
from stack_peers import PEERS, Peer, Reply, backwards

from capnp_rig.loadtest.protocols import STACKS, load_any_workload, make_exchange
from capnp_rig.loadtest.protocols.http2_frames import (
    CONTINUATION,
    END_HEADERS,
    HEADERS,
    ReplyHeaders,
)
from capnp_rig.loadtest.stats.failures import FailedCall, WrongReply
from capnp_rig.loadtest.workload import BINARY, TEXT, WorkloadConfig, WorkloadError
from capnp_rig.objects.errors import ClientError, Disconnected, ProtocolError, RemoteError

pytest.importorskip("hpack", reason="needs the extra stacks: hpack")

RIVALS = [name for name in STACKS if name != "capnp"]
IN_ORDER = ["echo", "json", "http1", "selectors"]
LARGE = 300_000
MAX_CONCURRENT_STREAMS = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
INITIAL_WINDOW_SIZE = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE


class Joined:
    """An exchange and a server, and what was counted."""

    def __init__(
        self,
        stack: str,
        kind: str = TEXT,
        *,
        in_flight: int = 1,
        reply: Reply | None = None,
        peer: Peer | None = None,
        **workload: Any,
    ) -> None:
        self.answered: list[tuple[int, int, int]] = []
        self.failed: list[tuple[Exception, int, int]] = []
        config = WorkloadConfig(payload_kind=kind, **workload)
        self.exchange = make_exchange(
            load_any_workload(stack, config, authority="server:1"),
            7,
            in_flight,
            answered=lambda *times: self.answered.append(times),
            failed=lambda *what: self.failed.append(what),
        )
        right: Reply = bytes if stack == "echo" else backwards(kind)
        self.payloads: list[bytes] = []
        self.reply = reply or right
        self.right = right
        self.peer: Any = peer or PEERS[stack](self._answer, kind)
        if peer is not None:
            self.peer._reply = self._answer

    def _answer(self, payload: bytes) -> bytes:
        self.payloads.append(payload)
        return self.reply(payload)

    def begin(self) -> "Joined":
        """Let both say what comes before the first call."""
        was_ready = self.exchange.is_ready
        assert self.flush() == (0 if was_ready else self.exchange.free)
        assert self.exchange.is_ready
        return self

    def flush(self, now_ns: int = 0) -> int:
        """Pass bytes to and fro until neither side has any; return the slots that got free."""
        freed = 0
        while out := self.exchange.output():
            freed += self.exchange.receive(self.peer.feed(out), now_ns)
        return freed

    def call(self, turn: int = 0) -> int:
        self.exchange.send(turn, turn + 1)
        return self.flush(turn + 2)

    @property
    def kinds(self) -> list[type[Exception]]:
        return [type(error) for error, _, _ in self.failed]


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 17, 32, 4096, 4097, LARGE])
@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("stack", RIVALS)
def test_a_right_reply_counts_with_its_three_instants(stack: str, kind: str, size: int) -> None:
    joined = Joined(stack, kind, payload_bytes=size).begin()
    for turn in range(5):
        assert joined.call(turn) == 1
    assert joined.failed == []
    assert joined.answered == [(turn, turn + 1, turn + 2) for turn in range(5)]
    # A payload of no room for what tells them apart gets four bytes.
    assert {len(payload) for payload in joined.payloads} == {max(size, 4)}
    assert len(set(joined.payloads)) >= 3


@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("stack", RIVALS)
def test_several_replies_may_come_at_once(stack: str, kind: str) -> None:
    joined = Joined(stack, kind, in_flight=4).begin()
    for turn in range(6):
        assert joined.exchange.free == 4
        for _ in range(4):
            joined.exchange.send(turn, turn)
        assert (joined.exchange.free, joined.exchange.in_flight) == (0, 4)
        assert list(joined.exchange.waiting()) == [(turn, turn)] * 4
        assert joined.exchange.receive(joined.peer.feed(joined.exchange.output()), turn) == 4
    assert (len(joined.answered), joined.failed) == (24, [])


@pytest.mark.parametrize(("size", "portion"), [(32, 1), (32, 7), (32, 50), (LARGE, 10_007)])
@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("stack", RIVALS)
def test_replies_may_come_in_any_portions(stack: str, kind: str, size: int, portion: int) -> None:
    joined = Joined(stack, kind, in_flight=3, payload_bytes=size)
    for part in cut(joined.peer.feed(joined.exchange.output()), portion):
        joined.exchange.receive(part, 0)
    for _ in range(4):
        for _ in range(3):
            joined.exchange.send(0, 0)
        while out := joined.exchange.output():
            for part in cut(joined.peer.feed(out), portion):
                joined.exchange.receive(part, 0)
        assert joined.exchange.free == 3
    assert (len(joined.answered), joined.failed) == (12, [])


@pytest.mark.parametrize("size", [32, LARGE])
@pytest.mark.parametrize("place", ["nonce", "body"])
@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("stack", RIVALS)
def test_one_wrong_byte_is_noticed(stack: str, kind: str, place: str, size: int) -> None:
    joined = Joined(stack, kind, payload_bytes=size)
    turns = itertools.count()

    def lie(payload: bytes) -> bytes:
        right = bytearray(joined.right(payload))
        if next(turns) in {0, 4}:
            # A nonce is ASCII, so that a text stays one; it comes last, and from an echo first.
            at = 3 if stack == "echo" else -4
            if place == "body":
                at = next(at for at in range(8, size) if right[at] < 0x80 and right[at - 1] < 0x80)
            right[at] ^= 1
        return bytes(right)

    joined.reply = lie
    joined.begin()
    for turn in range(8):
        assert joined.call(turn) == 1
    assert joined.kinds == [WrongReply, WrongReply]
    assert [(sent, now) for _, sent, now in joined.failed] == [(1, 2), (5, 6)]
    assert len(joined.answered) == 6
    for error, _, _ in joined.failed:
        example = FailedCall.of("kind", error)
        assert example.request
        # Around what differs, however long they are.
        assert example.expected != example.came
        assert len(example.expected) < 2_000


@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("stack", RIVALS)
def test_the_reply_to_another_request_is_noticed(stack: str, kind: str) -> None:
    joined = Joined(stack, kind)
    joined.begin()
    kept: list[bytes] = []

    def late(payload: bytes) -> bytes:
        kept.append(joined.right(payload))
        return kept[max(0, len(kept) - 2)]

    joined.reply = late
    for _ in range(7):
        joined.call()
    # The very first is right.
    assert joined.kinds == [WrongReply] * 6


@pytest.mark.parametrize("stack", RIVALS)
def test_a_reply_of_another_length_is_noticed(stack: str) -> None:
    if stack == "echo":
        pytest.skip("an echo has no lengths: what is too short is waited for")
    joined = Joined(stack).begin()
    for reply in (lambda text: text[1:], lambda text: text + b"x", lambda _text: b""):
        joined.reply = reply
        joined.call()
    joined.reply = joined.right
    joined.call()
    assert joined.kinds == [WrongReply] * 3
    assert len(joined.answered) == 1


@pytest.mark.parametrize("stack", RIVALS)
def test_texts_with_escapes_and_lines_of_a_corpus_are_sent_in_turn(stack: str) -> None:
    lines = ['quo"te \\ and \x01 and 🎉', "Grüße"]
    for config in ({"text": lines[0]}, {"corpus": "\n".join(lines)}):
        joined = Joined(stack, in_flight=2, **config).begin()
        for _ in range(12):
            joined.call()
        assert (len(joined.answered), joined.failed) == (12, [])
        expected = lines[:1] if "text" in config else lines
        assert {payload.decode()[16:] for payload in joined.payloads} == set(expected)


@pytest.mark.parametrize("stack", RIVALS)
def test_giving_up_fails_all_that_is_in_flight(stack: str) -> None:
    joined = Joined(stack, in_flight=3).begin()
    for _ in range(2):
        joined.exchange.send(1, 2)
    assert joined.exchange.give_up(Disconnected("gone"), 9) == 2
    assert [(sent, now) for _, sent, now in joined.failed] == [(2, 9), (2, 9)]
    assert (joined.exchange.in_flight, joined.exchange.free) == (0, 3)


@pytest.mark.parametrize("stack", IN_ORDER)
def test_a_reply_that_comes_twice_breaks_the_protocol(stack: str) -> None:
    joined = Joined(stack).begin()
    joined.exchange.send(0, 0)
    reply = joined.peer.feed(joined.exchange.output())
    joined.exchange.receive(reply, 0)
    with pytest.raises(ProtocolError, match="not made, or twice"):
        joined.exchange.receive(reply, 0)


@pytest.mark.parametrize(
    ("stack", "data", "kind"),
    [
        ("json", b"hello\n", ProtocolError),
        ("json", b"[1]\n", ProtocolError),
        ("json", b'{"id":9,"result":"x"}\n', ProtocolError),
        ("json", b"x" * 70_000, ProtocolError),
        ("http1", b"\xff\xfe\r\n\r\n", ProtocolError),
        ("http1", b"SSH-2.0\r\n\r\n", ProtocolError),
        ("http1", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", ProtocolError),
        ("http1", b"x" * 70_000, ProtocolError),
        ("selectors", b"HTTP/1.1 400 Bad Request\r\n\r\n", ProtocolError),
        ("http2", b"HTTP/1.1 400 Bad Request\r\n\r\n", ProtocolError),
        ("http2", b"\0\0\1\7\0\0\0\0\0x", ProtocolError),  # GOAWAY, too short
        ("http2", b"\0\0\1\5\4\0\0\0\1\x88", ProtocolError),  # PUSH_PROMISE
        ("http2", b"\0\0\1\x09\4\0\0\0\1\x88", ProtocolError),  # CONTINUATION of nothing
        ("http2", b"\0\0\1\1\0\0\0\0\1\x88" + bytes(9), ProtocolError),  # HEADERS, interrupted
        ("http2", b"\0\0\1\1\4\0\0\0\1\xff", ProtocolError),  # HEADERS, unreadable
        ("http2", b"\0\0\1\0\x08\0\0\0\1\x05", ProtocolError),  # DATA, only padding
        ("http2", b"\0\0\1\4\0\0\0\0\0x", ProtocolError),  # SETTINGS of one byte
        ("grpc", b"\xff" * 64, ProtocolError),
    ],
)
def test_what_is_no_reply_ends_the_connection(
    stack: str, data: bytes, kind: type[ClientError]
) -> None:
    joined = Joined(stack).begin()
    joined.exchange.send(0, 0)
    with pytest.raises(kind):
        joined.exchange.receive(data, 0)


@pytest.mark.parametrize("stack", ["http2", "grpc"])
def test_a_server_that_does_not_begin_as_it_should_is_no_http2(stack: str) -> None:
    joined = Joined(stack)
    assert not joined.exchange.is_ready
    with pytest.raises(ProtocolError, match="no HTTP/2"):
        joined.exchange.receive(b"HTTP/1.1 505 No\r\n\r\n", 0)


# --- what a server says of errors -------------------------------------------------------------


def fails_once(joined: Joined, failing: bytes, *, said: str, portion: int) -> None:
    """Call, get an error instead of an answer, and call again."""
    joined.exchange.send(0, 0)
    for part in cut(joined.peer.feed(joined.exchange.output()), 10_007):
        joined.exchange.receive(part, 0)
    joined.exchange.send(0, 0)
    joined.exchange.output()
    assert sum(joined.exchange.receive(part, 1) for part in cut(failing, portion)) == 1
    joined.call()
    assert (joined.kinds, len(joined.answered)) == ([RemoteError], 2)
    assert said in str(joined.failed[0][0])


@pytest.mark.parametrize("portion", [1, 33, 100])
@pytest.mark.parametrize("size", [32, LARGE])
def test_a_json_error_fails_the_call_and_not_the_connection(size: int, portion: int) -> None:
    fails_once(
        Joined("json", payload_bytes=size).begin(),
        b'{"id":1,"error":"no such method"}\n',
        said="no such method",
        portion=portion,
    )


@pytest.mark.parametrize("status", [400, 500, 503])
def test_an_http_status_fails_the_call_and_not_the_connection(status: int) -> None:
    joined = Joined("http1", payload_bytes=LARGE).begin()
    failing = joined.peer.respond(status, b'{"error":"x"}')
    fails_once(joined, failing, said=f"HTTP status {status}", portion=7)
    # With the right body, too.
    joined = Joined("http1").begin()
    joined.exchange.send(0, 0)
    answer = joined.peer.feed(joined.exchange.output())
    assert joined.exchange.receive(answer.replace(b" 200 ", b" %d " % status), 0) == 1
    assert [str(error) for error, _, _ in joined.failed] == [f"HTTP status {status}"]
    joined = Joined("http2").begin()
    joined.peer.status = str(status)
    joined.call()
    joined.peer.status = "200"
    joined.call()
    assert [str(error) for error, _, _ in joined.failed] == [f"HTTP status {status}"]
    assert len(joined.answered) == 1


@pytest.mark.parametrize("trailers_only", [False, True])
@pytest.mark.parametrize(
    ("trailers", "said"),
    [
        ([("grpc-status", "13")], "gRPC status INTERNAL: no reason given"),
        ([("grpc-status", "3"), ("grpc-message", "bad")], "gRPC status INVALID_ARGUMENT: bad"),
        ([("grpc-status", "99")], "gRPC status 99"),
        ([("x", "0")], "no gRPC status"),
    ],
)
def test_a_grpc_status_fails_the_call_and_not_the_connection(
    trailers: list[tuple[str, str]],
    said: str,
    trailers_only: bool,
) -> None:
    joined = Joined("grpc").begin()
    good, joined.peer.trailers = joined.peer.trailers, trailers
    joined.peer.trailers_only = trailers_only
    joined.call()
    joined.peer.trailers, joined.peer.trailers_only = good, False
    joined.call()
    assert len(joined.failed) == len(joined.answered) == 1
    assert said in str(joined.failed[0][0])


def test_a_grpc_answer_has_one_message() -> None:
    joined = Joined("grpc").begin()
    joined.peer.trailers_only = True
    joined.call()
    joined.peer.trailers_only = False
    joined.peer.messages = 2
    joined.call()
    assert joined.kinds == [WrongReply, WrongReply]


@pytest.mark.parametrize("stack", ["http2", "grpc"])
def test_a_stream_that_is_reset_fails_the_call_and_not_the_connection(stack: str) -> None:
    joined = Joined(stack, in_flight=2).begin()
    joined.exchange.send(0, 0)
    joined.peer.respond = lambda stream, *_: joined.peer.h2.reset_stream(
        stream, h2.errors.ErrorCodes.REFUSED_STREAM
    )
    joined.flush()
    del joined.peer.respond
    joined.call()
    assert [str(error) for error, _, _ in joined.failed] == [
        "the server reset the call: REFUSED_STREAM"
    ]
    assert len(joined.answered) == 1


@pytest.mark.parametrize("stack", ["http2", "grpc"])
def test_a_goaway_ends_the_connection(stack: str) -> None:
    joined = Joined(stack).begin()
    joined.exchange.send(0, 0)
    joined.peer.h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
    with pytest.raises(Disconnected, match="ENHANCE_YOUR_CALM"):
        joined.exchange.receive(joined.peer.h2.data_to_send(), 0)


# --- replies that are right in other words ----------------------------------------------------


@pytest.mark.parametrize("kind", [TEXT, BINARY])
def test_json_may_be_written_otherwise_and_is_learned(kind: str) -> None:
    joined = Joined("json", kind, peer=PEERS["json"](bytes, kind, spaces=True)).begin()
    for _ in range(10):
        joined.call()
    assert (len(joined.answered), joined.failed) == (10, [])


@pytest.mark.parametrize("headers", ["Server: x\r\n", "Date: {n}\r\n"])
@pytest.mark.parametrize("size", [32, LARGE])
def test_headers_may_vary(headers: str, size: int) -> None:
    peer = PEERS["http1"](bytes, TEXT, headers=headers)
    joined = Joined("http1", peer=peer, payload_bytes=size).begin()
    for _ in range(10):
        joined.call()
    assert (len(joined.answered), joined.failed) == (10, [])
    # What was learned of the first ones does not hide a wrong one.
    joined.reply = lambda text: joined.right(text)[:-1] + b"#"
    joined.call()
    assert joined.kinds == [WrongReply]


def test_an_http_body_may_have_other_members() -> None:
    joined = Joined("http1").begin()
    joined.exchange.send(0, 0)
    request = joined.exchange.output()
    text = json.loads(request.partition(b"\r\n\r\n")[2])["content"]
    body = json.dumps({"took": 1, "chunk": text[::-1]}).encode()
    joined.exchange.receive(joined.peer.respond(200, body), 0)
    assert len(joined.answered) == 1


# --- HTTP/2 -----------------------------------------------------------------------------------


def test_headers_of_http2_may_vary_and_change_the_table() -> None:
    joined = Joined("http2").begin()
    for turn in range(30):
        # Some are indexed and come again, some are new.
        joined.peer.more_headers = [("x", str(turn // 3)), ("y", "z" * (turn % 4))]
        joined.call()
    assert (len(joined.answered), joined.failed) == (30, [])


def test_requests_are_small_once_the_table_knows_their_headers() -> None:
    joined = Joined("grpc").begin()
    sizes = []
    for _ in range(4):
        joined.exchange.send(0, 0)
        out = joined.exchange.output()
        sizes.append(len(out))
        joined.exchange.receive(joined.peer.feed(out), 0)
        joined.flush()
    assert sizes[1] == sizes[2] == sizes[3] < sizes[0] - 40


def test_a_smaller_table_is_kept_to() -> None:
    settings = {h2.settings.SettingCodes.HEADER_TABLE_SIZE: 0}
    peer = PEERS["http2"](bytes, TEXT, settings=settings)
    joined = Joined("http2", peer=peer)
    peer._answers._reply = joined._answer
    joined.begin()
    for _ in range(4):
        joined.call()
    assert (len(joined.answered), joined.failed) == (4, [])


@pytest.mark.parametrize("stack", ["http2", "grpc"])
@pytest.mark.parametrize("window", [1, 1000, 65_535])
def test_a_large_body_waits_for_the_servers_windows(stack: str, window: int) -> None:
    size = 2000 if window == 1 else LARGE
    peer = PEERS[stack](bytes, TEXT, settings={INITIAL_WINDOW_SIZE: window})
    joined = Joined(stack, in_flight=2, peer=peer, payload_bytes=size)
    if stack == "http2":
        peer._answers._reply = joined._answer
    joined.begin()
    peer.hold = True
    for _ in range(2):
        joined.exchange.send(0, 0)
    joined.flush()
    # Of the connection, or of each of the two streams.
    assert sum(held for held, _ in peer.held) == min(2 * window, 65_535)
    turns = 0
    while joined.exchange.in_flight and (turns := turns + 1) < 10_000:
        peer.open_windows()
        joined.exchange.receive(peer.h2.data_to_send(), 0)
        joined.flush()
    assert (len(joined.answered), joined.failed) == (2, [])


def test_a_window_may_be_made_larger_while_a_body_waits() -> None:
    peer = PEERS["grpc"](bytes, TEXT, settings={INITIAL_WINDOW_SIZE: 100})
    joined = Joined("grpc", peer=peer, payload_bytes=5000).begin()
    peer.hold = True
    joined.exchange.send(0, 0)
    joined.flush()
    assert sum(held for held, _ in peer.held) == 100
    peer.h2.update_settings({INITIAL_WINDOW_SIZE: 60_000})
    joined.exchange.receive(peer.h2.data_to_send(), 0)
    joined.flush()
    assert (len(joined.answered), joined.failed) == (1, [])


def test_an_answer_before_the_end_of_the_request_cancels_the_rest() -> None:
    peer = PEERS["http2"](bytes, TEXT, settings={INITIAL_WINDOW_SIZE: 100})
    joined = Joined("http2", peer=peer, payload_bytes=5000).begin()
    peer.hold = True
    joined.exchange.send(0, 0)
    peer.feed(joined.exchange.output())
    peer.h2.send_headers(1, [(":status", "413"), ("content-length", "0")], end_stream=True)
    joined.exchange.receive(peer.h2.data_to_send(), 0)
    assert [str(error) for error, _, _ in joined.failed] == ["HTTP status 413"]
    peer.feed(joined.exchange.output())
    assert isinstance(peer.events[-1], h2.events.StreamReset)
    assert joined.exchange.free == 1


def test_no_more_streams_are_opened_than_the_server_takes() -> None:
    peer = PEERS["grpc"](bytes, TEXT, settings={MAX_CONCURRENT_STREAMS: 3})
    joined = Joined("grpc", in_flight=8, peer=peer).begin()
    assert joined.exchange.free == 3


def test_a_ping_is_answered_and_our_window_is_opened_again() -> None:
    joined = Joined("http2", BINARY, payload_bytes=LARGE).begin()
    joined.peer.h2.ping(b"12345678")
    joined.exchange.receive(joined.peer.h2.data_to_send(), 0)
    joined.flush()
    assert any(isinstance(e, h2.events.PingAckReceived) for e in joined.peer.events)
    exchange: Any = joined.exchange
    exchange._taken = (1 << 29) - 1000
    joined.call()
    windows = [e for e in joined.peer.events if isinstance(e, h2.events.WindowUpdated)]
    assert windows[-1].delta > 1 << 29
    assert exchange._taken < LARGE * 2


def test_the_connections_window_is_that_of_all_calls_together() -> None:
    joined = Joined("grpc", in_flight=32, payload_bytes=4000).begin()
    joined.peer.hold = True
    for _ in range(32):
        joined.exchange.send(0, 0)
    # The library of the server would complain of one byte too many.
    joined.flush()
    assert sum(held for held, _ in joined.peer.held) == 65_535
    for _ in range(5):
        joined.peer.open_windows()
        joined.exchange.receive(joined.peer.h2.data_to_send(), 0)
        joined.flush()
    assert (len(joined.answered), joined.failed) == (32, [])


def test_headers_that_change_the_table_are_decoded_each_time() -> None:
    headers = ReplyHeaders()
    indexing = b"\x40\x01x\x01a"
    assert [headers.decode(indexing), headers.decode(indexing)] == [{b"x": b"a"}] * 2
    # The entry before the last.
    assert headers.decode(b"\xbf") == {b"x": b"a"}


def continued(frames: bytes) -> bytes:
    """Return frames with their blocks of headers cut into pieces of seven bytes."""
    out = b""
    while frames:
        size = int.from_bytes(frames[:3], "big")
        kind, flags, stream, payload = frames[3], frames[4], frames[5:9], frames[9 : 9 + size]
        parts = list(cut(payload, 7)) if kind == HEADERS else [payload]
        for number, part in enumerate(parts):
            # The first of them says whether the stream ends, the last that the block does.
            said = 0 if number else flags & ~END_HEADERS
            said |= flags & END_HEADERS if number == len(parts) - 1 else 0
            head = bytes([CONTINUATION if number else kind, said])
            out += len(part).to_bytes(3, "big") + head + stream + part
        frames = frames[9 + size :]
    return out


@pytest.mark.parametrize("status", ["200", "431"])
def test_headers_may_be_continued_and_be_all_of_an_answer(status: str) -> None:
    joined = Joined("http2").begin()
    joined.peer.more_headers = [("x", "y" * 50)]
    if status != "200":
        joined.peer.respond = lambda stream, *_: joined.peer.h2.send_headers(
            stream, [(":status", status), ("x", "y" * 50)], end_stream=True
        )
    for _ in range(3):
        joined.exchange.send(0, 0)
        answer = continued(joined.peer.feed(joined.exchange.output()))
        assert joined.exchange.receive(answer, 0) == 1
    expected = [] if status == "200" else [f"HTTP status {status}"] * 3
    assert [str(error) for error, _, _ in joined.failed] == expected
    assert len(joined.answered) == 3 - len(expected)


def test_padding_is_taken_off() -> None:
    joined = Joined("http2").begin()
    joined.peer.pad = 200
    joined.call()
    assert (len(joined.answered), joined.failed) == (1, [])


# --- what cannot be sent ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"schema": "x.capnp"}, "schema is for the stack capnp"),
        ({"params": "{}"}, "params is for the stack capnp"),
        ({"import_path": ["schemas"]}, "import_path is for the stack capnp"),
        ({"via": "login().session"}, "via is for the stack capnp"),
        ({"pipeline": True}, "pipeline is for the stack capnp"),
        ({"payload_bytes": 0}, "at least 1 byte"),
        ({"payload_bytes": (1 << 24) + 1}, "the servers take 16777216"),
        ({"payload_kind": BINARY, "text": "x"}, "text and corpus are texts"),
        ({"text": "x", "corpus": "y"}, "exclude each other"),
        ({"corpus": ""}, "no text to send"),
        ({"text": "\ud800"}, "not valid Unicode"),
    ],
)
def test_a_mistake_is_told(config: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkloadError, match=said):
        load_any_workload("json", WorkloadConfig(**config))
