import pytest

from capnp_rig.loadtest.report.spectrum import nines_ticks, spectrum_points, tail_of
from capnp_rig.loadtest.stats.histogram import Histogram


@pytest.mark.parametrize(
    ("percent", "tail"), [(0, 1), (50, 2), (90, 10), (99, 100), (99.9, 1000), (99.99, 10_000)]
)
def test_the_tail_of_a_percentile(percent: float, tail: float) -> None:
    assert tail_of(percent) == pytest.approx(tail)


@pytest.mark.parametrize(
    ("calls", "texts"),
    [
        (1, []),
        (2, ["p50"]),
        (99, ["p50", "p90"]),
        (100, ["p50", "p90", "p99"]),
        (1_000_000, ["p50", "p90", "p99", "p99.9", "p99.99", "p99.999", "p99.9999"]),
    ],
)
def test_ticks_are_the_nines_that_the_calls_reach(calls: int, texts: list[str]) -> None:
    assert [text for _, text in nines_ticks(calls)] == texts


def _times(count: int) -> Histogram:
    return Histogram.of([1000 * at for at in range(1, count + 1)])


def test_points_go_up_to_the_last_call() -> None:
    points = spectrum_points(_times(10_000))
    assert points[0].x == 1
    assert points[-1].x == 10_000
    assert points[-1].y == 10_000_000
    for percent, expected_us in ((50, 5000), (90, 9000), (99, 9900), (99.9, 9990)):
        nearest = min(points, key=lambda point: abs(point.x - tail_of(percent)))
        assert nearest.y == pytest.approx(expected_us * 1000, rel=1 / 128)
    assert [point.x for point in points] == sorted(point.x for point in points)
    assert [point.y for point in points] == sorted(point.y for point in points)


def test_a_tail_of_few_calls_is_void() -> None:
    points = spectrum_points(_times(10_000))
    assert {point.void for point in points if point.x <= 100.0001} == {""}
    assert {point.void for point in points if point.x > 101} == {"under 100 calls beyond it"}


def test_a_void_run_has_no_good_point() -> None:
    points = spectrum_points(_times(1000), "the generator was late")
    assert all(point.void.startswith("the generator was late") for point in points)
    assert points[-1].void == "the generator was late; under 100 calls beyond it"


@pytest.mark.parametrize("values", [[], [0, 0, 0]])
def test_what_the_histogram_does_not_resolve_is_not_drawn(values: list[int]) -> None:
    assert spectrum_points(Histogram.of(values)) == []
