"""The load generator's connection and the server's half of `wire`, joined without sockets."""

import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from message_layouts import Bytes, Struct, Writer

from capnp_rig.loadtest.protocols.capnp_exchange import Exchange
from capnp_rig.loadtest.stats.failures import WrongReply
from capnp_rig.loadtest.workload import Workload, WorkloadConfig, load_workload
from capnp_rig.objects.errors import (
    ClientError,
    Disconnected,
    Overloaded,
    ProtocolError,
    RemoteError,
)
from capnp_rig.schema import message
from capnp_rig.wire.rpc.connection import Called
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.message_encoder import encode_abort, encode_bootstrap_results, encode_finish
from capnp_rig.wire.rpc.messages import ExceptionType, Tag
from capnp_rig.wire.rpc.messages import RemoteError as WireRemoteError
from capnp_rig.wire.rpc.server_connection import ServerConnection

READ = compile_interface(message.MessageStream).methods["read"]
TEXTS = load_workload(WorkloadConfig())
TEMPLATES = load_workload(WorkloadConfig(params='{"request": {"content": "call {{i}}"}}'))
LINES = load_workload(
    WorkloadConfig(params='{"request": {"content": "ab"}}\n{"request": {"content": "cd"}}')
)


class Joined:
    """An exchange and a server, and what was counted."""

    def __init__(
        self, workload: Workload = TEXTS, *, in_flight: int = 2, checks_content: bool = True
    ) -> None:
        self.answered: list[tuple[int, int, int]] = []
        self.failed: list[tuple[Exception, int, int]] = []
        self.exchange = Exchange(
            workload,
            0,
            in_flight,
            answered=lambda *times: self.answered.append(times),
            failed=lambda *what: self.failed.append(what),
            checks_content=checks_content,
        )
        self.server = ServerConnection()
        self.contents: list[str] = []

    def begin(self) -> "Joined":
        self.server.receive_data(self.exchange.output())
        assert self.exchange.receive(self.server.data_to_send(), 0) == self.exchange.free
        return self

    def replies(self, reply: Callable[[str], bytes] = lambda text: text[::-1].encode()) -> bytes:
        """Let the server answer what was sent; return its bytes."""
        for event in self.server.receive_data(self.exchange.output()):
            if isinstance(event, Called):
                text: str = READ.params.open(event.params).request.content
                self.contents.append(text)
                chunk = reply(text)
                results = READ.results.pack({"chunk": chunk})
                self.server.send_results(event.question_id, results)
        return self.server.data_to_send()


@pytest.mark.parametrize("workload", [TEXTS, TEMPLATES, LINES])
def test_a_right_reply_counts_with_its_three_instants(workload: Workload) -> None:
    joined = Joined(workload).begin()
    for turn in range(5):
        joined.exchange.send(turn, turn + 1)
        assert joined.exchange.receive(joined.replies(), turn + 2) == 1
    assert joined.answered == [(turn, turn + 1, turn + 2) for turn in range(5)]
    assert joined.failed == []


def test_lines_are_sent_in_turn_and_templates_are_filled_in() -> None:
    for workload, contents in (
        (LINES, ["ab", "cd", "ab"]),
        (
            load_workload(WorkloadConfig(params='{"request": {"content": "call {{i}}"}}')),
            ["call 0", "call 1", "call 2"],
        ),
    ):
        joined = Joined(workload, in_flight=1).begin()
        for _ in contents:
            joined.exchange.send(0, 0)
            joined.exchange.receive(joined.replies(), 0)
        assert joined.contents == contents


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("workload", [TEXTS, TEMPLATES])
def test_one_wrong_byte_is_noticed(workload: Workload, first: bool) -> None:
    joined = Joined(workload, in_flight=1).begin()
    for _ in range(0 if first else 6):
        joined.exchange.send(0, 0)
        joined.exchange.receive(joined.replies(), 0)
    joined.exchange.send(5, 6)
    joined.exchange.receive(joined.replies(lambda text: b"#" + text[::-1].encode()[1:]), 7)
    ((error, sent_ns, now_ns),) = joined.failed
    assert isinstance(error, WrongReply)
    assert (sent_ns, now_ns) == (6, 7)
    # It was that reply alone.
    joined.exchange.send(0, 0)
    joined.exchange.receive(joined.replies(), 0)
    assert len(joined.failed) == 1


