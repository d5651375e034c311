"""The table of times that people read: a row per label and clock, in µs (no I/O).

The console after a Locust run, `times.csv` in its folder and the live panel all show these rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from capnp_rig.loadtest.stats.histogram import Histogram
from capnp_rig.loadtest.stats.tally import Times, Window

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)
ALL = "all"


@dataclass(frozen=True, slots=True)
class Row:
    """The times of one label on one clock, in µs; None where there are none."""

    label: str
    clock: str
    count: int
    per_s: float
    percentiles_us: tuple[float | None, ...]
    max_us: float | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"percentiles_us": list(self.percentiles_us)}


def times_rows(total: Window, seconds: float) -> list[Row]:
    """Return the rows of a run of this many seconds: its labels, all together, the connects.

    In a closed loop the response time is the service time, and only that is shown.
    """
    labels = dict(total.calls)
    if len(labels) > 1:
        labels[ALL] = total.times
    rows = [row for label, times in labels.items() for row in _label_rows(label, times, seconds)]
    connects = {"connect": total.connects, "reconnect": total.reconnects}
    rows += [
        _row("connections", clock, times, seconds)
        for clock, times in connects.items()
        if times.count
    ]
    return rows


def _label_rows(label: str, times: Times, seconds: float) -> Iterable[Row]:
    for clock in ("response", "service", "lateness", "failed"):
        part: Histogram = getattr(times, clock)
        if part.count:
            yield _row(label, clock, part, seconds)


def _row(label: str, clock: str, times: Histogram, seconds: float) -> Row:
    return Row(
        label=label,
        clock=clock,
        count=times.count,
        per_s=times.count / seconds if seconds else 0.0,
        percentiles_us=tuple(_us(times.percentile_ns(percent)) for percent in PERCENTILES),
        max_us=_us(times.max_ns),
    )


def _us(value_ns: int | None) -> float | None:
    return None if value_ns is None else value_ns / 1000


HEADINGS = ("times in µs", "count", "per s", *(f"p{percent:g}" for percent in PERCENTILES), "max")


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Return the rows as lines of text, the headings first."""
    cells = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def _cells(row: Row) -> tuple[str, ...]:
    times = (*row.percentiles_us, row.max_us)
    counts = (f"{row.label} {row.clock}", f"{row.count:,}", f"{row.per_s:,.0f}")
    return (*counts, *(shown_us(value) for value in times))


def shown_us(value_us: float | None) -> str:
    """Return a time for people: tenths of a µs below 100, commas above."""
    if value_us is None:
        return "-"
    return f"{value_us:,.1f}" if value_us < 100 else f"{value_us:,.0f}"


CSV_COLUMNS = (
    *("label", "clock", "count", "per_s"),
    *(f"p{percent:g}_us" for percent in PERCENTILES),
    "max_us",
)


def csv_cells(row: Row) -> tuple[object, ...]:
    """Return a row for a CSV file, under `CSV_COLUMNS`."""
    return (row.label, row.clock, row.count, round(row.per_s, 3), *row.percentiles_us, row.max_us)
