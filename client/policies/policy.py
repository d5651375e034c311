"""What a policy sees, a call and its attempts, and what it may say to them.

A channel asks its policies in the order of the list. They have neither sockets nor clocks: a time
is given to them, in seconds of the caller's monotonic clock.
"""

from collections.abc import Sequence
from typing import Any

from capnp_rig.client.policies.endpoint import Endpoint
from capnp_rig.objects.errors import ClientError

INFINITE = float("inf")


class Call:
    """A call of a channel, which may take several attempts."""

    # What few calls set is the class's: each of these would take 30 ns in every call.

    # Whether it may run twice.
    is_idempotent = False
    # How many attempts have begun.
    attempts = 0
    # Where attempts have failed or are under way: the next one goes elsewhere if it can.
    tried: tuple[Endpoint, ...] = ()
    # Whether an attempt has failed that the server may have carried out.
    may_have_run = False
    # For the channel: the only connection that it may use, whether limits have let it in, and since
    # when it has been waiting for a connection.
    connection: Any = None
    is_admitted = False
    waiting_since_s = float("-inf")
    # Attempts that have to be given back, in weak references.
    leases: tuple[Any, ...] = ()

    def __init__(self, method: str, now_s: float, timeout_s: float | None = None) -> None:
        """Begin one now; without a `timeout_s` of its own its `deadline_s` is infinite so far."""
        self.method = method
        self.started_s = now_s
        self.deadline_s = INFINITE if timeout_s is None else now_s + timeout_s


class Attempt:
    """One try of a call on an endpoint: under way until it has `ended_s`."""

    # As of a `Call`. None while it is under way.
    ended_s: float | None = float("-inf")
    # Why it failed, and whether nobody waited for its end.
    error: ClientError | None = None
    was_given_up = False
    # For the channel: to be sent only after a look whether the connection still stands.
    is_doubtful = False

    def __init__(self, call: Call, endpoint: Endpoint, connection: Any, now_s: float) -> None:
        self.call = call
        self.endpoint = endpoint
        # For the channel.
        self.connection = connection
        self.started_s = now_s


class Policy:
    """A base whose methods change nothing. A channel calls those that a class overrides."""

    __slots__ = ()

    # Its budget for attempts beyond the first, to which the channel adds each call once.
    budget: Any = None

    def begin(self, call: Call) -> None:
        """Take note of a new call, at `call.started_s`. May set its deadline.

        Raises:
            ClientError: The call is refused.
        """

    def admits(self, call: Call) -> bool:
        """Return whether a call that waits may make its first attempt now."""
        return True

    def enter(self, call: Call) -> None:
        """Take note that all policies have admitted a call; `leave` follows."""

    def leave(self, call: Call) -> None:
        """Take note of the end of a call that was admitted."""

    def refusal(self, call: Call, waiting: int) -> ClientError | None:
        """Return why a call may not wait for a place, where `waiting` others do."""

    def narrow(self, endpoints: Sequence[Endpoint], now_s: float) -> Sequence[Endpoint]:
        """Return those of some endpoints that may be used: at least one."""
        return endpoints

    def is_ejected(self, endpoint: Endpoint, now_s: float) -> bool:
        """Return whether `narrow` would leave an endpoint out."""
        return False

    def choose(self, endpoints: Sequence[Endpoint], now_s: float) -> Endpoint:
        """Return the endpoint for an attempt, of at least one. One policy of a channel does so."""
        return endpoints[0]

    def retry_s(self, attempt: Attempt) -> float | None:
        """Return in how many seconds to try again after an attempt that failed, None: never."""

    def hedge_s(self, call: Call) -> float | None:
        """Return after how many seconds without an answer to try beside the first attempt."""

    def may_hedge(self, call: Call, now_s: float) -> bool:
        """Return whether the attempt that `hedge_s` has announced may begin now."""
        return True

    def ended(self, attempt: Attempt) -> None:
        """Take note of the end of an attempt, with its `error` if it failed."""

    def joined(self, endpoint: Endpoint) -> None:
        """Take note of a new endpoint."""

    def left(self, endpoint: Endpoint) -> None:
        """Take note that an endpoint is not used any more."""

    def reset(self) -> None:
        """Forget what runs: this is the child of a fork, and the calls are its parent's."""
