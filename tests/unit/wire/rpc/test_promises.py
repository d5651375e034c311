"""Pipelines, promises, embargoes and tail calls, on literal messages."""

from typing import Any

import pytest
from level_1_frames import call, disembargo, exception, message, resolve, results, sent

from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT
from capnp_rig.wire.errors import LocalProtocolError, UnusableCapability
from capnp_rig.wire.rpc.capabilities import Capability
from capnp_rig.wire.rpc.connection import (
    Answered,
    Called,
    Cancelled,
    Connection,
    Ended,
    Failed,
    Limits,
    Released,
    Unreadable,
)
from capnp_rig.wire.rpc.messages import RemoteError

from .test_capabilities import (
    METHOD,
    called,
    calling,
    capability,
    only,
    pointers,
    serving,
)

NOTHING = "pipelined call on an answer that holds no capability"


def ask(connection: Connection, target: Any, *capabilities: Any) -> int:
    return connection.call(target, *METHOD, pointers(len(capabilities)), capabilities)


def targets(connection: Connection, data: bytes = b"") -> list[Any]:
    """Return which objects are called, in order; each call is answered."""
    found = []
    for event in connection.receive_data(data):
        if isinstance(event, Called):
            found.append(event.target)
            connection.send_results(event.question_id, EMPTY_STRUCT)
    return found


# --- pipelined calls that come -----------------------------------------------------------------


def test_calls_on_an_answer_wait_for_it_in_order() -> None:
    connection = serving()
    called(connection, call(1, export=0))
    for question_id, path in ((2, (1,)), (3, (0,)), (4, (1,))):
        assert connection.receive_data(call(question_id, promise=1, path=path)) == []
    assert connection.calls_in_flight == 4
    connection.send_results(1, pointers(2), ["first", "second"])
    assert connection.has_events
    assert sorted(targets(connection)) == ["first", "second", "second"]
    # And those that come later find it at once.
    assert targets(connection, call(5, promise=1, path=(1,))) == ["second"]
    connection.receive_data(message("finish", questionId=1, releaseResultCaps=True))
    connection.data_to_send()
    connection.receive_data(call(6, promise=1, path=(1,)))
    assert sent(connection) == [f"return 6 exception: {NOTHING}"]


def test_d10_calls_on_what_failed_fail_alike_before_and_after() -> None:
    connection = serving()
    called(connection, call(1, export=0))
    connection.receive_data(call(2, promise=1, path=(0,)) + call(3, promise=2, path=(0,)))
    connection.send_exception(1, RemoteError("wrong password"))
    connection.receive_data(call(4, promise=1, path=(0,)))
    assert sent(connection) == [
        f"return {number} exception: wrong password" for number in (1, 2, 3, 4)
    ]
    assert connection.calls_in_flight == 0
    assert not connection.ended


@pytest.mark.parametrize("how", ["inline", "event", "with a capability in its params"])
def test_d10_a_failure_ends_with_its_question_id(how: str) -> None:
    connection = serving()
    called(connection, call(1, export=0))
    connection.send_exception(1, RemoteError("wrong password"))
    table = [("senderHosted", 7)] if how.startswith("with") else []
    again = call(1, table=table, export=0)
    inline = {METHOD: lambda _: EMPTY_STRUCT} if how == "inline" else {}
    if list(connection.events(again, inline)):
        connection.send_results(1, EMPTY_STRUCT)
    connection.receive_data(call(2, promise=1, path=(0,)))
    assert f"return 2 exception: {NOTHING}" in sent(connection)


def test_a_long_chain_of_calls_on_each_other_fails_as_one() -> None:
    connection = serving()
    called(connection, call(1, export=0))
    for question_id in range(2, 250):
        connection.receive_data(call(question_id, promise=question_id - 1, path=(0,)))
    connection.send_exception(1, RemoteError("no"))
    assert len(sent(connection)) == 249


