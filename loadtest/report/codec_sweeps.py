"""Time against the size of a message, and against how much of it is read (no I/O)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from capnp_rig.loadtest.report.cells import cell, row
from capnp_rig.loadtest.report.chart import Axis, Line, LineChart, Mark, Panel, log_panel
from capnp_rig.loadtest.report.codec_lines import (
    crossing_mark,
    key_of,
    time_cell,
    time_lines,
    time_points,
    title_of,
    what_of,
)
from capnp_rig.loadtest.report.codec_ratios import codec_ratio_table
from capnp_rig.loadtest.report.codec_view import (
    CAPNP,
    FLOOR,
    HEADLINES,
    CodecView,
    by_codec,
    by_size,
    floor_of,
    grouped,
    thing,
)
from capnp_rig.loadtest.report.document import Fold, Part, Row, Table
from capnp_rig.loadtest.report.line_styles import CODECS, FLOOR_LOOK, SHOWN_CODECS, look_of
from capnp_rig.loadtest.report.ratios import (
    HEADINGS,
    ahead_text,
    ratio_cells,
    ratio_line,
    ratio_point,
)
from capnp_rig.loadtest.report.units import (
    NOTHING,
    capitalized,
    compact,
    interval_text,
    percent_text,
    sentence,
    size_text,
    time_text,
)
from capnp_rig.loadtest.stats.contracts import Contract
from capnp_rig.loadtest.stats.figure import Figure, FigureKind

# Fewer sizes, or shares, make no sweep.
_LEAST_SIZES, _LEAST_SHARES = 2, 3
# With more, every other size has a tick.
_MOST_TICKS = 6
_BANDS = "Bands are 95 % intervals."


def size_parts(view: CodecView) -> Iterator[Part]:
    """Yield a chart per message and contract that was timed at several sizes, and its numbers.

    Contracts that are no headline come folded, and every time as one long table.
    """
    places = [
        (message, contract)
        for message, contract in view.places()
        if len(_sizes(view.times(message=message, contract=contract))) >= _LEAST_SIZES
    ]
    headlines = sorted((place for place in places if place[1] in HEADLINES), key=_rank)
    ratios = codec_ratio_table(view)
    if ratios.rows:
        yield ratios
    yield from (_size_chart(view, *place) for place in headlines)
    yield from (_size_table(view, *place) for place in headlines)
    rest = [place for place in places if place not in headlines]
    if rest:
        yield Fold("More contracts", [_size_chart(view, *place) for place in rest])
    headings = ["message", "contract", "size", "codec", "time", "95 % interval", "n"]
    rows = [_time_row(figure, figure.labels) for figure in view.of_kind(FigureKind.TIME)]
    yield Table("times", "Every time that was measured", headings, rows, folded=True)


def _sizes(figures: Sequence[Figure]) -> list[float]:
    return sorted({figure.labels["size_bytes"] for figure in by_size(figures)})


def _rank(place: tuple[str, str]) -> tuple[int, str]:
    message, contract = place
    return HEADLINES.index(Contract(contract)), message


def _time_row(figure: Figure, labels: Mapping[str, Any]) -> Row:
    return row(
        labels.get("message") or NOTHING,
        figure.contract,
        cell(labels.get("size_bytes"), size_text),
        f"{labels.get('subject', labels.get('codec'))}{', GC on' * bool(labels.get('gc'))}",
        time_cell(figure),
        interval_text(figure.low, figure.high, time_text) or NOTHING,
        figure.n,
        void=figure.void_text,
    )


def _size_chart(view: CodecView, message: str, contract: str) -> LineChart:
    """Return time against size for every codec, and below it the ratio of Cap'n Proto's."""
    figures = view.times(message=message, contract=contract)
    sizes = _sizes(figures)
    lines = time_lines(by_size(figures), "size_bytes")
    floor = floor_of(contract)
    floors = [
        figure
        for figure in by_size(view.times(contract=FLOOR, codec=floor))
        if figure.labels["size_bytes"] in sizes
    ]
    if len(floors) >= _LEAST_SIZES:
        lines.append(Line(floor, time_points(floors, "size_bytes"), FLOOR_LOOK))
    panels = [log_panel("time per message", lines, time_text)]
    curves = _curves(view, message, contract)
    if curves:
        panels.append(_ratio_panel(view, curves))
    ticks = [(size, size_text(size)) for size in sizes[:: -(-len(sizes) // _MOST_TICKS)]]
    return LineChart(
        key=key_of("size", message, contract),
        title=title_of(message, contract),
        finding=_size_finding(view, curves),
        x=Axis("size of the message", is_log=True, ticks=ticks),
        panels=panels,
    )


def _curves(view: CodecView, message: str, contract: str) -> dict[str, list[Figure]]:
    """Return the ratios of each way of Cap'n Proto to its rival, by size."""
    place = {"message": message, "contract": contract, "baseline": view.rival}
    ratios = by_codec(by_size(view.of_kind(FigureKind.RATIO, **place)))
    return {codec: ratios[codec] for codec in CAPNP if codec in ratios}


