"""Numbers as people read them: times, sizes, ratios, counts (no I/O)."""

import math
from collections.abc import Callable, Sequence

Text = Callable[[float], str]
_TIMES = ((1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s"))
_SIZES = ((1, "B"), (1 << 10, "KiB"), (1 << 20, "MiB"), (1 << 30, "GiB"))
NOTHING = "-"


def digits(value: float, count: int = 3) -> str:
    """Return a number with `count` significant digits; whole numbers lose none before the point."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{count}g}")
    decimals = max(count - 1 - math.floor(math.log10(abs(rounded))), 0)
    text = f"{rounded:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def time_text(value_ns: float | None) -> str:
    """Return a time with its unit: 745 ns, 1.02 µs, 3.05 ms, 2 s."""
    if value_ns is None:
        return NOTHING
    # As it will be shown: 999.9 ns is 1 µs.
    shown = abs(float(f"{value_ns:.3g}"))
    factor, unit = next((each for each in reversed(_TIMES) if shown >= each[0]), _TIMES[0])
    return f"{digits(value_ns / factor)} {unit}"


def us_text(value_us: float | None) -> str:
    """Return a time that is given in µs, with its unit."""
    return time_text(None if value_us is None else value_us * 1000)


def cpu_text(value_us: float) -> str:
    """Return CPU per call, which stays in µs: 9.3 µs."""
    return f"{digits(value_us)} µs"


def size_text(size_bytes: float | None, count: int = 2) -> str:
    """Return a size with its unit: 64 B, 1.1 KiB, 133 KiB, 4 MiB."""
    if size_bytes is None:
        return NOTHING
    factor, unit = next(
        (each for each in reversed(_SIZES) if abs(round(size_bytes)) >= each[0]), _SIZES[0]
    )
    value = size_bytes / factor
    is_whole = value >= 10 ** (count - 1) or value == int(value)
    return f"{f'{value:,.0f}' if is_whole else digits(value, count)} {unit}"


def ratio_text(ratio: float | None) -> str:
    """Return a ratio for a table: three digits."""
    return NOTHING if ratio is None else digits(ratio)


def count_text(value: float | None) -> str:
    """Return a count, or a rate, without a fraction from 100 on."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 else digits(value)


def number_text(value: float | None) -> str:
    """Return a number with four digits, a whole one or one from 1,000 on without a fraction."""
    if value is None:
        return NOTHING
    is_whole = abs(value) >= 1000 or value == int(value)
    return f"{value:,.0f}" if is_whole else digits(value, 4)


def percent_text(percent: float) -> str:
    """Return a percentage: 24 %, 0.4 %."""
    return f"{digits(percent, 2)} %"


def share_text(share: float) -> str:
    """Return a share in percent: 2 %, 0.4 %, 150 %."""
    return percent_text(100 * share)


def interval_text(low: float | None, high: float | None, text: Text) -> str:
    """Return ``1.9 to 2.3``, empty without an interval; the unit comes once where both share it."""
    if low is None or high is None:
        return ""
    first, last = text(low), text(high)
    number, _, unit = first.partition(" ")
    if unit and last.endswith(f" {unit}"):
        first = number
    return f"{first} to {last}"


def with_interval(value: float, low: float | None, high: float | None, text: Text) -> str:
    """Return ``2.1 (1.9 to 2.3)``, the value alone without an interval."""
    interval = interval_text(low, high, text)
    return f"{text(value)} ({interval})" if interval else text(value)


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: 1 round, 12 rounds, 6 processes."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def capitalized(text: str) -> str:
    """Return a text that begins with a capital, the rest as it is."""
    return f"{text[:1].upper()}{text[1:]}"


def sentence(text: str) -> str:
    """Return a text that begins with a capital and ends with a full stop."""
    text = capitalized(text.strip())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def compact(value: float) -> str:
    """Return a round number in short, for a tick: 0.1, 20, 5k, 1M."""
    for factor, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:g}{sign}"
    return f"{value:g}"


def joined(texts: Sequence[str], last: str = "and") -> str:
    """Return texts as a list in words: a, b and c."""
    if len(texts) < 2:
        return "".join(texts)
    return f"{', '.join(texts[:-1])} {last} {texts[-1]}"
