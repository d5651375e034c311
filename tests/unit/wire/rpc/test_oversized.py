"""Messages over the limit: their calls fail, the connection goes on."""

import struct
from collections.abc import Sequence

import level_1_frames
import pytest
from fuzz.mutate import split
from level_1_frames import sent
from raw_peer import bootstrap, decoded, read_words, segments, to_far, to_list, to_struct, words
from raw_peer import call as read_call

from capnp_rig.wire.encoding.encoded import EMPTY_STRUCT
from capnp_rig.wire.encoding.frames import FrameLimits
from capnp_rig.wire.errors import FrameTooLarge
from capnp_rig.wire.rpc.client_connection import ClientConnection
from capnp_rig.wire.rpc.connection import (
    Answered,
    Called,
    Connection,
    Ended,
    Event,
    Failed,
    Limits,
    Oversized,
)
from capnp_rig.wire.rpc.message_encoder import encode_bootstrap_results
from capnp_rig.wire.rpc.messages import TooLarge
from capnp_rig.wire.rpc.server_connection import ServerConnection

LIMIT = Limits(frame=FrameLimits(max_words=1024, raised_by="--max-message"))
BODY = b"x" * 11_999
OVER = read_words(1, to_list(0, 2, len(BODY) + 1), BODY + b"\0")
# It ends behind the beginning.
TABLE = [("senderHosted", number) for number in range(300)]
REASON = f"message is too large: {len(OVER)} bytes, the limit is 8192 (--max-message)"


def serving() -> ServerConnection:
    server = ServerConnection(LIMIT)
    server.receive_data(bootstrap())
    server.data_to_send()
    return server


def calling() -> ClientConnection:
    client = ClientConnection(LIMIT)
    client.data_to_send()
    client.receive_data(encode_bootstrap_results(0, 5))
    client.data_to_send()
    return client


def fed(connection: Connection, stream: bytes, size: int) -> list[Event]:
    return [
        event
        for at in range(0, len(stream), size)
        for event in connection.events(stream[at : at + size])
    ]


def padded(frame: bytes) -> bytes:
    """Return a frame with so much behind its objects that it is over the limit."""
    body = frame[8:] + bytes(12_000)
    return struct.pack("<II", 0, len(body) // 8) + body


def kinds(events: Sequence[Event]) -> list[type]:
    return [type(event) for event in events]


# --- calls ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 4095, 4096, 4097, 11_000, len(OVER), 1 << 20])
def test_c5_a_call_over_the_limit_fails_alone(size: int) -> None:
    server = serving()
    events = fed(server, read_call(7) + OVER + read_call(2), size)
    assert [event.question_id for event in events if type(event) is Called] == [7, 2]
    (reply,) = map(decoded, split(server.data_to_send()))
    assert (reply.kind, reply.id, reply.text) == ("exception", 1, REASON)
    assert reply.releases_params
    assert (server.bytes_to_skip, server.is_within_message) == (0, False)


def test_c5_it_fails_as_soon_as_its_beginning_is_here_and_the_rest_is_dropped() -> None:
    server = serving()
    assert server.receive_data(OVER[:4095]) == []
    assert server.data_to_send() == b""
    assert kinds(server.receive_data(OVER[4095:4096])) == [Oversized]
    assert len(split(server.data_to_send())) == 1
    assert server.bytes_to_skip == len(OVER) - 4096
    assert server.is_within_message
    for at in range(4096, len(OVER), 100):
        assert server.receive_data(OVER[at : at + 100]) == []
    assert server.bytes_to_skip == 0


def test_c5_nothing_comes_of_it_where_it_is_here_as_a_whole() -> None:
    server = serving()
    assert server.receive_data(OVER) == []
    assert server.bytes_to_skip == 0


def test_c5_the_end_within_the_rest_is_one_within_a_message() -> None:
    server = serving()
    server.receive_data(OVER[:5000])
    (ended,) = server.receive_eof()
    assert isinstance(ended, Ended)
    assert "within a message" in str(ended.error)


def test_c5_a_call_of_several_segments_fails_alone() -> None:
    far = words(1, 2, 3)[8:]
    frame = segments(
        [
            (to_struct(0, 1, 1), 2, to_far(1, 0)),
            (to_struct(0, 3, 3), 1, 0, 0, to_struct(2, 1, 1), 0, 0, 0, 0),
            (far, BODY),
        ]
    )
    server = serving()
    assert fed(server, frame + read_call(2), 1000)[-1:] != []
    (reply,) = map(decoded, split(server.data_to_send()))
    assert (reply.kind, reply.id) == ("exception", 1)


def test_c5_calls_on_the_results_of_one_fail_as_it_did() -> None:
    server = serving()
    server.receive_data(OVER + read_call(2, promise=1, path=(0,)))
    first, second = map(decoded, split(server.data_to_send()))
    assert (first.id, second.id, second.kind, second.text) == (1, 2, "exception", REASON)


def test_c5_results_that_were_to_stay_are_taken_as_failed() -> None:
    server = serving()
    frame = level_1_frames.call(1, to="yourself", data=[7] * 1500)
    server.receive_data(frame)
    (line,) = sent(server)
    assert "Elsewhere" in line


def test_c5_the_table_of_capabilities_need_not_be_in_the_beginning() -> None:
    frame = padded(level_1_frames.call(1, table=TABLE))
    server = serving()
    assert server.receive_data(frame) == []
    (reply,) = map(decoded, split(server.data_to_send()))
    # The Return gives them all back; a Release as well would be one too many.
    assert (reply.kind, reply.releases_params) == ("exception", True)
    assert server._imports == {}


BACKWARDS = words(
    to_struct(1500, 1, 1),
    bytes(1500 * 8),
    *(2, to_struct(0, 3, 3), 1, 0, 0, to_struct(2, 1, 1), 0, 0, 0, 0),
)


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        # As Rust lays it out: the root's target is at the end.
        (BACKWARDS, "too large"),
        (struct.pack("<II", 0, 4096) + bytes(4096), "too large"),
        # Nobody sends so much: its beginning is not awaited.
        (struct.pack("<II", 0, 1 << 30), "too large"),
        (struct.pack("<IIII", 2, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF), "too large"),
        (read_words(0, to_list(0, 2, len(BODY) + 1), BODY + b"\0"), "question 0 is already in use"),
    ],
    ids=["backwards", "zeros", "8 GiB", "three times 32 GiB", "id in use"],
)
def test_c5_what_tells_no_call_ends_the_connection(stream: bytes, reason: str) -> None:
    server = serving()
    events = fed(server, stream, 512)
    assert kinds(events) == [Ended]
    (abort,) = map(decoded, split(server.data_to_send()))
    assert abort.kind == "abort"
    assert reason in abort.text


