"""The rules of Level 0, one connection half against literal frames or the other half."""

from collections.abc import Callable

import pytest

from capnp_rig.schema import load_rpc, message
from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT, EncodedStruct
from capnp_rig.wire.encoding.frames import FrameDecoder, FrameLimits
from capnp_rig.wire.encoding.pointers import Buffer
from capnp_rig.wire.errors import EncodeError, LocalProtocolError, RemoteProtocolError
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.connection import (
    Answered,
    Answers,
    BootstrapFailed,
    Called,
    Cancelled,
    Ended,
    Failed,
    Limits,
)
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.message_encoder import (
    encode_abort,
    encode_bootstrap,
    encode_bootstrap_results,
    encode_call,
    encode_canceled,
    encode_exception,
    encode_finish,
    encode_results,
)
from capnp_rig.wire.rpc.messages import (
    Abort,
    Call,
    Canceled,
    CapKind,
    Descriptor,
    ExceptionType,
    Finish,
    ImportedCap,
    Incoming,
    PromisedAnswer,
    RemoteError,
    Results,
    Return,
    Tag,
    Target,
    Unimplemented,
    decode,
)
from capnp_rig.wire.rpc.server_connection import ServerConnection

RPC = load_rpc()
READ = compile_interface(message.MessageStream).methods["read"]


def frame(parts: bytes | list[Buffer]) -> bytes:
    return parts if isinstance(parts, bytes) else b"".join(parts)


def call(question_id: int, target: Target = ImportedCap(0)) -> bytes:  # noqa: B008 - frozen
    return frame(encode_call(question_id, target, 1, 2, EMPTY_STRUCT))


def encode_release(import_id: int, count: int) -> bytes:
    found = RPC.Message.new_message()
    release = found.init("release")
    release.id, release.referenceCount = import_id, count
    data: bytes = found.to_bytes()
    return data


def sent(connection: ClientConnection | ServerConnection) -> list[Incoming]:
    return [decode(found) for found in FrameDecoder().feed(connection.data_to_send())]


def connected_server(limits: Limits | None = None) -> ServerConnection:
    server = ServerConnection(limits)
    assert server.receive_data(encode_bootstrap(0)) == []
    server.data_to_send()
    return server


def connected_client() -> ClientConnection:
    client = ClientConnection()
    client.data_to_send()
    assert client.receive_data(encode_bootstrap_results(0, 5)) == []
    client.data_to_send()
    return client


def ended_with(connection: ServerConnection | ClientConnection, data: bytes) -> str:
    """Feed what ends the connection; return the reason that the peer is told."""
    (event,) = connection.receive_data(data)
    assert isinstance(event, Ended)
    assert isinstance(event.error, RemoteProtocolError)
    assert connection.ended
    (*_, abort) = sent(connection)
    assert isinstance(abort, Abort)
    assert abort.error.reason == str(event.error)
    assert connection.receive_data(call(99)) == []
    assert connection.receive_eof() == []
    return str(event.error)


# --- both halves -------------------------------------------------------------------------


def test_a_call_goes_there_and_back() -> None:
    client, server = ClientConnection(), ServerConnection()
    question_id = client.call(
        READ.interface_id, READ.method_id, READ.params.write({"request": {"content": "abc"}})
    )
    (called,) = server.receive_data(client.data_to_send())
    assert isinstance(called, Called)
    assert (called.interface_id, called.method_id) == (READ.interface_id, READ.method_id)
    text = READ.params.open(called.params).request.content
    server.send_results(called.question_id, READ.results.write({"chunk": text[::-1].encode()}))
    (answered,) = client.receive_data(server.data_to_send())
    assert isinstance(answered, Answered)
    assert answered.question_id == question_id
    assert READ.results.open(answered.content).chunk == b"cba"
    assert (client.calls_in_flight, server.calls_in_flight) == (0, 0)


def test_the_end_of_the_stream_between_messages_is_clean() -> None:
    for connection in (ClientConnection(), ServerConnection()):
        assert connection.receive_eof() == [Ended(None)]
        assert connection.receive_eof() == []


def test_the_end_of_the_stream_within_a_message_is_not() -> None:
    for connection in (ClientConnection(), ServerConnection()):
        assert connection.receive_data(encode_bootstrap(0)[:20]) == []
        (event,) = connection.receive_eof()
        assert isinstance(event, Ended)
        assert str(event.error) == "the peer closed within a message"


