"""What the charts and tables of codecs share: their titles, lines, cells and marks (no I/O)."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from capnp_rig.loadtest.report.cells import cell
from capnp_rig.loadtest.report.chart import Line, Mark, Point
from capnp_rig.loadtest.report.codec_view import action, amount, by_codec, thing
from capnp_rig.loadtest.report.document import Cell
from capnp_rig.loadtest.report.figures import figure_point, interval_of
from capnp_rig.loadtest.report.line_styles import CODECS, SHOWN_CODECS, look_of
from capnp_rig.loadtest.report.units import (
    Text,
    capitalized,
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


def what_of(ratio: Figure) -> str:
    """Return what a ratio compares: what is done to what, and by which two codecs."""
    labels = ratio.labels
    done = title_of(labels["message"], labels["contract"])
    size = amount(labels["message"], labels["size_bytes"])
    return f"{done}, {size}: {labels['codec']} over {labels['baseline']}"


def time_lines(figures: Iterable[Figure], along: str) -> list[Line]:
    """Return a line per codec along a label; what does not move along it has none."""
    lines = []
    for number, (codec, own) in enumerate(by_codec(figures).items()):
        points = time_points(own, along)
        if len(points) > 1:
            look = look_of(codec, CODECS, number)
            lines.append(Line(codec, points, look, codec in SHOWN_CODECS))
    # Of a benchmark of other codecs all are shown.
    if any(line.shown for line in lines):
        return lines
    return [replace(line, shown=True) for line in lines]


def time_points(figures: Iterable[Figure], along: str) -> list[Point]:
    """Return the times along a label, in its order."""
    points = [
        figure_point(figure.labels[along], figure, _point_text(figure, figure.labels))
        for figure in figures
        if figure.value is not None and figure.labels.get(along) is not None
    ]
    return sorted(points, key=lambda point: point.x)


def _point_text(figure: Figure, labels: Mapping[str, Any]) -> str:
    place = f"{labels.get('codec', '')}, {figure.contract}, {size_text(labels.get('size_bytes'))}"
    return f"{place}: {interval_of(figure, time_text)}, {plural(figure.n, 'process')}"


def time_cell(figure: Figure | None) -> Cell:
    """Return a time as a cell, a dash where there is none."""
    return cell(None if figure is None else figure.value, time_text)


def crossing_mark(crossing: Figure | None, text: Text) -> list[Mark]:
    """Return where two codecs take the same time, as a mark with its interval; none if unknown."""
    if crossing is None or crossing.value is None:
        return []
    labels = crossing.labels
    said = f"{labels['codec']} = {labels['baseline']} at {text(crossing.value)}"
    return [Mark("x", crossing.value, said, crossing.low, crossing.high)]
