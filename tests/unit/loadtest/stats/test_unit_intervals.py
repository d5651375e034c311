import math
import random
from collections import Counter
from statistics import NormalDist

import pytest

from capnp_rig.loadtest.stats.histogram import Histogram, bucket_of
from capnp_rig.loadtest.stats.unit_intervals import (
    Added,
    added,
    added_to_percentiles,
    added_to_ratio,
    half_width,
    student_quantile,
)

EXPERIMENTS = 1000
SECONDS, REPEATS = True, False


def _autoregressive(rng: random.Random, count: int, rho: float) -> list[float]:
    """Return a stationary series of standard deviation 1, each value like the one before it."""
    level = rng.gauss(0, 1)
    series = [level]
    for _ in range(count - 1):
        level = rho * level + math.sqrt(1 - rho**2) * rng.gauss(0, 1)
        series.append(level)
    return series


def _rate(rng: random.Random, count: int, rho: float, *, is_series: bool, mean: float) -> Added:
    calls = [mean * (1 + 0.02 * level) for level in _autoregressive(rng, count, rho)]
    part = added_to_ratio(calls, [1.0] * count, is_series=is_series)
    assert part is not None
    return part


@pytest.mark.parametrize(
    ("count", "rho", "is_series"),
    [(6, 0.0, REPEATS), (12, 0.0, REPEATS), *((30, rho, SECONDS) for rho in (0.0, 0.5, 0.8))],
)
def test_of_100_intervals_93_to_97_hold_the_truth(
    count: int, rho: float, *, is_series: bool
) -> None:
    rng = random.Random(7)
    held = ratio_held = 0
    for _ in range(EXPERIMENTS):
        old, new = (_rate(rng, count, rho, is_series=is_series, mean=mean) for mean in (1e3, 1.3e3))
        rate, ratio = old.interval, new.over(old)
        assert rate.low is not None
        assert rate.high is not None
        assert ratio.low is not None
        assert ratio.high is not None
        held += rate.low <= 1e3 <= rate.high
        ratio_held += ratio.low <= 1.3 <= ratio.high
    assert 0.93 <= held / EXPERIMENTS <= 0.97
    assert 0.93 <= ratio_held / EXPERIMENTS <= 0.97


# What the calls of a unit take, in ns, at a level of 1: a lognormal distribution, 40 calls each.
_NORMAL = NormalDist()
_CALLS_NS = [1e6 * math.exp(0.3 * _NORMAL.inv_cdf((at + 0.5) / 200)) for at in range(200)]


def _times_at(level: float) -> Histogram:
    counts = Counter(bucket_of(int(each * level)) for each in _CALLS_NS)
    return Histogram({bucket: 40 * count for bucket, count in counts.items()}, 40 * 200)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("count", "rho", "is_series"),
    [(6, 0.0, REPEATS), (12, 0.0, REPEATS), *((30, rho, SECONDS) for rho in (0.0, 0.5, 0.8))],
)
def test_of_100_intervals_of_percentiles_93_to_97_hold_the_truth(
    count: int, rho: float, *, is_series: bool
) -> None:
    rng = random.Random(11)
    percents = (50.0, 90.0)
    held = dict.fromkeys(percents, 0)
    for _ in range(EXPERIMENTS):
        levels = _autoregressive(rng, count, rho)
        times = [_times_at(math.exp(0.03 * level)) for level in levels]
        parts = added_to_percentiles(times, percents, is_series=is_series)
        for percent in percents:
            found = parts[percent].interval
            spread = math.hypot(0.3, 0.03)
            truth = 1e6 * math.exp(spread * _NORMAL.inv_cdf(percent / 100))
            assert found.low is not None
            assert found.high is not None
            held[percent] += found.low <= truth <= found.high
    assert all(0.93 <= each / EXPERIMENTS <= 0.97 for each in held.values())


@pytest.mark.parametrize(("freedom", "quantile"), [(5, 2.571), (11, 2.201), (29, 2.045)])
def test_quantiles_of_student(freedom: int, quantile: float) -> None:
    assert student_quantile(freedom) == pytest.approx(quantile, rel=0.003)


def test_the_interval_of_repeats_is_that_of_student() -> None:
    values = [90.0, 95, 100, 100, 105, 110]
    part = added_to_ratio(values, [1.0] * 6, is_series=REPEATS)
    assert part is not None
    # The standard error of the mean is 2.887.
    assert half_width(part) == pytest.approx(2.571 * 0.02887, rel=0.01)


def test_what_follows_each_other_has_a_wider_interval_than_as_many_repeats() -> None:
    waves = [100.0 + 10 * math.sin(at / 5) for at in range(30)]
    widths = [
        half_width(part)
        for is_series in (REPEATS, SECONDS)
        if (part := added_to_ratio(waves, [1.0] * 30, is_series=is_series)) is not None
    ]
    assert widths[1] > 3 * widths[0]


@pytest.mark.parametrize(("count", "is_series"), [(5, REPEATS), (29, SECONDS)])
def test_with_fewer_there_is_none(count: int, *, is_series: bool) -> None:
    assert added(1.0, [1.0] * count, is_series=is_series) is None
    assert added(1.0, [1.0] * (count + 1), is_series=is_series) is not None


def test_nothing_has_no_logarithm() -> None:
    assert added_to_ratio([0.0] * 6, [1.0] * 6, is_series=REPEATS) is None
    assert added_to_ratio([1.0] + [0.0] * 5, [1.0] * 6, is_series=REPEATS) is None
    assert added_to_ratio([1.0] * 6, [1.0] + [0.0] * 5, is_series=REPEATS) is None


def test_units_that_are_alike_leave_no_doubt() -> None:
    part = added_to_ratio([5.0] * 30, [1.0] * 30, is_series=SECONDS)
    assert part is not None
    assert (part.interval.low, part.interval.high, part.floor) == (5.0, 5.0, 0.0)


def test_a_percentile_is_interpolated_within_its_bucket() -> None:
    # 1 to 6 ms, each 1,000 times; a unit has one of them less often.
    values = [at * 1_000_000 for at in range(1, 7) for _ in range(1000)]
    units = [Histogram.of(values[unit::6]) for unit in range(6)]
    parts = added_to_percentiles(units, (50.0, 99.0), is_series=REPEATS)
    assert parts[50.0].value == pytest.approx(3e6, rel=0.008)
    assert parts[99.0].value == pytest.approx(6e6, rel=0.008)
    assert max(map(abs, parts[99.0].shares)) < 0.001


def test_times_out_of_range_have_no_interval() -> None:
    units = [Histogram.of([10, 2_000, 5_000]) for _ in range(6)]
    assert set(added_to_percentiles(units, (20.0, 60.0), is_series=REPEATS)) == {60.0}


def test_the_floor_sees_a_run_that_wanders() -> None:
    steady = added_to_ratio([99.0, 101.0] * 15, [1.0] * 30, is_series=SECONDS)
    wandering = added_to_ratio([99.0] * 15 + [101.0] * 15, [1.0] * 30, is_series=SECONDS)
    assert steady is not None
    assert wandering is not None
    assert steady.floor < 0.01
    assert wandering.floor > 0.02
