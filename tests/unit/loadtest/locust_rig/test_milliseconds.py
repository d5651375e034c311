import pytest

from capnp_rig.loadtest.locust_rig.milliseconds import bucket_ms, shown_ms


@pytest.mark.parametrize(
    ("time_ms", "bucket"),
    [
        (0.0004, 0.0),
        (0.0005, 0.001),
        (0.0994, 0.099),
        (0.9996, 1.0),
        (1.234, 1.23),
        (9.996, 10.0),
        (12.34, 12.3),
        (99.96, 100.0),
        (123.4, 123.0),
        (1234.0, 1230.0),
        (98765.0, 98800.0),
    ],
)
def test_a_bucket_has_three_digits(time_ms: float, bucket: float) -> None:
    assert bucket_ms(time_ms) == bucket


def test_there_are_few_buckets() -> None:
    assert len({bucket_ms(number / 10_000) for number in range(1, 1_000_000)}) < 3000


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (0, "0"),
        (0.0544, "0.054"),
        (0.9996, "1.000"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (123456.7, "123457"),
    ],
)
def test_a_time_is_shown_in_six_characters_at_most(time_ms: float, text: str) -> None:
    assert shown_ms(time_ms) == text