@pytest.mark.parametrize("path", [(), (1,), (0, 0), (7,)])
def test_d10_calls_on_nothing_fail(path: tuple[int, ...]) -> None:
    connection = serving()
    called(connection, call(1, export=0))
    connection.receive_data(call(2, promise=1, path=path))
    connection.send_results(1, pointers(2), ["session", None])
    connection.receive_data(call(3, promise=1, path=path))
    assert sent(connection)[1:] == [f"return {number} exception: {NOTHING}" for number in (2, 3)]


def test_a_call_that_waits_can_be_finished() -> None:
    connection = serving()
    called(connection, call(1, export=0))
    connection.receive_data(call(2, promise=1, path=(0,)))
    assert connection.receive_data(message("finish", questionId=2)) == []
    assert sent(connection) == ["return 2 canceled"]
    connection.send_results(1, pointers(1), ["session"])
    assert targets(connection) == []


def test_a_call_goes_on_while_others_wait_for_its_answer() -> None:
    connection = serving()
    called(connection, call(1, export=0))
    connection.receive_data(call(2, promise=1, path=(0,)))
    assert connection.receive_data(message("finish", questionId=1)) == []
    assert connection.receive_data(message("finish", questionId=2)) == [Cancelled(1)]
    connection.send_results(1, pointers(1), ["session"])
    assert connection.receive_data(b"") == [Released("session")]
    assert sent(connection) == ["return 2 canceled", "return 1 canceled"]


def test_a_finished_call_still_serves_those_that_wait() -> None:
    connection = serving()
    called(connection, call(1, export=0))
    connection.receive_data(call(2, promise=1, path=(0,)))
    connection.receive_data(message("finish", questionId=1))
    connection.send_results(1, pointers(1), ["session"])
    assert targets(connection) == ["session"]
    assert sent(connection) == ["return 1 canceled", "return 2 results"]


# --- pipelined calls that leave ----------------------------------------------------------------


def test_a_pipeline_leads_to_the_answer_and_then_to_what_it_was() -> None:
    connection, main = calling()
    login = ask(connection, main)
    session = connection.pipeline(login, (0,))
    read = ask(connection, session)
    deeper = connection.pipeline(read, (3, 1))
    ask(connection, deeper)
    assert sent(connection) == [
        "call 0 of export 7",
        "call 1 of answer 0.0",
        "call 2 of answer 1.3.1",
    ]
    answered = only(connection.receive_data(results(login, [("senderHosted", 3)])), Answered)
    ask(connection, session)
    assert sent(connection) == ["finish 0 keeping", "call 0 of export 3"]
    session.release()
    capability(answered).release()
    assert sent(connection) == ["release 3, 1 times"]


def test_a_pipeline_of_a_failure_fails_with_it() -> None:
    connection, main = calling()
    login = ask(connection, main)
    session = connection.pipeline(login, (0,))
    connection.receive_data(exception(login, "wrong password"))
    assert session.error == RemoteError("wrong password")
    question_id = ask(connection, session)
    assert connection.pipeline(question_id, (0,)).error == RemoteError("wrong password")
    assert connection.receive_data(b"") == [Failed(question_id, RemoteError("wrong password"))]
    with pytest.raises(LocalProtocolError, match="not waiting for an answer"):
        connection.pipeline(question_id, (0,))


def test_a_question_that_is_given_up_breaks_its_pipelines() -> None:
    connection, main = calling()
    login = ask(connection, main)
    session = connection.pipeline(login, (0,))
    connection.cancel(login)
    assert session.error == RemoteError("the call was cancelled")
    assert sent(connection)[1:] == ["finish 0"]
    assert connection.receive_data(message("return", answerId=login)) == []
    assert not connection._questions


def test_an_id_is_not_used_again_before_its_outcome_was_told() -> None:
    connection = serving()
    broken = connection.promise()
    broken.reject(RemoteError("no"))
    first = ask(connection, broken)
    assert ask(connection, broken) != first
    connection.cancel(first)
    (failed,) = connection.receive_data(b"")
    assert failed != Failed(first, RemoteError("no"))
    assert ask(connection, broken) in {first, first + 1}


