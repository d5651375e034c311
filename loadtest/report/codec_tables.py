"""The figures of a codec benchmark on the terminal (no I/O).

A cell has how many times as fast as the baseline a codec is, the first row the baseline's own
time. Green is faster, red slower; ``=`` is a tie, ``~`` undecided: within the noise or too near
to it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

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
from capnp_rig.loadtest.report.cells import Value, row
from capnp_rig.loadtest.report.document import Cell, Paragraph, Part, Table
from capnp_rig.loadtest.report.figures import figure_cell
from capnp_rig.loadtest.report.units import (
    NOTHING,
    Text,
    digits,
    interval_text,
    size_text,
    time_text,
)
from capnp_rig.loadtest.stats.figure import Figure, FigureKind
from capnp_rig.loadtest.stats.pair_statistics import Verdict

# Of the five ways of Cap'n Proto those of which to say where they get ahead.
_SHOWN = ("wire", "pycapnp")
_BY_SIZE = (BUILD_ENCODE, READ_ONE, READ_ALL)
_LEAST_SIZES = 3
_SHORT: Mapping[str, str] = {SEGMENTS: "segments", COLD: "read 100% cold"}
_TRIPS = (ROUND_TRIP, *TRANSPORTED)


def codec_parts(figures: Iterable[Figure]) -> Iterator[Part]:
    """Yield what a benchmark found: by size, contract and transport, crossings, and weights.

    Sentences on the outcome of Cap'n Proto and on the codecs that failed verification come last.
    """
    known = list(figures)
    tables: list[Table] = []
    for baseline in BASELINES:
        tables += [*_by_size(known, baseline), *_by_contract(known, baseline)]
        tables.append(_by_transport(known, baseline))
    tables += [_crossings(known), _memory(known), *_sizes(known), _floors(known)]
    yield from (table for table in tables if table.rows)
    yield from _outcomes(known)


def _outcomes(figures: Sequence[Figure]) -> Iterator[Paragraph]:
    ratios = _ratios(figures, ORJSON)
    for name in CAPNP:
        counts = Counter(figure.verdict for figure in ratios if figure.labels["codec"] == name)
        if counts:
            told = ", ".join(
                f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict]
            )
            yield Paragraph(f"{name} against {ORJSON}: {told}.")
    voids = {
        f"{figure.labels['codec']} is void: {figure.reason}"
        for figure in _of(figures, FigureKind.TIME)
        if figure.is_void
    }
    yield from map(Paragraph, sorted(voids))


# --- times and ratios ------------------------------------------------------------------------


def _by_size(figures: Sequence[Figure], baseline: str) -> Iterator[Table]:
    ratios = _ratios(figures, baseline)
    for message, contract in _unique(
        (figure.labels["message"], figure.contract) for figure in ratios
    ):
        here = [
            figure
            for figure in figures
            if figure.labels.get("message") == message and figure.contract == contract
        ]
        sizes = sorted({figure.labels["size_bytes"] for figure in _ratios(here, baseline)})
        if contract in _BY_SIZE and len(sizes) >= _LEAST_SIZES:
            title = f"{message}, {contract}, by size: times as fast as {baseline}"
            yield _table(title, map(_size, sizes), _ratio_rows(here, baseline, "size_bytes", sizes))


def _by_contract(figures: Sequence[Figure], baseline: str) -> Iterator[Table]:
    for message, size in _places(_ratios(figures, baseline)):
        here = _at(figures, message, size)
        present = {figure.contract for figure in _ratios(here, baseline)}.difference(_TRIPS)
        contracts = [contract for contract in CONTRACTS if contract in present]
        if len(contracts) > len(_BY_SIZE):
            title = f"{message} of {_size(size)}: times as fast as {baseline}"
            rows = _ratio_rows(here, baseline, "contract", contracts)
            yield _table(title, map(_heading, contracts), rows)


def _heading(contract: str) -> str:
    """Return a contract as short as a column is."""
    return _SHORT.get(contract, contract.removeprefix("open+"))


def _by_transport(figures: Sequence[Figure], baseline: str) -> Table:
    """Return what transports leave of a codec's gain, a row per message and codec."""
    headings = [contract.removeprefix("round trip ") for contract in _TRIPS]
    trips = [figure for figure in figures if figure.contract in _TRIPS]
    carried = _ratios([figure for figure in trips if figure.contract in TRANSPORTED], baseline)
    rows = [
        [f"{message} {_size(size)}", *cells]
        for message, size in _places(carried)
        for cells in _ratio_rows(_at(trips, message, size), baseline, "contract", _TRIPS)
    ]
    return _table(f"Round trips: times as fast as {baseline}", ["codec", *headings], rows)


def _places(figures: Iterable[Figure]) -> list[tuple[str, int]]:
    return _unique((figure.labels["message"], figure.labels["size_bytes"]) for figure in figures)


