"""How many blocks there is time for, and when to look at them (no I/O, no clock)."""

from collections.abc import Sequence
from dataclasses import dataclass

from capnp_rig.loadtest.stats.looks import LEAST_BLOCKS, LEVEL, Look, plan_looks

# Beside the blocks: to compute a look, and to write the result.
_ENDING_S = 1.0
_MOST_BLOCKS = 999


class NoTime(Exception):
    """There is no time for six blocks; the message says how much it takes."""


@dataclass(slots=True)
class Course:
    """The course of a comparison of at most `max_time_s`, and of `blocks` where they are given.

    The first block tells how many there can be: their number, and with it the looks, stand before
    there is a ratio to look at. Only time can end it earlier. Seconds count from the start.
    """

    max_time_s: float
    blocks: int | None = None
    planned: int | None = None
    looks: Sequence[Look] = ()
    done: int = 0
    taken: int = 0
    longest_s: float = 0.0
    level: float = LEVEL

    def add(self, block_s: float, passed_s: float) -> None:
        """Count a block that took `block_s` and ended at `passed_s`.

        Raises:
            NoTime: It is the first, and six of them take too long.
        """
        self.done += 1
        self.longest_s = max(self.longest_s, block_s)
        if self.planned is None:
            self._plan(passed_s)

    def _plan(self, passed_s: float) -> None:
        left_s = self.max_time_s - _ENDING_S - passed_s
        room = 1 + max(0, int(left_s / self.longest_s))
        count = min(room, self.blocks or _MOST_BLOCKS)
        if count < LEAST_BLOCKS:
            needed_s = passed_s + (LEAST_BLOCKS - 1) * self.longest_s + _ENDING_S
            raise NoTime(
                f"a block takes {self.longest_s:.1f} s: {LEAST_BLOCKS} of them need "
                f"--max-time {needed_s + 1:.0f}s, or less --rounds"
            )
        self.planned, self.looks = count, plan_looks(count)

    def has_room(self, passed_s: float) -> bool:
        """Return whether another block is planned and would end in time."""
        if self.planned is None:
            return True
        ends_s = passed_s + self.longest_s + _ENDING_S
        return self.done < self.planned and ends_s <= self.max_time_s

    def left_s(self, passed_s: float) -> float | None:
        """Return the seconds that the other blocks take at most, None before the first."""
        if self.planned is None:
            return None
        return min((self.planned - self.done) * self.longest_s, self.max_time_s - passed_s)

    def is_due(self) -> bool:
        """Return whether a look is due now; it is taken thereby, and `level` is what it may err."""
        is_due = self.taken < len(self.looks) and self.done == self.looks[self.taken].blocks
        if is_due:
            self.level = self.looks[self.taken].level
            self.taken += 1
        return is_due

    @property
    def is_at_look(self) -> bool:
        """Whether the last look was at the blocks that there are now."""
        return bool(self.taken) and self.done == self.looks[self.taken - 1].blocks

    def end(self) -> None:
        """Take the last look, unless it was: its `level` is what all that were left might err."""
        left = [look.level for look in self.looks[self.taken :]]
        if left or not self.looks:
            self.level = sum(left) or LEVEL
            self.taken = len(self.looks)
