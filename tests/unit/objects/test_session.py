"""The calls of a session, joined with a server without sockets, and what its end is called."""

from collections.abc import Callable
from typing import Any

import pytest

from capnp_rig.client import (
    ClientError,
    Disconnected,
    Overloaded,
    ProtocolError,
    RemoteError,
)
from capnp_rig.client.reverse import MESSAGE_STREAM
from capnp_rig.objects.serving import Serving
from capnp_rig.objects.session import Outcome, Session
from capnp_rig.wire.encoding.encoded import EncodedStruct
from capnp_rig.wire.errors import EncodeError
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.connection import Called, Cancelled
from capnp_rig.wire.rpc.message_encoder import encode_abort, encode_bootstrap, encode_exception
from capnp_rig.wire.rpc.messages import ExceptionType
from capnp_rig.wire.rpc.messages import RemoteError as WireRemoteError
from capnp_rig.wire.rpc.server_connection import ServerConnection

FULL = encode_abort(WireRemoteError("full", ExceptionType.OVERLOADED))
PARAMS = {"request": {"content": "x"}}


READ = MESSAGE_STREAM.methods["read"]
Answer = Callable[[ServerConnection, Called], None]


def params(text: Any) -> dict[str, Any]:
    return {"request": {"content": text}}


def reverse(server: ServerConnection, call: Called) -> None:
    text = READ.params.open(call.params).request.content
    server.send_results(call.question_id, READ.results.write({"chunk": text[::-1].encode()}))


class ReverseSession(Session):
    """The session of a client of the tutorial's service."""

    def __init__(self) -> None:
        super().__init__(ClientConnection(), refuse, Serving(refuse, refuse))

    def start(self, name: str, params: dict[str, Any]) -> int:
        return self.begin(self.prepare(MESSAGE_STREAM, name, params))

    def receive(self, data: bytes) -> list[Outcome]:
        return list(self.receive_data(data, refuse, refuse, refuse))


def refuse(*_: object) -> Any:
    raise AssertionError("no capability is expected here")


class Pair:
    """A session and the server that it talks to."""

    def __init__(self) -> None:
        self.session = ReverseSession()
        self.server = ServerConnection()
        self.calls: list[Called] = []
        self.cancelled: list[int] = []

    def deliver(self) -> None:
        """Bring the server what the session has to send."""
        for event in self.server.receive_data(self.session.wire.data_to_send()):
            if isinstance(event, Called):
                self.calls.append(event)
            elif isinstance(event, Cancelled):
                self.cancelled.append(event.question_id)

    def answer(self, answer: Answer = reverse) -> list[Outcome]:
        """Answer the calls that the server has; return what the session makes of it."""
        self.deliver()
        for call in self.calls:
            answer(self.server, call)
        self.calls.clear()
        return self.session.receive(self.server.data_to_send())


def test_a_call_ends_in_a_view_of_its_results() -> None:
    pair = Pair()
    question_id = pair.session.start("read", params("Hello"))
    (outcome,) = pair.answer()
    assert (outcome.question_id, outcome.error) == (question_id, None)
    assert bytes(outcome.results.chunk) == b"olleH"
    assert pair.session.error is None


def test_answers_find_their_calls_in_any_order() -> None:
    pair = Pair()
    texts = {pair.session.start("read", params(text)): text for text in ("one", "two", "three")}
    pair.deliver()
    pair.calls.reverse()
    outcomes = pair.answer()
    assert [outcome.question_id for outcome in outcomes] == list(reversed(texts))
    for outcome in outcomes:
        assert bytes(outcome.results.chunk).decode() == texts[outcome.question_id][::-1]


def test_an_answer_may_come_byte_by_byte() -> None:
    pair = Pair()
    pair.session.start("read", params("Hello"))
    pair.deliver()
    reverse(pair.server, pair.calls.pop())
    data = pair.server.data_to_send()
    outcomes = [
        bytes(outcome.results.chunk)
        for at in range(len(data))
        for outcome in pair.session.receive(data[at : at + 1])
    ]
    assert outcomes == [b"olleH"]


def test_an_unknown_method_is_named_and_nothing_is_sent() -> None:
    session = ReverseSession()
    session.wire.data_to_send()
    with pytest.raises(AttributeError, match="MessageStream has no method 'write'"):
        session.start("write", {})
    assert session.wire.data_to_send() == b""


def too_large() -> dict[str, Any]:
    return params("x" * 4_194_304)


@pytest.mark.parametrize("wrong", [params(3), {"nothing": 1}, too_large()])
def test_params_that_do_not_fit_leave_the_session_as_it_was(wrong: dict[str, Any]) -> None:
    pair = Pair()
    with pytest.raises(EncodeError):
        pair.session.start("read", wrong)
    assert pair.session.error is None
    pair.session.start("read", params("Hello"))
    (outcome,) = pair.answer()
    assert bytes(outcome.results.chunk) == b"olleH"


def test_a_prepared_call_is_sent_when_it_begins() -> None:
    session = ReverseSession()
    session.wire.data_to_send()
    prepared = session.prepare(MESSAGE_STREAM, "read", PARAMS)
    assert session.wire.data_to_send() == b""
    session.begin(prepared)
    assert session.wire.data_to_send() != b""
    session.lose(Disconnected("gone"))
    with pytest.raises(Disconnected, match="gone"):
        session.begin(prepared)


