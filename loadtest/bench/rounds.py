"""Rounds: the order in which every benchmark measures what it compares.

A round measures each unit, such as a load, in each of its roles, one after the other in shuffled
order, so that what changes with time falls on all of them. In a comparison of pairs the roles are
a baseline, a candidate, and the baseline again, whose ratio to the first is the noise floor.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from capnp_rig.loadtest.engine.cpu_pin import two_cpus
from capnp_rig.loadtest.engine.progress import ShowProgress, StepClock, Steps

BASELINE, CANDIDATE, AGAIN = "baseline", "candidate", "again"
ROLES = (BASELINE, CANDIDATE, AGAIN)
Unit = TypeVar("Unit")
Role = TypeVar("Role")


class BenchError(Exception):
    """A benchmark could not be run; the message says why."""


class Turn(NamedTuple, Generic[Unit, Role]):
    """What is measured next: the round, the unit, and the role with its position in the round."""

    number: int
    unit: Unit
    order: int
    role: Role


def turns(
    count: int, units: Sequence[Unit], roles: Sequence[Role], *, seed: int = 0
) -> Iterator[Turn[Unit, Role]]:
    """Yield the turns of `count` rounds."""
    rng = random.Random(seed)
    for number in range(count):
        for unit in units:
            for order, role in enumerate(rng.sample(roles, len(roles))):
                yield Turn(number, unit, order, role)


def rounds(
    count: int,
    units: Sequence[Unit],
    roles: Sequence[Role],
    show: ShowProgress,
    *,
    seed: int = 0,
    guess_s: float | None = None,
) -> Iterator[Turn[Unit, Role]]:
    """Yield the turns of `count` rounds; each is to be measured before the next is asked for.

    `guess_s` is what a turn takes until the first is done, None if unknown.
    """
    steps = Steps(count * len(units) * len(roles), guess_s)
    clock = StepClock(show, steps)
    for turn in turns(count, units, roles, seed=seed):
        yield turn
        clock.step(steps)


class _Measured(Protocol):
    @property
    def number(self) -> int: ...
    @property
    def role(self) -> str: ...


Measured = TypeVar("Measured", bound=_Measured)


def by_role(measured: Iterable[Measured]) -> dict[str, list[Measured]]:
    """Return what was measured by its role, in the order of the rounds."""
    ordered = sorted(measured, key=lambda each: each.number)
    return {role: [each for each in ordered if each.role == role] for role in ROLES}


def cpu_each(server: str, generator: str) -> tuple[int, int]:
    """Return a CPU for the server and one for the generator; the message of an error names both.

    Raises:
        BenchError: This process may use one CPU only.
    """
    cpus = two_cpus()
    if cpus is None:
        raise BenchError(f"two CPUs are needed: one for {server}, one for {generator}")
    return cpus
