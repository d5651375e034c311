"""What the faults of `toxics.py` do to bytes, on literals: each is right or the tests are not."""

from math import inf
from random import Random

import pytest
from toxics import (
    Bandwidth,
    Do,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Step,
    Timeout,
    Toxic,
    Way,
)


def played(way: Way, *toxics: Toxic, from_s: float = 0.0) -> list[tuple[float, Do, bytes]]:
    """Return what is done and when, with a clock that goes on to where the next thing is due."""
    now_s, seen = from_s, []
    while True:
        step = way.next(toxics, now_s)
        if step.do is not Do.WAIT:
            seen.append((round(now_s, 6), step.do, step.data))
            if step.do is not Do.SEND:
                return seen
        elif step.until_s == inf:
            return seen
        else:
            now_s = step.until_s


def holding(*pieces: bytes, ends: bool = False) -> Way:
    way = Way(Random(1))
    for piece in pieces:
        way.receive(piece, 0.0)
    if ends:
        way.receive_end(0.0)
    return way


@pytest.mark.parametrize(
    ("toxics", "seen"),
    [
        ([], [(0, Do.SEND, b"abcdef"), (0, Do.END, b"")]),
        ([Latency(0.2)], [(0.2, Do.SEND, b"abcdef"), (0.2, Do.END, b"")]),
        (
            [Latency(0.2), Latency(0.1, toxicity=0.0)],
            [(0.2, Do.SEND, b"abcdef"), (0.2, Do.END, b"")],
        ),
        # A tenth of a second's worth at once.
        (
            [Bandwidth(20)],
            [(0, Do.SEND, b"ab"), (0.1, Do.SEND, b"cd"), (0.2, Do.SEND, b"ef"), (0.3, Do.END, b"")],
        ),
        ([Bandwidth(0)], []),
        ([SlowClose(0.5)], [(0, Do.SEND, b"abcdef"), (0.5, Do.END, b"")]),
        ([Timeout()], []),
        ([Timeout(0.3)], [(0.3, Do.CLOSE, b"")]),
        ([ResetPeer(0.3), Latency(0.2)], [(0.2, Do.SEND, b"abcdef"), (0.2, Do.END, b"")]),
        ([ResetPeer(0.3), Latency(0.4)], [(0.3, Do.RESET, b"")]),
        (
            [Slicer(4, delay_s=0.1)],
            [(0, Do.SEND, b"abcd"), (0.1, Do.SEND, b"ef"), (0.2, Do.END, b"")],
        ),
        ([LimitData(4)], [(0, Do.SEND, b"abcd"), (0, Do.CLOSE, b"")]),
        ([LimitData(0)], [(0, Do.CLOSE, b"")]),
    ],
)
def test_what_a_toxic_does(toxics: list[Toxic], seen: list[tuple[float, Do, bytes]]) -> None:
    assert played(holding(b"abcdef", ends=True), *toxics) == seen


def test_jitter_is_drawn_for_each_piece_and_keeps_their_order() -> None:
    pieces = [bytes([number]) for number in range(50)]
    seen = played(holding(*pieces), Latency(0.2, 0.1))
    assert [data for _, _, data in seen] == pieces
    assert 0.1 <= seen[0][0] <= seen[-1][0] <= 0.3
    assert seen == played(holding(*pieces), Latency(0.2, 0.1))
    assert len({at_s for at_s, _, _ in seen}) > 3


def test_slices_vary_and_lose_nothing() -> None:
    data = bytes(range(200))
    slices = [piece for _, _, piece in played(holding(data), Slicer(10, 5))]
    assert b"".join(slices) == data
    assert {len(piece) for piece in slices[:-1]} <= set(range(5, 16))
    assert len({len(piece) for piece in slices}) > 3


def test_toxicity_is_drawn_once_for_a_connection() -> None:
    doubtful = Latency(1.0, toxicity=0.3)
    hit = 0
    for number in range(1000):
        way = Way(Random(number))
        way.receive(b"a", 0.0)
        first = way.next([doubtful], 0.0)
        assert all(way.next([doubtful], 0.0).do is first.do for _ in range(3 * (first.data == b"")))
        hit += first.do is Do.WAIT
    assert 250 < hit < 350


def test_toxics_may_be_others_while_bytes_wait() -> None:
    way = holding(b"abc", ends=True)
    assert way.next([Latency(5.0)], 1.0) == Step(Do.WAIT, until_s=5.0)
    assert way.next([Bandwidth(0)], 9.0) == Step(Do.WAIT)
    assert way.waiting_bytes == 3
    assert way.next([], 9.0) == Step(Do.SEND, b"abc")
    assert way.waiting_bytes == 0
    # It counts from when it began to act.
    assert way.next([ResetPeer(2.0), Bandwidth(0)], 10.0).until_s == 12.0
    assert way.next([ResetPeer(2.0)], 12.0).do is Do.RESET


def test_a_black_hole_that_ends_closes_what_lost_bytes() -> None:
    untouched, hurt = Way(Random(1)), holding(b"abc")
    for way in (untouched, hurt):
        assert way.next([Timeout()], 0.0) == Step(Do.WAIT)
    assert untouched.next([], 1.0).do is Do.WAIT
    assert hurt.next([], 1.0).do is Do.CLOSE


def test_a_reset_comes_after_what_was_sent_before_it() -> None:
    way = holding(b"abc")
    way.receive_end(0.0, is_reset=True)
    assert played(way, Latency(0.1)) == [(0.1, Do.SEND, b"abc"), (0.1, Do.RESET, b"")]
