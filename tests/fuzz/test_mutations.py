"""Mutated real frames, and structs built at random, against pycapnp (faults.md, C7, C11, C15).

A longer run: ``FUZZ_FRAMES=5000000 FUZZ_SEED=7 python tests/fuzz/mutate.py``.
"""

import random
import struct

import pytest
from fuzz.mutate import (
    KINDS,
    Fuzzer,
    Recorded,
    native,
    rare_values,
    reading_of,
    record,
    sample_values,
)

from capnp_rig.wire.encoding.encoded import EncodedTuple
from capnp_rig.wire.encoding.frames import FrameDecoder
from capnp_rig.wire.encoding.pointers import Message, root_pointer
from capnp_rig.wire.encoding.structs import compile_struct

SEED = 1
FRAMES = 6_000
KIND = compile_struct(KINDS.Kinds.schema)
RARE = compile_struct(KINDS.Rare.schema)


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return record(SEED)


# Seconds; `tox -e fuzz` runs 5 million.
def test_c7_mutated_frames_end_in_an_answer_or_a_typed_error(recorded: Recorded) -> None:
    fuzzer = Fuzzer(recorded, SEED)
    fuzzer.run(FRAMES)
    # The loop means something: every outcome comes, and answers were compared.
    assert {"Ended", "refused", "read", "Failed", "Unreadable"} <= set(fuzzer.outcomes)
    assert fuzzer.outcomes["compared"] > FRAMES / 100


def test_c13_recorded_frames_are_read_whole(recorded: Recorded) -> None:
    for stream, sides in ((recorded.to_server, 40), (recorded.to_client, 40)):
        (decoder, joined) = FrameDecoder(), b"".join(stream)
        found = [
            bytes(message.buffer[message.bounds[0][0] : message.bounds[-1][1]])
            for message in decoder.feed(joined)
        ]
        assert len(found) == len(stream) > sides
        assert all(frame.endswith(body) for frame, body in zip(stream, found, strict=True))


def only(data: bytes) -> Message:
    (message,) = FrameDecoder().feed(data)
    return message


def framed(body: EncodedTuple) -> bytes:
    sizes, parts, words = body
    return struct.pack("<IIQ", 0, words + 1, sizes << 32) + b"".join(parts)


def test_c15_what_pycapnp_builds_in_any_segments_reads_the_same() -> None:
    chance = random.Random(SEED)
    several = 0
    for _ in range(2000):
        values = sample_values(chance)
        build = KINDS.Kinds.new_message(chance.choice([1, 2, 8, 30, 1024]), **values)
        data = build.to_bytes()
        several += data[0] > 0
        with KINDS.Kinds.from_bytes(data) as reader:
            expected = reading_of(reader)
        assert native(KIND.read(root_pointer(only(data)))) == expected, data.hex()
    assert several > 500


def test_c15_what_we_write_pycapnp_reads_the_same() -> None:
    chance = random.Random(SEED)
    for _ in range(2000):
        values = sample_values(chance)
        data = framed(KIND.write(values))
        with KINDS.Kinds.from_bytes(data) as reader:
            found = reading_of(reader)
        with KINDS.Kinds.from_bytes(KINDS.Kinds.new_message(**values).to_bytes()) as reader:
            expected = reading_of(reader)
        assert found == expected, (values, data.hex())
        assert native(KIND.read(root_pointer(only(data)))) == expected, (values, data.hex())


def test_c15_structs_with_unions_and_groups_read_the_same() -> None:
    chance = random.Random(SEED)
    for _ in range(300):
        values = rare_values(chance)
        data = KINDS.Rare.new_message(chance.choice([1, 8, 1024]), **values).to_bytes()
        for written in (data, framed(RARE.write(values))):
            with KINDS.Rare.from_bytes(written) as reader:
                expected = reading_of(reader)
            assert native(RARE.read(root_pointer(only(written)))) == expected, written.hex()
