"""The times of a run by label and clock, in µs (no I/O).

The console after a Locust run, `times.csv` in its folder, the live panel and ``report.html`` show
these rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from capnp_rig.loadtest.stats.histogram import Histogram, us_of
from capnp_rig.loadtest.stats.tally import Times, Window

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)
ALL = "all"


@dataclass(frozen=True, slots=True)
class Row:
    """The times of one label on one clock, over a run of `seconds`."""

    label: str
    clock: str
    times: Histogram
    seconds: float

    @property
    def count(self) -> int:
        """How many times there are."""
        return self.times.count

    @property
    def per_s(self) -> float:
        """How many there are per second."""
        return self.count / self.seconds if self.seconds else 0.0

    @property
    def percentiles_us(self) -> tuple[float | None, ...]:
        """The `PERCENTILES`, in µs."""
        return tuple(us_of(self.times.percentile_ns(percent)) for percent in PERCENTILES)

    @property
    def max_us(self) -> float | None:
        """The longest time, in µs."""
        return us_of(self.times.max_ns)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        names = ("label", "clock", "count", "per_s", "percentiles_us", "max_us")
        plain = {name: getattr(self, name) for name in names}
        return plain | {"percentiles_us": list(self.percentiles_us)}


def times_rows(total: Window, seconds: float) -> list[Row]:
    """Return the rows of a run of this many seconds: its labels, all together, the connects.

    In a closed loop the response time is the service time, and only that is shown.
    """
    labels = dict(total.calls)
    if len(labels) > 1:
        labels[ALL] = total.times
    rows = [row for label, times in labels.items() for row in _label_rows(label, times, seconds)]
    connects = {"connect": total.connects, "reconnect": total.reconnects, "via": total.walks}
    rows += [
        Row("connections", clock, times, seconds)
        for clock, times in connects.items()
        if times.count
    ]
    return rows


def _label_rows(label: str, times: Times, seconds: float) -> Iterable[Row]:
    for clock in ("response", "service", "lateness", "failed"):
        part: Histogram = getattr(times, clock)
        if part.count:
            yield Row(label, clock, part, seconds)


def shown_us(value_us: float | None) -> str:
    """Return a time for people: tenths of a µs below 100, commas above."""
    if value_us is None:
        return "-"
    return f"{value_us:,.1f}" if value_us < 100 else f"{value_us:,.0f}"


CSV_COLUMNS = (
    "label",
    "clock",
    "count",
    "per_s",
    *(f"p{percent:g}_us" for percent in PERCENTILES),
    "max_us",
)


def csv_cells(row: Row) -> tuple[object, ...]:
    """Return a row for a CSV file, under `CSV_COLUMNS`."""
    return (row.label, row.clock, row.count, round(row.per_s, 3), *row.percentiles_us, row.max_us)
