"""Objectives such as ``p99<2ms and errors<0.1%``, and whether a probe keeps them (no I/O).

A probe passes where its calls prove the objective: with n calls of which t were over the limit,
or failed, the chance of so few under a true share of 1 - p is at most 1 %. That is the
binomial bound of MLPerf LoadGen's early stopping (``loadgen/early_stopping.cc``): 459 calls with
none late prove p99, 4,603 prove p99.9.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from capnp_rig.loadtest.stats.reasons import codes_of
from capnp_rig.loadtest.stats.run_summary import LIMITS, OF_MACHINE, Summary

_CONFIDENCE = 0.99
_PART = re.compile(
    r"(?:(?P<clock>response|service)\.)?p(?P<percent>[0-9]+(?:\.[0-9]+)?)\s*<=?\s*"
    r"(?P<value>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>us|µs|ms|s)"
)
_ERRORS = re.compile(r"errors\s*<=?\s*(?P<value>[0-9]+(?:\.[0-9]+)?)\s*%")
_NS = {"us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}


class SloError(ValueError):
    """The text is no objective; the message says what is expected."""


@dataclass(frozen=True, slots=True)
class Latency:
    """`percent` of the calls take at most `limit_ns`, by `clock` ``response`` or ``service``."""

    percent: float
    limit_ns: int
    clock: str = "response"


@dataclass(frozen=True, slots=True)
class Slo:
    """What a service must keep: all `latencies`, and at most `error_share` of failed calls.

    A failed call counts as over every limit. `error_share` is None where only that counts.
    """

    text: str
    latencies: tuple[Latency, ...]
    error_share: float | None = None


def parse_slo(text: str) -> Slo:
    """Read one or more objectives, joined by ``and`` or commas.

    Raises:
        SloError: `text` has none, or something else.
    """
    latencies: list[Latency] = []
    share: float | None = None
    for part in re.split(r"\s+and\s+|,", text.strip()):
        match = _PART.fullmatch(part.strip())
        errors = _ERRORS.fullmatch(part.strip())
        if match is not None:
            percent, value = float(match["percent"]), float(match["value"])
            if not 0 < percent < 100 or value <= 0:
                raise SloError(f"bad objective {part.strip()!r}: no such percentile or time")
            limit_ns = round(value * _NS[match["unit"]])
            latencies.append(Latency(percent, limit_ns, match["clock"] or "response"))
        elif errors is not None:
            share = float(errors["value"]) / 100
        else:
            raise SloError(
                f"bad objective {part.strip()!r}: expected for example p99<1ms, "
                "or 'p99<2ms and errors<0.1%'"
            )
    if not latencies:
        raise SloError(f"{text!r} has no latency objective, such as p99<1ms")
    return Slo(text.strip(), tuple(latencies), share)


class Outcome(StrEnum):
    """What came of a probe.

    GENERATOR: it failed, but the generator was the limit, or may be. DISTURBED: it failed, but the
    machine kept the server or the generator from their CPUs.
    """

    HELD = "held"
    FAILED = "failed"
    GENERATOR = "generator"
    DISTURBED = "disturbed"


def judge(slo: Slo, summary: Summary, scheduled: int) -> Outcome:
    """Say whether a probe of `scheduled` calls kept the objectives.

    Response times count the generator's own lateness, so that a late one cannot make a
    server look better; it can only be blamed for a failure. So it is with a disturbed machine.
    """
    errors = summary.errors
    total = max(summary.calls + errors, scheduled)
    held = all(
        proves(total, _over(each, summary) + total - summary.calls, each.percent)
        for each in slo.latencies
    )
    if slo.error_share is not None and total:
        held = held and (total - summary.calls) / total <= slo.error_share
    if held:
        return Outcome.HELD
    if codes_of(summary.reasons) & OF_MACHINE:
        return Outcome.DISTURBED
    late_ns = summary.lateness.percentile_ns(99) or 0
    limit_ns = min(each.limit_ns for each in slo.latencies)
    blamed = summary.busy > LIMITS["busy"] or late_ns > LIMITS["lateness_share"] * limit_ns
    return Outcome.GENERATOR if blamed else Outcome.FAILED


def service_failed(slo: Slo, probes: Iterable[tuple[Outcome, Summary]]) -> bool:
    """Tell whether a reply of the probes was wrong, or a call failed at a rate that held.

    Calls that fail at a rate that is too high are what a search looks for. Objectives that limit
    the errors tolerate those within the limit, wrong replies among them.
    """
    return slo.error_share is None and any(
        any(example.is_wrong for example in summary.examples)
        or (summary.errors > 0 and outcome is Outcome.HELD)
        for outcome, summary in probes
    )


def _over(latency: Latency, summary: Summary) -> int:
    times = summary.response if latency.clock == "response" else summary.service
    return times.count_above(latency.limit_ns)


def proves(calls: int, over: int, percent: float) -> bool:
    """Tell whether `over` late ones of `calls` prove the percentile, at 99 % confidence."""
    return binomial_cdf(over, calls, 1 - percent / 100) <= 1 - _CONFIDENCE


def least_calls(slo: Slo) -> int:
    """Return how many calls, none of them late, prove the objectives: 459 for p99."""
    strictest = max(each.percent for each in slo.latencies)
    return math.ceil(math.log(1 - _CONFIDENCE) / math.log(strictest / 100))


def binomial_cdf(k: int, n: int, p: float) -> float:
    """Return the chance of at most `k` successes in `n` trials of chance `p`, 0 < p < 1."""
    if k >= n:
        return 1.0
    if k < 0:
        return 0.0
    if k > n * p:
        # From the other side: the terms below grow up to n p.
        return 1.0 - binomial_cdf(n - k - 1, n, 1 - p)
    log_term = (
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(p)
        + (n - k) * math.log1p(-p)
    )
    term = total = math.exp(log_term)
    while k > 0 and term > total * 1e-15:
        term *= k / (n - k + 1) * (1 - p) / p
        total += term
        k -= 1
    return total
