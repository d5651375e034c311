"""Time against the size of the message, and the ratio below it (no I/O)."""

from collections.abc import Iterator, Sequence

from capnp_rig.loadtest.report.chart import Axis, Line, LineChart, Mark, Panel, decade_ticks
from capnp_rig.loadtest.report.codec_lines import (
    key_of,
    ordered,
    sizes_of,
    time_cell,
    time_lines,
    time_points,
    timed,
    title_of,
)
from capnp_rig.loadtest.report.codec_ratios import codec_ratio_table, what_of
from capnp_rig.loadtest.report.codec_view import (
    CAPNP,
    HEADLINES,
    CodecView,
    Curve,
    by_size,
    floor_of,
)
from capnp_rig.loadtest.report.document import Cell, Fold, Part, Row, Table
from capnp_rig.loadtest.report.line_styles import CODECS, FLOOR, SHOWN_CODECS, look_of
from capnp_rig.loadtest.report.ratios import (
    HEADINGS,
    ahead_from,
    ratio_cells,
    ratio_line,
    ratio_point,
)
from capnp_rig.loadtest.report.units import (
    NOTHING,
    compact,
    interval_text,
    sentence,
    size_text,
    time_text,
)
from capnp_rig.loadtest.stats.contracts import Contract
from capnp_rig.loadtest.stats.figure import FigureKind

RATIO_HEADINGS = HEADINGS[2:]
# Fewer sizes make no sweep.
_LEAST_SIZES = 2
# With more, every other size has a tick.
_MOST_TICKS = 6


def size_parts(view: CodecView) -> Iterator[Part]:
    """Yield a chart per message and contract that was timed at several sizes, and its numbers.

    Contracts that are no headline come folded, and every time as one long table.
    """
    places = [
        (message, contract)
        for message, contract in view.places()
        if len(sizes_of(timed(view, message, contract))) >= _LEAST_SIZES
    ]
    headlines = sorted((place for place in places if place[1] in HEADLINES), key=_rank)
    ratios = codec_ratio_table(view)
    if ratios.rows:
        yield ratios
    yield from (size_chart(view, *place) for place in headlines)
    yield from (size_table(view, *place) for place in headlines)
    rest = [place for place in places if place not in headlines]
    if rest:
        yield Fold("More contracts", [size_chart(view, *place) for place in rest])
    yield _all_times(view)


def _all_times(view: CodecView) -> Table:
    rows = []
    for figure in view.of_kind(FigureKind.TIME):
        labels = figure.labels
        size = labels.get("size_bytes")
        cells = [
            Cell(str(labels.get("message") or NOTHING)),
            Cell(figure.contract),
            Cell(size_text(size), size),
            Cell(
                f"{labels.get('subject', labels.get('codec'))}{', GC on' * bool(labels.get('gc'))}"
            ),
            time_cell(figure),
            Cell(interval_text(figure.low, figure.high, time_text) or NOTHING),
            Cell(f"{figure.n:,}", figure.n),
        ]
        rows.append(Row(cells, figure.void_text))
    headings = ["message", "contract", "size", "codec", "time", "95 % interval", "n"]
    return Table("times", "Every time that was measured", headings, rows, folded=True)


def _rank(place: tuple[str, str]) -> tuple[int, str]:
    message, contract = place
    return HEADLINES.index(Contract(contract)), message


def size_chart(view: CodecView, message: str, contract: str) -> LineChart:
    """Return time against size for every codec, and below it the ratio of Cap'n Proto's."""
    figures = timed(view, message, contract)
    sizes = sizes_of(figures)
    lines = time_lines(by_size(figures), "size_bytes")
    floor = floor_of(contract)
    floors = [figure for figure in view.floor_times(floor) if figure.labels["size_bytes"] in sizes]
    if len(floors) >= _LEAST_SIZES:
        lines.append(Line(floor, time_points(floors, "size_bytes"), FLOOR))
    times = [point.y for line in lines for point in line.points]
    panels = [
        Panel(Axis("time per message", is_log=True, ticks=decade_ticks(times, time_text)), lines)
    ]
    curves = _curves_at(view, message, contract)
    if curves:
        panels.append(_ratio_panel(curves))
    return LineChart(
        key=key_of("size", message, contract),
        title=title_of(message, contract),
        finding=_size_finding(view, curves),
        x=Axis("size of the message", is_log=True, ticks=_size_ticks(sizes)),
        panels=panels,
    )


