from itertools import pairwise
from statistics import fmean, variance
from time import process_time

import pytest

from capnp_rig.loadtest.engine.schedule import Arrivals, Pace


def _taken(pace: Pace, until_ns: int) -> list[int]:
    found = pace.take(10**9, until_ns)
    assert pace.next_ns > until_ns
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


@pytest.mark.parametrize("arrivals", Arrivals)
def test_calls_taken_together_are_those_taken_one_by_one(arrivals: Arrivals) -> None:
    """Over changes of the rate, too."""
    paces = [Pace(arrivals, seed=7) for _ in range(3)]
    for pace in paces:
        for rate_hz, second in ((100, 0), (0, 1), (50, 2), (70, 3)):
            pace.set_rate(rate_hz, second * 10**9)
    alone, few, together = paces
    expected = [due_ns for _ in range(400) for due_ns in alone.take(1, 4 * 10**9)]
    assert together.take(10**6, 4 * 10**9) == expected
    assert [due_ns for _ in range(100) for due_ns in few.take(7, 4 * 10**9)] == expected
    assert [alone.next_ns, few.next_ns] == [together.next_ns] * 2
    assert not together.take(1, 4 * 10**9)


def test_many_users_change_the_rate_without_bias() -> None:
    # The rate is set a hundred times within each gap: none of it may be lost or counted twice.
    pace = Pace(Arrivals.FIXED, seed=0)
    found = []
    for at_ns in range(0, 10**9, 10**5):
        found += _taken(pace, at_ns)
        pace.set_rate(100, at_ns)
    assert len(found) == 99
    assert found[-1] == pytest.approx(99 * 10**7, abs=100)


def _pace(rate_hz: float, arrivals: Arrivals, seed: int = 0) -> Pace:
    pace = Pace(arrivals, seed=seed)
    pace.set_rate(rate_hz, 0)
    return pace


@pytest.mark.parametrize(("rate_hz", "seconds"), [(3, 1000), (1e7, 1), (1e7, 86_400)])
def test_fixed_calls_that_are_passed_over_are_counted(rate_hz: float, seconds: int) -> None:
    """Exactly, and the schedule goes on where it would have."""
    pace = _pace(rate_hz, Arrivals.FIXED)
    assert pace.skip_until(seconds * 10**9 + 1) == rate_hz * seconds
    assert pace.next_ns == seconds * 10**9 + round(1e9 / rate_hz)
    assert pace.skip_until(seconds * 10**9 + 1) == 0


@pytest.mark.parametrize("mean", [3, 100, 10_000, 10**8])
def test_poisson_calls_that_are_passed_over_are_as_many_as_would_have_come(mean: int) -> None:
    """Their number has mean and variance `mean`, and what comes next waits a gap."""
    end_ns, many = 10**9, 1000
    counts, waits = [], []
    for seed in range(many):
        pace = _pace(mean, Arrivals.POISSON, seed)
        counts.append(pace.skip_until(end_ns))
        waits.append((pace.next_ns - end_ns) * mean / 1e9)
    # Within 4 standard errors: of a mean, of a variance, and of the mean of exponential gaps.
    assert fmean(counts) == pytest.approx(mean, abs=4 * (mean / many) ** 0.5)
    assert variance(counts) == pytest.approx(mean, rel=4 * ((2 + 1 / mean) / many) ** 0.5)
    assert fmean(waits) == pytest.approx(1, abs=4 / many**0.5)


def test_calls_that_are_passed_over_keep_to_changes_of_the_rate() -> None:
    """Each stretch has its own rate, also where nobody asked for its calls yet."""
    pace = _pace(1000, Arrivals.FIXED)
    for rate_hz, second in ((0, 1), (10, 2), (1e6, 3)):
        pace.set_rate(rate_hz, second * 10**9)
    assert pace.take(2, 10**18) == [10**6, 2 * 10**6]
    assert pace.skip_until(4 * 10**9 + 1) == 998 + 0 + 10 + 10**6


def test_any_number_of_calls_is_passed_over_at_once() -> None:
    """Ten million a second for a day, which would take an hour one by one."""
    began_s = process_time()
    for arrivals in Arrivals:
        assert _pace(1e7, arrivals).skip_until(86_400 * 10**9) == pytest.approx(8.64e11, rel=1e-4)
    assert process_time() - began_s < 1
