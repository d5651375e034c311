import math
from random import Random
from statistics import fmean

import pytest

from capnp_rig.loadtest.stats.looks import (
    LEVEL,
    Look,
    mean_ratio,
    plan_looks,
    shares,
    student_t,
)

_EXPERIMENTS = 1000
_BLOCKS = 18


# Table 26.10 of Abramowitz and Stegun.
@pytest.mark.parametrize(
    ("level", "freedom", "expected"),
    [
        (0.05, 1, 12.706),
        (0.05, 2, 4.303),
        (0.05, 3, 3.182),
        (0.05, 10, 2.228),
        (0.01, 5, 4.032),
        (0.01, 29, 2.756),
        (0.001, 30, 3.646),
    ],
)
def test_student_t_is_that_of_the_table(level: float, freedom: int, expected: float) -> None:
    assert student_t(level, freedom) == pytest.approx(expected, abs=0.0005)


def test_looks_are_at_thirds_of_the_blocks_and_err_in_5_of_100() -> None:
    assert plan_looks(45) == (Look(15, 0.005), Look(30, 0.01), Look(45, 0.035))
    assert sum(look.level for look in plan_looks(45)) == pytest.approx(0.05)


def test_a_look_that_would_have_under_six_blocks_leaves_its_level_to_the_next() -> None:
    assert plan_looks(8) == (Look(6, 0.015), Look(8, 0.035))
    assert plan_looks(6) == (Look(6, LEVEL),)
    with pytest.raises(ValueError, match="5 blocks, at least 6"):
        plan_looks(5)


def test_the_first_metric_has_half_of_the_level() -> None:
    assert shares(1) == [1.0]
    assert shares(4) == [0.5, *[pytest.approx(1 / 6)] * 3]


def test_the_interval_of_a_mean_ratio() -> None:
    logs = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    # Mean 0.035, standard deviation 0.018708, t of 5 degrees 2.5706.
    ratio = mean_ratio(logs, 0.05)
    assert ratio.n == 6
    assert ratio.value == pytest.approx(math.exp(0.035))
    assert ratio.low == pytest.approx(math.exp(0.035 - 2.5706 * 0.018708 / math.sqrt(6)), rel=1e-5)
    assert ratio.high == pytest.approx(math.exp(0.035 + 2.5706 * 0.018708 / math.sqrt(6)), rel=1e-5)
    assert mean_ratio(logs[:5], 0.05).low is None


def _misses(looks: tuple[Look, ...], experiment: int) -> list[bool]:
    """Return for each look whether its interval misses the truth."""
    rng = Random(experiment)
    truth = 1.05
    logs = [rng.gauss(math.log(truth), 0.03) for _ in range(looks[-1].blocks)]
    misses = []
    for look in looks:
        ratio = mean_ratio(logs[: look.blocks], look.level)
        assert ratio.low is not None
        assert ratio.high is not None
        misses.append(not ratio.low <= truth <= ratio.high)
    return misses


def _share_of_misses(looks: tuple[Look, ...]) -> float:
    return fmean(any(_misses(looks, number)) for number in range(_EXPERIMENTS))


def test_all_looks_together_err_in_at_most_5_of_100_comparisons() -> None:
    # Not far below either: a plan that spends little sees little.
    assert 0.03 < _share_of_misses(plan_looks(_BLOCKS)) <= 0.05


def test_who_looks_after_every_block_at_5_percent_errs_far_more_often() -> None:
    every = tuple(Look(blocks, 0.05) for blocks in range(6, _BLOCKS + 1))
    assert _share_of_misses(every) > 0.1


@pytest.mark.parametrize("blocks", [6, 12, 30])
def test_95_of_100_intervals_of_one_look_hold_the_truth(blocks: int) -> None:
    assert 0.93 <= 1 - _share_of_misses((Look(blocks, 0.05),)) <= 0.97
