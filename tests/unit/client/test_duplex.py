"""The socket of a blocking client sends buffers in order, however little the kernel takes."""

import asyncio
import random
import socket
import tracemalloc
from collections.abc import Iterator

import pytest
import uvloop

from capnp_rig.client.duplex import DuplexSocket


@pytest.fixture
def pair() -> Iterator[tuple[DuplexSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    theirs.settimeout(10)
    with ours, theirs:
        yield DuplexSocket(ours), theirs


def test_buffers_leave_in_order_and_uncopied(pair: tuple[DuplexSocket, socket.socket]) -> None:
    duplex, peer = pair
    rng = random.Random(5)
    expected = b""
    for size in (0, 1, 100_000, 7, 300_000, 20_000, 5):
        data = rng.randbytes(size)
        expected += data
        if size % 2:
            duplex.send(data)
        else:
            duplex.send_buffers([part for part in (data[: size // 3], data[size // 3 :]) if part])
    assert duplex.is_blocked
    held = [view.obj for view in duplex._unsent]
    assert len(held) > 2
    received = b""
    while len(received) < len(expected):
        received += peer.recv(10_000)
        duplex.flush()
    assert received == expected
    assert not duplex.is_blocked


def test_what_waits_is_no_copy(pair: tuple[DuplexSocket, socket.socket]) -> None:
    duplex, _ = pair
    data = bytes(1 << 22)
    tracemalloc.start()
    duplex.send_buffers([b"head", data, b"tail"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000
    assert duplex._unsent[0].obj is data


def test_uvloop_does_not_copy_what_waits_either(pair: tuple[DuplexSocket, socket.socket]) -> None:
    _, peer = pair

    async def peak_of_writelines() -> int:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=peer)
        data = bytes(1 << 22)
        tracemalloc.start()
        transport.writelines([b"head", data, b"tail"])
        await asyncio.sleep(0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert transport.get_write_buffer_size() > 1 << 20
        transport.abort()
        return peak

    assert uvloop.run(peak_of_writelines()) < 50_000


def test_small_ones_that_wait_are_joined(pair: tuple[DuplexSocket, socket.socket]) -> None:
    duplex, _ = pair
    duplex.send(bytes(1 << 20))
    waiting = len(duplex._unsent)
    for _ in range(100):
        duplex.queue(b"small")
    assert len(duplex._unsent) == waiting + 1


def test_more_buffers_than_one_write_takes(pair: tuple[DuplexSocket, socket.socket]) -> None:
    duplex, peer = pair
    duplex.send_buffers([bytes([at % 256]) for at in range(3000)])
    received = b""
    while len(received) < 3000:
        received += peer.recv(10_000)
        duplex.flush()
    assert received == bytes(at % 256 for at in range(3000))


def test_a_peer_that_is_gone_takes_nothing(pair: tuple[DuplexSocket, socket.socket]) -> None:
    duplex, peer = pair
    peer.close()
    duplex.send_buffers([b"x", b"y"])
    assert duplex.is_blocked
    assert duplex._unsent == []
