"""What happens to three servers, and when: the same to every client (no I/O).

A healthy time comes first. In the time of faults server A is ten times as slow for three quarters
of it. B resets at random all the time, 0.5 s apart in the mean: each ends all of its connections,
and loses the calls in flight there; a third of 1,000 calls/s meets one about every 170 calls. C is
killed after a quarter, and started again after a tenth more. So for that tenth nobody is well.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

SERVERS = 3
SLOW, RESETTING, DYING = range(SERVERS)
# Parts of the time of faults.
_KILLED, _BACK, _FAST_AGAIN = 0.25, 0.35, 0.75
# What a call takes in a healthy server, in the mean, and how many times as long in a slow one.
CALL_US = 5_000
SLOWER = 10
# What a call may take, from when it is due.
DEADLINE_S = 1.0
RESET_GAP_S = 0.5


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
    steps = [
        Step(healthy_s, SLOW, Action.SLOW_DOWN),
        Step(healthy_s + _KILLED * faults_s, DYING, Action.KILL),
        Step(healthy_s + _BACK * faults_s, DYING, Action.START),
        Step(healthy_s + _FAST_AGAIN * faults_s, SLOW, Action.SPEED_UP),
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
