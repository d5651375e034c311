import struct

import pytest

from capnp_rig.wire.encoding.frames import FrameDecoder, FrameLimits
from capnp_rig.wire.errors import RemoteProtocolError

ONE_WORD = bytes.fromhex("00000000 01000000 0102030405060708")
TWO_SEGMENTS = bytes.fromhex(
    "01000000 01000000 02000000 00000000 1111111111111111 2222222222222222 3333333333333333"
)
THREE_SEGMENTS = bytes.fromhex("02000000 01000000 00000000 01000000") + b"a" * 8 + b"b" * 8


def segments(decoder: FrameDecoder, data: bytes) -> list[list[bytes]]:
    return [
        [bytes(message.buffer[start:end]) for start, end in message.bounds]
        for message in decoder.feed(data)
    ]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (ONE_WORD, [bytes.fromhex("0102030405060708")]),
        (TWO_SEGMENTS, [b"\x11" * 8, b"\x22" * 8 + b"\x33" * 8]),
        (THREE_SEGMENTS, [b"a" * 8, b"", b"b" * 8]),
        (bytes(8), [b""]),
    ],
)
def test_segments_are_found(frame: bytes, expected: list[bytes]) -> None:
    assert segments(FrameDecoder(), frame) == [expected]


def test_a_stream_cut_anywhere_gives_the_same_messages() -> None:
    stream = ONE_WORD + TWO_SEGMENTS + THREE_SEGMENTS + ONE_WORD
    whole = segments(FrameDecoder(), stream)
    assert len(whole) == 4
    for cut in range(len(stream) + 1):
        decoder = FrameDecoder()
        assert segments(decoder, stream[:cut]) + segments(decoder, stream[cut:]) == whole
        assert decoder.pending_bytes == 0


def test_a_stream_of_single_bytes_gives_the_same_messages() -> None:
    stream = TWO_SEGMENTS + ONE_WORD + THREE_SEGMENTS
    decoder = FrameDecoder()
    found = [part for byte in stream for part in segments(decoder, bytes([byte]))]
    assert found == segments(FrameDecoder(), stream)


def test_only_the_frame_that_is_partly_here_is_kept() -> None:
    decoder = FrameDecoder()
    assert segments(decoder, ONE_WORD + ONE_WORD[:11]) == [[bytes.fromhex("0102030405060708")]]
    assert decoder.pending_bytes == 11


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("ffffffff", "message has 4294967296 segments, the limit is 511"),
        ("ff010000", "message has 512 segments, the limit is 511"),
        ("00000000 00000800", "message is too large: 4194312 bytes, the limit is 4194304"),
        (
            "01000000 00000400 00000400 00000000",
            "message is too large: 4194320 bytes, the limit is 4194304",
        ),
        (
            "00000000 ffffffff",
            "message is too large: 34359738368 bytes, the limit is 4194304",
        ),
    ],
)
def test_a_table_over_a_limit_is_refused_before_its_body_comes(table: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        list(FrameDecoder().feed(bytes.fromhex(table)))
    assert str(error.value) == reason


def test_511_segments_are_accepted() -> None:
    frame = struct.pack("<512I", 510, *[0] * 510, 1) + b"lastword"
    assert segments(FrameDecoder(), frame)[0][510] == b"lastword"


def test_a_frame_of_exactly_the_limit_is_accepted() -> None:
    limits = FrameLimits(max_words=3)
    assert segments(FrameDecoder(limits), struct.pack("<II", 0, 2) + bytes(16)) == [[bytes(16)]]
    with pytest.raises(RemoteProtocolError, match="too large: 32 bytes, the limit is 24"):
        list(FrameDecoder(limits).feed(struct.pack("<II", 0, 3)))


def test_messages_before_a_bad_table_are_not_lost() -> None:
    found = FrameDecoder().feed(ONE_WORD + b"\xff" * 8)
    assert next(found).bounds == ((8, 16),)
    with pytest.raises(RemoteProtocolError):
        next(found)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_words": 1},
        {"max_words": 2**28},
        {"max_segments": 0},
        {"max_segments": 512},
        {"traversal_words": 0},
    ],
)
def test_limits_that_cannot_hold_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        FrameLimits(**limits)
