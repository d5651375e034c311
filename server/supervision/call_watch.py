"""How long a worker that does not answer has stood in the same call: decisions on plain values.

Time is counted in beats, not measured: a supervisor that was itself stopped blames nobody.
"""

from dataclasses import dataclass
from enum import Enum, auto

BEAT_INTERVAL_S = 0.25
# 5 s: uvicorn's limit, for a worker that is in no method.
BEATS_BEFORE_KILL = 20
_BEATS_BEFORE_WARNING = 4


class Verdict(Enum):
    """What is to be done about a worker."""

    NOTHING = auto()
    # It has been in a method for a second.
    WARN = auto()
    KILL = auto()


@dataclass(frozen=True, slots=True)
class Standing:
    """For how many beats a silent worker has been in a step of a call; 0: in none."""

    step: int = 0
    beats: int = 0

    def after(self, step: int, missed_beats: int) -> "Standing":
        """Return the state after a look at the worker."""
        if missed_beats == 0 or step != self.step:
            return Standing(step)
        return Standing(step, self.beats + 1)

    @property
    def seconds(self) -> float:
        """How long that has been at least."""
        return self.beats * BEAT_INTERVAL_S

    def verdict(self, timeout_s: float) -> Verdict:
        """Judge, once for each beat; a method has `timeout_s`, without limit if that is 0."""
        if self.beats == self._limit(timeout_s):
            return Verdict.KILL
        if self.step and self.beats == _BEATS_BEFORE_WARNING:
            return Verdict.WARN
        return Verdict.NOTHING

    def _limit(self, timeout_s: float) -> int | None:
        if not self.step:
            return BEATS_BEFORE_KILL
        return max(1, round(timeout_s / BEAT_INTERVAL_S)) if timeout_s else None