# --- promises of ours --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["object", "import", "broken", "dropped"])
def test_calls_to_a_promise_wait_for_what_it_becomes(kind: str) -> None:
    connection = serving()
    promise = connection.promise()
    event = called(connection, call(1, export=0, table=[("senderHosted", 5)]))
    connection.send_results(1, pointers(1), [promise])
    connection.receive_data(call(2, export=1))
    assert sent(connection) == ["return 1 results senderPromise:1 keeping params, finish"]
    if kind == "object":
        promise.resolve("late")
        assert targets(connection) == ["late"]
        assert sent(connection) == ["resolve 1 senderHosted:2", "return 2 results"]
    elif kind == "import":
        promise.resolve(capability(event))
        assert sent(connection) == [
            "call 0 of export 5 to yourself",
            "return 2 from 0",
            "resolve 1 receiverHosted:5",
        ]
    elif kind == "broken":
        promise.reject(RemoteError("never"))
        assert sent(connection) == ["return 2 exception: never", "resolve 1: never"]
    else:
        promise.release()
        reason = "the promise was released before it was resolved"
        assert sent(connection) == [f"return 2 exception: {reason}", f"resolve 1: {reason}"]
        with pytest.raises(UnusableCapability, match="released before"):
            promise.resolve("late")


def test_a_promise_is_resolved_once_and_not_to_itself() -> None:
    connection = serving()
    promise, other = connection.promise(), connection.promise()
    promise.resolve(other)
    with pytest.raises(UnusableCapability, match="resolved before"):
        promise.reject(RemoteError("no"))
    other.resolve(promise)
    assert other.error == promise.error == RemoteError("the promise was resolved to itself")


@pytest.mark.parametrize("kind", ["object", "import", "broken"])
def test_a_promise_may_be_resolved_after_the_end(kind: str) -> None:
    connection = serving()
    promise = connection.promise()
    event = called(connection, call(1, export=0, table=[("senderHosted", 5)]))
    connection.send_results(1, pointers(1), [promise])
    connection.receive_data(call(2, export=1))
    connection.data_to_send()
    connection.receive_eof()
    if kind == "broken":
        promise.reject(RemoteError("late"))
    else:
        promise.resolve("late" if kind == "object" else capability(event))
    promise.release()
    assert connection.receive_data(b"") == []
    assert connection.data_to_send() == b""


def test_a_promise_that_is_collected_is_broken() -> None:
    connection = serving()
    promise = connection.promise()
    called(connection, call(1, export=0))
    connection.send_results(1, pointers(1), [promise])
    del promise
    assert sent(connection)[1:] == ["resolve 1: the promise was released before it was resolved"]


def test_a_promise_of_a_part_of_an_answer_stays_one_until_that_is_known() -> None:
    connection, main = calling()
    promise = connection.promise()
    login = ask(connection, main)
    ask(connection, main, promise)
    promise.resolve(connection.pipeline(login, (0,)))
    connection.receive_data(call(0, export=0))
    assert sent(connection) == [
        "call 0 of export 7",
        "call 1 of export 7 senderPromise:0",
        "call 2 of answer 0.0 to yourself",
        "return 0 from 2",
    ]
    connection.receive_data(results(login, [("senderHosted", 9)]))
    assert sent(connection) == ["resolve 0 receiverHosted:9", "finish 0 keeping"]


# --- promises of the peer ----------------------------------------------------------------------


def promised(connection: Connection) -> Capability:
    """Return a promise of the peer, its export 5."""
    event = called(connection, call(1, export=0, table=[("senderPromise", 5)]))
    connection.send_results(1, EMPTY_STRUCT)
    connection.data_to_send()
    return capability(event)


def test_a_promise_becomes_another_object_of_the_peer() -> None:
    connection = serving()
    promise = promised(connection)
    ask(connection, promise)
    connection.receive_data(resolve(5, ("senderHosted", 6)))
    ask(connection, promise)
    # No embargo: both ways are the same.
    assert sent(connection) == ["call 0 of export 5", "call 1 of export 6", "release 5, 1 times"]
    promise.release()
    assert sent(connection) == ["release 6, 1 times"]


