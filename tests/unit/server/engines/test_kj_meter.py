"""What the meter of a pycapnp connection passes on, keeps back and puts in place: frames only."""

import struct
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import level_1_frames
import pytest
from fuzz.mutate import split
from raw_peer import (
    RPC,
    STREAM_ID,
    abort,
    bootstrap,
    call,
    decoded,
    encoded,
    finish,
    read_words,
    to_list,
)

from capnp_rig.objects.binding import BoundMethod
from capnp_rig.schema import message
from capnp_rig.server.engines.early_cancels import MIN_CALLS
from capnp_rig.server.engines.kj_meter import (
    CallMeter,
    Ending,
    WorkerCalls,
)
from capnp_rig.wire.encoding.encoded import EncodedStruct
from capnp_rig.wire.encoding.frames import FrameLimits
from capnp_rig.wire.rpc.connection import Limits
from capnp_rig.wire.rpc.interfaces import compile_interface
from capnp_rig.wire.rpc.message_encoder import encode_bootstrap_results, encode_results

PLAIN, ASYNC = 0, 1
MAX_WORKER_CALLS = 4096
READ = compile_interface(message.MessageStream).methods["read"]
METHODS = {
    (STREAM_ID, PLAIN): BoundMethod(replace(READ, name="plain"), call=print, is_async=False),
    (STREAM_ID, ASYNC): BoundMethod(replace(READ, name="later"), call=print, is_async=True),
}
RESULTS = EncodedStruct(0, [], 0)


def meter(worker: WorkerCalls | None = None, **limits: int) -> CallMeter:
    return CallMeter(
        worker or WorkerCalls(MAX_WORKER_CALLS),
        METHODS,
        lambda name, size: f"{name}: {size}",
        Limits(**limits),
    )


def later(number: int) -> bytes:
    return call(number, method_id=ASYNC)


def pieces(frame: bytes) -> tuple[bytes, bytes]:
    return frame[:8], frame[8:]


def send(subject: CallMeter, frame: bytes) -> bytes:
    table, body = pieces(frame)
    assert list(subject.send(table)) == []
    assert subject.is_within_frame
    found = b"".join(subject.send(body))
    assert not subject.is_within_frame
    return found


def answered(number: int) -> bytes:
    return b"".join(encode_results(number, RESULTS))


def said(subject: CallMeter) -> list[Any]:
    return [decoded(frame) for frame in split(b"".join(subject.take_frames()))]


def test_what_is_in_order_passes_in_any_portions() -> None:
    stream = bootstrap() + call(1) + later(2) + finish(2) + encoded(_release())
    for size in (1, 7, 64, len(stream)):
        subject = meter()
        parts = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert b"".join(bytes(subject.receive(part, 0.0)) for part in parts) == stream
        assert subject.calls_in_flight == 2
        assert subject.take_frames() == []
        assert subject.ended is None


def _release() -> Any:
    build = RPC.Message.new_message()
    build.init("release").id = 0
    return build


def test_d9_async_calls_over_the_limit_are_refused_and_plain_ones_are_not() -> None:
    subject = meter(max_calls_in_flight=2)
    stream = later(1) + later(2) + later(3) + call(4) + later(5)
    assert subject.receive(stream, 0.0) == later(1) + later(2) + call(4)
    assert [(reply.id, reply.type) for reply in said(subject)] == [
        (3, "overloaded"),
        (5, "overloaded"),
    ]
    send(subject, answered(1))
    assert subject.receive(later(6), 0.0) == later(6)


def test_d7_a_cancelled_call_keeps_its_slot_until_its_handler_ends() -> None:
    subject = meter(max_calls_in_flight=1)
    subject.receive(later(1) + finish(1), 0.0)
    subject.handlers = 1
    send(subject, answered(1))
    assert subject.receive(later(2), 0.0) == b""
    assert [reply.type for reply in said(subject)] == ["overloaded"]
    subject.handlers = 0
    assert subject.receive(later(2), 0.0) == later(2)


def test_d9_plain_calls_wait_for_those_before_them() -> None:
    subject = meter(max_calls_in_flight=2)
    assert subject.receive(call(1) + call(2) + call(3), 0.0) == call(1) + call(2)
    assert subject.held
    assert subject.receive(call(4), 0.0) == b""
    send(subject, answered(1))
    assert subject.receive(b"", 0.0) == call(3)
    send(subject, answered(2))
    send(subject, answered(3))
    assert subject.receive(b"", 0.0) == call(4)
    assert not subject.held


def test_b8_plain_calls_with_large_answers_go_on_one_by_one() -> None:
    subject = meter()
    subject.receive(call(1), 0.0)
    send(subject, b"".join(encode_results(1, EncodedStruct(1, [bytes(8)] * 100_000, 100_000))))
    assert subject.receive(b"".join(map(call, range(2, 10))), 0.0) == call(2) + call(3)
    assert subject.held


