"""What the charts and tables of codecs share: their order, their lines, their cells (no I/O)."""

from collections.abc import Iterable, Sequence

from capnp_rig.loadtest.report.chart import Line, Point
from capnp_rig.loadtest.report.codec_view import CodecView, action, by_codec, by_size, thing
from capnp_rig.loadtest.report.document import Cell
from capnp_rig.loadtest.report.line_styles import CODECS, SHOWN_CODECS, look_of
from capnp_rig.loadtest.report.units import (
    NOTHING,
    capitalized,
    interval_text,
    plural,
    size_text,
    time_text,
)
from capnp_rig.loadtest.results import Figure


def key_of(*texts: str) -> str:
    """Return texts as one that may name an element, or a file."""
    plain = "".join(each if each.isascii() and each.isalnum() else "-" for each in "-".join(texts))
    return "-".join(filter(None, plain.lower().split("-")))


def title_of(message: str, contract: str) -> str:
    """Return what is done to what, as a title."""
    return capitalized(f"{action(contract)} {thing(message)}")


def timed(view: CodecView, message: str, contract: str) -> list[Figure]:
    """Return the times of a message under a contract, of all codecs and sizes."""
    return [
        figure
        for figure in view.times()
        if figure.labels.get("message") == message and figure.contract == contract
    ]


def sizes_of(figures: Iterable[Figure]) -> list[float]:
    """Return the sizes that some figures have, each once, the smallest first."""
    return sorted({figure.labels["size_bytes"] for figure in by_size(figures)})


def ordered(figures: Iterable[Figure]) -> list[tuple[str, list[Figure]]]:
    """Return the figures of each codec, those that are drawn from the start first."""
    order = list(CODECS)
    grouped = by_codec(figures)
    return sorted(
        grouped.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)
    )


def time_lines(figures: Iterable[Figure], along: str) -> list[Line]:
    """Return a line per codec along a label; what does not move along it has none."""
    grouped = []
    for number, (codec, own) in enumerate(ordered(figures)):
        points = time_points(own, along)
        shown = codec in SHOWN_CODECS
        if len(points) > 1:
            grouped.append(Line(codec, points, look_of(codec, CODECS, number), shown))
    # Of a benchmark of other codecs all are shown.
    if any(line.shown for line in grouped):
        return grouped
    return [Line(line.name, line.points, line.look) for line in grouped]


def time_points(figures: Iterable[Figure], along: str) -> Sequence[Point]:
    """Return the times along a label, in its order."""
    known = [
        figure
        for figure in figures
        if figure.value is not None and figure.labels.get(along) is not None
    ]
    return [
        Point(
            *(figure.labels[along], figure.value or 0.0, figure.low, figure.high),
            void=figure.void_text,
            text=_said(figure),
        )
        for figure in sorted(known, key=lambda figure: figure.labels[along])
    ]


def _said(figure: Figure) -> str:
    labels = figure.labels
    interval = interval_text(figure.low, figure.high, time_text)
    shown = f"{time_text(figure.value)}{f' ({interval})' if interval else ''}"
    place = f"{labels.get('codec', '')}, {figure.contract}, {size_text(labels.get('size_bytes'))}"
    return f"{place}: {shown}, {plural(figure.n, 'process')}"


def time_cell(figure: Figure | None) -> Cell:
    """Return a time as a cell, a dash where there is none."""
    if figure is None or figure.value is None:
        return Cell(NOTHING)
    return Cell(time_text(figure.value), figure.value)
