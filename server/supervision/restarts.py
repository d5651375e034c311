"""When to start a worker again, and when to give up: a pure policy."""

from dataclasses import dataclass

# systemd's shape: a broken start is retried slowly.
FIRST_DELAY_S = 0.1
MAX_DELAY_S = 5.0
MAX_FAILURES = 5
WINDOW_S = 10.0
# A worker that served so long was no broken start.
LONG_LIFE_S = 10.0


@dataclass(frozen=True, slots=True)
class Brake:
    """How long to wait before the next start of one worker, after those that ended too soon.

    One that served for long is replaced at once. So is one that did not, if it is the first: an
    accident is no habit. From then on the delay doubles.
    """

    in_a_row: int = 0
    delay_s: float = 0.0

    def ended(self, served_s: float | None) -> "Brake":
        """Return the state after a worker that served for so long; None: it never was ready."""
        if served_s is not None and served_s >= LONG_LIFE_S:
            return Brake()
        if served_s is not None and self.in_a_row == 0:
            return Brake(in_a_row=1)
        delay_s = 2 * self.delay_s if self.delay_s else FIRST_DELAY_S
        return Brake(self.in_a_row + 1, min(delay_s, MAX_DELAY_S))


@dataclass(frozen=True, slots=True)
class FirstStarts:
    """Whether starting is pointless: no worker was ever ready, and too many could not start.

    Once one was ready, a start that fails may have a cause that passes, such as a deploy under
    way; the other workers serve on meanwhile.
    """

    times_s: tuple[float, ...] = ()
    ever_ready: bool = False

    def failed(self, now_s: float) -> "FirstStarts":
        """Return the state after a start that failed at the monotonic time `now_s`."""
        recent = tuple(time_s for time_s in self.times_s if now_s - time_s < WINDOW_S)
        return FirstStarts(times_s=(*recent, now_s), ever_ready=self.ever_ready)

    def succeeded(self) -> "FirstStarts":
        """Return the state after a worker became ready."""
        return FirstStarts(ever_ready=True)

    @property
    def give_up(self) -> bool:
        """Whether to end the server."""
        return not self.ever_ready and len(self.times_s) >= MAX_FAILURES
