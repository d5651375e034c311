"""What is no frame is recognised by its first bytes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_peer import RPC, bootstrap, call, decoded, encoded, segments, to_struct, words

from capnp_rig.wire.encoding.foreign_protocols import Foreign, _unpacked, recognise
from capnp_rig.wire.encoding.structs import compile_struct
from capnp_rig.wire.errors import MalformedMessage
from capnp_rig.wire.rpc.connection import Ended
from capnp_rig.wire.rpc.server_connection import ServerConnection


def packed(build: Any) -> bytes:
    build.clear_write_flag()
    data: bytes = build.to_bytes_packed()
    return data


def a_call(text: str) -> Any:
    return RPC.Message.from_bytes(call(3, text))


HTTP = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"HTTP/1.1 400 Bad Request\r\n",
    b"HTTP",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    # The SETTINGS that a gRPC server sends first.
    bytes.fromhex("00 0006 04 00 00000000 0005 00004000"),
    bytes.fromhex("00 0000 04"),
]
TLS = [
    bytes.fromhex("16030100c8010000c40303"),
    bytes.fromhex("15030300020228"),
    bytes.fromhex("16030000"),
]


@pytest.mark.parametrize("first", HTTP)
def test_f9_http_is_recognised(first: bytes) -> None:
    assert recognise(first) is Foreign.HTTP


@pytest.mark.parametrize("first", TLS)
def test_f9_tls_is_recognised(first: bytes) -> None:
    assert recognise(first) is Foreign.TLS


@pytest.mark.parametrize("text", ["", "abc", "x" * 300, "y" * 5000, "é" * 100_000])
def test_packed_messages_are_recognised_from_four_bytes_on(text: str) -> None:
    with a_call(text) as message:
        data = packed(message.as_builder())
    for size in (4, 5, 8, 16, 64, len(data)):
        assert recognise(data[:size]) is Foreign.PACKED, (size, data[:size])


def test_a_packed_message_of_two_segments_is_recognised() -> None:
    build = RPC.Message.new_message(num_first_segment_words=4)
    build.init("abort").reason = "x" * 1000
    assert encoded(build)[0], "it has one segment only"
    assert recognise(packed(build)) is Foreign.PACKED


@pytest.mark.parametrize(
    "frame",
    [
        bootstrap(),
        call(1, "abc"),
        call(1, "x" * 5000),
        words(to_struct(0, 0, 0)),
        segments([(1,), *([()] * 15), (2,)]),
        b"\xff\x01\0\0" + bytes(60),
    ],
)
def test_frames_are_not_taken_for_something_else(frame: bytes) -> None:
    for size in range(len(frame) + 1):
        assert recognise(frame[:size]) is None


@pytest.mark.parametrize(
    "first",
    [b"", b"GET", b"SSH-2.0-OpenSSH\r\n", b'{"method": 1}\n', b"\xff" * 64, b"220 mail\r\n"],
)
def test_what_is_unknown_is_not_named(first: bytes) -> None:
    assert recognise(first) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_judged_without_an_error(first: bytes) -> None:
    recognise(first)
    recognise(memoryview(first))


@given(st.lists(st.sampled_from([0, 0, 0, 1, 255, 2**64 - 1, 2**63, 0x0102]), max_size=12))
def test_words_are_unpacked_as_pycapnp_packs_them(content: list[int]) -> None:
    build = RPC.Message.new_message()
    build.init("abort").reason = b"".join(n.to_bytes(8, "little") for n in content).decode(
        "latin-1"
    )
    data = packed(build)
    build.clear_write_flag()
    assert _unpacked(data)[:256] == encoded(build)[:256]


@pytest.mark.parametrize(
    ("first", "hint"),
    [
        (HTTP[0], ": it looks like HTTP"),
        (TLS[0], ": it looks like TLS"),
        (b"\xff" * 16, ""),
    ],
)
def test_f9_the_reason_of_an_abort_names_what_came(first: bytes, hint: str) -> None:
    reason, _ = aborted(first)
    assert reason.endswith(f"segments, the limit is 511{hint}")


def test_a_server_names_packed_frames_in_its_abort() -> None:
    with RPC.Message.from_bytes(bootstrap()) as message:
        data = packed(message.as_builder())
    for size in (4, 7, len(data)):
        reason, sent = aborted(data[:size])
        assert reason.endswith(": it looks like packed Cap'n Proto, which must be unpacked first")
        assert decoded(sent).text == reason


def aborted(first: bytes) -> tuple[str, bytes]:
    server = ServerConnection()
    (ended,) = server.receive_data(first)
    assert isinstance(ended, Ended)
    return str(ended.error), server.data_to_send()


def test_a_packed_message_for_a_codec_is_named() -> None:
    build = RPC.Message.new_message()
    build.init("abort").reason = "x"
    codec = compile_struct(RPC.Message.schema)
    with pytest.raises(MalformedMessage, match="looks like packed Cap'n Proto"):
        codec.from_bytes(packed(build))
