"""Single calls and the server's half of `wire`, joined without sockets."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from capnp_rig.loadtest.protocols.capnp_calls import CallExchange, PendingCall
from capnp_rig.objects.errors import (
    ClientError,
    DeadlineExceeded,
    Disconnected,
    Overloaded,
    ProtocolError,
    RemoteError,
)
from capnp_rig.schema import load_schema, message
from capnp_rig.wire.errors import EncodeError, UnusableCapability
from capnp_rig.wire.rpc.connection import Called, Cancelled, Connection, Released
from capnp_rig.wire.rpc.interfaces import Method, compile_interface
from capnp_rig.wire.rpc.message_encoder import encode_abort
from capnp_rig.wire.rpc.messages import ExceptionType
from capnp_rig.wire.rpc.messages import RemoteError as WireRemoteError
from capnp_rig.wire.rpc.server_connection import ServerConnection

READ = compile_interface(message.MessageStream).methods["read"]
BINARY = compile_interface(load_schema("binary.capnp").Binary).methods["reverse"]


def reverse(text: str) -> bytes:
    return text[::-1].encode()


class Joined:
    """An exchange and a server."""

    def __init__(self) -> None:
        self.exchange = CallExchange()
        self.server = ServerConnection()
        self.cancelled = 0

    def call(self, text: str, now_ns: int = 0) -> PendingCall:
        params = READ.params.pack({"request": {"content": text}})
        return self.exchange.call(READ, params, now_ns)

    def replies(self, reply: Callable[[str], bytes] = reverse) -> bytes:
        """Let the server answer what was sent; return its bytes."""
        for event in self.server.receive_data(self.exchange.output()):
            if isinstance(event, Called):
                text: str = READ.params.open(event.params).request.content
                results = READ.results.pack({"chunk": reply(text)})
                self.server.send_results(event.question_id, results)
            self.cancelled += isinstance(event, Cancelled)
        return self.server.data_to_send()

    def answer(self, now_ns: int = 1) -> list[PendingCall]:
        """Let the server answer; return the calls that have ended."""
        self.exchange.receive(self.replies(), now_ns)
        ended, self.exchange.ended = self.exchange.ended, []
        return ended


@pytest.mark.parametrize(
    "texts",
    [
        # The same lengths, whose frames are learned, and others; none at all is a null pointer.
        ["abc", "def", "ghi", "jkl"],
        ["", "a", "b" * 7, "c" * 8, "d" * 300, "e", "f" * 300, "grüße"],
    ],
)
def test_each_call_gets_its_own_results(texts: list[str]) -> None:
    joined = Joined()
    for turn, text in enumerate(texts):
        pending = joined.call(text, turn)
        assert (joined.exchange.in_flight, joined.exchange.oldest) == (1, pending)
        assert joined.answer(turn + 1) == [pending]
        assert (pending.sent_ns, pending.received_ns, pending.error) == (turn, turn + 1, None)
        assert bytes(pending.results.chunk) == reverse(text)
        assert (joined.exchange.in_flight, joined.exchange.oldest) == (0, None)


def test_results_stay_readable_after_later_replies() -> None:
    joined = Joined()
    ended = []
    for text in ("abc", "def", "ghi"):
        joined.call(text)
        ended += joined.answer()
    assert [bytes(each.results.chunk) for each in ended] == [b"cba", b"fed", b"ihg"]


@pytest.mark.parametrize("step", [1, 7, 71, 1000])
def test_calls_in_flight_are_told_apart_in_whichever_parts_replies_come(step: int) -> None:
    joined = Joined()
    joined.call("first")
    joined.answer()
    texts = [f"text {number}" * (number % 3 + 1) for number in range(12)]
    pending = [joined.call(text) for text in texts]
    data = joined.replies()
    for at in range(0, len(data), step):
        joined.exchange.receive(data[at : at + step], 1)
    assert joined.exchange.ended == pending
    assert [bytes(each.results.chunk) for each in pending] == list(map(reverse, texts))


def test_methods_have_frames_of_their_own() -> None:
    joined = Joined()
    for _ in range(3):
        joined.call("abc")
        binary = joined.exchange.call(BINARY, BINARY.params.pack({"data": b"xyz"}), 0)
        for event in joined.server.receive_data(joined.exchange.output()):
            assert isinstance(event, Called)
            method: Method = READ if event.interface_id == READ.interface_id else BINARY
            body: Mapping[str, Any] = {"chunk": b"cba"} if method is READ else {"data": b"zyx"}
            joined.server.send_results(event.question_id, method.results.pack(body))
        joined.exchange.receive(joined.server.data_to_send(), 1)
        assert bytes(binary.results.data) == b"zyx"
        assert bytes(joined.exchange.ended.pop(0).results.chunk) == b"cba"
        joined.exchange.ended.clear()


def test_an_error_of_the_server_ends_its_call_alone() -> None:
    joined = Joined()
    failing, other = joined.call("x"), joined.call("y")
    for event in joined.server.receive_data(joined.exchange.output()):
        assert isinstance(event, Called)
        if event.question_id == 1:
            joined.server.send_exception(event.question_id, WireRemoteError("no"))
        else:
            results = READ.results.pack({"chunk": b"y"})
            joined.server.send_results(event.question_id, results)
    joined.exchange.receive(joined.server.data_to_send(), 1)
    assert isinstance(failing.error, RemoteError)
    assert str(failing.error) == "no"
    assert (other.error, bytes(other.results.chunk)) == (None, b"y")
    joined.call("after")
    assert len(joined.answer()) == 1 + 2


def test_the_answer_to_a_cancelled_call_is_dropped() -> None:
    joined = Joined()
    late, other = joined.call("late"), joined.call("other")
    replies = joined.replies()
    joined.exchange.cancel(late, DeadlineExceeded("late"), 5)
    assert isinstance(late.error, DeadlineExceeded)
    assert (late.received_ns, joined.exchange.in_flight) == (5, 1)
    joined.exchange.receive(replies, 6)
    assert joined.exchange.ended == [late, other]
    assert late.results is None
    # Its question is free again, and the connection goes on.
    joined.exchange.ended.clear()
    joined.call("more")
    (more,) = joined.answer()
    assert bytes(more.results.chunk) == b"erom"


def test_a_cancelled_call_is_cancelled_at_the_server() -> None:
    joined = Joined()
    joined.server.receive_data(joined.exchange.output())
    pending = joined.call("x")
    joined.server.receive_data(joined.exchange.output())
    joined.exchange.cancel(pending, DeadlineExceeded("late"), 5)
    joined.replies()
    assert joined.cancelled == 1


def test_a_lost_connection_ends_all_calls() -> None:
    joined = Joined()
    pending = [joined.call("x"), joined.call("y")]
    joined.exchange.give_up(Disconnected("gone"), 3)
    assert joined.exchange.ended == pending
    assert [str(each.error) for each in pending] == ["gone", "gone"]
    assert joined.exchange.in_flight == 0


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\xff" * 64, ProtocolError),
        (encode_abort(WireRemoteError("full", ExceptionType.OVERLOADED)), Overloaded),
        (encode_abort(WireRemoteError("bye")), Disconnected),
    ],
)
def test_what_ends_the_connection_is_raised(data: bytes, kind: type[ClientError]) -> None:
    joined = Joined()
    joined.call("x")
    with pytest.raises(kind):
        joined.exchange.receive(data, 1)


def test_an_answer_to_no_call_breaks_the_protocol() -> None:
    joined = Joined()
    joined.call("x")
    joined.answer()
    joined.call("x")
    data = joined.replies()
    joined.exchange.receive(data, 1)
    with pytest.raises(ProtocolError):
        joined.exchange.receive(data, 1)


def test_params_over_the_message_limit_hurt_nothing() -> None:
    joined = Joined()
    with pytest.raises(EncodeError):
        joined.call("x" * (8 << 23))
    joined.call("x")
    assert len(joined.answer()) == 1


# --- capabilities ----------------------------------------------------------------------------


LEVEL_1 = load_schema(Path(__file__).parents[3] / "data" / "level_1.capnp")
MAIN, SESSION = compile_interface(LEVEL_1.Main), compile_interface(LEVEL_1.Session)
LOGIN, BACK, SESSION_READ = MAIN.methods["login"], MAIN.methods["back"], SESSION.methods["read"]


class Sessions:
    """An exchange, and a server that gives out sessions; `live` are those that it still holds."""

    def __init__(self) -> None:
        self.exchange = CallExchange()
        self.server = Connection(None, "main")
        self.live: list[str] = []
        self.given: list[object] = []

    def call(self, method: Method, values: Mapping[str, Any], to: Any = None) -> Any:
        """Make a call and return its results."""
        packed, given = method.params.pack_with_capabilities(values)
        pending = self.exchange.call(method, packed, 0, to, given)
        self.turn()
        assert pending.error is None
        return pending.results

    def turn(self) -> None:
        for event in self.server.receive_data(self.exchange.output()):
            if isinstance(event, Called):
                self.answer(event)
            elif isinstance(event, Released):
                self.live.remove(event.target)
        self.exchange.receive(self.server.data_to_send(), 1)
        self.exchange.ended.clear()

    def answer(self, call: Called) -> None:
        if call.target != "main":
            results = SESSION_READ.results.pack({"text": call.target})
            self.server.send_results(call.question_id, results)
        elif call.method_id == BACK.method_id:
            callback = BACK.params.open(call.params).callback
            self.given.append(None if callback is None else callback.hosted)
            self.server.send_results(call.question_id, BACK.results.pack({}))
        else:
            user = LOGIN.params.open(call.params).user
            self.live += [user, f"{user}'s other"]
            first, second = (self.server.host(each) for each in self.live[-2:])
            values = {"session": first, "pair": {"session": second}}
            encoded, capabilities = LOGIN.results.pack_with_capabilities(values)
            self.server.send_results(call.question_id, encoded, capabilities)
            first.release()
            second.release()


def test_a_capability_is_called_and_given_back_when_it_is_released_or_dropped() -> None:
    joined = Sessions()
    results = joined.call(LOGIN, {"user": "ada"})
    session = results.session
    assert joined.call(SESSION_READ, {"number": 1}, session).text == "ada"
    # What nobody has taken goes with the results.
    assert joined.live == ["ada", "ada's other"]
    assert joined.exchange.held == 2
    del results
    joined.turn()
    assert joined.live == ["ada"]
    assert joined.exchange.held == 1
    session.release()
    session.release()
    joined.turn()
    assert joined.live == []
    assert joined.exchange.held == 0
    with pytest.raises(UnusableCapability, match="released before"):
        joined.call(SESSION_READ, {"number": 1}, session)


def test_a_capability_is_given_to_other_calls_of_its_connection() -> None:
    joined, other = Sessions(), Sessions()
    session = joined.call(LOGIN, {"user": "ada"}).session
    joined.call(BACK, {"callback": session, "delay": 0})
    joined.call(BACK, {"callback": None})
    assert joined.given == ["ada", None]
    with pytest.raises(UnusableCapability, match="belongs to another connection"):
        other.call(BACK, {"callback": session})
    with pytest.raises(UnusableCapability, match="belongs to another connection"):
        other.call(SESSION_READ, {"number": 1}, session)
    assert other.exchange.in_flight == 0


def test_a_thousand_capabilities_leave_nothing_behind() -> None:
    joined = Sessions()
    joined.turn()
    for number in range(1000):
        joined.call(LOGIN, {"user": str(number)})
    joined.turn()
    assert (joined.live, joined.server._exports.keys(), joined.exchange._kept) == ([], {0}, set())


def test_the_capabilities_of_a_cancelled_call_are_given_back() -> None:
    joined = Sessions()
    joined.turn()
    pending = joined.exchange.call(LOGIN, LOGIN.params.pack({"user": "ada"}), 0)
    call = joined.exchange.output()
    joined.exchange.cancel(pending, DeadlineExceeded("late"), 1)
    (called,) = joined.server.receive_data(call)
    assert isinstance(called, Called)
    joined.answer(called)
    joined.exchange.receive(joined.server.data_to_send(), 1)
    joined.turn()
    assert joined.live == []
