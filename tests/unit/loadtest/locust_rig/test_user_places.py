"""Users of two servers, of which one is lost; the sockets are made up."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from capnp_rig.loadtest.locust_rig import user_places
from capnp_rig.loadtest.locust_rig.user_places import UserPlace, UserServers
from capnp_rig.loadtest.stats.tally import Tally
from capnp_rig.objects.errors import ConnectError, Disconnected
from capnp_rig.rigcli.address import Address, parse_addresses

ADDRESSES = parse_addresses("a:1,b:2")
LOST = Disconnected("gone")


class Network:
    """Which servers take connections."""

    def __init__(self) -> None:
        self.up = set(ADDRESSES)
        self.tries: list[Address] = []

    def connect(self, address: Address, _timeout_s: float) -> Any:
        self.tries.append(address)
        if address not in self.up:
            raise ConnectError("refused")
        return self

    def close(self) -> None:
        """Close nothing."""


class User:
    """A user that connects as `CapnpUser` does; `is_pinned` while a capability keeps it."""

    def __init__(self, servers: UserServers, network: Network) -> None:
        self.place: UserPlace = servers.join(self)
        self.has_answered = False
        self.is_pinned = False
        self.is_called = False
        self._network = network

    def connect(self) -> None:
        while self.place.choose():
            gevent.sleep(0.01)
        self.has_answered = self.is_called = False
        try:
            self._network.connect(self.place.address, 1.0)
        except ConnectError as error:
            self.place.ended(error)
            self.connect()
        else:
            self.place.connected()

    def lose(self) -> None:
        self.place.ended(LOST)
        self.connect()

    def come_home(self) -> None:
        self.is_called = True
        if not self.is_pinned:
            self.place.ended(None)
            self.connect()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    network = Network()
    monkeypatch.setattr(user_places, "connect_socket", network.connect)
    return network


class Load:
    def __init__(self, network: Network) -> None:
        self.tally = Tally(open_ns=time.monotonic_ns())
        self.failures: list[str] = []
        self.servers = UserServers(
            ADDRESSES, self.tally, 0, lambda name, *_: self.failures.append(name)
        )
        self.users = [User(self.servers, network) for _ in range(4)]
        for user in self.users:
            user.connect()
            user.has_answered = True

    @property
    def spread(self) -> str:
        return " ".join(user.place.endpoint for user in self.users)


@pytest.fixture
def load(network: Network) -> Iterator[Load]:
    load = Load(network)
    yield load
    load.servers.is_over = True


def until(holds: Callable[[], bool]) -> None:
    with gevent.Timeout(5):
        while not holds():
            gevent.sleep(0.005)


def test_users_leave_a_server_that_is_lost_and_come_home_when_it_answers(
    load: Load, network: Network
) -> None:
    assert load.spread == "a:1 b:2 a:1 b:2"
    first, third = load.users[0], load.users[2]
    network.up.remove(ADDRESSES[0])
    for user in (first, third):
        user.lose()
        user.has_answered = True
    assert load.spread == "b:2 b:2 b:2 b:2"
    until(lambda: len(load.failures) >= 2)
    assert set(load.failures) == {"a:1"}
    network.up.add(ADDRESSES[0])
    # One of them tells whether it answers.
    until(lambda: load.spread.count("a:1") == 1)
    gevent.sleep(0.2)
    assert load.spread.count("a:1") == 1
    first.has_answered = third.has_answered = True
    until(lambda: load.spread == "a:1 b:2 a:1 b:2")
    report = load.tally.take()
    assert [(each.endpoint, each.is_lost) for each in report.changes] == [
        ("a:1", True),
        ("a:1", False),
    ]
    assert {name: part.ended for name, part in report.total.endpoints.items()} == {
        "a:1": 2,
        "b:2": 2,
    }


def test_a_user_whose_connection_is_kept_comes_later(load: Load, network: Network) -> None:
    first, third = load.users[0], load.users[2]
    network.up.remove(ADDRESSES[0])
    for user in (first, third):
        user.lose()
        user.is_pinned = True
    until(lambda: bool(load.failures))
    network.up.add(ADDRESSES[0])
    # Since the first one does not leave, the next one is called.
    until(lambda: first.is_called and third.is_called)
    assert load.spread == "b:2 b:2 b:2 b:2"
    third.is_pinned = False
    third.come_home()
    assert load.spread == "b:2 b:2 a:1 b:2"


def test_a_single_server_is_called_by_everybody_and_has_no_name() -> None:
    servers = UserServers(ADDRESSES[:1], Tally(open_ns=0), 0, lambda *_: None)
    user = User(servers, Network())
    assert user.place.choose() == 0
    assert (user.place.address, user.place.endpoint) == (ADDRESSES[0], "")
    user.place.connected()
    user.place.ended(LOST)
    assert (user.place.is_guest, servers.places) == (False, set())


def test_the_first_home_differs_between_processes() -> None:
    servers = UserServers(ADDRESSES, Tally(open_ns=0), 3, lambda *_: None)
    homes = [User(servers, Network()).place.address for _ in range(3)]
    assert homes == [ADDRESSES[1], ADDRESSES[0], ADDRESSES[1]]
