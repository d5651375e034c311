"""Rows of a table from plain values (no I/O)."""

from capnp_rig.loadtest.report.document import Cell, Row, Tone
from capnp_rig.loadtest.report.units import NOTHING, number_text

Value = Cell | str | float | None


def row(*values: Value, void: str = "", tone: Tone = Tone.PLAIN) -> Row:
    """Return a row of cells, texts and numbers; None is a dash."""
    return Row([value if isinstance(value, Cell) else _cell(value) for value in values], void, tone)


def _cell(value: str | float | None) -> Cell:
    return Cell(value) if isinstance(value, str) else Cell(number_text(value), value)


def number_cell(value: float | None, decimals: int = 0) -> Cell:
    """Return a number with so many decimals."""
    return Cell(NOTHING) if value is None else Cell(f"{value:,.{decimals}f}", value)


def us_cell(value_ns: float | None, tone: Tone = Tone.PLAIN) -> Cell:
    """Return a time in µs, with four digits."""
    value_us = None if value_ns is None else value_ns / 1000
    return Cell(number_text(value_us), value_us, tone)