def test_params_of_running_calls_are_bounded() -> None:
    subject = meter()
    size = 0
    for number in range(1, 4):
        large = call(number, "x" * 3_000_000, method_id=ASYNC)
        assert subject.receive(large, 0.0) == large
        size += len(large)
    assert subject.holding
    assert subject.receive(later(9), 0.0) == b""
    assert size > Limits().max_params_bytes
    # Those that wait for an answer of the peer's could not end.
    subject.peer = SimpleNamespace(waiting=1)
    assert not subject.holding
    subject.peer.waiting = 0
    assert subject.holding
    send(subject, answered(2))
    assert not subject.holding


def test_all_connections_share_the_workers_limit() -> None:
    worker = WorkerCalls(MAX_WORKER_CALLS)
    worker.running = MAX_WORKER_CALLS - 1
    subject = meter(worker)
    assert subject.receive(later(1) + later(2), 0.0) == later(1)
    assert [reply.type for reply in said(subject)] == ["overloaded"]
    subject.close()
    assert worker.running == MAX_WORKER_CALLS - 1


def test_who_counts_is_told_which_method_a_limit_refused() -> None:
    hits: list[tuple[str, str | None]] = []
    worker = WorkerCalls(0, lambda limit, label: hits.append((limit, label)))
    subject = meter(worker)
    subject.receive(later(1) + call(2, method_id=77), 0.0)
    assert hits == [("worker-calls", "print"), ("worker-calls", None)]


def test_a_drain_starts_no_call() -> None:
    worker = WorkerCalls(MAX_WORKER_CALLS)
    subject = meter(worker)
    subject.receive(bootstrap(), 0.0)
    worker.draining = True
    assert subject.receive(call(1) + finish(1), 0.0) == finish(1)
    (reply,) = said(subject)
    assert (reply.type, "shutting down" in reply.text) == ("overloaded", True)


@pytest.mark.parametrize(("age_s", "closes"), [(0.5, True), (1.5, False)])
def test_d7_a_peer_that_cancels_most_of_what_it_starts(age_s: float, *, closes: bool) -> None:
    subject = meter(max_calls_in_flight=4000)
    for number in range(1, 2 * MIN_CALLS):
        subject.receive(later(number), number)
        subject.receive(finish(number), number + age_s)
        if subject.ended is not None:
            break
        send(subject, answered(number))
    assert (subject.ended is Ending.ABORTED) == closes
    assert [reply.kind for reply in said(subject)] == (["abort"] if closes else [])


def test_d7_a_finish_behind_its_answer_is_no_cancel() -> None:
    subject = meter()
    for number in range(1, 3 * MIN_CALLS):
        subject.receive(later(number), 0.0)
        send(subject, answered(number))
        subject.receive(finish(number), 0.0)
    assert subject.ended is None
    assert not subject.has_cancelled


def test_d8_answers_that_wait_for_their_finish_are_bounded() -> None:
    subject = meter(max_answers=3)
    for number in range(3):
        subject.receive(bootstrap(number), 0.0)
        send(subject, encode_bootstrap_results(number, 0))
    subject.receive(finish(1), 0.0)
    assert subject.receive(bootstrap(1) + bootstrap(7), 0.0) == bootstrap(1)
    assert subject.ended is Ending.ABORTED
    assert subject.fault == "protocol error: more than 3 answers wait for their Finish"
    assert [reply.kind for reply in said(subject)] == ["abort"]
    # And nothing more, in neither direction.
    assert subject.receive(call(9), 0.0) == b""
    assert subject.send(b"12345678") == ()


@pytest.mark.parametrize(
    "stream",
    [b"\0\0\0\0\xff\xff\xff\xff", b"\0\0\0\0\xff\xff\xff\0" + bytes(4088)],
    ids=["by its table", "by its beginning"],
)
def test_c5_a_frame_over_the_limit_that_tells_no_call_is_aborted(stream: bytes) -> None:
    subject = meter()
    assert subject.receive(call(1) + stream, 0.0) == call(1)
    assert subject.ended is Ending.ABORTED
    (reply,) = said(subject)
    assert "too large" in reply.text


SMALL = Limits(frame=FrameLimits(max_words=1024, raised_by="--max-message"))


def small() -> CallMeter:
    return CallMeter(
        WorkerCalls(MAX_WORKER_CALLS), METHODS, lambda name, size: f"{name}: {size}", SMALL
    )


@pytest.mark.parametrize("size", [1, 4096, 10_000, 1 << 20])
def test_c5_a_call_over_the_limit_fails_alone(size: int) -> None:
    subject = small()
    over = read_words(2, to_list(0, 2, 12_000), b"x" * 11_999 + b"\0")
    stream = call(1) + over + call(3)
    parts = [stream[at : at + size] for at in range(0, len(stream), size)]
    passed = b"".join(bytes(subject.receive(part, 0.0)) for part in parts)
    assert passed == call(1) + call(3)
    (reply,) = said(subject)
    assert (reply.kind, reply.id, reply.releases_params) == ("exception", 2, True)
    assert "the limit is 8192 (--max-message)" in reply.text
    assert (subject.bytes_to_skip, subject.pending_bytes, subject.ended) == (0, 0, None)


