"""How long a call takes at most, and how many there may be at a time."""

import weakref

from capnp_rig.client.policies.policy import INFINITE, Call, Policy
from capnp_rig.objects.errors import ClientError, Overloaded, UsageError
from capnp_rig.objects.timeouts import CALL_TIMEOUT_S, check_timeout
from capnp_rig.wire.rpc.messages import ExceptionType


class Deadline(Policy):
    """Gives each call `timeout_s` seconds for all that it does.

    That is the wait for a connection, connecting, all attempts and the pauses between them. A call
    with a timeout of its own keeps that.
    """

    __slots__ = ("timeout_s",)

    def __init__(self, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Check the timeout.

        Raises:
            UsageError: It is not 0 to a year.
        """
        self.timeout_s = check_timeout(timeout_s)

    def begin(self, call: Call) -> None:
        """Set the deadline of a call that has none."""
        if call.deadline_s == INFINITE:
            call.deadline_s = call.started_s + self.timeout_s


class ConcurrencyLimit(Policy):
    """Lets `most` calls run at a time; the others wait for their turn, in order.

    All attempts of a call, and the pauses between them, are one place. Tower's
    `limit::concurrency`.
    """

    __slots__ = ("_running", "most")

    def __init__(self, most: int) -> None:
        """Limit to `most` calls, at least one.

        Raises:
            UsageError: It is less.
        """
        if most < 1:
            raise UsageError(f"a concurrency limit is at least 1, not {most}")
        self.most = most
        # Weak: a call that an interrupt has ended between any two steps gives its place back, too.
        self._running: weakref.WeakSet[Call] = weakref.WeakSet()

    @property
    def running(self) -> int:
        """How many calls have a place."""
        return len(self._running)

    def admits(self, call: Call) -> bool:
        """Return whether a place is free."""
        return len(self._running) < self.most

    def enter(self, call: Call) -> None:
        """Give a call a place."""
        self._running.add(call)

    def leave(self, call: Call) -> None:
        """Take its place back."""
        self._running.discard(call)

    def reset(self) -> None:
        """Take all places back."""
        self._running.clear()


class LoadShed(Policy):
    """Refuses a call that would have to wait, where `most_waiting` others wait already.

    The call ends in `Overloaded` at once and was not sent. It waits where the limit of concurrency
    is reached, or every connection is busy; while nothing is connected yet, none is refused.
    Tower's `load_shed` is this one with 0.
    """

    __slots__ = ("most_waiting",)

    def __init__(self, most_waiting: int = 0) -> None:
        """Let so many calls wait.

        Raises:
            UsageError: The number is negative.
        """
        if most_waiting < 0:
            raise UsageError(f"at least 0 calls may wait, not {most_waiting}")
        self.most_waiting = most_waiting

    def refusal(self, call: Call, waiting: int) -> ClientError | None:
        """Return the error of a call for which there is no place, not even to wait."""
        if waiting < self.most_waiting:
            return None
        return Overloaded(
            f"no place is free, and {waiting} calls wait for one: the call was not sent",
            ExceptionType.OVERLOADED,
        )
