"""The times of a run as a table, in µs (no I/O)."""

from collections.abc import Iterable

from capnp_rig.loadtest.report.cells import number_cell, row, us_cell
from capnp_rig.loadtest.report.document import Cell, Table, Tone
from capnp_rig.loadtest.results.times_table import PERCENTILES
from capnp_rig.loadtest.results.times_table import Row as Times
from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.run_summary import LIMITS

CAPTION = f"times in µs; grey has under {LIMITS['least_beyond']:g} calls beyond it"


def times_table(times: Iterable[Times]) -> Table:
    """Return a row per label and clock."""
    percentiles = map("p{:g}".format, PERCENTILES)
    headings = ["label", "clock", "count", "per s", "mean", *percentiles, "max"]
    rows = [
        row(
            one.label,
            one.clock,
            one.count,
            number_cell(one.per_s),
            us_cell(one.times.mean_ns),
            *(percentile_cell(one.times, percent) for percent in PERCENTILES),
            us_cell(one.times.max_ns),
        )
        for one in times
    ]
    return Table("times-table", CAPTION, headings, rows)


def percentile_cell(times: Histogram, percent: float) -> Cell:
    """Return a percentile, grey if too few calls lie beyond it."""
    is_doubtful = times.beyond(percent) < LIMITS["least_beyond"]
    return us_cell(times.percentile_ns(percent), Tone.QUIET if is_doubtful else Tone.PLAIN)
