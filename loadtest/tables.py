"""Figures as tables for people."""

from collections.abc import Iterable

from rich.table import Table

from loadtest.results import Figure

_DIGITS = {"calls": 0, "calls/s": 0, "ratio": 3}
_STYLES = {"faster": "green", "slower": "red", "void": "dim", "at least": "yellow"}


def bench_tables(figures: Iterable[Figure]) -> list[Table]:
    """Return one table of times and one of ratios."""
    times = _table("Time per call (ns), median of the processes' medians", "ns")
    ratios = _table("Ratios: above 1 the candidate is faster", "ratio")
    for figure in figures:
        kind, _, name = figure.name.partition(": ")
        if kind == "time":
            _add(times, name, figure, digits=0)
        else:
            _add(ratios, f"A/A: {name}" if kind == "A/A" else name, figure, digits=3)
    return [times, ratios]


def figure_table(title: str, figures: Iterable[Figure]) -> Table:
    """Return a table with a unit in each row."""
    table = Table(title=title, title_justify="left")
    for heading in ("figure", "value", "unit", "95 % interval", "n", "verdict", "reason"):
        table.add_column(heading, justify="right" if heading in {"value", "n"} else "left")
    for figure in figures:
        digits = _DIGITS.get(figure.unit, 1)
        cells = [figure.name, _number(figure.value, digits), figure.unit, _interval(figure, digits)]
        cells += [f"{figure.n:,}", figure.verdict, figure.reason]
        table.add_row(*cells, style=_STYLES.get(figure.verdict))
    return table


def _interval(figure: Figure, digits: int) -> str:
    if figure.low is None:
        return ""
    return f"{_number(figure.low, digits)} to {_number(figure.high, digits)}"


def _table(title: str, value: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("case", value, "95 % interval", "n", "verdict", "reason"):
        table.add_column(heading, justify="right" if heading in {value, "n"} else "left")
    return table


def _add(table: Table, name: str, figure: Figure, *, digits: int) -> None:
    table.add_row(
        name,
        _number(figure.value, digits),
        _interval(figure, digits) or "none",
        str(figure.n),
        figure.verdict,
        figure.reason,
        style=_STYLES.get(figure.verdict),
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