def test_an_abort_ends_both_halves() -> None:
    error = RemoteError("enough", ExceptionType.OVERLOADED)
    for connection in (ClientConnection(), ServerConnection()):
        assert connection.receive_data(encode_abort(error) + call(1)) == [Ended(error)]
        assert connection.ended


def test_bytes_that_are_no_message_end_both_halves() -> None:
    for data, reason in (
        (b"GET / HTTP/1.1\r\n\r\n", "message has 542393672 segments, the limit is 511"),
        (bytes(8), "message has no root pointer"),
        (bytes.fromhex("00000000 01000000 ffffffff ffffffff"), "pointer of another kind"),
    ):
        assert reason in ended_with(ServerConnection(), data)
        assert reason in ended_with(ClientConnection(), data)


@pytest.mark.parametrize("name", ["provide", "accept", "join"])
def test_what_level_1_does_not_know_is_echoed(name: str) -> None:
    unknown = RPC.Message.new_message()
    unknown.init(name)
    data = unknown.to_bytes()
    for connection in (connected_server(), connected_client()):
        assert connection.receive_data(data) == []
        (echo,) = sent(connection)
        assert isinstance(echo, Unimplemented)
        assert echo.tag == Tag[name.upper()]
        assert not connection.ended


def test_an_echo_of_several_segments_is_left_out() -> None:
    unknown = RPC.Message.new_message()
    join = unknown.init("join")
    join.keyPart = RPC.Exception.new_message(reason="x" * 20_000)
    data = unknown.to_bytes()
    assert data[0] > 0
    server = connected_server()
    assert server.receive_data(data) == []
    assert sent(server) == []
    assert not server.ended


# --- the client --------------------------------------------------------------------------


def test_calls_go_to_the_promise_and_then_to_the_capability() -> None:
    client = ClientConnection()
    client.call(1, 2, EMPTY_STRUCT)
    first = sent(client)
    assert isinstance(first[1], Call)
    assert first[1].target == PromisedAnswer(0)
    client.receive_data(encode_bootstrap_results(0, 5))
    client.call(1, 2, EMPTY_STRUCT)
    finish, second = sent(client)
    assert finish == Finish(0, release_result_caps=False)
    assert isinstance(second, Call)
    assert second.target == ImportedCap(5)


def test_an_answer_is_finished_only_when_the_peer_needs_it() -> None:
    for needs_finish in (True, False):
        client = connected_client()
        question_id = client.call(1, 2, EMPTY_STRUCT)
        client.data_to_send()
        answer = bytearray(frame(encode_results(question_id, EMPTY_STRUCT)))
        # noFinishNeeded is bit 1 of byte 4 of Return's data.
        answer[36] = 0 if needs_finish else 2
        client.receive_data(bytes(answer))
        assert sent(client) == ([Finish(question_id)] if needs_finish else [])


def test_a_question_id_is_free_again_after_its_answer() -> None:
    client = connected_client()
    first = client.call(1, 2, EMPTY_STRUCT)
    assert client.call(1, 2, EMPTY_STRUCT) != first
    client.receive_data(frame(encode_results(first, EMPTY_STRUCT)))
    assert client.call(1, 2, EMPTY_STRUCT) == first


def test_a_cancelled_call_gets_no_event_and_keeps_its_id_until_answered() -> None:
    client = connected_client()
    first = client.call(1, 2, EMPTY_STRUCT)
    client.data_to_send()
    client.cancel(first)
    client.cancel(first)
    assert sent(client) == [Finish(first)]
    assert client.calls_in_flight == 0
    assert client.call(1, 2, EMPTY_STRUCT) != first
    assert client.receive_data(encode_canceled(first)) == []
    assert client.call(1, 2, EMPTY_STRUCT) == first


def test_f4_a_late_answer_to_a_cancelled_call_is_dropped() -> None:
    client = connected_client()
    first = client.call(1, 2, EMPTY_STRUCT)
    client.cancel(first)
    assert client.receive_data(frame(encode_results(first, EMPTY_STRUCT))) == []
    assert not client.ended


def test_a_call_fails_with_the_error_of_the_peer() -> None:
    client = connected_client()
    first, second = client.call(1, 2, EMPTY_STRUCT), client.call(1, 2, EMPTY_STRUCT)
    error = RemoteError("no", ExceptionType.UNIMPLEMENTED)
    data = frame(encode_exception(first, error)) + encode_canceled(second)
    assert client.receive_data(data) == [
        Failed(first, error),
        Failed(second, RemoteError("the call was cancelled by the server")),
    ]


