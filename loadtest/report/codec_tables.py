"""The figures of a codec benchmark on the terminal (no I/O).

A cell has how many times as fast as the baseline a codec is, the first row the baseline's own
time. Green is faster, red slower; the marks are those of `figures.LEGEND`.
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
from capnp_rig.loadtest.report.cells import Value, cell, row
from capnp_rig.loadtest.report.codec_view import (
    OWN,
    REFERENCE,
    CodecView,
    amount,
    grouped,
    matching,
)
from capnp_rig.loadtest.report.document import Paragraph, Part, Table
from capnp_rig.loadtest.report.figures import LEGEND, figure_cell
from capnp_rig.loadtest.report.rivals import codec_rival
from capnp_rig.loadtest.report.units import Text, digits, interval_text, size_text, time_text
from capnp_rig.loadtest.stats.figure import Figure, FigureKind
from capnp_rig.loadtest.stats.pair_statistics import Verdict

_BY_SIZE = (BUILD_ENCODE, READ_ONE, READ_ALL)
_LEAST_SIZES = 3
_SHORT: Mapping[str, str] = {SEGMENTS: "segments", COLD: "read 100% cold"}
_TRIPS = (ROUND_TRIP, *TRANSPORTED)


def codec_parts(figures: Iterable[Figure]) -> Iterator[Part]:
    """Yield what a benchmark found: by size, contract and transport, crossings, and weights.

    The strongest rival comes first. Sentences on the outcome of Cap'n Proto and on the codecs that
    failed verification come last.
    """
    view = CodecView(list(figures))
    tables: list[Table] = []
    for baseline in BASELINES:
        times = view.of_kind(FigureKind.TIME, subject=baseline, gc=False)
        ratios = view.of_kind(FigureKind.RATIO, baseline=baseline)
        tables += _by_size(times, ratios, baseline)
        tables += _by_contract(times, ratios, baseline)
        tables.append(_by_transport(times, ratios, baseline))
    tables += [_crossings(view), *_weights(view), _floors(view)]
    yield from codec_rival(view)
    yield from (table for table in tables if table.rows)
    yield Paragraph(f"{LEGEND}.")
    yield from _outcomes(view)


def _outcomes(view: CodecView) -> Iterator[Paragraph]:
    for name in CAPNP:
        ratios = view.of_kind(FigureKind.RATIO, baseline=ORJSON, codec=name)
        counts = Counter(figure.verdict for figure in ratios)
        if counts:
            told = ", ".join(
                f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict]
            )
            yield Paragraph(f"{name} against {ORJSON}: {told}.")
    voids = {
        f"{figure.labels['codec']} is void: {figure.reason}"
        for figure in view.of_kind(FigureKind.TIME)
        if figure.is_void
    }
    yield from map(Paragraph, sorted(voids))


# --- times and ratios ------------------------------------------------------------------------


def _by_size(times: Sequence[Figure], ratios: Sequence[Figure], baseline: str) -> Iterator[Table]:
    for (message, contract), here in grouped(ratios, "message", "contract").items():
        sizes = sorted({figure.labels["size_bytes"] for figure in here})
        if contract in _BY_SIZE and len(sizes) >= _LEAST_SIZES:
            own = matching(times, message=message, contract=contract)
            title = f"{message}, {contract}, by size: times as fast as {baseline}"
            yield _table(title, map(_size, sizes), _ratio_rows(own, here, "size_bytes", sizes))


def _by_contract(
    times: Sequence[Figure], ratios: Sequence[Figure], baseline: str
) -> Iterator[Table]:
    for (message, size), here in grouped(ratios, "message", "size_bytes").items():
        present = {figure.contract for figure in here}.difference(_TRIPS)
        contracts = [contract for contract in CONTRACTS if contract in present]
        if len(contracts) > len(_BY_SIZE):
            own = matching(times, message=message, size_bytes=size)
            title = f"{message} of {amount(message, size)}: times as fast as {baseline}"
            # As short as a column is.
            headings = [_SHORT.get(each, each.removeprefix("open+")) for each in contracts]
            yield _table(title, headings, _ratio_rows(own, here, "contract", contracts))


def _by_transport(times: Sequence[Figure], ratios: Sequence[Figure], baseline: str) -> Table:
    """Return what transports leave of a codec's gain, a row per message and codec."""
    headings = [contract.removeprefix("round trip ") for contract in _TRIPS]
    rows: list[list[Value]] = []
    carried = [figure for figure in ratios if figure.contract in TRANSPORTED]
    for message, size in grouped(carried, "message", "size_bytes"):
        place = {"message": message, "size_bytes": size}
        own, here = matching(times, **place), matching(ratios, **place)
        trips = _ratio_rows(own, here, "contract", _TRIPS)
        rows += [[f"{message} {_size(size)}", *cells] for cells in trips]
    return _table(f"Round trips: times as fast as {baseline}", ["codec", *headings], rows)


