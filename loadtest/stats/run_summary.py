"""What a load run says, and whether it may be believed (no I/O)."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from capnp_rig.loadtest.stats.figure import Figure
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.tally import WARMUP, Report, Times, Window, add_windows

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
# When a figure is void: measuring.md's rules.
LIMITS: Mapping[str, float] = {
    "busy": 0.9,
    "lateness_share": 0.1,
    "sent_share": 0.99,
    "least_beyond": 100,
    "steal": 0.02,
    "drift": 0.05,
    "least_server_cpu_s": 1.0,
}
# Fewer full seconds have no thirds worth comparing.
_DRIFT_SECONDS = 9
_CONTRACT = "round trip"


@dataclass(frozen=True, slots=True)
class Part:
    """One repeat: what each process reported, over how many seconds of the measured window.

    `busy` is the largest share of a process that was at work. `server_cpu_s` is what the server
    used in the window, `steal` the share of CPU time that other machines took; None where
    they cannot be read, the server's also where it is not on this machine.
    """

    reports: Sequence[Report]
    seconds: float
    busy: float
    server_cpu_s: float | None = None
    steal: float | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """A load run as a whole, all processes and repeats together; times are histograms in ns."""

    calls: int
    failures: Mapping[str, int]
    calls_per_s: float
    response: Histogram
    service: Histogram
    lateness: Histogram
    is_open_loop: bool
    server_cpu_s: float | None
    busy: float
    reasons: tuple[str, ...]
    labels: Mapping[str, Times] = field(default_factory=dict)
    connects: Histogram = field(default_factory=Histogram)
    reconnects: Histogram = field(default_factory=Histogram)

    @property
    def errors(self) -> int:
        """Calls and connects that failed, and calls without an answer in the end."""
        return sum(self.failures.values())

    @property
    def server_cpu_us_per_call(self) -> float | None:
        """CPU µs of all server processes per answered call, None where it cannot be read."""
        if self.server_cpu_s is None or not self.calls:
            return None
        return self.server_cpu_s * 1e6 / self.calls

    @property
    def verdict(self) -> str:
        """``valid``, or ``void`` for the `reasons`."""
        return "void" if self.reasons else "valid"

    def to_json(self) -> dict[str, Any]:
        """Return the summary as the one object of ``--json``."""
        return {
            "calls": self.calls,
            "errors": self.errors,
            "errors_by_kind": dict(self.failures),
            "calls_per_s": self.calls_per_s,
            "response_us": _percentiles(self.response),
            "service_us": _percentiles(self.service),
            "lateness_us": _percentiles(self.lateness),
            "reconnects": self.reconnects.count,
            "server_cpu_us_per_call": self.server_cpu_us_per_call,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
        }


def _percentiles(times: Histogram) -> dict[str, float | None]:
    found = {f"p{percent:g}": _us(times.percentile_ns(percent)) for percent in PERCENTILES}
    return {**found, "max": _us(times.max_ns)}


def _us(value_ns: int | None) -> float | None:
    return None if value_ns is None else value_ns / 1000


def summarize(parts: Sequence[Part], *, interrupted: bool = False) -> Summary:
    """Add up the repeats of a run, at least one, and judge it."""
    reports = [report for part in parts for report in part.reports]
    total = add_windows(report.total for report in reports)
    times = total.times
    scheduled = [report.scheduled for report in reports if report.scheduled is not None]
    is_open_loop = bool(scheduled)
    # A call of a closed loop is due when it is sent.
    response = times.response if is_open_loop else times.service
    lateness = times.lateness if is_open_loop else _zeros(times.service.count)
    failures = Counter(total.failures)
    unfinished = sum(report.unfinished for report in reports)
    if unfinished:
        failures["unfinished"] += unfinished
    seconds = sum(part.seconds for part in parts)
    used = [part.server_cpu_s for part in parts if part.server_cpu_s is not None]
    found = Summary(
        calls=total.answered,
        failures=dict(failures),
        calls_per_s=total.answered / seconds if seconds else 0.0,
        response=response,
        service=times.service,
        lateness=lateness,
        is_open_loop=is_open_loop,
        server_cpu_s=sum(used) if len(used) == len(parts) else None,
        busy=max(part.busy for part in parts),
        reasons=(),
        labels=total.calls,
        connects=total.connects,
        reconnects=total.reconnects,
    )
    reasons = [f"interrupted after {seconds:.1f} s"] if interrupted else []
    reasons += _reasons(found, sum(scheduled), parts)
    return Summary(**{name: getattr(found, name) for name in _FIELDS}, reasons=tuple(reasons))


_FIELDS = [name for name in Summary.__dataclass_fields__ if name != "reasons"]


def _zeros(count: int) -> Histogram:
    return Histogram(count=count, below=count, min_ns=0, max_ns=0) if count else Histogram()


def _reasons(found: Summary, scheduled: int, parts: Sequence[Part]) -> list[str]:
    reasons = []
    if found.errors:
        reasons.append(f"{found.errors} calls failed")
    if found.busy > LIMITS["busy"]:
        reasons.append(f"the generator was {found.busy:.0%} busy: the rate is a lower bound")
    if scheduled and found.calls < LIMITS["sent_share"] * scheduled:
        reasons.append(f"{found.calls / scheduled:.1%} of the schedule was answered")
    late, middle = found.lateness.percentile_ns(99), found.response.percentile_ns(50)
    if late is not None and middle is not None and late > LIMITS["lateness_share"] * middle:
        reasons.append(
            f"the generator was late: p99 {late / 1000:.0f} µs, "
            f"over a tenth of the median response, {middle / 1000:.0f} µs"
        )
    if found.response.beyond(99) < LIMITS["least_beyond"]:
        reasons.append(f"too few samples: under {LIMITS['least_beyond']:g} calls beyond p99")
    steal = max((part.steal or 0.0 for part in parts), default=0.0)
    if steal > LIMITS["steal"]:
        reasons.append(f"{steal:.1%} of the CPU time was stolen by other machines")
    return reasons + [said for part in parts if (said := drift(part, found.is_open_loop))]


def drift(part: Part, is_open_loop: bool) -> str | None:
    """Return how the last third of a repeat differs from the first, None where it hardly does.

    Compared are the medians of the full seconds: of the rate in a closed loop, of the median
    response time in an open one, whose rate is given.
    """
    seconds = _full_seconds(part)
    third = len(seconds) // 3
    if len(seconds) < _DRIFT_SECONDS:
        return None
    values = [_drifting(second, is_open_loop) for second in seconds]
    first, last = median(values[:third]), median(values[-third:])
    change = abs(last - first) / first if first else 0.0
    if change <= LIMITS["drift"]:
        return None
    unit = "µs p50" if is_open_loop else "calls/s"
    return f"the run drifted by {change:.0%}: {first:,.0f} {unit} at first, {last:,.0f} at the end"


def _full_seconds(part: Part) -> list[Window]:
    windows: dict[int, list[Window]] = {second: [] for second in range(int(part.seconds))}
    for report in part.reports:
        for second, window in report.windows.items():
            if second != WARMUP and second in windows:
                windows[second].append(window)
    return [add_windows(found) for found in windows.values()]


def _drifting(second: Window, is_open_loop: bool) -> float:
    if is_open_loop:
        return (second.times.response.percentile_ns(50) or 0) / 1000
    return second.answered


def figures(found: Summary) -> list[Figure]:
    """Return every figure of a run with its interval and its own verdict."""
    listed = [_rate(found)]
    clocks = {"service time": found.service}
    if found.is_open_loop:
        clocks = {"response time": found.response, **clocks, "lateness": found.lateness}
    for name, times in clocks.items():
        listed += [_percentile(found, name, times, percent) for percent in PERCENTILES]
    count = found.errors
    reason = "calls failed" if count else ""
    listed.append(_figure("failures", count, "calls", found.calls + count, reason))
    listed.append(_cpu_per_call(found))
    return listed


def _figure(name: str, value: float | None, unit: str, n: int, reason: str) -> Figure:
    verdict = "void" if reason else "ok"
    return Figure(name, value, unit, _CONTRACT, n, verdict=verdict, reason=reason)


def _rate(found: Summary) -> Figure:
    name = f"answered calls, {'open' if found.is_open_loop else 'closed'} loop"
    if found.calls and found.busy > LIMITS["busy"] and not found.is_open_loop:
        reason = f"the generator was {found.busy:.0%} busy"
        return Figure(
            *(name, found.calls_per_s, "calls/s", _CONTRACT, found.calls),
            verdict="at least",
            reason=reason,
        )
    reason = "" if found.calls else "no call was answered"
    return _figure(name, found.calls_per_s, "calls/s", found.calls, reason)


def _percentile(found: Summary, name: str, times: Histogram, percent: float) -> Figure:
    reasons = [said for said in found.reasons if said.startswith("the generator was late")]
    if times.beyond(percent) < LIMITS["least_beyond"]:
        reasons.append(f"under {LIMITS['least_beyond']:g} calls beyond it")
    low, high = rank_interval_us(times, percent)
    return Figure(
        *(f"{name} p{percent:g}", _us(times.percentile_ns(percent)), "µs", _CONTRACT, times.count),
        low=low,
        high=high,
        verdict="void" if reasons else "ok",
        reason="; ".join(reasons),
    )


def rank_interval_us(times: Histogram, percent: float) -> tuple[float | None, float | None]:
    """Return the 95 % interval of a percentile by its rank's binomial spread, in µs.

    It takes calls as independent, which a queue makes them not: the truth is wider.
    """
    if times.count < 2:
        return None, None
    share = percent / 100
    spread = 100 * 1.96 * math.sqrt(share * (1 - share) / times.count)
    low, high = max(percent - spread, 0.0), min(percent + spread, 100.0)
    return _us(times.percentile_ns(low)), _us(times.percentile_ns(high))


def _cpu_per_call(found: Summary) -> Figure:
    name, value = "server CPU per call", found.server_cpu_us_per_call
    if found.server_cpu_s is None:
        reason = "not readable: the server is elsewhere, or a worker came or went"
    elif not found.calls:
        reason = "no call was answered"
    else:
        least_s = LIMITS["least_server_cpu_s"]
        reason = f"under {least_s:g} s of server CPU" if found.server_cpu_s < least_s else ""
    return _figure(name, value, "µs", found.calls, reason)
