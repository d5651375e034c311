"""B7: where the frames of an HTTP/2 connection begin, cut at any byte."""

import pytest

from capnp_rig.server.stacks.http2_frames import PREFACE, Http2Frames

SETTINGS = bytes(3) + b"\x04" + bytes(5)
DATA = b"\x00\x01\x2c\x00\x01" + bytes(4) + bytes(300)


@pytest.mark.parametrize("size", [1, 2, 7, 9, 10, 300, 1000])
def test_frames_are_followed_in_any_pieces(size: int) -> None:
    frames = Http2Frames()
    frames.begin(PREFACE)
    assert (frames.begun_at, frames.is_partial) == (len(PREFACE), False)
    stream = SETTINGS + DATA + SETTINGS + DATA
    for at in range(0, len(stream), size):
        frames.feed(stream[at : at + size], is_within=False)
    assert not frames.is_partial
    assert frames.received_bytes == len(PREFACE) + len(stream)
    frames.feed(DATA[:-1], is_within=False)
    assert (frames.is_partial, frames.begun_at) == (True, len(PREFACE) + len(stream))
    # The same frame, and then the same request.
    frames.feed(DATA[-1:], is_within=False)
    begun_at = frames.begun_at
    frames.feed(DATA, is_within=True)
    assert (frames.is_partial, frames.begun_at) == (False, begun_at)


def test_what_comes_with_the_preface_counts() -> None:
    frames = Http2Frames()
    frames.begin(PREFACE + SETTINGS[:4])
    assert frames.is_partial