def _ratio_rows(
    times: Sequence[Figure], ratios: Sequence[Figure], label: str, columns: Sequence[Any]
) -> Iterator[list[Value]]:
    """Yield the baseline's times, and the ratios of each codec, behind their names."""
    by_column = {figure.labels[label]: figure for figure in times}
    yield ["baseline", *(figure_cell(by_column.get(column), time_text) for column in columns)]
    by_place = {(figure.labels["codec"], figure.labels[label]): figure for figure in ratios}
    yield from _codec_rows(columns, by_place, digits)


def _codec_rows(
    columns: Sequence[Any], figures: Mapping[tuple[str, Any], Figure], text: Text
) -> Iterator[list[Value]]:
    """Yield a row per codec that has a value in some column."""
    for codec in CODECS:
        cells = [figure_cell(figures.get((codec, column)), text) for column in columns]
        if any(each.value is not None for each in cells):
            yield [codec, *cells]


def _crossings(view: CodecView) -> Table:
    headings = ["contract", "codec", "over", "ahead", "95 % interval", "n", "reason"]
    rows = [
        _crossing_cells(figure, text, preposition)
        for kind, text, preposition in (
            (FigureKind.CROSSOVER, _size, "from"),
            (FigureKind.BREAK_EVEN, _percent, "up to"),
        )
        for figure in view.of_kind(kind)
        # Those of the other codecs are in the result.
        if figure.labels["codec"] in {OWN, REFERENCE}
    ]
    return _table("Where Cap'n Proto gets ahead", headings, rows)


def _crossing_cells(figure: Figure, text: Text, preposition: str) -> list[Value]:
    labels = figure.labels
    size = labels.get("size_bytes")
    return [
        labels["message"] if size is None else f"{labels['message']} {_size(size)}",
        figure.contract,
        labels["codec"],
        labels["baseline"],
        cell(figure.value, lambda value: f"{preposition} {text(value)}"),
        interval_text(figure.low, figure.high, text),
        figure.n,
        figure.reason,
    ]


def _percent(value: float) -> str:
    return f"{digits(value)} %"


# --- weights ---------------------------------------------------------------------------------


def _weights(view: CodecView) -> Iterator[Table]:
    """Yield memory, a column per message and contract, and encoded sizes, a table per method."""
    memory = {
        (figure.labels["codec"], f"{_place(figure)}, {figure.contract}"): figure
        for figure in view.of_kind(FigureKind.MEMORY)
    }
    yield _by_place("Memory: how far the peak of the resident set rose", memory)
    for (method,), figures in grouped(view.of_kind(FigureKind.SIZE), "method").items():
        sizes = {(figure.labels["codec"], _place(figure)): figure for figure in figures}
        yield _by_place(f"Encoded size, {method}", sizes)


def _by_place(title: str, cells: Mapping[tuple[str, str], Figure]) -> Table:
    places = list(dict.fromkeys(place for _, place in cells))
    return _table(title, places, _codec_rows(places, cells, _size))


def _place(figure: Figure) -> str:
    return f"{figure.labels['message']} {_size(figure.labels['size_bytes'])}"


def _floors(view: CodecView) -> Table:
    floors = [figure for figure in view.of_kind(FigureKind.TIME) if figure.contract == FLOOR]
    sizes = sorted({figure.labels["size_bytes"] for figure in floors})
    rows: list[list[Value]] = []
    for (subject,), figures in grouped(floors, "subject").items():
        times = {figure.labels["size_bytes"]: figure for figure in figures}
        rows.append([subject, *(figure_cell(times.get(size), time_text) for size in sizes)])
    return _table("Floors: printed, never subtracted", map(_size, sizes), rows)


def _size(size_bytes: float) -> str:
    return size_text(size_bytes, 3)


def _table(title: str, headings: Iterable[str], rows: Iterable[Sequence[Value]]) -> Table:
    return Table("codecs", title, ["", *headings], [row(*values) for values in rows])
