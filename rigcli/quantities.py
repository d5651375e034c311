"""Durations and rates as they are written in an option (no I/O)."""

import re

# Calls in flight of one connection: what a load may ask for, and what a server allows if it is not
# told to allow more.
MOST_IN_FLIGHT = 4096
DEFAULT_IN_FLIGHT = 256
HIGHEST_RATE_HZ = 1e7
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
# Each unit once at most, the largest first.
_DURATION = re.compile("".join(f"(?:({_NUMBER}){unit})?" for unit in _UNITS_S))


def parse_seconds(text: str) -> float:
    """Return the seconds of a duration such as 500ms, 30s, 1h or 1h30m; 30 alone is 30s.

    Raises:
        ValueError: It is no duration.
    """
    if re.fullmatch(_NUMBER, text):
        return float(text)
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"bad duration {text!r}: expected 500ms, 30s, 2m, 1h or 1h30m")
    parts = zip(match.groups(default="0"), _UNITS_S.values(), strict=True)
    return sum(float(number) * unit_s for number, unit_s in parts)


def parse_rate_hz(text: str) -> float | None:
    """Return the calls per second of an open loop; None for ``closed``.

    Raises:
        ValueError: It is no rate, or out of range.
    """
    if text == "closed":
        return None
    try:
        rate_hz = float(text)
    except ValueError:
        rate_hz = 0.0
    if not 0 < rate_hz <= HIGHEST_RATE_HZ:
        raise ValueError(
            f"bad rate {text!r}: expected closed, or 0 < calls/s <= {HIGHEST_RATE_HZ:,.0f}"
        )
    return rate_hz


def in_flight_warning(number: int) -> str | None:
    """Return what to say before a load with `number` calls in flight a connection; None: nothing.

    Nobody knows what the server allows, which may be more than by default.
    """
    if number <= DEFAULT_IN_FLIGHT:
        return None
    return (
        f"--in-flight {number} is more than a server allows on a connection by default, "
        f"{DEFAULT_IN_FLIGHT}: it refuses the rest as overloaded, unless it was started with "
        f"--max-in-flight {number}"
    )
