"""An endpoint of a pool and its connections."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from capnp_rig.client.policies.endpoint import Endpoint
from capnp_rig.objects.errors import ClientError, UsageError
from capnp_rig.rigcli.address import Address

# A connection on which nothing was answered for so long, though something waits, may be dead:
# others are preferred, and it does not survive a call that was too late.
SILENCE_S = 1.0
IDLE_S = 300.0
# How often to look whether a capability still keeps a connection.
_LOOK_S = 1.0


class State(StrEnum):
    """Whether an endpoint can be called: gRPC's channel states."""

    # Nothing is connected, and no call wants that.
    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    # The last connection could not be made, or ended before it had answered a call.
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many connections an endpoint has, and how long they live.

    Args:
        connections: At most so many, at least 1. Another one is made where all are busy.
        calls: At most so many calls in flight on each.
        idle_s: After so long without a call a connection is closed.
        max_age_s: After so long, give or take 10 %, it is replaced; None: never.
        is_eager: All of them are made at once and kept, not when calls need them.

    Raises:
        UsageError: One is out of its range.
    """

    connections: int
    calls: int
    idle_s: float
    max_age_s: float | None = None
    is_eager: bool = False

    def __post_init__(self) -> None:
        if self.connections < 1:
            raise UsageError(f"a pool has at least 1 connection, not {self.connections}")
        if self.calls < 1:
            raise UsageError(f"a connection takes at least 1 call, not {self.calls}")
        for name, value in (("idle_s", self.idle_s), ("max_age_s", self.max_age_s)):
            if value is not None and not value > 0:
                raise UsageError(f"{name} is more than 0 seconds, not {value}")

    @property
    def busy_at(self) -> int:
        """From so many calls in flight on each connection, another one is made."""
        return max(1, self.calls // 4)


class Connection:
    """A connection that stands, or is being made."""

    __slots__ = (
        *("client", "endpoint", "expires_s", "has_answered", "idle_since_s", "in_flight"),
        *("is_begun", "is_ready", "is_retiring", "most", "owner", "quiet_since_s"),
    )

    def __init__(self, endpoint: "PooledEndpoint", most: int) -> None:
        self.endpoint = endpoint
        self.most = most
        # What calls on it, and what its capabilities know as their owner.
        self.client: Any = None
        self.owner: Any = None
        self.in_flight = 0
        # Whether an edge makes it, or has made it.
        self.is_begun = False
        self.is_ready = False
        # Whether a call on it was answered.
        self.has_answered = False
        # No more calls: it is closed as soon as nothing needs it.
        self.is_retiring = False
        self.idle_since_s = 0.0
        self.expires_s = float("inf")
        # When it answered last, or began to wait for an answer.
        self.quiet_since_s = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether calls may begin on it."""
        return self.is_ready and not self.is_retiring

    @property
    def is_free(self) -> bool:
        """Whether neither calls nor capabilities need it."""
        return self.is_ready and not self.in_flight and not self.owner.holds_capabilities

    def is_silent(self, now_s: float) -> bool:
        """Return whether something waits, and nothing was answered for a second."""
        return self.in_flight > 0 and now_s - self.quiet_since_s >= SILENCE_S

    def is_over(self, now_s: float, sizes: Sizes) -> bool:
        """Return whether it is to be closed."""
        is_idle = not sizes.is_eager and now_s - self.idle_since_s >= sizes.idle_s
        return (self.is_retiring or (is_idle and not self.in_flight)) and self.is_free


class PooledEndpoint(Endpoint):
    """An endpoint and its connections."""

    __slots__ = (
        *("connect_failures", "connections", "error", "failed_s", "is_active"),
        *("may_grow", "next_try_s", "sizes", "usable"),
    )

    def __init__(self, address: Address, sizes: Sizes) -> None:
        super().__init__(address)
        self.sizes = sizes
        self.connections: list[Connection] = []
        # Those that calls may use.
        self.usable: list[Connection] = []
        # Whether there may be more of them.
        self.may_grow = True
        # Whether it is to be connected: since a call wanted it, until it has been idle for long.
        self.is_active = sizes.is_eager
        # Connections in a row that could not be made, or had answered nothing when they ended.
        self.connect_failures = 0
        self.failed_s = float("-inf")
        self.next_try_s = float("-inf")
        self.error: ClientError | None = None

    @property
    def state(self) -> State:
        """Whether it can be called."""
        if self.usable:
            return State.READY
        if self.connect_failures:
            return State.FAILING
        return State.CONNECTING if self.connections else State.IDLE

    @property
    def has_room(self) -> bool:
        """Whether a call can begin at once."""
        return any(each.in_flight < each.most for each in self.usable)

    def best(self, now_s: float) -> Connection | None:
        """Return the connection for a call, None if all of them are full."""
        for each in self.usable:
            # The first one that is idle, so that the others may end.
            if not each.in_flight:
                return each
        best = min(self.usable, key=lambda each: (each.is_silent(now_s), each.in_flight))
        return best if best.in_flight < best.most else None

    def add(self) -> Connection:
        """Return a connection to be made."""
        connection = Connection(self, self.sizes.calls)
        self.connections.append(connection)
        return connection

    def look(self) -> bool:
        """Find out what is usable; return whether anything is."""
        self.usable = [each for each in self.connections if each.is_usable]
        self.may_grow = len(self.connections) < self.sizes.connections
        return bool(self.usable)

    def failed(self, error: ClientError, now_s: float, pause_s: float) -> None:
        """Take note that a connection was of no use: the next one is made after a pause."""
        self.failed_s = now_s
        self.error = error
        # Several that are made at once fail together: that is one failure.
        if now_s >= self.next_try_s:
            self.connect_failures += 1
            self.next_try_s = now_s + pause_s

    def wants_another(self, now_s: float) -> bool:
        """Return whether to make one more connection now."""
        sizes = self.sizes
        # Of those that are too old, the successor is made first.
        lasting = [
            each for each in self.connections if not each.is_retiring and each.expires_s > now_s
        ]
        if not self.is_active or now_s < self.next_try_s or len(lasting) >= sizes.connections:
            return False
        if sizes.is_eager:
            return True
        return all(
            each.is_ready and (each.in_flight >= sizes.busy_at or each.is_silent(now_s))
            for each in lasting
        )

    def wake_times(self, now_s: float) -> Iterator[float]:
        """Yield when there may be something to do."""
        if self.is_active and self.next_try_s > now_s:
            yield self.next_try_s
        for each in self.connections:
            if each.is_ready and not each.in_flight:
                if each.is_retiring:
                    yield now_s + _LOOK_S
                elif not self.sizes.is_eager:
                    yield max(each.idle_since_s + self.sizes.idle_s, now_s + _LOOK_S)
            elif each.in_flight:
                yield now_s + self.sizes.idle_s
            if each.expires_s > now_s:
                yield each.expires_s
