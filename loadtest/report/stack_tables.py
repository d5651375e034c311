"""The comparison of stacks on the terminal: a ladder per payload, the fastest first (no I/O).

Ratios are capnp's over the stack of the row: above 1 capnp is better. Green and red are sure.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from capnp_rig.loadtest.bench.stacks_figures import (
    CALLS,
    CLOSED,
    CPU,
    FLOOR_CALLS,
    FLOOR_CPU,
    GENERATOR_BUSY,
    MB,
    OPEN,
    OPEN_SHARE,
    PERCENTILES,
    RATIO_CALLS,
    RATIO_CPU,
    SERVER_BUSY,
)
from capnp_rig.loadtest.report.cells import row
from capnp_rig.loadtest.report.document import Cell, Paragraph, Part, Table
from capnp_rig.loadtest.report.figures import LEGEND, figure_cell, voids_alike
from capnp_rig.loadtest.report.rivals import stack_rival
from capnp_rig.loadtest.report.stack_ladder import payload_of
from capnp_rig.loadtest.report.units import NOTHING, size_text
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.pair_statistics import Interval, noise_floor

# By stack and figure; a ratio by the stack that it is over.
_Cells = Mapping[tuple[str, str], Figure]
# Heading, figure and decimals of what both loops have.
_COLUMNS = (
    ("calls/s", CALLS, 0),
    *((f"{name} µs", name, 0) for name in PERCENTILES),
    ("server µs", CPU, 1),
    ("MB/s", MB, 1),
)
_RATIOS = (("capnp: calls", RATIO_CALLS, 2), ("capnp: CPU", RATIO_CPU, 2))


def stack_parts(figures: Iterable[Figure], skipped: Mapping[str, str]) -> Iterator[Part]:
    """Yield the strongest rival, a table per loop and payload, and what the marks mean.

    What is missing and what is void comes last.

    `skipped` has the reason for each stack that was left out.
    """
    known = list(figures)
    yield from stack_rival(known)
    for loop in (CLOSED, OPEN):
        here = [figure for figure in known if figure.labels["loop"] == loop]
        for payload in dict.fromkeys(map(payload_of, here)):
            own = [figure for figure in here if payload_of(figure) == payload]
            title = f"{size_text(payload.size_bytes)} of {payload.kind}"
            yield _ladder(title, loop, own)
    yield Paragraph(f"{LEGEND}. Ratios are capnp over the stack: above 1 capnp is better.")
    for stack, reason in skipped.items():
        yield Paragraph(f"{stack} was left out: {reason}")
    for alike in voids_alike(known):
        example = "" if len(set(alike)) == 1 else ", such as"
        yield Paragraph(f"Void figures, {len(alike):,}{example}: {alike[0]}")


def _ladder(payload: str, loop: str, figures: Sequence[Figure]) -> Table:
    cells = {
        (figure.labels.get("baseline", figure.labels["stack"]), figure.labels["figure"]): figure
        for figure in figures
    }
    columns, title = _COLUMNS, f"{payload}, open loop at {OPEN_SHARE:.0%} of each one's own rate"
    headings = [heading for heading, _, _ in columns]
    if loop == CLOSED:
        columns = (*_COLUMNS, *_RATIOS)
        headings = [*headings, "busy gen/srv", *(heading for heading, _, _ in _RATIOS)]
        load = "{connections} x {in_flight}".format_map(figures[0].labels)
        title = f"{payload}, closed loop, {load}{_floors(cells)}"
    rows = []
    for stack in _by_rate(cells):
        shown = [
            figure_cell(cells.get((stack, name)), f"{{:,.{decimals}f}}".format)
            for _, name, decimals in columns
        ]
        if loop == CLOSED:
            shown.insert(len(_COLUMNS), Cell(_busy(cells, stack)))
        rows.append(row(stack, *shown))
    return Table("ladder", title, ["stack", *headings], rows)


def _by_rate(cells: _Cells) -> list[str]:
    rates = {stack: figure.value or 0.0 for (stack, name), figure in cells.items() if name == CALLS}
    return sorted(rates, key=lambda stack: -rates[stack])


def _floors(cells: _Cells) -> str:
    """Return the A/A floors of the ratios, to stand in a title."""
    told = []
    for name, what in ((FLOOR_CALLS, "calls"), (FLOOR_CPU, "CPU")):
        figure = next((each for (_, known), each in cells.items() if known == name), None)
        if figure is not None and figure.value is not None:
            floor = noise_floor(Interval(figure.value, figure.low, figure.high, figure.n))
            told.append(f"{what} {'unknown' if floor is None else f'{floor:.1%}'}")
    return f"; A/A floor: {', '.join(told)}" if told else ""


def _busy(cells: _Cells, stack: str) -> str:
    shares = [cells.get((stack, name)) for name in (GENERATOR_BUSY, SERVER_BUSY)]
    return "/".join(
        NOTHING if figure is None or figure.value is None else f"{figure.value:.0%}"
        for figure in shares
    )