@pytest.mark.parametrize(
    ("type_", "kind"), [(ExceptionType.FAILED, RemoteError), (ExceptionType.OVERLOADED, Overloaded)]
)
def test_an_exception_ends_its_call_alone(type_: ExceptionType, kind: type[RemoteError]) -> None:
    pair = Pair()
    pair.session.start("read", PARAMS)

    def fail(server: ServerConnection, call: Called) -> None:
        server.send_exception(call.question_id, WireRemoteError("no", type_))

    (outcome,) = pair.answer(fail)
    assert (type(outcome.error), str(outcome.error)) == (kind, "no")
    assert outcome.results is None
    pair.session.start("read", params("Hello"))
    (outcome,) = pair.answer()
    assert outcome.error is None


def test_results_that_cannot_be_read_end_their_call_alone() -> None:
    pair = Pair()
    pair.session.start("read", PARAMS)

    def cut_short(server: ServerConnection, call: Called) -> None:
        # A struct of one data word that is not there.
        server.send_results(call.question_id, EncodedStruct(1, [], 0))

    (outcome,) = pair.answer(cut_short)
    assert isinstance(outcome.error, ProtocolError)
    assert pair.session.error is None


def test_a_cancelled_call_has_no_outcome() -> None:
    pair = Pair()
    first, second = (pair.session.start("read", params(text)) for text in ("one", "two"))
    pair.deliver()
    pair.session.cancel(first)
    pair.session.cancel(first)
    outcomes = pair.answer()
    assert pair.cancelled == [first]
    assert [outcome.question_id for outcome in outcomes] == [second]


def test_the_first_reason_of_an_end_stays() -> None:
    session = ReverseSession()
    assert (session.error, session.has_ended) == (None, False)
    session.lose(Disconnected("first"))
    session.lose(Disconnected("second"))
    session.receive_eof()
    assert (str(session.error), session.has_ended) == ("first", True)


def ended(*received: bytes, eof: bool = False) -> ClientError:
    session = ReverseSession()
    session.start("read", PARAMS)
    for data in received:
        session.receive(data)
    if eof:
        session.receive_eof()
    error = session.error
    assert error is not None
    return error


def bootstrap_answer() -> bytes:
    server = ServerConnection()
    server.receive_data(encode_bootstrap(0))
    return server.data_to_send()


TOO_LARGE = bytes.fromhex("00000000 00000800") + bytes(4088)
SAID_TOO_LARGE = "message is too large: 4194312 bytes, the limit is 4194304"
SAID_NO_FRAME = "message has 4294967296 segments, the limit is 511"


@pytest.mark.parametrize(
    ("received", "kind", "text"),
    [
        # Before it has given us anything to call, no call can have run.
        ([FULL], Overloaded, "full"),
        ([bootstrap_answer(), FULL], Disconnected, "the server ended the connection: full"),
        ([bootstrap_answer() + FULL], Disconnected, "the server ended the connection: full"),
        (
            [encode_abort(WireRemoteError("no"))],
            Disconnected,
            "the server ended the connection: no",
        ),
        ([b"HTTP/1.1 400 Bad"], ProtocolError, "not a Cap'n Proto server: it speaks HTTP"),
        ([b"HTTP"], ProtocolError, "not a Cap'n Proto server: it speaks HTTP"),
        (
            [bytes.fromhex("000006 04 00 00000000")],
            ProtocolError,
            "not a Cap'n Proto server: it speaks HTTP",
        ),
        (
            [bytes.fromhex("15 0303 0002 0228")],
            ProtocolError,
            "not a Cap'n Proto server: it speaks TLS",
        ),
        (
            [b"\xff" * 8],
            ProtocolError,
            f"not a Cap'n Proto server, or a broken one: {SAID_NO_FRAME}",
        ),
        (
            [TOO_LARGE],
            ProtocolError,
            f"not a Cap'n Proto server, or a broken one: {SAID_TOO_LARGE}",
        ),
        (
            [bootstrap_answer() + TOO_LARGE],
            ProtocolError,
            f"a message of the server is over our own limit: {SAID_TOO_LARGE}",
        ),
        (
            [bootstrap_answer() + b"\xff" * 8],
            ProtocolError,
            f"the server broke the protocol: {SAID_NO_FRAME}",
        ),
        ([b"".join(encode_exception(0, WireRemoteError("none")))], RemoteError, "none"),
    ],
)
def test_the_end_is_called_what_it_is(
    received: list[bytes], kind: type[ClientError], text: str
) -> None:
    error = ended(*received)
    assert (type(error), str(error)) == (kind, text)


def test_an_end_of_the_stream_inside_a_message_is_no_clean_one() -> None:
    assert type(ended(eof=True)) is Disconnected
    error = ended(bootstrap_answer()[:-1], eof=True)
    assert type(error) is Disconnected
    assert "the server closed the connection within a message" in str(error)


def test_each_caller_gets_an_exception_of_its_own() -> None:
    session = ReverseSession()
    session.receive(FULL)
    raised = []
    for _ in range(10_000):
        try:
            session.start("read", PARAMS)
        except Overloaded as error:
            raised.append(error)
    assert len({id(error) for error in raised}) == 10_000
    for error in raised:
        trace = error.__traceback__
        assert trace is not None
        assert trace.tb_next is not None
        assert trace.tb_next.tb_next is not None
        assert trace.tb_next.tb_next.tb_next is None
        assert (str(error), error.type) == ("full", ExceptionType.OVERLOADED)


def test_no_tables_are_kept_after_the_end() -> None:
    session = ReverseSession()
    question_id = session.start("read", PARAMS)
    session.lose(Disconnected("gone"))
    session.wire.data_to_send()
    session.cancel(question_id)
    assert session._methods == {}
    assert session.wire.data_to_send() == b""
    # What still comes is nobody's.
    server = ServerConnection()
    server.receive_data(encode_bootstrap(0))
    assert session.receive(server.data_to_send()) == []
