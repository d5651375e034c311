"""The times of a run as a table, in µs (no I/O)."""

from collections.abc import Sequence

from capnp_rig.loadtest.report.document import Cell, Row, Table, Tone
from capnp_rig.loadtest.report.units import NOTHING, number_text
from capnp_rig.loadtest.results.times_table import PERCENTILES
from capnp_rig.loadtest.results.times_table import Row as Times
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.run_summary import LIMITS

CAPTION = f"times in µs; grey has under {LIMITS['least_beyond']:g} calls beyond it"


def times_table(rows: Sequence[Times]) -> Table:
    """Return a row per label and clock."""
    percentiles = map("p{:g}".format, PERCENTILES)
    headings = ["label", "clock", "count", "per s", "mean", *percentiles, "max"]
    return Table("times-table", CAPTION, headings, [Row(_cells(row)) for row in rows])


def _cells(row: Times) -> list[Cell]:
    return [
        Cell(row.label),
        Cell(row.clock),
        Cell(f"{row.count:,}", row.count),
        Cell(f"{row.per_s:,.0f}", row.per_s),
        us_cell(row.times.mean_ns),
        *(percentile_cell(row.times, percent) for percent in PERCENTILES),
        us_cell(row.times.max_ns),
    ]


def percentile_cell(times: Histogram, percent: float) -> Cell:
    """Return a percentile, grey if too few calls lie beyond it."""
    is_doubtful = times.beyond(percent) < LIMITS["least_beyond"]
    return us_cell(times.percentile_ns(percent), Tone.QUIET if is_doubtful else Tone.PLAIN)


def us_cell(value_ns: float | None, tone: Tone = Tone.PLAIN) -> Cell:
    """Return a time in µs."""
    if value_ns is None:
        return Cell(NOTHING, tone=tone)
    return Cell(number_text(value_ns / 1000), value_ns / 1000, tone)