def test_a_bootstrap_that_fails_stops_further_calls() -> None:
    error = RemoteError("not for you")
    for data, reason in (
        (frame(encode_exception(0, error)), "not for you"),
        (frame(encode_results(0, EMPTY_STRUCT)), "the answer holds no capability"),
        (encode_canceled(0), "the bootstrap was cancelled by the server"),
    ):
        client = ClientConnection()
        assert client.receive_data(data) == [BootstrapFailed(RemoteError(reason))]
        with pytest.raises(LocalProtocolError, match=reason):
            client.call(1, 2, EMPTY_STRUCT)


def test_an_unimplemented_question_fails() -> None:
    client = ClientConnection()
    question_id = client.call(1, 2, EMPTY_STRUCT)
    cancelled = client.call(1, 2, EMPTY_STRUCT)
    client.cancel(cancelled)
    server = ServerConnection()
    echoes = [unimplemented_call(question_id), unimplemented_call(cancelled)]
    error = RemoteError("the peer does not implement this", ExceptionType.UNIMPLEMENTED)
    assert client.receive_data(b"".join(echoes)) == [Failed(question_id, error)]
    bootstrap = RPC.Message.new_message()
    bootstrap.init("unimplemented").init("bootstrap").questionId = 0
    assert client.receive_data(bootstrap.to_bytes()) == [BootstrapFailed(error)]
    assert not server.ended


def unimplemented_call(question_id: int) -> bytes:
    echo = RPC.Message.new_message()
    echo.init("unimplemented").init("call").questionId = question_id
    data: bytes = echo.to_bytes()
    return data


def test_a_client_has_no_bootstrap_interface() -> None:
    client = connected_client()
    assert client.receive_data(encode_bootstrap(3)) == []
    assert sent(client) == [
        Return(3, RemoteError("a client has no bootstrap interface"), no_finish_needed=True)
    ]
    assert client.receive_data(encode_finish(3)) == []


def test_what_no_server_may_send_ends_the_client() -> None:
    for data, reason in (
        (call(1), "message target 0 is not a current export"),
        (encode_release(1, 1), "release of export 1, 1 times, is too much"),
        (encode_canceled(9), "return for question 9, which was not asked"),
    ):
        assert ended_with(connected_client(), data) == reason


def test_an_ended_client_takes_no_call() -> None:
    client = ClientConnection()
    client.receive_eof()
    with pytest.raises(LocalProtocolError, match="has ended"):
        client.call(1, 2, EMPTY_STRUCT)
    client.cancel(0)


def test_a_call_over_the_limit_is_refused_and_the_connection_unhurt() -> None:
    client = ClientConnection(Limits(frame=FrameLimits(max_words=20)))
    client.data_to_send()
    with pytest.raises(EncodeError, match="too large: 168 bytes, the limit is 160"):
        client.call(1, 2, EncodedStruct(5, [bytes(40)], 5))
    assert client.data_to_send() == b""
    assert client.call(1, 2, EMPTY_STRUCT) == 1


# --- the server --------------------------------------------------------------------------


def test_a_server_answers_bootstrap_with_its_capability() -> None:
    server = ServerConnection()
    server.receive_data(encode_bootstrap(8))
    (answer,) = sent(server)
    assert isinstance(answer, Return)
    assert isinstance(answer.outcome, Results)
    assert answer.outcome.cap_table == (Descriptor(CapKind.SENDER_HOSTED, 0),)
    assert not answer.no_finish_needed


@pytest.mark.parametrize("target", [ImportedCap(0), PromisedAnswer(0)])
def test_calls_reach_the_capability_and_its_promise(target: Target) -> None:
    server = connected_server()
    (called,) = server.receive_data(call(1, target))
    assert isinstance(called, Called)
    assert (called.question_id, called.interface_id, called.method_id) == (1, 1, 2)
    server.send_results(1, EMPTY_STRUCT)
    (answer,) = sent(server)
    assert isinstance(answer, Return)
    assert (answer.answer_id, answer.no_finish_needed) == (1, True)