def test_a_promise_breaks() -> None:
    for outcome, reason in (
        ("never", "never"),
        (("senderPromise", 5), "the promise was resolved to itself"),
    ):
        connection = serving()
        promise = promised(connection)
        connection.receive_data(resolve(5, outcome))
        assert promise.error == RemoteError(reason)


def test_a_promise_does_not_become_nothing() -> None:
    connection = serving()
    promised(connection)
    ended = only(connection.receive_data(resolve(5, ("none",))), Ended)
    assert str(ended.error) == "promise 5 was resolved to nothing"


def test_chains_of_promises_are_as_long_as_the_peer_likes() -> None:
    connection = serving()
    events = []
    for first in range(10, 2000, 400):
        table = [("senderPromise", number) for number in range(first, first + 400)]
        events += connection.receive_data(call(first, export=0, table=table))
    for number in range(10, 2009):
        connection.receive_data(resolve(number, ("senderPromise", number + 1)))
    ask(connection, events[0].params[0].capabilities[0])
    del events
    assert connection.data_to_send()
    assert not connection._imports


def test_a_promise_that_was_released_gives_back_what_it_became() -> None:
    connection = serving()
    promised(connection).release()
    connection.data_to_send()
    assert connection.receive_data(resolve(5, ("senderHosted", 6))) == []
    assert sent(connection) == ["release 6, 1 times"]


def test_a_promise_that_comes_back_is_under_embargo_until_earlier_calls_have_come() -> None:
    connection = serving()
    promise = promised(connection)
    ask(connection, promise)
    assert connection.receive_data(resolve(5, ("receiverHosted", 0))) == []
    ask(connection, promise)
    ask(connection, promise)
    assert not connection.has_events
    assert sent(connection) == [
        "call 0 of export 5",
        "disembargo export 5 senderLoopback 0",
        "release 5, 1 times",
    ]
    # The first call comes back, then the Disembargo.
    assert targets(connection, call(9, export=0, to="yourself")) == ["main"]
    assert targets(connection, disembargo("receiverLoopback", 0, export=0)) == ["main", "main"]


def test_a_promise_that_was_never_called_is_under_no_embargo() -> None:
    connection = serving()
    promise = promised(connection)
    assert connection.receive_data(resolve(5, ("receiverHosted", 0))) == []
    assert promise.hosted == "main"
    ask(connection, promise)
    assert targets(connection) == ["main"]
    assert sent(connection) == ["release 5, 1 times"]


def test_results_that_come_back_are_under_embargo_too() -> None:
    connection, main = calling()
    login = ask(connection, main, "callback")
    session = connection.pipeline(login, (0,))
    ask(connection, session)
    only(connection.receive_data(results(login, [("receiverHosted", 0)], releases=False)), Answered)
    ask(connection, session)
    assert not connection.has_events
    assert sent(connection) == [
        "call 0 of export 7 senderHosted:0",
        "call 1 of answer 0.0",
        "disembargo answer 0.0 senderLoopback 0",
        "finish 0 keeping",
    ]
    # While it lasts, the capability is a promise for others as well.
    ask(connection, main, session)
    assert sent(connection) == ["call 2 of export 7 senderPromise:1"]
    connection.receive_data(disembargo("receiverLoopback", 0, export=0))
    assert sent(connection) == ["resolve 1 senderHosted:0"]
    assert session.hosted == "callback"


