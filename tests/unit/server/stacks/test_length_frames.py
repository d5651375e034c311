"""Length-prefixed frames, however the stream is cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capnp_rig.server.stacks.length_frames import BinaryPayload, FrameReader, binary_frame, frame


def read(*portions: bytes, limit_bytes: int = 1000) -> tuple[list[bytes], str | None]:
    reader = FrameReader(limit_bytes)
    payloads: list[bytes] = []
    for portion in portions:
        if reader.fault is None:
            payloads += reader.feed(memoryview(portion))
    return payloads, reader.fault


def test_a_frame_is_its_length_and_its_bytes() -> None:
    assert frame(b"Hello") == bytes.fromhex("05 00 00 00 48 65 6c 6c 6f")
    assert frame(b"") == bytes(4)


@given(payloads=st.lists(st.binary(max_size=300), max_size=6), data=st.data())
def test_payloads_come_out_of_any_portions(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(frame, payloads))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=9)))
    portions = [stream[begin:end] for begin, end in pairwise([0, *cuts, len(stream)])]
    assert read(*portions) == (payloads, None)
    assert read(*(stream[at : at + 1] for at in range(len(stream)))) == (payloads, None)


@pytest.mark.parametrize("cut", range(20))
def test_a_frame_over_the_limit_is_a_fault_as_soon_as_it_announces_itself(cut: int) -> None:
    stream = frame(b"first") + frame(b"x" * 10) + (11).to_bytes(4, "little") + b"x"
    fault = "a frame may have at most 10 bytes"
    assert read(stream[:cut], stream[cut:], limit_bytes=10) == ([b"first", b"x" * 10], fault)


def test_what_is_partly_here_is_all_that_is_kept() -> None:
    reader = FrameReader(1_000_000)
    assert reader.feed(frame(b"a") + (500_000).to_bytes(4, "little") + b"xyz") == [b"a"]
    assert len(reader._kept) == 7
    assert reader.feed(b"x" * 499_997) == [b"xyz" + b"x" * 499_997]
    assert not reader._kept


def test_frames_of_bytes_are_told_from_those_of_texts() -> None:
    assert binary_frame(b"\x01\x02\xff") == bytes.fromhex("03 00 00 80 01 02 ff")
    payloads, fault = read(frame(b"a") + binary_frame(b"b") + frame(b"c") + binary_frame(b""))
    assert (payloads, fault) == ([b"a", b"b", b"c", b""], None)
    assert [type(payload) is BinaryPayload for payload in payloads] == [False, True, False, True]
    assert read(binary_frame(b"x" * 300)) == ([b"x" * 300], None)
    assert read(binary_frame(b"x" * 10), limit_bytes=10) == ([b"x" * 10], None)
    assert read(binary_frame(b"x" * 11), limit_bytes=10)[1] == "a frame may have at most 10 bytes"
