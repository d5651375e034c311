import pytest

from capnp_rig.server.supervision.slots import Slot, least_connections, round_robin

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


@pytest.mark.parametrize(
    ("connections", "last", "expected"),
    [
        ([2, 1, 3], -1, 1),
        # As in a ring, where several have as few.
        ([1, 1, 1], 0, 1),
        ([1, 1, 1], 2, 0),
        ([0, 5, 0], 0, 2),
        ([], -1, None),
    ],
)
def test_b16_the_worker_with_the_fewest_connections_is_chosen(
    connections: list[int], last: int, expected: int | None
) -> None:
    slots = [Slot(connections=count) for count in connections]
    assert least_connections(slots, last) == expected


def test_b16_a_worker_that_can_take_none_is_passed_over() -> None:
    slots = [Slot(connections=0, ready=False), Slot(connections=9), Slot(missed_beats=2)]
    assert least_connections(slots, -1) == 1
    assert least_connections(slots[::2], -1) is None
