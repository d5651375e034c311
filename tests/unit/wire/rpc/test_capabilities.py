"""Capabilities come, go and are counted, on literal messages as pycapnp writes and reads them."""

import gc
from typing import Any

import pytest
from level_1_frames import (
    call,
    disembargo,
    exception,
    message,
    resolve,
    results,
    sent,
)

from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT, EncodedTuple
from capnp_rig.wire.errors import (
    Disconnected,
    LocalProtocolError,
    RemoteProtocolError,
    TableFull,
    UnusableCapability,
)
from capnp_rig.wire.rpc.capabilities import Capability
from capnp_rig.wire.rpc.connection import (
    Answered,
    Answers,
    Called,
    Cancelled,
    Connection,
    Ended,
    Event,
    Failed,
    Limits,
    Released,
)
from capnp_rig.wire.rpc.inline_methods import ResultsWith
from capnp_rig.wire.rpc.messages import ExceptionType, RemoteError

METHOD = 0x1234, 5


def pointers(count: int) -> EncodedTuple:
    """Return a struct whose pointers are so many capabilities."""
    words = b"".join((3 | index << 32).to_bytes(8, "little") for index in range(count))
    return count << 16, [words], count


def only(events: list[Event], kind: type) -> Any:
    (event,) = events
    assert type(event) is kind, event
    return event


def capabilities(event: Called | Answered) -> tuple[Capability | None, ...]:
    content = event.params if isinstance(event, Called) else event.content
    assert content is not None
    found: tuple[Capability | None, ...] = content[0].capabilities
    return found


def capability(event: Called | Answered) -> Capability:
    (found,) = capabilities(event)
    assert found is not None
    return found


def serving(limits: Limits | None = None) -> Connection:
    """Return a connection whose bootstrap object the peer has, as its import 0."""
    connection = Connection(limits, "main")
    connection.receive_data(message("bootstrap", questionId=0))
    connection.receive_data(message("finish", questionId=0, releaseResultCaps=False))
    connection.data_to_send()
    return connection


def calling(limits: Limits | None = None) -> tuple[Connection, Capability]:
    """Return a connection and the peer's bootstrap object, which is its export 7."""
    connection = Connection(limits)
    main = connection.bootstrap()
    connection.receive_data(results(0, [("senderHosted", 7)]))
    assert sent(connection) == ["bootstrap 0", "finish 0 keeping"]
    return connection, main


def called(connection: Connection, frame: bytes) -> Called:
    found: Called = only(connection.receive_data(frame), Called)
    return found


# --- what the peer is given ---------------------------------------------------------------


def test_an_object_in_results_is_hosted_until_its_last_reference_is_gone() -> None:
    connection = serving()
    for question_id in (1, 2):
        called(connection, call(question_id, export=0))
        connection.send_results(question_id, pointers(1), ["session"])
    # The same object, so the same export.
    assert sent(connection) == [
        "return 1 results senderHosted:1, finish",
        "return 2 results senderHosted:1, finish",
    ]
    for question_id in (1, 2):
        finish = message("finish", questionId=question_id, releaseResultCaps=False)
        assert connection.receive_data(finish) == []
    assert called(connection, call(3, export=1)).target == "session"
    connection.send_results(3, EMPTY_STRUCT)
    assert connection.receive_data(message("release", id=1, referenceCount=1)) == []
    released = connection.receive_data(message("release", id=1, referenceCount=1))
    assert released == [Released("session")]
    # The id is free again.
    called(connection, call(4, export=0))
    connection.send_results(4, pointers(2), ["other", None])
    assert sent(connection)[1:] == ["return 4 results senderHosted:1 none, finish"]


def test_a_finish_gives_the_capabilities_of_the_results_back() -> None:
    connection = serving()
    called(connection, call(1, export=0))
    connection.send_results(1, pointers(2), ["one", "two"])
    released = connection.receive_data(message("finish", questionId=1, releaseResultCaps=True))
    assert sorted(event.target for event in released if isinstance(event, Released)) == [
        "one",
        "two",
    ]


