import asyncio
from random import Random
from typing import Any

import pytest

from capnp_rig.loadtest.engine.places import Places
from capnp_rig.loadtest.stats.endpoint_tally import EndpointTally
from capnp_rig.loadtest.stats.tally import Tally
from capnp_rig.objects.errors import ConnectError, Disconnected
from capnp_rig.rigcli.address import Address, parse_addresses

LOST = Disconnected("gone")


class FakeConnection:
    def __init__(self, server: "Server") -> None:
        self.server = server
        self.log: list[str] = []

    def begin(self) -> None:
        self.log.append("begin")

    def retire(self) -> None:
        self.log.append("retire")


class Server:
    def __init__(self, address: Address, tally: Tally) -> None:
        self.address = address
        self.tally = EndpointTally(tally, str(address))
        self.is_up = True
        self.tries = 0


class FakeLoad:
    def __init__(self, addresses: str) -> None:
        self.running = True
        self.tally = Tally(open_ns=0)
        self.endpoints = [Server(each, self.tally) for each in parse_addresses(addresses)]
        self.connections: dict[int, FakeConnection] = {}
        self.places: Places[FakeConnection, Server] = Places(self, 0, Random(1))

    async def open(self, number: int, endpoint: Server, *, again: bool) -> FakeConnection:
        await asyncio.sleep(0)
        endpoint.tries += 1
        if not endpoint.is_up:
            raise ConnectError("refused")
        endpoint.tally.connected(0, 1, again=again)
        return FakeConnection(endpoint)

    @property
    def spread(self) -> list[int]:
        """The server of each place."""
        at = [self.endpoints.index(self.connections[each].server) for each in range(4)]
        assert len(at) == len(self.connections)
        return at

    def lose(self, server: Server) -> None:
        server.is_up = False
        for number, connection in list(self.connections.items()):
            if connection.server is server:
                del self.connections[number]
                self.places.lost(number, connection, LOST)

    def answer(self) -> None:
        for connection in list(self.places.fresh):
            self.places.answered(connection)


async def until(holds: Any) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


async def _lose_and_return() -> None:
    load = FakeLoad("a:1,b:2")
    await asyncio.gather(*map(load.places.connect, range(4)))
    assert load.spread == [0, 1, 0, 1]
    load.answer()
    first, _second = load.endpoints
    load.lose(first)
    await until(lambda: len(load.connections) == 4)
    assert load.spread == [1, 1, 1, 1]
    guests = [load.connections[0], load.connections[2]]
    assert [guest.log for guest in guests] == [["begin"], ["begin"]]
    # Two places are connected there. It is tried at once, and after pauses.
    await until(lambda: first.tries == 2 + 3)
    first.is_up = True
    await until(lambda: 0 in load.spread)
    # It takes connections, and the other one waits until it answers.
    await asyncio.sleep(0.2)
    assert load.spread.count(0) == 1
    load.answer()
    await until(lambda: load.spread == [0, 1, 0, 1])
    assert [guest.log for guest in guests] == [["begin", "retire"], ["begin", "retire"]]
    report = load.tally.take()
    assert [change.is_lost for change in report.changes] == [True, False]
    assert {change.endpoint for change in report.changes} == {"a:1"}
    parts = report.total.endpoints
    assert parts["a:1"].failures == {"ConnectError: refused": 3}
    assert (parts["a:1"].ended, parts["b:2"].ended) == (2, 2)


def test_places_leave_a_server_that_is_lost_and_come_back_when_it_answers() -> None:
    asyncio.run(_lose_and_return())


async def _start_with_one_down() -> None:
    load = FakeLoad("a:1,b:2")
    load.endpoints[0].is_up = False
    await asyncio.gather(*map(load.places.connect, range(4)))
    assert load.spread == [1, 1, 1, 1]
    load.running = False


def test_a_load_starts_where_one_of_two_servers_is_there() -> None:
    asyncio.run(_start_with_one_down())


async def _start_with_all_down() -> None:
    load = FakeLoad("a:1,b:2")
    for server in load.endpoints:
        server.is_up = False
    with pytest.raises(ConnectError, match="refused"):
        await load.places.connect(0)


def test_a_load_does_not_start_where_no_server_is_there() -> None:
    asyncio.run(_start_with_all_down())
