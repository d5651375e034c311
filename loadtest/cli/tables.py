"""Figures as tables for people."""

from collections.abc import Iterable, Sequence

from rich.table import Table

from capnp_rig.loadtest.engine.search import Point
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.process_use import ProcessUse, workers_of
from capnp_rig.loadtest.stats.run_summary import PERCENTILES, Summary
from capnp_rig.loadtest.stats.slo import VERIFICATIONS, Found, Slo
from capnp_rig.rigcli.gc_page import GcUse

_DIGITS = {"calls": 0, "calls/s": 0, "ratio": 3}
_STYLES = {"faster": "green", "slower": "red", "void": "dim", "at least": "yellow"}


def summary_tables(summary: Summary) -> list[Table]:
    """Return the times of a run, in µs, and its counts."""
    times = Table(title="Times in µs", title_justify="left")
    for heading in ("time", *(f"p{percent:g}" for percent in PERCENTILES), "max"):
        times.add_column(heading, justify="left" if heading == "time" else "right")
    plain = summary.to_json()
    for name in ("response", "service", "lateness"):
        values = plain[f"{name}_us"].values()
        if any(value is not None for value in values):
            times.add_row(name, *(_number(value, 0) for value in values))
    counts = Table(show_header=False)
    counts.add_column()
    counts.add_column(justify="right")
    counts.add_row("calls", f"{summary.calls:,}")
    counts.add_row("calls/s", f"{summary.calls_per_s:,.0f}")
    for kind, count in summary.failures.items():
        counts.add_row(f"failed: {kind}", f"{count:,}", style="red")
    counts.add_row("server CPU µs per call", _number(summary.server_cpu_us_per_call, 1))
    counts.add_row("verdict", summary.verdict)
    return [times, counts]


def worker_table(server: Sequence[ProcessUse]) -> Table | None:
    """Return what each worker of a server answered and used; None where there is one only."""
    workers = workers_of(server)
    if len(workers) < 2:
        return None
    table = Table(title="Workers", title_justify="left")
    for heading in ("worker", "calls", "share", "CPU s", "CPU µs per call", "GC pauses"):
        table.add_column(heading, justify="left" if heading == "worker" else "right")
    total = sum(one.calls or 0 for one in workers)
    for one in workers:
        share = "-" if one.calls is None or not total else f"{one.calls / total:.0%}"
        cells = [_number(one.calls, 0), share, f"{one.cpu_s:.2f}"]
        table.add_row(one.name, *cells, _number(one.cpu_us_per_call, 1), _pauses(one.gc))
    return table


def _pauses(gc: GcUse | None) -> str:
    return "-" if gc is None else f"{gc.count:,}, {gc.pause_ns / 1e6:.1f} ms"


def search_table(slo: Slo, curve: Iterable[Point]) -> Table:
    """Return response times against the offered rate."""
    table = Table(title=f"Response times in µs against the offered rate; {slo.text}")
    headings = ("offered/s", "answered/s", "p50", "p99", "p99.9", "lateness p99", "held", "note")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "note" else "right")
    for point in curve:
        values = (point.calls_per_s, point.p50, point.p99, point.p999, point.lateness_p99)
        cells = [f"{point.rate_hz:,g}", *(_number(value, 0) for value in values)]
        held = f"{point.held}/{point.probes}"
        style = None if point.held * 2 > point.probes else "dim"
        table.add_row(*cells, held, point.note, style=style)
    return table


def search_lines(slo: Slo, found: Found) -> list[str]:
    """Return the answer of a search in words."""
    if found.rate_hz is None:
        lines = [f"No rate was verified to keep {slo.text}."]
    else:
        kept = f"{found.verified} of {VERIFICATIONS} verifications"
        lines = [f"{slo.text} holds up to {found.rate_hz:,g} calls/s ({kept})."]
    if found.failing_hz is None:
        return [*lines, "That is the highest rate allowed: --highest."]
    return [*lines, f"It fails at {found.failing_hz:,g} calls/s; the limit was the {found.limit}."]


def figure_table(title: str, figures: Iterable[Figure]) -> Table:
    """Return a table with a unit in each row."""
    table = Table(title=title, title_justify="left")
    for heading in ("figure", "value", "unit", "95 % interval", "n", "verdict", "reason"):
        table.add_column(heading, justify="right" if heading in {"value", "n"} else "left")
    for figure in figures:
        digits = _DIGITS.get(figure.unit, 1)
        cells = [figure.name, _number(figure.value, digits), figure.unit, _interval(figure, digits)]
        cells += [f"{figure.n:,}", figure.verdict, figure.reason]
        table.add_row(*cells, style=_STYLES.get(figure.verdict))
    return table


def _interval(figure: Figure, digits: int) -> str:
    if figure.low is None:
        return ""
    return f"{_number(figure.low, digits)} to {_number(figure.high, digits)}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
