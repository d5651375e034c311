import math
import random
from collections.abc import Callable

import pytest

from capnp_rig.loadtest.stats.metric import Range, Values, metric_of_values
from capnp_rig.loadtest.stats.pair_statistics import interval_of_median, judge, paired_ratio

EXPERIMENTS = 1000
Noise = Callable[[random.Random], float]
# Factors around 1 of a median of 1: even, skewed, with heavy tails, with one in ten disturbed.
NOISES: dict[str, Noise] = {
    "normal": lambda rng: math.exp(rng.gauss(0, 0.02)),
    "skewed": lambda rng: math.exp(rng.expovariate(50) - math.log(2) / 50),
    "heavy": lambda rng: math.exp(rng.choice([-1, 1]) * rng.expovariate(50)),
    "disturbed": lambda rng: math.exp(rng.gauss(0, 0.02) + 0.5 * rng.randrange(10) // 4.5),
}


def _values(rng: random.Random, noise: Noise, count: int, scale: float = 1.0) -> Values:
    return Values(tuple(scale * noise(rng) for _ in range(count)))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("count", [6, 12])
def test_of_100_ratios_of_repeats_93_to_97_hold_the_truth(noise: str, count: int) -> None:
    rng = random.Random(count)
    held = 0
    for _ in range(EXPERIMENTS):
        old, new = (_values(rng, NOISES[noise], count, scale) for scale in (1.0, 1.3))
        ratio = new.over(old)
        assert ratio is not None
        assert ratio.low is not None
        assert ratio.high is not None
        held += ratio.low <= 1.3 <= ratio.high
    assert 0.93 <= held / EXPERIMENTS <= 0.97


@pytest.mark.parametrize("noise", ["normal", "skewed", "heavy"])
@pytest.mark.parametrize("count", [6, 7, 12])
def test_of_100_medians_of_pairs_93_to_97_hold_the_truth(noise: str, count: int) -> None:
    rng = random.Random(count)
    held = 0
    for _ in range(EXPERIMENTS):
        found = interval_of_median(_values(rng, NOISES[noise], count).values)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1 <= found.high
    assert 0.93 <= held / EXPERIMENTS <= 0.97


def _verdicts(*, count: int, slowness: float, is_paired: bool, seed: int) -> dict[str, float]:
    """Return the share of each verdict; repeats scatter by 1 %, the candidate is slower."""
    rng = random.Random(seed)
    verdicts: dict[str, float] = {}
    for _ in range(EXPERIMENTS):
        old, again, new = (
            tuple(scale * math.exp(rng.gauss(0, 0.01)) for _ in range(count))
            for scale in (1.0, 1.0, slowness)
        )
        if is_paired:
            same = paired_ratio(old, again)
            assert same.high is not None
            assert same.low is not None
            floor = max(same.high, 1 / same.low) - 1
            ratio = paired_ratio(old, new)
        else:
            floors = [Values(old).floor, Values(new).floor]
            floor = max(each for each in floors if each is not None)
            over = Values(old).over(Values(new))
            assert over is not None
            ratio = over
        verdict = str(judge(ratio, floor).verdict)
        verdicts[verdict] = verdicts.get(verdict, 0.0) + 1 / EXPERIMENTS
    return verdicts


@pytest.mark.parametrize("is_paired", [False, True])
@pytest.mark.parametrize(("count", "slowness"), [(6, 1.06), (12, 1.04)])
def test_a_planted_slowdown_is_seen_19_times_in_20(
    count: int, slowness: float, *, is_paired: bool
) -> None:
    verdicts = _verdicts(count=count, slowness=slowness, is_paired=is_paired, seed=1)
    assert verdicts["slower"] >= 0.95
    back = _verdicts(count=count, slowness=1 / slowness, is_paired=is_paired, seed=2)
    assert back["faster"] >= 0.95


@pytest.mark.parametrize("is_paired", [False, True])
@pytest.mark.parametrize("count", [6, 12])
def test_the_same_is_slower_in_less_than_one_of_20(count: int, *, is_paired: bool) -> None:
    verdicts = _verdicts(count=count, slowness=1.0, is_paired=is_paired, seed=3)
    assert verdicts.get("slower", 0.0) <= 0.05
    assert verdicts.get("faster", 0.0) <= 0.05
    assert verdicts["same"] >= 0.9


def test_the_ratio_of_values_is_the_median_of_all_ratios() -> None:
    old, new = Values((1.0, 2, 3, 4, 5, 6)), Values((10.0, 20, 30, 40, 50, 60))
    ratio = new.over(old)
    assert ratio is not None
    assert (ratio.value, ratio.n) == (10, 6)
    # Of 36 ratios the sixth from either end.
    assert (ratio.low, ratio.high) == pytest.approx((4, 25))


def test_an_outlier_moves_it_little() -> None:
    quiet = Values((99.0, 100, 100, 100, 101, 101) * 2)
    ratio = Values((99.0, 100, 100, 100, 101, 500, *(99.0, 100, 100, 100, 101, 101))).over(quiet)
    assert ratio is not None
    assert ratio.value == pytest.approx(1)
    assert ratio.high is not None
    assert ratio.high < 1.03


def test_there_is_no_ratio_to_nothing() -> None:
    values = Values((0.0, 1, 1, 1, 1, 1))
    assert values.over(values) is values.floor is None


def test_the_floor_sees_values_that_wander() -> None:
    steady, wandering = Values((99.0, 101) * 6), Values((99.0,) * 6 + (101.0,) * 6)
    assert steady.floor is not None
    assert wandering.floor is not None
    assert wandering.floor > steady.floor + 0.01


def test_a_range_is_held_against_a_range() -> None:
    ratio = Range(9000, 9450).over(Range(8000, 8400))
    assert (ratio.value, ratio.low, ratio.high) == (1.125, 9000 / 8400, 9450 / 8000)
    assert Range(8000, 8400).floor == pytest.approx(0.05)


def test_under_six_values_measure_nothing() -> None:
    few = metric_of_values("calls/s", "calls/s", [1.0] * 5)
    assert (few.measured, [each.text for each in few.problems]) == (
        None,
        ["5 measured, at least 6"],
    )
    assert metric_of_values("calls/s", "calls/s", [1.0] * 6).measured is not None
