"""How long to wait before a reconnect: growing, bounded, and jittered so that users spread."""

import random
from dataclasses import dataclass

# The limits of faults.md: 0.1 s times 1.6 up to 0.8 s, ± 20 %.
_FIRST_S = 0.1
_FACTOR = 1.6
_LONGEST_S = 0.8
_JITTER = 0.2


@dataclass(slots=True)
class Backoff:
    """The waits of one user; `reset` after a success."""

    rng: random.Random
    failures: int = 0

    def reset(self) -> None:
        """Start over with the shortest wait."""
        self.failures = 0

    def next_s(self) -> float:
        """Return the next wait in seconds."""
        # After five failures the bound holds anyway, and the power must not overflow.
        wait_s = min(_FIRST_S * _FACTOR ** min(self.failures, 10), _LONGEST_S)
        self.failures += 1
        return wait_s * self.rng.uniform(1 - _JITTER, 1 + _JITTER)
