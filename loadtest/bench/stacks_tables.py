"""The comparison of stacks as tables for people: a ladder per payload, the fastest first.

A cell says how far to trust it by a mark in front: ``≥`` at least, the generator was the limit;
``?`` void. Ratios are capnp's over the stack of the row, above 1 capnp is better: green and red
where that is sure, ``=`` a tie, ``~`` undecided.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.table import Table
from rich.text import Text

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
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.pair_statistics import Interval, noise_floor

_MARKS = {"void": "?", "at least": "≥", "same": "=", "inconclusive": "~"}
_STYLES = {"void": "dim", "at least": "yellow", "faster": "green", "slower": "red"}
_MISSING = "-"
_UNITS = ((1 << 20, "MiB"), (1 << 10, "KiB"))
# By stack and figure; a ratio by the stack that it is over.
_Cells = Mapping[tuple[str, str], Figure]


def stack_tables(figures: Iterable[Figure]) -> list[Table]:
    """Return a table per payload and loop."""
    known = list(figures)
    return [*_ladders(known, CLOSED), *_ladders(known, OPEN)]


def stack_lines(figures: Iterable[Figure], skipped: Mapping[str, str]) -> list[str]:
    """Return what the tables leave open, in words: what is missing, and why figures are void."""
    lines = [f"{stack} was left out: {reason}" for stack, reason in skipped.items()]
    # By what is the same in them; the others' numbers are in the result.
    reasons: dict[str, list[str]] = {}
    for figure in figures:
        if figure.verdict == "void":
            reasons.setdefault(re.sub(r"[0-9][0-9.,]*", "", figure.reason), []).append(
                figure.reason
            )
    for said in sorted(reasons.values(), key=lambda said: -len(said)):
        like = "" if len(set(said)) == 1 else ", such as"
        lines.append(f"Void figures, {len(said):,}{like}: {said[0]}")
    return lines


def size_text(size_bytes: int) -> str:
    """Return a size as it was asked for: 32 B, 4 KiB."""
    for unit_bytes, unit in _UNITS:
        if size_bytes >= unit_bytes and size_bytes % unit_bytes == 0:
            return f"{size_bytes // unit_bytes} {unit}"
    return f"{size_bytes} B"


def _ladders(figures: Sequence[Figure], loop: str) -> Iterator[Table]:
    here = [figure for figure in figures if figure.labels["loop"] == loop]
    payloads = dict.fromkeys(
        (figure.labels["payload_kind"], figure.labels["payload_bytes"]) for figure in here
    )
    for kind, size in payloads:
        cells = {
            (figure.labels.get("baseline", figure.labels["stack"]), figure.labels["figure"]): figure
            for figure in here
            if (figure.labels["payload_kind"], figure.labels["payload_bytes"]) == (kind, size)
        }
        yield _closed(kind, size, cells) if loop == CLOSED else _open(kind, size, cells)


def _closed(kind: str, size: int, cells: _Cells) -> Table:
    first = next(iter(cells.values()))
    load = f"{first.labels['connections']} x {first.labels['in_flight']}"
    title = f"{size_text(size)} of {kind}, closed loop, {load}{_floors(cells)}"
    table = _table(
        title,
        *("calls/s", "p50 µs", "p99 µs", "p99.9 µs", "server µs", "MB/s"),
        *("busy gen/srv", "capnp: calls", "capnp: CPU"),
    )
    for stack in _by_rate(cells):
        table.add_row(
            stack,
            _cell(cells, stack, CALLS, 0),
            *(_cell(cells, stack, name, 0) for name in PERCENTILES),
            _cell(cells, stack, CPU, 1),
            _cell(cells, stack, MB, 1),
            _busy(cells, stack),
            _cell(cells, stack, RATIO_CALLS, 2),
            _cell(cells, stack, RATIO_CPU, 2),
        )
    return table


def _open(kind: str, size: int, cells: _Cells) -> Table:
    title = f"{size_text(size)} of {kind}, open loop at {OPEN_SHARE:.0%} of each one's own rate"
    columns = ("calls/s", "p50 µs", "p99 µs", "p99.9 µs", "server µs", "MB/s")
    table = _table(title, *columns)
    for stack in _by_rate(cells):
        times = (_cell(cells, stack, name, 0) for name in PERCENTILES)
        costs = (_cell(cells, stack, name, 1) for name in (CPU, MB))
        table.add_row(stack, _cell(cells, stack, CALLS, 0), *times, *costs)
    return table


def _by_rate(cells: _Cells) -> list[str]:
    rates = {stack: one.value or 0.0 for (stack, name), one in cells.items() if name == CALLS}
    return sorted(rates, key=lambda stack: -rates[stack])


def _floors(cells: _Cells) -> str:
    """Return the A/A floors of the ratios, to stand in a title."""
    said = []
    for name, what in ((FLOOR_CALLS, "calls"), (FLOOR_CPU, "CPU")):
        figure = next((one for (_, known), one in cells.items() if known == name), None)
        if figure is not None and figure.value is not None:
            floor = noise_floor(Interval(figure.value, figure.low, figure.high, figure.n))
            said.append(f"{what} {'unknown' if floor is None else f'{floor:.1%}'}")
    return f"; A/A floor: {', '.join(said)}" if said else ""


def _busy(cells: _Cells, stack: str) -> str:
    shares = [cells.get((stack, name)) for name in (GENERATOR_BUSY, SERVER_BUSY)]
    return "/".join(
        _MISSING if one is None or one.value is None else f"{one.value:.0%}" for one in shares
    )


def _cell(cells: _Cells, stack: str, name: str, digits: int) -> Text:
    figure = cells.get((stack, name))
    if figure is None or figure.value is None:
        return Text(_MISSING)
    mark = _MARKS.get(figure.verdict, "")
    text = f"{mark}{figure.value:,.{digits}f}"
    return Text(text, style=_STYLES.get(figure.verdict, ""))


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("stack")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table
