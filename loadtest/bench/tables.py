"""The figures of a codec benchmark as tables for people (no I/O).

A cell has how many times as fast as the baseline a codec is, the first row the baseline's own
time. Green is faster, red slower; ``=`` is a tie, ``~`` undecided: within the noise or too near
to it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from capnp_rig.loadtest.bench.plan import BASELINES, CAPNP, FLOOR, ORJSON
from capnp_rig.loadtest.codecs import CODECS
from capnp_rig.loadtest.codecs.codec import (
    BUILD_ENCODE,
    COLD,
    CONTRACTS,
    READ_ALL,
    READ_ONE,
    ROUND_TRIP,
    SEGMENTS,
    TRANSPORTED,
)
from capnp_rig.loadtest.results import Figure
from capnp_rig.loadtest.stats.pair_statistics import Verdict

_STYLES = {"faster": "green", "slower": "red"}
_MARKS = {"same": "=", "inconclusive": "~"}
# Of the five ways of Cap'n Proto those of which to say where they get ahead.
_SHOWN = ("wire", "pycapnp")
_BY_SIZE = (BUILD_ENCODE, READ_ONE, READ_ALL)
_LEAST_SIZES = 3
_SHORT = {SEGMENTS: "segments", COLD: "read 100% cold"}
_TRIPS = (ROUND_TRIP, *TRANSPORTED)
_UNITS_NS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"))
_UNITS_B = ((1 << 20, "MiB"), (1 << 10, "KiB"))
_MISSING = "-"

_Labels = Mapping[str, Any]


def bench_tables(figures: Iterable[Figure]) -> list[Table]:
    """Return what a benchmark found: by size, contract and transport, crossings, and weights."""
    known = list(figures)
    tables = []
    for baseline in BASELINES:
        tables += [*_by_size(known, baseline), *_by_contract(known, baseline)]
        tables.append(_by_transport(known, baseline))
    tables.append(_crossings(known))
    tables += [_memory(known), _sizes(known), _floors(known)]
    return [table for table in tables if table.row_count]


def bench_lines(figures: Iterable[Figure]) -> list[str]:
    """Return the outcome of Cap'n Proto in words, and every codec that failed verification."""
    known = list(figures)
    lines = []
    for name in CAPNP:
        counts = Counter(
            figure.verdict
            for figure in known
            if figure.name.startswith("ratio: ")
            and figure.labels["codec"] == name
            and figure.labels["baseline"] == ORJSON
        )
        if counts:
            told = ", ".join(f"{counts[one]} {one}" for one in Verdict if counts[one])
            lines.append(f"{name} against {ORJSON}: {told}.")
    voids = {
        f"{figure.labels['codec']} is void: {figure.reason}"
        for figure in known
        if figure.name.startswith("time: ") and figure.verdict == Verdict.VOID
    }
    return [*lines, *sorted(voids)]


def time_text(value_ns: float) -> str:
    """Return a time with three digits and its unit."""
    return _scaled(value_ns, _UNITS_NS, "ns")


def bytes_text(value: float) -> str:
    """Return a number of bytes with three digits and its unit."""
    return _scaled(value, _UNITS_B, "B")


def _scaled(value: float, units: Sequence[tuple[float, str]], smallest: str) -> str:
    for size, unit in units:
        # What rounds to a thousand of the next smaller unit is one of this.
        if value >= 0.9995 * size:
            return f"{_digits(value / size)} {unit}"
    return f"{_digits(value)} {smallest}"


def _digits(value: float) -> str:
    """Return a number with three digits, or all that stand before its point."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


# --- times and ratios ------------------------------------------------------------------------


def _by_size(figures: Sequence[Figure], baseline: str) -> Iterator[Table]:
    ratios = _ratios(figures, baseline)
    for message, contract in _unique((one.labels["message"], one.contract) for one in ratios):
        here = [
            one
            for one in figures
            if one.labels.get("message") == message and one.contract == contract
        ]
        sizes = sorted({one.labels["size_bytes"] for one in _ratios(here, baseline)})
        if contract in _BY_SIZE and len(sizes) >= _LEAST_SIZES:
            title = f"{message}, {contract}, by size: times as fast as {baseline}"
            table = _table(title, map(bytes_text, sizes))
            yield _matrix(table, here, baseline, "size_bytes", sizes)


def _by_contract(figures: Sequence[Figure], baseline: str) -> Iterator[Table]:
    ratios = _ratios(figures, baseline)
    for message, size in _places(ratios):
        here = _at(figures, message, size)
        found = {one.contract for one in _ratios(here, baseline)}.difference(_TRIPS)
        contracts = [contract for contract in CONTRACTS if contract in found]
        if len(contracts) > len(_BY_SIZE):
            title = f"{message} of {bytes_text(size)}: times as fast as {baseline}"
            table = _table(title, map(_heading, contracts))
            yield _matrix(table, here, baseline, "contract", contracts)


def _places(figures: Iterable[Figure]) -> list[tuple[str, int]]:
    return _unique((one.labels["message"], one.labels["size_bytes"]) for one in figures)


def _at(figures: Iterable[Figure], message: str, size: int) -> list[Figure]:
    place = (message, size)
    return [
        one for one in figures if (one.labels.get("message"), one.labels.get("size_bytes")) == place
    ]


def _heading(contract: str) -> str:
    """Return a contract as short as a column is."""
    return _SHORT.get(contract, contract.removeprefix("open+"))


def _by_transport(figures: Sequence[Figure], baseline: str) -> Table:
    """Return what transports leave of a codec's gain, a row per message and codec."""
    headings = [contract.removeprefix("round trip ") for contract in _TRIPS]
    table = _table(f"Round trips: times as fast as {baseline}", ["codec", *headings])
    trips = [one for one in figures if one.contract in _TRIPS]
    carried = _ratios([one for one in trips if one.contract in TRANSPORTED], baseline)
    for message, size in _places(carried):
        for row in _ratio_rows(_at(trips, message, size), baseline, "contract", _TRIPS):
            table.add_row(f"{message} {bytes_text(size)}", *row)
    return table


