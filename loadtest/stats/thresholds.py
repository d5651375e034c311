"""Conditions that fail a run: ``p99>2ms``, ``service.max>1s``, ``errors>0.1%``, ``calls/s<20000``.

    [response.|service.|lateness.] p50 | p90 | p99 | p99.9 | max   with us, ms or s
    errors                                                         a count, or a share with %
    calls/s                                                        calls per second

Percentiles without a prefix are of the response time.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from capnp_rig.loadtest.stats.histogram import Histogram, us_of
from capnp_rig.loadtest.stats.reasons import ReasonCode
from capnp_rig.loadtest.stats.run_summary import Summary

_CONDITION = re.compile(
    r"\s*(?:(?:(?P<clock>response|service|lateness)\.)?(?P<time>p[0-9.]+|max)|(?P<other>errors|calls/s))"
    r"\s*(?P<sign>[<>])\s*(?P<value>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>us|µs|ms|s|%|)\s*"
)
_EXPECTED = "expected for example p99>2ms, service.max>1s, errors>0.1% or calls/s<20000"
_US = {"us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6}


class ThresholdError(ValueError):
    """The text is no condition; the message says what is expected."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A condition under which a run fails, as the user wrote it."""

    text: str
    measure: Callable[[Summary], float | None]
    is_upper: bool
    limit: float
    unit: str
    is_of_errors: bool = False

    def violation(self, run: Summary) -> str | None:
        """Return what was measured if the condition holds, else None.

        A figure that was not measured fails it: nobody knows that it would pass.
        """
        value = self.measure(run)
        if value is None:
            return f"{self.text}: not measured"
        fails = value > self.limit if self.is_upper else value < self.limit
        return f"{self.text}: {value:,.6g} {self.unit}".rstrip() if fails else None


def parse_threshold(text: str) -> Threshold:
    """Read one condition.

    Raises:
        ThresholdError: `text` is no condition.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ThresholdError(f"bad condition {text!r}: {_EXPECTED}")
    value, unit, is_upper = float(match["value"]), match["unit"], match["sign"] == ">"
    if match["time"] is not None:
        if unit not in _US:
            raise ThresholdError(f"bad condition {text!r}: a time needs us, ms or s")
        measure = _time_of(match["clock"] or "response", _percent(match["time"], text))
        return Threshold(text, measure, is_upper, value * _US[unit], "µs")
    if match["other"] == "calls/s":
        if unit:
            raise ThresholdError(f"bad condition {text!r}: a rate has no unit")
        return Threshold(text, lambda run: run.calls_per_s, is_upper, value, "calls/s")
    if unit not in {"", "%"}:
        raise ThresholdError(f"bad condition {text!r}: errors are a count or a share with %")
    measure = _error_share if unit else lambda run: run.errors
    return Threshold(text, measure, is_upper, value, unit, is_of_errors=True)


def within_limits(run: Summary, conditions: Iterable[str]) -> Summary:
    """Return a run that has not failed for calls that failed, where a condition allows as many.

    Raises:
        ThresholdError: A text is no condition.
    """
    limits = [limit for limit in map(parse_threshold, conditions) if limit.is_of_errors]
    if not limits or any(limit.violation(run) is not None for limit in limits):
        return run
    kept = (reason for reason in run.reasons if reason.code is not ReasonCode.CALLS_FAILED)
    return replace(run, reasons=tuple(kept))


def _percent(name: str, text: str) -> float | None:
    """Return the percentile that `name` means, None for the maximum."""
    if name == "max":
        return None
    try:
        percent = float(name[1:])
    except ValueError:
        percent = -1.0
    if not 0 < percent < 100:
        raise ThresholdError(f"bad condition {text!r}: a percentile lies between p0 and p100")
    return percent


def _time_of(clock: str, percent: float | None) -> Callable[[Summary], float | None]:
    def measure(run: Summary) -> float | None:
        times: Histogram = getattr(run, clock)
        return us_of(times.max_ns if percent is None else times.percentile_ns(percent))

    return measure


def _error_share(run: Summary) -> float | None:
    total = run.calls + run.errors
    return 100 * run.errors / total if total else None
