import pytest

from capnp_rig.loadtest.stats.pair_statistics import (
    Interval,
    Verdict,
    interval_of_median,
    judge,
    noise_floor,
    paired_ratio,
)

TWELVE = [10.0, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]


def test_the_ratio_is_the_exponential_of_the_median_logarithm() -> None:
    ratio = paired_ratio([2, 2, 2, 9, 2, 2, 2], [1, 1, 1, 1, 1, 1, 4])
    assert ratio.value == pytest.approx(2)
    assert (ratio.low, ratio.high) == pytest.approx((1.382, 2.987), abs=0.001)


def test_above_one_the_candidate_is_faster() -> None:
    assert paired_ratio([300.0], [100.0]).value == pytest.approx(3)


def test_pairs_cancel_what_a_process_does_to_both() -> None:
    slow_process = [1, 5, 2, 9, 3, 7]
    ratio = paired_ratio([2.0 * k for k in slow_process], [1.0 * k for k in slow_process])
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((2, 2, 2))


def test_processes_must_pair_up() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio([1.0, 2.0], [1.0])


def test_no_values_have_no_median() -> None:
    with pytest.raises(ValueError, match="no values"):
        interval_of_median([])


@pytest.mark.parametrize("count", [1, 5])
def test_few_processes_have_no_interval(count: int) -> None:
    found = interval_of_median(TWELVE[:count])
    assert (found.low, found.high, found.n) == (None, None, count)


@pytest.mark.parametrize(
    # The ranges from the first, and from the third of twelve, hold 96.9 and 96.1 %.
    ("count", "low", "high"),
    [(6, 10.357, 14.643), (7, 10.733, 15.267), (12, 12.263, 18.737)],
)
def test_the_interval_is_between_ranges(count: int, low: float, high: float) -> None:
    found = interval_of_median(TWELVE[:count])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.001)


@pytest.mark.parametrize(("low", "high", "floor"), [(0.98, 1.01, 1 / 0.98 - 1), (0.99, 1.05, 0.05)])
def test_the_noise_floor_is_the_far_end(low: float, high: float, floor: float) -> None:
    assert noise_floor(Interval(1.0, low, high, 12)) == pytest.approx(floor)


def test_no_interval_no_floor() -> None:
    assert noise_floor(Interval(1.0, None, None, 5)) is None


@pytest.mark.parametrize(
    ("value", "low", "high", "floor", "verdict"),
    [
        (1.10, 1.05, 1.15, 0.01, Verdict.FASTER),
        (0.90, 0.85, 0.95, 0.01, Verdict.SLOWER),
        # Within the margin, and yet different.
        (1.015, 1.01, 1.03, 0.001, Verdict.FASTER),
        (1 / 1.015, 1 / 1.03, 1 / 1.01, 0.001, Verdict.SLOWER),
        # An injected slowdown of twice the floor is caught.
        (1 / 1.10, 1 / 1.12, 1 / 1.08, 0.05, Verdict.SLOWER),
        (1.00, 0.99, 1.01, 0.01, Verdict.SAME),
        # A noisy baseline neither makes nor hinders a tie.
        (1.00, 0.96, 1.04, 0.24, Verdict.SAME),
        (0.87, 0.80, 1.01, 0.24, Verdict.CANNOT_TELL),
        # The interval excludes 1, but the baseline differs from itself by more.
        (0.87, 0.80, 0.95, 0.24, Verdict.CANNOT_TELL),
        (1.04, 1.03, 1.06, 0.05, Verdict.CANNOT_TELL),
        (1.10, 0.99, 1.20, 0.01, Verdict.CANNOT_TELL),
        (1.00, 0.94, 1.04, 0.01, Verdict.CANNOT_TELL),
        (1.10, None, None, 0.01, Verdict.VOID),
        (1.10, 1.05, 1.15, None, Verdict.VOID),
    ],
)
def test_verdicts(
    value: float, low: float | None, high: float | None, floor: float | None, verdict: Verdict
) -> None:
    assert judge(Interval(value, low, high, 12), floor).verdict is verdict


@pytest.mark.parametrize(
    ("margin", "verdict"), [(0.05, "same"), (0.031, "same"), (0.029, "cannot tell")]
)
def test_the_user_sets_the_margin(margin: float, verdict: str) -> None:
    ratio = Interval(1.0, 1 / 1.02, 1.03, 12)
    assert judge(ratio, 0.5, margin=margin).verdict == verdict


@pytest.mark.parametrize(
    ("value", "half", "floor", "count"),
    [
        # Twice the margin either way: 12 · (1.429 · 2)² are 99.
        (1.0, 2.0, 0.0, 87),
        # A distance of three margins is nearer to be seen than the margin to be kept.
        (1.05**3, 4.0, 0.0, 32),
        # The floor, too, must come down to less than the distance.
        (1.05, 0.5, 1.05**2 - 1, 36),
    ],
)
def test_how_many_more_would_tell(value: float, half: float, floor: float, count: int) -> None:
    ratio = Interval(value, value / 1.05**half, value * 1.05**half, 12)
    judged = judge(ratio, floor, unit="repeats")
    assert judged.verdict is Verdict.CANNOT_TELL
    needed = f"some {count} more repeats would tell, with 80% power"
    assert judged.reason.partition("; ")[2] == needed


def test_the_word_of_earlier_versions_is_read() -> None:
    assert Verdict("inconclusive") is Verdict.CANNOT_TELL
    with pytest.raises(ValueError, match="no idea"):
        Verdict("no idea")
