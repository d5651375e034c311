"""Figures as cells and tables: a mark in front of a value says how far to trust it (no I/O)."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from capnp_rig.loadtest.report.cells import cell
from capnp_rig.loadtest.report.chart import Look, Point, Series, Value
from capnp_rig.loadtest.report.document import Cell, Row, Table, Tone
from capnp_rig.loadtest.report.line_styles import look_of
from capnp_rig.loadtest.report.units import (
    NOTHING,
    Text,
    interval_text,
    number_text,
    share_text,
    with_interval,
)
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.pair_statistics import Verdict
from capnp_rig.loadtest.stats.reasons import likeness

MARKS: Mapping[Verdict, str] = {
    Verdict.VOID: "?",
    Verdict.AT_LEAST: "≥",
    Verdict.SAME: "=",
    Verdict.CANNOT_TELL: "~",
}
LEGEND = (
    "≥ at least; ? void; = the same, within the margin; ~ cannot tell: within the noise, or too "
    "near the margin"
)
_TONES: Mapping[Verdict, Tone] = {
    Verdict.FASTER: Tone.GOOD,
    Verdict.SLOWER: Tone.BAD,
    Verdict.FAILED: Tone.BAD,
    Verdict.AT_LEAST: Tone.DOUBTFUL,
    Verdict.CANNOT_TELL: Tone.QUIET,
    Verdict.SAME: Tone.QUIET,
    Verdict.VOID: Tone.QUIET,
}


def tone_of(verdict: Verdict) -> Tone:
    """Return the colour of a verdict."""
    return _TONES.get(verdict, Tone.PLAIN)


def figure_cell(figure: Figure | None, text: Text = number_text) -> Cell:
    """Return a figure's value behind the mark of its verdict; a dash if there is no value."""
    if figure is None or figure.value is None:
        return Cell(NOTHING)
    shown = f"{MARKS.get(figure.verdict, '')}{text(figure.value)}"
    return Cell(shown, figure.value, tone_of(figure.verdict))


def interval_of(figure: Figure, text: Text) -> str:
    """Return a value with its interval where it has one: at least 2.1 (1.9 to 2.3)."""
    assert figure.value is not None
    least = "at least " if figure.verdict is Verdict.AT_LEAST else ""
    return f"{least}{with_interval(figure.value, figure.low, figure.high, text)}"


def figure_point(x: float, figure: Figure, said: str) -> Point:
    """Return a figure that has a value as a point of a chart."""
    assert figure.value is not None
    return Point(x, figure.value, figure.low, figure.high, figure.void_text, said)


def voids_alike(figures: Iterable[Figure]) -> list[list[str]]:
    """Return why figures are void, a list per kind of reason, the most common first.

    One of each is an example: the others differ in their numbers. A figure with several reasons is
    in the list of each.
    """
    alike: dict[str, list[str]] = {}
    for figure in figures:
        if not figure.is_void:
            continue
        # Once per figure: its repeats may have the same reason, with other numbers.
        own: dict[str, str] = {}
        for reason in figure.reasons:
            own.setdefault(likeness(reason), reason.text)
        for kind, text in (own or {"": figure.void_text}).items():
            alike.setdefault(kind, []).append(text)
    return sorted(alike.values(), key=len, reverse=True)


def row_series(
    groups: Mapping[str, Iterable[Figure]],
    label: str,
    rows: Iterable[str],
    value: Callable[[Figure], Value],
    looks: Mapping[str, Look],
) -> list[Series]:
    """Return a series per group of figures, each of which `label` puts into one of the rows."""
    series = []
    for number, (name, some) in enumerate(groups.items()):
        known = {figure.labels[label]: figure for figure in some if figure.value is not None}
        values = [value(known[row]) if row in known else Value(None) for row in rows]
        series.append(Series(name, values, look_of(name, looks, number)))
    return series


def figure_table(
    key: str, caption: str, figures: Sequence[Figure], *, folded: bool = False
) -> Table:
    """Return a row per figure, with its unit, interval, verdict and reason.

    The contract has a column if there are several, the A/A floor if a figure has one.
    """
    columns = dict(_COLUMNS)
    if len({figure.contract for figure in figures}) < 2:
        del columns["contract"]
    if not any("floor" in figure.labels for figure in figures):
        del columns["A/A floor"]
    rows = [
        Row([of(figure) for of in columns.values()], figure.void_text, tone_of(figure.verdict))
        for figure in figures
    ]
    return Table(key, caption, [*columns], rows, folded)


_COLUMNS: Mapping[str, Callable[[Figure], Cell]] = {
    "figure": lambda figure: Cell(figure.name),
    "value": lambda figure: cell(figure.value),
    "unit": lambda figure: Cell(figure.unit),
    "contract": lambda figure: Cell(figure.contract),
    "95 % interval": lambda figure: Cell(interval_text(figure.low, figure.high, number_text)),
    "A/A floor": lambda figure: cell(figure.labels.get("floor"), share_text),
    "n": lambda figure: cell(figure.n),
    "verdict": lambda figure: Cell(figure.verdict),
    "reason": lambda figure: Cell(figure.reason),
}
