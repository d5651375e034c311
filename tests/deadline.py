"""Polling with a deadline, in place of sleeping for readiness."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# What takes a moment on a quiet machine may take this on a busy one.
WITHIN_S = 20.0


def eventually(check: Callable[[], T], *, within_s: float = WITHIN_S, what: str = "") -> T:
    """Return the first true value of `check`, or fail when the time is over."""
    end_s = time.monotonic() + within_s
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < end_s, f"not within {within_s} s: {what or check}"
        time.sleep(0.01)
