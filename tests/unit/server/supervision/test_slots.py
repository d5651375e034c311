import pytest

from capnp_rig.server.supervision.slots import Slot, round_robin

OPEN = Slot()


@pytest.mark.parametrize(
    ("slot", "is_open"),
    [
        (Slot(), True),
        (Slot(ready=False), False),
        (Slot(blocked=True), False),
        (Slot(unacknowledged=127), True),
        (Slot(unacknowledged=128), False),
        (Slot(missed_beats=1), True),
        (Slot(missed_beats=2), False),
    ],
)
def test_a12_a_stuck_or_full_worker_is_closed_to_new_connections(
    slot: Slot, *, is_open: bool
) -> None:
    assert slot.open is is_open


@pytest.mark.parametrize(
    ("slots", "last", "chosen"),
    [
        ([OPEN, OPEN], -1, 0),
        ([OPEN, OPEN], 0, 1),
        ([OPEN, OPEN], 1, 0),
        ([OPEN], 0, 0),
        ([OPEN, Slot(ready=False), OPEN], 0, 2),
        ([Slot(blocked=True), Slot(missed_beats=9), OPEN], 2, 2),
        ([Slot(ready=False)] * 3, 1, None),
        ([], -1, None),
    ],
)
def test_round_robin_skips_closed_slots(slots: list[Slot], last: int, chosen: int | None) -> None:
    assert round_robin(slots, last) == chosen


def test_every_open_worker_gets_its_share() -> None:
    slots = [OPEN, Slot(ready=False), OPEN, OPEN]
    counts = [0, 0, 0, 0]
    last = -1
    for _ in range(30):
        chosen = round_robin(slots, last)
        assert chosen is not None
        counts[chosen] += 1
        last = chosen
    assert counts == [10, 0, 10, 10]
