"""How far a measurement is, and how long the rest will take (no I/O but the clock given)."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of `total` is done, and the seconds that the rest will take, None if unknown.

    `note` says what is going on, where that is more than a count of steps.
    """

    done: float
    total: float
    left_s: float | None
    note: str = ""

    @property
    def text(self) -> str:
        """The progress in words."""
        done = self.note or f"{self.done:.0f} of {self.total:.0f} done"
        if self.left_s is None:
            return f"{done}, starting"
        minutes, seconds = divmod(round(self.left_s), 60)
        left = f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
        return f"{done}, about {left} left"


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When there is a line of progress: after `first_s`, then `every_s`, and in the end.

    Steps of milliseconds would fill a log. What is over before the first line has none.
    """

    every_s: float = 5.0
    first_s: float = 0.0


STEADY = Rhythm()
ShowProgress = Callable[[Progress], None]


@dataclass(slots=True)
class Steps:
    """Steps of one kind: how many, and what one takes until the first is done, None if unknown."""

    total: int
    guess_s: float | None = None
    done: int = 0
    spent_s: float = 0.0

    def left_s(self) -> float | None:
        """Return what the steps that are left will take, at the mean of those done."""
        if self.done == self.total:
            return 0.0
        each_s = self.spent_s / self.done if self.done else self.guess_s
        return None if each_s is None else each_s * (self.total - self.done)


class StepClock:
    """Times steps of several kinds, which differ in length; shows the start and each step."""

    def __init__(
        self, show: ShowProgress, *kinds: Steps, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._show, self._kinds, self._now_s = show, kinds, now_s
        self._last_s = now_s()
        self._tell()

    def _tell(self) -> None:
        left_s = [kind.left_s() for kind in self._kinds]
        self._show(
            Progress(
                done=sum(kind.done for kind in self._kinds),
                total=sum(kind.total for kind in self._kinds),
                left_s=None if None in left_s else sum(filter(None, left_s)),
            )
        )

    def pass_over(self) -> None:
        """Leave the time since the last step out of all steps."""
        self._last_s = self._now_s()

    def step(self, kind: Steps) -> None:
        """Count a step, with all the time since the last one, and show the progress."""
        now_s = self._now_s()
        kind.spent_s += now_s - self._last_s
        kind.done += 1
        self._last_s = now_s
        self._tell()
