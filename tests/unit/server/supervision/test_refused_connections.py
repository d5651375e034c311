"""Refused connections, over TCP: a reset is what this is about."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import pytest

from capnp_rig.server.supervision import refused_connections
from capnp_rig.server.supervision.refused_connections import (
    LINGER_BYTES,
    MAX_LINGERING,
    RefusedConnections,
)

WORDS = b"no room"


class Pairs:
    """Makes connections, and closes the peers' ends."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.peers: list[socket.socket] = []

    def make(self) -> tuple[socket.socket, socket.socket]:
        peer = socket.create_connection(self._listener.getsockname(), 5)
        self.peers.append(peer)
        ours, _ = self._listener.accept()
        return ours, peer

    def close(self) -> None:
        for peer in (*self.peers, self._listener):
            peer.close()


def run(check: Callable[[RefusedConnections, Pairs], Awaitable[None]]) -> None:
    async def body() -> None:
        ends, pairs = RefusedConnections(asyncio.get_running_loop()), Pairs()
        try:
            await asyncio.wait_for(check(ends, pairs), 20)
        finally:
            ends.close()
            pairs.close()
        assert len(ends) == 0

    asyncio.run(body())


def read_all(peer: socket.socket) -> bytes:
    return b"".join(iter(lambda: peer.recv(4096), b""))


async def until(check: Callable[[], bool]) -> None:
    while not check():
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("sent", [0, 100, 20_000])
def test_b6_the_reason_is_read_whatever_the_peer_has_sent(sent: int) -> None:
    async def check(ends: RefusedConnections, pairs: Pairs) -> None:
        for _ in range(20):
            ours, peer = pairs.make()
            peer.sendall(bytes(sent))
            ends.end(ours, WORDS)
            peer.sendall(bytes(sent))
            await asyncio.sleep(0)
            assert read_all(peer) == WORDS
            peer.close()
        await until(lambda: len(ends) == 0)

    run(check)


def test_b6_the_reason_is_read_by_a_peer_that_first_writes_its_largest_calls() -> None:
    async def check(ends: RefusedConnections, pairs: Pairs) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(20):
            ours, peer = pairs.make()
            ends.end(ours, WORDS)
            # Nothing of it may fail, and it does when our end has closed.
            await loop.run_in_executor(None, peer.sendall, bytes(8_388_608))
            assert await loop.run_in_executor(None, read_all, peer) == WORDS
            peer.close()
        await until(lambda: len(ends) == 0)

    run(check)


def test_b6_a_peer_that_stays_is_closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_connections, "LINGER_S", 0.1)

    async def check(ends: RefusedConnections, pairs: Pairs) -> None:
        ours, peer = pairs.make()
        ends.end(ours, WORDS)
        await until(lambda: len(ends) == 0)
        assert ours.fileno() == -1
        assert read_all(peer) == WORDS

    run(check)


def test_b6_a_peer_that_only_sends_is_not_listened_to_for_long() -> None:
    async def check(ends: RefusedConnections, pairs: Pairs) -> None:
        ours, peer = pairs.make()
        ends.end(ours, WORDS)
        peer.settimeout(0)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 4 * LINGER_BYTES:
                with contextlib.suppress(BlockingIOError):
                    sent += peer.send(bytes(65_536))
                await asyncio.sleep(0)
        assert sent < 4 * LINGER_BYTES
        assert ours.fileno() == -1

    run(check)


def test_b6_the_oldest_goes_when_there_are_too_many() -> None:
    async def check(ends: RefusedConnections, pairs: Pairs) -> None:
        made = [pairs.make() for _ in range(MAX_LINGERING + 3)]
        for ours, peer in made:
            peer.sendall(b"Bootstrap")
            ends.end(ours, WORDS)
        assert len(ends) == MAX_LINGERING
        assert [ours.fileno() == -1 for ours, _ in made] == [True] * 3 + [False] * MAX_LINGERING
        # What had come by then was read, so even those get the words.
        assert {read_all(peer) for _, peer in made} == {WORDS}

    run(check)


def test_b3_a_peer_that_has_gone_costs_nothing() -> None:
    async def check(ends: RefusedConnections, pairs: Pairs) -> None:
        ours, peer = pairs.make()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        peer.close()
        ends.end(ours, WORDS)
        await until(lambda: len(ends) == 0)
        assert ours.fileno() == -1

    run(check)