def test_a_capability_in_params_is_released_by_its_return_or_its_peer() -> None:
    for releases in (True, False):
        connection, main = calling()
        question_id = connection.call(main, *METHOD, pointers(1), ["callback"])
        assert sent(connection) == ["call 0 of export 7 senderHosted:0"]
        events = connection.receive_data(results(question_id, releases=releases, no_finish=True))
        answered, *released = sorted(events, key=lambda event: type(event).__name__)
        assert isinstance(answered, Answered)
        assert released == ([Released("callback")] if releases else [])
        if not releases:
            assert called(connection, call(9, export=0)).target == "callback"


def test_a_callback_is_called_while_its_call_runs() -> None:
    connection, main = calling()
    connection.call(main, *METHOD, pointers(1), ["callback"])
    event = called(connection, call(0, export=0))
    assert (event.target, event.interface_id) == ("callback", event.interface_id)
    connection.send_exception(event.question_id, RemoteError("no"))
    assert sent(connection)[1:] == ["return 0 exception: no"]


def test_one_that_came_from_the_peer_goes_back_as_its_own() -> None:
    connection, main = calling()
    connection.call(main, *METHOD, pointers(1), [main])
    connection.call(main, *METHOD, pointers(1), [connection.pipeline(0, (2, 3))])
    assert sent(connection) == [
        "call 0 of export 7 receiverHosted:7",
        "call 1 of export 7 receiverAnswer:answer 0.2.3",
    ]


def test_a_broken_capability_is_a_promise_that_is_broken_at_once() -> None:
    connection = serving()
    promise = connection.promise()
    promise.reject(RemoteError("never"))
    assert promise.error == RemoteError("never")
    called(connection, call(1, export=0))
    connection.send_results(1, pointers(1), [promise])
    assert sent(connection) == ["return 1 results senderPromise:1, finish", "resolve 1: never"]
    connection.receive_data(call(2, export=1))
    assert sent(connection) == ["return 2 exception: never"]


# --- what the peer gives ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["senderHosted", "senderPromise", "thirdPartyHosted"])
def test_an_import_is_released_once_for_all_its_references(kind: str) -> None:
    connection = serving()
    found = []
    for question_id in (1, 2):
        event = called(connection, call(question_id, export=0, table=[(kind, 5)]))
        found.append(capability(event))
        connection.send_results(question_id, EMPTY_STRUCT)
    # Not all of these are to be taken back with the Return.
    assert sent(connection) == [
        "return 1 results keeping params",
        "return 2 results keeping params",
    ]
    found[0].release()
    assert sent(connection) == []
    connection.call(found[1], *METHOD, EMPTY_STRUCT)
    found[1].release()
    assert sent(connection) == ["call 0 of export 5", "release 5, 2 times"]
    with pytest.raises(UnusableCapability, match="released before"):
        found[1].release()
    with pytest.raises(UnusableCapability, match="released before"):
        connection.call(found[1], *METHOD, EMPTY_STRUCT)


def test_d11_one_that_nobody_takes_is_released_with_the_next_bytes() -> None:
    connection = serving()
    event = called(connection, call(1, export=0, table=[("senderHosted", 5), ("none",)]))
    assert capabilities(event)[1] is None
    connection.send_results(1, EMPTY_STRUCT)
    del event
    gc.collect()
    assert sent(connection) == ["return 1 results keeping params", "release 5, 1 times"]


def test_an_object_of_ours_comes_back_as_itself() -> None:
    connection = serving()
    event = called(connection, call(1, export=0, table=[("receiverHosted", 0)]))
    assert capability(event).hosted == "main"
    connection.send_results(1, EMPTY_STRUCT)
    # Nothing of the peer was given, so it has nothing to take back.
    assert sent(connection) == ["return 1 results"]


@pytest.mark.parametrize(
    ("descriptor", "reason"),
    [
        (("receiverHosted", 9), "capability 9 is not a current export"),
        (("receiverAnswer", 9), "pipelined call on an answer that holds no capability"),
    ],
)
def test_one_that_does_not_exist_is_broken(descriptor: tuple[Any, ...], reason: str) -> None:
    connection = serving()
    event = called(connection, call(1, export=0, table=[descriptor]))
    assert capability(event).error == RemoteError(reason)
    question_id = connection.call(capability(event), *METHOD, EMPTY_STRUCT)
    assert connection.has_events
    assert connection.receive_data(b"") == [Failed(question_id, RemoteError(reason))]


