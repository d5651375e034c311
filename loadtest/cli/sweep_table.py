"""A sweep as people read it."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from capnp_rig.loadtest.bench.sweep_figures import CPU, LITTLE, P50, P99, RATE, knee_of
from capnp_rig.loadtest.results import Figure

_COLUMNS = (RATE, P50, P99, CPU, LITTLE)
_DIGITS = {RATE: 0, P50: 0, P99: 0, CPU: 1, LITTLE: 1}
_SIGNS = {"void": "? ", "at least": "≥ "}


def sweep_table(figures: Sequence[Figure]) -> Table:
    """Return a row per number of calls in flight; times and CPU in µs, intervals below values."""
    table = Table(title="By calls in flight, closed loop; times in µs", title_justify="left")
    for heading in ("in flight", "connections x each", *_COLUMNS):
        table.add_column(heading, justify="right")
    by_flight: dict[int, dict[str, Figure]] = {}
    for one in figures:
        by_flight.setdefault(one.labels["calls_in_flight"], {})[one.labels["what"]] = one
    for in_flight, found in by_flight.items():
        cells = [_cell(found[what], _DIGITS[what]) for what in _COLUMNS]
        table.add_row(f"{in_flight:,}", str(found[RATE].labels["load"]), *cells)
    return table


def _cell(figure: Figure, digits: int) -> str:
    if figure.value is None:
        return "-"
    value = f"{_SIGNS.get(figure.verdict, '')}{figure.value:,.{digits}f}"
    if figure.low is None or figure.high is None:
        return value
    return f"{value}\n{figure.low:,.{digits}f} to {figure.high:,.{digits}f}"


def sweep_lines(figures: Sequence[Figure]) -> Iterator[str]:
    """Yield where more calls in flight bring no more, and what the signs mean."""
    knee = knee_of(figures)
    if knee is not None:
        least = "at least " if knee.is_least else ""
        said = "the most that were tried: it may still rise"
        if not knee.is_last:
            said = f"{knee.enough:,} come within 5 % of it"
        yield (
            f"The highest rate is {least}{knee.rate_hz:,.0f} calls/s, with {knee.in_flight:,} "
            f"calls in flight; {said}."
        )
    if all(figure.low is None for figure in figures):
        yield "Under six rounds there are no intervals."
    reasons = {figure.reason: _SIGNS[figure.verdict] for figure in figures if figure.reason}
    for reason, sign in reasons.items():
        yield f"{sign}{reason}"