def test_an_embargo_depends_on_the_way_and_not_on_what_is_at_its_end() -> None:
    """The Tribble 4-way race: what comes back has become an object of the peer meanwhile."""
    connection = serving()
    promise = promised(connection)
    ours = connection.promise()
    event = called(connection, call(2, export=0, table=[("senderHosted", 8)]))
    connection.send_results(2, pointers(1), [ours])
    ask(connection, promise)
    ours.resolve(capability(event))
    assert sent(connection)[1:] == ["call 0 of export 5", "resolve 1 receiverHosted:8"]
    connection.receive_data(resolve(5, ("receiverHosted", 1)))
    ask(connection, promise)
    assert sent(connection) == ["disembargo export 5 senderLoopback 0", "release 5, 1 times"]
    # The first call comes back to our promise, and is sent on.
    connection.receive_data(call(3, export=1, to="yourself"))
    connection.receive_data(disembargo("receiverLoopback", 0, export=1))
    assert sent(connection) == [
        "call 2 of export 8",
        "call 1 of export 8",
    ]


def test_an_embargo_is_lifted_hop_by_hop() -> None:
    """Another Tribble race: on the way back the calls take a way that was given up meanwhile."""
    connection = serving()
    promise = promised(connection)
    ask(connection, promise)
    ours = connection.promise()
    event = called(connection, call(2, export=0, table=[("senderPromise", 8)]))
    connection.send_results(2, pointers(1), [ours])
    ours.resolve(capability(event))
    assert sent(connection)[-1] == "resolve 1 receiverHosted:8"
    # That one is ours, too, and was never called: it is called directly now.
    connection.receive_data(resolve(8, ("receiverHosted", 0)))
    connection.receive_data(resolve(5, ("receiverHosted", 1)))
    ask(connection, promise)
    assert sent(connection) == ["disembargo export 5 senderLoopback 0", "release 5, 1 times"]
    # The first call comes back, and must go where the peer knows that our promise leads.
    connection.receive_data(call(3, export=1, to="yourself"))
    assert sent(connection) == ["call 2 of export 8"]
    assert targets(connection, disembargo("receiverLoopback", 0, export=1)) == []
    assert sent(connection) == ["disembargo export 8 senderLoopback 1"]
    assert targets(connection, call(4, export=0, to="yourself")) == ["main"]
    assert targets(connection, disembargo("receiverLoopback", 1, export=0)) == ["main"]


# --- a Disembargo of the peer ------------------------------------------------------------------


def test_a_disembargo_follows_the_calls_back() -> None:
    connection = serving()
    event = called(connection, call(1, export=0, table=[("senderPromise", 5)]))
    connection.send_results(1, pointers(1), [capability(event)])
    assert sent(connection) == ["return 1 results receiverHosted:5 keeping params, finish"]
    connection.receive_data(call(2, promise=1, path=(0,)))
    # Strictly to where it was told, also when that has become something else.
    connection.receive_data(resolve(5, ("receiverHosted", 0)))
    connection.receive_data(call(3, promise=1, path=(0,)))
    connection.receive_data(disembargo("senderLoopback", 77, answer=(1, (0,))))
    assert sent(connection) == [
        "call 0 of export 5 to yourself",
        "return 2 from 0",
        "disembargo export 5 senderLoopback 0",
        "call 1 of export 5 to yourself",
        "return 3 from 1",
        "disembargo export 5 receiverLoopback 77",
    ]
    capability(event).release()
    assert sent(connection) == []
    connection.receive_data(message("finish", questionId=1, releaseResultCaps=True))
    assert sent(connection) == ["release 5, 1 times"]


# --- tail calls --------------------------------------------------------------------------------


def take_from(question_id: int, number: int) -> bytes:
    fields = {"takeFromOtherQuestion": number, "releaseParamCaps": False}
    return message("return", answerId=question_id, **fields)


def test_a_tail_call_to_the_caller_leaves_its_results_there() -> None:
    connection = serving()
    event = called(connection, call(1, export=0, table=[("senderHosted", 5)]))
    connection.tail_call(1, capability(event), *METHOD, pointers(1), ["argument"])
    assert sent(connection) == [
        "call 0 of export 5 senderHosted:1 to yourself",
        "return 1 from 0 keeping params",
    ]
    assert connection.calls_in_flight == 0
    connection.receive_data(call(2, promise=1, path=(3,)))
    assert sent(connection) == ["call 1 of answer 0.3 to yourself", "return 2 from 1"]
    connection.receive_data(message("finish", questionId=1))
    assert sent(connection) == ["finish 0"]
    connection.receive_data(message("return", answerId=0, resultsSentElsewhere=None))
    assert connection._questions.keys() == {1}