def _matrix(
    table: Table, figures: Sequence[Figure], baseline: str, label: str, columns: Sequence[Any]
) -> Table:
    for row in _ratio_rows(figures, baseline, label, columns):
        table.add_row(*row)
    return table


def _ratio_rows(
    figures: Sequence[Figure], baseline: str, label: str, columns: Sequence[Any]
) -> Iterator[list[str | Text]]:
    """Yield the baseline's times, and the ratios of each codec, behind their names."""
    times = {
        one.labels[label]: time_text(one.value)
        for one in _of(figures, "time")
        if one.labels["subject"] == baseline and not one.labels["gc"] and one.value is not None
    }
    yield ["baseline", *(times.get(column, _MISSING) for column in columns)]
    ratios = {(one.labels["codec"], one.labels[label]): one for one in _ratios(figures, baseline)}
    for codec in CODECS:
        cells = [_ratio_cell(ratios.get((codec, column))) for column in columns]
        if any(cell.plain != _MISSING for cell in cells):
            yield [codec, *cells]


def _ratios(figures: Iterable[Figure], baseline: str) -> list[Figure]:
    return [one for one in _of(figures, "ratio") if one.labels["baseline"] == baseline]


def _ratio_cell(figure: Figure | None) -> Text:
    if figure is None or figure.value is None:
        return Text(_MISSING)
    mark = _MARKS.get(figure.verdict, "")
    return Text(f"{mark}{_digits(figure.value)}", style=_STYLES.get(figure.verdict, "dim"))


def _crossings(figures: Sequence[Figure]) -> Table:
    headings = ["contract", "codec", "over", "ahead", "95 % interval", "n", "reason"]
    table = _table("Where Cap'n Proto gets ahead", headings)
    for figure in figures:
        kind = figure.name.partition(": ")[0]
        # The others are in the result.
        if kind in {"crossover", "break-even"} and figure.labels["codec"] in _SHOWN:
            table.add_row(*_crossing_cells(kind, figure))
    return table


def _crossing_cells(kind: str, figure: Figure) -> Iterator[str]:
    is_size = kind == "crossover"
    text = bytes_text if is_size else _percent_text
    labels = figure.labels
    yield (
        labels["message"] if is_size else f"{labels['message']} {bytes_text(labels['size_bytes'])}"
    )
    yield figure.contract
    yield labels["codec"]
    yield labels["baseline"]
    if figure.value is None:
        yield _MISSING
    else:
        yield f"{'from' if is_size else 'up to'} {text(figure.value)}"
    has_interval = figure.low is not None and figure.high is not None
    yield f"{text(figure.low or 0)} to {text(figure.high or 0)}" if has_interval else ""
    yield str(figure.n)
    yield figure.reason


def _percent_text(value: float) -> str:
    return f"{_digits(value)} %"


# --- weights ---------------------------------------------------------------------------------


def _memory(figures: Sequence[Figure]) -> Table:
    found = _of(figures, "memory")
    places = [
        f"{one.labels['message']} {bytes_text(one.labels['size_bytes'])}, {one.contract}"
        for one in found
    ]
    cells = {
        (one.labels["codec"], place): _bytes_cell(one)
        for one, place in zip(found, places, strict=True)
    }
    title = "Memory: how far the peak of the resident set rose"
    return _codec_rows(title, _unique(places), cells)


def _sizes(figures: Sequence[Figure]) -> Table:
    found = _of(figures, "size")
    methods = _unique(one.labels["method"] for one in found)
    cells: dict[tuple[str, str], str] = {}
    for one in found:
        place = f"{one.labels['message']} {bytes_text(one.labels['size_bytes'])}"
        key = (one.labels["codec"], place)
        cells[key] = ", ".join(filter(None, [cells.get(key), _bytes_cell(one)]))
    title = f"Encoded size: {', '.join(methods)}"
    return _codec_rows(title, _unique(place for _, place in cells), cells)


def _codec_rows(title: str, places: Sequence[str], cells: Mapping[tuple[str, str], str]) -> Table:
    table = _table(title, places)
    for codec in CODECS:
        row = [cells.get((codec, place), _MISSING) for place in places]
        if any(cell != _MISSING for cell in row):
            table.add_row(codec, *row)
    return table


def _bytes_cell(figure: Figure) -> str:
    return _MISSING if figure.value is None else bytes_text(figure.value)


def _floors(figures: Sequence[Figure]) -> Table:
    found = [one for one in _of(figures, "time") if one.contract == FLOOR]
    sizes = sorted({one.labels["size_bytes"] for one in found})
    times = {
        (one.labels["subject"], one.labels["size_bytes"]): time_text(one.value)
        for one in found
        if one.value is not None
    }
    table = _table("Floors: printed, never subtracted", [bytes_text(size) for size in sizes])
    for subject in _unique(one.labels["subject"] for one in found):
        table.add_row(subject, *(times.get((subject, size), _MISSING) for size in sizes))
    return table


def _of(figures: Iterable[Figure], kind: str) -> list[Figure]:
    return [figure for figure in figures if figure.name.startswith(f"{kind}: ")]


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _table(title: str, headings: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table
