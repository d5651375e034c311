from collections.abc import Callable

import pytest

from capnp_rig.loadtest.report.units import (
    capitalized,
    compact,
    count_text,
    digits,
    interval_text,
    plural,
    ratio_text,
    sentence,
    share_text,
    size_text,
    time_text,
)


@pytest.mark.parametrize(
    ("text", "value", "shown"),
    [
        (digits, 0, "0"),
        (digits, 0.0211416, "0.0211"),
        (digits, 0.00001234, "0.0000123"),
        (digits, 9.996, "10"),
        (digits, 108_874.2, "109,000"),
        (time_text, None, "-"),
        (time_text, 0.0, "0 ns"),
        (time_text, 0.5, "0.5 ns"),
        (time_text, 745.4, "745 ns"),
        (time_text, 999.6, "1 µs"),
        (time_text, 37_865, "37.9 µs"),
        (time_text, 3_048_320, "3.05 ms"),
        (time_text, 2e9, "2 s"),
        (time_text, 100e9, "100 s"),
        (size_text, None, "-"),
        (size_text, 0, "0 B"),
        (size_text, 64, "64 B"),
        (size_text, 1024, "1 KiB"),
        (size_text, 1147.7, "1.1 KiB"),
        (size_text, 136_000, "133 KiB"),
        (size_text, 4 << 20, "4 MiB"),
        (ratio_text, None, "-"),
        (ratio_text, 2.0893, "2.09"),
        (count_text, None, "-"),
        (count_text, 108_874.4, "108,874"),
        (count_text, 9.2125, "9.21"),
        (share_text, 0.0136, "1.4 %"),
        (share_text, 2.84, "280 %"),
        (compact, 1e5, "100k"),
        (compact, 0.1, "0.1"),
        (compact, 1e6, "1M"),
        (sentence, "p99 was low", "P99 was low."),
        (sentence, "Done!", "Done!"),
        (capitalized, "a text, 64 KiB", "A text, 64 KiB"),
    ],
)
def test_numbers_as_people_read_them(text: Callable[..., str], value: object, shown: str) -> None:
    assert text(value) == shown


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (None, 2000.0, ""),
        (1100.0, 1400.0, "1.1 to 1.4 KiB"),
        (818.0, 4608.0, "818 B to 4.5 KiB"),
    ],
)
def test_the_unit_of_an_interval_comes_once(
    low: float | None, high: float | None, shown: str
) -> None:
    assert interval_text(low, high, size_text) == shown


@pytest.mark.parametrize(
    ("count", "noun", "shown"),
    [(1, "round", "1 round"), (12, "round", "12 rounds"), (6, "process", "6 processes")],
)
def test_nouns_with_their_counts(count: int, noun: str, shown: str) -> None:
    assert plural(count, noun) == shown
