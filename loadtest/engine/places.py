"""The connections of an engine to several servers: each place is kept connected.

`endpoint_spread` decides where a place goes; here it is carried out. A place whose server is lost
goes to another one at once. A task per lost server lets one of its places try it again, and lets
the others follow when it answers: each makes its new connection first, and leaves the old one when
the calls on it are answered.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterable, Sequence
from random import Random
from typing import Any, Generic, Protocol, TypeVar

from capnp_rig.client.channels.pooled import Connection as Pooled
from capnp_rig.client.channels.pooled import PooledEndpoint
from capnp_rig.loadtest.endpoint_spread import Spread, Wait, is_lost, may_host, may_try
from capnp_rig.loadtest.stats.endpoint_tally import EndpointTally
from capnp_rig.objects.errors import ClientError
from capnp_rig.rigcli.address import Address

CONNECT = "connect"
# How soon to look again whether a server answers.
_SHORTLY_S = 0.05


class PlacedConnection(Protocol):
    """A connection of an engine."""

    def begin(self) -> None:
        """Start its calls."""

    def retire(self) -> None:
        """Start no more calls; end when those in flight have."""


class PlacedEndpoint(Protocol):
    """A server of an engine."""

    @property
    def address(self) -> Address:
        """Where it listens."""

    @property
    def tally(self) -> EndpointTally:
        """What counts there."""


C = TypeVar("C", bound=PlacedConnection)
E = TypeVar("E", bound=PlacedEndpoint)


class PlacedLoad(Protocol[C, E]):
    """What the places belong to."""

    running: bool
    # By place.
    connections: dict[int, C]

    @property
    def endpoints(self) -> Sequence[E]:
        """Its servers."""

    async def open(self, number: int, endpoint: E, *, again: bool) -> C:
        """Return a connection of a place that can be called.

        Raises:
            ClientError: It cannot be made.
        """


class Places(Generic[C, E]):
    """Keeps places connected, as long as their load is running.

    The home of a place follows from its number and `first`, which differs between processes.
    """

    def __init__(self, load: PlacedLoad[C, E], first: int, source: Random) -> None:
        self._load = load
        self._first = first
        self._spread = Spread([each.address for each in load.endpoints], source)
        self._endpoints = dict(zip(self._spread.endpoints, load.endpoints, strict=True))
        self._pooled: dict[C, Pooled] = {}
        # Connections on which nothing was answered yet.
        self.fresh: set[C] = set()
        # Servers to which guests are brought home.
        self._awaited: set[PooledEndpoint] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self, number: int) -> None:
        """Connect a place for the first time.

        Raises:
            ClientError: No server can be reached.
        """
        while True:
            chosen = self._choose(number)
            if isinstance(chosen, Wait):
                raise chosen.error
            if await self._take_up(number, chosen, again=False):
                return

    def lost(self, number: int, connection: C, error: ClientError) -> None:
        """Connect a place anew whose connection has ended."""
        self._forget(connection, error)
        self._start(self._reconnect(number))

    def answered(self, connection: C) -> None:
        """Take note of the first answer on a connection."""
        self.fresh.discard(connection)
        if connection in self._pooled:
            self._spread.answered(self._pooled[connection])

    async def _reconnect(self, number: int) -> None:
        while self._load.running:
            chosen = self._choose(number)
            if isinstance(chosen, Wait):
                await asyncio.sleep(chosen.seconds)
            elif await self._take_up(number, chosen, again=True):
                return

    async def _take_up(self, number: int, pooled: Pooled, *, again: bool) -> bool:
        """Make a connection and let a place have it; return whether that could be done."""
        load, endpoint = self._load, self._endpoints[pooled.endpoint]
        started_ns = time.monotonic_ns()
        try:
            connection = await load.open(number, endpoint, again=again)
        except ClientError as error:
            now_ns = time.monotonic_ns()
            self._spread.ended(pooled, error, now_ns / 1e9)
            endpoint.tally.failed(CONNECT, started_ns, now_ns, error)
            self._note(pooled)
            return False
        self._spread.connected(pooled)
        self._pooled[connection] = pooled
        self.fresh.add(connection)
        self._note(pooled)
        former = load.connections.get(number)
        load.connections[number] = connection
        if former is not None:
            self._forget(former, None)
            former.retire()
        if again and load.running:
            connection.begin()
        if pooled.endpoint is not self._home(number):
            self._await(self._home(number))
        return True

    def _await(self, home: PooledEndpoint) -> None:
        if home not in self._awaited:
            self._awaited.add(home)
            self._start(self._bring_home(home))

    async def _bring_home(self, home: PooledEndpoint) -> None:
        """Wait for a server that was lost, and let its places come home."""
        while self._load.running and (guests := self._guests_from(home)):
            now_s = time.monotonic()
            if may_host(home, now_s):
                await self._move(guests, home)
            elif may_try(home, now_s) and not home.usable:
                await self._move(guests[:1], home)
            else:
                await asyncio.sleep(max(home.next_try_s - now_s, _SHORTLY_S))
        self._awaited.discard(home)

    async def _move(self, numbers: Iterable[int], home: PooledEndpoint) -> None:
        moves = (self._take_up(number, home.add(), again=True) for number in numbers)
        await asyncio.gather(*moves)

    def _guests_from(self, home: PooledEndpoint) -> list[int]:
        """Return the places that belong to a server and are connected to another one."""
        return [
            number
            for number, connection in self._load.connections.items()
            if self._home(number) is home and self._pooled[connection].endpoint is not home
        ]

    def _forget(self, connection: C, error: ClientError | None) -> None:
        """Take note that a connection has ended; None where it is left."""
        self.fresh.discard(connection)
        pooled, now_ns = self._pooled.pop(connection), time.monotonic_ns()
        self._spread.ended(pooled, error, now_ns / 1e9)
        self._endpoints[pooled.endpoint].tally.disconnected(now_ns)
        self._note(pooled)

    def _note(self, pooled: Pooled) -> None:
        """Count whether a server is lost."""
        tally = self._endpoints[pooled.endpoint].tally
        tally.changed(time.monotonic_ns(), is_lost=is_lost(pooled.endpoint))

    def _choose(self, number: int) -> Pooled | Wait:
        return self._spread.place(self._first + number, time.monotonic())

    def _home(self, number: int) -> PooledEndpoint:
        return self._spread.home(self._first + number)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