def test_c5_a_call_over_the_limit_with_an_id_in_use_ends_the_connection() -> None:
    subject = small()
    subject.receive(call(2) + read_words(2, to_list(0, 2, 12_000), b"x" * 12_000), 0.0)
    assert subject.ended is Ending.ABORTED


@pytest.mark.parametrize("size", [1, 4096, 1 << 20])
def test_c5_kj_gets_an_exception_for_an_answer_over_the_limit_and_releases_what_it_held(
    size: int,
) -> None:
    subject = small()
    results = level_1_frames.results(9, releases=False)[8:] + bytes(12_000)
    stream = struct.pack("<II", 0, len(results) // 8) + results
    parts = [stream[at : at + size] for at in range(0, len(stream), size)]
    passed = b"".join(bytes(subject.receive(part, 0.0)) for part in parts)
    (reply,) = map(decoded, split(passed))
    assert (reply.kind, reply.id, reply.releases_params) == ("exception", 9, False)
    assert "too large" in reply.text
    # As KJ ends what it has an answer to: it would release each capability by itself.
    for number, is_release in ((8, False), (9, True), (9, False)):
        assert send(subject, finish(number, release=False)) == finish(number, release=is_release)


def test_c5_what_is_dropped_is_told_once_to_who_has_a_clock() -> None:
    subject = small()
    over = read_words(2, to_list(0, 2, 12_000), b"x" * 12_000)
    subject.receive(over[:5000], 0.0)
    assert subject.has_begun_to_skip
    assert subject.needs_care
    assert subject.bytes_to_skip == len(over) - 5000
    assert subject.pending_bytes
    subject.give_up_skipping("too slow")
    assert (subject.ended, subject.fault) == (Ending.ABORTED, "protocol error: too slow")


def test_a_reply_over_the_limit_is_an_error_in_its_place() -> None:
    subject = meter()
    subject.receive(call(1), 0.0)
    large = answered_with(1, 5_000_000)
    (reply,) = map(decoded, split(send(subject, large)))
    assert (reply.kind, reply.id, reply.text) == ("exception", 1, f"plain: {len(large)}")
    assert subject.calls_in_flight == 0


def answered_with(number: int, size: int) -> bytes:
    return b"".join(encode_results(number, EncodedStruct(1, [bytes(size)], size // 8)))


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ("message = \x02message = no such word\n\x03\n", "message = no such word\n"),
        ("message = \x02a\x03b\x02c\x03\n", "a\x03b\x02c"),
        ("message = \x02\x03\n", ""),
        # KJ's own.
        ("message = not marked\n", "message = not marked\n"),
    ],
)
def test_h4_pycapnps_own_words_are_taken_from_an_error(sent: str, text: str) -> None:
    subject = meter()
    subject.receive(call(1), 0.0)
    build = RPC.Message.new_message()
    body = build.init("return")
    body.answerId = 1
    body.releaseParamCaps = False
    body.init("exception").reason = sent
    (reply,) = map(decoded, split(send(subject, encoded(build))))
    assert (reply.kind, reply.id, reply.text) == ("exception", 1, text)
    # What KJ decided stays: it sends Release messages, and waits for a Finish.
    assert not reply.releases_params
    assert subject.receive(finish(1), 0.0) == finish(1)


def test_an_abort_of_kjs_ends_the_connection_with_its_reason() -> None:
    subject = meter()
    frame = abort(0, "no such export")
    assert send(subject, frame) == frame
    assert (subject.ended, subject.fault) == (Ending.ABORTED, "protocol error: no such export")
    assert subject.send(frame[:8]) == ()


@pytest.mark.parametrize("in_flight", [0, 1])
def test_an_abort_of_the_peers_is_a_goodbye_unless_it_waits(in_flight: int) -> None:
    subject = meter()
    assert subject.receive(call(1) * in_flight + abort(0, "bye"), 0.0) == call(1) * in_flight
    assert subject.ended is Ending.PEER_ABORTED
    assert subject.fault == ("the peer aborted: bye" if in_flight else None)
    assert subject.take_frames() == []


def test_an_id_in_use_is_left_to_kj() -> None:
    subject = meter()
    assert subject.receive(call(1) + call(1) + bootstrap(1), 0.0) == call(1) * 2 + bootstrap(1)
    assert subject.ended is None


@pytest.mark.parametrize("kind", ["return", "resolve"])
@pytest.mark.parametrize(("number", "passes"), [(3, True), (4, False), (200, False)])
def test_an_exception_at_which_kj_crashes_is_kept_from_it(
    kind: str, number: int, *, passes: bool
) -> None:
    build = RPC.Message.new_message()
    build.init(kind).init("exception").reason = "number"
    frame = bytearray(encoded(build))
    # The type stands in the upper half of a word, before two pointers and the reason.
    at = frame.index(b"number\0") - 20
    frame[at : at + 2] = number.to_bytes(2, "little")
    subject = meter()
    assert subject.receive(bytes(frame), 0.0) == (bytes(frame) if passes else b"")
    assert subject.ended is (None if passes else Ending.ABORTED)
