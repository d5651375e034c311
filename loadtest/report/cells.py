"""Cells, rows and tables from plain values (no I/O)."""

from collections.abc import Iterator, Mapping
from typing import Any

from capnp_rig.loadtest.report.document import Cell, Row, Table, Tone
from capnp_rig.loadtest.report.units import NOTHING, Text, number_text

Value = Cell | str | float | None


def row(*values: Value, void: str = "", tone: Tone = Tone.PLAIN) -> Row:
    """Return a row of cells, texts and numbers; None is a dash."""
    cells = [
        value if isinstance(value, Cell) else Cell(value) if isinstance(value, str) else cell(value)
        for value in values
    ]
    return Row(cells, void, tone)


def cell(value: float | None, text: Text = number_text, tone: Tone = Tone.PLAIN) -> Cell:
    """Return a number as `text` writes it; None is a dash."""
    return Cell(NOTHING if value is None else text(value), value, tone)


def number_cell(value: float | None, decimals: int = 0) -> Cell:
    """Return a number with so many decimals."""
    return cell(value, f"{{:,.{decimals}f}}".format)


def us_cell(value_ns: float | None, tone: Tone = Tone.PLAIN) -> Cell:
    """Return a time in µs, with four digits."""
    return cell(None if value_ns is None else value_ns / 1000, tone=tone)


def plain_table(key: str, caption: str, plain: Mapping[str, Any]) -> Table:
    """Return nested plain values, as a configuration or an environment, a row for each."""
    rows = [row(name, plain_text(value)) for name, value in flat(plain)]
    return Table(key, caption, ["name", "value"], rows)


def flat(plain: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values that lie in no further mapping, by their names joined with dots."""
    for name, value in plain.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def plain_text(value: object) -> str:
    """Return a value as text; a list has commas, and nothing is "none"."""
    if isinstance(value, list):
        return ", ".join(map(plain_text, value)) or "none"
    if isinstance(value, float):
        return number_text(value)
    return "none" if value is None else str(value)
