"""Latency against the offered rate, from a search (no I/O)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from capnp_rig.loadtest.report.cells import cell, number_cell, row
from capnp_rig.loadtest.report.chart import Axis, Line, LineChart, Mark, Panel, Point
from capnp_rig.loadtest.report.document import Paragraph, Part, Table, Tone
from capnp_rig.loadtest.report.line_styles import PERCENTILES
from capnp_rig.loadtest.report.run_tables import check_notes
from capnp_rig.loadtest.report.sources import Source
from capnp_rig.loadtest.report.units import sentence, time_text, us_text
from capnp_rig.loadtest.results import ResultError
from capnp_rig.loadtest.stats.slo import Latency, SloError, parse_slo


def search_parts(source: Source) -> Iterator[Part]:
    """Yield response times against the offered rate, and the probes as a table."""
    curve = source.document.get("curve")
    if not isinstance(curve, list) or not curve:
        yield Paragraph(f"{source.name} has no curve.", quiet=True)
        return
    try:
        yield _rate_chart(source, curve)
        yield rate_table(curve)
        yield from check_notes(source.document)
    except (KeyError, TypeError, ValueError) as error:
        raise ResultError(f"{source.folder}: the curve is damaged: {error}") from error


def _rate_chart(source: Source, curve: Sequence[Mapping[str, float]]) -> LineChart:
    answer = source.document["found"]
    rate, failing = answer["rate_hz"], answer["failing_hz"]
    limits = _limits(str(source.config.get("slo", "")))
    lines = []
    for name, part in (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999")):
        points = [
            Point(
                point["rate_hz"],
                point[part] * 1000,
                void=str(point.get("note") or ""),
                text=f"{point['rate_hz']:,g} calls/s: {name} {time_text(point[part] * 1000)}",
            )
            for point in curve
            if point.get(part) is not None
        ]
        lines.append(Line(f"response {name}", points, PERCENTILES[name]))
    marks = [
        Mark("y", each.limit_ns, f"objective: p{each.percent:g} < {time_text(each.limit_ns)}")
        for each in limits
    ]
    if rate is not None:
        marks.append(Mark("x", rate, f"verified: {rate:,g}/s"))
    high = _frame(curve, limits, rate)
    return LineChart(
        key="latency-by-rate",
        title=f"Response time against the offered rate, {source.config.get('slo', '')}",
        finding=_rate_finding(rate, failing, answer["limit"], lines, high),
        x=Axis("offered calls per second", low=0),
        panels=[
            Panel(Axis("response time", low=0, high=high, ticks=_linear_ticks(high)), lines, marks)
        ],
    )


def _limits(slo: str) -> Sequence[Latency]:
    try:
        return parse_slo(slo).latencies
    except SloError:
        return ()


def _frame(
    curve: Sequence[Mapping[str, float]], limits: Sequence[Latency], rate: float | None
) -> float:
    """Return up to which time the chart goes: what fails by orders of magnitude is cut off."""
    highest = max((each.limit_ns for each in limits), default=0.0) * 2.0
    good = [
        point["p99"] * 1000
        for point in curve
        if point.get("p99") is not None
        and not point.get("note")
        and rate is not None
        and point["rate_hz"] <= rate
    ]
    every = [point["p99"] * 1000 for point in curve if point.get("p99") is not None]
    wanted = max([highest, *(1.2 * value for value in good)], default=0.0)
    return min(wanted, 1.1 * max(every, default=wanted)) or wanted or 1.0


def _linear_ticks(high_ns: float) -> list[tuple[float, str]]:
    rough = high_ns / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    ticks = [(step * number, time_text(step * number)) for number in range(int(high_ns / step) + 1)]
    return [(0.0, "0"), *ticks[1:]]


def _rate_finding(
    rate: float | None, failing: float | None, limit: str, lines: Sequence[Line], high: float
) -> str:
    said = "no rate was verified" if rate is None else f"it holds up to {rate:,g} calls/s"
    if failing is not None:
        said += f"; it fails at {failing:,g}, where the limit was the {limit}"
    above = any(point.y > high for line in lines for point in line.points)
    grey = any(point.void for line in lines for point in line.points)
    notes = [" What lies above the frame is in the table."] * above
    notes += [" Grey points are void: the generator was late, or calls failed."] * grey
    return sentence(said) + "".join(notes)


def rate_table(curve: Sequence[Mapping[str, Any]], slo: str = "") -> Table:
    """Return a row per offered rate; grey where less than half of the probes kept `slo`."""
    rows = []
    for point in curve:
        times = [point.get(name) for name in ("p50", "p99", "p999", "lateness_p99")]
        rates = cell(point["rate_hz"], "{:,g}".format), number_cell(point["calls_per_s"])
        note = str(point.get("note") or "")
        tone = Tone.PLAIN if point["held"] * 2 > point["probes"] else Tone.QUIET
        shown = (cell(value_us, us_text) for value_us in times)
        held = f"{point['held']} of {point['probes']}"
        rows.append(row(*rates, *shown, held, note, void=note, tone=tone))
    headings = ["offered/s", "answered/s", "p50", "p99", "p99.9", "lateness p99", "held", "note"]
    caption = f"Response times by offered rate{f'; {slo}' if slo else ''}"
    return Table("rates", caption, headings, rows)