def _size_ticks(sizes: Sequence[float]) -> list[tuple[float, str]]:
    step = -(-len(sizes) // _MOST_TICKS)
    return [(size, size_text(size)) for size in sizes[::step]]


def _curves_at(view: CodecView, message: str, contract: str) -> list[Curve]:
    baselines = view.baselines()
    return [
        curve
        for codec in CAPNP
        for curve in (view.curves(codec, baselines[0]) if baselines else ())
        if (curve.message, curve.contract) == (message, contract)
    ]


def _ratio_panel(curves: Sequence[Curve]) -> Panel:
    lines = [
        Line(
            curve.codec,
            [
                ratio_point(
                    figure.labels["size_bytes"],
                    figure,
                    what_of(curve, figure),
                )
                for figure in curve.ratios
            ],
            look_of(curve.codec, CODECS),
            curve.codec in SHOWN_CODECS,
        )
        for curve in curves
    ]
    values = [point.y for line in lines for point in line.points]
    marks = [Mark("y", 1.0, "")]
    crossed = curves[0].crossover
    if crossed is not None and crossed.value is not None:
        text = f"{curves[0].codec} = {curves[0].baseline} at {size_text(crossed.value)}"
        marks.append(Mark("x", crossed.value, text, crossed.low, crossed.high))
    ticks = decade_ticks([*values, 1.0], compact, most=5)
    title = f"times as fast as {curves[0].baseline}"
    return Panel(Axis(title, is_log=True, ticks=ticks), lines, marks, weight=0.6)


def _size_finding(view: CodecView, curves: Sequence[Curve]) -> str:
    """Return the ratio of Cap'n Proto at the largest size, and from which size it is ahead."""
    own = next((curve for curve in curves if curve.codec == view.own_codec()), None)
    if own is None:
        return "Bands are 95 % intervals."
    last = own.ratios[-1]
    size = size_text(last.labels["size_bytes"])
    parts = [f"At {size}, {own.codec} over {own.baseline}: {ratio_line(last)}"]
    parts.append(ahead_from(own.crossover))
    return sentence("; ".join(filter(None, parts))) + " Bands are 95 % intervals."


def size_table(view: CodecView, message: str, contract: str) -> Table:
    """Return the times by size of the codecs that are drawn, and the ratio of Cap'n Proto's."""
    figures = timed(view, message, contract)
    codecs = [name for name, _ in ordered(figures) if name in SHOWN_CODECS]
    if not codecs:
        codecs = [name for name, _ in ordered(figures)]
    by_place = {
        (figure.labels.get("codec"), figure.labels["size_bytes"]): figure
        for figure in by_size(figures)
    }
    own, baselines = view.own_codec(), view.baselines()
    curves = {figure.codec: figure for figure in _curves_at(view, message, contract)}
    ratios = {}
    if own in curves:
        ratios = {figure.labels["size_bytes"]: figure for figure in curves[own].ratios}
    headings = ["size", *codecs]
    if ratios:
        headings += [f"{own} over {baselines[0]}", *RATIO_HEADINGS]
    rows = []
    for size in sizes_of(figures):
        cells = [Cell(size_text(size), size)]
        for codec in codecs:
            figure = by_place.get((codec, size))
            cells.append(time_cell(figure))
        ratio = ratios.get(size)
        if ratios:
            nothing = [Cell(NOTHING)] * (1 + len(RATIO_HEADINGS))
            cells += nothing if ratio is None else ratio_cells(ratio)
        void = "" if ratio is None else ratio.void_text
        rows.append(Row(cells, void))
    return Table(
        key_of("table", message, contract),
        f"{title_of(message, contract)}: median time by size",
        headings,
        rows,
    )