def test_a_finish_cancels_and_the_slot_is_kept_until_the_handler_ends() -> None:
    server = connected_server()
    server.receive_data(call(1))
    assert server.receive_data(encode_finish(1)) == [Cancelled(1)]
    assert server.calls_in_flight == 1
    # Finishing once more changes nothing.
    assert server.receive_data(encode_finish(1)) == []
    server.send_results(1, EMPTY_STRUCT)
    assert server.calls_in_flight == 0
    assert sent(server) == [Return(1, Canceled(), no_finish_needed=True)]


def test_a_finish_after_the_answer_is_welcome() -> None:
    server = connected_server()
    server.receive_data(call(1))
    server.send_exception(1, RemoteError("x"))
    assert server.receive_data(encode_finish(1) + encode_finish(77)) == []
    assert len(server.receive_data(call(1))) == 1


def test_an_answer_nobody_waits_for_is_our_mistake() -> None:
    server = connected_server()
    with pytest.raises(LocalProtocolError, match="no call 5 is waiting"):
        server.send_results(5, EMPTY_STRUCT)
    with pytest.raises(LocalProtocolError, match="no call 0 is waiting"):
        server.send_exception(0, RemoteError("the bootstrap is no call"))


def test_an_answer_after_the_end_is_dropped() -> None:
    server = connected_server()
    server.receive_data(call(1))
    server.receive_eof()
    server.send_results(1, EMPTY_STRUCT)
    assert server.data_to_send() == b""


def test_results_over_the_limit_can_be_replaced_by_an_exception() -> None:
    server = connected_server(Limits(frame=FrameLimits(max_words=16)))
    server.receive_data(call(1))
    with pytest.raises(EncodeError, match="too large"):
        server.send_results(1, EncodedStruct(99, [bytes(792)], 99))
    server.send_exception(1, RemoteError("answer too large"))
    (answer,) = sent(server)
    assert isinstance(answer, Return)
    assert answer.outcome == RemoteError("answer too large")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (call(1, ImportedCap(1)), "message target 1 is not a current export"),
        (encode_bootstrap(0), "question 0 is already in use"),
        (call(0), "question 0 is already in use"),
        (encode_canceled(4), "return for question 4, which was not asked"),
        (encode_release(1, 1), "release of export 1, 1 times, is too much"),
        (encode_release(0, 2), "release of export 0, 2 times, is too much"),
    ],
)
def test_what_no_client_may_send_ends_the_server(data: bytes, reason: str) -> None:
    assert ended_with(connected_server(), data) == reason


def test_a_call_before_any_bootstrap_ends_the_server() -> None:
    assert "not a current export" in ended_with(ServerConnection(), call(1))


def test_the_capability_is_gone_when_its_last_reference_is() -> None:
    server = connected_server()
    server.receive_data(encode_finish(0))
    assert "not a current export" in ended_with(server, call(1))
    server = connected_server()
    server.receive_data(encode_finish(0, release_result_caps=False))
    assert len(server.receive_data(call(1))) == 1
    server.receive_data(encode_release(0, 1))
    assert "not a current export" in ended_with(server, call(2))


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ("senderLoopback", "disembargo of a capability that is not the sender's"),
        ("receiverLoopback", "disembargo 7 was never sent"),
    ],
)
def test_a_bogus_disembargo_ends_the_server(context: str, reason: str) -> None:
    data = RPC.Message.new_message()
    setattr(data.init("disembargo").context, context, 7)
    assert ended_with(connected_server(), data.to_bytes()) == reason


def test_a_level_3_disembargo_is_echoed() -> None:
    data = RPC.Message.new_message()
    data.init("disembargo").context.accept = None
    server = connected_server()
    assert server.receive_data(data.to_bytes()) == []
    assert sent(server) == [Unimplemented(Tag.DISEMBARGO, None)]


def test_an_unimplemented_message_ends_the_server() -> None:
    echo = RPC.Message.new_message()
    echo.init("unimplemented").init("return")
    for data in (echo.to_bytes(), unimplemented_call(3)):
        reason = ended_with(connected_server(), data)
        assert reason == "the peer does not implement a message it needs"


