import random
from statistics import median

import pytest

from capnp_rig.loadtest.stats.histogram import Histogram, merge
from capnp_rig.loadtest.stats.resampling import (
    Resampled,
    block_length,
    draw_blocks,
    ratio_of,
    resample_median,
    resample_percentiles,
    resample_sums,
)


@pytest.mark.parametrize(
    ("stretches", "length"),
    [
        ([2], None),
        ([11], None),
        ([12], 2),
        ([16], 2),
        ([18], 3),
        ([30], 3),
        ([60], 4),
        ([120], 5),
        ([6, 6], 2),
        ([30, 2, 30], 2),
        ([1] * 12, 1),
    ],
)
def test_blocks_grow_with_the_run_and_there_are_six_at_least(
    stretches: list[int], length: int | None
) -> None:
    assert block_length(stretches) == length
    assert length is None or sum(stretches) // length >= 6


def test_blocks_never_span_a_gap() -> None:
    assert draw_blocks([4, 2, 3], 2, seed=1).starts == [0, 1, 2, 4, 6, 7]


def test_a_resample_has_as_many_units_as_the_run() -> None:
    blocks = draw_blocks([30], 3, seed=1)
    assert {len(pick(range(len(blocks.starts)))) for pick in blocks.picks} == {10}


def test_sums_over_blocks() -> None:
    assert draw_blocks([4], 2, seed=1).sums([1, 2, 4, 8]) == [3, 6, 12]


def test_a_rate_is_that_of_the_drawn_units_together() -> None:
    blocks = draw_blocks([12], 2, seed=1)
    found = resample_sums(lambda calls, seconds: calls / seconds, blocks, [10] * 12, [2] * 12)
    assert found.value == 5
    assert set(found.draws) == {5}


def _seconds(count: int) -> list[list[int]]:
    rng = random.Random(count)
    return [[int(rng.lognormvariate(13, 1)) for _ in range(50 + at)] for at in range(count)]


def test_a_percentile_is_that_of_the_merged_histograms() -> None:
    seconds = [*_seconds(20), [], [10, 20, 10**12]]
    times = [Histogram.of(second) for second in seconds]
    blocks = draw_blocks([len(times)], 3, seed=2)
    whole = merge(times)
    found = resample_percentiles(times, whole, (1.0, 50.0, 99.0), blocks)
    assert found is not None
    for at, pick in enumerate(blocks.picks[:40]):
        drawn = [start + step for start in pick(blocks.starts) for step in range(blocks.length)]
        merged = merge(times[unit] for unit in drawn)
        for percent, resampled in found.items():
            exact = merged.percentile_ns(percent)
            assert exact is not None
            # The edges of what lies out of range are those of the range.
            low, high = max(exact, 1_000), min(exact, 10**11)
            assert low * 0.992 <= resampled.draws[at] <= max(1_000, high * 1.008)
    assert {percent: each.value for percent, each in found.items()} == {
        percent: whole.percentile_ns(percent) for percent in found
    }


def test_seconds_without_an_answer_have_no_percentile() -> None:
    times = [Histogram.of([5_000])] + [Histogram()] * 11
    assert resample_percentiles(times, merge(times), (50.0,), draw_blocks([12], 2, seed=1)) is None


def test_medians_are_resampled_with_replacement() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    found = resample_median(values, seed=3)
    assert found.value == median(values)
    assert min(found.draws) < 2.5
    assert max(found.draws) > 4.5
    assert resample_median(values, seed=3) == found
    assert resample_median(values, seed=4) != found


def test_the_ratio_is_above_one_where_the_new_one_is_smaller() -> None:
    old = Resampled(10.0, [float(value) for value in range(9_000, 11_000)])
    new = Resampled(5.0, [5_000.0] * 2_000)
    found = ratio_of(old, new, 12)
    assert found is not None
    assert (found.value, found.n) == (2.0, 12)
    assert (found.low, found.high) == pytest.approx((1.81, 2.19), abs=0.001)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_there_is_no_ratio_to_nothing(value: float) -> None:
    assert ratio_of(Resampled(1.0, [1.0, value]), Resampled(1.0, [1.0, 1.0]), 6) is None
    assert ratio_of(Resampled(1.0, [1.0, 1.0]), Resampled(value, [1.0, 1.0]), 6) is None


def test_the_interval_of_two_times_six_values_holds_the_truth() -> None:
    rng = random.Random(7)
    held = 0
    for _ in range(60):
        old, new = ([100 + rng.gauss(0, 5) for _ in range(6)] for _ in range(2))
        found = ratio_of(resample_median(old, seed=1), resample_median(new, seed=2), 6)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1 <= found.high
    # 96 % in the long run; fewer than 51 of 60 would be one in some ten thousand.
    assert held >= 51


def test_blocks_of_what_hangs_together_have_a_wider_interval() -> None:
    # Ten seconds slow, ten seconds fast: single seconds would hide how much a run can differ.
    levels = [100.0 if at // 10 % 2 else 200.0 for at in range(120)]
    spreads = []
    for length in (1, 5):
        blocks = draw_blocks([120], length, seed=1)
        found = resample_sums(lambda calls, ones: calls / ones, blocks, levels, [1.0] * 120)
        draws = sorted(found.draws)
        spreads.append(draws[1950] - draws[50])
    assert spreads[1] > 1.7 * spreads[0]
