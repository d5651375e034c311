import asyncio
import os
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from capnp_rig.server.config import WorkerLimits
from capnp_rig.server.supervision.upkeep import Upkeep


@dataclass(eq=False)
class Worker:
    """Has served ten calls, nine more than it may."""

    index: int
    age_beats: int
    ready: bool = True
    pid: int = field(default_factory=os.getpid)
    work: Any = field(default_factory=lambda: SimpleNamespace(calls=10))
    setup: Any = field(
        default_factory=lambda: SimpleNamespace(
            config=SimpleNamespace(recycling=WorkerLimits(max_requests=1))
        )
    )


class Changes:
    """As of the supervisor: one worker is replaced at a time."""

    def __init__(self) -> None:
        self.places: list[int] = []

    @property
    def may_recycle(self) -> bool:
        return not self.places

    def recycle(self, place: int, _reason: str) -> None:
        self.places.append(place)


async def recycled(*workers: Worker) -> list[int]:
    """Return the places whose workers are replaced after one look."""
    changes = Changes()
    serving = SimpleNamespace(serving=lambda: list(workers))
    Upkeep(cast("Any", serving), cast("Any", changes), cast("Any", None), "a:1")
    return changes.places


def test_a14_of_worn_workers_the_oldest_is_replaced() -> None:
    # As after the first one was replaced, and is worn again.
    assert asyncio.run(recycled(Worker(0, age_beats=1), Worker(1, age_beats=9))) == [1]
    assert asyncio.run(recycled(Worker(0, age_beats=9), Worker(1, age_beats=1))) == [0]
    not_yet = Worker(1, age_beats=9, ready=False)
    assert asyncio.run(recycled(Worker(0, age_beats=1), not_yet)) == [0]
