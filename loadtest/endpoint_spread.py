"""Which of several servers each connection of a load goes to: decides, and does nothing itself.

A load has places: the connections of an engine, the users of Locust. Each has one connection at a
time, and a home: the servers in turn, by the number of the place, so that they get the same number
of connections. While its home is lost, a place is a guest of the server with the fewest
connections, and whoever carries this out tries the home beside. States, errors and pauses are those
of a channel's endpoints (`client.channels.pooled`). Times are seconds of `time.monotonic`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from capnp_rig.client.channels.backoff import backoff_s
from capnp_rig.client.channels.pooled import Connection, PooledEndpoint, Sizes, State
from capnp_rig.objects.errors import ClientError, ConnectError
from capnp_rig.rigcli.address import Address

# A place is no call: it keeps its connection for as long as that stands.
_SIZES = Sizes(connections=1, calls=1, idle_s=float("inf"), is_eager=True)
# How soon to look again where others are trying to connect.
_SHORTLY_S = 0.05


@dataclass(frozen=True, slots=True)
class Wait:
    """No server can be tried before so many `seconds` have passed; `error` is that of the home."""

    seconds: float
    error: ClientError


class Spread:
    """The servers of a load, and the connections to them."""

    def __init__(self, addresses: Sequence[Address], source: random.Random) -> None:
        """Begin without connections; `source` makes the pauses differ."""
        self.endpoints = [PooledEndpoint(each, _SIZES) for each in addresses]
        self._random = source

    def home(self, number: int) -> PooledEndpoint:
        """Return the server where a place belongs."""
        return self.endpoints[number % len(self.endpoints)]

    def place(self, number: int, now_s: float) -> Connection | Wait:
        """Return a connection for a place to make; then tell how that went."""
        home = self.home(number)
        chosen = self._choose(home, now_s)
        if chosen is not None:
            return chosen.add()
        due_s = min(each.next_try_s for each in self.endpoints)
        # Where there is no error yet, others are trying.
        error = home.error or ConnectError(f"{home.address} cannot be reached")
        return Wait(max(due_s - now_s, _SHORTLY_S), error)

    def _choose(self, home: PooledEndpoint, now_s: float) -> PooledEndpoint | None:
        triable = [each for each in self.endpoints if may_try(each, now_s)]
        ready = [each for each in triable if each.state is State.READY]
        # To try a home that is lost may take long: a guest of another server goes on meanwhile.
        if home in triable and not (is_lost(home) and ready):
            return home
        return min(ready or triable, key=lambda each: len(each.connections), default=None)

    def connected(self, connection: Connection) -> None:
        """Take note that a connection stands."""
        connection.is_ready = True
        connection.endpoint.error = None
        connection.endpoint.look()

    def answered(self, connection: Connection) -> None:
        """Take note that a call was answered: the server does more than accept connections."""
        connection.has_answered = True
        connection.endpoint.connect_failures = 0

    def ended(self, connection: Connection, error: ClientError | None, now_s: float) -> None:
        """Take note that a connection has ended, or could not be made; None where it was left."""
        endpoint = connection.endpoint
        endpoint.connections.remove(connection)
        endpoint.look()
        if error is None:
            return
        if connection.has_answered:
            endpoint.error = error
        else:
            endpoint.failed(error, now_s, backoff_s(endpoint.connect_failures + 1, self._random))


def is_lost(endpoint: PooledEndpoint) -> bool:
    """Return whether no connection stands although one was tried."""
    return not endpoint.usable and endpoint.error is not None


def may_try(endpoint: PooledEndpoint, now_s: float) -> bool:
    """Return whether to make one more connection to a server."""
    # If it is lost, a single connection tells whether it is back.
    return now_s >= endpoint.next_try_s and not (is_lost(endpoint) and endpoint.connections)


def may_host(endpoint: PooledEndpoint, now_s: float) -> bool:
    """Return whether all of its places may come home: it answers, and takes connections."""
    return now_s >= endpoint.next_try_s and any(each.has_answered for each in endpoint.usable)