def _ratio_panel(view: CodecView, curves: Mapping[str, Sequence[Figure]]) -> Panel:
    lines = [
        Line(
            codec,
            [ratio_point(ratio.labels["size_bytes"], ratio, what_of(ratio)) for ratio in curve],
            look_of(codec, CODECS),
            codec in SHOWN_CODECS,
        )
        for codec, curve in curves.items()
    ]
    first = next(iter(curves.values()))[0]
    crossover = view.crossing(FigureKind.CROSSOVER, first.labels)
    marks = [Mark("y", 1.0, ""), *crossing_mark(crossover, size_text)]
    return log_panel(f"times as fast as {view.rival}", lines, compact, marks, most=5, weight=0.6)


def _size_finding(view: CodecView, curves: Mapping[str, Sequence[Figure]]) -> str:
    """Return the ratio of Cap'n Proto at the largest size, and from which size it is ahead."""
    if view.own_codec not in curves:
        return _BANDS
    last = curves[view.own_codec][-1]
    size = size_text(last.labels["size_bytes"])
    said = f"At {size}, {view.own_codec} over {view.rival}: {ratio_line(last)}"
    ahead = ahead_text(view.crossing(FigureKind.CROSSOVER, last.labels))
    return f"{sentence('; '.join(filter(None, [said, ahead])))} {_BANDS}"


def _size_table(view: CodecView, message: str, contract: str) -> Table:
    """Return the times by size of the codecs that are drawn, and the ratio of Cap'n Proto's."""
    figures = by_size(view.times(message=message, contract=contract))
    times = by_codec(figures)
    codecs = [codec for codec in times if codec in SHOWN_CODECS] or [*times]
    curve = _curves(view, message, contract).get(view.own_codec, [])
    ratios = {ratio.labels["size_bytes"]: ratio for ratio in curve}
    headings = ["size", *codecs]
    if ratios:
        headings += [f"{view.own_codec} over {view.rival}", *HEADINGS[2:]]
    rows = []
    for (size,), some in grouped(figures, "size_bytes").items():
        by_name = {figure.labels["codec"]: figure for figure in some}
        cells = [cell(size, size_text), *(time_cell(by_name.get(codec)) for codec in codecs)]
        ratio = ratios.get(size)
        if ratio is not None:
            rows.append(row(*cells, *ratio_cells(ratio), void=ratio.void_text))
        else:
            rows.append(row(*cells, *[NOTHING] * (len(headings) - len(cells))))
    caption = f"{title_of(message, contract)}: median time by size"
    return Table(key_of("table", message, contract), caption, headings, rows)


# --- by shares of the message ----------------------------------------------------------------


def share_parts(view: CodecView) -> Iterator[Part]:
    """Yield a chart per message and size that was read by shares."""
    times = [
        figure
        for figure in view.times()
        if figure.labels.get("k") is not None and figure.contract != Contract.COLD
    ]
    for (message, size), figures in sorted(grouped(times, "message", "size_bytes").items()):
        if len({figure.labels["k"] for figure in figures}) >= _LEAST_SHARES:
            yield _share_chart(view, message, size, figures)


def _share_chart(
    view: CodecView, message: str, size: float, figures: Sequence[Figure]
) -> LineChart:
    """Return time against the share of fields read, with where Cap'n Proto falls behind."""
    pair = {"codec": view.own_codec, "baseline": view.rival}
    even = view.crossing(FigureKind.BREAK_EVEN, {**figures[0].labels, **pair})
    finding = "At 0 % the message is only opened."
    if even is not None:
        finding = f"Against {view.rival}, {view.own_codec} is {ahead_text(even)}. {finding}"
    ticks = [(share, f"{share} %") for share in (0, 25, 50, 75, 100)]
    marks = crossing_mark(even, percent_text)
    return LineChart(
        key=key_of("share", message, size_text(size)),
        title=capitalized(f"{thing(message)}, {size_text(size)}"),
        finding=finding,
        x=Axis("share of the fields that are read", ticks=ticks, low=0, high=100),
        panels=[log_panel("time per message", time_lines(figures, "k"), time_text, marks)],
    )
