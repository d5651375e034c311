"""How far a benchmark is, for whoever shows it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps done of all, and the seconds that the rest will take, None before the first."""

    done: int
    total: int
    left_s: float | None
