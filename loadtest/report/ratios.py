"""A ratio as a row of a table: what, ratio, interval, A/A floor, n, verdict (no I/O).

Above 1 the first named is better. Ratios of codecs, servers and stacks all look like this.
"""

from collections.abc import Iterable, Mapping

from capnp_rig.loadtest.report.cells import cell, row
from capnp_rig.loadtest.report.chart import Point
from capnp_rig.loadtest.report.document import Cell, Row, Table
from capnp_rig.loadtest.report.figures import figure_point, tone_of
from capnp_rig.loadtest.report.units import (
    NOTHING,
    Text,
    digits,
    interval_text,
    percent_text,
    ratio_text,
    share_text,
    size_text,
)
from capnp_rig.loadtest.stats.figure import Figure, FigureKind
from capnp_rig.loadtest.stats.reasons import ReasonCode, codes_of

HEADINGS = ("what", "ratio", "95 % interval", "A/A floor", "n", "verdict")
_SIDES = {ReasonCode.AHEAD, ReasonCode.BEHIND}
_CROSSINGS: Mapping[FigureKind, tuple[str, Text]] = {
    FigureKind.CROSSOVER: ("ahead from {}", size_text),
    FigureKind.BREAK_EVEN: ("ahead up to {} of the fields", percent_text),
}
_OPEN = {ReasonCode.BELOW_MEASURED, ReasonCode.BEYOND_MEASURED}


def ratio_table(key: str, caption: str, rows: Iterable[Row]) -> Table:
    """Return a table of rows that `ratio_row` made."""
    return Table(key, caption, HEADINGS, list(rows))


def ratio_row(what: str, ratio: Figure, *more: str) -> Row:
    """Return a ratio as a row; a void one says why."""
    return row(what, *ratio_cells(ratio), *more, void=ratio.void_text)


def ratio_cells(ratio: Figure) -> list[Cell]:
    """Return a ratio with what it rests on: interval, A/A floor, n and verdict."""
    least = "≥ " if ReasonCode.LOWER_BOUND in codes_of(ratio.reasons) else ""
    return [
        Cell(f"{least}{ratio_text(ratio.value)}", ratio.value, tone_of(ratio.verdict)),
        Cell(interval_text(ratio.low, ratio.high, digits) or NOTHING),
        cell(ratio.labels.get("floor"), share_text),
        cell(ratio.n),
        Cell(ratio.verdict),
    ]


def ratio_line(ratio: Figure) -> str:
    """Return a ratio with its interval and verdict in one line."""
    interval = interval_text(ratio.low, ratio.high, digits) or "no interval"
    return f"{ratio_text(ratio.value)} ({interval}), {ratio.verdict}"


def ratio_point(x: float, ratio: Figure, what: str) -> Point:
    """Return a ratio that has a value as a point of a chart."""
    return figure_point(x, ratio, f"{what}: {ratio_line(ratio)}")


def ahead_text(crossing: Figure | None) -> str:
    """Return from which size, or up to which share of the fields, a codec is ahead.

    Empty if nobody looked. A bound outside what was measured is open: ``≤ 2 KiB``.
    """
    if crossing is None:
        return ""
    words, text = _CROSSINGS[crossing.kind]
    if crossing.value is not None:
        return f"{words.format(text(crossing.value))} ({_bounds(crossing, text)})"
    side = next((reason.text for reason in crossing.reasons if reason.code in _SIDES), None)
    codes = codes_of(crossing.reasons)
    if side is not None or not codes & _OPEN or codes >= _OPEN:
        return side or "crossover not resolved"
    return words.format(_bounds(crossing, text))


def _bounds(crossing: Figure, text: Text) -> str:
    if crossing.low is None or crossing.high is None:
        return "no interval"
    codes = codes_of(crossing.reasons)
    if codes >= _OPEN:
        return "not resolved"
    if ReasonCode.BELOW_MEASURED in codes:
        return f"≤ {text(crossing.high)}"
    if ReasonCode.BEYOND_MEASURED in codes:
        return f"≥ {text(crossing.low)}"
    return interval_text(crossing.low, crossing.high, text)