def test_results_of_a_call_that_was_given_up_are_the_peers_again() -> None:
    connection, main = calling()
    question_id = connection.call(main, *METHOD, EMPTY_STRUCT)
    connection.cancel(question_id)
    assert connection.receive_data(results(question_id, [("senderHosted", 3)])) == []
    assert sent(connection) == ["call 0 of export 7", "finish 0"]
    assert connection._imports.keys() == {7}


def test_a_call_of_an_object_of_ours_stays_here() -> None:
    connection = serving()
    event = called(connection, call(1, export=0, table=[("receiverHosted", 0)]))
    connection.data_to_send()
    question_id = connection.call(capability(event), *METHOD, pointers(1), ["argument"])
    assert connection.has_events
    inner = only(connection.receive_data(b""), Called)
    assert inner.target == "main"
    assert inner.question_id < 0
    assert capability(inner).hosted == "argument"
    connection.send_results(inner.question_id, (1, [bytes(8)], 1))
    answered = only(connection.receive_data(b""), Answered)
    assert answered.question_id == question_id
    assert sent(connection) == []


def test_a_call_here_may_be_given_up() -> None:
    connection = serving()
    event = called(connection, call(1, export=0, table=[("receiverHosted", 0)]))
    question_id = connection.call(capability(event), *METHOD, EMPTY_STRUCT)
    inner = only(connection.receive_data(b""), Called)
    connection.cancel(question_id)
    assert connection.receive_data(b"") == [Cancelled(inner.question_id)]
    connection.send_exception(inner.question_id, RemoteError("cancelled"))
    assert connection.receive_data(b"") == []
    assert not connection._questions


def test_capabilities_belong_to_one_connection() -> None:
    connection, main = calling()
    other, _ = calling()
    with pytest.raises(UnusableCapability, match="another connection"):
        other.call(main, *METHOD, EMPTY_STRUCT)
    with pytest.raises(UnusableCapability, match="another connection"):
        other.call(other.bootstrap(), *METHOD, pointers(1), [main])
    with pytest.raises(LocalProtocolError, match="null capability"):
        connection.call(None, *METHOD, EMPTY_STRUCT)


# --- the end ------------------------------------------------------------------------------


def test_the_end_releases_what_is_hosted_and_breaks_what_is_imported() -> None:
    connection, main = calling()
    connection.call(main, *METHOD, pointers(1), ["callback"])
    ending = connection.receive_eof()
    assert ending == [Released("callback"), Ended(None)]
    with pytest.raises(Disconnected, match="has ended"):
        connection.call(main, *METHOD, EMPTY_STRUCT)
    with pytest.raises(Disconnected, match="has ended"):
        connection.bootstrap()
    connection.data_to_send()
    main.release()
    assert connection.data_to_send() == b""
    assert connection.receive_eof() == []


def test_what_was_hosted_is_released_after_an_abort() -> None:
    connection = serving()
    called(connection, call(1, export=0))
    connection.send_results(1, pointers(1), ["session"])
    released, ended = connection.receive_data(message("abort", reason="enough"))
    assert released == Released("session")
    assert isinstance(ended, Ended)
    connection = serving()
    called(connection, call(1, export=0))
    connection.send_results(1, pointers(1), ["session"])
    connection.abort("enough")
    assert connection.receive_data(b"") == [Released("session")]


def test_a_connection_that_is_dropped_is_freed_without_the_collector() -> None:
    connection = serving()
    event = called(connection, call(1, export=0, table=[("senderHosted", 5)]))
    promise = connection.promise()
    connection.send_results(1, pointers(2), ["session", promise])
    gc.collect()
    gc.disable()
    try:
        reference = connection.reference
        del connection
        assert reference() is None
    finally:
        gc.enable()
    # What is left leads nowhere.
    with pytest.raises(Disconnected):
        capability(event).copy()
    with pytest.raises(Disconnected):
        promise.resolve("late")
    capability(event).release()
    promise.release()


# --- limits -------------------------------------------------------------------------------


def test_exports_are_limited() -> None:
    connection = serving(Limits(max_exports=2))
    called(connection, call(1, export=0))
    with pytest.raises(TableFull, match="holds 2 capabilities of ours"):
        connection.send_results(1, pointers(2), ["one", "two"])
    connection.send_results(1, pointers(2), ["one", "one"])
    assert sent(connection) == ["return 1 results senderHosted:1 senderHosted:1, finish"]


