"""When to connect again after failures."""

import random

_FIRST_S = 0.1
_FACTOR = 1.6
_LONGEST_S = 0.8
_JITTER = 0.2


def backoff_s(failures: int, source: random.Random) -> float:
    """Return the pause in seconds after so many failures in a row, at least one.

    0.1 s, 1.6 times that after each further one, at most 0.8 s, all of it plus or minus 20 %: the
    shape of gRPC's connection backoff, whose 120 s would outlast many a partition.
    """
    # The exponent is bounded: a float is not.
    pause_s = min(_FIRST_S * _FACTOR ** (min(failures, 16) - 1), _LONGEST_S)
    return pause_s * source.uniform(1 - _JITTER, 1 + _JITTER)