def test_c5_a_target_that_is_no_export_ends_the_connection() -> None:
    frame = bytearray(OVER)
    # The one word of the target, behind table, root, Message, Call and its three pointers.
    target = 8 + 8 * 9
    struct.pack_into("<I", frame, target, 9)
    server = serving()
    assert kinds(server.receive_data(bytes(frame))) == [Ended]
    (abort,) = map(decoded, split(server.data_to_send()))
    assert abort.text == "message target 9 is not a current export"


# --- answers -------------------------------------------------------------------------------


def over_results(answer_id: int, **flags: bool) -> bytes:
    table = [] if flags.get("no_finish") else TABLE
    return padded(level_1_frames.results(answer_id, table, **flags))


@pytest.mark.parametrize("size", [1, 4096, 5000, 1 << 20])
def test_c5_results_over_the_limit_fail_their_call_alone(size: int) -> None:
    client = calling()
    first, second = (client.call(1, 2, EMPTY_STRUCT) for _ in range(2))
    client.data_to_send()
    events = fed(client, over_results(first) + level_1_frames.results(second), size)
    failed, answered = [event for event in events if type(event) is not Oversized]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, TooLarge)
    assert "the limit is 8192 (--max-message)" in failed.error.reason
    assert isinstance(answered, Answered)
    finish, _ = split(client.data_to_send())
    # It gives all back that was in the results.
    assert level_1_frames.line(finish) == level_1_frames.line(
        level_1_frames.message("finish", questionId=first)
    )
    assert client._imports.keys() == {5}


def test_c5_no_finish_follows_results_that_need_none() -> None:
    client = calling()
    number = client.call(1, 2, EMPTY_STRUCT)
    client.data_to_send()
    (failed,) = client.receive_data(over_results(number, no_finish=True))
    assert isinstance(failed, Failed)
    assert client.data_to_send() == b""


def test_c5_results_of_a_call_that_was_given_up_are_dropped() -> None:
    client = calling()
    number = client.call(1, 2, EMPTY_STRUCT)
    client.cancel(number)
    assert client.receive_data(over_results(number)) == []


def test_c5_results_of_no_question_end_the_connection() -> None:
    client = calling()
    assert kinds(client.receive_data(over_results(77))) == [Ended]


# --- limits --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [65_535, 536_870_913, 2**31, 0, -1])
def test_c12_a_limit_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="must be 64 KiB to 512 MiB"):
        Limits.of_message(size, "")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (65_536, (8192, 8 << 20, 16 << 20, 8 << 20)),
        (4 << 20, (524_288, 8 << 20, 16 << 20, 8 << 20)),
        (512 << 20, (64 << 20, 256 << 20, 1 << 30, 1 << 30)),
    ],
)
def test_what_waits_has_room_for_two_messages(size: int, expected: tuple[int, ...]) -> None:
    limits = Limits.of_message(size, "")
    frame = limits.frame
    assert expected == (
        *(frame.max_words, frame.traversal_words),
        *(limits.max_waiting_bytes, limits.max_params_bytes),
    )


def test_the_default_is_that_of_4_mib() -> None:
    assert Limits() == Limits.of_message(4 << 20, "")


def test_the_error_has_no_bounds_where_no_beginning_is_asked_for() -> None:
    assert FrameTooLarge("reason").bounds == ()
