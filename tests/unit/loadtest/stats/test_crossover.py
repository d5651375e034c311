import math
from collections.abc import Mapping

import pytest

from capnp_rig.loadtest.stats.crossover import Crossover, crossing, find_crossover
from capnp_rig.loadtest.stats.reasons import Reason, ReasonCode, codes_of

SIZES = (64, 256, 1024, 4096)


def curve(cross_at: float) -> Mapping[float, float]:
    """Return a ratio per size that is 1 at `cross_at` and a straight line in log-log."""
    return {size: (size / cross_at) ** 0.5 for size in SIZES}


def ratios(*cross_at: float) -> dict[float, dict[int, float]]:
    """Return the curves of processes that cross where the arguments say."""
    return {
        size: {process: curve(at)[size] for process, at in enumerate(cross_at)} for size in SIZES
    }


@pytest.mark.parametrize("at", [65, 100, 256, 500, 4000])
def test_a_straight_line_crosses_where_it_does(at: float) -> None:
    logs = [math.log(ratio) for ratio in curve(at).values()]
    assert crossing(SIZES, logs) == pytest.approx(at)


@pytest.mark.parametrize(
    ("logs", "found"),
    [
        ([1, 1, 1, 1], 0),
        ([-1, -1, -1, -1], math.inf),
        ([1, 1, 1, -1], math.inf),
        ([0, 0, 0, 0], math.inf),
        # What counts is from where on it stays ahead.
        ([1, -1, 1, 1], 512),
        ([-1, 1, -1, 1], 2048),
        ([-3, 1, 1, 1], 64 * 4**0.75),
        ([0, 1, 1, 1], 64),
    ],
)
def test_a_rising_curve_crosses_where_it_stays_above(logs: list[float], found: float) -> None:
    assert crossing(SIZES, logs) == pytest.approx(found)


@pytest.mark.parametrize(
    ("logs", "found"),
    [
        ([1, 1, 1], math.inf),
        ([-1, -1, -1], 0),
        ([1, -1, -1], math.sqrt(10)),
        ([1, 1, -1], 10 * math.sqrt(10)),
        ([1, -1, 1], math.sqrt(10)),
    ],
)
def test_a_falling_curve_crosses_where_it_stops_being_above(
    logs: list[float], found: float
) -> None:
    assert crossing((1, 10, 100), logs, is_rising=False) == pytest.approx(found)


def test_the_estimate_is_that_of_the_median_curve() -> None:
    found = find_crossover(ratios(*[100] * 5, *[300] * 7))
    assert found.value == pytest.approx(300)
    assert found.n == 12
    assert found.reasons == ()


def test_the_interval_covers_what_processes_disagree_on() -> None:
    found = find_crossover(ratios(*(100 * 1.05**process for process in range(12))))
    assert found.low is not None
    assert found.high is not None
    assert found.value is not None
    assert 100 < found.low < found.value < found.high < 100 * 1.05**11
    assert find_crossover(ratios(*[100] * 12)).low == pytest.approx(100)


def test_the_interval_is_repeatable() -> None:
    drifting = ratios(*(100 * 1.05**process for process in range(12)))
    assert find_crossover(drifting) == find_crossover(drifting)


def test_few_processes_have_the_plain_range_and_fewer_none() -> None:
    six = find_crossover(ratios(100, 110, 120, 130, 140, 150))
    assert (six.low, six.high) == (pytest.approx(100), pytest.approx(150))
    five = find_crossover(ratios(100, 110, 120, 130, 140))
    assert (five.low, five.high) == (None, None)
    assert five.value == pytest.approx(120)
    assert codes_of(five.reasons) == {ReasonCode.FEW_PROCESSES}


def test_ahead_or_behind_throughout_is_said() -> None:
    ahead = (Reason(ReasonCode.AHEAD),)
    assert find_crossover(ratios(*[10] * 6)) == Crossover(None, None, None, 6, ahead)
    behind = find_crossover(ratios(*[10_000] * 12))
    assert behind == Crossover(None, None, None, 12, (Reason(ReasonCode.BEHIND),))
    few = find_crossover(ratios(10, 10))
    assert codes_of(few.reasons) == {ReasonCode.AHEAD, ReasonCode.FEW_PROCESSES}


def test_throughout_is_not_said_plainly_where_processes_disagree() -> None:
    found = find_crossover(ratios(*[10] * 4, *[100] * 2))
    assert (found.value, found.low, found.high) == (None, 64, pytest.approx(100))
    assert codes_of(found.reasons) == {ReasonCode.AHEAD_BY_ESTIMATE, ReasonCode.BELOW_MEASURED}


def test_of_a_falling_curve_too() -> None:
    falling = {percent: dict.fromkeys(range(6), 3 / percent) for percent in (1.0, 10.0, 100.0)}
    assert find_crossover(falling, is_rising=False).value == pytest.approx(3)
    ahead = {percent: dict.fromkeys(range(6), 2.0) for percent in (1.0, 10.0)}
    assert find_crossover(ahead, is_rising=False).reasons == (Reason(ReasonCode.AHEAD),)
    behind = {percent: dict.fromkeys(range(6), 0.5) for percent in (1.0, 10.0)}
    assert find_crossover(behind, is_rising=False).reasons == (Reason(ReasonCode.BEHIND),)


def test_an_interval_that_reaches_beyond_is_cut_and_said_so() -> None:
    found = find_crossover(ratios(*[100] * 4, *[10] * 2))
    assert found.value == pytest.approx(100)
    assert found.low == 64
    assert codes_of(found.reasons) == {ReasonCode.BELOW_MEASURED}


def test_a_process_that_lacks_a_size_is_left_out() -> None:
    partial = ratios(*[100] * 6)
    del partial[64][5]
    assert find_crossover(partial).n == 5


@pytest.mark.parametrize("broken", [{}, {64.0: {0: 1.0}}, {64.0: {0: 1.0}, 256.0: {1: 1.0}}])
def test_without_two_sizes_there_is_no_curve(broken: dict[float, dict[int, float]]) -> None:
    with pytest.raises(ValueError, match="two sizes"):
        find_crossover(broken)