def test_a_tail_call_of_an_object_here_is_a_call_of_that() -> None:
    connection = serving()
    called(connection, call(1, export=0))
    connection.tail_call(1, "other", *METHOD, EMPTY_STRUCT)
    assert targets(connection) == ["other"]
    assert sent(connection) == ["return 1 results"]


def test_results_that_stay_here_are_those_of_a_call_of_ours() -> None:
    for is_early in (True, False):
        connection, main = calling()
        question_id = ask(connection, main, "callback")
        part = connection.pipeline(question_id, (0,))
        ask(connection, part)
        connection.data_to_send()
        event = called(connection, call(4, export=0, to="yourself"))
        taken = take_from(question_id, 4)
        if is_early:
            assert connection.receive_data(taken) == []
            assert sent(connection) == ["disembargo answer 0.0 senderLoopback 0", "finish 0"]
        connection.send_results(event.question_id, pointers(1), ["result"])
        if not is_early:
            connection.receive_data(b"")
            answered = only(connection.receive_data(taken), Answered)
        else:
            answered = only(connection.receive_data(b""), Answered)
        assert answered.question_id == question_id
        assert capability(answered).hosted == "result"
        assert "return 4 resultsSentElsewhere" in sent(connection)
        # The call that was pipelined went round; the next one waits for it.
        ask(connection, part)
        assert not connection.has_events
        assert targets(connection, call(5, promise=4, path=(0,), to="yourself")) == ["result"]
        assert targets(connection, disembargo("receiverLoopback", 0, answer=(4, (0,)))) == [
            "result"
        ]
        connection.receive_data(message("finish", questionId=4))
        assert 4 not in connection._answers


def test_a_failure_that_stays_here_is_that_of_a_call_of_ours() -> None:
    connection, main = calling()
    question_id = ask(connection, main, "callback")
    event = called(connection, call(4, export=0, to="yourself"))
    connection.send_exception(event.question_id, RemoteError("no"))
    taken = take_from(question_id, 4)
    assert connection.receive_data(taken) == [Failed(question_id, RemoteError("no"))]


def test_a_call_of_ours_that_is_answered_here_can_be_given_up() -> None:
    connection, main = calling()
    question_id = ask(connection, main, "callback")
    called(connection, call(4, export=0, to="yourself"))
    connection.receive_data(message("return", answerId=question_id, takeFromOtherQuestion=4))
    assert connection.receive_data(message("finish", questionId=4)) == []
    connection.cancel(question_id)
    assert connection.receive_data(b"") == [Cancelled(4)]
    connection.send_results(4, EMPTY_STRUCT)
    assert connection.receive_data(b"") == []
    assert not connection._answers
    assert not connection._questions


@pytest.mark.parametrize("number", [3, 4])
def test_results_that_are_not_to_be_taken_end_the_connection(number: int) -> None:
    connection, main = calling()
    question_id = ask(connection, main, "callback")
    called(connection, call(4, export=0))
    taken = message("return", answerId=question_id, takeFromOtherQuestion=number)
    ended = only(connection.receive_data(taken), Ended)
    assert str(ended.error) == f"the results of call {number} are not to be taken"
    connection, main = calling()
    question_id = ask(connection, main)
    unasked = message("return", answerId=question_id, resultsSentElsewhere=None)
    ended = only(connection.receive_data(unasked), Ended)
    assert str(ended.error) == "the results were sent elsewhere, unasked"


# --- calls that are sent on ----------------------------------------------------------------


