from itertools import islice, pairwise
from math import inf, nan

import pytest

from capnp_rig.loadtest.engine.schedule import Arrivals, Pace, due_offsets_ns


def test_fixed_arrivals_keep_their_distance_without_drift() -> None:
    found = list(islice(due_offsets_ns(3, Arrivals.FIXED, seed=0), 4))
    assert found == [0, 333_333_333, 666_666_667, 1_000_000_000]


def test_poisson_arrivals_have_the_rate_and_depend_on_the_seed_alone() -> None:
    first = list(islice(due_offsets_ns(1000, Arrivals.POISSON, seed=7), 20_000))
    again = list(islice(due_offsets_ns(1000, Arrivals.POISSON, seed=7), 20_000))
    other = list(islice(due_offsets_ns(1000, Arrivals.POISSON, seed=8), 20_000))
    assert first == again != other
    assert first == sorted(first)
    # 20,000 gaps of 1 ms: the mean is within 3 standard errors, 2.1 %.
    assert first[-1] / 20_000 == pytest.approx(1e6, rel=0.021)
    gaps = [after - before for before, after in pairwise(first)]
    # Exponential: as wide as its mean, and a third of the gaps are over it.
    assert sum(gap > 1e6 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)


@pytest.mark.parametrize("rate_hz", [0, -1, inf, nan])
def test_a_rate_that_is_none_is_refused(rate_hz: float) -> None:
    with pytest.raises(ValueError, match="the rate must be positive"):
        due_offsets_ns(rate_hz, Arrivals.FIXED, seed=0)


def _taken(pace: Pace, until_ns: int) -> list[int]:
    found = []
    while pace.next_ns <= until_ns:
        found.append(pace.pop())
    return found


def test_nothing_is_due_without_a_rate() -> None:
    pace = Pace(Arrivals.FIXED, seed=0)
    assert _taken(pace, 10**18) == []
    pace.set_rate(2, 10**9)
    assert _taken(pace, 3 * 10**9) == [1_500_000_000, 2_000_000_000, 2_500_000_000, 3_000_000_000]
    pace.set_rate(0, 3 * 10**9)
    assert _taken(pace, 10**18) == []


def test_a_pace_without_a_change_does_not_drift() -> None:
    pace = Pace(Arrivals.FIXED, seed=0)
    pace.set_rate(3, 0)
    found = _taken(pace, 1000 * 10**9)
    assert len(found) == 3000
    assert found[:3] == [333_333_333, 666_666_667, 1_000_000_000]
    assert found[-1] == 1000 * 10**9


def test_a_change_of_rate_keeps_the_share_of_the_gap_that_has_passed() -> None:
    pace = Pace(Arrivals.FIXED, seed=0)
    pace.set_rate(1, 0)
    # Half of the gap is over; the other half passes ten times as fast.
    pace.set_rate(10, 500_000_000)
    assert _taken(pace, 700_000_000) == [550_000_000, 650_000_000]
    # And stands still while there is no rate.
    pace.set_rate(0, 700_000_000)
    pace.set_rate(10, 900_000_000)
    assert _taken(pace, 1_000_000_000) == [950_000_000]


def test_poisson_pace_follows_the_rate_and_the_seed() -> None:
    found = []
    for seed in ("1 0", "1 0", "1 1"):
        pace = Pace(Arrivals.POISSON, seed=seed)
        pace.set_rate(1000, 0)
        slow = _taken(pace, 10 * 10**9)
        pace.set_rate(3000, 10 * 10**9)
        fast = _taken(pace, 20 * 10**9)
        # Within 4 standard deviations of a Poisson count.
        assert len(slow) == pytest.approx(10_000, abs=400)
        assert len(fast) == pytest.approx(30_000, abs=700)
        gaps = [after - before for before, after in pairwise(slow)]
        assert sum(gap > 1e6 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03)
        found.append(slow + fast)
    assert found[0] == found[1] != found[2]


def test_many_users_change_the_rate_without_bias() -> None:
    # The rate is set a hundred times within each gap: none of it may be lost or counted twice.
    pace = Pace(Arrivals.FIXED, seed=0)
    found = []
    for at_ns in range(0, 10**9, 10**5):
        found += _taken(pace, at_ns)
        pace.set_rate(100, at_ns)
    assert len(found) == 99
    assert found[-1] == pytest.approx(99 * 10**7, abs=100)