def test_results_for_others_are_not_implemented() -> None:
    data = RPC.Message.new_message()
    data.init("call").questionId = 6
    data.call.sendResultsTo.thirdParty = RPC.Bootstrap.new_message()
    server = connected_server()
    assert server.receive_data(data.to_bytes()) == []
    assert sent(server) == [Unimplemented(Tag.CALL, 6)]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (PromisedAnswer(77), "pipelined call on an answer that holds no capability"),
        (PromisedAnswer(0, (1,)), "pipelined call on a field of a capability, which has none"),
    ],
)
def test_a_pipelined_call_on_nothing_fails_alone(target: PromisedAnswer, reason: str) -> None:
    data = RPC.Message.new_message()
    pipelined = data.init("call")
    pipelined.questionId = 6
    answer = pipelined.target.init("promisedAnswer")
    answer.questionId = target.question_id
    for operation, index in zip(
        answer.init("transform", len(target.path)), target.path, strict=True
    ):
        operation.getPointerField = index
    server = connected_server()
    assert server.receive_data(data.to_bytes()) == []
    assert sent(server) == [Return(6, RemoteError(reason), no_finish_needed=True)]


def test_calls_over_the_limit_are_refused_at_once() -> None:
    server = connected_server(Limits(max_calls_in_flight=2))
    assert len(server.receive_data(call(1) + call(2) + call(3))) == 2
    (answer,) = sent(server)
    assert isinstance(answer, Return)
    assert answer.answer_id == 3
    assert answer.outcome == RemoteError(
        "more than 2 calls in flight on this connection", ExceptionType.OVERLOADED
    )
    server.send_results(1, EMPTY_STRUCT)
    assert len(server.receive_data(call(3))) == 1


def test_bootstraps_without_finish_are_bounded() -> None:
    server = ServerConnection(Limits(max_answers=3))
    for question_id in range(3):
        assert server.receive_data(encode_bootstrap(question_id)) == []
    server.data_to_send()
    assert "more than 3 answers" in ended_with(server, encode_bootstrap(3))


def far_call(question_id: int) -> bytes:
    """Return a call in two segments, which is not its plain case."""
    one = call(question_id)
    words = len(one) // 8 - 1
    return (
        bytes.fromhex("01000000 01000000")
        + words.to_bytes(4, "little")
        + bytes(4)
        + bytes.fromhex("02000000 01000000")
        + one[8:]
    )


@pytest.mark.parametrize("frame_of", [call, far_call], ids=["plain", "far"])
def test_an_inline_method_is_answered_on_the_spot(frame_of: Callable[[int], bytes]) -> None:
    server = connected_server()
    inline = {(1, 2): lambda _: EncodedStruct(1, [bytes(8)], 1)}
    assert list(server.events(frame_of(1) + frame_of(2) + frame_of(1), inline)) == []
    answers = sent(server)
    assert [answer.answer_id for answer in answers if isinstance(answer, Return)] == [1, 2, 1]
    assert server.calls_in_flight == 0


@pytest.mark.parametrize("frame_of", [call, far_call], ids=["plain", "far"])
def test_an_inline_method_may_fail_or_say_too_much(frame_of: Callable[[int], bytes]) -> None:
    for outcome, reason in (
        (RemoteError("no"), "no"),
        (EncodedStruct(99, [bytes(792)], 99), "message is too large: 864 bytes, the limit is 160"),
    ):
        server = connected_server(Limits(frame=FrameLimits(max_words=20)))
        assert list(server.events(frame_of(1), {(1, 2): lambda _, found=outcome: found})) == []
        (answer,) = sent(server)
        assert isinstance(answer, Return)
        assert answer.outcome == RemoteError(reason)


def test_an_inline_call_obeys_the_rules_of_all_calls() -> None:
    inline = {(1, 2): lambda _: EMPTY_STRUCT}
    server = ServerConnection()
    (event,) = server.events(call(1), inline)
    assert isinstance(event, Ended)
    server = connected_server()
    (event,) = server.events(call(0), inline)
    assert isinstance(event, Ended)
    assert "already in use" in str(event.error)


def test_a_batch_stops_where_its_answers_pile_up_and_goes_on_later() -> None:
    body = EncodedStruct(4, [bytes(32)], 4)
    for limits in (Limits(inline_calls=3), Limits(inline_words=30)):
        server = connected_server(limits)
        events = server.events(b"".join(map(call, range(1, 9))), {(1, 2): lambda _: body})
        assert isinstance(next(events), Answers)
        events.close()
        assert len(sent(server)) == 3
        assert len(list(server.events(b"", {(1, 2): lambda _: body}))) == 1
        assert len(sent(server)) == 5


def test_events_before_a_mistake_are_not_lost() -> None:
    server = connected_server()
    called, ended = server.receive_data(call(1) + encode_canceled(4))
    assert isinstance(called, Called)
    assert isinstance(ended, Ended)
