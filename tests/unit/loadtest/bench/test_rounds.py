from itertools import groupby
from typing import NamedTuple

import pytest

from capnp_rig.loadtest.bench import rounds as module
from capnp_rig.loadtest.bench.rounds import ROLES, BenchError, by_role, cpu_each, rounds, turns
from capnp_rig.loadtest.engine.progress import Progress


def test_each_round_has_each_role_once_in_an_order_of_its_own() -> None:
    found = list(turns(40, ("load",), ROLES))
    orders = set()
    for number, group in groupby(found, key=lambda turn: turn.number):
        numbers, units, orders_in, roles = zip(*group, strict=True)
        assert set(numbers) == {number}
        assert set(units) == {"load"}
        assert orders_in == (0, 1, 2)
        assert set(roles) == set(ROLES)
        orders.add(roles)
    # All six orders come up, and the same ones in every run of the same seed.
    assert len(orders) == 6
    assert list(turns(40, ("load",), ROLES)) == found
    assert list(turns(40, ("load",), ROLES, seed=1)) != found


def test_a_round_measures_each_unit_in_all_roles() -> None:
    found = list(turns(2, ((64, 1), (8, 16)), ROLES))
    places = [(turn.number, turn.unit) for turn in found]
    assert places == [(n, unit) for n in (0, 1) for unit in ((64, 1), (8, 16)) for _ in ROLES]


def test_progress_is_shown_after_each_measurement() -> None:
    told: list[Progress] = []
    for asked, _ in enumerate(rounds(2, (1,), ROLES, told.append)):
        # What was yielded is not measured yet.
        assert told[-1].done == asked
    assert [(each.done, each.total) for each in told] == [(done, 6) for done in range(7)]
    assert told[0].left_s is None
    assert told[-1].left_s == 0


def test_a_guess_stands_for_the_first_turn() -> None:
    told: list[Progress] = []
    next(rounds(4, (1,), ("a", "b"), told.append, guess_s=1.5))
    assert told == [Progress(0, 8, 12.0)]


class Made(NamedTuple):
    number: int
    role: str


def test_what_was_measured_is_ordered_by_round_in_each_role() -> None:
    found = by_role([Made(1, "again"), Made(1, "baseline"), Made(0, "baseline")])
    assert found == {
        "baseline": [Made(0, "baseline"), Made(1, "baseline")],
        "candidate": [],
        "again": [Made(1, "again")],
    }


def test_one_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "two_cpus", lambda: None)
    with pytest.raises(BenchError, match="two CPUs are needed: one for x, one for y"):
        cpu_each("x", "y")
    monkeypatch.setattr(module, "two_cpus", lambda: (0, 3))
    assert cpu_each("x", "y") == (0, 3)
