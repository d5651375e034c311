from itertools import pairwise

import pytest

from capnp_rig.loadtest.report.distribution import ecdf, edges_of, steps
from capnp_rig.loadtest.stats.histogram import Histogram

# 100 values of 10 µs, 300 of 100 µs, 600 of 1 ms.
TIMES = Histogram.of([10_000] * 100 + [100_000] * 300 + [1_000_000] * 600)


def test_the_edges_enclose_all_values() -> None:
    edges = edges_of([TIMES, Histogram.of([5_000_000])])
    assert edges[0] <= 10_000
    assert edges[-1] >= 5_000_000
    ratios = [high / low for low, high in pairwise(edges)]
    assert ratios == pytest.approx([10 ** (1 / 40)] * len(ratios))


def test_one_value_has_a_step_all_the_same() -> None:
    times = Histogram.of([10_000])
    assert max(point.y for point in steps(times, edges_of([times]))) == 100


@pytest.mark.parametrize(
    ("time_ns", "percent"), [(5_000, 0), (20_000, 10), (90_000, 10), (200_000, 40), (2e6, 100)]
)
def test_the_cumulative_distribution(time_ns: float, percent: float) -> None:
    (point,) = ecdf(TIMES, [time_ns])
    assert point.y == pytest.approx(percent)


def test_the_steps_have_all_values_at_their_place() -> None:
    edges = edges_of([TIMES])
    points = steps(TIMES, edges)
    assert sum(point.y for point in points) / 2 == pytest.approx(100)
    assert [point.x for point in points] == sorted({point.x for point in points})
    peaks = [point for point in points if point.y > 1]
    assert [round(point.y) for point in peaks] == [10, 10, 30, 30, 60, 60]
    for peak, value in zip(peaks[::2], (10_000, 100_000, 1_000_000), strict=True):
        assert peak.x * 0.93 <= value <= peak.x * 1.08


def test_what_is_under_a_microsecond_counts_into_the_first_step() -> None:
    times = Histogram.of([10] * 30 + [50_000] * 70)
    points = steps(times, edges_of([times]))
    assert round(points[0].y) == 30
