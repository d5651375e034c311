import json
import math
import random

import pytest

from capnp_rig.loadtest.stats.histogram import (
    Histogram,
    Recorder,
    bucket_of,
    bucket_range_ns,
    merge,
)


def _times(count: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [int(10 ** rng.uniform(3, 9)) for _ in range(count)]


@pytest.mark.parametrize(
    "value_ns", [1_000, 1_001, 1_023, 1_024, 4_711, 999_999, 10**6, 2**30 - 1, 2**30, 10**11]
)
def test_a_value_lies_in_its_bucket_which_is_one_percent_wide(value_ns: int) -> None:
    low, high = bucket_range_ns(bucket_of(value_ns))
    assert low <= value_ns <= high
    assert (high - low) / low <= 0.01


def test_buckets_touch_and_are_in_order() -> None:
    first, last = bucket_of(1_000), bucket_of(10**11)
    for bucket in range(first, last):
        assert bucket_range_ns(bucket)[1] + 1 == bucket_range_ns(bucket + 1)[0]


def test_merged_equals_concatenated() -> None:
    one, other = _times(5_000, 1), _times(3_000, 2)
    assert merge([Histogram.of(one), Histogram.of(other)]) == Histogram.of(one + other)


def test_merging_nothing_is_empty() -> None:
    assert merge([]) == Histogram() == merge([Histogram(), Histogram()])


def test_count_sum_and_extremes_are_exact() -> None:
    times = _times(2_000, 3)
    whole = Histogram.of(times)
    assert (whole.count, whole.sum_ns) == (2_000, sum(times))
    assert (whole.min_ns, whole.max_ns) == (min(times), max(times))
    assert whole.mean_ns == sum(times) / 2_000


@pytest.mark.parametrize("percent", [0.1, 50, 90, 99, 99.9, 100])
def test_a_percentile_is_at_most_one_percent_too_high(percent: float) -> None:
    times = sorted(_times(10_000, 4))
    exact = times[math.ceil(percent / 100 * len(times)) - 1]
    found = Histogram.of(times).percentile_ns(percent)
    assert found is not None
    assert exact <= found <= exact * 1.01


def test_values_out_of_range_are_counted_and_take_part() -> None:
    whole = Histogram.of([10, 20, 5_000, 200_000_000_000])
    assert (whole.below, whole.above, whole.count) == (2, 1, 4)
    assert whole.percentile_ns(50) == 10
    assert whole.percentile_ns(100) == 200_000_000_000


def test_an_empty_one_has_no_percentiles() -> None:
    empty = Histogram.of([])
    assert (empty.percentile_ns(50), empty.mean_ns, empty.beyond(50)) == (None, None, 0)


def test_beyond_counts_the_tail() -> None:
    assert Histogram.of([2_000] * 1_000).beyond(99) == 10


def test_it_survives_json() -> None:
    whole = Histogram.of([*_times(500, 5), 10, 10**12])
    assert Histogram.from_json(json.loads(json.dumps(whole.to_json()))) == whole


def test_other_edges_are_refused() -> None:
    plain = Histogram.of([5_000]).to_json()
    plain["edges"] = plain["edges"] | {"parts_per_octave": 64}
    with pytest.raises(ValueError, match="bucket edges"):
        Histogram.from_json(plain)


def test_a_recorder_gives_everything_away_once() -> None:
    times = _times(3_000, 6)
    recorder = Recorder()
    for value in times[:2_000]:
        recorder.record(value)
    first = recorder.take()
    for value in times[2_000:]:
        recorder.record(value)
    assert merge([first, recorder.take()]) == Histogram.of(times)
    assert recorder.take() == Histogram()