def test_results_that_are_to_stay_here_come_from_the_peer_first() -> None:
    connection, main = calling()
    question_id = ask(connection, main, "callback")
    connection.data_to_send()
    for number in (4, 5, 6):
        called(connection, call(number, export=0, to="yourself"))
        connection.tail_call(number, main, *METHOD, EMPTY_STRUCT)
    # As usual calls: their results are needed here.
    assert sent(connection) == [f"call {number} of export 7" for number in (1, 2, 3)]
    connection.receive_data(results(1, [("senderHosted", 3)]) + exception(2, "no"))
    assert sent(connection) == [
        "return 4 resultsSentElsewhere",
        "finish 1 keeping",
        "return 5 resultsSentElsewhere",
        "finish 2",
    ]
    answered = only(connection.receive_data(take_from(question_id, 4)), Answered)
    ask(connection, capability(answered))
    assert sent(connection) == ["finish 0", "call 0 of export 3"]
    # The third is given up before it is answered.
    connection.receive_data(message("finish", questionId=6))
    assert sent(connection) == ["finish 3", "return 6 resultsSentElsewhere"]
    connection.receive_data(results(3, [("senderHosted", 9)]))
    for number in (4, 5):
        connection.receive_data(message("finish", questionId=number))
    capability(answered).release()
    assert sent(connection) == ["release 3, 1 times"]
    assert connection._questions.keys() == {0}
    assert not connection._answers


def test_results_that_go_round_twice_arrive() -> None:
    connection, main = calling()
    question_id = ask(connection, main, "callback")
    called(connection, call(4, export=0, to="yourself"))
    connection.receive_data(take_from(question_id, 4))
    connection.tail_call(4, main, *METHOD, EMPTY_STRUCT)
    assert sent(connection)[1:] == ["finish 0", "call 1 of export 7"]
    called(connection, call(5, export=0, to="yourself"))
    connection.receive_data(take_from(1, 5))
    connection.send_results(5, pointers(1), ["result"])
    answered = only(connection.receive_data(b""), Answered)
    assert answered.question_id == question_id
    assert capability(answered).hosted == "result"


def test_results_that_cannot_be_read_are_not_sent_on() -> None:
    connection, main = calling()
    ask(connection, main, "callback")
    called(connection, call(4, export=0, to="yourself"))
    connection.tail_call(4, main, *METHOD, EMPTY_STRUCT)
    frame = bytearray(results(1, [("senderHosted", 3)]))
    # The pointer to the content is one to a list now.
    at = frame.index((1 | 7 << 32 | 2 << 35).to_bytes(8, "little")) - 8
    frame[at] |= 1
    connection.receive_data(bytes(frame))
    assert sent(connection)[2:] == [
        "return 4 resultsSentElsewhere",
        "finish 1 keeping",
        "release 3, 1 times",
    ]


def test_a_call_of_ours_waits_for_a_promise_and_then_leaves() -> None:
    connection, main = calling()
    promise = connection.promise()
    first, second = ask(connection, promise, "argument"), ask(connection, promise)
    part = connection.pipeline(first, (0,))
    third = ask(connection, part)
    connection.cancel(second)
    assert sent(connection) == []
    promise.resolve(main)
    assert sent(connection) == [
        f"call {first} of export 7 senderHosted:0",
        f"call {third} of answer {first}.0",
    ]
    connection.cancel(first)
    assert part.error == RemoteError("the call was cancelled")
    answered = only(connection.receive_data(results(third, no_finish=True)), Answered)
    assert answered.question_id == third


def test_a_call_of_ours_that_is_given_up_goes_on_for_those_who_wait() -> None:
    connection, main = calling()
    promise = connection.promise()
    first = ask(connection, promise)
    part = connection.pipeline(first, (0,))
    second = ask(connection, part)
    connection.cancel(first)
    promise.resolve(main)
    assert sent(connection) == [
        f"call {first} of export 7",
        f"call {second} of answer {first}.0",
    ]
    assert connection.receive_data(results(first, [("senderHosted", 3)])) == []
    assert part.is_direct is False
    ask(connection, part)
    assert sent(connection) == [f"finish {first} keeping", f"call {first} of export 3"]


