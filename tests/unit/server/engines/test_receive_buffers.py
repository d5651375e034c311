"""Which buffer a read goes into, and what a service may hold of those before (C14)."""

import logging
from typing import Any

import pytest

from capnp_rig.server.engines import receive_buffers
from capnp_rig.server.engines.receive_buffers import RECEIVE_BYTES, SMALL_BYTES, ReceiveBuffers

LARGE = 40_000


def buffers() -> ReceiveBuffers:
    log: Any = logging.getLogger("test")
    return ReceiveBuffers(log)


def read(pool: ReceiveBuffers, data: bytes) -> Any:
    """Receive `data` as a transport does."""
    room = pool.room()
    with memoryview(room) as whole:
        whole[: len(data)] = data
    return pool.received(len(data))


def test_c14_a_read_of_which_nothing_is_kept_goes_into_the_same_buffer_again() -> None:
    pool = buffers()
    first = pool.room()
    for number in range(1000):
        received = read(pool, bytes([number % 256]) * LARGE)
        assert received == bytes([number % 256]) * LARGE
        received.release()
        assert pool.room() is first
    # Small ones need no look at all.
    read(pool, b"small")
    assert pool.is_free
    assert (pool.held, len(first)) == (0, RECEIVE_BYTES)


@pytest.mark.parametrize("size", [1, SMALL_BYTES, SMALL_BYTES + 1, RECEIVE_BYTES])
def test_c14_what_is_kept_never_changes(size: int) -> None:
    pool = buffers()
    kept = []
    for number in range(10):
        received = read(pool, bytes([number]) * size)
        kept.append(memoryview(received)[size // 2 :])
        if type(received) is memoryview:
            received.release()
    for number, view in enumerate(kept):
        assert view == bytes([number]) * (size - size // 2)


def test_c14_buffers_given_away_are_counted_and_forgotten_when_they_are_free() -> None:
    pool = buffers()
    kept = []
    for _ in range(5):
        received = read(pool, bytes(LARGE))
        kept.append(received[:1])
        received.release()
    pool.room()
    assert pool.held == 5
    kept.clear()
    for _ in range(5):
        pool.room()
    assert pool.held == 0


def test_c14_past_the_bound_each_read_is_copied(caplog: pytest.LogCaptureFixture) -> None:
    pool = buffers()
    kept = []
    for number in range(200):
        received = read(pool, number.to_bytes(2, "little") * 20_000)
        kept.append(memoryview(received)[:2])
        if type(received) is memoryview:
            received.release()
        assert pool.held <= receive_buffers._MAX_HELD
    # What is kept now pins its own read only.
    assert kept[-1].obj == bytearray((199).to_bytes(2, "little") * 20_000)
    assert [int.from_bytes(view, "little") for view in kept] == list(range(200))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    kept.clear()
    for _ in range(receive_buffers._MAX_HELD):
        pool.room()
    assert pool.held == 0
    # And the buffer itself is used again.
    received = read(pool, bytes(LARGE))
    assert type(received) is memoryview
    received.release()
