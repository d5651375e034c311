"""When to start a worker again, and when to give up: a pure policy."""

from dataclasses import dataclass

# systemd's shape: a broken start is retried slowly, and not for ever.
FIRST_DELAY_S = 0.1
MAX_DELAY_S = 5.0
MAX_FAILURES = 5
WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class StartFailures:
    """The failed starts of the last `WINDOW_S` seconds, over all workers.

    A worker that served and then died is no failed start: it is replaced at once.
    """

    times_s: tuple[float, ...] = ()
    in_a_row: int = 0

    def failed(self, now_s: float) -> "StartFailures":
        """Return the state after one more failed start at the monotonic time `now_s`."""
        recent = tuple(time_s for time_s in self.times_s if now_s - time_s < WINDOW_S)
        return StartFailures(times_s=(*recent, now_s), in_a_row=self.in_a_row + 1)

    def succeeded(self) -> "StartFailures":
        """Return the state after a worker became ready: the next delay is the first again."""
        return StartFailures(times_s=self.times_s)

    @property
    def delay_s(self) -> float:
        """How long to wait before the next start, in seconds."""
        if self.in_a_row == 0:
            return 0.0
        return min(FIRST_DELAY_S * 2.0 ** (self.in_a_row - 1), MAX_DELAY_S)

    @property
    def give_up(self) -> bool:
        """Whether starting again is pointless."""
        return len(self.times_s) >= MAX_FAILURES
