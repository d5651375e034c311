"""The figures of a closed-loop load run, each with its verdict (no I/O)."""

from loadtest.histogram import Histogram
from loadtest.load_file import service_times
from loadtest.results import Figure
from loadtest.tally import Collector

_CONTRACT = "round trip"
# The rules of measuring.md, "The rig's verdict".
_LEAST_BEYOND = 100
_BUSY_LIMIT = 0.9
_LEAST_CPU_S = 1.0
_PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def load_figures(collector: Collector, server_cpu_s: float | None) -> list[Figure]:
    """Return rate, service times, failures and CPU per call; void ones give their reason.

    `server_cpu_s` is the CPU time of all server processes over the run, None where a
    worker came or went.
    """
    total = collector.total
    times = service_times(total)
    found = [_rate(collector)]
    found += [_percentile(times, percent) for percent in _PERCENTILES]
    found.append(_failures(collector))
    found.append(_cpu_per_call(total.calls, server_cpu_s))
    return [_void(figure, collector) for figure in found]


def _rate(collector: Collector) -> Figure:
    verdict, reason = "ok", ""
    if not collector.total.calls:
        verdict, reason = "void", "no call was answered"
    elif collector.busy > _BUSY_LIMIT:
        verdict, reason = "at least", f"the generator was {collector.busy:.0%} busy"
    return Figure(
        name="answered calls, closed loop",
        value=collector.rate_hz,
        unit="calls/s",
        contract=_CONTRACT,
        n=collector.total.calls,
        verdict=verdict,
        reason=reason,
    )


def _percentile(times: Histogram, percent: float) -> Figure:
    value_ns = times.percentile_ns(percent)
    enough = times.beyond(percent) >= _LEAST_BEYOND
    return Figure(
        name=f"service time p{percent:g}",
        value=None if value_ns is None else value_ns / 1000,
        unit="µs",
        contract=_CONTRACT,
        n=times.count,
        verdict="ok" if enough else "void",
        reason="" if enough else f"under {_LEAST_BEYOND} calls beyond it",
    )


def _failures(collector: Collector) -> Figure:
    count = sum(collector.total.failures.values())
    return Figure(
        name="failures",
        value=count,
        unit="calls",
        contract=_CONTRACT,
        n=collector.total.calls + count,
        verdict="void" if count else "ok",
        reason="calls failed" if count else "",
    )


def _cpu_per_call(calls: int, server_cpu_s: float | None) -> Figure:
    if server_cpu_s is None:
        value, reason = None, "a worker came or went"
    elif not calls:
        value, reason = None, "no call was answered"
    else:
        value = server_cpu_s * 1e6 / calls
        short = server_cpu_s < _LEAST_CPU_S
        reason = f"under {_LEAST_CPU_S:g} s of server CPU" if short else ""
    return Figure(
        name="server CPU per call",
        value=value,
        unit="µs",
        contract=_CONTRACT,
        n=calls,
        verdict="void" if reason else "ok",
        reason=reason,
    )


def _void(figure: Figure, collector: Collector) -> Figure:
    """Return the figure, void where the run as a whole does not count."""
    if not collector.missing or figure.verdict == "void":
        return figure
    values = {name: getattr(figure, name) for name in ("name", "value", "unit", "contract", "n")}
    return Figure(**values, verdict="void", reason="a worker's last report is missing")