def test_what_nobody_waits_for_is_not_taken() -> None:
    connection, main = calling()
    promise = connection.promise()
    first = ask(connection, promise, "callback")
    ask(connection, connection.pipeline(first, (0,)))
    connection.cancel(first)
    promise.resolve(main)
    called(connection, call(4, export=0, to="yourself"))
    connection.data_to_send()
    assert connection.receive_data(take_from(first, 4)) == []
    assert sent(connection) == [f"finish {first}"]
    connection.send_results(4, pointers(1), ["result"])
    assert connection.receive_data(b"") == []
    assert first not in connection._questions


def test_a_tail_call_needs_a_call_that_is_waited_for() -> None:
    connection = serving()
    with pytest.raises(LocalProtocolError, match="no call 9 is waiting"):
        connection.tail_call(9, "other", *METHOD, pointers(1), ["argument"])
    assert connection.receive_data(b"") == [Released("argument"), Released("other")]
    called(connection, call(1, export=0))
    connection.receive_data(message("finish", questionId=1))
    connection.tail_call(1, "other", *METHOD, EMPTY_STRUCT)
    assert connection.receive_data(b"") == [Released("other")]
    called(connection, call(2, export=0))
    connection.tail_call(2, None, *METHOD, EMPTY_STRUCT)
    assert sent(connection) == ["return 1 canceled", f"return 2 exception: {NOTHING}"]
    connection.receive_eof()
    connection.tail_call(2, "other", *METHOD, EMPTY_STRUCT)
    assert connection.data_to_send() == b""


def test_a_call_over_the_limit_of_exports_fails_when_it_leaves() -> None:
    connection, main = calling(Limits(max_exports=1))
    promise = connection.promise()
    question_id = ask(connection, promise, "one", "two")
    promise.resolve(main)
    (failed,) = [each for each in connection.receive_data(b"") if isinstance(each, Failed)]
    assert failed == Failed(question_id, RemoteError("the peer holds 1 capabilities of ours"))


def test_a_bootstrap_over_the_limit_of_exports_fails() -> None:
    connection = Connection(Limits(max_exports=1), "main")
    main = connection.bootstrap()
    connection.receive_data(results(0, [("senderHosted", 7)]))
    ask(connection, main, "callback")
    connection.data_to_send()
    connection.receive_data(message("bootstrap", questionId=3))
    assert sent(connection) == ["return 3 exception: the peer holds 1 capabilities of ours"]


def test_redirected_calls_that_fail_keep_their_failure() -> None:
    connection, main = calling(Limits(max_calls_in_flight=1))
    question_id = ask(connection, main, "callback")
    called(connection, call(4, export=0, to="yourself"))
    connection.receive_data(call(5, export=0, to="yourself"))
    assert sent(connection)[1:] == ["return 5 resultsSentElsewhere"]
    failed = only(connection.receive_data(take_from(question_id, 5)), Failed)
    assert failed.error.reason == "more than 1 calls in flight on this connection"


def test_unreadable_params_and_results_fail_alone() -> None:
    connection = serving()
    frame = bytearray(call(1, export=0, table=[("senderHosted", 3)]))
    at = frame.index((1 | 7 << 32 | 2 << 35).to_bytes(8, "little")) - 8
    frame[at] |= 1
    connection.receive_data(bytes(frame))
    assert sent(connection) == [
        "return 1 exception: message has a pointer of another kind where a struct is expected"
    ]
    assert not connection._imports
    connection, main = calling()
    question_id = ask(connection, main)
    connection.data_to_send()
    frame = bytearray(results(question_id, [("senderHosted", 3)]))
    at = frame.index((1 | 7 << 32 | 2 << 35).to_bytes(8, "little")) - 8
    frame[at] |= 1
    unreadable = only(connection.receive_data(bytes(frame)), Unreadable)
    assert unreadable.question_id == question_id
    assert sent(connection) == ["finish 0 keeping", "release 3, 1 times"]
