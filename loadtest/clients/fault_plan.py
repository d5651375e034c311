"""What happens to three servers, and when: the same to every client (no I/O).

A healthy time comes first. The time of faults has four quarters:

| server | quarter 1 | quarter 2 | quarter 3 | quarter 4 |
| --- | --- | --- | --- | --- |
| 0 | ten times as slow | ten times as slow | ten times as slow | |
| 1 | resets | resets | resets | resets |
| 2 | | killed | started again | |

So in the second quarter nobody is well. A reset ends all connections of server 1, and the calls
that are in flight there. Resets come at random, 0.3 s apart in the mean: a third of 1,000 calls/s
meets one about every 100 calls.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

SERVERS = 3
SLOW, RESETTING, DYING = range(SERVERS)
# What a call takes in a healthy server, and how much longer in a slow one.
CALL_US = 5_000
SLOWER = 10
# What a call may take, from when it is due.
DEADLINE_S = 1.0
RESET_GAP_S = 0.3


class Action(StrEnum):
    """What is done to a server."""

    SLOW_DOWN = "slow"
    SPEED_UP = "fast again"
    RESET = "resets"
    KILL = "killed"
    START = "back"


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """An action, `at_s` after the measured window opened."""

    at_s: float
    server: int
    action: Action


def fault_plan(healthy_s: float, faults_s: float, seed: int) -> list[Step]:
    """Return the steps in order; the same `seed` gives the same resets."""
    quarter_s = faults_s / 4
    steps = [
        Step(healthy_s, SLOW, Action.SLOW_DOWN),
        Step(healthy_s + quarter_s, DYING, Action.KILL),
        Step(healthy_s + 2 * quarter_s, DYING, Action.START),
        Step(healthy_s + 3 * quarter_s, SLOW, Action.SPEED_UP),
    ]
    resets = (
        Step(at_s, RESETTING, Action.RESET)
        for at_s in _resets(healthy_s, healthy_s + faults_s, seed)
    )
    return sorted([*steps, *resets])


def _resets(from_s: float, until_s: float, seed: int) -> Iterator[float]:
    chance = random.Random(seed)
    at_s = from_s + chance.expovariate(1 / RESET_GAP_S)
    while at_s < until_s:
        yield at_s
        at_s += chance.expovariate(1 / RESET_GAP_S)
