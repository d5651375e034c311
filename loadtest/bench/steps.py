"""How far a benchmark is, and how long the rest will take (no I/O but the clock given)."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps done of all, and the seconds that the rest will take, None before the first."""

    done: int
    total: int
    left_s: float | None


Report = Callable[[Progress], None]


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
    """Times steps of several kinds, which differ in length, and reports after each."""

    def __init__(
        self, report: Report, *kinds: Steps, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._report, self._kinds, self._now_s = report, kinds, now_s
        self._last_s = now_s()

    def tell(self) -> None:
        """Report how far it is."""
        left_s = [kind.left_s() for kind in self._kinds]
        self._report(
            Progress(
                done=sum(kind.done for kind in self._kinds),
                total=sum(kind.total for kind in self._kinds),
                left_s=None if None in left_s else sum(filter(None, left_s)),
            )
        )

    def pass_over(self) -> None:
        """Count what was done since the last step for none."""
        self._last_s = self._now_s()

    def step(self, kind: Steps) -> None:
        """Count a step, with all the time since the last one, and report."""
        now_s = self._now_s()
        kind.spent_s += now_s - self._last_s
        kind.done += 1
        self._last_s = now_s
        self.tell()
