"""Rate and service times against the calls in flight, from a sweep (no I/O)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from capnp_rig.loadtest.bench.sweep_figures import CPU, P50, P99, RATE, UNITS, Knee, knee_of
from capnp_rig.loadtest.report.cells import row
from capnp_rig.loadtest.report.chart import Axis, Line, LineChart, Mark, Panel, Point, log_panel
from capnp_rig.loadtest.report.document import Cell, Paragraph, Part, Table
from capnp_rig.loadtest.report.figures import figure_cell, figure_point, interval_of
from capnp_rig.loadtest.report.line_styles import PERCENTILES, look_of
from capnp_rig.loadtest.report.run_tables import check_notes
from capnp_rig.loadtest.report.sources import Source
from capnp_rig.loadtest.report.units import (
    Text,
    compact,
    count_text,
    cpu_text,
    plural,
    sentence,
    time_text,
    us_text,
    with_interval,
)
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.reasons import text_of

# The first two are those of the percentiles.
_RATE_LOOK, _CPU_LOOK = look_of(RATE, {}, 2), look_of(CPU, {}, 3)


def flight_parts(source: Source) -> Iterator[Part]:
    """Yield the rate, service times and CPU per call by calls in flight, and a table of them."""
    grouped = _by_subject(source.figures)
    flights = [int(figure.labels["calls_in_flight"]) for figure in grouped[RATE]]
    if not flights:
        return
    knee = knee_of(source.figures)
    marks = []
    if knee is not None and knee.enough < knee.in_flight:
        marks.append(Mark("x", knee.enough, f"{knee.enough:,}: within 5 % of the highest"))
    times = [
        Line(what, _points(grouped[what], time_text, 1000), PERCENTILES[what.rpartition(" ")[2]])
        for what in (P50, P99)
    ]
    panels = [
        Panel(
            Axis("calls/s", low=0),
            [Line("calls/s", _points(grouped[RATE], _rate_text), _RATE_LOOK)],
            marks,
        ),
        log_panel("service time", times, time_text),
    ]
    cpu = _points(grouped[CPU], cpu_text)
    if cpu:
        axis = Axis("server CPU µs per call", low=0)
        panels.append(Panel(axis, [Line(CPU, cpu, _CPU_LOOK)], weight=0.7))
    yield LineChart(
        key="rate-by-flight",
        title=f"Calls in flight, {plural(int(source.config['load']['connections']), 'connection')}",
        finding=_finding(knee, source.figures),
        x=Axis(
            "calls in flight", is_log=True, ticks=[(flight, compact(flight)) for flight in flights]
        ),
        panels=panels,
    )
    yield flight_table(source.figures, folded=True)
    yield from check_notes(source.document)


def _rate_text(value: float) -> str:
    return f"{count_text(value)} calls/s"


def _points(figures: Sequence[Figure], text: Text, factor: float = 1.0) -> list[Point]:
    points = []
    for each in figures:
        if each.value is not None:
            ends = [None if end is None else end * factor for end in (each.low, each.high)]
            figure = replace(each, value=each.value * factor, low=ends[0], high=ends[1])
            in_flight = figure.labels["calls_in_flight"]
            said = f"{in_flight:,} in flight: {interval_of(figure, text)}"
            points.append(figure_point(int(in_flight), figure, said))
    return points


def _finding(knee: Knee | None, figures: Sequence[Figure]) -> str:
    if knee is None:
        return "All of it is void."
    said = knee_text(knee)
    limited = [
        int(figure.labels["calls_in_flight"]) for figure in figures if figure.verdict == "at least"
    ]
    notes = [" Callers wait for replies, so these are service times, and no rate was demanded."]
    if limited:
        first = min(limited)
        notes.append(f" From {first:,} in flight on, the generator was the limit of some rates.")
    if any(figure.is_void for figure in figures):
        notes.append(" Grey points are void; the table says why.")
    return sentence(said) + "".join(notes)


def knee_text(knee: Knee) -> str:
    """Return how high the rate goes, and how many calls in flight it takes, as a clause."""
    least = "at least " if knee.is_least else ""
    said = (
        f"the rate goes up to {least}{count_text(knee.rate_hz)} calls/s, with "
        f"{plural(knee.in_flight, 'call')} in flight"
    )
    if knee.is_last:
        return f"{said}, the most that were tried"
    if knee.enough < knee.in_flight:
        said += f"; {knee.enough:,} come within 5 % of it, and beyond that calls only wait longer"
    return said


def _by_subject(figures: Sequence[Figure]) -> dict[str, list[Figure]]:
    return {
        what: [figure for figure in figures if figure.labels.get("what") == what] for what in UNITS
    }


def flight_table(figures: Sequence[Figure], *, folded: bool = False) -> Table:
    """Return a row per number of calls in flight, with what is measured of it."""
    rows = []
    for each in zip(*_by_subject(figures).values(), strict=True):
        reason = text_of(reason for figure in each for reason in figure.reasons)
        is_void = all(figure.is_void for figure in each)
        labels = each[0].labels
        shown = (_cell(figure) for figure in each)
        load = labels["calls_in_flight"], labels["load"]
        rows.append(row(*load, *shown, reason, void=reason if is_void else ""))
    headings = ["in flight", "connections x each", "calls/s", "p50", "p99", "CPU per call"]
    return Table(
        "flights",
        "By calls in flight, closed loop; Little's law counts them again: the rate times the mean "
        "service time",
        [*headings, "by Little's law", "notes"],
        rows,
        folded,
    )


def _cell(figure: Figure) -> Cell:
    plain = us_text if figure.unit == "µs" else count_text
    return figure_cell(figure, lambda value: with_interval(value, figure.low, figure.high, plain))


def flight_notes(figures: Sequence[Figure]) -> Iterator[Paragraph]:
    """Yield where more calls in flight bring no more, and why there are no intervals."""
    knee = knee_of(figures)
    if knee is not None:
        yield Paragraph(sentence(knee_text(knee)))
    if all(figure.low is None for figure in figures):
        yield Paragraph("Under six rounds there are no intervals.")
