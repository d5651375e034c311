"""Many servers, or layouts, side by side: a row for each, a column per figure (no I/O)."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from capnp_rig.loadtest.bench.peers_figures import GENERATOR
from capnp_rig.loadtest.report.call_cpu import pair_ratio_text, pair_ratios
from capnp_rig.loadtest.report.codec_view import grouped
from capnp_rig.loadtest.report.document import Cell, Paragraph, Part, Row, Table
from capnp_rig.loadtest.report.figures import LEGEND, MARKS, tone_of, voids_alike
from capnp_rig.loadtest.report.ratios import ratio_row, ratio_table
from capnp_rig.loadtest.report.units import NOTHING, number_text, with_interval
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.figure import FigureKind


def server_parts(figures: Sequence[Figure]) -> Iterator[Part]:
    """Yield what each server of a bench-servers did, and its ratios to the first."""
    values = [figure for figure in figures if figure.kind is FigureKind.VALUE]
    caption = f"Each server, {values[0].labels['load']}; medians of the rounds"
    yield _pivot("servers-values", caption, values, "subject", _what)
    rows = [ratio_row(pair_ratio_text(each), each) for each in pair_ratios(figures)]
    if rows:
        yield ratio_table("servers-ratios", "Above 1 the first named is better", rows)
    yield from _notes(figures)


def peer_parts(figures: Sequence[Figure]) -> Iterator[Part]:
    """Yield what the layout of each peer costs: in memory, the server, and the generator."""
    in_memory = [figure for figure in figures if figure.kind is FigureKind.IN_MEMORY]
    if in_memory:
        yield _pivot("peers-memory", "In memory, by layout", in_memory, "subject", _what)
    live = [figure for figure in figures if figure.kind in {FigureKind.VALUE, FigureKind.RATIO}]
    costs = [figure for figure in live if not str(figure.labels["what"]).startswith("calls/s")]
    server = [figure for figure in costs if figure.labels["subject"] != GENERATOR]
    caption = "Server CPU per call, by the layout of the caller, connections x calls in flight"
    yield _pivot("peers-server", caption, server, "load", _of_engine)
    generator = [figure for figure in live if figure.labels["subject"] == GENERATOR]
    caption = "loadtest run, by the layout of the server"
    yield _pivot("peers-generator", caption, generator, "load", _what)
    yield from _notes(figures)


def _pivot(
    key: str,
    caption: str,
    figures: Iterable[Figure],
    label: str,
    heading: Callable[[Figure], str],
) -> Table:
    """Return a table with a row per value of a label, and a column per heading."""
    rows = {
        name: {heading(each): each for each in some}
        for (name,), some in grouped(figures, label).items()
    }
    headings = list(dict.fromkeys(each for row in rows.values() for each in row))
    return Table(
        key,
        caption,
        [label if label == "subject" else "layout, load", *headings],
        [
            Row([Cell(name), *(_cell(row.get(each)) for each in headings)])
            for name, row in rows.items()
        ],
    )


def _what(figure: Figure) -> str:
    what = str(figure.labels["what"])
    return what if figure.unit in {what, "times"} else f"{what}, {figure.unit}"


def _of_engine(figure: Figure) -> str:
    labels = figure.labels
    if figure.kind is FigureKind.RATIO:
        return f"{labels['subject']} over {labels['baseline']}"
    if figure.unit == "times":
        return str(labels["what"])
    return f"{labels['subject']}, {figure.unit}"


def _cell(figure: Figure | None) -> Cell:
    if figure is None or figure.value is None:
        return Cell(NOTHING)
    text = with_interval(figure.value, figure.low, figure.high, number_text)
    mark = MARKS.get(figure.verdict, "")
    return Cell(f"{mark}{text}", figure.value, tone_of(figure.verdict))


def _notes(figures: Sequence[Figure]) -> Iterator[Part]:
    yield Paragraph(f"{LEGEND}. In brackets 95 % intervals.")
    for alike in voids_alike(figures):
        example = "" if len(set(alike)) == 1 else ", such as"
        yield Paragraph(f"Void figures, {len(alike):,}{example}: {alike[0]}")
