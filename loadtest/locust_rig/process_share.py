"""Which share of a Locust run one of its processes has. Does not import Locust."""

from dataclasses import dataclass

# Users and {{i}} of a worker that joins a run come after all that the others can reach.
_LATE_USERS = 1 << 31
_LATE_CALLS = 1 << 40


@dataclass(frozen=True, slots=True)
class ProcessShare:
    """The share of one process: it counts users and ``{{i}}`` from the first on, in steps.

    `users` is how many the whole run was started with, over all processes.
    """

    users: int
    number: int = 0
    step: int = 1
    first_user: int = 0
    first_call: int = 0

    def rate_hz(self, rate_hz: float, users: int) -> float:
        """Return this process's share of the run's rate while it has so many users."""
        # Never more than the whole, should a worker of another have died.
        return rate_hz * users / max(self.users, users, 1)


def share_of(number: int, processes: int, users: int) -> ProcessShare:
    """Return the share of a process; from number `processes` on, it joined the run later."""
    late = number - processes
    if late < 0:
        return ProcessShare(users, number, processes, number, number)
    return ProcessShare(users, number, 1, _LATE_USERS + (late << 20), (late + 1) * _LATE_CALLS)