@given(st.integers(0, 2**32), st.integers(1, 3), st.booleans(), st.booleans(), st.booleans())
def test_replies_are_right_in_whatever_layout(
    seed: int, segments: int, gaps: bool, changes: bool, needs_finish: bool
) -> None:
    """Also where it changes from reply to reply, and where the id is anywhere in the frame."""
    joined = Joined(in_flight=2).begin()

    def reply(slot: int, text: str, turn: int) -> bytes:
        chunk = Bytes(text[::-1].encode())
        flags = 0 if needs_finish else 2
        body = Struct(struct.pack("<II", slot, flags), [Struct(b"", [Struct(b"", [chunk])])])
        writer = Writer(seed + turn * changes, segments=segments, gaps=gaps, fars=gaps)
        return writer.frame(Struct(struct.pack("<Q", Tag.RETURN), [body]))

    for turn in range(6):
        joined.exchange.send(turn, turn)
        joined.exchange.send(turn, turn)
        events = joined.server.receive_data(joined.exchange.output())
        calls = [event for event in events if isinstance(event, Called)]
        texts = [READ.params.open(call.params).request.content for call in calls]
        if turn == 5:
            texts[1] += "!"
        replies = [
            reply(call.question_id, text, turn) for call, text in zip(calls, texts, strict=True)
        ]
        assert joined.exchange.receive(b"".join(replies), turn) == 2
        for call in calls:
            joined.server.send_results(call.question_id, READ.results.pack({}))
        joined.server.data_to_send()
    assert len(joined.answered) == 11
    assert [type(error) for error, _, _ in joined.failed] == [WrongReply]
    finish = encode_finish(0)
    assert len(joined.exchange.output()) == (2 * len(finish) if needs_finish else 0)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return where the replies start that were not only compared, as they come."""
    starts: list[int] = []
    decode = Exchange._reply

    def counted(self: Exchange, data: bytes, at: int, size: int) -> object:
        starts.append(at)
        return decode(self, data, at, size)

    monkeypatch.setattr(Exchange, "_reply", counted)
    return starts


def test_known_replies_are_compared_and_not_decoded_wherever_their_id_is(
    decoded: list[int],
) -> None:
    """What is known of the replies to other requests ends with a layout that moves the id."""
    joined = Joined(LINES, in_flight=1).begin()
    for seed, calls in ((1, 8), (4, 8), (1, 8)):
        decoded.clear()
        for _ in range(calls):
            joined.exchange.send(0, 0)
            (call,) = joined.server.receive_data(joined.exchange.output())
            assert isinstance(call, Called)
            text = READ.params.open(call.params).request.content
            content = Struct(b"", [Bytes(text[::-1].encode())])
            body = Struct(struct.pack("<II", call.question_id, 2), [Struct(b"", [content])])
            frame = Writer(seed, segments=1, gaps=True, fars=False).frame(
                Struct(struct.pack("<Q", Tag.RETURN), [body])
            )
            joined.exchange.receive(frame, 0)
            joined.server.send_results(call.question_id, READ.results.pack({}))
            joined.server.data_to_send()
        # The first to each of two requests.
        assert len(decoded) == 2
    assert (len(joined.answered), joined.failed) == (24, [])


def test_without_the_content_any_results_are_right() -> None:
    seen: list[object] = []
    watched = TEXTS.watched(seen.append, 2, compares=False)
    joined = Joined(watched, in_flight=1, checks_content=False).begin()
    replies = (lambda text: text[::-1].encode(), lambda text: b"#" * len(text), lambda _: b"short")
    for reply in replies:
        for _ in range(3):
            joined.exchange.send(0, 0)
            joined.exchange.receive(joined.replies(reply), 0)
    assert (len(joined.answered), joined.failed, len(seen)) == (9, [], 2)


def test_without_the_content_a_known_layout_is_enough(decoded: list[int]) -> None:
    joined = Joined(LINES, in_flight=1, checks_content=False).begin()
    for turn in range(20):
        joined.exchange.send(0, 0)
        joined.exchange.receive(joined.replies(lambda _, turn=turn: b"%02d" % turn), 0)
    assert (len(joined.answered), joined.failed) == (20, [])
    # A size is known when it has come twice, and then by each of the two requests.
    assert len(decoded) == 3


def test_empty_frames_answer_no_call() -> None:
    joined = Joined(LINES, in_flight=1).begin()
    joined.exchange.send(0, 0)
    joined.replies()
    content = Struct(b"", [Bytes(b"ba")])
    body = Struct(struct.pack("<II", 1, 2), [Struct(b"", [content])])
    root = Struct(struct.pack("<Q", Tag.RETURN), [body])
    frame = Writer(0, segments=1, gaps=True, fars=False).frame(root)
    id_at = frame.index(body.data)
    # Further on than in our own replies.
    assert id_at > 32
    assert joined.exchange.receive(frame, 0) == 1
    joined.exchange.send(0, 0)
    with pytest.raises(ProtocolError):
        joined.exchange.receive(bytes(id_at) + struct.pack("<I", 1), 0)
    assert len(joined.answered) == 1


def test_a_reply_to_another_request_is_noticed() -> None:
    joined = Joined(in_flight=2).begin()
    joined.exchange.send(0, 0)
    joined.exchange.send(0, 0)
    texts = iter(["", ""])

    def crossed(text: str) -> bytes:
        del text
        return next(texts).encode()

    joined.exchange.receive(joined.replies(crossed), 0)
    assert [type(error) for error, _, _ in joined.failed] == [WrongReply, WrongReply]


@pytest.mark.parametrize("size", [1, 7, 40, 100])
def test_replies_may_come_in_any_portions(size: int) -> None:
    joined = Joined(in_flight=4)
    bootstrap = joined.exchange.output()
    joined.server.receive_data(bootstrap)
    freed = [joined.exchange.receive(part, 0) for part in _cut(joined.server.data_to_send(), size)]
    assert joined.exchange.is_ready
    assert sum(freed) == 4
    for turn in range(3):
        for _ in range(4):
            joined.exchange.send(turn, turn)
        freed = [joined.exchange.receive(part, turn) for part in _cut(joined.replies(), size)]
        assert sum(freed) == 4
    assert len(joined.answered) == 12


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (WireRemoteError("broken"), RemoteError),
        (WireRemoteError("full", ExceptionType.OVERLOADED), Overloaded),
    ],
)
def test_an_exception_fails_the_call_and_not_the_connection(
    error: WireRemoteError, kind: type[Exception]
) -> None:
    joined = Joined(in_flight=1).begin()
    joined.exchange.send(0, 0)
    (called,) = joined.server.receive_data(joined.exchange.output())
    assert isinstance(called, Called)
    joined.server.send_exception(called.question_id, error)
    assert joined.exchange.receive(joined.server.data_to_send(), 1) == 1
    assert [type(failure) for failure, _, _ in joined.failed] == [kind]
    joined.exchange.send(0, 0)
    joined.exchange.receive(joined.replies(), 0)
    assert len(joined.answered) == 1


def test_a_reply_that_comes_twice_breaks_the_protocol() -> None:
    joined = Joined(in_flight=1).begin()
    joined.exchange.send(0, 0)
    reply = joined.replies()
    joined.exchange.receive(reply, 0)
    with pytest.raises(ProtocolError, match="not made, or twice"):
        joined.exchange.receive(reply, 0)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (encode_abort(WireRemoteError("go away")), Disconnected),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(100), ClientError),
        (b"\xff" * 64, ProtocolError),
        (encode_bootstrap_results(5, 0), ProtocolError),
    ],
)
def test_what_is_no_reply_ends_the_connection(data: bytes, kind: type[Exception]) -> None:
    joined = Joined(in_flight=1).begin()
    joined.exchange.send(0, 0)
    with pytest.raises(kind):
        joined.exchange.receive(data, 0)


def test_giving_up_fails_all_that_is_in_flight() -> None:
    joined = Joined(in_flight=3).begin()
    for _ in range(2):
        joined.exchange.send(1, 2)
    assert list(joined.exchange.waiting()) == [(1, 2), (1, 2)]
    assert joined.exchange.give_up(Disconnected("gone"), 9) == 2
    assert [(sent_ns, now_ns) for _, sent_ns, now_ns in joined.failed] == [(2, 9), (2, 9)]
    assert (joined.exchange.in_flight, joined.exchange.free) == (0, 3)