def test_imports_are_limited() -> None:
    connection = serving(Limits(max_imports=2))
    table = [("senderHosted", number) for number in range(3)]
    ended = connection.receive_data(call(1, export=0, table=table))[-1]
    assert isinstance(ended, Ended)
    assert isinstance(ended.error, RemoteProtocolError)
    assert str(ended.error) == "more than 2 capabilities were sent and not released"
    assert sent(connection) == [f"abort: {ended.error}"]


def test_questions_are_limited() -> None:
    connection, main = calling(Limits(max_questions=2))
    connection.call(main, *METHOD, EMPTY_STRUCT)
    connection.call(main, *METHOD, pointers(1), ["x"])
    for table in ([], ["y"]):
        with pytest.raises(TableFull, match="2 calls wait for their answers"):
            connection.call(main, *METHOD, pointers(len(table)), table)


def test_calls_that_wait_are_limited_and_so_are_their_bytes() -> None:
    connection = serving(Limits(max_pipelined=2, max_waiting_bytes=4000))
    called(connection, call(1, export=0))
    for question_id in (2, 3, 4):
        assert connection.receive_data(call(question_id, promise=1, path=(0,))) == []
    assert sent(connection) == ["return 4 exception: more than 2 calls wait for one answer"]
    assert connection._waiting_bytes == 0
    called(connection, call(5, export=0))
    table = [("none",)] * 120
    assert connection.receive_data(call(6, promise=5, path=(0,), table=table)) == []
    assert 0 < connection._waiting_bytes < 4000
    connection.receive_data(call(7, promise=5, path=(0,), table=table))
    assert sent(connection) == ["return 7 exception: more than 4000 bytes wait for answers"]
    with pytest.raises(TableFull, match="more than 4000 bytes of results wait"):
        connection.send_results(
            5, (1 | 1 << 16, [bytes(8000), (3).to_bytes(8, "little")], 1001), ["x"]
        )


def test_parts_of_one_answer_are_limited() -> None:
    connection = serving(Limits(max_pipelined=2))
    called(connection, call(1, export=0))
    parts: list[tuple[Any, ...]] = [("receiverAnswer", 1, (index,)) for index in range(3)]
    event = called(connection, call(2, export=0, table=[*parts, ("receiverAnswer", 1, (0,) * 65)]))
    found = [each and each.error for each in capabilities(event)]
    assert found[:2] == [None, None]
    assert [each.reason for each in found[2:] if each] == [
        "more than 2 calls wait for one answer",
        "pipelined call on an answer that holds no capability",
    ]


