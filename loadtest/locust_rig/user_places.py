"""Where the users of a Locust process are connected: to one server, or spread over several.

`endpoint_spread` decides where a user goes; here it is carried out. A user whose server is lost
goes to another one with its next call. Meanwhile a greenlet tries the lost server. When that takes
connections, one of the users that belong there is called home, and the others when it has got an
answer. Each comes between two calls, as soon as no capability keeps its connection.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import gevent

from capnp_rig.client.channels.pooled import Connection, PooledEndpoint
from capnp_rig.client.connecting import connect_socket
from capnp_rig.loadtest.endpoint_spread import Spread, Wait, is_lost, may_host, may_try
from capnp_rig.loadtest.stats.endpoint_tally import EndpointTally
from capnp_rig.loadtest.stats.tally import Tally
from capnp_rig.objects.errors import ClientError
from capnp_rig.rigcli.address import Address

# How soon to look again.
_SHORTLY_S = 0.05
_CALL_NEXT_S = 0.8
_PROBE_TIMEOUT_S = 1.0


class PlacedUser(Protocol):
    """A user of several servers."""

    @property
    def has_answered(self) -> bool:
        """Whether a call was answered on its present connection."""

    def come_home(self) -> None:
        """Leave the present connection, as soon as nothing needs it, and connect anew."""


# Counts a connection to a server, by its name, that could not be made: error, start and end in ns.
CountFailure = Callable[[str, ClientError, int, int], object]


class UserServers:
    """The servers that one ``host`` names."""

    def __init__(
        self, addresses: Sequence[Address], tally: Tally, first: int, failed: CountFailure
    ) -> None:
        """Begin without users; the home of the first one is server number `first`."""
        self.failed = failed
        self.is_over = False
        self.spread = Spread(addresses, random.Random())
        names = [str(each) if len(addresses) > 1 else "" for each in addresses]
        self.tallies = {
            endpoint: EndpointTally(tally, name)
            for endpoint, name in zip(self.spread.endpoints, names, strict=True)
        }
        self.places: set[UserPlace] = set()
        self._next = first
        self._awaited: set[PooledEndpoint] = set()

    @property
    def are_several(self) -> bool:
        """Whether there is more than one."""
        return len(self.tallies) > 1

    def join(self, user: PlacedUser) -> "UserPlace":
        """Return the place of a user that starts."""
        place = UserPlace(self, self._next, user)
        self._next += 1
        return place

    def note(self, endpoint: PooledEndpoint) -> None:
        """Count whether a server is lost."""
        self.tallies[endpoint].changed(time.monotonic_ns(), is_lost=is_lost(endpoint))

    def await_home(self, home: PooledEndpoint) -> None:
        """Call users home as soon as their server is back."""
        if home not in self._awaited:
            self._awaited.add(home)
            gevent.spawn(self._bring_home, home)

    def _bring_home(self, home: PooledEndpoint) -> None:
        while not self.is_over and (guests := self._guests_from(home)):
            now_s = time.monotonic()
            if may_host(home, now_s):
                for place in guests:
                    place.call_home()
            elif not home.connections and may_try(home, now_s) and self._takes_connections(home):
                # The first one tells whether it answers. A capability may keep it where it is: in a
                # while, another one is called.
                home.next_try_s = now_s + _CALL_NEXT_S
                min(guests, key=lambda place: place.is_called).call_home()
            gevent.sleep(_SHORTLY_S)
        self._awaited.discard(home)

    def _takes_connections(self, home: PooledEndpoint) -> bool:
        """Return whether a server can be connected to; that is tried where it is lost."""
        if not is_lost(home):
            return True
        connection, started_ns = home.add(), time.monotonic_ns()
        error: ClientError | None = None
        try:
            connect_socket(home.address, _PROBE_TIMEOUT_S).close()
        except ClientError as refusal:
            now_ns, error = time.monotonic_ns(), refusal
            self.failed(self.tallies[home].name, refusal, started_ns, now_ns)
        self.spread.ended(connection, error, time.monotonic())
        return error is None

    def _guests_from(self, home: PooledEndpoint) -> list["UserPlace"]:
        """Return the users that belong to a server and are connected to another one."""
        for place in self.places:
            place.look()
        return [place for place in self.places if place.home is home and place.is_guest]


class UserPlace:
    """Where a user is connected, or is about to be; `choose` comes before each connection."""

    def __init__(self, servers: UserServers, number: int, user: PlacedUser) -> None:
        self.user = user
        self.home = servers.spread.home(number)
        self._servers = servers
        self._number = number
        # Whether it is to leave the server whose guest it is.
        self.is_called = False
        self._endpoint = self.home
        self._connection: Connection | None = None

    @property
    def address(self) -> Address:
        """The address of the server."""
        return self._endpoint.address

    @property
    def tally(self) -> EndpointTally:
        """What counts there."""
        return self._servers.tallies[self._endpoint]

    @property
    def endpoint(self) -> str:
        """The name of the server, empty where it is the only one."""
        return self.tally.name

    @property
    def is_guest(self) -> bool:
        """Whether it is connected to a server that is not its home."""
        return self._connection is not None and self._endpoint is not self.home

    def choose(self) -> float:
        """Choose the server to connect to; return 0, or how many seconds to wait and ask again."""
        if not self._servers.are_several:
            return 0.0
        # Of a server that is lost, one user is called at a time.
        if self.is_called and not (is_lost(self.home) and self.home.connections):
            chosen: Connection | Wait = self.home.add()
        else:
            chosen = self._servers.spread.place(self._number, time.monotonic())
        if isinstance(chosen, Wait):
            return chosen.seconds
        self.is_called = False
        self._connection, self._endpoint = chosen, chosen.endpoint
        return 0.0

    def call_home(self) -> None:
        """Let the user come home as soon as nothing needs its connection."""
        self.is_called = True
        self.user.come_home()

    def connected(self) -> None:
        """Take note that the connection can be called."""
        if self._connection is not None:
            self._servers.spread.connected(self._connection)
            self._servers.note(self._endpoint)
            self._servers.places.add(self)
            if self.is_guest:
                self._servers.await_home(self.home)

    def look(self) -> None:
        """Take note of the first answer."""
        connection = self._connection
        if connection is not None and not connection.has_answered and self.user.has_answered:
            self._servers.spread.answered(connection)

    def ended(self, error: ClientError | None) -> None:
        """Take note that the connection has ended, or could not be made; None where it was left."""
        self.look()
        connection, self._connection = self._connection, None
        self._servers.places.discard(self)
        if connection is None:
            return
        if connection.is_ready and not self._servers.is_over:
            self.tally.disconnected(time.monotonic_ns())
        self._servers.spread.ended(connection, error, time.monotonic())
        if not self._servers.is_over:
            self._servers.note(self._endpoint)
