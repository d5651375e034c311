"""Times in ms with three digits, as Locust's tables and buckets get them from us (no I/O)."""

import math

# A fourth digit would be noise beside the buckets, and would not fit the columns.
_PLACES = ((1, 3), (10, 2), (100, 1))


def bucket_ms(time_ms: float) -> float:
    """Round a time to three digits, from 1 µs up.

    Every bucket is a multiple of a power of ten: 5,500 at most, whatever is measured.
    """
    if time_ms < 1:
        return int(time_ms * 1000 + 0.5) / 1000
    if time_ms < 10:
        return int(time_ms * 100 + 0.5) / 100
    if time_ms < 100:
        return int(time_ms * 10 + 0.5) / 10
    step = 10.0 ** (int(math.log10(time_ms)) - 2)
    return int(time_ms / step + 0.5) * step


def shown_ms(time_ms: float) -> str:
    """Return a time for a column of Locust's: three digits, no more than six characters."""
    if not time_ms:
        return "0"
    places = next((places for limit, places in _PLACES if time_ms < limit), 0)
    return f"{time_ms:.{places}f}"
