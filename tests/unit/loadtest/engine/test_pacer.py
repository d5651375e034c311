"""The open loop of the engine, on instants that the test chooses: without a free slot no turn."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from capnp_rig.loadtest.engine.pacer import Pacer
from capnp_rig.loadtest.engine.schedule import Arrivals, Pace
from capnp_rig.loadtest.stats.tally import Tally

MS = 1_000_000
OPEN_NS, CLOSE_NS = 10 * MS, 110 * MS


@dataclass
class FakeConnection:
    """Its own exchange, too."""

    dues: list[int] = field(default_factory=list)
    takes_calls: bool = True

    @property
    def exchange(self) -> Any:
        return self

    def send(self, due_ns: int, _now_ns: int) -> None:
        self.dues.append(due_ns)

    def flush(self) -> None: ...


@dataclass
class FakeLoad:
    tally: Tally = field(default_factory=lambda: Tally(open_ns=OPEN_NS, is_open_loop=True))
    running: bool = True
    close_ns: int = CLOSE_NS


Drive = Callable[[FakeLoad, "Pacer[FakeConnection]", FakeConnection], None]


def driven(drive: Drive, *, calls: int | None = None) -> tuple[Tally, list[int]]:
    """Let `drive` offer slots to a pacer of a call each ms; return its counts and what it sent."""

    async def run() -> tuple[Tally, list[int]]:
        load, connection = FakeLoad(), FakeConnection()
        pace = Pace(Arrivals.FIXED, seed=0)
        pace.set_rate(1000, 0)
        drive(load, Pacer(load, pace, calls), connection)
        return load.tally, connection.dues

    return asyncio.run(run())


def test_what_fell_behind_in_the_warm_up_is_not_sent_in_the_window() -> None:
    """It would take the place of the window's own calls: all of it, in a window that is short."""

    def drive(_load: FakeLoad, pacer: "Pacer[FakeConnection]", here: FakeConnection) -> None:
        pacer.offer(here, 2, 9 * MS)
        pacer.open()
        pacer.offer(here, 2, 12 * MS)

    tally, dues = driven(drive)
    assert dues == [1 * MS, 2 * MS, 10 * MS, 11 * MS]
    assert (tally.scheduled, tally.held) == (2, 2)


@pytest.mark.parametrize(
    ("sent", "late", "unsent"),
    [
        # 5 % of the window behind at its end: they are sent.
        (95, 5, 0),
        (94, 0, 6),
    ],
)
def test_calls_that_wait_in_the_end_are_sent_where_they_are_few(
    sent: int, late: int, unsent: int
) -> None:
    """Those that are not count as offered and held back."""

    def drive(_load: FakeLoad, pacer: "Pacer[FakeConnection]", here: FakeConnection) -> None:
        pacer.open()
        pacer.offer(here, sent, CLOSE_NS)
        pacer.close()
        pacer.offer(here, late, CLOSE_NS + 50 * MS)
        assert pacer.is_over
        pacer.give_up()

    tally, dues = driven(drive)
    assert dues == list(range(OPEN_NS, OPEN_NS + (sent + late) * MS, MS))
    assert (tally.scheduled, tally.held, tally.unsent) == (100, 100, unsent)


def test_a_number_of_calls_is_what_there_is_to_offer() -> None:
    """Whatever the rate has in store beyond them."""

    def drive(load: FakeLoad, pacer: "Pacer[FakeConnection]", here: FakeConnection) -> None:
        pacer.open()
        pacer.offer(here, 3, 50 * MS)
        assert not pacer.is_done
        # A signal: the window closes early.
        load.close_ns = 60 * MS
        pacer.close()

    tally, dues = driven(drive, calls=10)
    assert (len(dues), tally.scheduled, tally.unsent) == (3, 10, 7)


def test_a_run_that_is_stopped_in_its_warm_up_has_offered_nothing() -> None:
    def drive(load: FakeLoad, pacer: "Pacer[FakeConnection]", here: FakeConnection) -> None:
        pacer.offer(here, 1, 5 * MS)
        load.close_ns = 6 * MS
        pacer.close()
        pacer.give_up()

    tally, dues = driven(drive)
    assert (dues, tally.scheduled, tally.unsent) == ([1 * MS], 0, 0)
