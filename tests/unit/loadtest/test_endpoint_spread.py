import random

import pytest

from capnp_rig.client.channels.pooled import Connection, PooledEndpoint
from capnp_rig.loadtest.endpoint_spread import Spread, Wait, is_lost, may_host, may_try
from capnp_rig.objects.errors import ConnectError, Disconnected
from capnp_rig.rigcli.address import Address, parse_addresses

A, B, C = parse_addresses("a:1,b:2,c:3")
REFUSED, LOST = ConnectError("refused"), Disconnected("gone")


def spread_of(*addresses: Address) -> Spread:
    return Spread(addresses, random.Random(1))


def placed(spread: Spread, number: int, now_s: float = 0.0) -> Connection:
    """Return the connection that stands for a place."""
    connection = spread.place(number, now_s)
    assert isinstance(connection, Connection)
    spread.connected(connection)
    return connection


def where(spread: Spread, number: int, now_s: float) -> Address | None:
    """Return where a place would go now, None where it waits; nothing is kept of that."""
    connection = spread.place(number, now_s)
    if isinstance(connection, Wait):
        return None
    connection.endpoint.connections.remove(connection)
    return connection.endpoint.address


def lose(spread: Spread, endpoint: PooledEndpoint, now_s: float) -> None:
    for connection in list(endpoint.connections):
        spread.ended(connection, LOST, now_s)


def test_places_go_to_the_servers_in_turn() -> None:
    spread = spread_of(A, B, C)
    assert [placed(spread, number).endpoint.address for number in range(5)] == [A, B, C, A, B]
    assert [len(each.usable) for each in spread.endpoints] == [2, 2, 1]


def test_all_places_of_a_server_connect_at_once_in_the_beginning() -> None:
    spread = spread_of(A, B)
    for _ in range(3):
        connection = spread.place(0, 0.0)
        assert isinstance(connection, Connection)
        assert connection.endpoint.address == A


def test_a_place_whose_server_refuses_goes_where_the_fewest_are() -> None:
    spread = spread_of(A, B, C)
    placed(spread, 1)
    connection = spread.place(0, 0.0)
    assert isinstance(connection, Connection)
    spread.ended(connection, REFUSED, 0.0)
    # Nobody has tried C, but B is known to be there.
    assert where(spread, 0, 0.0) == B
    placed(spread, 2)
    placed(spread, 4)
    assert where(spread, 0, 0.0) == C


def test_places_leave_a_server_that_is_lost_and_one_connection_may_try_it() -> None:
    spread = spread_of(A, B)
    for number in range(4):
        spread.answered(placed(spread, number))
    home = spread.home(0)
    lose(spread, home, 5.0)
    assert is_lost(home)
    assert where(spread, 0, 5.0) == where(spread, 2, 5.0) == B
    # It had answered: it is tried at once.
    assert may_try(home, 5.0)
    trying = home.add()
    assert not may_try(home, 5.0)
    spread.ended(trying, REFUSED, 5.0)
    assert not may_try(home, 5.0)
    assert may_try(home, 5.2)


def test_a_place_tries_its_home_where_no_other_server_is_there() -> None:
    spread = spread_of(A, B)
    spread.answered(placed(spread, 0))
    lose(spread, spread.home(0), 5.0)
    spread.ended(spread.home(1).add(), REFUSED, 5.0)
    assert where(spread, 0, 5.0) == A


def test_a_server_that_fails_is_tried_after_pauses_that_grow() -> None:
    spread = spread_of(A, B)
    placed(spread, 1)
    home, now_s, pauses = spread.home(0), 0.0, []
    for _ in range(7):
        assert may_try(home, now_s)
        spread.ended(home.add(), REFUSED, now_s)
        pauses.append(home.next_try_s - now_s)
        assert not may_try(home, home.next_try_s - 0.001)
        now_s = home.next_try_s
    # 0.1 s times 1.6, at most 0.8 s, each plus or minus 20 %.
    expected = [0.1, 0.16, 0.256, 0.4096, 0.65536, 0.8, 0.8]
    assert pauses == [pytest.approx(each, rel=0.2) for each in expected]


def test_guests_go_home_when_it_has_answered_again() -> None:
    spread = spread_of(A, B)
    home = spread.home(0)
    spread.ended(home.add(), REFUSED, 0.0)
    assert is_lost(home)
    back = home.add()
    spread.connected(back)
    assert not is_lost(home)
    assert not may_host(home, 9.0)
    spread.answered(back)
    assert may_host(home, 9.0)
    assert home.connect_failures == 0


def test_a_server_that_accepts_and_closes_is_left_alone_for_a_while() -> None:
    spread = spread_of(A, B)
    placed(spread, 1)
    first, second = placed(spread, 0), placed(spread, 2)
    spread.answered(first)
    spread.ended(second, LOST, 3.0)
    # The first connection still stands.
    assert not is_lost(spread.home(0))
    assert where(spread, 2, 3.0) == B
    assert where(spread, 2, 4.0) == A


def test_a_connection_that_was_left_is_no_loss() -> None:
    spread = spread_of(A, B)
    spread.ended(placed(spread, 0), None, 1.0)
    assert not is_lost(spread.home(0))
    assert where(spread, 0, 1.0) == A


def test_where_all_are_lost_a_place_waits_for_the_first_pause() -> None:
    spread = spread_of(A, B)
    for endpoint in spread.endpoints:
        spread.ended(endpoint.add(), REFUSED, 10.0)
    wait = spread.place(1, 10.0)
    assert isinstance(wait, Wait)
    assert wait.seconds == min(each.next_try_s for each in spread.endpoints) - 10.0
    assert wait.error is REFUSED
    assert where(spread, 1, 11.0) == B


def test_a_place_looks_again_soon_where_others_are_trying() -> None:
    spread = spread_of(A, B)
    for endpoint in spread.endpoints:
        spread.ended(endpoint.add(), REFUSED, 10.0)
        endpoint.add()
    wait = spread.place(0, 20.0)
    assert isinstance(wait, Wait)
    assert 0 < wait.seconds < 0.2