def _at(figures: Iterable[Figure], message: str, size: int) -> list[Figure]:
    place = (message, size)
    return [
        figure
        for figure in figures
        if (figure.labels.get("message"), figure.labels.get("size_bytes")) == place
    ]


def _ratio_rows(
    figures: Sequence[Figure], baseline: str, label: str, columns: Sequence[Any]
) -> Iterator[list[Value]]:
    """Yield the baseline's times, and the ratios of each codec, behind their names."""
    times = {
        figure.labels[label]: figure
        for figure in _of(figures, FigureKind.TIME)
        if figure.labels["subject"] == baseline and not figure.labels["gc"]
    }
    yield ["baseline", *(figure_cell(times.get(column), time_text) for column in columns)]
    ratios = {
        (figure.labels["codec"], figure.labels[label]): figure
        for figure in _ratios(figures, baseline)
    }
    yield from _codec_rows(columns, ratios, digits)


def _codec_rows(
    columns: Sequence[Any], figures: Mapping[tuple[str, Any], Figure], text: Text
) -> Iterator[list[Value]]:
    """Yield a row per codec that has a value in some column."""
    for codec in CODECS:
        cells = [figure_cell(figures.get((codec, column)), text) for column in columns]
        if any(cell.value is not None for cell in cells):
            yield [codec, *cells]


def _ratios(figures: Iterable[Figure], baseline: str) -> list[Figure]:
    return [
        figure for figure in _of(figures, FigureKind.RATIO) if figure.labels["baseline"] == baseline
    ]


def _crossings(figures: Sequence[Figure]) -> Table:
    headings = ["contract", "codec", "over", "ahead", "95 % interval", "n", "reason"]
    # Those of the other codecs are in the result.
    rows = [
        _crossing_cells(figure, text, preposition)
        for kind, text, preposition in (
            (FigureKind.CROSSOVER, _size, "from"),
            (FigureKind.BREAK_EVEN, _percent, "up to"),
        )
        for figure in _of(figures, kind)
        if figure.labels["codec"] in _SHOWN
    ]
    return _table("Where Cap'n Proto gets ahead", headings, rows)


def _crossing_cells(figure: Figure, text: Text, preposition: str) -> list[Value]:
    labels = figure.labels
    size = labels.get("size_bytes")
    value = NOTHING if figure.value is None else f"{preposition} {text(figure.value)}"
    return [
        labels["message"] if size is None else f"{labels['message']} {_size(size)}",
        *(figure.contract, labels["codec"], labels["baseline"], Cell(value, figure.value)),
        *(interval_text(figure.low, figure.high, text), figure.n, figure.reason),
    ]


def _percent(value: float) -> str:
    return f"{digits(value)} %"


# --- weights ---------------------------------------------------------------------------------


def _memory(figures: Sequence[Figure]) -> Table:
    cells = {
        (figure.labels["codec"], f"{_place(figure)}, {figure.contract}"): figure
        for figure in _of(figures, FigureKind.MEMORY)
    }
    return _by_place("Memory: how far the peak of the resident set rose", cells)


def _sizes(figures: Sequence[Figure]) -> Iterator[Table]:
    known = _of(figures, FigureKind.SIZE)
    for method in _unique(figure.labels["method"] for figure in known):
        cells = {
            (figure.labels["codec"], _place(figure)): figure
            for figure in known
            if figure.labels["method"] == method
        }
        yield _by_place(f"Encoded size, {method}", cells)


def _by_place(title: str, cells: Mapping[tuple[str, str], Figure]) -> Table:
    places = _unique(place for _, place in cells)
    return _table(title, places, _codec_rows(places, cells, _size))


def _place(figure: Figure) -> str:
    return f"{figure.labels['message']} {_size(figure.labels['size_bytes'])}"


def _floors(figures: Sequence[Figure]) -> Table:
    known = [figure for figure in _of(figures, FigureKind.TIME) if figure.contract == FLOOR]
    sizes = sorted({figure.labels["size_bytes"] for figure in known})
    times = {(figure.labels["subject"], figure.labels["size_bytes"]): figure for figure in known}
    rows = [
        [subject, *(figure_cell(times.get((subject, size)), time_text) for size in sizes)]
        for subject in _unique(figure.labels["subject"] for figure in known)
    ]
    return _table("Floors: printed, never subtracted", map(_size, sizes), rows)


def _of(figures: Iterable[Figure], kind: FigureKind) -> list[Figure]:
    return [figure for figure in figures if figure.kind is kind]


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _size(size_bytes: float) -> str:
    return size_text(size_bytes, 3)


def _table(title: str, headings: Iterable[str], rows: Iterable[Sequence[Value]]) -> Table:
    return Table("codecs", title, ["", *headings], [row(*values) for values in rows])
