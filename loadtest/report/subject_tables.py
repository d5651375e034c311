"""Many servers, or layouts, side by side: a row for each, a column per figure (no I/O)."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from capnp_rig.loadtest.bench.peers_figures import GENERATOR
from capnp_rig.loadtest.report.call_cpu import pair_ratio_text, pair_ratios
from capnp_rig.loadtest.report.document import Cell, Paragraph, Part, Row, Table
from capnp_rig.loadtest.report.figures import LEGEND, MARKS, tone_of, voids_alike
from capnp_rig.loadtest.report.ratios import ratio_row, ratio_table
from capnp_rig.loadtest.report.units import NOTHING, number_text, with_interval
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.figure import FigureKind

_Text = Callable[[Figure], str]


def server_parts(figures: Sequence[Figure]) -> Iterator[Part]:
    """Yield what each server of a bench-servers did, and its ratios to the first."""
    values = [figure for figure in figures if figure.kind is FigureKind.VALUE]
    caption = f"Each server, {values[0].labels['load']}; medians of the rounds"
    yield _pivot("servers-values", caption, values, ("server", _subject), _what)
    rows = [ratio_row(pair_ratio_text(each), each) for each in pair_ratios(figures)]
    if rows:
        yield ratio_table("servers-ratios", "Above 1 the first named is better", rows)
    yield from _notes(figures)


def peer_parts(figures: Sequence[Figure]) -> Iterator[Part]:
    """Yield what the layout of each peer costs: in memory, the server, and the generator."""
    in_memory = [figure for figure in figures if figure.kind is FigureKind.IN_MEMORY]
    if in_memory:
        yield _pivot("peers-memory", "In memory, by layout", in_memory, ("what", _what), _subject)
    live = [figure for figure in figures if figure.kind in {FigureKind.VALUE, FigureKind.RATIO}]
    costs = [figure for figure in live if not str(figure.labels["what"]).startswith("calls/s")]
    server = [figure for figure in costs if figure.labels["subject"] != GENERATOR]
    caption = "Server CPU per call, by the layout of the caller, connections x calls in flight"
    yield _pivot("peers-server", caption, server, ("layout, load", _load), _of_engine)
    generator = [figure for figure in live if figure.labels["subject"] == GENERATOR]
    caption = "loadtest run, by the layout of the server"
    yield _pivot("peers-generator", caption, generator, ("layout, load", _load), _what)
    yield from _notes(figures)


def _pivot(
    key: str,
    caption: str,
    figures: Iterable[Figure],
    row: tuple[str, _Text],
    heading: _Text,
) -> Table:
    """Return a table with a row, under the heading that is given, and a column per text."""
    rows: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        rows.setdefault(row[1](figure), {})[heading(figure)] = figure
    headings = list(dict.fromkeys(each for cells in rows.values() for each in cells))
    return Table(
        key,
        caption,
        [row[0], *headings],
        [
            Row([Cell(name), *(_cell(cells.get(each)) for each in headings)])
            for name, cells in rows.items()
        ],
    )


def _subject(figure: Figure) -> str:
    return str(figure.labels["subject"])


def _load(figure: Figure) -> str:
    return str(figure.labels["load"])


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