def test_capabilities_of_one_message_are_limited() -> None:
    table = (1 | 7 << 32 | 40_000 << 35).to_bytes(8, "little")
    tag = (20_000 << 2 | 1 << 32 | 1 << 48).to_bytes(8, "little")
    words = (1 << 32 | 1 << 48, 3, 2 << 32 | 1 << 48, 0, 0, 2 << 48, 0)
    frame = b"".join(word.to_bytes(8, "little") for word in words) + table + tag + bytes(320_000)
    ended = only(
        serving().receive_data(bytes(4) + (len(frame) // 8).to_bytes(4, "little") + frame), Ended
    )
    assert str(ended.error) == "message has more than 16384 capabilities"


# --- methods that are answered on the spot -------------------------------------------------


def test_an_inline_method_may_return_capabilities_and_be_that_of_one() -> None:
    connection = serving()
    held = []

    def login(_: Any) -> ResultsWith:
        held.append(connection.host("session", {METHOD: lambda _: EMPTY_STRUCT}))
        return ResultsWith(pointers(1), [held[0]])

    frames = [
        call(1, export=0, interface_id=METHOD[0], method_id=METHOD[1]),
        call(2, promise=1, path=(0,), interface_id=METHOD[0], method_id=METHOD[1]),
        call(3, export=1, interface_id=METHOD[0], method_id=METHOD[1]),
        call(4, export=1, interface_id=METHOD[0], method_id=METHOD[1]),
    ]
    for _ in connection.events(b"".join(frames), {METHOD: login}):
        pass
    assert sent(connection) == [
        "return 1 results senderHosted:1, finish",
        *(f"return {number} results" for number in (2, 3, 4)),
    ]
    assert connection.inline_calls == 4
    held[0].release()
    finish = message("finish", questionId=1, releaseResultCaps=True)
    assert connection.receive_data(finish) == [Released("session")]


def test_a_batch_of_calls_that_were_not_plain_stops_too() -> None:
    method = {"interface_id": METHOD[0], "method_id": METHOD[1]}
    for limits, stops in ((Limits(inline_calls=3), 2), (Limits(inline_words=25), 2), (None, 0)):
        connection = serving(limits)
        frames = [call(number, export=0, table=[("none",)], **method) for number in range(1, 8)]
        inline = {METHOD: lambda _: (1, [bytes(8)], 1)}
        events = list(connection.events(b"".join(frames), inline))
        assert events == [Answers()] * stops
        assert len(sent(connection)) == 7


def test_what_is_not_handed_out_yet_outlives_its_data() -> None:
    connection, main = calling()
    question_id = connection.call(main, *METHOD, pointers(1), ["callback"])
    data = bytearray(results(question_id, [("senderHosted", 3)]))
    events = connection.events(memoryview(data))
    assert next(events) == Released("callback")
    # The owner stops here, and its buffer is filled anew.
    events.close()
    data[:] = bytes(len(data))
    answered: Answered = only(connection.receive_data(b""), Answered)
    assert answered.content is not None
    message_of, _, _, _, _, first, last, _ = answered.content
    assert bytes(message_of.buffer[first:last]) == (3).to_bytes(8, "little")
    assert capability(answered).is_settled


def test_an_inline_method_may_return_too_much() -> None:
    connection = serving(Limits(max_exports=1))
    events = list(
        connection.events(
            call(1, export=0, interface_id=METHOD[0], method_id=METHOD[1]),
            {METHOD: lambda _: ResultsWith(pointers(1), ["session"])},
        )
    )
    assert Released("session") in events
    assert sent(connection) == ["return 1 exception: the peer holds 1 capabilities of ours"]


# --- what a Level 0 peer echoes -------------------------------------------------------------


def test_an_unimplemented_resolve_gives_its_capability_back() -> None:
    connection = serving()
    promise = connection.promise()
    called(connection, call(1, export=0))
    connection.send_results(1, pointers(1), [promise])
    promise.resolve("late")
    assert sent(connection) == [
        "return 1 results senderPromise:1, finish",
        "resolve 1 senderHosted:2",
    ]
    promise.release()
    connection.receive_data(message("finish", questionId=1, releaseResultCaps=True))
    echo = resolve(1, ("senderHosted", 2))
    build = level_0_echo(echo)
    assert connection.receive_data(build) == [Released("late")]
    assert connection._exports.keys() == {0}


def level_0_echo(frame: bytes) -> bytes:
    """Return the echo of a message of one segment."""
    words = len(frame) // 8 - 1
    head = [(words + 2) << 32, 1 << 32 | 1 << 48, 0]
    return b"".join(word.to_bytes(8, "little") for word in head) + frame[8:]


def test_an_unimplemented_call_fails_and_gives_its_capabilities_back() -> None:
    connection, main = calling()
    question_id = connection.call(main, *METHOD, pointers(1), ["callback"])
    session = connection.pipeline(question_id, (0,))
    (frame,) = [connection.data_to_send()]
    failed, released = sorted(
        connection.receive_data(level_0_echo(frame)), key=lambda event: type(event).__name__
    )
    error = RemoteError("the peer does not implement this", ExceptionType.UNIMPLEMENTED)
    assert failed == Failed(question_id, error)
    assert released == Released("callback")
    assert session.error == error


def test_the_rest_of_what_no_peer_may_send() -> None:
    for frame, reason in (
        (exception(3, "x"), "return for question 3, which was not asked"),
        (disembargo("receiverLoopback", 4, export=0), "disembargo 4 was never sent"),
        (
            disembargo("senderLoopback", 4, export=0),
            "disembargo of a capability that is not the sender's",
        ),
        (disembargo("senderLoopback", 4, export=8), "message target 8 is not a current export"),
        (call(1, export=8), "message target 8 is not a current export"),
        (message("release", id=0, referenceCount=2), "release of export 0, 2 times, is too much"),
    ):
        connection = serving()
        ended = only(connection.receive_data(frame), Ended)
        assert str(ended.error) == reason
        assert sent(connection) == [f"abort: {reason}"]
